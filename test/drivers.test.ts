import dns from 'node:dns';
import { ConnectionError, DrizzleStore, StatementError, StoreTimeoutError } from 'connect-drizzle';
import { PgDialect } from 'drizzle-orm/pg-core';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { eventually } from './support/eventually.js';
import { gate } from './support/gate.js';
import { runProgram, startProgram } from './support/program.js';
import { startProxy } from './support/proxy.js';
import { up } from './support/realtime.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, sessionWith } from './support/sessions.js';
import { isPortable } from './support/statement-set.js';
import { causeCode } from './support/statements.js';

let database: ReusedDatabase;
const ends: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(async () => {
  vi.restoreAllMocks();
  for (const end of ends.splice(0).reverse()) await end();
  await database.clear();
});

afterAll(() => database.drop());

const silent = { pruneSessionInterval: false, errorLog: () => {} } as const;

function postgresJs(url: string, options: postgres.Options<never> = {}): postgres.Sql {
  const sql = postgres(url, { onnotice: () => {}, ...options });
  ends.push(() => sql.end({ timeout: 0 }));
  return sql;
}

function storeOn(sql: postgres.Sql): DrizzleStore {
  const store = new DrizzleStore(sql, silent);
  ends.push(() => store.close());
  return store;
}

describe('statements', () => {
  /** Records the statements that Drizzle compiles from now on. */
  function compilations(): () => string[] {
    const compile = vi.spyOn(PgDialect.prototype, 'sqlToQuery');
    return () => compile.mock.results.map(({ value }) => String(value.sql));
  }

  test.each([true, false])(
    'are compiled once, on first use, with preparedStatements: %s',
    async (preparedStatements) => {
      await database.store();
      const compiled = compilations();
      const store = new DrizzleStore(database.pool(), { ...silent, preparedStatements });
      ends.push(() => store.close());
      await store.get('sid');
      expect(compiled()).toEqual([expect.stringContaining('from "sessions"')]);
      for (const _ of [1, 2, 3]) {
        await store.set('sid', sessionWith());
        await store.touch('sid', sessionWith());
        await Promise.all([store.get('a'), store.get('b'), store.get('c')]);
        await Promise.all([store.set('a', sessionWith()), store.set('b', sessionWith())]);
        await Promise.all([store.touch('a', sessionWith()), store.touch('b', sessionWith())]);
        await store.update('sid', () => {});
        await Promise.all([store.destroy('a'), store.destroy('b'), store.length()]);
        await store.pruneSessions();
        await store.destroy('sid');
      }
      expect(compiled().length).toBeGreaterThan(isPortable ? 8 : 10);
      expect(new Set(compiled()).size).toBe(compiled().length);
    },
  );
});

test("a store works on a pool in pg's pipeline mode", async () => {
  // Versions of pg without this mode ignore the option.
  const config = { pipeline: true };
  const store = await database.store({ timeout: 30 }, database.pool(config));
  const sids = ['a', 'b', 'c'];
  await Promise.all(sids.map((sid) => store.set(sid, sessionWith({ sid }))));
  const found = await Promise.all(sids.map((sid) => store.get(sid)));
  expect(found.map(contentOf)).toEqual(sids.map((sid) => ({ sid })));
  await store.destroy('a');
  expect(await store.length()).toBe(2);
});

describe('a connection to a server that has become read-only', () => {
  test.each<[string, (store: DrizzleStore) => Promise<unknown>]>([
    ['set', (store) => store.set('sid', sessionWith())],
    ['pruneSessions', (store) => store.pruneSessions()],
    ['migrate', (store) => store.migrate()],
  ])('is closed when the server refuses %s, on node-postgres', async (_name, refused) => {
    const pool = database.pool({ max: 1 });
    const store = await database.store({}, pool);
    await database.query('drop table __connect_drizzle_store');
    await database.query(
      `insert into sessions (id, expires_at) values ('expired', now() - interval '2 hours')`,
    );
    await pool.query('set default_transaction_read_only = on');
    const error: unknown = await refused(store).catch((reason) => reason);
    expect(error).toBeInstanceOf(StatementError);
    expect(causeCode(error)).toBe('25006');
    await store.set('sid', sessionWith({ n: 1 }));
    expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
  });

  test('is closed when the server refuses a write, on postgres-js', async () => {
    await database.store();
    const setting = `alter database ${database.name} set default_transaction_read_only`;
    await database.query(`${setting} = on`);
    const store = storeOn(postgresJs(database.url));
    expect(await store.get('sid')).toBeUndefined();
    await database.query(`${setting} = off`);
    const error: unknown = await store.set('sid', sessionWith()).catch((reason) => reason);
    expect(causeCode(error)).toBe('25006');
    await store.set('sid', sessionWith({ n: 1 }));
    expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
  });
});

describe('a connection that the app released inside a transaction', () => {
  const left: Record<string, string[]> = {
    'an open transaction': ['begin'],
    'a failed transaction': ['begin', 'select 1/0'],
  };
  test.each(Object.entries(left))('is closed and not used: %s', async (_, statements) => {
    const pool = database.pool({ max: 1 });
    const store = await database.store({}, pool);
    const client = await pool.connect();
    for (const statement of statements) await client.query(statement).catch(() => {});
    client.release();
    await store.set('sid', sessionWith());
    expect(await database.query('select id from sessions')).toHaveLength(1);
  });

  test('is closed, and the statement sent again, if the app did not await its BEGIN', async () => {
    const pool = database.pool({ max: 1 });
    const store = await database.store({}, pool);
    const client = await pool.connect();
    client.query('begin').catch(() => {});
    client.release();
    await store.set('sid', sessionWith());
    expect(await database.query('select id from sessions')).toHaveLength(1);
  });
});

describe("the connection timeout that a store sets on an app's pool while it waits", () => {
  /** A pool of one connection, which the app holds. */
  async function heldPool() {
    const pool = database.pool({ max: 1 });
    const stores = [0.3, 60].map((timeout) => new DrizzleStore(pool, { ...silent, timeout }));
    ends.push(...stores.map((store) => () => store.close()));
    for (const store of stores) await eventually(() => store.ready());
    return { pool, stores, client: await pool.connect() };
  }

  test('does not apply to other stores, and does not stay on the pool', async () => {
    await database.store();
    const { pool, stores, client } = await heldPool();
    const [impatient, patient] = stores.map((store) => store.get('unknown'));
    await expect(impatient).rejects.toThrow(StoreTimeoutError);
    // The pool has given up the first call, too.
    await expect.poll(() => pool.waitingCount).toBe(1);
    client.release();
    expect(await patient).toBeUndefined();
    expect(pool.options.connectionTimeoutMillis).toBeUndefined();
  });

  test('does not overwrite one that the app sets meanwhile', async () => {
    await database.store();
    const { pool, stores, client } = await heldPool();
    const found = stores[1]?.get('unknown');
    await expect.poll(() => pool.waitingCount).toBe(1);
    pool.options.connectionTimeoutMillis = 12_345;
    client.release();
    expect(await found).toBeUndefined();
    expect(pool.options.connectionTimeoutMillis).toBe(12_345);
  });

  test('does not stay on a pool that throws', async () => {
    const Client = class {
      constructor() {
        throw new Error('The certificate cannot be read');
      }
    };
    const pool = Object.assign(database.pool(), { Client });
    const store = new DrizzleStore(pool, { ...silent, timeout: 10 });
    await expect(store.get('sid')).rejects.toThrow(ConnectionError);
    await store.close();
    expect(pool.options.connectionTimeoutMillis).toBeUndefined();
  });
});

describe('on postgres-js,', () => {
  test("a store does not use the app's own connections", async () => {
    await database.store();
    const sql = postgresJs(database.url, { max: 2 });
    const held = [gate(), gate()];
    const done = gate();
    const transactions = held.map((each) =>
      sql.begin(async (transaction) => {
        await transaction`select 1`;
        each.open();
        await done.opened;
      }),
    );
    await Promise.all(held.map((each) => each.opened));
    const store = storeOn(sql);
    await store.set('sid', sessionWith({ n: 1 }));
    expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
    expect(await store.length()).toBe(1);
    done.open();
    await Promise.all(transactions);
  });

  test("a store opens at most as many connections as the app's max", async () => {
    await database.store();
    const store = storeOn(postgresJs(`${database.url}?application_name=many`, { max: 4 }));
    await Promise.all(Array.from({ length: 150 }, () => store.ready()));
    expect(
      await database.query(
        `select count(*)::int as count from pg_stat_activity where datname = current_database() and application_name = 'many'`,
      ),
    ).toEqual([{ count: 4 }]);
  });

  test('a store uses the first host that answers and is a primary', async () => {
    await database.store();
    await using proxy = await startProxy(database.url);
    proxy.refuse();
    const url = new URL(database.url);
    const hosts = `127.0.0.1:1,127.0.0.1:${proxy.port},${url.host}`;
    const several = database.url.replace(url.host, hosts);
    const store = storeOn(postgresJs(several, { target_session_attrs: 'read-write' }));
    await store.set('sid', sessionWith({ n: 1 }));
    expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
    expect(await Promise.all([store.length(), store.length()])).toEqual([1, 1]);
  });

  test('the error of a call that cannot connect in time says how long it waited', async () => {
    await using proxy = await startProxy(database.url);
    proxy.swallow();
    const store = new DrizzleStore(postgresJs(proxy.url), { ...silent, timeout: 0.3 });
    await expect(store.ready()).rejects.toThrow('could not be sent within 0.3 s');
    await store.close();
    proxy.cut();
  });

  test('a listener that was given up while it was connecting does not log in later', async () => {
    await database.store();
    const url = new URL(database.url);
    url.hostname = 'localhost';
    const connection = { application_name: 'given-up' };
    const store = new DrizzleStore(postgresJs(url.href, { connection }), { ...silent, sync: true });
    await up(store);
    const lookup = dns.lookup;
    const held: (() => void)[] = [];
    const isHeld = gate();
    vi.spyOn(dns, 'lookup').mockImplementation((...args: unknown[]) => {
      held.push(() => Reflect.apply(lookup, dns, args));
      isHeld.open();
    });
    // The listener is lost and reconnects.
    const lost =
      "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query like 'listen%'";
    await expect.poll(() => database.query(lost)).toHaveLength(1);
    await isHeld.opened;
    await store.close();
    vi.restoreAllMocks();
    for (const release of held) release();
    const open =
      "select pid from pg_stat_activity where datname = current_database() and application_name = 'given-up' and state is not null";
    for (let logins = 0; logins < 10; logins += 1) {
      expect(await database.pool({ max: 1 }).query(open)).toMatchObject({ rows: [] });
    }
  });
});

describe('a process with a store on postgres-js', () => {
  const start = `import { DrizzleStore } from 'connect-drizzle';
    import postgres from 'postgres';
    const cookie = { originalMaxAge: null };
    const sql = postgres(process.env.TEST_URL, { onnotice() {} });
    const timeout = Number(process.env.TIMEOUT);
    const store = new DrizzleStore(sql, { timeout, errorLog() {} });`;

  test('exits without close() once the app has ended its own connections', async () => {
    await database.store();
    const run = await runProgram(
      `${start}
      await Promise.all([store.set('a', { cookie }), store.get('b'), store.length(), sql\`select 1\`]);
      await sql.end();
      console.log('done');`,
      { TEST_URL: database.url, TIMEOUT: '10' },
    );
    expect(run).toEqual({ code: 0, output: 'done\n' });
  });

  test.each([
    ['is connecting', () => true],
    ['waits for its answer', (piece: Buffer) => piece.includes('insert into')],
  ])('does not exit while a call %s', async (_what, match) => {
    await database.store();
    await using proxy = await startProxy(database.url);
    const held = proxy.hold('toServer', match);
    const program = await startProgram(
      `${start}
      process.on('exit', () => console.log('exit'));
      await store.set('a', { cookie });
      console.log('saved');`,
      { TEST_URL: proxy.url, TIMEOUT: '30' },
    );
    await held;
    // Without anything to wait for, the process would exit at once.
    await Promise.race([program.ended, new Promise((resolve) => setTimeout(resolve, 1000))]);
    expect(program.output).toBe('');
    proxy.release();
    expect(await program.ended).toBe(0);
    expect(program.output).toBe('saved\nexit\n');
  });

  test('exits without close() once its calls have timed out', async () => {
    await database.store();
    await using proxy = await startProxy(database.url);
    const program = await startProgram(
      `${start}
      // On a busy machine, the first calls may time out, too.
      while (!(await store.ready().then(() => true, () => false)));
      console.log('ready');
      let failures = 0;
      while (failures < 3) {
        await Promise.all([1, 2, 3].map((n) => store.get('sid ' + n))).catch(() => { failures += 1; });
      }
      console.log('given up');`,
      { TEST_URL: proxy.url, TIMEOUT: '0.3' },
    );
    ends.push(() => program.stop('SIGKILL'));
    await program.until(/ready/);
    proxy.swallow();
    await program.until(/given up/);
    expect(await program.ended).toBe(0);
  });
});
