/**
 * Reads the arguments of a command.
 *
 * @module
 */
import { parseArgs } from 'node:util';
import { sqlState } from '../errors.js';
import { isId } from '../session/id.js';
import { usageError } from './exit.js';
import type { Format } from './output.js';

/** An option of a command. */
export interface OptionSpec {
  /** The placeholder for its value in the help. Without it, the option is a flag. */
  readonly value?: string;
  readonly help: string;
  /** The value of the option if it is passed without a value. */
  readonly fallback?: string;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec>>;

/** Options of every command that uses a database. */
export const CONNECTION_OPTIONS: OptionSpecs = {
  url: { value: 'URL', help: 'the database: postgres://…, or a folder (default: DATABASE_URL)' },
  table: { value: 'NAME', help: 'the session table (default: sessions)' },
  schema: { value: 'NAME', help: 'its Postgres schema (default: from the search_path)' },
  config: {
    value: 'FILE',
    help: "a module that exports the store's options as its default (table names, encryptionKeys …)",
  },
};

export const OUTPUT_OPTIONS: OptionSpecs = {
  json: { help: 'print JSON' },
  jsonl: { help: 'print JSON, one item per line' },
  help: { help: 'print this help' },
};

export const WRITE_OPTIONS: OptionSpecs = {
  'dry-run': { help: 'print what would be done, and change nothing' },
};

export const BULK_OPTIONS: OptionSpecs = {
  ...WRITE_OPTIONS,
  yes: { help: 'do not ask for confirmation' },
};

/** The arguments of a command. */
export class Arguments {
  /** Arguments that are neither options nor their values. */
  readonly positionals: readonly string[];
  readonly #values: Readonly<Record<string, string | boolean | undefined>>;

  constructor(
    values: Arguments['positionals'],
    options: Record<string, string | boolean | undefined>,
  ) {
    this.positionals = values;
    this.#values = options;
  }

  flag(name: string): boolean {
    return this.#values[name] === true;
  }

  /** @throws {CliError} for an empty value, which probably is an unset variable of a script */
  text(name: string): string | undefined {
    const value = this.#values[name];
    if (value === '') throw usageError(`--${name} is empty`);
    return typeof value === 'string' ? value : undefined;
  }

  integer(name: string, fallback: number, max: number): number {
    const text = this.text(name);
    if (text === undefined) return fallback;
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < 1 || value > max) {
      throw usageError(`--${name} must be a whole number from 1 to ${max}`);
    }
    return value;
  }

  id(name: string): string | undefined {
    const text = this.text(name);
    if (text !== undefined && !isId(text)) throw usageError(`--${name} must be ${AN_ID}`);
    return text;
  }

  /** Returns a time in milliseconds since 1970. */
  time(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const date = timeIn(text);
    if (date === undefined) {
      throw usageError(`--${name} must be a time such as 14:00 or 2026-05-04T14:00:00Z`);
    }
    return date;
  }

  get format(): Format {
    if (this.flag('jsonl')) return 'jsonl';
    return this.flag('json') ? 'json' : 'text';
  }

  /** @throws {CliError} if there are any */
  noPositionals(): void {
    const [first] = this.positionals;
    if (first !== undefined) throw usageError(`unexpected argument '${first}'`);
  }

  /** Returns the ids among the arguments. @throws {CliError} for any other argument */
  ids(): readonly string[] {
    for (const each of this.positionals) {
      // Do not print it, because it may be a sid.
      if (!isId(each)) throw usageError(`an argument is not ${AN_ID}`);
    }
    return this.positionals;
  }
}

/** Returns a time, which is local if it has no zone, and today if it has no date. `undefined` if there is no such time. */
function timeIn(text: string): number | undefined {
  const [, hour, minute, second = 0] = /^(\d{1,2}):(\d\d)(?::(\d\d))?$/.exec(text) ?? [];
  if (hour !== undefined) {
    const isTime = Number(hour) < 24 && Number(minute) < 60 && Number(second) < 60;
    return isTime
      ? new Date().setHours(Number(hour), Number(minute), Number(second), 0)
      : undefined;
  }
  const [, day, clock = '00:00'] = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d.*))?$/.exec(text) ?? [];
  // `Date` takes 30 February for 2 March.
  const midnight = new Date(`${day}T00:00Z`).getTime();
  const isDay = !Number.isNaN(midnight) && new Date(midnight).toISOString().startsWith(`${day}T`);
  const date = isDay ? new Date(`${day}T${clock}`).getTime() : Number.NaN;
  return Number.isNaN(date) ? undefined : date;
}

const AN_ID = 'a session id: 43 characters, as `connect-drizzle list` prints them';

/**
 * Parses the arguments of a command.
 *
 * @throws {CliError}
 */
export function readArguments(args: readonly string[], specs: OptionSpecs): Arguments {
  const options = Object.fromEntries(
    Object.entries(specs).map(([name, { value }]) => [
      name,
      { type: value === undefined ? ('boolean' as const) : ('string' as const) },
    ]),
  );
  const { ids, rest } = withoutIds(args, specs);
  try {
    const { values, positionals } = parseArgs({
      args: [...withFallbacks(rest, specs)],
      options,
      allowPositionals: true,
      strict: true,
    });
    const simple = Object.entries(values).map(
      ([name, value]) => [name, Array.isArray(value) ? undefined : value] as const,
    );
    return new Arguments([...ids, ...positionals], Object.fromEntries(simple));
  } catch (error) {
    // The messages of `parseArgs` contain the option, not its value.
    if (error instanceof Error && sqlState(error)?.startsWith('ERR_PARSE_ARGS')) {
      throw usageError(error.message.split('\n')[0] ?? '');
    }
    throw error;
  }
}

/**
 * Separates ids from the other arguments, because one in 64 begins with `-`, and `parseArgs` takes it for an option. An id
 * that is an option's value is joined with its option.
 */
function withoutIds(args: readonly string[], specs: OptionSpecs) {
  const ids: string[] = [];
  const rest: string[] = [];
  for (let at = 0; at < args.length; at += 1) {
    const arg = args[at] ?? '';
    const next = args[at + 1];
    if (arg === '--') {
      rest.push(...args.slice(at));
      break;
    }
    const takesValue = arg.startsWith('--') && specs[arg.slice(2)]?.value !== undefined;
    if (takesValue && next !== undefined && isId(next)) {
      rest.push(`${arg}=${next}`);
      at += 1;
    } else if (isId(arg)) ids.push(arg);
    else rest.push(arg);
  }
  return { ids, rest };
}

/** Adds the default value to options that may have none. */
function withFallbacks(args: readonly string[], specs: OptionSpecs): readonly string[] {
  return args.map((arg, at) => {
    const fallback = arg.startsWith('--') ? specs[arg.slice(2)]?.fallback : undefined;
    const next = args[at + 1];
    const isAlone = next === undefined || next.startsWith('-');
    return fallback !== undefined && isAlone ? `${arg}=${fallback}` : arg;
  });
}
