import { once } from 'node:events';
import { createRequire } from 'node:module';
import { type DrizzleStore, DrizzleStore as Store } from 'connect-drizzle';
import express5 from 'express';
import session from 'express-session';
import passport from 'passport';
import { describe, expect } from 'vitest';
import { gate } from './support/gate.js';
import { serve } from './support/http.js';
import { holding, holdingTable } from './support/obstacles.js';
import { type OwnDatabase, test } from './support/own-database.js';
import { runProgram } from './support/program.js';
import { startProxy, type Proxy as TcpProxy } from './support/proxy.js';
import { sessionWith } from './support/sessions.js';

declare module 'express-session' {
  interface SessionData {
    name?: string;
  }
}

const require = createRequire(import.meta.url);
const express4: typeof express5 = require('express4');

interface Connected {
  readonly store: DrizzleStore;
  readonly proxy: TcpProxy;
  /** `connect` and `disconnect`, in the order in which they were emitted. */
  readonly events: string[];
}

/** A store with its table, on a pool that reaches the database through a proxy. */
async function connected(
  database: OwnDatabase,
  timeout: number,
  whenUnavailable: 'skip' | 'error' = 'skip',
) {
  const proxy = await startProxy(database.url);
  database.atEnd(() => proxy.close());
  const pool = database.pool({ connectionString: proxy.url });
  const store = await database.store({ timeout, whenUnavailable }, pool);
  return { store, proxy, events: eventsOf(store) } satisfies Connected;
}

/** Makes the database unavailable; resolves when express-session knows. */
async function lose({ store, proxy }: Pick<Connected, 'store' | 'proxy'>): Promise<void> {
  const away = once(store, 'disconnect');
  proxy.refuse();
  await expect(store.get('sid')).rejects.toMatchObject({ code: 'ERR_CONNECTION' });
  await away;
}

function eventsOf(store: DrizzleStore): string[] {
  const events: string[] = [];
  store.on('disconnect', () => events.push('disconnect'));
  store.on('connect', () => events.push('connect'));
  return events;
}

/** How the sessions of an app are set up. */
function sessionsOf(store: DrizzleStore, name?: string) {
  return session({ store, name, secret: 'secret', resave: false, saveUninitialized: false });
}

/** Serves an app with pages that need a session, that can use one, and that use none. */
async function serveApp(
  database: OwnDatabase,
  store: DrizzleStore,
  express: typeof express5 = express5,
) {
  const app = express();
  app.use(sessionsOf(store));
  app.get('/about', (_request, response) => void response.send('about us'));
  app.get('/greeting', (request, response) => {
    response.send(`hello ${request.session?.name ?? 'stranger'}`);
  });
  app.get('/log-in', (request, response) => {
    request.session.name = 'ann';
    response.send('welcome');
  });
  app.use(((error, _request, response, _next) => {
    response.status(500).send(String(error));
  }) satisfies express5.ErrorRequestHandler);
  const site = await serve(app);
  database.atEnd(() => site.close());
  return site;
}

describe.concurrent.each([
  ['Express 5', express5],
  ['Express 4', express4],
])('an app on %s', (_version, express) => {
  test.for([
    [
      'refuses connections',
      30,
      (proxy: TcpProxy) => proxy.refuse(),
      (proxy: TcpProxy) => proxy.accept(),
    ],
    ['does not answer', 5, (proxy: TcpProxy) => proxy.swallow(), (proxy: TcpProxy) => proxy.lose()],
  ] as const)(
    'works without sessions while the database %s',
    async ([_fault, timeout, begin, end], { database, expect }) => {
      const { store, proxy, events } = await connected(database, timeout);
      const site = await serveApp(database, store, express);
      const browser = site.browser();
      await browser.get('/log-in');
      expect((await browser.get('/greeting')).text).toBe('hello ann');

      const away = once(store, 'disconnect');
      begin(proxy);
      // The request that meets the fault fails; those after it are answered without the database.
      expect((await browser.get('/greeting')).status).toBe(500);
      await away;
      expect((await browser.get('/about')).text).toBe('about us');
      expect((await browser.get('/greeting')).text).toBe('hello stranger');
      expect(await browser.get('/log-in')).toMatchObject({
        status: 500,
        text: expect.stringContaining("Cannot set properties of undefined (setting 'name')"),
      });

      const back = once(store, 'connect');
      end(proxy);
      await back;
      expect((await browser.get('/greeting')).text).toBe('hello ann');
      expect(events.filter((event) => event === 'connect')).toHaveLength(1);
      expect(events.at(-1)).toBe('connect');
    },
  );
});

test.concurrent('without the option, every request fails and no event is emitted while the database is unavailable', async ({
  database,
  expect,
}) => {
  const { store, proxy, events } = await connected(database, 10, 'error');
  const site = await serveApp(database, store);
  const browser = site.browser();
  await browser.get('/log-in');
  proxy.refuse();
  for (let count = 0; count < 3; count += 1) {
    expect((await browser.get('/greeting')).status).toBe(500);
  }
  proxy.accept();
  expect((await browser.get('/greeting')).text).toBe('hello ann');
  expect(events).toEqual([]);
});

describe.concurrent('sessions are not skipped because of', () => {
  test('a session that another transaction holds', async ({ database, expect }) => {
    const { store, events } = await connected(database, 10);
    await store.set('sid', sessionWith());
    const row = await holding(database, 'select from sessions for update');
    const saving = store.set('sid', sessionWith({ name: 'ann' }));
    await expect(saving).rejects.toMatchObject({ code: 'ERR_STORE_TIMEOUT' });
    expect(await store.get('sid')).toBeDefined();
    await row.release();
    await store.close();
    expect(events).toEqual([]);
  });

  test('connections that an administrator terminated', async ({ database, expect }) => {
    const { store, events } = await connected(database, 10);
    const lock = await holdingTable(database);
    const call = store.get('sid');
    await lock.waiting(1);
    await lock.client.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
    await expect(call).rejects.toMatchObject({ code: 'ERR_CONNECTION' });
    await lock.release();
    expect(await store.get('sid')).toBeUndefined();
    await store.close();
    expect(events).toEqual([]);
  });

  test("the server's own statement_timeout", async ({ database, expect }) => {
    const pool = database.pool({ statement_timeout: 2000 });
    const store = await database.store({ timeout: 30, whenUnavailable: 'skip' }, pool);
    const events = eventsOf(store);
    const lock = await holdingTable(database);
    // A probe after the first would fail before the third.
    for (let count = 0; count < 3; count += 1) {
      await expect(store.get('sid')).rejects.toMatchObject({ cause: { code: '57014' } });
    }
    await lock.release();
    expect(await store.get('sid')).toBeUndefined();
    await store.close();
    expect(events).toEqual([]);
  });

  test('a table that was dropped while the database was unavailable', async ({
    database,
    expect,
  }) => {
    const { store, proxy } = await connected(database, 10);
    await lose({ store, proxy });
    await database.query('drop table sessions');
    const back = once(store, 'connect');
    proxy.accept();
    await back;
    await expect(store.get('sid')).rejects.toMatchObject({ code: 'ERR_TABLE_MISSING' });
  });
});

test('an app that starts while the database is unavailable skips sessions until it is available', async ({
  database,
  expect,
}) => {
  const { store: migrated } = await connected(database, 10);
  await migrated.set('any', sessionWith());
  const proxy = await startProxy(database.url);
  database.atEnd(() => proxy.close());
  proxy.refuse();
  const store = new Store(database.pool({ connectionString: proxy.url }), {
    whenUnavailable: 'skip',
    pruneSessionInterval: false,
    errorLog: () => {},
  });
  database.atEnd(() => store.close());
  const first = once(store, 'disconnect');
  await expect(store.ready()).rejects.toMatchObject({ code: 'ERR_CONNECTION' });
  await first;
  // express-session only listens from now on.
  const site = await serveApp(database, store);
  await once(store, 'disconnect');
  const browser = site.browser();
  expect((await browser.get('/greeting')).text).toBe('hello stranger');
  const back = once(store, 'connect');
  proxy.accept();
  await back;
  await browser.get('/log-in');
  expect((await browser.get('/greeting')).text).toBe('hello ann');
});

test('each call that fails while the database is unavailable emits disconnect again', async ({
  database,
  expect,
}) => {
  const { store, proxy } = await connected(database, 10);
  await lose({ store, proxy });
  let emitted = 0;
  store.on('disconnect', () => {
    emitted += 1;
  });
  const calls = Array.from({ length: 20 }, (_, at) => store.get(`sid ${at}`));
  const outcomes = await Promise.allSettled(calls);
  expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
  await new Promise(setImmediate);
  expect(emitted).toBeGreaterThanOrEqual(20);
});

test('close() stops the probes', async ({ database, expect }) => {
  const { store, proxy, events } = await connected(database, 10);
  await lose({ store, proxy });
  await store.close();
  await new Promise(setImmediate);
  const before = events.length;
  proxy.accept();
  // Twice the longest pause after the first failure.
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect(events.length).toBe(before);
  expect(proxy.connections).toBe(0);
});

test('the probes do not keep the process alive', async () => {
  const { code, output } = await runProgram(`
    import { DrizzleStore } from 'connect-drizzle';
    import { Pool } from 'pg';
    const pool = new Pool({ connectionString: 'postgres://nobody@127.0.0.1:1/none' });
    const store = new DrizzleStore(pool, { whenUnavailable: 'skip', errorLog() {} });
    store.once('disconnect', () => console.log('away'));
    await store.ready().catch(({ code }) => console.log(code));
  `);
  expect(output).toContain('ERR_CONNECTION');
  expect(output).toContain('away');
  expect(code).toBe(0);
});

describe('while sessions are skipped', () => {
  test("Passport's session strategy responds with 500, unless it runs only with a session", async ({
    database,
    expect,
  }) => {
    const { store, proxy } = await connected(database, 10);
    const app = express5();
    const authenticator = new passport.Passport();
    const remember = authenticator.session();
    app.use(sessionsOf(store));
    app.get('/always', remember, (_request, response) => void response.send('always'));
    app.get(
      '/with-a-session',
      (request, response, next) => (request.session ? remember(request, response, next) : next()),
      (_request, response) => void response.send('with a session'),
    );
    app.use(((error, _request, response, _next) => {
      response.status(500).send(String(error));
    }) satisfies express5.ErrorRequestHandler);
    const site = await serve(app);
    database.atEnd(() => site.close());
    const browser = site.browser();
    expect((await browser.get('/always')).text).toBe('always');
    await lose({ store, proxy });
    expect(await browser.get('/always')).toMatchObject({
      status: 500,
      text: expect.stringContaining('Login sessions require session support'),
    });
    expect((await browser.get('/with-a-session')).text).toBe('with a session');
  });

  test('a second session middleware on the same path serves the requests', async ({
    database,
    expect,
  }) => {
    const first = await connected(database, 10);
    const second = await database.store();
    const app = express5();
    app.use(sessionsOf(first.store), sessionsOf(second, 'second'));
    app.get('/', (request, response) => {
      request.session.name = 'ann';
      response.send(Object.is(request.sessionStore, second) ? 'second' : 'first');
    });
    const site = await serve(app);
    database.atEnd(() => site.close());
    const browser = site.browser();
    expect((await browser.get('/')).text).toBe('first');
    await lose(first);
    expect((await browser.get('/')).text).toBe('second');
    expect([...browser.cookies.keys()]).toEqual(['connect.sid', 'second']);
  });

  test('a request that had loaded its session is served, and its change is lost with an error', async ({
    database,
    expect,
  }) => {
    const { store, proxy } = await connected(database, 10);
    const loaded = gate();
    const mayEnd = gate();
    const failed = gate<unknown>();
    const app = express5();
    app.use(sessionsOf(store));
    app.get('/log-in', (request, response) => {
      request.session.name = 'ann';
      response.send('welcome');
    });
    app.get('/rename', async (request, response) => {
      request.session.name = 'bea';
      loaded.open();
      await mayEnd.opened;
      response.send('renamed');
    });
    app.get('/', (request, response) => void response.send(request.session.name));
    app.use(((error, _request, _response, _next) => {
      failed.open(error);
    }) satisfies express5.ErrorRequestHandler);
    const site = await serve(app);
    database.atEnd(() => site.close());
    const browser = site.browser();
    await browser.get('/log-in');
    const renaming = browser.get('/rename');
    await loaded.opened;
    await lose({ store, proxy });
    mayEnd.open();
    expect(await renaming).toMatchObject({ status: 200, text: 'renamed' });
    expect(await failed.opened).toMatchObject({ code: 'ERR_CONNECTION' });
    const back = once(store, 'connect');
    proxy.accept();
    await back;
    expect((await browser.get('/')).text).toBe('ann');
  });
});
