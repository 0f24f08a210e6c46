/**
 * The command line: finds the command, runs it, and turns its errors into one line and an exit code.
 *
 * @module
 */
import { createRequire } from 'node:module';
import { readArguments } from './arguments.js';
import { type Command, helpOf, overview } from './command.js';
import { EXIT, type ExitCode, failureOf, isExpected, usageError } from './exit.js';
import { importSessions } from './import-command.js';
import { type Io, Output } from './output.js';
import { rekeyTable } from './rekey-command.js';
import { prune, revoke } from './revoke-commands.js';
import { exportUser, list, show, users } from './session-commands.js';
import { migrateTable, printSql, status } from './table-commands.js';
import { watch } from './watch-command.js';

const COMMANDS: readonly Command[] = [
  status,
  migrateTable,
  printSql,
  list,
  show,
  users,
  revoke,
  prune,
  exportUser,
  watch,
  importSessions,
  rekeyTable,
];

/** Runs a command line, without the program's own name. Returns the exit code and never rejects. */
export async function main(argv: readonly string[], io: Io): Promise<ExitCode> {
  const out = new Output(io, 'text');
  try {
    return (await run(argv, io, out)) ?? EXIT.ok;
  } catch (error) {
    const { exitCode, message } = failureOf(error);
    const [line = ''] = message.split('\n');
    out.error(isExpected(error) ? line : `unexpected error: ${withoutPassword(line, argv, io)}`);
    return exitCode;
  }
}

async function run(argv: readonly string[], io: Io, out: Output): Promise<ExitCode | undefined> {
  const [name, ...rest] = argv;
  if (name === '--version' || name === '-v') {
    const { version }: { version: string } = createRequire(import.meta.url)('../../package.json');
    out.text(version);
    return undefined;
  }
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const [topic] = rest;
    out.text(topic === undefined ? overview(COMMANDS) : helpOf(commandOf(topic)));
    return name === undefined ? EXIT.usage : undefined;
  }
  const command = commandOf(name);
  if (rest.includes('--help') || rest.includes('-h')) {
    out.text(helpOf(command));
    return undefined;
  }
  const args = readArguments(rest, command.options);
  return command.run({ args, io, out: new Output(io, args.format) });
}

function commandOf(name: string): Command {
  const command = COMMANDS.find((each) => each.name === name);
  if (command !== undefined) return command;
  const names = COMMANDS.map((each) => each.name).join(', ');
  const problem = name.startsWith('-') ? 'the command must be first' : 'there is no such command';
  throw usageError(`${problem}; the commands are ${names}`);
}

/** Removes the password of the database's URL, in case a message of a driver contains it. */
function withoutPassword(text: string, argv: readonly string[], { env }: Io): string {
  const urls = [...argv, env.DATABASE_URL ?? ''].map((each) => each.replace(/^--url=/, ''));
  const passwords = urls.flatMap((url) => {
    const written = /^\w+:\/\/[^:/@]*:([^@]+)@/.exec(url)?.[1];
    return written === undefined ? [] : [written, decoded(written)];
  });
  return passwords.reduce((shown, password) => shown.replaceAll(password, '***'), text);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
