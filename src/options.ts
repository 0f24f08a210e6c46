/**
 * The options of a store: types, defaults and limits. The constructor throws a `TypeError` for an invalid value, naming
 * the value it got and the values it accepts.
 *
 * @module
 */
import type { KeyObject } from 'node:crypto';
import type { AnyPgColumn, PgTable } from 'drizzle-orm/pg-core';
import type { SessionData } from 'express-session';
import { InvalidArgumentError, invalidValue } from './errors.js';
import { DEFAULT_TABLE_NAME } from './names.js';
import { OptionReader, OTHER_STORES, type PLAINTEXT } from './option-reader.js';
import { isPlainObject } from './util/guards.js';

/** The app's own table: the session columns, and any others. */
export type AppTable = PgTable &
  Readonly<Record<'id' | 'data' | 'userId' | 'expiresAt', AnyPgColumn>>;

/** Converts a session to a string and back, as an alternative to JSON. */
export interface Serializer {
  /** Returns a string for a session. It gets a shallow copy, with the cookie as plain data. */
  stringify(session: object): string;
  /** Returns a plain object equal to the one that `stringify` got. */
  parse(text: string): unknown;
}

/** How a store receives changes from other processes: see `sync`. */
export interface SyncOptions {
  /** The database to listen on, if the app's pool uses a transaction pooler, which does not support LISTEN. */
  readonly connectionString?: string;
  /**
   * Seconds within which the store notices a lost listener. A cached session is out of date for at most this time.
   * @default 5
   */
  readonly heartbeat?: number;
}

/** The cache of sessions in this process: see `cache`. */
export interface CacheOptions {
  /** Number of entries. @default 10000 */
  readonly max?: number;
  /** Seconds without a read after which an entry is removed. @default 300 */
  readonly maxIdle?: number;
  /** Seconds between two removals of idle entries. @default 1 */
  readonly scavenge?: number;
  /** Seconds after which an entry is read again, even if no change was announced. @default 60 */
  readonly maxAge?: number;
}

/**
 * A key of 32 bytes: bytes, a secret `KeyObject`, or a string of 64 hex digits or base64. `'plaintext'` instead of a key
 * means no encryption; use it while `rekey()` encrypts an existing table.
 */
export type EncryptionKey = Uint8Array | KeyObject | string;

/** The statements that a store sends: see `engine`. */
export type EngineChoice = 'auto' | 'postgres' | 'portable';

/** Identifies a user: see `userId`. */
export type UserId = string | number;

/** The options of `new DrizzleStore(source, options)`. All durations are in seconds. */
export interface DrizzleStoreOptions {
  /** The app's own table: `sessionTable(…)`, or a `pgTable` with `sessionColumns()`. */
  readonly table?: AppTable | undefined;
  /** Name of the table (not with `table`). @default 'sessions' */
  readonly tableName?: string | undefined;
  /** Postgres schema of the table (not with `table`). @default the first schema on the search_path that has the table */
  readonly schemaName?: string | undefined;
  /** Creates the table on first use (not with `table`). @default false; without `table`, true for an embedded database */
  readonly createTableIfMissing?: boolean | undefined;
  /** Lifetime of a session in seconds, if its cookie has no `maxAge`. @default 86400 */
  readonly ttl?: number | ((session: SessionData) => number) | undefined;
  /** Makes `touch` do nothing. @default false */
  readonly disableTouch?: boolean | undefined;
  /**
   * Skips a touch unless it moves the expiry by at least this many seconds, or less than half of the lifetime is left.
   * `'auto'`: 60, but 0 for sessions that live for less than an hour. @default 'auto'
   */
  readonly touchAfter?: number | 'auto' | undefined;
  /** Mean seconds between two deletions of expired sessions, randomized by 50 %; `false` never deletes. @default 900 */
  readonly pruneSessionInterval?: number | false | undefined;
  /** Called for each error of background work, and for each promise of a method that rejects. @default console.error */
  readonly errorLog?: ((message: string, error?: unknown) => void) | undefined;
  /** Converts sessions to strings and back. @default JSON */
  readonly serializer?: Serializer | undefined;
  /** Aborting it closes the store. */
  readonly signal?: AbortSignal | undefined;
  /** Maximum number of statements in flight, for reads and for writes each. @default 2, at most half of the pool */
  readonly lanes?: number | undefined;
  /** Total time a call may take, in seconds. @default 30 */
  readonly timeout?: number | undefined;
  /** Set it to `false` behind a transaction pooler that does not support prepared statements. @default true */
  readonly preparedStatements?: boolean | undefined;
  /** Announces changes to other processes and listens for theirs. @default false */
  readonly sync?: boolean | SyncOptions | undefined;
  /** Keeps sessions in the memory of this process. Turns on `sync`. @default false */
  readonly cache?: boolean | CacheOptions | undefined;
  /** Returns the session's owner for the column `user_id`; null or undefined for an anonymous session. */
  readonly userId?: ((session: SessionData) => UserId | null | undefined) | undefined;
  /** Absolute lifetime in seconds; activity does not extend it (OWASP calls it absolute timeout). @default none */
  readonly maxLifetime?: number | undefined;
  /** Number of sessions a user may have; a log-in ends the least recently used ones. Needs `userId`. @default none */
  readonly maxSessionsPerUser?: number | undefined;
  /** AES-256-GCM keys: the first encrypts, all decrypt. @default none */
  readonly encryptionKeys?: readonly EncryptionKey[] | undefined;
  /** While the database is unavailable: fails requests, or lets express-session skip sessions. @default 'error' */
  readonly whenUnavailable?: 'error' | 'skip' | undefined;
  /**
   * The kind of statements. `'postgres'`: many rows in one statement, for PostgreSQL itself. `'portable'`: one row per
   * statement, by primary key, for Citus, YugabyteDB, CockroachDB, Aurora DSQL, and proxies that shard, such as PgDog.
   * `'auto'` asks the server. @default 'auto'
   */
  readonly engine?: EngineChoice | undefined;
}

/** The options of a store on a source without connections, such as neon-http and pg-proxy. */
export interface ConnectionlessOptions extends DrizzleStoreOptions {
  readonly sync?: false | undefined;
  readonly cache?: false | undefined;
  readonly createTableIfMissing?: false | undefined;
}

/** The validated options, with their defaults. Durations are in seconds. */
export interface Settings {
  readonly table: AppTable | undefined;
  readonly tableName: string;
  readonly schemaName: string | undefined;
  readonly createTableIfMissing: boolean;
  readonly ttl: number | ((session: SessionData) => number);
  readonly disableTouch: boolean;
  readonly touchAfter: number | 'auto';
  readonly pruneSessionInterval: number | false;
  readonly errorLog: (message: string, error?: unknown) => void;
  readonly serializer: Serializer | undefined;
  readonly signal: AbortSignal | undefined;
  readonly lanes: number;
  readonly timeout: number;
  readonly preparedStatements: boolean;
  readonly sync:
    | { readonly connectionString: string | undefined; readonly heartbeat: number }
    | undefined;
  readonly cache: Required<CacheOptions> | undefined;
  readonly userId: ((session: SessionData) => UserId | null | undefined) | undefined;
  readonly maxLifetime: number | undefined;
  readonly maxSessionsPerUser: number | undefined;
  readonly encryptionKeys: readonly (KeyObject | typeof PLAINTEXT)[];
  readonly whenUnavailable: 'error' | 'skip';
  readonly engine: EngineChoice;
}

const DAY = 86_400;
const YEAR = 365 * DAY;

/** @internal The names of all options. */
export const OPTIONS: readonly string[] = Object.keys({
  table: true,
  tableName: true,
  schemaName: true,
  createTableIfMissing: true,
  ttl: true,
  disableTouch: true,
  touchAfter: true,
  pruneSessionInterval: true,
  errorLog: true,
  serializer: true,
  signal: true,
  lanes: true,
  timeout: true,
  preparedStatements: true,
  sync: true,
  cache: true,
  userId: true,
  maxLifetime: true,
  maxSessionsPerUser: true,
  encryptionKeys: true,
  whenUnavailable: true,
  engine: true,
} satisfies Record<keyof DrizzleStoreOptions, true>);

/**
 * Validates options and fills in the defaults.
 *
 * @throws {InvalidArgumentError}
 */
export function settingsFrom(options: DrizzleStoreOptions): Settings {
  if (!isOptions(options)) {
    throw invalidValue('options', 'an object', options);
  }
  const read = new OptionReader(options, '');
  read.only(OPTIONS, OTHER_STORES);
  const {
    table,
    ttl = DAY,
    touchAfter = 'auto',
    pruneSessionInterval = 900,
    lanes = 2,
    timeout = 30,
  } = options;
  if (table !== undefined && (options.tableName ?? options.schemaName) !== undefined) {
    throw new InvalidArgumentError('pass either table or tableName and schemaName, but got both');
  }
  if (table !== undefined && options.createTableIfMissing === true) {
    throw new InvalidArgumentError(
      "createTableIfMissing cannot create the app's own table: create it with drizzle-kit",
    );
  }
  const cache = cacheFrom(options.cache);
  const userId = read.function('userId', options.userId);
  const maxSessionsPerUser =
    options.maxSessionsPerUser === undefined
      ? undefined
      : read.integer('maxSessionsPerUser', options.maxSessionsPerUser, 1, 1_000_000);
  if (maxSessionsPerUser !== undefined && userId === undefined) {
    throw new InvalidArgumentError(
      'maxSessionsPerUser needs userId, a function that returns the user of a session',
    );
  }
  return {
    table,
    tableName: read.tableName('tableName', options.tableName) ?? DEFAULT_TABLE_NAME,
    schemaName: read.identifier('schemaName', options.schemaName),
    createTableIfMissing: read.boolean('createTableIfMissing', options.createTableIfMissing, false),
    ttl: typeof ttl === 'function' ? ttl : read.seconds('ttl', ttl, YEAR),
    disableTouch: read.boolean('disableTouch', options.disableTouch, false),
    touchAfter:
      touchAfter === 'auto'
        ? 'auto'
        : read.seconds('touchAfter', touchAfter, YEAR, 0, " or 'auto'"),
    pruneSessionInterval:
      pruneSessionInterval === false
        ? false
        : read.seconds('pruneSessionInterval', pruneSessionInterval, DAY, undefined, ' or false'),
    errorLog: read.function('errorLog', options.errorLog) ?? logToConsole,
    serializer: serializerFrom(options.serializer),
    signal: signalFrom(options.signal),
    lanes: read.integer('lanes', lanes, 1, 64),
    timeout: read.seconds('timeout', timeout, DAY),
    preparedStatements: read.boolean('preparedStatements', options.preparedStatements, true),
    sync: syncFrom(options.sync, cache !== undefined),
    cache,
    userId,
    maxLifetime:
      options.maxLifetime === undefined
        ? undefined
        : read.seconds('maxLifetime', options.maxLifetime, YEAR),
    maxSessionsPerUser,
    encryptionKeys: read.keys('encryptionKeys', options.encryptionKeys),
    whenUnavailable: read.oneOf(
      'whenUnavailable',
      options.whenUnavailable,
      ['error', 'skip'],
      'error',
    ),
    engine: read.oneOf('engine', options.engine, ['auto', 'postgres', 'portable'], 'auto'),
  };
}

/** Returns a plain boolean, because a type guard would change the type of the options. */
function isOptions(value: unknown): boolean {
  return isPlainObject(value);
}

function logToConsole(message: string, error?: unknown): void {
  if (error === undefined) console.error(message);
  else console.error(message, error);
}

function cacheFrom(cache: DrizzleStoreOptions['cache']): Required<CacheOptions> | undefined {
  if (cache === undefined || cache === false) return undefined;
  const options = cache === true ? {} : cache;
  if (!isOptions(options)) throw invalidValue('cache', 'true, false or an object', cache);
  const read = new OptionReader(options, 'cache.');
  read.only(['max', 'maxIdle', 'scavenge', 'maxAge']);
  const { max = 10_000, maxIdle = 300, scavenge = 1, maxAge = 60 } = options;
  return {
    max: read.integer('max', max, 1, 100_000_000),
    maxIdle: read.seconds('maxIdle', maxIdle, DAY),
    scavenge: read.seconds('scavenge', scavenge, DAY),
    maxAge: read.seconds('maxAge', maxAge, DAY),
  };
}

function syncFrom(sync: DrizzleStoreOptions['sync'], implied: boolean): Settings['sync'] {
  if (sync === false && implied) {
    throw new InvalidArgumentError(
      'cache needs sync, but sync is false: cached sessions would become stale',
    );
  }
  if ((sync === undefined && !implied) || sync === false) return undefined;
  const options = sync === undefined || sync === true ? {} : sync;
  if (!isOptions(options)) throw invalidValue('sync', 'true, false or an object', sync);
  const read = new OptionReader(options, 'sync.');
  read.only(['connectionString', 'heartbeat']);
  const { connectionString, heartbeat = 5 } = options;
  if (connectionString !== undefined && !isPostgresUrl(connectionString)) {
    throw invalidValue(
      'sync.connectionString',
      "a URL 'postgres://…' or 'postgresql://…'",
      connectionString,
    );
  }
  return { connectionString, heartbeat: read.seconds('heartbeat', heartbeat, 3600) };
}

function isPostgresUrl(value: unknown): boolean {
  return typeof value === 'string' && /^postgres(ql)?:\/\//.test(value);
}

function serializerFrom(serializer: Serializer | undefined): Serializer | undefined {
  if (serializer === undefined) return undefined;
  if (typeof serializer?.stringify !== 'function' || typeof serializer.parse !== 'function') {
    throw invalidValue(
      'serializer',
      'an object with the functions stringify and parse',
      serializer,
    );
  }
  return serializer;
}

function signalFrom(signal: AbortSignal | undefined): AbortSignal | undefined {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw invalidValue('signal', 'an AbortSignal', signal);
  return signal;
}
