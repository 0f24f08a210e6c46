import { DrizzleStore, sessionTable } from 'connect-drizzle';
import { getTableConfig, pgTable, text } from 'drizzle-orm/pg-core';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { sessionColumns } from '../src/schema.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { gatedPool } from './support/gated-pool.js';
import { sessionWith } from './support/sessions.js';

type Options = NonNullable<ConstructorParameters<typeof DrizzleStore>[1]>;

let database: TestDatabase;
const stores: DrizzleStore[] = [];

beforeAll(async () => {
  database = await freshDatabase();
  await database.query('create schema pretended');
});

afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
  await database.query(
    'drop schema if exists pretended, sys, public cascade; create schema public; create schema pretended',
  );
});

afterAll(() => database.drop());

/** A pool that searches the schema `pretended` before pg_catalog, so that a test can imitate another server. */
function pretending(config?: pg.PoolConfig): pg.Pool {
  return database.pool({ ...config, options: '-c search_path=pretended,pg_catalog,public' });
}

/** Makes the server return this text from `version()`. */
async function pretend(version: string): Promise<void> {
  await database.query(
    `create function pretended.version() returns text language sql as $$ select '${version}' $$`,
  );
}

const YUGABYTE = 'PostgreSQL 15.12-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, 64-bit';
const COCKROACH = 'CockroachDB CCL v25.2.0 (x86_64-pc-linux-gnu, built 2025/05/09)';

function storeOn(pool: pg.Pool, options: Options = {}): DrizzleStore {
  const store = new DrizzleStore(pool, {
    engine: 'auto',
    pruneSessionInterval: false,
    errorLog: () => {},
    ...options,
  });
  stores.push(store);
  return store;
}

/** Creates the table as on plain Postgres. */
async function createTable(options: Options = {}): Promise<void> {
  const store = storeOn(database.pool({ max: 1 }), options);
  await store.migrate();
  await store.close();
}

async function statementsAfterSet(pool: pg.Pool, store: DrizzleStore) {
  await store.set('sid', sessionWith({}));
  const { rows } = await pool.query<{ name: string }>('select name from pg_prepared_statements');
  const own = rows
    .map(({ name }) => name)
    .filter((name) => /^connect_drizzle_(insert|put|create)/.test(name));
  expect(own).not.toEqual([]);
  return own.every((name) => name.includes('_any_engine_')) ? 'portable' : 'postgres';
}

async function statementsFor(options: Options = {}): Promise<string> {
  const pool = pretending({ max: 1 });
  return statementsAfterSet(pool, storeOn(pool, options));
}

describe('a store sends', () => {
  test('the statements for Postgres on Postgres', async () => {
    await createTable();
    expect(await statementsFor()).toBe('postgres');
  });

  test('the portable statements on YugabyteDB', async () => {
    await createTable();
    await pretend(YUGABYTE);
    expect(await statementsFor()).toBe('portable');
  });

  test('the portable statements on CockroachDB', async () => {
    await createTable();
    await database.query('alter table sessions alter column data type text');
    await pretend(COCKROACH);
    expect(await statementsFor({ table: sessionTable({ data: 'text' }) })).toBe('portable');
  });

  test('the portable statements on Aurora DSQL, which it recognises by a system table', async () => {
    await createTable();
    await database.query('alter table sessions alter column data type text');
    await database.query('create schema sys; create table sys.iam_pg_role_mappings ()');
    expect(await statementsFor({ table: sessionTable({ data: 'text' }) })).toBe('portable');
  });

  test('the portable statements for a table that Citus has distributed, and for no other table', async () => {
    await createTable();
    await createTable({ tableName: 'other' });
    await database.query(
      `create table pg_dist_partition (logicalrelid regclass);
       insert into pg_dist_partition values ('sessions')`,
    );
    expect(await statementsFor()).toBe('portable');
    expect(await statementsFor({ tableName: 'other' })).toBe('postgres');
  });

  test('the statements that the option engine names, whatever the server is', async () => {
    await createTable();
    expect(await statementsFor({ engine: 'portable' })).toBe('portable');
    await pretend(YUGABYTE);
    expect(await statementsFor({ engine: 'postgres' })).toBe('postgres');
  });

  test('the portable statements after a failed call, if the table has been distributed meanwhile', async () => {
    await createTable();
    const pool = pretending({ max: 1 });
    const store = storeOn(pool);
    expect(await statementsAfterSet(pool, store)).toBe('postgres');
    await database.query(
      `create table pg_dist_partition (logicalrelid regclass);
       insert into pg_dist_partition values ('sessions');
       create function refuse() returns trigger language plpgsql as $$ begin
         if current_setting('lock_timeout') = '100ms' then raise sqlstate '0A000'; end if;
         return new;
       end $$;
       create trigger refuse before insert or update on sessions for each row execute function refuse()`,
    );
    await pool.query('deallocate all');
    await expect(store.set('other', sessionWith({}))).rejects.toMatchObject({
      code: 'ERR_STATEMENT',
      cause: { code: '0A000' },
    });
    await pool.query('deallocate all');
    expect(await statementsAfterSet(pool, store)).toBe('portable');
  });

  test('no extra statement to recognise Postgres', async () => {
    await createTable();
    let sent = 0;
    const pool = gatedPool(pretending({ max: 1 }), (query) => {
      sent += 1;
      return query();
    });
    await storeOn(pool).ready();
    // The check of the catalog, and the statement of `ready()`.
    expect(sent).toBe(2);
  });
});

describe('a store refuses', () => {
  test('an unknown engine, in the constructor', () => {
    const options = { engine: 'mysql' } as unknown as Options;
    expect(() => new DrizzleStore(pretending(), options)).toThrow(
      "engine must be 'auto' or 'postgres' or 'portable', but got a string",
    );
  });

  test.each([
    ['sync', { sync: true }],
    ['cache', { cache: true }],
  ])('the option %s without LISTEN', async (option, options) => {
    await createTable();
    await pretend(YUGABYTE);
    await expect(storeOn(pretending(), options).ready()).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: `The option ${option} needs LISTEN, which YugabyteDB does not have`,
    });
  });

  test('no option sync on YugabyteDB if LISTEN is enabled', async () => {
    await createTable();
    await pretend(YUGABYTE);
    await database.query(
      `create function pretended.current_setting(name text, missing_ok boolean) returns text language sql as
         $$ select case name when 'yb_enable_listen_notify' then 'on' else pg_catalog.current_setting(name, missing_ok) end $$`,
    );
    await storeOn(pretending(), { sync: true }).ready();
  });

  test.each([
    ['migrate()', {}, (store: DrizzleStore) => store.migrate()],
    [
      'createTableIfMissing',
      { createTableIfMissing: true },
      (store: DrizzleStore) => store.ready(),
    ],
  ])('%s without advisory locks', async (_, options, call) => {
    await pretend(COCKROACH);
    await expect(call(storeOn(pretending(), options))).rejects.toMatchObject({
      code: 'ERR_MIGRATION',
      message: expect.stringContaining(
        'Migrations need advisory locks and DDL in transactions, which CockroachDB does not have',
      ),
    });
    expect(await database.query("select to_regclass('public.sessions') as name")).toEqual([
      { name: null },
    ]);
  });

  test('json on an engine that does not keep it byte for byte', async () => {
    await createTable();
    await pretend(COCKROACH);
    await expect(storeOn(pretending()).ready()).rejects.toMatchObject({
      code: 'ERR_TABLE_MISMATCH',
      reason: 'unusable',
      message: expect.stringContaining("sessionTable({ data: 'text' })"),
    });
  });

  test('jsonb, and names what to use instead', async () => {
    await createTable();
    await database.query('alter table sessions alter column data type jsonb');
    await pretend(COCKROACH);
    await expect(storeOn(pretending()).ready()).rejects.toThrow(
      /data is jsonb instead of json.*Note that CockroachDB does not keep json byte for byte/,
    );
  });
});

describe('a server without the catalog of Postgres', () => {
  /** Removes a function that the check of the catalog uses. */
  async function withoutCatalog(): Promise<void> {
    await database.query(
      `create function pretended.to_regtype(text) returns oid language plpgsql as
         $$ begin raise undefined_function; end $$`,
    );
  }
  const options: Options = { table: sessionTable({ data: 'text' }) };

  test('works if the table has all columns', async () => {
    await createTable();
    await database.query('alter table sessions alter column data type text');
    await pretend(COCKROACH);
    await withoutCatalog();
    expect(await statementsFor(options)).toBe('portable');
  });

  test('is refused if the table does not exist, lacks a column or uses json', async () => {
    await createTable();
    await pretend(COCKROACH);
    await withoutCatalog();
    await expect(storeOn(pretending()).ready()).rejects.toMatchObject({
      code: 'ERR_TABLE_MISMATCH',
    });
    await database.query('alter table sessions drop column revoked_at');
    await expect(storeOn(pretending(), options).ready()).rejects.toThrow(
      'lacks a column of the session table',
    );
    await database.query('drop table sessions');
    await expect(storeOn(pretending(), options).ready()).rejects.toMatchObject({
      code: 'ERR_TABLE_MISSING',
    });
  });

  test('is not assumed if Postgres itself lacks a function', async () => {
    await createTable();
    await withoutCatalog();
    await expect(storeOn(pretending()).ready()).rejects.toMatchObject({
      cause: { code: '42883' },
    });
  });
});

describe.each(['postgres', 'portable'] as const)(
  'a column data of type text, with the %s statements,',
  (engine) => {
    test('keeps content byte for byte', async () => {
      await createTable();
      await database.query('alter table sessions alter column data type text');
      const store = storeOn(pretending(), { engine, table: sessionTable({ data: 'text' }) });
      const odd = { zero: '\u0000', lone: '\ud800', order: { b: 1, a: 2 } };
      const sids = ['one', 'two', 'three'];
      await Promise.all(sids.map((sid) => store.set(sid, sessionWith(odd))));
      for (const sid of sids) expect(await store.get(sid)).toMatchObject(odd);
      await store.update('one', (session) => Object.assign(session, { more: true }));
      expect(JSON.stringify(await store.get('one'))).toContain('"order":{"b":1,"a":2},"more":true');
      expect(Object.keys(await store.all())).toHaveLength(3);
    });
  },
);

test('a table of the app may have a column data of type text', () => {
  expect(sessionTable({ data: 'text', schemaName: 'auth' }).data.getSQLType()).toBe('text');
  expect(getTableConfig(sessionTable({ data: 'text', schemaName: 'auth' })).schema).toBe('auth');
  expect(sessionTable().data.getSQLType()).toBe('json');
  const own = pgTable('own', { ...sessionColumns(), data: text('data') });
  expect(() => storeOn(pretending(), { table: own })).not.toThrow();
});
