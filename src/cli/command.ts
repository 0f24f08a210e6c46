/**
 * The type of a command, and its help.
 *
 * @module
 */
import type { Arguments, OptionSpecs } from './arguments.js';
import type { ExitCode } from './exit.js';
import type { Io, Output } from './output.js';

export interface CommandContext {
  readonly args: Arguments;
  readonly out: Output;
  readonly io: Io;
}

export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** The possible arguments. */
  readonly usage: readonly string[];
  /** More help, printed below the usage. */
  readonly details?: string;
  readonly options: OptionSpecs;
  readonly examples: readonly string[];
  /** Returns the exit code if it is not 0. */
  run(context: CommandContext): Promise<ExitCode | undefined>;
}

/** Returns the help of one command. */
export function helpOf(command: Command): string {
  const { name, summary, usage, details, options, examples } = command;
  const width = Math.max(
    ...Object.entries(options).map(([key, { value }]) => label(key, value).length),
  );
  return [
    `${summary}.`,
    '',
    'Usage:',
    ...usage.map((form) => `  connect-drizzle ${name} ${form}`.trimEnd()),
    ...(details === undefined ? [] : ['', details]),
    '',
    'Options:',
    ...Object.entries(options).map(
      ([key, { value, help }]) => `  ${label(key, value).padEnd(width)}  ${help}`,
    ),
    '',
    'Examples:',
    ...examples.map((example) => `  ${example}`),
  ].join('\n');
}

function label(name: string, value: string | undefined): string {
  return value === undefined ? `--${name}` : `--${name} ${value}`;
}

/** Returns the list of all commands. */
export function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length));
  return [
    'Manages the session table of connect-drizzle.',
    '',
    'Usage: connect-drizzle COMMAND [OPTIONS]',
    '',
    'Commands:',
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    '',
    'All commands take --table, --schema, --json and --jsonl.',
    'All but `sql` take --url (default: DATABASE_URL).',
    '`connect-drizzle COMMAND --help` prints its options, with examples.',
    '',
    'Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 the table is missing or outdated,',
    '4 the table belongs to another package, 5 no connection.',
  ].join('\n');
}
