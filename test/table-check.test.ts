/** The store refuses every table but its own. */
import {
  DrizzleStore,
  type DrizzleStoreOptions,
  idOf,
  MigrationError,
  type Source,
  StatementError,
  sessionColumns,
  sessionIndexes,
  TableMismatchError,
  TableMissingError,
} from 'connect-drizzle';
import { sql } from 'drizzle-orm';
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres';
import { integer, pgTable, text, timestamp, uuid } from 'drizzle-orm/pg-core';
import { drizzle as drizzlePglite } from 'drizzle-orm/pglite';
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { freshPglite } from './support/pglite.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { asSession, contentOf, endOf, sessionWith } from './support/sessions.js';
import { isPortable } from './support/statement-set.js';
import { otherTables } from './support/tables.js';

let database: ReusedDatabase;
/** A role of this file's own, without permissions. */
let role: string;
const ends: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  database = await reusedDatabase();
  role = `role_of_${database.name}`;
  await database.query(`create role ${role}; grant usage on schema public to ${role}`);
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const end of ends.splice(0).reverse()) await end();
  await database.clear();
  await database.query(`grant usage on schema public to ${role}`);
});
afterAll(async () => {
  await database.query(`drop owned by ${role}; drop role ${role}`);
  await database.drop();
});

const silent: DrizzleStoreOptions = { pruneSessionInterval: false, errorLog: () => {} };

function storeOn(source: Source, options: DrizzleStoreOptions = {}): DrizzleStore {
  const store = new DrizzleStore(source, { ...silent, ...options });
  ends.push(() => store.close());
  return store;
}

function open(options: DrizzleStoreOptions = {}): DrizzleStore {
  return storeOn(database.pool({ max: 2 }), options);
}

/** A pool whose connections have the permissions of a role. */
function poolAs(name: string): pg.Pool {
  return database.pool({ max: 2, options: `-c role=${name}` });
}

/** Creates the table of this package and changes it. */
async function createOwn(...changes: string[]): Promise<void> {
  await using store = new DrizzleStore(database.pool({ max: 1 }), silent);
  await store.migrate();
  for (const change of changes) await database.query(change);
}

/** Every call that reaches the database. */
function callsOf(store: DrizzleStore): Record<string, () => Promise<unknown>> {
  return {
    ready: () => store.ready(),
    get: () => store.get('sid'),
    set: () => store.set('sid', sessionWith()),
    touch: () => store.touch('sid', sessionWith()),
    destroy: () => store.destroy('sid'),
    update: () => store.update('sid', () => {}),
    length: () => store.length(),
    all: () => store.all(),
    ids: () => store.ids(),
    sessions: async () => store.sessions().next(),
    'sessions of a user': async () => store.sessions({ userId: 'ada' }).next(),
    revoke: () => store.revoke(idOf('sid')),
    revokeUser: () => store.revokeUser('ada'),
    pruneSessions: () => store.pruneSessions(),
    clear: () => store.clear(),
  };
}

const callNames = Object.keys(callsOf(new DrizzleStore('postgres://localhost:1/none', silent)));

async function callOf(store: DrizzleStore, name: string): Promise<unknown> {
  const call = callsOf(store)[name];
  if (call === undefined) throw new Error(`There is no call ${name}`);
  return call();
}

const rowsOf = () => database.query<{ row: string }>('select s::text as row from sessions as s');

const failure = (call: () => Promise<unknown>): Promise<unknown> =>
  call().then(
    (value) => expect.unreachable(`it resolved with ${String(value)}`),
    (error: unknown) => error,
  );

/** Saves a session that express-session has just generated. */
async function generate(store: DrizzleStore, sid: string, data: object): Promise<void> {
  const session = sessionWith(data);
  const request = { session, sessionID: sid };
  Object.assign(store, { generate: () => {} });
  Reflect.get(store, 'generate')(request);
  await store.set(sid, session);
}

/** Makes calls of every kind, and leaves the table empty. */
async function wholeCycle(store: DrizzleStore, user: string | number = 'ada'): Promise<void> {
  await store.ready();
  const sids = Array.from({ length: 12 }, (_, n) => `sid ${n}`);
  await Promise.all(sids.map((sid, n) => store.set(sid, sessionWith({ n, user }))));
  await generate(store, 'generated', { n: 12, user });
  expect(await store.length()).toBe(13);
  expect(contentOf(await store.get('generated'))).toEqual({ n: 12, user });

  const loaded = await store.get('sid 1');
  await store.set('sid 1', asSession({ ...loaded, page: 2 }));
  await store.update('sid 2', (data) => void Object.assign(data, { page: 3 }));
  await store.touch('sid 3', sessionWith({}, 7200));
  await store.destroy('sid 4');
  expect(await store.revoke(idOf('sid 5'))).toBe(1);
  const all = await Promise.all(sids.map((sid) => store.get(sid)));
  // The call for one session changed no other.
  expect(all.map(contentOf)).toEqual(
    sids.map((_, n) => {
      if (n === 4 || n === 5) return undefined;
      return { n, user, ...(n === 1 ? { page: 2 } : n === 2 ? { page: 3 } : {}) };
    }),
  );
  const late = all.filter((found) => (endOf(found) ?? 0) > Date.now() + 5_400_000);
  expect(late.map(contentOf)).toEqual([{ n: 3, user }]);
  await Promise.all(['sid 6', 'sid 7'].map((sid) => store.destroy(sid)));
  expect(await store.ids()).toHaveLength(9);
  expect(Object.keys(await store.all())).toHaveLength(9);
  expect(await store.pruneSessions()).toBe(0);
  await store.clear();
  expect(await store.length()).toBe(0);
}

describe("another package's table", () => {
  describe.each(Object.entries(otherTables))('(%s)', (_name, { owner, sql }) => {
    test.each([false, true])(
      'is recognised and not changed (createTableIfMissing: %s)',
      async (createTableIfMissing) => {
        await database.query(sql);
        const rows = await rowsOf();
        expect(rows).toHaveLength(2);
        const store = open({ createTableIfMissing, userId: () => 'ada', sync: true });
        for (const [name, call] of Object.entries(callsOf(store))) {
          const error = await failure(call);
          expect(error, name).toBeInstanceOf(TableMismatchError);
          expect(error, name).toMatchObject({
            code: 'ERR_TABLE_MISMATCH',
            reason: 'foreign',
            owner,
          });
          expect(String(error)).toContain(`The table sessions belongs to ${owner}`);
          expect(String(error)).toMatch(/lacks the columns .*revoked_at and expires_hour\b/);
          expect(String(error)).toMatch(/`tableName`.*`await store.migrate\(\)`/);
        }
        const error = await failure(() => store.migrate());
        expect(error).toBeInstanceOf(MigrationError);
        expect(String(error)).toContain(`belongs to ${owner}`);
        expect(await rowsOf()).toEqual(rows);
        // Not even the migrations' own table was added to their database.
        expect(
          await database.query(`select to_regclass('__connect_drizzle_store') as name`),
        ).toEqual([{ name: null }]);
      },
    );
  });

  test('is refused even if its owner is unknown', async () => {
    await database.query('create table sessions (id serial primary key, note text)');
    await database.query(`insert into sessions (note) values ('kept')`);
    const store = open({ createTableIfMissing: true });
    await expect(store.clear()).rejects.toMatchObject({ reason: 'foreign', owner: undefined });
    await expect(store.clear()).rejects.toThrow('is not a table of connect-drizzle');
    expect(await rowsOf()).toHaveLength(1);
  });

  test('can be imported only if it belongs to a store for express-session', async () => {
    for (const { owner, sql } of Object.values(otherTables)) {
      await database.query(`drop table if exists sessions; ${sql}`);
      const error = String(await failure(() => open().ready()));
      expect(error.includes('can be imported')).toBe(owner === 'connect-pg-simple');
    }
  });

  test.each([
    [
      'a postgres-js sql',
      (url: string) => {
        const client = postgres(url, { onnotice: () => {} });
        return { source: client, end: () => client.end() };
      },
    ],
    [
      'Drizzle on postgres-js',
      (url: string) => {
        const client = postgres(url, { onnotice: () => {} });
        return { source: drizzlePostgresJs({ client }), end: () => client.end() };
      },
    ],
    [
      'Drizzle on node-postgres',
      (url: string) => {
        const pool = new pg.Pool({ connectionString: url });
        pool.on('error', () => {});
        return { source: drizzleNodePostgres({ client: pool }), end: () => pool.end() };
      },
    ],
    ['a URL', (url: string) => ({ source: url, end: async () => {} })],
  ])('is recognised through every driver: %s', async (_driver, make) => {
    const { source, end } = make(database.url);
    ends.push(end);
    const store = storeOn(source, { userId: () => 'ada' });
    for (const { owner, sql } of Object.values(otherTables)) {
      await database.query(`drop table if exists sessions; ${sql}`);
      await expect(store.ready()).rejects.toMatchObject({ code: 'ERR_TABLE_MISMATCH', owner });
      await expect(store.clear()).rejects.toMatchObject({ code: 'ERR_TABLE_MISMATCH', owner });
      await expect(store.migrate()).rejects.toMatchObject({ code: 'ERR_MIGRATION' });
      expect(await rowsOf()).toHaveLength(2);
    }
    await database.query('drop table sessions');
    await store.migrate();
    await wholeCycle(store);
    await database.query(`drop table sessions; ${otherTables.Laravel?.sql}`);
    for (const [name, call] of Object.entries(callsOf(store))) {
      expect(await failure(call), name).toMatchObject({ code: 'ERR_TABLE_MISMATCH' });
    }
    expect(await rowsOf()).toHaveLength(2);
  });

  test.each(['a PGlite', 'Drizzle on PGlite'])(
    'is recognised through every driver: %s',
    async (driver) => {
      const client = await freshPglite();
      ends.push(() => client.close());
      const store = storeOn(driver === 'a PGlite' ? client : drizzlePglite({ client }));
      for (const { owner, sql } of Object.values(otherTables)) {
        await client.exec(`drop table if exists sessions; ${sql}`);
        await expect(store.ready()).rejects.toMatchObject({ code: 'ERR_TABLE_MISMATCH', owner });
        await expect(store.clear()).rejects.toMatchObject({ code: 'ERR_TABLE_MISMATCH', owner });
        await expect(store.migrate()).rejects.toMatchObject({ code: 'ERR_MIGRATION' });
        expect((await client.query('select from sessions')).rows).toHaveLength(2);
      }
      await client.exec('drop table sessions');
      await wholeCycle(store);
      await client.exec(`drop table sessions; ${otherTables.Laravel?.sql}`);
      await expect(store.clear()).rejects.toMatchObject({ code: 'ERR_TABLE_MISMATCH' });
      expect((await client.query('select from sessions')).rows).toHaveLength(2);
    },
  );
});

describe('a table that is replaced while the store is open', () => {
  test.each(callNames)("by another package's: %s fails and does not change it", async (name) => {
    await createOwn();
    const store = open({ userId: () => 'ada' });
    await wholeCycle(store);
    await database.query(`drop table sessions; ${otherTables.Laravel?.sql}`);
    const error = await failure(() => callOf(store, name));
    expect(error).toBeInstanceOf(TableMismatchError);
    expect(error).toMatchObject({ owner: 'Laravel', cause: { code: '42703' } });
    // From then on, nothing is sent before the table has been checked.
    expect(await failure(() => callOf(store, name))).not.toHaveProperty('cause');
    expect(await database.query('select from sessions')).toHaveLength(2);

    await database.query('drop table sessions');
    await expect(store.clear()).rejects.toThrow(TableMissingError);
    await createOwn();
    await wholeCycle(store);
  });

  test.each(callNames)(
    'by one that lacks only the column that no other package has: %s fails',
    async (name) => {
      await createOwn();
      const store = open({ userId: () => 'ada', sync: true });
      for (const sid of ['sid', 'other']) await store.set(sid, sessionWith());
      await database.query('alter table sessions rename column expires_hour to other');
      const rows = await rowsOf();
      expect(rows).toHaveLength(2);
      expect(await failure(() => callOf(store, name))).toMatchObject({
        code: 'ERR_TABLE_MISMATCH',
        reason: 'outdated',
        message: expect.stringContaining('it lacks the column expires_hour'),
        cause: { code: '42703' },
      });
      expect(await rowsOf()).toEqual(rows);
      await database.query('alter table sessions rename column other to expires_hour');
      await store.clear();
      await wholeCycle(store);
    },
  );

  test("by another package's: many calls at once fail", async () => {
    await createOwn();
    const store = open();
    await store.ready();
    await database.query(`drop table sessions; ${otherTables['Lucia 3']?.sql}`);
    const sids = Array.from({ length: 40 }, (_, n) => `sid ${n}`);
    const calls = sids.flatMap((sid) => [
      store.get(sid),
      store.set(sid, sessionWith()),
      store.touch(`other ${sid}`, sessionWith()),
      store.destroy(`third ${sid}`),
    ]);
    for (const outcome of await Promise.allSettled(calls)) {
      expect(outcome).toMatchObject({ reason: { code: 'ERR_TABLE_MISMATCH', owner: 'Lucia' } });
    }
    expect(await database.query('select from sessions')).toHaveLength(2);
  });

  test('and has no unique key any more: the error explains the failed ON CONFLICT', async () => {
    await createOwn();
    const store = open();
    await store.ready();
    await database.query('alter table sessions drop constraint sessions_pkey');
    await expect(store.set('sid', sessionWith())).rejects.toMatchObject({
      code: 'ERR_TABLE_MISMATCH',
      reason: 'unusable',
      message: expect.stringContaining('the column id is not the primary key'),
      cause: { code: '42P10' },
    });
    await database.query('alter table sessions add primary key (id)');
    await wholeCycle(store);
  });

  test.each(['42703', '42P01', '42P10'])(
    'is not reported if a trigger of the app fails with %s',
    async (state) => {
      await createOwn(
        `create function fail() returns trigger language plpgsql as
           $$ begin raise exception using errcode = '${state}'; end $$`,
        'create trigger fail before insert on sessions for each row execute function fail()',
      );
      const store = open();
      await store.ready();
      const error = await failure(() => store.set('sid', sessionWith()));
      expect(error).toBeInstanceOf(StatementError);
      expect(error).toMatchObject({ cause: { code: state } });
      expect(await store.length()).toBe(0);
    },
  );
});

describe('a missing table', () => {
  test('may be created while the store is open, and is then checked', async () => {
    const store = open();
    for (const _ of [1, 2]) await expect(store.get('sid')).rejects.toThrow(TableMissingError);
    await database.query(otherTables.Django?.sql ?? '');
    await expect(store.get('sid')).rejects.toMatchObject({ owner: 'Django' });
    await database.query('drop table sessions');
    await expect(store.ready()).rejects.toThrow(TableMissingError);
    await createOwn('alter table sessions alter column data type jsonb');
    await expect(store.get('sid')).rejects.toThrow('the column data is jsonb instead of json');
    await database.query('alter table sessions alter column data type json');
    await wholeCycle(store);
  });

  test('is not created again by a store that has used it', async () => {
    const store = open({ createTableIfMissing: true });
    await wholeCycle(store);
    await database.query('drop table sessions');
    for (const _ of [1, 2]) await expect(store.clear()).rejects.toThrow(TableMissingError);
    // It must not come between another package's `drop table` and `create table`.
    await database.query(otherTables.Rails?.sql ?? '');
    await expect(store.clear()).rejects.toMatchObject({ owner: 'Rails' });
    await database.query('drop table sessions');
    for (const _ of [1, 2]) await expect(store.clear()).rejects.toThrow(TableMissingError);
  });
});

/** Changes of the table that do not affect sessions. */
const accepted: Record<string, string[]> = {
  'a column that may be null': ['alter table sessions add column note text'],
  'a column with a default': [`alter table sessions add column note text not null default 'none'`],
  'a generated column': [
    `alter table sessions add column note text not null generated always as ('x' || id) stored`,
  ],
  'an identity column': ['alter table sessions add column n bigint generated always as identity'],
  'a serial column': ['alter table sessions add column n bigserial'],
  'a column of a domain with a default': [
    `create domain noted as text not null default 'none'`,
    'alter table sessions add column note noted',
  ],
  'a dropped column': [
    'alter table sessions add column note text',
    `alter table sessions alter column note set not null`,
    'alter table sessions drop column note',
  ],
  'a unique index in place of the primary key': [
    'alter table sessions drop constraint sessions_pkey',
    'create unique index other on sessions (id) include (expires_at)',
  ],
  'columns in another order': [
    'alter table sessions drop column user_id',
    'alter table sessions add column user_id text',
  ],
  partitions: [
    'create table template (like sessions including all)',
    'drop table sessions',
    'create table sessions (like template including all) partition by hash (id)',
    ...[0, 1, 2].map(
      (n) =>
        `create table part_${n} partition of sessions for values with (modulus 3, remainder ${n})`,
    ),
  ],
  'partitions of partitions': [
    'create table template (like sessions including all)',
    'drop table sessions',
    'create table sessions (like template including all) partition by hash (id)',
    `create table half partition of sessions for values with (modulus 2, remainder 0) partition by hash (id)`,
    `create table other_half partition of sessions for values with (modulus 2, remainder 1)`,
    `create table part_0 partition of half for values with (modulus 2, remainder 0)`,
    `create table part_1 partition of half for values with (modulus 2, remainder 1)`,
  ],
  'domains over domains': [
    'create domain word as text',
    'create domain key as word check (value <> $$$$)',
    'create domain moment as timestamptz not null',
    'create domain instant as moment',
    'create domain content as json',
    'alter table sessions drop column expires_hour',
    'alter table sessions alter column id type key',
    'alter table sessions alter column user_id type word',
    'alter table sessions alter column data type content',
    'alter table sessions alter column expires_at type instant',
    'alter table sessions alter column created_at type instant',
    `alter table sessions add column expires_hour timestamptz
       generated always as (date_bin('1 hour', expires_at, timestamptz '2000-01-01 00:00:00+00')) stored`,
  ],
  'a trigger': [
    `create function nothing() returns trigger language plpgsql as $$ begin return new; end $$`,
    'create trigger nothing before insert or update on sessions for each row execute function nothing()',
  ],
  'no logging': ['alter table sessions set unlogged'],
  'row-level security for a superuser': ['alter table sessions enable row level security'],
};

describe('a table of this package is accepted with', () => {
  test.each(Object.entries(accepted))('%s', async (_name, changes) => {
    await createOwn(...changes);
    const store = open({ userId: (data) => String(Reflect.get(data, 'user')) });
    await wholeCycle(store);
    await store.set('sid', sessionWith({ user: 'ada' }));
    expect(await store.revokeUser('ada')).toBe(1);
    await database.query(`update sessions set expires_at = now() - interval '1 hour'`);
    expect(await store.pruneSessions()).toBe(1);
    await (await database.store()).migrate();
  });

  test.each([
    ['integer', integer('user_id'), 1],
    ['bigint', integer('user_id'), 1],
    ['uuid', uuid('user_id'), '5dbd1b62-2f2c-4b6f-9a25-0b5d9b3ec5a1'],
    ['varchar(40)', text('user_id'), 'ada'],
  ])('another type of user_id: %s', async (type, userId, user) => {
    await createOwn(
      'alter table sessions drop column user_id',
      `alter table sessions add column user_id ${type}`,
    );
    const table = pgTable('sessions', { ...sessionColumns(), userId }, sessionIndexes);
    const store = open({ table, userId: (data) => Reflect.get(data, 'user') });
    await wholeCycle(store, user);
    await store.set('sid', sessionWith({ user }));
    expect(await store.revokeUser(user)).toBe(1);
    // Without the option userId, nothing is written to the column.
    await wholeCycle(open());
  });

  test('a user_id that is NOT NULL, as in the table of the app', async () => {
    await createOwn('alter table sessions alter column user_id set not null');
    const table = pgTable('sessions', {
      ...sessionColumns(),
      userId: text('user_id').notNull(),
    });
    await wholeCycle(open({ table, userId: () => 'ada' }));
  });

  test("the app's own names", async () => {
    await createOwn(
      'alter table sessions rename to web',
      'alter table web rename column id to key',
      'alter table web rename column expires_hour to "Hour"',
      'alter table web rename column version to revision',
    );
    const { data, userId, createdAt, lastSeenAt, expiresAt, revokedAt } = sessionColumns();
    const table = pgTable('web', {
      id: text('key').primaryKey(),
      version: integer('revision').notNull().default(1),
      expiresHour: timestamp('Hour', { withTimezone: true }).generatedAlwaysAs(sql`now()`),
      ...{ data, userId, createdAt, lastSeenAt, expiresAt, revokedAt },
    });
    const store = open({ table });
    await wholeCycle(store);
    await database.query('alter table web drop column "Hour"');
    await expect(store.clear()).rejects.toThrow('it lacks the column Hour');
    await expect(store.clear()).rejects.toThrow('drizzle-kit');
  });

  test('no permissions but those on the table', async () => {
    await createOwn(`grant select, insert, update, delete on sessions to ${role}`);
    await wholeCycle(storeOn(poolAs(role), { createTableIfMissing: true }));
  });

  test('permissions to insert and update only what the store writes', async () => {
    await createOwn(
      `grant select, delete, insert (id, data, user_id, expires_at),
         update (data, user_id, version, created_at, last_seen_at, expires_at, revoked_at)
       on sessions to ${role}`,
    );
    await wholeCycle(storeOn(poolAs(role), { userId: () => 'ada' }));
  });

  test.each([
    ['everybody', () => 'public'],
    ['the role', () => role],
  ])('row-level security and a policy for %s', async (_who, to) => {
    await createOwn(
      `grant select, insert, update, delete on sessions to ${role}`,
      'alter table sessions enable row level security',
      `create policy all_rows on sessions to ${to()} using (true) with check (true)`,
    );
    await wholeCycle(storeOn(poolAs(role)));
  });

  test('row-level security and a policy for each command', async () => {
    await createOwn(
      `grant select, insert, update, delete on sessions to ${role}`,
      'alter table sessions enable row level security',
      ...[
        'select using (true)',
        'insert with check (true)',
        'update using (true)',
        'delete using (true)',
      ].map((rest, n) => `create policy p${n} on sessions for ${rest}`),
    );
    await wholeCycle(storeOn(poolAs(role)));
  });

  test('a server that quotes the names of all types', async () => {
    await createOwn();
    const pool = database.pool({ max: 2, options: '-c quote_all_identifiers=on' });
    await wholeCycle(storeOn(pool, { userId: () => 'ada' }));
  });
});

/** Changes after which sessions cannot be stored, with the text of the error. */
const refused: Record<string, [expected: string, ...changes: string[]]> = {
  'jsonb data': [
    'the column data is jsonb instead of json',
    'alter table sessions alter column data type jsonb',
  ],
  'text data': [
    'the column data is text instead of json',
    'alter table sessions alter column data type text',
  ],
  'a domain over jsonb': [
    'the column data is jsonb instead of json',
    'create domain content as jsonb',
    'alter table sessions alter column data type content using data::jsonb',
  ],
  'an integer id': [
    'the column id is integer instead of text',
    'alter table sessions alter column id type integer using 1',
  ],
  'a varchar id': [
    'the column id is character varying instead of text',
    'alter table sessions alter column id type varchar(20)',
  ],
  'a time without a time zone': [
    'the column created_at is timestamp without time zone instead of timestamp with time zone',
    'alter table sessions alter column created_at type timestamp',
  ],
  'data that must not be null': [
    'the column data is NOT NULL',
    'alter table sessions alter column data set not null',
  ],
  'a user_id that must not be null': [
    'the column user_id is NOT NULL',
    'alter table sessions alter column user_id set not null',
  ],
  'a domain that must not be null': [
    'the column revoked_at is NOT NULL',
    'create domain moment as timestamptz not null',
    'create domain instant as moment',
    'alter table sessions alter column revoked_at type instant',
  ],
  'no default': [
    'the column created_at has no default',
    'alter table sessions alter column created_at drop default',
  ],
  'an expires_hour that nothing fills': [
    'the column expires_hour is not a generated column',
    'alter table sessions alter column expires_hour drop expression',
  ],
  'a generated user_id': [
    'the column user_id is a generated column',
    'alter table sessions drop column user_id',
    `alter table sessions add column user_id text generated always as (data ->> 'user') stored`,
  ],
  'another column that must not be null': [
    'the column tenant is NOT NULL and has no default',
    'alter table sessions add column tenant integer not null',
  ],
  'another column of a domain that must not be null': [
    'the column tenant is NOT NULL and has no default',
    'create domain tenant as integer not null',
    'create domain our_tenant as tenant',
    'alter table sessions add column tenant our_tenant',
  ],
  'no unique key': [
    'the column id is not the primary key',
    'alter table sessions drop constraint sessions_pkey',
  ],
  'a key of two columns': [
    'the column id is not the primary key',
    'alter table sessions drop constraint sessions_pkey',
    'alter table sessions add primary key (id, created_at)',
  ],
  'a partial unique index': [
    'the column id is not the primary key',
    'alter table sessions drop constraint sessions_pkey',
    'create unique index other on sessions (id) where revoked_at is null',
  ],
  'a deferrable key': [
    'the column id is not the primary key',
    'alter table sessions drop constraint sessions_pkey',
    'alter table sessions add primary key (id) deferrable',
  ],
  'a unique index on an expression': [
    'the column id is not the primary key',
    'alter table sessions drop constraint sessions_pkey',
    'create unique index other on sessions (lower(id))',
  ],
  'an invalid unique index': [
    'the column id is not the primary key',
    'alter table sessions drop constraint sessions_pkey',
    'create unique index other on sessions (id)',
    `update pg_index set indisvalid = false where indexrelid = 'other'::regclass`,
  ],
  'a view': [
    'it is a view, not a table',
    'alter table sessions rename to kept',
    'create view sessions as select * from kept',
  ],
  'a materialized view': [
    'it is a materialized view, not a table',
    'alter table sessions rename to kept',
    'create materialized view sessions as select * from kept',
  ],
  'a foreign table': [
    'it is a foreign table, not a table',
    'alter table sessions rename to kept',
    'create foreign data wrapper nowhere',
    'create server elsewhere foreign data wrapper nowhere',
    `create foreign table sessions (id text, data json, user_id text, version integer, created_at timestamptz,
       last_seen_at timestamptz, expires_at timestamptz, revoked_at timestamptz, expires_hour timestamptz)
     server elsewhere`,
  ],
  'a composite type': [
    'it is a composite type, not a table',
    'alter table sessions rename to kept',
    `create type sessions as (id text, data json, user_id text, version integer, created_at timestamptz,
       last_seen_at timestamptz, expires_at timestamptz, revoked_at timestamptz, expires_hour timestamptz)`,
  ],
  rules: ['it has rules', 'create rule quiet as on delete to sessions do instead nothing'],
};

describe('a table is refused for', () => {
  test.each(Object.entries(refused))('%s', async (_name, [expected, ...changes]) => {
    await createOwn(...changes);
    for (const createTableIfMissing of [false, true]) {
      const store = open({ createTableIfMissing });
      for (const [name, call] of Object.entries(callsOf(store))) {
        if (name.includes('user') || name.includes('User')) continue;
        const error = await failure(call);
        expect(error, name).toBeInstanceOf(TableMismatchError);
        expect(error, name).toMatchObject({ code: 'ERR_TABLE_MISMATCH', reason: 'unusable' });
        expect(String(error), name).toContain(`The table sessions cannot store sessions: `);
        expect(String(error), name).toContain(expected);
      }
      const error = await failure(() => store.migrate());
      expect(error).toBeInstanceOf(MigrationError);
      expect(String(error)).toContain(expected);
    }
    await database.query('drop server if exists elsewhere cascade');
    await database.query('drop foreign data wrapper if exists nowhere');
  });

  test.each([
    'id',
    'data',
    'user_id',
    'version',
    'created_at',
    'last_seen_at',
    'expires_at',
    'revoked_at',
    'expires_hour',
  ])('a missing column: %s', async (column) => {
    await createOwn(`alter table sessions drop column ${column} cascade`);
    const store = open({ userId: () => 'ada' });
    for (const [name, call] of Object.entries(callsOf(store))) {
      const error = await failure(call);
      expect(error, name).toMatchObject({ code: 'ERR_TABLE_MISMATCH', reason: 'outdated' });
      expect(String(error)).toMatch(new RegExp(`lacks the columns? .*\\b${column}\\b`));
      expect(String(error)).toContain('Run the migration: `await store.migrate()`');
    }
    const error = await failure(() => store.migrate());
    expect(error).toBeInstanceOf(MigrationError);
    expect(String(error)).toContain(column);
  });

  test('another type of version, which is that of another release', async () => {
    await createOwn(
      'alter table sessions alter column version drop default',
      'alter table sessions alter column version type boolean using true',
      'alter table sessions alter column version set default true',
    );
    const error = await failure(() => open().ready());
    expect(error).toMatchObject({ reason: 'outdated' });
    expect(String(error)).toMatch(/column version is boolean instead of .*Run the migration/);
  });

  test.each([
    ['integer', 'text'],
    ['uuid', 'text'],
    ['text', 'integer'],
  ])('a user_id that is %s, where the store expects %s', async (type, expected) => {
    await createOwn(
      'alter table sessions drop column user_id',
      `alter table sessions add column user_id ${type}`,
    );
    const own = { ...sessionColumns(), userId: integer('user_id') };
    const table = pgTable('sessions', own);
    const store = open({
      userId: () => 'ada',
      ...(expected === 'integer' ? { table } : {}),
    });
    await expect(store.ready()).rejects.toThrow(
      `the column user_id is ${type}, but the store expects ${expected}`,
    );
  });

  test('a user_id that must not be null, if the store has no option userId', async () => {
    await createOwn('alter table sessions alter column user_id set not null');
    const table = pgTable('sessions', { ...sessionColumns(), userId: text('user_id').notNull() });
    await expect(open({ table }).ready()).rejects.toThrow(
      'the column user_id is NOT NULL, but the store has no option userId',
    );
  });

  test.each(['select', 'insert', 'update', 'delete'])('no permission to %s', async (command) => {
    await createOwn(
      `grant select, insert, update, delete on sessions to ${role}`,
      `revoke ${command} on sessions from ${role}`,
    );
    const store = storeOn(poolAs(role), { createTableIfMissing: true });
    for (const call of [() => store.ready(), () => store.get('sid'), () => store.clear()]) {
      const error = await failure(call);
      expect(error).toMatchObject({ code: 'ERR_TABLE_MISMATCH', reason: 'unusable' });
      expect(String(error)).toContain(
        `the role ${role} has no permission to ${command.toUpperCase()} (grant ${command} on sessions)`,
      );
      expect(String(error)).not.toContain('another one');
    }
    await database.query(`grant ${command} on sessions to ${role}`);
    await wholeCycle(store);
  });

  test('no permission to update a column that the store writes', async () => {
    await createOwn(
      `grant select, insert, delete, update (data, version, expires_at) on sessions to ${role}`,
    );
    await expect(storeOn(poolAs(role)).ready()).rejects.toThrow('has no permission to UPDATE');
  });

  test('no permission on its schema, whether it is named or not', async () => {
    await createOwn(
      'create schema auth',
      'alter table sessions set schema auth',
      `grant select, insert, update, delete on auth.sessions to ${role}`,
    );
    const inPath = database.pool({ options: `-c role=${role} -c search_path=auth` });
    for (const store of [
      storeOn(poolAs(role), { schemaName: 'auth' }),
      storeOn(inPath, { createTableIfMissing: true }),
    ]) {
      for (const call of [() => store.ready(), () => store.clear()]) {
        const error = await failure(call);
        expect(error).toMatchObject({ code: 'ERR_TABLE_MISMATCH', reason: 'unusable' });
        expect(String(error)).toContain('has no permission on the schema auth');
      }
    }
    await expect(storeOn(poolAs(role), { schemaName: 'auth' }).migrate()).rejects.toThrow(
      'has no permission on the schema auth',
    );
    await database.query(`grant usage on schema auth to ${role}`);
    await wholeCycle(storeOn(poolAs(role), { schemaName: 'auth' }));
    await wholeCycle(storeOn(inPath));
    await database.query('drop schema auth cascade');
  });

  test.each([
    ['no policy', [], 'SELECT, INSERT, UPDATE and DELETE'],
    [
      'a policy for one command',
      ['p1 on sessions for select using (true)'],
      'INSERT, UPDATE and DELETE',
    ],
    [
      'a policy for another role',
      ['p1 on sessions to postgres using (true)'],
      'SELECT, INSERT, UPDATE and DELETE',
    ],
    [
      'a restrictive policy alone',
      ['p1 on sessions as restrictive using (true)'],
      'SELECT, INSERT, UPDATE and DELETE',
    ],
  ])('row-level security with %s', async (_which, policies, commands) => {
    await createOwn(
      `grant select, insert, update, delete on sessions to ${role}`,
      'alter table sessions enable row level security',
      ...policies.map((policy) => `create policy ${policy}`),
    );
    const store = storeOn(poolAs(role), { createTableIfMissing: true });
    for (const call of [() => store.ready(), () => store.set('sid', sessionWith())]) {
      await expect(call()).rejects.toThrow(
        `row-level security has no policy that lets the role ${role} ${commands}`,
      );
    }
    await database.query('alter table sessions disable row level security');
    await wholeCycle(store);
  });
});

describe('the statements of a store', () => {
  /** What every connection of node-postgres sends. */
  function sentTexts(): () => string[] {
    const query = vi.spyOn(pg.Client.prototype, 'query');
    return () =>
      query.mock.calls.map(([sent]: unknown[]) =>
        String(typeof sent === 'object' && sent !== null && 'text' in sent ? sent.text : sent),
      );
  }

  test.each(['expires_hour', 'Ends In Hour'])(
    'all contain the column that no other package has: %s',
    async (name) => {
      await createOwn(`alter table sessions rename column expires_hour to "temporary"`);
      await database.query(`alter table sessions rename column "temporary" to "${name}"`);
      const own = sessionColumns();
      const table = pgTable('sessions', {
        ...own,
        expiresHour: timestamp(name, { withTimezone: true }).generatedAlwaysAs(sql`now()`),
      });
      for (const options of [{}, { sync: true, maxLifetime: 60, preparedStatements: false }]) {
        const settings = { ...options, table, userId: () => 'ada', maxSessionsPerUser: 3 };
        const store = open({ ...settings, touchAfter: 0 });
        await store.ready();
        const texts = sentTexts();
        const many = (call: (sid: string) => Promise<unknown>) =>
          Promise.all(Array.from({ length: 20 }, (_, n) => call(`sid ${n}`)));
        const uses: Record<string, () => Promise<unknown>> = {
          ...callsOf(store),
          generated: () => generate(store, 'generated', {}),
          save: async () => {
            await store.set('sid', sessionWith());
            await store.set('sid', asSession({ ...(await store.get('sid')), page: 1 }));
          },
          'update a session': () =>
            store.update('sid', (data) => void Object.assign(data, { a: 1 })),
          'many get': () => many((sid) => store.get(sid)),
          'many set': () => many((sid) => store.set(sid, sessionWith())),
          'many generated': () => many((sid) => generate(store, sid, {})),
          'many save': () =>
            many(async (sid) => store.set(sid, asSession({ ...(await store.get(sid)), page: 1 }))),
          'many touch': () => many((sid) => store.touch(sid, sessionWith())),
          'many destroy': () => many((sid) => store.destroy(sid)),
        };
        const seen = new Set<string>();
        for (const [use, call] of Object.entries(uses)) {
          const before = texts().length;
          await call();
          const sent = texts()
            .slice(before)
            .filter((each) => each.includes('"sessions"'));
          expect(sent.length, use).toBeGreaterThan(0);
          for (const each of sent) {
            expect(each, use).toContain(`"${name}"`);
            seen.add(each);
          }
        }
        // Six for one row, six for many, and those on the table. The portable ones are for one row.
        expect(seen.size).toBeGreaterThanOrEqual(isPortable ? 14 : 20);
        vi.restoreAllMocks();
      }
    },
  );

  test('are sent without another check while nothing is wrong', async () => {
    await createOwn();
    const store = open({ userId: () => 'ada' });
    await store.ready();
    const texts = sentTexts();
    await wholeCycle(store);
    await store.ready();
    expect(texts().length).toBeGreaterThan(20);
    expect(texts().filter((each) => each.includes('to_regclass'))).toEqual([]);
  });

  test('are sent after one check, however many calls come first', async () => {
    await createOwn();
    const texts = sentTexts();
    const store = open();
    await Promise.all(Array.from({ length: 20 }, (_, n) => store.get(`sid ${n}`)));
    expect(texts().filter((each) => each.includes('to_regclass'))).toHaveLength(1);
  });

  test('affect the rows of one partition, not those at the same place in another', async () => {
    await createOwn(...(accepted.partitions ?? []));
    const store = open();
    await store.ready();
    // One row in each, so that each is the first of its partition.
    const sids: string[] = [];
    for (let n = 0; sids.length < 3; n += 1) {
      await store.set(`sid ${n}`, sessionWith({ n }));
      const [row] = await database.query<{ ctid: string }>(
        'select ctid::text from sessions where id = $1',
        [idOf(`sid ${n}`)],
      );
      if (row?.ctid === '(0,1)') sids.push(`sid ${n}`);
      else await database.query('delete from sessions where id = $1', [idOf(`sid ${n}`)]);
    }
    const [first = '', second = '', third = ''] = sids;
    await database.query(
      `update sessions set expires_at = now() - interval '1 hour' where id = $1`,
      [idOf(first)],
    );
    await database.query('vacuum full sessions');
    const places = await database.query('select distinct ctid::text from sessions');
    expect(places).toEqual([{ ctid: '(0,1)' }]);
    expect(await store.pruneSessions()).toBe(1);
    await store.touch(second, sessionWith({}, 7200));
    expect(endOf(await store.get(third))).toBeLessThan(Date.now() + 3_700_000);
    await database.query('vacuum full sessions');
    await store.destroy(second);
    expect(await store.get(second)).toBeUndefined();
    expect(await store.get(third)).toBeDefined();
  });
});

describe('migrate', () => {
  test('does not change a table that it cannot make usable', async () => {
    await createOwn('alter table sessions drop column last_seen_at');
    await database.query('delete from __connect_drizzle_store');
    const store = open();
    await expect(store.migrate()).rejects.toThrow(
      'The migrations have run, but: The table sessions is an older or incomplete version',
    );
    expect(await database.query('select from __connect_drizzle_store')).toEqual([]);
    await database.query(
      'alter table sessions add column last_seen_at timestamptz not null default now()',
    );
    await store.migrate();
    await wholeCycle(store);
  });

  test('repairs a store whose calls fail because of the table', async () => {
    const store = open();
    await expect(store.ready()).rejects.toThrow(TableMissingError);
    await store.migrate();
    await wholeCycle(store);
  });
});
