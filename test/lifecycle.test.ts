/** The life of a store: opening, a database that is unavailable for a while, closing, and the end of its process. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { getEventListeners } from 'node:events';
import { inspect } from 'node:util';
import {
  ConnectionError,
  DrizzleStore,
  InvalidArgumentError,
  idOf,
  StoreClosedError,
  StoreTimeoutError,
} from 'connect-drizzle';
import { sql } from 'drizzle-orm';
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { eventually, shortestMs, untilSent } from './support/eventually.js';
import { holding, until } from './support/obstacles.js';
import { freshPglite } from './support/pglite.js';
import { runProgram } from './support/program.js';
import { startProxy } from './support/proxy.js';
import { callbacksOf, contentOf, promised, sessionWith } from './support/sessions.js';
import { isPortable } from './support/statement-set.js';

type Options = NonNullable<ConstructorParameters<typeof DrizzleStore>[1]>;

let database: TestDatabase;
/** Waits for a migration, and keeps others waiting. */
const MIGRATING = `select pg_advisory_xact_lock(hashtextextended('connect-drizzle migrate', 0))`;
const silent: Options = { createTableIfMissing: true, errorLog: () => {} };

beforeAll(async () => {
  database = await freshDatabase();
  await using store = new DrizzleStore(database.pool(), silent);
  await store.ready();
});
afterAll(() => database.drop());
afterEach(() => {
  vi.restoreAllMocks();
});

/** Every call of a store, by its promise. */
function callsOf(store: DrizzleStore): Record<string, () => Promise<unknown>> {
  return {
    get: () => store.get('sid'),
    set: () => store.set('sid', sessionWith()),
    touch: () => store.touch('sid', sessionWith()),
    destroy: () => store.destroy('sid'),
    all: () => store.all(),
    length: () => store.length(),
    clear: () => store.clear(),
    ids: () => store.ids(),
    pruneSessions: () => store.pruneSessions(),
    update: () => store.update('sid', () => {}),
    sessions: async () => store.sessions().next(),
    revoke: () => store.revoke(idOf('sid')),
    revokeUser: () => store.revokeUser('user'),
    migrate: () => store.migrate(),
    ready: () => store.ready(),
    'a malformed sid': () => store.get(''),
    'set with a callback': () => callbacksOf(store).set('sid', sessionWith()),
    'get with a callback': () => callbacksOf(store).get('sid'),
    'ids with a callback': () => promised((done) => store.ids(done)),
    'pruneSessions with a callback': () => promised((done) => store.pruneSessions(done)),
  };
}

/** Resolves when everything has happened that needs no I/O. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

async function connectionsTo(name: string): Promise<number> {
  const [row] = await database.query<{ count: number }>(
    'select count(*)::int as count from pg_stat_activity where datname = current_database() and application_name = $1',
    [name],
  );
  return row?.count ?? 0;
}

/** A URL whose connections can be told from others. */
function urlNamed(name: string): string {
  const url = new URL(database.url);
  url.searchParams.set('application_name', name);
  return url.href;
}

describe('a store that was closed', () => {
  test('fails every call with an error of its own class', async () => {
    const store = new DrizzleStore(database.pool(), { ...silent, userId: () => 'user' });
    await store.ready();
    await store.close();
    for (const [name, call] of Object.entries(callsOf(store))) {
      const error = await call().catch((reason: unknown) => reason);
      expect(error, name).toBeInstanceOf(StoreClosedError);
      expect(error, name).toMatchObject({
        code: 'ERR_STORE_CLOSED',
        message: 'The session store is closed',
      });
    }
  });

  test('can be closed again, with a promise or a callback', async () => {
    const store = new DrizzleStore(urlNamed('closed-again'), silent);
    await store.ready();
    const closing = [store.close(), store.close(), promised((done) => store.close(done))];
    expect(await Promise.all(closing)).toEqual([undefined, undefined, undefined]);
    await store.close();
  });

  test('opened no connection if it was never used', async () => {
    const pool = database.pool();
    const store = new DrizzleStore(pool, silent);
    await store.close();
    expect(pool.totalCount).toBe(0);
    await expect(store.get('sid')).rejects.toThrow(StoreClosedError);
  });

  test('keeps no connection open', async () => {
    const store = new DrizzleStore(urlNamed('closes-its-pool'), silent);
    await store.ready();
    expect(await connectionsTo('closes-its-pool')).toBe(1);
    await store.close();
    await expect.poll(() => connectionsTo('closes-its-pool')).toBe(0);
  });
});

test('calls that wait for the store to open run before later ones', async () => {
  await using first = new DrizzleStore(database.pool(), silent);
  await first.ready();
  const pool = database.pool();
  for (let turns = 0; turns < 60; turns += 1) {
    await using store = new DrizzleStore(pool);
    const saved = store.set('early', sessionWith({ turns }));
    for (let turn = 0; turn < turns; turn += 1) await null;
    expect(contentOf(await store.get('early'))).toEqual({ turns });
    await saved;
  }
});

describe('close', () => {
  test('waits only for the calls in flight', async () => {
    await using proxy = await startProxy(database.url);
    const store = new DrizzleStore(proxy.url, silent);
    await store.ready();
    await store.set('under way', sessionWith());
    const events: string[] = [];
    const held = proxy.hold('toServer');
    // By its id, a session is ended with a second statement.
    const ended = store.destroy(idOf('under way')).then(() => events.push('destroy'));
    await held;
    const closed = store.close().then(() => events.push('close'));
    await expect(store.get('under way')).rejects.toThrow(StoreClosedError);
    await settled();
    expect(events).toEqual([]);
    proxy.release();
    await Promise.all([ended, closed]);
    expect(events).toEqual(['destroy', 'close']);
    await using another = new DrizzleStore(database.pool(), silent);
    expect(await another.get('under way')).toBeUndefined();
  });

  test('resolves after every callback was called', async () => {
    const store = new DrizzleStore(database.pool(), silent);
    await store.ready();
    const events: string[] = [];
    const calls = ['one', 'two', 'three'].map((sid) =>
      callbacksOf(store)
        .get(sid)
        .then(() => events.push(sid)),
    );
    await store.close();
    expect(events).toEqual(['one', 'two', 'three']);
    await Promise.all(calls);
  });

  test('waits for a store that is opening', async () => {
    await using proxy = await startProxy(urlNamed('just-opening'));
    const store = new DrizzleStore(proxy.url, silent);
    const held = proxy.hold('toClient');
    const found = store.get('unknown');
    await held;
    const closed = store.close();
    proxy.release();
    expect(await found).toBeUndefined();
    await closed;
    await expect.poll(() => connectionsTo('just-opening')).toBe(0);
  });

  test('is also called by `await using` and by a signal', async () => {
    let used: DrizzleStore;
    {
      await using store = new DrizzleStore(urlNamed('await-using'), silent);
      await store.ready();
      used = store;
    }
    await expect(used.get('sid')).rejects.toThrow(StoreClosedError);
    await expect.poll(() => connectionsTo('await-using')).toBe(0);

    const controller = new AbortController();
    const { signal } = controller;
    const store = new DrizzleStore(urlNamed('by-a-signal'), { ...silent, signal });
    await store.ready();
    controller.abort();
    await expect(store.get('sid')).rejects.toThrow(StoreClosedError);
    await store.close();
    await expect.poll(() => connectionsTo('by-a-signal')).toBe(0);
  });

  test('a store whose signal was already aborted is closed', async () => {
    const pool = database.pool();
    const store = new DrizzleStore(pool, { ...silent, sync: true, signal: AbortSignal.abort() });
    await expect(store.ready()).rejects.toThrow(StoreClosedError);
    await store.close();
    expect(pool.totalCount).toBe(0);
  });

  test('one signal closes many stores with one listener and without a warning', async () => {
    const warnings: string[] = [];
    const warn = ({ name, message }: Error) => warnings.push(`${name}: ${message}`);
    process.on('warning', warn);
    const controller = new AbortController();
    const { signal } = controller;
    const pool = database.pool();
    const stores = Array.from({ length: 30 }, () => new DrizzleStore(pool, { ...silent, signal }));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    await stores[0]?.close();
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    controller.abort();
    for (const store of stores) await expect(store.ready()).rejects.toThrow(StoreClosedError);
    await Promise.all(stores.map((store) => store.close()));
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    await settled();
    process.off('warning', warn);
    expect(warnings).toEqual([]);
  });

  test('removes its listener from the signal', async () => {
    const { signal } = new AbortController();
    for (let made = 0; made < 3; made += 1) {
      await using store = new DrizzleStore(database.pool(), { ...silent, signal });
      await store.ready();
      expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    }
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });
});

describe('a database that is unavailable for a while', () => {
  test.each([false, true])(
    'may start after the store did (createTableIfMissing: %s)',
    async (create) => {
      await using proxy = await startProxy(database.url);
      proxy.refuse();
      await using store = new DrizzleStore(proxy.url, { ...silent, createTableIfMissing: create });
      for (const call of [() => store.ready(), () => store.get('sid'), () => store.length()]) {
        const error = await call().catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(ConnectionError);
        expect(error).toMatchObject({ code: 'ERR_CONNECTION' });
      }
      proxy.accept();
      await store.ready();
      await store.set('after all', sessionWith({ name: 'kept' }));
      expect(contentOf(await store.get('after all'))).toEqual({ name: 'kept' });
    },
  );

  test('serves calls again when it returns', async () => {
    await using proxy = await startProxy(database.url);
    await using store = new DrizzleStore(proxy.url, silent);
    await store.set('for a while', sessionWith({ name: 'kept' }));
    proxy.refuse();
    for (const call of [() => store.get('for a while'), () => store.set('other', sessionWith())]) {
      await expect(call()).rejects.toThrow(ConnectionError);
    }
    proxy.accept();
    await expect
      .poll(async () => contentOf(await store.get('for a while').catch(() => undefined)))
      .toEqual({ name: 'kept' });
  });

  test('fails the calls whose answers are lost, and no others', async () => {
    await using proxy = await startProxy(database.url);
    await using store = new DrizzleStore(proxy.url, silent);
    await store.ready();
    const held = proxy.hold('toServer', (piece) => piece.includes('the lost one'));
    // Portable statements are sent one by one, each on a connection of its own.
    const sids = isPortable ? ['lost 1'] : ['lost 1', 'lost 2'];
    const lost = sids.map((sid) => store.set(sid, sessionWith({ name: 'the lost one' })));
    await held;
    proxy.cut();
    for (const call of lost) await expect(call).rejects.toThrow(ConnectionError);
    proxy.release();
    for (const sid of sids) expect(await store.get(sid)).toBeUndefined();
  });

  test("only costs log lines if the store's own pool loses idle connections", async () => {
    const logged: unknown[][] = [];
    const errorLog = (...args: unknown[]) => logged.push(args);
    const name = 'terminated';
    await using store = new DrizzleStore(urlNamed(name), { ...silent, errorLog });
    await store.set('terminated', sessionWith({ name: 'kept' }));
    await database.query(
      'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = $1',
      [name],
    );
    await expect.poll(() => logged.length).toBeGreaterThan(0);
    expect(logged[0]).toEqual([
      'connect-drizzle: An idle connection of the session store failed',
      expect.any(ConnectionError),
    ]);
    expect(contentOf(await store.get('terminated'))).toEqual({ name: 'kept' });
  });

  test('keeps no call waiting for longer than `timeout` while another process creates the table', async () => {
    const tableName = 'made_by_another';
    await using store = new DrizzleStore(database.pool(), { ...silent, tableName, timeout: 1 });
    {
      await using _migrating = await holding(database, MIGRATING);
      await expect(store.get('sid')).rejects.toThrow(StoreTimeoutError);
    }
    await expect.poll(() => store.length().catch(String)).toBe(0);
  });

  test('is also a time-out if the server ends the wait for another process first', async () => {
    await using fresh = await freshDatabase();
    // Shortens the lock_timeout that the store sets.
    await fresh.query(`create schema early;
      create function early.set_config(name text, _value text, is_local boolean) returns text language sql
        as $$ select pg_catalog.set_config(name, '1ms', is_local) $$`);
    const pool = fresh.pool({ options: '-c search_path=early,pg_catalog' });
    await using _migrating = await holding(fresh, MIGRATING);
    await using store = new DrizzleStore(pool, silent);
    await expect(store.get('sid')).rejects.toThrow(StoreTimeoutError);
  });
});

test('migrate leaves no trace on a connection of the app', async () => {
  const pool = database.pool({ max: 1 });
  const listeners = async () => {
    const client = await pool.connect();
    const count = client.listenerCount('error');
    client.release();
    return count;
  };
  const before = await listeners();
  await using store = new DrizzleStore(pool, silent);
  for (const _ of [1, 2]) await store.migrate();
  expect(await listeners()).toBe(before);
});

describe('errorLog', () => {
  /** A store whose database does not exist. */
  const nowhere = 'postgres://localhost:1/nowhere';

  test('is console.error by default', async () => {
    const console_ = vi.spyOn(console, 'error').mockImplementation(() => {});
    await using store = new DrizzleStore(nowhere);
    await expect(store.get('sid')).rejects.toThrow(ConnectionError);
    await expect
      .poll(() => console_)
      .toHaveBeenCalledWith(
        'connect-drizzle: A session store call failed',
        expect.any(ConnectionError),
      );
  });

  test('gets the failures of promises, not of callbacks', async () => {
    const errorLog = vi.fn();
    await using store = new DrizzleStore(nowhere, { errorLog });
    await expect(callbacksOf(store).get('sid')).rejects.toThrow(ConnectionError);
    await settled();
    expect(errorLog).not.toHaveBeenCalled();
    store.destroy('sid');
    await expect
      .poll(() => errorLog)
      .toHaveBeenCalledExactlyOnceWith(
        'connect-drizzle: A session store call failed',
        expect.any(ConnectionError),
      );
  });

  test.each(['ready', 'migrate'] as const)(
    'gets a message without a stack from %s(), which apps await at startup',
    async (method) => {
      const errorLog = vi.fn();
      await using store = new DrizzleStore(nowhere, { errorLog });
      const error: unknown = await store[method]().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(ConnectionError);
      expect(errorLog).toHaveBeenCalledExactlyOnceWith(
        `connect-drizzle: A session store call failed: ${Object(error).message}`,
      );
      // Nor does it end the process if nobody awaits it.
      void store[method]();
      await expect.poll(() => errorLog).toHaveBeenCalledTimes(2);
    },
  );

  test('may throw without an effect', async () => {
    const errorLog = vi.fn(() => {
      throw new Error("the log's own");
    });
    await using store = new DrizzleStore(nowhere, { errorLog });
    await expect(store.get('sid')).rejects.toThrow(ConnectionError);
    expect(errorLog).toHaveBeenCalled();
  });

  test('gets no invalid argument as a database error', async () => {
    const errorLog = vi.fn();
    await using store = new DrizzleStore(nowhere, { errorLog });
    const error = await store.revokeUser('ada').catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(InvalidArgumentError);
    expect(errorLog).toHaveBeenCalledExactlyOnceWith(
      'connect-drizzle: A session store call failed',
      error,
    );
  });

  test('gets neither the password nor the address of the database', async () => {
    const errorLog = vi.fn();
    await using store = new DrizzleStore('postgres://me:secret@localhost:1/nowhere', { errorLog });
    const error = await store.get('sid').catch((reason: unknown) => reason);
    expect(error).toMatchObject({ cause: { code: 'ECONNREFUSED' } });
    const told = inspect([error, errorLog.mock.calls], { depth: null, showHidden: true });
    expect(told).not.toContain('secret');
  });
});

describe('a callback', () => {
  test('runs in the async context of its caller', async () => {
    await using store = new DrizzleStore(database.pool(), silent);
    const caller = new AsyncLocalStorage<string>();
    const names = Array.from({ length: 50 }, (_none, at) => `caller ${at}`);
    const seen = await Promise.all(
      names.map((name) =>
        caller.run(name, () =>
          promised<string | undefined>((done) => {
            store.set(name, sessionWith(), () => {
              store.get(name, (error) => done(error, caller.getStore()));
            });
          }),
        ),
      ),
    );
    expect(seen).toEqual(names);
  });

  test('may be null', async () => {
    await using store = new DrizzleStore(database.pool(), silent);
    const none = null as unknown as undefined;
    store.set('null', sessionWith(), none as unknown as () => void);
    expect(contentOf(await store.get('null'))).toEqual({});
    store.destroy('null', none);
    expect(await store.get('null')).toBeUndefined();
  });
});

// The tests below mostly wait, so they run side by side. None counts connections to the database that they share,
// locks anything in it or changes the process. The first one takes longest.

describe.concurrent('a process', () => {
  const imports = `import { DrizzleStore } from 'connect-drizzle';
    import pg from 'pg';
    const cookie = { originalMaxAge: null };
    const url = process.env.TEST_URL;`;
  const run = (text: string, env: Record<string, string> = {}) =>
    runProgram(imports + text, { TEST_URL: database.url, ...env });
  const memoryWarning = 'this store is in memory; its sessions end with the process';

  test('exits by itself with an open in-memory store, which warns in production', async () => {
    const { code, output } = await run(
      `new DrizzleStore(url); new DrizzleStore('./never-used');
       const store = new DrizzleStore('memory://', { timeout: 300 }); await store.set('sid', { cookie });
       console.log('done');`,
      { NODE_ENV: 'production' },
    );
    expect(output).toContain('done');
    expect(output.split(memoryWarning)).toHaveLength(2);
    expect(code).toBe(0);
  });

  test('exits by itself soon, with any kind of store', async () => {
    // The idle connections would be closed after ten seconds.
    const limitMs = 9000;
    const measure = async () => {
      const { code, output } = await run(
        `const stores = [
         new DrizzleStore(url),
         new DrizzleStore(url, { cache: true }),
         new DrizzleStore(new pg.Pool({ connectionString: url, allowExitOnIdle: true })),
         new DrizzleStore('postgres://localhost:1/nowhere', { errorLog() {} }),
       ];
       new DrizzleStore(url);
       new DrizzleStore('./never-used');
       new DrizzleStore('memory://');
       const saves = stores.map((store) => store.set('sid', { cookie }));
       console.log((await Promise.allSettled(saves)).map(({ status }) => status).join());
       const doneAt = performance.now();
       process.on('exit', () => console.log('ms:', performance.now() - doneAt));`,
      );
      expect(output).toContain('fulfilled,fulfilled,fulfilled,rejected');
      expect(output).not.toContain(memoryWarning);
      expect(code).toBe(0);
      return Number(/ms: (\S+)/.exec(output)?.[1]);
    };
    expect(await shortestMs(limitMs, measure)).toBeLessThan(limitMs);
  });

  test('does not crash if calls fail that nobody awaits', async () => {
    const { code, output } = await run(
      `const store = new DrizzleStore(url, { tableName: 'nowhere', userId: () => 1 });
       store.destroy('sid'); store.get('sid'); store.set('sid', { cookie }); store.touch('sid', { cookie });
       store.set('sid', { cookie, n: 1n }); store.set('', { cookie }); store.clear(); store.all();
       store.length(); store.ids(); store.pruneSessions(); store.update('sid', () => {});
       store.revoke('a'.repeat(43)); store.revokeUser('user'); store.ready();
       await store.get('the last').catch(() => {});
       await store.close();
       store.get('sid'); store.ready(); store.migrate();
       setImmediate(() => console.log('still here'));`,
    );
    expect(output).toContain('still here');
    expect(output.split('TableMissingError').length - 1).toBeGreaterThan(10);
    expect(code).toBe(0);
  });

  test('gets the errors that callbacks throw', async () => {
    const { code, output } = await run(
      `const store = new DrizzleStore(url);
       process.on('uncaughtException', (error, origin) => console.log(origin, error.message));
       const fail = (what) => () => { throw new Error(what); };
       store.get('sid', fail('from get'));
       store.set('sid', { cookie }, fail('from set'));
       store.set('', { cookie }, fail('from a set that failed'));`,
    );
    for (const what of ['from get', 'from set', 'from a set that failed']) {
      expect(output).toContain(`uncaughtException ${what}`);
    }
    expect(code).toBe(0);
  });

  test('does not crash if the pool of a URL loses idle connections', async () => {
    const { code, output } = await run(
      `const own = new URL(url);
       own.searchParams.set('application_name', 'to be ended');
       const lost = Promise.withResolvers?.() ?? (() => {
         let resolve; const promise = new Promise((done) => { resolve = done; }); return { promise, resolve };
       })();
       const store = new DrizzleStore(own.href, { errorLog: (message) => { console.log(message); lost.resolve(); } });
       await store.set('sid', { cookie });
       const other = new pg.Client(url);
       await other.connect();
       await other.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'to be ended'");
       await other.end();
       // The lost connection is idle, so it does not keep the process alive.
       const waiting = setInterval(() => {}, 1000);
       await lost.promise;
       clearInterval(waiting);
       console.log('still here', await store.length() > 0);`,
    );
    expect(output).toContain('An idle connection of the session store failed');
    expect(output).toContain('still here true');
    expect(code).toBe(0);
  });
});

test.concurrent.for([true, false])(
  'a store that waits for another process to create the table can be closed (sync: %s)',
  async (sync, { expect }) => {
    await using fresh = await freshDatabase();
    await using migrating = await holding(fresh, MIGRATING);
    const store = new DrizzleStore(fresh.pool(), { ...silent, sync, timeout: 2 });
    // A cancel request that overtakes its statement has no effect.
    const [call] = await untilSent(migrating.waiting(1), () => [store.get('sid')]);
    await expect(call).rejects.toThrow(StoreTimeoutError);
    await store.close();
    // Nor does it leave the app's connections waiting.
    await expect
      .poll(() =>
        fresh.query(
          `select from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`,
        ),
      )
      .toHaveLength(0);
  },
);

test.concurrent('a store tries again if creating the table has hung', async ({ expect }) => {
  await using fresh = await freshDatabase();
  await using proxy = await startProxy(fresh.url);
  const pool = fresh.pool({ connectionString: proxy.url });
  await using store = new DrizzleStore(pool, { ...silent, timeout: 3 });
  const held = proxy.hold('toServer', (piece) => piece.includes('pg_advisory_xact_lock'));
  const [first] = await untilSent(held, () => [store.get('sid')]);
  await expect(first).rejects.toThrow(StoreTimeoutError);
  proxy.lose('toServer');
  await expect.poll(() => store.get('sid').catch(String)).toBeUndefined();
});

test.concurrent('close resolves if the server does not respond, and leaves no connection', async ({
  expect,
}) => {
  await using proxy = await startProxy(database.url);
  const store = new DrizzleStore(proxy.url, { ...silent, timeout: 2 });
  await eventually(() => store.ready());
  proxy.swallow();
  let calls: Promise<unknown>[] = [];
  let areOver = true;
  while (proxy.clients < 3) {
    if (areOver) {
      areOver = false;
      calls = [store.get('a'), store.set('b', sessionWith()), store.length()];
      void Promise.allSettled(calls).then(() => {
        areOver = true;
      });
    }
    await new Promise(setImmediate);
  }
  const closed = store.close();
  for (const call of calls) await expect(call).rejects.toThrow(StoreTimeoutError);
  await closed;
  await expect.poll(() => proxy.clients).toBe(0);
});

test.concurrent('close resolves if the database cannot be opened', async () => {
  await using proxy = await startProxy(database.url);
  proxy.swallow();
  for (const source of [proxy.url, database.pool({ connectionString: proxy.url })]) {
    const store = new DrizzleStore(source, { ...silent, timeout: 0.2 });
    const call = expect(store.get('sid')).rejects.toThrow(StoreTimeoutError);
    const closed = store.close();
    await call;
    await closed;
  }
  proxy.cut();
});

test.concurrent.for(['a URL', 'a pool'])(
  'an unavailable database keeps no call waiting for longer than timeout: %s',
  async (source, { expect }) => {
    await using proxy = await startProxy(database.url);
    const store = new DrizzleStore(
      source === 'a URL' ? proxy.url : database.pool({ connectionString: proxy.url, max: 40 }),
      { ...silent, timeout: 0.2, userId: () => 'user' },
    );
    await eventually(() => store.ready());
    proxy.swallow();
    const { migrate, ...calls } = callsOf(store);
    const { 'a malformed sid': malformed, ...answered } = calls;
    const outcomes = await Promise.allSettled(Object.values(answered).map((call) => call()));
    const errors = outcomes.map((each) => (each.status === 'rejected' ? each.reason : each.value));
    expect(errors).toEqual(errors.map(() => expect.any(StoreTimeoutError)));
    expect(await malformed?.()).toBeUndefined();
    // Its own pool gave up the connections that hang and opens new ones; the app's pool has some left.
    proxy.release();
    await expect.poll(() => store.length().catch(String)).toBeTypeOf('number');
    await store.close();
    proxy.cut();
  },
);

test.concurrent('a connection that breaks while the table is created fails the call, not the process', async () => {
  await using fresh = await freshDatabase();
  const migrating = await fresh.pool({ max: 1 }).connect();
  await migrating.query(`select pg_advisory_lock(hashtextextended('connect-drizzle migrate', 0))`);
  await using store = new DrizzleStore(fresh.pool(), silent);
  const migrated = store.migrate();
  await until(async () => {
    const ended = await fresh.query(`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and wait_event = 'advisory'`);
    return ended.length > 0;
  });
  await expect(migrated).rejects.toThrow(ConnectionError);
  migrating.release(true);
  expect(await store.get('sid')).toBeUndefined();
});

describe.concurrent('migrate', () => {
  test.each([undefined, 'app', 'public'])(
    'causes no notice (schemaName: %s)',
    async (schemaName) => {
      const notices: unknown[] = [];
      await using fresh = await freshDatabase();
      const sql = postgres(fresh.url, { onnotice: (notice) => notices.push(notice) });
      for (const tableName of ['sessions', 'sessions', 'others']) {
        await using store = new DrizzleStore(sql, { ...silent, schemaName, tableName });
        await store.ready();
        await store.migrate();
        await store.migrate();
      }
      await sql.end();
      expect(notices).toEqual([]);
    },
  );

  test('records its migrations beside the table that the search_path finds', async () => {
    await using fresh = await freshDatabase();
    await using owner = new DrizzleStore(fresh.pool(), silent);
    await owner.ready();
    await fresh.query('create schema app');
    const pool = fresh.pool({ options: '-c search_path=app,public' });
    await using store = new DrizzleStore(pool, silent);
    await store.migrate();
    expect(await fresh.query(`select from pg_tables where schemaname = 'app'`)).toEqual([]);
    expect(await fresh.query('select from __connect_drizzle_store')).not.toHaveLength(0);
  });
});

test.concurrent("close does not close the app's pool, database or client", async () => {
  const pool = database.pool();
  const client = postgres(database.url, { max: 1 });
  const pglite = await freshPglite();
  const db = drizzleNodePostgres({ client: database.pool() });
  for (const source of [pool, client, pglite, db]) {
    await using store = new DrizzleStore(source, { ...silent, sync: true });
    await store.ready();
  }
  expect((await pool.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
  expect([...(await client`select 1 as one`)]).toEqual([{ one: 1 }]);
  expect((await pglite.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
  expect((await db.execute(sql`select 1 as one`)).rows).toEqual([{ one: 1 }]);
  await client.end();
  await pglite.close();
});
