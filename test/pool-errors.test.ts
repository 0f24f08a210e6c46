/** The server ends a connection of the app's pool: the store logs it, and the process lives on. */
import { readFile } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { ConnectionError, DrizzleStore } from 'connect-drizzle';
import { drizzle } from 'drizzle-orm/node-postgres';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { guardPool } from '../src/drivers/support/pool-errors.js';
import { Browser } from './support/http.js';
import { startPostgres } from './support/postgres.js';
import { startProgram } from './support/program.js';
import { startProxy } from './support/proxy.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, sessionWith } from './support/sessions.js';

let database: ReusedDatabase;
let pools: pg.Pool[];

beforeAll(async () => {
  database = await reusedDatabase();
});

afterAll(() => database.drop());

beforeEach(() => {
  pools = [];
});
afterEach(async () => {
  for (const pool of pools) {
    // The server may end a connection that the pool is just ending.
    pool.on('error', () => {});
    await pool.end();
  }
  await database.clear();
});

/** A pool without an error listener. */
function bare(url = database.url): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, application_name: 'app' });
  pools.push(pool);
  return pool;
}

/** Ends the connections of the app. Resolves with their number when the server has ended them. */
async function terminate(name = 'app'): Promise<number> {
  const rows = await database.query(
    'select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = current_database() and application_name = $1',
    [name],
  );
  return rows.length;
}

async function collectGarbage(): Promise<void> {
  setFlagsFromString('--expose-gc');
  // An object returned by `deref` is kept until the end of the turn.
  await nextTurn();
  runInNewContext('gc()');
}

const silent = { errorLog: () => {}, createTableIfMissing: true };

/** The code block of a page that contains this text. */
async function snippetIn(page: string, containing: string): Promise<string> {
  const text = await readFile(new URL(`../${page}`, import.meta.url), 'utf8');
  const snippets = [...text.matchAll(/```[jt]s\n(.*?)```/gs)].map(([, code = '']) => code);
  const found = snippets.find((code) => code.includes(containing));
  if (found === undefined) throw new Error(`${page} has no snippet with ${containing}`);
  return found;
}

/** Makes an app listen on a free port, whatever its code says, and print it. */
const onFreePort = `
import { Server } from 'node:http';
const { listen } = Server.prototype;
Server.prototype.listen = function () {
  return listen.call(this, 0, '127.0.0.1', function () {
    console.log('at http://127.0.0.1:' + this.address().port);
  });
};
`;

/** The app that a reader adds to the snippet that creates a store on a pool. */
const appAround = `
import express from 'express';
import session from 'express-session';
const app = express();
app.use(session({ store, secret: 'secret', resave: false, saveUninitialized: false }));
app.get('/', (req, res) => {
  req.session.views = (req.session.views ?? 0) + 1;
  res.json({ views: req.session.views });
});
app.listen(3000);
`;

describe('the snippet of the documentation', () => {
  const snippets: [what: string, page: string, containing: string, more: string][] = [
    ['a pool of the app', 'docs/table.md', 'drizzle({ client: new Pool(', appAround],
    ['a URL', 'README.md', 'new DrizzleStore(process.env.DATABASE_URL', ''],
  ];

  async function start(page: string, containing: string, more: string, url: string) {
    const text = `${onFreePort}${await snippetIn(page, containing)}${more}`;
    const app = await startProgram(text, {
      DATABASE_URL: url,
      SESSION_SECRET: 'a long random text',
    });
    return { ...app, browser: new Browser((await app.until(/http:\S+/)) ?? '') };
  }
  const views = async (browser: Browser) => JSON.parse((await browser.get('/')).text);

  test.each(snippets)(
    'serves the next request after the server has ended its idle connections: %s',
    async (_what, page, containing, more) => {
      const url = new URL(database.url);
      url.searchParams.set('application_name', 'app');
      const app = await start(page, containing, more, url.href);
      expect(await views(app.browser)).toEqual({ views: 1 });
      expect(await terminate()).toBeGreaterThan(0);
      await app.until(/An idle connection of the session store failed/);
      expect(await views(app.browser)).toEqual({ views: 2 });
      await app.stop('SIGKILL');
    },
  );

  test.each(snippets)(
    'serves the next request after the server was restarted: %s',
    async (_what, page, containing, more) => {
      await using server = await startPostgres();
      const app = await start(page, containing, more, server.url);
      expect(await views(app.browser)).toEqual({ views: 1 });
      await server.shutdown();
      await app.until(/An idle connection of the session store failed/);
      await server.start();
      expect(await views(app.browser)).toEqual({ views: 2 });
      await app.stop('SIGKILL');
    },
  );
});

describe('a pool without an error listener of the app', () => {
  test('gets one from a store, even an unused one, which logs the error', async () => {
    const pool = bare();
    await pool.query('select 1');
    const errorLog = vi.fn();
    await using store = new DrizzleStore(drizzle({ client: pool }), { errorLog });
    expect(await terminate()).toBe(1);
    await expect.poll(() => errorLog).toHaveBeenCalledTimes(1);
    expect(errorLog).toHaveBeenCalledWith(
      'connect-drizzle: An idle connection of the session store failed',
      expect.any(ConnectionError),
    );
    await store.close();
  });

  test('gets one listener for all its stores until the last one is closed, and each error is logged once', async () => {
    const pool = bare();
    await pool.query('select 1');
    const logs = [vi.fn(), vi.fn(), vi.fn()];
    const [first, ...others] = logs.map((errorLog) => new DrizzleStore(pool, { errorLog }));
    expect(pool.listenerCount('error')).toBe(1);
    await terminate();
    await expect.poll(() => logs[0]).toHaveBeenCalledTimes(1);
    await first?.close();
    await pool.query('select 1');
    await terminate();
    await expect.poll(() => logs[1]).toHaveBeenCalledTimes(1);
    expect(logs.map((log) => log.mock.calls.length)).toEqual([1, 1, 0]);
    for (const store of others) {
      expect(pool.listenerCount('error')).toBe(1);
      await store.close();
      await store.close();
    }
    expect(pool.listenerCount('error')).toBe(0);
    await using again = new DrizzleStore(pool, silent);
    expect(pool.listenerCount('error')).toBe(1);
    await again.close();
  });

  test('gets one listener for all copies of the package', async () => {
    const pool = bare();
    vi.resetModules();
    const copy: { guardPool: typeof guardPool } = await import(
      '../src/drivers/support/pool-errors.js'
    );
    expect(copy.guardPool).not.toBe(guardPool);
    const [one, other] = [vi.fn(), vi.fn()];
    const ends = [guardPool(pool, one), copy.guardPool(pool, other)];
    expect(pool.listenerCount('error')).toBe(1);
    pool.emit('error', new Error('lost'));
    expect([one.mock.calls.length, other.mock.calls.length]).toEqual([1, 0]);
    ends[0]?.();
    pool.emit('error', new Error('lost'));
    expect([one.mock.calls.length, other.mock.calls.length]).toEqual([1, 1]);
    ends[1]?.();
    expect(pool.listenerCount('error')).toBe(0);
  });

  test('loses its listener when the signal of the store is aborted', async () => {
    const pool = bare();
    const controller = new AbortController();
    new DrizzleStore(pool, { ...silent, signal: controller.signal });
    controller.abort();
    await expect.poll(() => pool.listenerCount('error')).toBe(0);
    new DrizzleStore(pool, { ...silent, signal: controller.signal });
    await expect.poll(() => pool.listenerCount('error')).toBe(0);
  });

  test('keeps its listener, but not a store that was garbage-collected', async () => {
    const pool = bare();
    const forget = () => {
      const report = () => {};
      guardPool(pool, report);
      return new WeakRef(report);
    };
    const forgotten = forget();
    while (forgotten.deref() !== undefined) await collectGarbage();
    const report = vi.fn();
    const end = guardPool(pool, report);
    pool.emit('error', new Error('lost'));
    expect(report).toHaveBeenCalledTimes(1);
    end();
    expect(pool.listenerCount('error')).toBe(1);
    pool.emit('error', new Error('lost'));
  });

  test('gets none if the constructor throws', () => {
    const pool = bare();
    expect(() => new DrizzleStore(pool, { ttl: -1 })).toThrow(TypeError);
    expect(pool.listenerCount('error')).toBe(0);
  });
});

test('an app’s own listener gets the error, and no store logs it', async () => {
  const pool = bare();
  await pool.query('select 1');
  const errorLog = vi.fn();
  await using store = new DrizzleStore(pool, { errorLog });
  const heard = vi.fn();
  pool.on('error', heard);
  await terminate();
  await expect.poll(() => heard).toHaveBeenCalledTimes(1);
  expect(errorLog).not.toHaveBeenCalled();
  await store.close();
  expect(pool.listeners('error')).toEqual([heard]);
});

describe('a connection in use that the server ends', () => {
  test('fails migrate() only', async () => {
    const pool = bare();
    await using store = new DrizzleStore(pool, { errorLog: () => {} });
    const blocker = new pg.Client({ connectionString: database.url });
    await blocker.connect();
    await blocker.query('begin; create table sessions ()');
    const migrating = store.migrate();
    const waiting = () =>
      database.query(
        `select from pg_stat_activity where datname = current_database() and application_name = 'app' and wait_event_type = 'Lock'`,
      );
    await expect.poll(waiting).toHaveLength(1);
    await terminate();
    await expect(migrating).rejects.toThrow(ConnectionError);
    await blocker.end();
    await store.migrate();
    await store.close();
  });

  test('may be a new one that ends in the packet in which its log-in succeeds', async () => {
    await using proxy = await startProxy(database.url);
    const url = new URL(proxy.url);
    url.searchParams.set('application_name', 'app');
    const pool = bare(url.href);
    // The proxy holds ReadyForQuery, the end of the log-in, until the server has ended the connection.
    const held = proxy.hold('toClient', (piece) => piece.includes(Buffer.from('Z\0\0\0\x05I')));
    await using store = new DrizzleStore(pool, { errorLog: () => {} });
    const migrating = store.migrate();
    await held;
    expect(await terminate()).toBe(1);
    proxy.release();
    await expect(migrating).rejects.toThrow(ConnectionError);
    await store.migrate();
    await store.close();
  });

  test.each(['node-postgres', 'postgres-js'])(
    'may be the listener, which reconnects: %s',
    async (driver) => {
      const url = new URL(database.url);
      url.searchParams.set('application_name', 'app');
      const client = postgres(url.href, { onnotice: () => {} });
      const states: string[] = [];
      const store = new DrizzleStore(driver === 'postgres-js' ? client : bare(url.href), {
        ...silent,
        sync: { heartbeat: 1 },
      });
      store.on('sync', (state) => states.push(state));
      await store.set('sid', sessionWith({ name: 'kept' }));
      await expect.poll(() => states).toEqual(['up']);
      await terminate();
      await expect.poll(() => states).toEqual(['up', 'down', 'up']);
      expect(contentOf(await store.get('sid'))).toEqual({ name: 'kept' });
      await store.close();
      await client.end();
    },
  );
});

test('postgres-js works again after the server has ended its idle connections', async () => {
  const client = postgres(database.url, {
    onnotice: () => {},
    connection: { application_name: 'app' },
  });
  await using store = new DrizzleStore(client, silent);
  await store.set('sid', sessionWith({ name: 'kept' }));
  expect(await terminate()).toBeGreaterThan(0);
  // A call may fail because its connection has just gone, as with every driver. The next one does not.
  await store.get('sid').catch(() => {});
  expect(contentOf(await store.get('sid'))).toEqual({ name: 'kept' });
  await store.close();
  await client.end();
});
