/**
 * The options of a store: their types, defaults and bounds. A value that cannot be meant is refused in
 * the constructor with a TypeError that says what came and what is taken.
 *
 * @module
 */
import { createSecretKey, KeyObject } from 'node:crypto';
import type { SessionData } from 'express-session';
import { InvalidArgumentError } from './errors.js';
import { DEFAULT_TABLE_NAME } from './names.js';
import type { AppTable } from './queries/view.js';
import { describe, isPlainObject, Reader, wrong } from './util/check.js';

/** Turns a session into text and back, in place of JSON. */
export interface Serializer {
  /** Gets a plain copy of the session, its cookie through `toJSON`. */
  stringify(session: object): string;
  /** Gives what `stringify` got. */
  parse(text: string): unknown;
}

/** Realtime: see `sync`. */
export interface SyncOptions {
  /** Where to listen, for an app whose pool goes through a transaction pooler, which LISTEN cannot. */
  readonly connectionString?: string;
  /** Seconds for which a heartbeat that came back lets the cache answer. @default 5 */
  readonly heartbeat?: number;
}

/** The cache of session texts in this process: see `cache`. */
export interface CacheOptions {
  /** Entries. @default 10000 */
  readonly max?: number;
  /** Seconds without a use after which an entry is released. @default 300 */
  readonly maxIdle?: number;
  /** Seconds between two searches for idle entries. @default 1 */
  readonly scavenge?: number;
  /** Seconds after which an entry is read anew, whoever changed the row. @default 60 */
  readonly maxAge?: number;
}

/** A key of 32 bytes: as they are, or as hex (64 digits) or base64 text. */
export type EncryptionKey = Uint8Array | KeyObject | string;

/** What belongs to a user: see `userId`. */
export type UserId = string | number;

/** The options of `new DrizzleStore(source, options)`. All durations are in seconds. */
export interface DrizzleStoreOptions {
  /** The app's own table: `sessionTable(…)`, or a `pgTable` that spreads `sessionColumns()`. */
  readonly table?: AppTable | undefined;
  /** The table's name, in place of `table`. @default 'sessions' */
  readonly tableName?: string | undefined;
  /** The table's Postgres schema. @default what the connection's search_path finds */
  readonly schemaName?: string | undefined;
  /** Makes the table at the first use, but no `table` of the app's. @default false; an embedded database always does */
  readonly createTableIfMissing?: boolean | undefined;
  /** How long a session lives whose cookie has no expiry. @default 86400 */
  readonly ttl?: number | ((session: SessionData) => number) | undefined;
  /** Makes `touch` do nothing. @default false */
  readonly disableTouch?: boolean | undefined;
  /** How far an expiry must move before a touch is written; written anyway in the second half of a lifetime. @default 0 */
  readonly touchAfter?: number | undefined;
  /** The mean time between two prunings, jittered by half; `false`: none. @default 900 */
  readonly pruneSessionInterval?: number | false | undefined;
  /** Gets what failed in the background, and why a promise of a method was rejected. @default console.error */
  readonly errorLog?: ((message: string, error?: unknown) => void) | undefined;
  /** @default JSON */
  readonly serializer?: Serializer | undefined;
  /** Closes the store. */
  readonly signal?: AbortSignal | undefined;
  /** Statements in flight at most, of reads and of writes each. @default 2, never above half of the pool */
  readonly lanes?: number | undefined;
  /** How long a call waits for the database. @default 30 */
  readonly timeout?: number | undefined;
  /** `false` behind a transaction pooler that cannot hold prepared statements. @default true */
  readonly preparedStatements?: boolean | undefined;
  /** Announces each change to the other processes and listens for theirs. @default false */
  readonly sync?: boolean | SyncOptions | undefined;
  /** Keeps session texts in this process; implies `sync`. @default false */
  readonly cache?: boolean | CacheOptions | undefined;
  /** Whom a session belongs to; fills `user_id`. Null and undefined: nobody. */
  readonly userId?: ((session: SessionData) => UserId | null | undefined) | undefined;
  /** The end of a session however often it is used (OWASP: absolute timeout). @default none */
  readonly maxLifetime?: number | undefined;
  /** A user's older sessions above so many are revoked at log-in. @default none */
  readonly maxSessionsPerUser?: number | undefined;
  /** AES-256-GCM keys: the current one, then older ones that still read. @default none */
  readonly encryptionKeys?: readonly EncryptionKey[] | undefined;
}

/** The options, checked, with their defaults. Durations are in seconds, as they came. */
export interface Settings {
  readonly table: AppTable | undefined;
  readonly tableName: string;
  readonly schemaName: string | undefined;
  readonly createTableIfMissing: boolean;
  readonly ttl: number | ((session: SessionData) => number);
  readonly disableTouch: boolean;
  readonly touchAfter: number;
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
  readonly encryptionKeys: readonly KeyObject[];
}

const DAY = 86_400;
const YEAR = 365 * DAY;

const OPTIONS = Object.keys({
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
} satisfies Record<keyof DrizzleStoreOptions, true>);

/** Where an option of a peer's went, for those who move in. */
const MOVED: Readonly<Record<string, string>> = {
  // connect-pg-simple, connect-pg-pool
  pool: 'pass the pool as the first argument: new DrizzleStore(pool, options)',
  pgPromise: 'pass its pool as the first argument: new DrizzleStore(db.$pool, options)',
  conString: 'pass the URL as the first argument: new DrizzleStore(url, options)',
  conObject: 'pass a pg.Pool as the first argument: new DrizzleStore(new Pool(…), options)',
  pruneSessionRandomizedInterval: 'pruneSessionInterval is always jittered, by half',
  // session-pouchdb-store
  purge: 'it is called pruneSessionInterval, in seconds',
  maxIdle: 'it is an option of the cache: cache: { maxIdle }, in seconds',
  scavenge: 'it is an option of the cache: cache: { scavenge }, in seconds',
  commit: 'each save is in the database when it answers',
  // connect-redis
  client: 'pass the pool or database as the first argument: new DrizzleStore(pool, options)',
  db: 'pass the database as the first argument: new DrizzleStore(db, options)',
  prefix: 'a table of its own does what a prefix did: tableName',
  disableTTL: 'every session ends: give the cookie a long maxAge',
  scanCount: 'sessions are listed in pages by the primary key',
  // connect-mongo
  mongoUrl: 'pass a postgres:// URL as the first argument: new DrizzleStore(url, options)',
  clientPromise: 'pass the pool or database as the first argument: new DrizzleStore(pool, options)',
  mongoOptions: 'pass a pg.Pool as the first argument: new DrizzleStore(new Pool(…), options)',
  dbName: 'it is part of the URL',
  collectionName: 'it is called tableName',
  autoRemove: 'it is called pruneSessionInterval, in seconds; false: none',
  autoRemoveInterval: 'it is called pruneSessionInterval, in seconds',
  stringify: 'a session is stored as JSON, or as serializer makes it',
  serialize: 'it is serializer: { stringify, parse }',
  unserialize: 'it is serializer: { stringify, parse }',
  crypto: 'encryptionKeys does what it did',
  cryptoAdapter: 'encryptionKeys does what it did',
  timestamps: 'they are always there: created_at, last_seen_at',
  transformId: 'what is stored is always a hash of the sid: idOf(sid)',
  writeOperationOptions: "durability is the server's: synchronous_commit",
};

/** Checks options and fills in the defaults. */
export function settingsFrom(options: DrizzleStoreOptions): Settings {
  if (!isPlainObject(options)) {
    throw new InvalidArgumentError(`options must be an object, but got ${describe(options)}`);
  }
  const read = new Reader(options, '');
  read.only(OPTIONS, MOVED);
  const {
    table,
    ttl = DAY,
    touchAfter = 0,
    pruneSessionInterval = 900,
    lanes = 2,
    timeout = 30,
  } = options;
  if (table !== undefined && (options.tableName ?? options.schemaName) !== undefined) {
    throw new InvalidArgumentError('pass either table or tableName and schemaName, but got both');
  }
  if (table !== undefined && options.createTableIfMissing === true) {
    throw new InvalidArgumentError(
      "createTableIfMissing cannot make the app's own table: make it with drizzle-kit",
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
      'maxSessionsPerUser needs userId, a function that tells whose a session is',
    );
  }
  return {
    table,
    tableName: read.identifier('tableName', options.tableName) ?? DEFAULT_TABLE_NAME,
    schemaName: read.identifier('schemaName', options.schemaName),
    createTableIfMissing: read.boolean('createTableIfMissing', options.createTableIfMissing, false),
    ttl: typeof ttl === 'function' ? ttl : read.seconds('ttl', ttl, YEAR),
    disableTouch: read.boolean('disableTouch', options.disableTouch, false),
    touchAfter: read.seconds('touchAfter', touchAfter, YEAR, 0),
    pruneSessionInterval:
      pruneSessionInterval === false
        ? false
        : read.seconds('pruneSessionInterval', pruneSessionInterval, YEAR, undefined, ' or false'),
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
    encryptionKeys: keysFrom(options.encryptionKeys),
  };
}

function logToConsole(message: string, error?: unknown): void {
  if (error === undefined) console.error(message);
  else console.error(message, error);
}

function cacheFrom(cache: DrizzleStoreOptions['cache']): Required<CacheOptions> | undefined {
  if (cache === undefined || cache === false) return undefined;
  const options = cache === true ? {} : cache;
  if (!isPlainObject(options)) throw wrong('cache', 'true, false or an object', cache);
  const read = new Reader(options, 'cache.');
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
      'a cache needs sync, but sync is false: its entries would go stale',
    );
  }
  if ((sync === undefined && !implied) || sync === false) return undefined;
  const options = sync === undefined || sync === true ? {} : sync;
  if (!isPlainObject(options)) throw wrong('sync', 'true, false or an object', sync);
  const read = new Reader(options, 'sync.');
  read.only(['connectionString', 'heartbeat']);
  const { connectionString, heartbeat = 5 } = options;
  if (connectionString !== undefined && !isPostgresUrl(connectionString)) {
    throw wrong(
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
    throw wrong('serializer', 'an object with the functions stringify and parse', serializer);
  }
  return serializer;
}

function signalFrom(signal: AbortSignal | undefined): AbortSignal | undefined {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw wrong('signal', 'an AbortSignal', signal);
  return signal;
}

function keysFrom(keys: readonly EncryptionKey[] | undefined): readonly KeyObject[] {
  if (keys === undefined) return [];
  if (!Array.isArray(keys) || keys.length === 0) {
    throw new InvalidArgumentError(
      'encryptionKeys must be an array with the current key first, but got something else or an empty one',
    );
  }
  return keys.map((key: EncryptionKey, at) => keyFrom(key, at));
}

/** A key's value is never part of a message. */
function keyFrom(key: unknown, at: number): KeyObject {
  const bytes = keyBytes(key);
  if (bytes?.byteLength === 32) return createSecretKey(bytes);
  const came = bytes === undefined ? typeof key : `${bytes.byteLength} bytes`;
  throw new InvalidArgumentError(
    `encryptionKeys[${at}] must be 32 bytes as a Buffer, a secret KeyObject, hex or base64, but got ${came}`,
  );
}

function keyBytes(key: unknown): Uint8Array | undefined {
  if (key instanceof Uint8Array) return key;
  if (key instanceof KeyObject) return key.type === 'secret' ? key.export() : undefined;
  if (typeof key !== 'string') return undefined;
  if (/^[0-9a-f]{64}$/i.test(key)) return Buffer.from(key, 'hex');
  if (/^[A-Za-z0-9+/_-]+={0,2}$/.test(key)) return Buffer.from(key, 'base64');
  return undefined;
}
