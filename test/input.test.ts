/** Invalid and unexpected input: arguments, options, sids, sessions. */
import { createSecretKey, generateKeyPairSync } from 'node:crypto';
import { inspect } from 'node:util';
import {
  DriverMissingError,
  DrizzleStore,
  InvalidArgumentError,
  InvalidSidError,
  idOf,
  NotSerializableError,
  SessionStoreError,
  StatementError,
  sessionColumns,
  sessionTable,
  TableMissingError,
} from 'connect-drizzle';
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql-proxy';
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres';
import { jsonb, pgTable, text } from 'drizzle-orm/pg-core';
import { drizzle as drizzleSqlite } from 'drizzle-orm/sqlite-proxy';
import session, { type SessionData } from 'express-session';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { loadError } from '../src/drivers/load.js';
import { property } from '../src/util/guards.js';
import { freshDatabase, type TestDatabase, withDatabase } from './support/database.js';
import { freshPglite } from './support/pglite.js';
import {
  asSession,
  callbacksOf,
  contentOf,
  endOf,
  promised,
  sessionUntil,
  sessionWith,
} from './support/sessions.js';

let database: TestDatabase;
let pool: pg.Pool;

beforeAll(async () => {
  database = await freshDatabase();
  pool = database.pool();
});
afterAll(() => database.drop());

/** Calls the constructor with any arguments, as untyped code can. */
function construct(...args: unknown[]): DrizzleStore {
  return Reflect.construct(DrizzleStore, args);
}

function refusal(make: () => unknown): Error {
  try {
    make();
  } catch (error) {
    if (error instanceof Error) return error;
  }
  throw new Error('nothing was thrown');
}

let tables = 0;
/** A store on a table of its own. */
function freshStore(options: object = {}): DrizzleStore {
  tables += 1;
  const errorLog = () => {};
  const own = { tableName: `sessions_${tables}`, createTableIfMissing: true, errorLog };
  return construct(pool, { ...own, ...options });
}

test('the error of a missing driver names its package', () => {
  const missing = (message: string) =>
    loadError('pg', Object.assign(new Error(message), { code: 'MODULE_NOT_FOUND' }));
  const needs = (name: string) => new DriverMissingError(name);
  expect(needs('pg').message).toMatch(/needs the package pg, .*: npm install pg /);
  expect(missing("Cannot find module 'pg'\nRequire stack: …")).toEqual(needs('pg'));
  expect(missing("Cannot find package 'pg-pool' imported from pg")).toEqual(needs('pg-pool'));
  // Yarn's Plug'n'Play.
  expect(missing('Your application tried to access pg, but it isn’t declared')).toEqual(
    needs('pg'),
  );
  const other = new Error('a syntax error in pg');
  expect(loadError('pg', other)).toBe(other);
});

describe('the constructor', () => {
  const taken =
    'The source of a session store must be a Drizzle database of Postgres, a pg.Pool, a PGlite, ' +
    "a postgres-js sql, an SQL of Bun, a 'postgres://…' URL, a folder ('./data'), or nothing or " +
    "'memory://' for an in-memory store, but got ";
  const aTransaction =
    'a transaction; pass the database itself, because a ROLLBACK would also undo saved sessions';
  const aClient =
    "a single pg client; pass a pg.Pool, because the app's ROLLBACK would also undo saved sessions";
  const neither = "a string that is neither a URL nor a folder; write a relative folder as './…'";
  const onlyOptions =
    'options without a source; pass it first: new DrizzleStore(pool, options), or for an in-memory store ' +
    "new DrizzleStore('memory://', options)";
  const aConnection =
    'the settings of a connection; pass a URL or a pg.Pool: new DrizzleStore(new Pool(settings), options)';
  const unset = "(an unset variable?); for an in-memory store pass nothing or 'memory://'";

  const wrong: [what: string, source: unknown, came: string][] = [
    ['an explicit undefined', undefined, `undefined ${unset}`],
    ['null', null, `null ${unset}`],
    ['an empty string', '', 'an empty string'],
    ["the string 'undefined'", 'undefined', "the string 'undefined' (an unset variable?)"],
    ["the string 'null'", 'null', "the string 'null' (an unset variable?)"],
    [
      'a URL in quotation marks',
      '"postgres://localhost/app"',
      'a URL or a path with quotation marks around it',
    ],
    ['a path in quotation marks', "'./data'", 'a URL or a path with quotation marks around it'],
    [
      'a connection string of libpq',
      'host=localhost dbname=app',
      "a 'host=…' connection string; write it as a URL",
    ],
    [
      'a connection string of libpq with another first key',
      'dbname = app password=secret',
      "a 'host=…' connection string; write it as a URL",
    ],
    ['a URL of MySQL', 'mysql://root:secret@localhost/app', "the scheme 'mysql:'"],
    ['a URL of Redis', 'redis://localhost', "the scheme 'redis:'"],
    ['a URL of MongoDB', 'mongodb+srv://localhost/app', "the scheme 'mongodb+srv:'"],
    ['a URL of a web page', 'https://example.org', "the scheme 'https:'"],
    ['a URL of a file', 'file:///var/lib/app', "the scheme 'file:'"],
    ['memory: without slashes', 'memory:', "the scheme 'memory:'"],
    ['a URL of the browser', 'idb://app', "the scheme 'idb:'"],
    [
      'an invalid URL',
      'postgres://user:secret@host:port/',
      'an invalid postgres URL; encode a password in it with encodeURIComponent()',
    ],
    ['a relative path without a dot', 'data/sessions', neither],
    ['a home folder', '~/sessions', neither],
    ['a string with a blank', 'my sessions', neither],
    ['a blank', ' ', neither],
    ['a path with a NUL', './a\0b', 'a folder with a NUL in it'],
    ['a number', 5432, '5432'],
    ['a BigInt', 1n, '1n'],
    ['true', true, 'true'],
    ['a symbol', Symbol('pool'), 'Symbol(pool)'],
    ['a function', () => new pg.Pool(), 'a function'],
    ['an array', [], 'an array'],
    ['an empty object', {}, 'an object'],
    ['the settings of a pool', { host: 'localhost', password: 'secret' }, aConnection],
    ['a URL in an object', { connectionString: 'postgres://user:secret@localhost' }, aConnection],
    ['the options in place of the source', { ttl: 60 }, onlyOptions],
    ['another store’s options in place of the source', { prefix: 'secret:' }, onlyOptions],
    [
      'the options of connect-pg-simple with a pool',
      { createTableIfMissing: true, pool: new pg.Pool() },
      'an object with the option pool: pass the pool as the first argument: new DrizzleStore(pool, options)',
    ],
    [
      'the options of connect-pg-simple with a URL',
      { conString: 'postgres://user:secret@localhost', ttl: 60 },
      'an object with the option conString: pass the URL as the first argument: new DrizzleStore(url, options)',
    ],
    [
      'the options of connect-redis',
      { client: {}, prefix: 'secret:' },
      'an object with the option client: pass the pool or database as the first argument: ' +
        'new DrizzleStore(pool, options)',
    ],
    [
      'express-session',
      session,
      'express-session itself; DrizzleStore is a class, not a factory: new DrizzleStore(pool, options)',
    ],
    ['a promise', Promise.resolve(), 'an instance of Promise'],
    ['a URL object', new URL('postgres://localhost'), 'an instance of URL'],
    ['a single client', new pg.Client(), aClient],
    [
      'a Drizzle database on a single client',
      drizzleNodePostgres({ client: new pg.Client() }),
      aClient,
    ],
    [
      'a Drizzle database without a client',
      drizzleNodePostgres.mock(),
      'a Drizzle database of another driver or dialect (NodePgDatabase)',
    ],
    [
      'a Drizzle database of SQLite',
      drizzleSqlite(async () => ({ rows: [] })),
      'an instance of SqliteRemoteDatabase',
    ],
    [
      'a Drizzle database of MySQL',
      drizzleMysql(async () => ({ rows: [] })),
      'an instance of MySqlRemoteDatabase',
    ],
    [
      'a Drizzle database on the client of another driver',
      Object.assign(
        drizzleSqlite(async () => ({ rows: [] })),
        { $client: { prepare() {} } },
      ),
      'a Drizzle database of another driver or dialect (SqliteRemoteDatabase)',
    ],
  ];

  test.each(wrong)('refuses an invalid source with an explanation: %s', (_what, source, came) => {
    const error = refusal(() => construct(source));
    expect(error.message).toBe(taken + came);
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({ code: 'ERR_INVALID_ARGUMENT', name: 'InvalidArgumentError' });
    expect(inspect(error)).not.toContain('secret');
  });

  test('explains a call without `new`, as with connect-pg-simple', () => {
    const error = refusal(() => Reflect.apply(DrizzleStore, undefined, [session]));
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(error.message).toBe(
      'DrizzleStore is a class, not a factory: write new DrizzleStore(pool, options), without express-session',
    );
  });

  test('creates instances of the class and of subclasses', async () => {
    class Own extends DrizzleStore {}
    await using own = new Own();
    expect(own).toBeInstanceOf(DrizzleStore);
    expect(own.constructor).toBe(Own);
    await using store = new DrizzleStore();
    expect(store.constructor).toBe(DrizzleStore);
    expect(DrizzleStore.name).toBe('DrizzleStore');
  });

  test('refuses a client that was checked out of a pool', async () => {
    const client = await pool.connect();
    expect(refusal(() => construct(client)).message).toBe(taken + aClient);
    expect(refusal(() => construct(drizzleNodePostgres({ client }))).message).toBe(taken + aClient);
    client.release();
  });

  test('refuses a transaction of Drizzle or PGlite', async () => {
    const refusals: string[] = [];
    const tryIt = async (source: unknown) => {
      refusals.push(refusal(() => construct(source)).message);
    };
    await drizzleNodePostgres({ client: pool }).transaction(tryIt);
    const pglite = await freshPglite();
    await pglite.transaction(tryIt);
    await pglite.close();
    expect(refusals).toEqual([taken + aTransaction, taken + aTransaction]);
  });

  test('refuses a transaction or a reserved connection of postgres-js', async () => {
    const refused = 'a transaction or a reserved connection of postgres-js; pass sql itself';
    const sql = postgres(database.url, { max: 1 });
    await sql.begin(async (transaction) => {
      expect(refusal(() => construct(transaction)).message).toBe(taken + refused);
    });
    const reserved = await sql.reserve();
    expect(refusal(() => construct(reserved)).message).toBe(taken + refused);
    reserved.release();
    await sql.end();
  });
});

describe('an option', () => {
  const known =
    'the options are table, tableName, schemaName, createTableIfMissing, ttl, disableTouch, touchAfter, ' +
    'pruneSessionInterval, errorLog, serializer, signal, lanes, timeout, preparedStatements, sync, cache, ' +
    'userId, maxLifetime, maxSessionsPerUser, encryptionKeys, whenUnavailable, engine';
  const yearOfSeconds = 'a number of seconds (not milliseconds) above 0 up to 31536000';
  const dayOfSeconds = 'a number of seconds (not milliseconds) above 0 up to 86400';
  const key = Buffer.alloc(32, 7);
  const short = '0123456789abcdef';
  const keyTaken = 'must be 32 bytes as a Buffer, a secret KeyObject, hex or base64, but got';
  const { id, data, ...without } = sessionColumns();

  const wrong: [what: string, options: unknown, message: string][] = [
    ['no object', 'ttl', 'options must be an object, but got a string'],
    ['null', null, 'options must be an object, but got null'],
    ['an array', [], 'options must be an object, but got an array'],
    [
      'a second source',
      new pg.Pool(),
      'options must be an object, but got an instance of BoundPool',
    ],
    ['an unknown name', { tll: 60 }, `unknown option tll: ${known}`],
    ['a name in another case', { TTL: 60 }, `unknown option TTL: ${known}`],
    [
      'pool, of connect-pg-simple',
      { pool: {} },
      'unknown option pool: pass the pool as the first argument: new DrizzleStore(pool, options)',
    ],
    [
      'conString, of connect-pg-simple',
      { conString: 'postgres://user:secret@localhost' },
      'unknown option conString: pass the URL as the first argument: new DrizzleStore(url, options)',
    ],
    [
      'conObject, of connect-pg-simple',
      { conObject: {} },
      'unknown option conObject: pass a pg.Pool as the first argument: new DrizzleStore(new Pool(…), options)',
    ],
    [
      'client, of connect-redis',
      { client: {} },
      'unknown option client: pass the pool or database as the first argument: new DrizzleStore(pool, options)',
    ],
    [
      'prefix, of connect-redis',
      { prefix: 'sess:' },
      'unknown option prefix: use a separate table instead: tableName',
    ],
    [
      'crypto, of connect-mongo',
      { crypto: { secret: 'secret' } },
      'unknown option crypto: use encryptionKeys',
    ],
    ['purge', { purge: 60 }, 'unknown option purge: use pruneSessionInterval, in seconds'],
    [
      'maxIdle in the wrong place',
      { maxIdle: 60 },
      'unknown option maxIdle: it is an option of the cache: cache: { maxIdle }, in seconds',
    ],
    [
      'both ways to name a table',
      { table: sessionTable(), tableName: 'own' },
      'pass either table or tableName and schemaName, but got both',
    ],
    [
      'the name of a table as the table',
      { table: 'sessions' },
      'table must be a Drizzle Postgres table (sessionTable(), or a pgTable with sessionColumns()), but got a string',
    ],
    [
      'null for a table',
      { table: null },
      'table must be a Drizzle Postgres table (sessionTable(), or a pgTable with sessionColumns()), but got null',
    ],
    [
      'a table without the columns',
      { table: pgTable('users', { id: text('id').primaryKey() }) },
      'table users lacks the column data: spread sessionColumns() into it',
    ],
    [
      'a table that lacks one column',
      { table: pgTable('own', { id, ...without }) },
      'table own lacks the column data: spread sessionColumns() into it',
    ],
    [
      'a table with a column of another type',
      { table: pgTable('own', { id, ...without, data: jsonb('data') }) },
      'column data of table own must be json, but is jsonb',
    ],
    [
      'an empty tableName',
      { tableName: '' },
      'tableName must be an identifier, but got an empty string',
    ],
    [
      'a tableName that is no string',
      { tableName: 7 },
      'tableName must be an identifier, but got 7',
    ],
    [
      'a tableName with a NUL',
      { tableName: 'a\0' },
      'tableName must be an identifier, but got a string',
    ],
    [
      'a tableName that Postgres would cut off',
      { tableName: 'ä'.repeat(32) },
      'tableName must be at most 63 bytes long, but got 64',
    ],
    [
      'a tableName with its schema',
      { tableName: 'auth.sessions' },
      "tableName must be the name of a table without its schema, but got 'auth.sessions': " +
        "write schemaName: 'auth', tableName: 'sessions'",
    ],
    [
      'a quoted tableName with its schema',
      { tableName: '"auth"."sessions"' },
      'tableName must be the name of a table without its schema, but got \'"auth"."sessions"\': ' +
        "write schemaName: 'auth', tableName: 'sessions'",
    ],
    [
      'an empty schemaName',
      { schemaName: '' },
      'schemaName must be an identifier, but got an empty string',
    ],
    [
      'a schemaName that is no string',
      { schemaName: {} },
      'schemaName must be an identifier, but got an object',
    ],
    [
      'a schemaName that is too long',
      { schemaName: 'a'.repeat(64) },
      'schemaName must be at most 63 bytes long, but got 64',
    ],
    [
      'createTableIfMissing as a string',
      { createTableIfMissing: 'true' },
      'createTableIfMissing must be true or false, but got a string',
    ],
    [
      'a ttl in milliseconds',
      { ttl: 86_400_000 },
      `ttl must be ${yearOfSeconds}, but got 86400000 (if these are milliseconds, write 86400)`,
    ],
    ['a ttl of 0', { ttl: 0 }, `ttl must be ${yearOfSeconds}, but got 0`],
    ['a negative ttl', { ttl: -1 }, `ttl must be ${yearOfSeconds}, but got -1`],
    ['a ttl that is no number', { ttl: Number.NaN }, `ttl must be ${yearOfSeconds}, but got NaN`],
    [
      'an endless ttl',
      { ttl: Number.POSITIVE_INFINITY },
      `ttl must be ${yearOfSeconds}, but got Infinity`,
    ],
    ['a ttl as a string', { ttl: '60' }, `ttl must be ${yearOfSeconds}, but got a string`],
    ['null for a ttl', { ttl: null }, `ttl must be ${yearOfSeconds}, but got null`],
    [
      'disableTouch as a number',
      { disableTouch: 1 },
      'disableTouch must be true or false, but got 1',
    ],
    [
      'a negative touchAfter',
      { touchAfter: -1 },
      "touchAfter must be a number of seconds (not milliseconds) from 0 up to 31536000 or 'auto', but got -1",
    ],
    [
      'a touchAfter in milliseconds',
      { touchAfter: 86_400_000 },
      "touchAfter must be a number of seconds (not milliseconds) from 0 up to 31536000 or 'auto', but got 86400000 " +
        '(if these are milliseconds, write 86400)',
    ],
    [
      'null for touchAfter',
      { touchAfter: null },
      "touchAfter must be a number of seconds (not milliseconds) from 0 up to 31536000 or 'auto', but got null",
    ],
    [
      'a pruneSessionInterval of 0',
      { pruneSessionInterval: 0 },
      `pruneSessionInterval must be ${dayOfSeconds} or false, but got 0`,
    ],
    [
      'a pruneSessionInterval of true',
      { pruneSessionInterval: true },
      `pruneSessionInterval must be ${dayOfSeconds} or false, but got true`,
    ],
    [
      'a pruneSessionInterval in milliseconds',
      { pruneSessionInterval: 900_000 },
      `pruneSessionInterval must be ${dayOfSeconds} or false, but got 900000 (if these are milliseconds, write 900)`,
    ],
    [
      'a pruneSessionInterval above a day',
      { pruneSessionInterval: 86_401 },
      `pruneSessionInterval must be ${dayOfSeconds} or false, but got 86401`,
    ],
    [
      'a URL for sync in an array',
      { sync: { connectionString: ['postgres://localhost/shop'] } },
      "sync.connectionString must be a URL 'postgres://…' or 'postgresql://…', but got an array",
    ],
    [
      'createTableIfMissing with a table of the app’s own',
      { table: sessionTable({ tableName: 'own' }), createTableIfMissing: true },
      "createTableIfMissing cannot create the app's own table: create it with drizzle-kit",
    ],
    [
      'an errorLog that is no function',
      { errorLog: 'console' },
      'errorLog must be a function, but got a string',
    ],
    ['null for errorLog', { errorLog: null }, 'errorLog must be a function, but got null'],
    [
      'a serializer without parse',
      { serializer: { stringify: JSON.stringify } },
      'serializer must be an object with the functions stringify and parse, but got an object',
    ],
    [
      'null for a serializer',
      { serializer: null },
      'serializer must be an object with the functions stringify and parse, but got null',
    ],
    [
      'an AbortController in place of its signal',
      { signal: new AbortController() },
      'signal must be an AbortSignal, but got an instance of AbortController',
    ],
    ['no lane', { lanes: 0 }, 'lanes must be a whole number from 1 to 64, but got 0'],
    ['half a lane', { lanes: 1.5 }, 'lanes must be a whole number from 1 to 64, but got 1.5'],
    ['too many lanes', { lanes: 65 }, 'lanes must be a whole number from 1 to 64, but got 65'],
    ['null for lanes', { lanes: null }, 'lanes must be a whole number from 1 to 64, but got null'],
    ['a timeout of 0', { timeout: 0 }, `timeout must be ${dayOfSeconds}, but got 0`],
    [
      'a timeout above a day',
      { timeout: 86_401 },
      `timeout must be ${dayOfSeconds}, but got 86401`,
    ],
    [
      'preparedStatements as a string',
      { preparedStatements: 'no' },
      'preparedStatements must be true or false, but got a string',
    ],
    ['sync as a string', { sync: 'on' }, 'sync must be true, false or an object, but got a string'],
    ['null for sync', { sync: null }, 'sync must be true, false or an object, but got null'],
    [
      'an unknown name in sync',
      { sync: { url: 'postgres://localhost' } },
      'unknown option sync.url: the options are connectionString, heartbeat',
    ],
    [
      'a connection string of libpq for sync',
      { sync: { connectionString: 'host=localhost password=secret' } },
      "sync.connectionString must be a URL 'postgres://…' or 'postgresql://…', but got a string",
    ],
    [
      'a heartbeat in milliseconds',
      { sync: { heartbeat: 5000 } },
      'sync.heartbeat must be a number of seconds (not milliseconds) above 0 up to 3600, but got 5000 ' +
        '(if these are milliseconds, write 5)',
    ],
    [
      'a cache without sync',
      { cache: true, sync: false },
      'cache needs sync, but sync is false: cached sessions would become stale',
    ],
    [
      'a cache as a number',
      { cache: 1000 },
      'cache must be true, false or an object, but got 1000',
    ],
    ['null for a cache', { cache: null }, 'cache must be true, false or an object, but got null'],
    [
      'an unknown name in cache',
      { cache: { ttl: 60 } },
      'unknown option cache.ttl: the options are max, maxIdle, scavenge, maxAge',
    ],
    [
      'an empty cache',
      { cache: { max: 0 } },
      'cache.max must be a whole number from 1 to 100000000, but got 0',
    ],
    [
      'a maxIdle in milliseconds',
      { cache: { maxIdle: 300_000 } },
      `cache.maxIdle must be ${dayOfSeconds}, but got 300000 (if these are milliseconds, write 300)`,
    ],
    [
      'a scavenge in milliseconds',
      { cache: { scavenge: 86_400.5 } },
      `cache.scavenge must be ${dayOfSeconds}, but got 86400.5`,
    ],
    ['a maxAge of 0', { cache: { maxAge: 0 } }, `cache.maxAge must be ${dayOfSeconds}, but got 0`],
    ['userId as a name', { userId: 'user_id' }, 'userId must be a function, but got a string'],
    [
      'a maxLifetime in milliseconds',
      { maxLifetime: 43_200_000 },
      `maxLifetime must be ${yearOfSeconds}, but got 43200000 (if these are milliseconds, write 43200)`,
    ],
    [
      'a maxSessionsPerUser of 0',
      { maxSessionsPerUser: 0, userId: () => 1 },
      'maxSessionsPerUser must be a whole number from 1 to 1000000, but got 0',
    ],
    [
      'maxSessionsPerUser without users',
      { maxSessionsPerUser: 5 },
      'maxSessionsPerUser needs userId, a function that returns the user of a session',
    ],
    [
      'a key outside an array',
      { encryptionKeys: key },
      'encryptionKeys must be an array with the current key first, and not empty',
    ],
    [
      'no key',
      { encryptionKeys: [] },
      'encryptionKeys must be an array with the current key first, and not empty',
    ],
    [
      'a short key',
      { encryptionKeys: [key, key.subarray(1)] },
      `encryptionKeys[1] ${keyTaken} 31 bytes`,
    ],
    ['half a key in hex', { encryptionKeys: [short] }, `encryptionKeys[0] ${keyTaken} 12 bytes`],
    [
      'a pass phrase',
      { encryptionKeys: ['a secret phrase!'] },
      `encryptionKeys[0] ${keyTaken} string`,
    ],
    [
      'a short KeyObject',
      { encryptionKeys: [createSecretKey(key.subarray(16))] },
      `encryptionKeys[0] ${keyTaken} 16 bytes`,
    ],
    [
      'a public key',
      { encryptionKeys: [generateKeyPairSync('ed25519').publicKey] },
      `encryptionKeys[0] ${keyTaken} object`,
    ],
    [
      'an unknown value of whenUnavailable',
      { whenUnavailable: 'ignore' },
      "whenUnavailable must be 'error' or 'skip', but got a string",
    ],
    ['a number for a key', { encryptionKeys: [1] }, `encryptionKeys[0] ${keyTaken} number`],
  ];

  test.each(wrong)(
    'that is invalid is refused with an explanation: %s',
    (_what, options, message) => {
      const error = refusal(() => construct('memory://', options));
      expect(error.message).toBe(message);
      expect(error).toBeInstanceOf(InvalidArgumentError);
      expect(error).toBeInstanceOf(TypeError);
      for (const hidden of ['localhost', 'phrase', short]) {
        expect(inspect(error)).not.toContain(hidden);
      }
    },
  );

  test('that is undefined counts as not given', async () => {
    const names = known.slice('the options are '.length).split(', ');
    const options = Object.fromEntries(names.map((name) => [name, undefined]));
    const errorLog = vi.spyOn(console, 'error').mockImplementation(() => {});
    const store = construct(pool, options);
    await expect(store.ready()).rejects.toThrow(TableMissingError);
    expect(errorLog).toHaveBeenCalledOnce();
    errorLog.mockRestore();
    await store.close();
    await construct('memory://', undefined).close();
  });
});

describe('a session that cannot be serialized', () => {
  const cyclic: { self?: object; secret: string } = { secret: 'a secret' };
  cyclic.self = cyclic;
  let deep: unknown = 1;
  for (let depth = 0; depth < 200_000; depth += 1) deep = [deep];

  const wrong: [what: string, value: unknown, reason: string][] = [
    ['a BigInt', sessionWith({ n: 1n }), 'it contains a BigInt'],
    ['a cycle', sessionWith({ cyclic }), 'it contains a cycle'],
    [
      'a toJSON that throws',
      sessionWith({
        own: {
          toJSON() {
            throw new Error('a secret');
          },
        },
      }),
      'its serialization threw an error',
    ],
    [
      'a getter that throws a TypeError',
      sessionWith({
        own: {
          get secret() {
            return Reflect.get(Object(null), 'a secret').name;
          },
        },
      }),
      'its serialization threw a TypeError',
    ],
    ['more levels than the stack has', sessionWith({ deep }), 'it is nested too deeply'],
    ['undefined', undefined, 'it is not an object'],
    ['null', null, 'it is not an object'],
    ['a string', 'a secret', 'it is not an object'],
    ['a number', 5, 'it is not an object'],
    ['an array', [sessionWith()], 'it is not an object'],
    ['a function', () => sessionWith(), 'it is not an object'],
    ['a toJSON that returns a string', { toJSON: () => 'a secret' }, 'it is not an object'],
    [
      'a toJSON that returns undefined',
      { toJSON: () => undefined },
      'its serialization is not a string',
    ],
  ];

  test.each(wrong)('fails only its own call: %s', async (_what, value, reason) => {
    await using store = freshStore();
    const all = await Promise.allSettled([
      store.set('good 1', sessionWith({ name: 'one' })),
      store.set('bad', value as SessionData),
      store.set('good 2', sessionWith({ name: 'two' })),
    ]);
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
    const error: unknown = all[1]?.status === 'rejected' ? all[1].reason : undefined;
    expect(error).toBeInstanceOf(NotSerializableError);
    expect(error).toMatchObject({
      code: 'ERR_NOT_SERIALIZABLE',
      message: `The session cannot be serialized: ${reason}`,
    });
    expect(inspect(error)).not.toContain('a secret');
    expect(Object(error)).not.toHaveProperty('cause');
    expect(contentOf(await store.get('good 1'))).toEqual({ name: 'one' });
    expect(contentOf(await store.get('good 2'))).toEqual({ name: 'two' });
    expect(await store.get('bad')).toBeUndefined();
  });

  test('does not change the stored session', async () => {
    await using store = freshStore();
    await store.set('sid', sessionWith({ name: 'kept' }));
    const loaded = await store.get('sid');
    await expect(store.set('sid', asSession({ ...loaded, n: 1n }))).rejects.toThrow(
      NotSerializableError,
    );
    Object.assign(loaded ?? {}, { n: 1n });
    await expect(store.set('sid', asSession(loaded ?? {}))).rejects.toThrow(NotSerializableError);
    expect(contentOf(await store.get('sid'))).toEqual({ name: 'kept' });
  });

  test('fails with the error of the serializer as the cause', async () => {
    class OwnError extends Error {}
    const thrown = [new OwnError('no'), new RangeError('out of range'), 'a string'];
    for (const error of thrown) {
      const stringify = () => {
        throw error;
      };
      await using store = freshStore({ serializer: { stringify, parse: JSON.parse } });
      const failure: unknown = await store.set('sid', sessionWith()).catch((reason) => reason);
      expect(failure).toBeInstanceOf(NotSerializableError);
      expect(Object(failure).cause).toBe(error);
    }
  });

  test('fails its call if the serializer returns no string', async () => {
    const serializer = { stringify: () => 5, parse: JSON.parse };
    await using store = freshStore({ serializer });
    await expect(store.set('sid', sessionWith())).rejects.toThrow(NotSerializableError);
    await expect(store.set('sid', null as unknown as SessionData)).rejects.toThrow(
      'The session cannot be serialized: it is not an object',
    );
  });

  test('passes its error to a callback', async () => {
    await using store = freshStore();
    const { set } = callbacksOf(store);
    await expect(set('sid', sessionWith({ n: 1n }))).rejects.toThrow(NotSerializableError);
  });
});

test.each<[what: string, options: object, code: string | undefined]>([
  ['ttl', { ttl: fail }, 'ERR_INVALID_ARGUMENT'],
  ['userId', { userId: fail }, 'ERR_INVALID_USER_ID'],
  ['stringify', { serializer: { stringify: fail, parse: JSON.parse } }, 'ERR_NOT_SERIALIZABLE'],
  // A session that cannot be read counts as missing.
  ['parse', { serializer: { stringify: JSON.stringify, parse: fail } }, undefined],
])('%s must not be async: a rejection fails the call only', async (_, options, code) => {
  const unhandled = vi.fn();
  process.on('unhandledRejection', unhandled);
  await using store = freshStore(options);
  const call = async () => {
    await store.set('sid', sessionUntil(null));
    return store.get('sid');
  };
  const result = await call().catch((error: unknown) => property(error, 'code'));
  // Node reports unhandled rejections before the next macrotask.
  await new Promise(setImmediate);
  process.off('unhandledRejection', unhandled);
  expect(result).toBe(code);
  expect(unhandled).not.toHaveBeenCalled();
});

/** An async function that an app without types can pass. */
async function fail(): Promise<never> {
  throw new Error('an async function');
}

describe('a sid', () => {
  test('must be a non-empty string or a number for set()', async () => {
    await using store = freshStore();
    const came = [
      ['', 'an empty string'],
      [undefined, 'undefined'],
      [null, 'null'],
      [true, 'true'],
      [{}, 'an object'],
      [['sid'], 'an array'],
    ];
    for (const [sid, name] of came) {
      const error = await store
        .set(sid as string, sessionWith())
        .catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(InvalidSidError);
      expect(error).toMatchObject({
        code: 'ERR_INVALID_SID',
        message: `A session id must be a non-empty string, but got ${name}`,
      });
      await expect(callbacksOf(store).set(sid as string, sessionWith())).rejects.toThrow(
        InvalidSidError,
      );
    }
    expect(await store.length()).toBe(0);
  });

  test('that is empty, or neither string nor number, is unknown to all other calls', async () => {
    await using store = freshStore();
    await store.set('sid', sessionWith());
    for (const wrong of ['', undefined, null, true, {}, ['sid'], Symbol('sid')]) {
      const sid = wrong as string;
      expect(await store.get(sid)).toBeUndefined();
      expect(await store.touch(sid, sessionWith())).toBeUndefined();
      expect(await store.destroy(sid)).toBeUndefined();
      expect(await store.update(sid, () => sessionWith())).toBeUndefined();
    }
    expect(await store.length()).toBe(1);
  });

  test('that is a number is converted to a string, in update() and revokeUser(), too', async () => {
    await using store = freshStore({ userId: () => 'ada' });
    const five = 5 as unknown as string;
    await store.set('5', sessionWith());
    await store.set('6', sessionWith());
    expect(
      contentOf(await store.update(five, (stored) => Object.assign(stored, { n: 1 }))),
    ).toEqual({ n: 1 });
    expect(await store.revokeUser('ada', { except: five })).toBe(1);
    expect(await store.ids()).toEqual([idOf('5')]);
  });

  test('may have any length and any characters', async () => {
    await using store = freshStore();
    const sids = ['a', '\0', '\0\0', "'", "';drop table sessions;--", '"', '\\', '$1', ',', '{}'];
    sids.push(
      '👻',
      '%',
      '\n',
      '\u001f',
      '__proto__',
      'x'.repeat(1_000_000),
      '\0'.repeat(1_000_000),
    );
    await Promise.all(sids.map((sid) => store.set(sid, sessionWith({ length: sid.length }))));
    const found = await Promise.all(sids.map((sid) => store.get(sid)));
    expect(found.map(contentOf)).toEqual(sids.map(({ length }) => ({ length })));
    expect(new Set(await store.ids())).toEqual(new Set(sids.map(idOf)));
    await Promise.all(sids.map((sid) => store.touch(sid, sessionWith())));
    await Promise.all(sids.map((sid) => store.destroy(sid)));
    expect(await store.length()).toBe(0);
  });

  test('appears neither in the table nor in any error', async () => {
    await using store = freshStore();
    const sid = 'a very secret sid';
    await store.set(sid, sessionWith());
    const failure = await store.set(sid, sessionWith({ n: 1n })).catch((reason: unknown) => reason);
    expect(inspect(failure)).not.toContain(sid);
    const rows = await database.query(`select t::text from sessions_${tables} t`);
    expect(JSON.stringify(rows)).toContain(idOf(sid));
    expect(JSON.stringify(rows)).not.toContain(sid);
  });
});

describe('the data of a session', () => {
  let store: DrizzleStore;
  beforeAll(() => {
    store = freshStore();
  });
  afterAll(() => store.close());

  const hostile: [what: string, data: () => object][] = [
    ['U+0000 and other control characters', () => ({ 'key\0': '\0\u0001\u001f\u007f\u0085' })],
    ['lone surrogates', () => ({ '\ud800': ['\ud800', '\udc00', '\udfff\ud800', 'a\udbff'] })],
    ['line separators', () => ({ text: '\u2028\u2029\r\n\t' })],
    ['the separator of the rows of a batch', () => ({ text: '\u001f', '\u001f': '","' })],
    ['text that looks like SQL', () => ({ text: `'; drop table sessions; --`, "'": '\\' })],
    ['text that looks like its own escape', () => ({ text: '\\u0000 \\ud800 \\\\u0000' })],
    ['5 MB of text', () => ({ text: 'ä🙂x'.repeat(1_000_000) })],
    [
      '100,000 keys',
      () => Object.fromEntries(Array.from({ length: 100_000 }, (_, at) => [at, at])),
    ],
    ['a thousand levels', () => nested(1000)],
    [
      'numbers at the ends of their range',
      () => ({ numbers: [5e-324, 1.7976931348623157e308, -0, 2 ** 53] }),
    ],
    [
      'keys that are everywhere',
      () => JSON.parse('{"constructor":1,"toString":2,"hasOwnProperty":3}'),
    ],
    [
      '__proto__',
      () => JSON.parse('{"__proto__":{"admin":true},"in":{"__proto__":{"admin":true}}}'),
    ],
    ['a column name', () => ({ data: null, id: 1, revoked_at: 'now' })],
    ['empty keys and values', () => ({ '': '', ' ': {}, list: [], none: null })],
  ];

  test.each(hostile)('is returned unchanged: %s', async (what, make) => {
    const data = make();
    const expected = JSON.stringify(data);
    await Promise.all([
      store.set(what, sessionWith(data)),
      store.set(`beside ${what}`, sessionWith({ name: 'beside' })),
    ]);
    const loaded = await store.get(what);
    expect(JSON.stringify(contentOf(loaded)) === expected).toBe(true);
    expect(contentOf(await store.get(`beside ${what}`))).toEqual({ name: 'beside' });
    // It can also be changed, and merged with the change of another request.
    const other = await store.get(what);
    await store.set(what, asSession(Object.assign(loaded ?? {}, { mine: 1 })));
    await store.set(what, asSession(Object.assign(other ?? {}, { theirs: 2 })));
    const merged = contentOf(await store.get(what));
    const { mine, theirs, ...rest } = Object(merged);
    expect([mine, theirs]).toEqual([1, 2]);
    expect(JSON.stringify(rest) === expected).toBe(true);
    expect(Reflect.get({}, 'admin')).toBeUndefined();
  });

  test('has strings in place of dates, as in JSON', async () => {
    const dates = { now: new Date(), early: new Date(-8.64e15), invalid: new Date(Number.NaN) };
    await store.set('dates', sessionWith({ dates }));
    expect(contentOf(await store.get('dates'))).toEqual({
      dates: { now: dates.now.toISOString(), early: '-271821-04-20T00:00:00.000Z', invalid: null },
    });
  });

  test('fails only its own call if the server refuses it', () =>
    withDatabase(
      async (small) => {
        const source = small.pool();
        const errorLog = () => {};
        await using own = new DrizzleStore(source, { createTableIfMissing: true, errorLog });
        await own.ready();
        const statement = vi.spyOn(source, 'connect');
        const all = await Promise.allSettled([
          own.set('good 1', sessionWith({ name: 'one' })),
          own.set('deep', sessionWith(nested(2500))),
          own.set('good 2', sessionWith({ name: 'two' })),
        ]);
        expect(statement).toHaveBeenCalled();
        expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
        const error: unknown = all[1]?.status === 'rejected' ? all[1].reason : undefined;
        expect(error).toBeInstanceOf(StatementError);
        expect(error).toMatchObject({
          code: 'ERR_STATEMENT',
          message: 'The database refused the statement (SQLSTATE 54001)',
        });
        expect(contentOf(await own.get('good 1'))).toEqual({ name: 'one' });
        expect(contentOf(await own.get('good 2'))).toEqual({ name: 'two' });
        expect(await own.get('deep')).toBeUndefined();
      },
      { settings: { max_stack_depth: '100kB' } },
    ));
});

describe.each([
  { encoding: 'LATIN1', takes: 'grüße', refuses: '日本' },
  { encoding: 'SQL_ASCII', takes: '日本 😀', refuses: undefined },
])('a database in $encoding', ({ encoding, takes, refuses }) => {
  test('refuses characters that it cannot encode without failing other calls', async () => {
    await using elsewhere = await freshDatabase({ encoding });
    await using store = construct(elsewhere.pool(), {
      createTableIfMissing: true,
      errorLog: () => {},
    });
    const [taken, refused] = await Promise.allSettled([
      store.set('taken', sessionWith({ text: takes })),
      store.set('refused', sessionWith({ text: refuses ?? '' })),
    ]);
    expect(taken.status).toBe('fulfilled');
    expect(refused.status).toBe(refuses === undefined ? 'fulfilled' : 'rejected');
    expect(contentOf(await store.get('taken'))).toEqual({ text: takes });
    expect(contentOf((await store.all())[idOf('taken')])).toEqual({ text: takes });
  });
});

describe("a cookie's expiry", () => {
  let store: DrizzleStore;
  beforeAll(() => {
    store = freshStore({ ttl: 60 });
  });
  afterAll(() => store.close());

  test.each([
    ['in the year 33658', new Date(1e15)],
    ['in the last year of a Date', new Date(8.64e15 - 1000)],
    ['before 1970', new Date(-1)],
    ['in the first year of a Date', new Date(-8.64e15)],
  ])('is kept as it is: %s', async (what, expires) => {
    await store.set(what, sessionUntil(expires, { what }));
    const found = await store.get(what);
    const isOver = expires.getTime() < Date.now();
    expect(contentOf(found)).toEqual(isOver ? undefined : { what });
    expect(endOf(found)).toBe(isOver ? undefined : expires.getTime());
  });

  test.each([
    ['an invalid date', new Date(Number.NaN)],
    ['a string that is no date', 'tomorrow, or so'],
    ['a number that is no date', 1e300],
    ['infinite', Number.POSITIVE_INFINITY],
    ['true', true],
    ['false', false],
    ['an object', { year: 2030 }],
    ['an empty string', ''],
    ['undefined', undefined],
  ])('is replaced by ttl if it is %s', async (what, expires) => {
    const before = Date.now();
    await store.set(what, sessionUntil(expires, { what }));
    expect(contentOf(await store.get(what))).toEqual({ what });
    const [row] = await database.query<{ at: Date }>(
      `select expires_at as at from sessions_${tables} where id = $1`,
      [idOf(what)],
    );
    const seconds = ((row?.at.getTime() ?? 0) - before) / 1000;
    expect(seconds).toBeGreaterThanOrEqual(60);
    expect(seconds).toBeLessThan(70);
    // The session can be loaded, touched and saved like any other.
    const loaded = asSession((await store.get(what)) ?? {});
    await store.touch(what, loaded);
    await store.set(what, Object.assign(loaded, { again: true }));
    expect(contentOf(await store.get(what))).toEqual({ what, again: true });
  });

  test.each([1e300, 8.64e15, Number.POSITIVE_INFINITY, Number.NaN, 'for ever'])(
    'is replaced by ttl if maxAge is %s',
    async (maxAge) => {
      const made = new session.Cookie();
      Reflect.set(made, 'maxAge', typeof maxAge === 'string' ? undefined : maxAge);
      const sids = [`made ${maxAge}`, `given ${maxAge}`];
      await store.set(sids[0] ?? '', asSession({ cookie: made }));
      await store.set(sids[1] ?? '', asSession({ cookie: { maxAge } }));
      const rows = await database.query(
        `select from sessions_${tables} where id = any($1) and expires_at < now() + interval '70 seconds'`,
        [sids.map(idOf)],
      );
      expect(rows).toHaveLength(2);
      for (const sid of sids) expect(await store.get(sid)).toBeDefined();
    },
  );

  test.each([
    ['no cookie', { name: 'no cookie' }],
    ['null for a cookie', { name: 'null for a cookie', cookie: null }],
    ['a string for a cookie', { name: 'a string for a cookie', cookie: 'crumbs' }],
  ])('is that of ttl if the session has %s', async (what, data) => {
    await store.set(what, asSession(data));
    expect(await store.get(what)).toEqual(data);
  });

  test('fails only its own call if `ttl` returns an invalid value', async () => {
    const ttl = (data: object) => Reflect.get(data, 'lifetime');
    await using own = freshStore({ ttl });
    const came = [
      [0, '0'],
      [-1, '-1'],
      [Number.NaN, 'NaN'],
      [Number.POSITIVE_INFINITY, 'Infinity'],
      ['60', 'a string'],
      [undefined, 'undefined'],
      [new Date(), 'an instance of Date'],
    ];
    for (const [lifetime, name] of came) {
      const all = await Promise.allSettled([
        own.set('bad', sessionWith({ lifetime }, null)),
        own.set('good', sessionWith({ lifetime: 60 }, null)),
      ]);
      expect(all[0]).toMatchObject({
        status: 'rejected',
        reason: {
          code: 'ERR_INVALID_ARGUMENT',
          message: `ttl(session) must return seconds above 0, but returned ${name}`,
        },
      });
      expect(all[1]?.status).toBe('fulfilled');
    }
    expect(await own.length()).toBe(1);
  });

  test('fails its call with the error that `ttl` throws', async () => {
    const failure = new Error("the app's own");
    await using own = freshStore({
      ttl: () => {
        throw failure;
      },
    });
    await expect(own.set('sid', sessionWith({}, null))).rejects.toBe(failure);
    await own.set('sid', sessionWith({ name: 'has an expiry' }));
    expect(contentOf(await own.get('sid'))).toEqual({ name: 'has an expiry' });
  });
});

describe('a missing table', () => {
  const missing = (name: string) =>
    `The session table ${name} does not exist. Create it with drizzle-kit (\`drizzle-kit migrate\`) or, ` +
    'unless you pass your own `table`, with `await store.migrate()` or `createTableIfMissing: true`. ' +
    'drizzle-kit creates no table if two modules that your schema re-exports with `export *` both export ' +
    "`sessions`: write `export { sessions } from 'connect-drizzle/schema'`";

  test.each([
    ['sessions', {}],
    ['web_sessions', { tableName: 'web_sessions' }],
    ['auth.web', { tableName: 'web', schemaName: 'auth' }],
    ['own.kept', { table: sessionTable({ tableName: 'kept', schemaName: 'own' }) }],
  ])(
    'makes every call fail with an error that says how to create it: %s',
    async (name, options) => {
      await using store = freshStore({
        tableName: undefined,
        createTableIfMissing: false,
        ...options,
      });
      const calls: (() => Promise<unknown>)[] = [
        () => store.ready(),
        () => store.get('sid'),
        () => store.set('sid', sessionWith()),
        () => store.touch('sid', sessionWith()),
        () => store.destroy('sid'),
        () => store.all(),
        () => store.ids(),
        () => store.length(),
        () => store.clear(),
        () => store.pruneSessions(),
        () => store.revoke(idOf('sid')),
        () => store.update('sid', () => {}),
        async () => store.sessions().next(),
        () => callbacksOf(store).get('sid'),
      ];
      for (const call of calls) {
        const error = await call().catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(TableMissingError);
        expect(error).toMatchObject({ code: 'ERR_TABLE_MISSING', message: missing(name) });
      }
    },
  );

  test('may be created while the store is open', async () => {
    await using store = freshStore({ createTableIfMissing: false });
    await expect(store.set('sid', sessionWith())).rejects.toThrow(TableMissingError);
    await store.migrate();
    await store.set('sid', sessionWith({ name: 'kept' }));
    expect(contentOf(await store.get('sid'))).toEqual({ name: 'kept' });
  });
});

describe('an error of the database', () => {
  const secret = 'the secret of a session';

  const refusing = ['node-postgres', 'postgres-js', 'PGlite'] as const;
  test.each(refusing)('contains no session content, on %s', async (driver) => {
    const logged: unknown[][] = [];
    const pglite = driver === 'PGlite' ? await freshPglite() : undefined;
    const sql = postgres(database.url, { max: 2, onnotice: () => {} });
    const source = { 'node-postgres': pool, 'postgres-js': sql, PGlite: pglite }[driver];
    const tableName = `refusing_${driver}`;
    const store = construct(source, {
      tableName,
      createTableIfMissing: true,
      errorLog: (...args: unknown[]) => logged.push(args),
    });
    await store.ready();
    const check = `alter table "${tableName}" add constraint no_secrets check (data::text not like '%secret%')`;
    await (pglite ? pglite.exec(check) : database.query(check));

    const all = await Promise.allSettled([
      store.set('sid 1', sessionWith({ secret })),
      store.set('sid 2', sessionWith({ fine: true })),
      store.set('sid 3', sessionWith({ also: secret })),
      promised((done) => store.set('sid 4', sessionWith({ secret }), done)),
    ]);
    expect(all.map(({ status }) => status)).toEqual([
      'rejected',
      'fulfilled',
      'rejected',
      'rejected',
    ]);
    for (const outcome of all) {
      if (outcome.status === 'fulfilled') continue;
      const error: unknown = outcome.reason;
      expect(error).toBeInstanceOf(StatementError);
      expect(error).toMatchObject({
        message: 'The database refused the statement (SQLSTATE 23514)',
        cause: {
          code: '23514',
          severity: 'ERROR',
          table: tableName,
          constraint: 'no_secrets',
        },
      });
      const fields = ['code', 'severity', 'routine', 'schema', 'table', 'column', 'constraint'];
      expect(fields).toEqual(expect.arrayContaining(Object.keys(causeOf(error))));
      expect(inspect(error, { depth: null, showHidden: true })).not.toContain(secret);
    }
    expect(logged.length).toBeGreaterThan(0);
    expect(inspect(logged, { depth: null, showHidden: true })).not.toContain(secret);
    await store.close();
    await pglite?.close();
    await sql.end();
  });

  test.each([
    {
      name: 'an unknown database',
      change: (url: URL) => (url.pathname = '/nowhere'),
      code: '3D000',
      says: 'the database does not exist',
    },
    {
      name: 'an unknown user',
      change: (url: URL) => (url.username = 'nobody'),
      code: /^28/,
      says: 'the user or the password was refused',
    },
  ])('is a ConnectionError that names the reason: $name', async ({ change, code, says }) => {
    const url = new URL(database.url);
    change(url);
    await using store = construct(url.href, { errorLog: () => {} });
    const error: unknown = await store.get('sid').catch((reason) => reason);
    expect(error).toMatchObject({
      code: 'ERR_CONNECTION',
      message: expect.stringContaining(
        `The connection to the database at ${url.host} failed: ${says} (`,
      ),
      cause: { code: expect.stringMatching(code) },
    });
  });

  function causeOf(error: unknown): object {
    return error instanceof SessionStoreError && error.cause !== undefined ? error.cause : {};
  }
});

/** Data with this many levels, of arrays and objects in turn. */
function nested(levels: number): object {
  let data: object = { end: true };
  for (let level = 0; level < levels; level += 1) data = level % 2 === 0 ? [data] : { data };
  return { data };
}
