/** Sources of a store: an app's databases, pools and clients, URLs, folders. */
import { mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PGlite, type PGliteOptions } from '@electric-sql/pglite';
import { DrizzleStore, FolderInUseError, idOf, sessionColumns } from 'connect-drizzle';
import { sql } from 'drizzle-orm';
import { Cache, type MutationOption } from 'drizzle-orm/cache/core';
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres';
import * as pgCore from 'drizzle-orm/pg-core';
import { drizzle as drizzlePglite } from 'drizzle-orm/pglite';
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js';
import type pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { lockFolder } from '../src/drivers/support/folder-lock.js';
import { createInFolder } from '../src/drivers/support/pglite-folder.js';
import { withDatabase } from './support/database.js';
import { eventually } from './support/eventually.js';
import { freshPglite } from './support/pglite.js';
import { runProgram, startProgram } from './support/program.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, sessionUntil, sessionWith } from './support/sessions.js';

const options = { createTableIfMissing: true };

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});
afterEach(() => database.clear());
afterAll(() => database.drop());

/** Uses all statements of a store. */
async function exercise(store: DrizzleStore): Promise<void> {
  await eventually(() => store.ready());
  await store.set('one', sessionWith({ name: 'one' }));
  await store.set('two', sessionWith({ name: 'two' }));
  await store.set('expired', sessionUntil(new Date(Date.now() - 1)));
  const one = await store.get('one');
  expect(contentOf(one)).toEqual({ name: 'one' });
  if (one) await store.set('one', Object.assign(one, { name: 'changed' }));
  await store.touch('one', sessionWith({}, 7200));
  expect(contentOf(await store.get('one'))).toEqual({ name: 'changed' });
  await store.destroy('two');
  expect(await store.get('two')).toBeUndefined();
  expect(Object.keys(await store.all())).toEqual([idOf('one')]);
  expect(await store.ids()).toEqual([idOf('one')]);
  expect(await store.length()).toBe(1);
  for await (const { createdAt } of store.sessions()) {
    expect(createdAt.getTime()).toBeGreaterThan(Date.now() - 60_000);
  }
  expect(await store.pruneSessions()).toBe(1);
}

describe("an app's Drizzle database", () => {
  test('does not log the statements of a store with its logger', async () => {
    const lines: string[] = [];
    const logger = { logQuery: (query: string) => void lines.push(query) };
    const pglite = await freshPglite();
    const client = postgres(database.url, { onnotice: () => {} });
    const databases = [
      drizzleNodePostgres({ client: database.pool(), logger }),
      drizzlePostgresJs({ client, logger }),
      drizzlePglite({ client: pglite, logger }),
    ];
    for (const [at, db] of databases.entries()) {
      const tableName = `of_database_${at}`;
      await using store = new DrizzleStore(db, { ...options, tableName });
      await exercise(store);
      expect(lines).toEqual([]);
      await db.execute(sql`select 1`);
      expect(lines.splice(0)).toEqual(['select 1']);
    }
    await pglite.close();
    await client.end();
  });

  test('does not cache the sessions of a store in its cache', async () => {
    const kept = new Map<string, unknown[]>();
    class EverythingCache extends Cache {
      override strategy(): 'all' {
        return 'all';
      }
      override async get(key: string) {
        return kept.get(key);
      }
      override async put(key: string, response: unknown) {
        kept.set(key, [response].flat());
      }
      override async onMutate(_params: MutationOption) {}
    }
    const db = drizzleNodePostgres({ client: database.pool(), cache: new EverythingCache() });
    await using store = new DrizzleStore(db, options);
    await exercise(store);
    await store.set('sid', sessionWith({ name: 'logged in' }));
    expect(await store.get('sid')).toBeDefined();
    await store.destroy('sid');
    expect(await store.get('sid')).toBeUndefined();
    expect(kept.size).toBe(0);
  });

  test('does not read the sessions of a store from its replicas', () =>
    withDatabase(async (elsewhere) => {
      const replicaPool = elsewhere.pool();
      const db = pgCore.withReplicas(drizzleNodePostgres({ client: database.pool() }), [
        drizzleNodePostgres({ client: replicaPool }),
      ]);
      await using store = new DrizzleStore(db, options);
      await exercise(store);
      expect(replicaPool.totalCount).toBe(0);
    }));

  test('does not apply its casing to the table of a store', async () => {
    const config: object = { casing: 'camelCase' };
    const db = drizzleNodePostgres({ client: database.pool(), ...config });
    await using store = new DrizzleStore(db, { ...options, userId: () => 'user' });
    await exercise(store);
    expect(await store.revokeUser('user')).toBe(1);
  });

  test('applies its casing to unnamed columns in a table of the app', async () => {
    const tableName = 'web_sessions';
    await using made = new DrizzleStore(database.pool(), { ...options, tableName });
    await made.ready();
    await database.query(`alter table ${tableName} add column "userAgent" text default 'unknown'`);
    // Drizzle 0.45 cases names in the database, 1.0 in the table.
    const snakeCase: { table: typeof pgCore.pgTable } | undefined = Reflect.get(
      pgCore,
      'snakeCase',
    );
    const table = (snakeCase?.table ?? pgCore.pgTable)(tableName, {
      ...sessionColumns(),
      userId: pgCore.text(),
      userAgent: pgCore.text('userAgent'),
    });
    const config: object = snakeCase ? {} : { casing: 'snake_case' };
    const db = drizzleNodePostgres({ client: database.pool(), ...config });
    await using store = new DrizzleStore(db, { table, userId: () => 'ada' });
    await exercise(store);
    const rows = await database.query(
      `select user_id, "userAgent" from ${tableName} where data is not null`,
    );
    expect(rows).toEqual([{ user_id: 'ada', userAgent: 'unknown' }]);
  });

  test('may be created from a URL', async () => {
    const db = drizzleNodePostgres(database.url);
    // The server may end what the pool is just ending.
    db.$client.on('error', () => {});
    await using store = new DrizzleStore(db, options);
    await exercise(store);
    await store.close();
    await db.$client.end();
  });
});

describe("an app's postgres-js", () => {
  /** Reads and sends dates, JSON and arrays, and returns the results. */
  async function parsing(client: postgres.Sql): Promise<unknown> {
    // postgres-js fetches the array types with its first query.
    await client`select 1`;
    const date = new Date('2026-01-02T03:04:05.678Z');
    const [row] = await client`select
      '2026-01-02 03:04:05.678+00'::timestamptz as timestamptz, '2026-01-02 03:04:05'::timestamp as timestamp,
      '2026-01-02'::date as date, '03:04:05'::time as time, '1 day'::interval as interval,
      array['2026-01-02 03:04:05+00'::timestamptz] as timestamptzs, array['2026-01-02'::date] as dates,
      array['2026-01-02 03:04:05'::timestamp] as timestamps, array[1.5::numeric] as numerics,
      '{"a":1}'::json as json, '{"a":1}'::jsonb as jsonb, 9007199254740993::bigint as bigint,
      ${date}::timestamptz as sent_date, ${client.json({ a: [1] })}::jsonb as sent_json,
      ${client.array([1, 2])}::int[] as sent_array`;
    return row;
  }

  test.each(['before', 'after'])(
    'parses dates and JSON as without a store, if first used %s the store',
    async (when) => {
      const client = postgres(database.url, { onnotice: () => {}, max: 3 });
      const alone = postgres(database.url);
      const expected = await parsing(alone);
      await alone.end();
      expect(expected).toMatchObject({
        timestamptz: expect.any(Date),
        sent_date: expect.any(Date),
      });
      if (when === 'before') await parsing(client);
      const parsers = Object.keys(client.options.parsers);
      const serializers = Object.keys(client.options.serializers);

      await using store = new DrizzleStore(client, options);
      await store.ready();
      expect(Object.keys(client.options.parsers)).toEqual(expect.arrayContaining(parsers));
      expect(Object.keys(client.options.serializers)).toEqual(expect.arrayContaining(serializers));
      expect(await parsing(client)).toEqual(expected);
      const [during] = await Promise.all([parsing(client), exercise(store)]);
      expect(during).toEqual(expected);
      await store.close();
      await client.end();
    },
  );

  test('parses dates and JSON as without a store, also with a Drizzle database on it', async () => {
    const client = postgres(database.url, { onnotice: () => {}, max: 3 });
    const db = drizzlePostgresJs({ client });
    const events = pgCore.pgTable('events', {
      at: pgCore.timestamp('at', { withTimezone: true }),
      data: pgCore.jsonb('data'),
    });
    await database.query('create table events (at timestamptz, data jsonb)');
    const event = { at: new Date('2026-01-02T03:04:05.678Z'), data: { a: [1] } };
    await db.insert(events).values(event);
    const raw = await client`select at, data from events`;
    await using store = new DrizzleStore(db, options);
    await exercise(store);
    await db.insert(events).values(event);
    expect(await db.select().from(events)).toEqual([event, event]);
    expect([...(await client`select at, data from events limit 1`)]).toEqual([...raw]);
    await store.close();
    await client.end();
  });

  test('may transform column names and parse types with its own settings', async () => {
    const client = postgres(database.url, {
      onnotice: () => {},
      transform: { ...postgres.camel, undefined: null },
      types: { bigint: postgres.BigInt },
      prepare: false,
    });
    await using store = new DrizzleStore(client, { ...options, userId: () => 'user' });
    await exercise(store);
    expect(await store.revokeUser('user')).toBe(1);
    await store.close();
    await client.end();
  });
});

describe("an app's pool", () => {
  test('may have type parsers of its own', async () => {
    const raw = { getTypeParser: () => (value: unknown) => String(value) };
    const custom = {
      getTypeParser: (oid: number) =>
        oid === 20 ? BigInt : oid === 25 ? (value: string) => value : () => null,
    };
    for (const types of [raw, custom]) {
      const pool = database.pool({ types: types as unknown as pg.CustomTypesConfig });
      await using store = new DrizzleStore(pool, { ...options, userId: () => 'user' });
      await exercise(store);
      expect(await store.revokeUser('user')).toBe(1);
      await store.clear();
    }
  });

  test('may have only one connection', async () => {
    await using store = new DrizzleStore(database.pool({ max: 1 }), options);
    await Promise.all(
      Array.from({ length: 50 }, (_none, at) => store.set(`sid ${at}`, sessionWith({ at }))),
    );
    expect(await store.length()).toBe(50);
  });

  test('can be shared by several stores', async () => {
    const pool = database.pool();
    const stores = [{}, { userId: () => 'user' }, { maxLifetime: 60 }].flatMap((more) =>
      ['one', 'other'].map(
        (tableName) => new DrizzleStore(pool, { ...options, tableName, ...more }),
      ),
    );
    await Promise.all(stores.map((store) => store.ready()));
    await Promise.all(stores.map((store, at) => store.set(`sid ${at}`, sessionWith({ at }))));
    for (const [at, store] of stores.entries()) {
      expect(contentOf(await store.get(`sid ${at}`))).toEqual({ at });
      expect(await store.get(`sid ${(at + 1) % stores.length}`)).toBeUndefined();
      expect(await store.length()).toBe(3);
    }
    for (const store of stores) await store.close();
  });
});

describe('a table', () => {
  const named: [how: string, names: { tableName?: string; schemaName: string }][] = [
    ['in another schema', { schemaName: 'auth' }],
    ['with capitals', { tableName: 'WebSessions', schemaName: 'Auth' }],
    ['with a keyword as its name', { tableName: 'user', schemaName: 'select' }],
    ['with spaces and dots', { tableName: 'my sessions. all', schemaName: 'a.b c' }],
    ['with characters of any kind', { tableName: 'sessions’ 👻 ü', schemaName: '日本' }],
    ['with quotes and code', { tableName: `a"b'; drop table c; --`, schemaName: `"$1'\\` }],
    ['with the longest name', { tableName: 's'.repeat(63), schemaName: 'x'.repeat(63) }],
  ];
  test.each(named)('may have any name and schema: %s', async (_how, names) => {
    await using store = new DrizzleStore(database.pool(), { ...options, ...names, sync: true });
    await exercise(store);
    const { tableName = 'sessions', schemaName } = names;
    const rows = await database.query(
      'select from pg_tables where tablename = $1 and schemaname = $2',
      [tableName, schemaName],
    );
    expect(rows).toHaveLength(1);
  });
});

describe('a URL', () => {
  test.each(['postgres', 'postgresql'])('may start with %s://', async (scheme) => {
    const url = database.url.replace(/^postgres(ql)?/, scheme);
    await using store = new DrizzleStore(url, options);
    await exercise(store);
  });
});

describe('a folder', () => {
  let home: string;
  beforeEach(async () => {
    home = await mkdtemp(join(tmpdir(), 'connect-drizzle-'));
  });
  afterEach(() => rm(home, { recursive: true, force: true, maxRetries: 10 }));

  test('is created if it is missing, is open in one process at a time and keeps acknowledged sessions', async () => {
    const folder = join(home, 'made', 'anew');
    const other = await startProgram(
      `import { DrizzleStore } from 'connect-drizzle';
       const store = new DrizzleStore(process.env.FOLDER, { timeout: 300 });
       await store.set('sid', { cookie: { originalMaxAge: null }, name: 'kept' });
       console.log('it is', process.pid);
       setInterval(() => {}, 1000);`,
      { FOLDER: folder },
    );
    const pid = Number((await other.until(/it is \d+/)).slice('it is '.length));
    await symlink(folder, join(home, 'link'));
    const cwd = vi.spyOn(process, 'cwd').mockReturnValue(home);
    for (const path of [folder, `${folder}/`, `${home}/x/../made/anew`, './made/anew', 'link']) {
      await using store = new DrizzleStore(path, { errorLog: () => {} });
      const error = await store.ready().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(FolderInUseError);
      expect(error).toMatchObject({ code: 'ERR_FOLDER_IN_USE', pid });
      expect(String(error)).toContain(
        `is in use by process ${pid}; an embedded database can be open only once at a time`,
      );
      await expect(store.get('sid')).rejects.toThrow(FolderInUseError);
    }
    // Acknowledged sessions are there even after the process was killed.
    await other.stop('SIGKILL');
    expect(await readdir(folder)).toContain('connect-drizzle.lock');
    await using store = new DrizzleStore('link', { timeout: 300 });
    cwd.mockRestore();
    expect(contentOf(await store.get('sid'))).toEqual({ name: 'kept' });
    await store.close();
    expect(await readdir(join(home, 'made'))).toEqual(['anew']);
    expect(await readdir(folder)).not.toContain('connect-drizzle.lock');
  });

  test('that is a file fails with an error that says so', async () => {
    const folder = join(home, 'data');
    await writeFile(folder, 'a file, not a folder');
    await using store = new DrizzleStore(folder, { errorLog: () => {} });
    await expect(store.ready()).rejects.toMatchObject({
      code: 'ERR_FOLDER',
      message: expect.stringContaining(`The folder ${folder} cannot be used: a file is in the way`),
    });
  });

  test('is unlocked again if its database cannot be opened', async () => {
    const folder = join(home, 'data');
    await mkdir(folder);
    await writeFile(join(folder, 'PG_VERSION'), '1');
    await using store = new DrizzleStore(folder, { errorLog: () => {} });
    await expect(store.ready()).rejects.toThrow();
    expect(await readdir(folder)).not.toContain('connect-drizzle.lock');
    await (await lockFolder(folder))();
  });

  test('is open in one thread at a time', async () => {
    const folder = join(home, 'data');
    const { output } = await runProgram(
      `import { isMainThread, Worker } from 'node:worker_threads';
       import { DrizzleStore } from 'connect-drizzle';
       const store = new DrizzleStore(process.env.FOLDER, { timeout: 300, errorLog() {} });
       if (isMainThread) {
         await store.ready();
         await new Promise((resolve) => new Worker(new URL(import.meta.url)).once('exit', resolve));
         await store.close();
       } else {
         await store.ready().then(() => console.log('open'), (error) => console.log(error.code));
       }`,
      { FOLDER: folder },
    );
    expect(output).toBe('ERR_FOLDER_IN_USE\n');
  });

  test('works with a PGlite that creates databases only in empty folders', async () => {
    const folder = join(home, 'data');
    const unlock = await lockFolder(folder);
    let tries = 0;
    // Version 0.3 fails like this if the lock file is in the folder.
    const create = async (options: PGliteOptions) => {
      tries += 1;
      if (tries === 1) throw new Error('Program terminated with exit(1)');
      return PGlite.create(options);
    };
    const made = await createInFolder(folder, create);
    await made.exec('create table kept ()');
    await made.close();
    const again = await createInFolder(folder, create);
    expect((await again.query('select from kept')).rows).toEqual([]);
    await again.close();
    await unlock();
    expect(tries).toBe(4);
  });
});
