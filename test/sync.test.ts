import { EventEmitter, once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { PGlite } from '@electric-sql/pglite';
import { DrizzleStore, type DrizzleStoreOptions, idOf, type Source } from 'connect-drizzle';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { channelOf } from '../src/sync/channel.js';
import { backoffMs } from '../src/util/backoff.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { shortestMs } from './support/eventually.js';
import { holdingTable, refuseByContent, until } from './support/obstacles.js';
import { freshPglite } from './support/pglite.js';
import { startProxy } from './support/proxy.js';
import { about, caughtUp, type HeardEvent, hear, untilSync, up } from './support/realtime.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { sessionWith } from './support/sessions.js';
import { onPortable } from './support/statement-set.js';
import { logStatements } from './support/statements.js';
import { startWorker } from './support/workers.js';

let database: ReusedDatabase;
let ends: (() => Promise<unknown>)[];
let logged: unknown[][];
/** Emits each line of the log. */
const logs = new EventEmitter();

beforeAll(async () => {
  // It blocks this process for seconds, so no call may be in flight meanwhile.
  await pglite;
  database = await reusedDatabase();
});

beforeEach(() => {
  ends = [() => database.clear()];
  logged = [];
});

afterEach(async () => {
  vi.restoreAllMocks();
  for (const end of ends.reverse()) await end();
});

afterAll(async () => {
  await database.drop();
  await (await pglite).close();
});

const drivers: Record<string, (url: string) => Source> = {
  'node-postgres': (url) => database.pool({ connectionString: url }),
  'postgres-js': (url) => {
    const sql = postgres(url, { onnotice: () => {} });
    ends.push(() => sql.end());
    return sql;
  },
};
const everyDriver = Object.entries(drivers);
/** One for all tests: it takes a second to create. */
const pglite = freshPglite();
const everySource: [string, () => Promise<() => Source>][] = [
  ...everyDriver.map(([name, open]): [string, () => Promise<() => Source>] => [
    name,
    async () => () => open(database.url),
  ]),
  [
    'PGlite',
    async () => {
      const client = await pglite;
      return () => client;
    },
  ],
];

function storeOn(source: Source, options: DrizzleStoreOptions = {}): DrizzleStore {
  const store = new DrizzleStore(source, {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    sync: true,
    errorLog: (...line) => {
      logged.push(line);
      logs.emit('line');
    },
    ...options,
  });
  ends.push(() => store.close());
  return store;
}

async function twoOn(source: () => Source, options?: DrizzleStoreOptions) {
  const one = storeOn(source(), options);
  await one.clear();
  const other = storeOn(source(), options);
  await up(one, other);
  return [one, other] as const;
}

/** The backends that listen now, in this test's database. */
async function listeners(
  at: TestDatabase = database,
): Promise<{ pid: number; application_name: string }[]> {
  return at.query(
    `select pid, application_name from pg_stat_activity
     where datname = current_database() and (query like 'listen%' or query like 'select pg_notify($1, %')
       and pid <> pg_backend_pid()`,
  );
}

/** A server that ends every connection at once, and the times at which they came. */
async function refusingServer() {
  const times: number[] = [];
  const server = createServer((socket) => {
    times.push(performance.now());
    socket.on('error', () => {});
    socket.destroy();
    server.emit('refused');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  ends.push(async () => server.close());
  return {
    port: portOf(server),
    times,
    async refusals(count: number) {
      while (times.length < count) await once(server, 'refused');
    },
  };
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

function urlTo(host: string): string {
  const url = new URL(database.url);
  return `${url.protocol}//${url.username}:${url.password}@${host}${url.pathname}`;
}

describe.each(everySource)('on %s', (_, open) => {
  test('every store gets the events of changes and log-outs, and whether they were its own', async () => {
    const [one, other] = await twoOn(await open());
    const [byOne, byOther] = [hear(one), hear(other)];
    await one.set('sid', sessionWith({ visits: 1 }));
    // The event of its own log-out is immediate, and could overtake those of other stores.
    await caughtUp(other, one);
    await other.destroy('sid');
    await caughtUp(one, other);
    const id = idOf('sid');
    expect(about(byOne, 'sid')).toEqual([
      { name: 'change', id, local: true },
      { name: 'destroy', id, local: false },
    ]);
    await caughtUp(other, one);
    expect(about(byOther, 'sid')).toEqual([
      { name: 'change', id, local: false },
      { name: 'destroy', id, local: true },
    ]);
  });

  test('a save that changes nothing is not announced', async () => {
    const [one, other] = await twoOn(await open());
    await one.set('sid', sessionWith({ visits: 1 }));
    await caughtUp(other, one);
    const heard = hear(other);
    const loaded = await one.get('sid');
    if (loaded === undefined) throw new Error('no session');
    await one.touch('sid', loaded);
    await one.set('sid', loaded);
    await one.get('sid');
    await one.destroy('another sid');
    await caughtUp(other, one);
    expect(about(heard, 'sid', 'another sid')).toEqual([]);
  });

  test('a message that no store sent is ignored', async () => {
    const source = await open();
    const [one, other] = await twoOn(source);
    const heard = hear(other);
    const client = source();
    const channel = channelOf('public', 'sessions');
    const texts = ['', 'x', 'c', 'csender12', 'csender12not-an-id', 'hsender121', '{"kind":"c"}'];
    for (const text of texts) {
      if (client instanceof PGlite) await client.query('select pg_notify($1, $2)', [channel, text]);
      else await database.query('select pg_notify($1, $2)', [channel, text]);
    }
    await caughtUp(other, one);
    expect(heard).toHaveLength(1);
    expect(logged).toEqual([]);
  });

  test('a closed store is down and gets no events', async () => {
    const source = await open();
    const [one, other] = await twoOn(source);
    const heard = hear(other);
    const states: string[] = [];
    other.on('sync', (state: string) => states.push(state));
    await other.close();
    const third = storeOn(source());
    await up(third);
    await one.set('sid', sessionWith());
    await caughtUp(third, one);
    expect(heard).toEqual([]);
    expect(states).toEqual(['down']);
    expect(other.stats().sync).toBe('down');
  });
});

describe.each(everyDriver)('with %s', (_, source) => {
  test('a store listens on a separate connection, which close() ends', async () => {
    const store = storeOn(source(database.url));
    await up(store);
    expect(await listeners()).toHaveLength(1);
    await store.close();
    await until(async () => (await listeners()).length === 0);
  });

  test('a lost listener is reported at once, and reconnects', async () => {
    const [one, other] = await twoOn(() => source(database.url), { sync: { heartbeat: 600 } });
    const heard = hear(other);
    const down = Promise.all([untilSync(one, 'down'), untilSync(other, 'down')]);
    for (const { pid } of await listeners()) {
      await database.query('select pg_terminate_backend($1)', [pid]);
    }
    await down;
    await up(one, other);
    await one.set('sid', sessionWith());
    await caughtUp(other, one);
    expect(about(heard, 'sid')).toEqual([{ name: 'change', id: idOf('sid'), local: false }]);
  });

  test('a half-open listener is given up after a heartbeat, and reconnects', async () => {
    await using proxy = await startProxy(database.url);
    const store = storeOn(source(database.url), {
      sync: { connectionString: proxy.url, heartbeat: 0.6 },
    });
    await up(store);
    proxy.swallow();
    await untilSync(store, 'down');
    proxy.release();
    proxy.cut();
    await up(store);
  });

  test('a refused listener retries after growing pauses', async () => {
    const server = await refusingServer();
    const store = storeOn(source(database.url), {
      sync: { connectionString: urlTo(`127.0.0.1:${server.port}`) },
    });
    await server.refusals(5);
    while (logged.length < 4) await once(logs, 'line');
    const { times } = server;
    const gaps = times.slice(1).map((time, at) => time - (times[at] ?? 0));
    // Of 100, 200, 400 and 800 ms, each jittered by half.
    for (const [at, gap] of gaps.entries()) expect(gap).toBeGreaterThan(45 * 2 ** at);
    expect(store.stats().sync).toBe('down');
    const { password } = new URL(database.url);
    expect(logged.flat().map(String).join()).not.toContain(`:${password}@`);
  });

  test('a listener that is refused for long retries at least once per heartbeat', async () => {
    const server = await refusingServer();
    storeOn(source(database.url), {
      sync: { connectionString: urlTo(`127.0.0.1:${server.port}`), heartbeat: 0.5 },
    });
    // With pauses that double to 15 seconds, the 15th try comes after two minutes.
    await server.refusals(15);
  });

  test('close() does not wait for a server that does not answer', async () => {
    await using proxy = await startProxy(database.url);
    // The connection would be given up after ten seconds.
    const limitMs = 9000;
    const tookMs = await shortestMs(limitMs, async () => {
      const held = proxy.hold('toServer');
      const store = storeOn(source(database.url), { sync: { connectionString: proxy.url } });
      await held;
      const since = performance.now();
      await store.close();
      return performance.now() - since;
    });
    expect(tookMs).toBeLessThan(limitMs);
    expect(logged).toEqual([]);
  });

  test('a listener over TLS names the host whose certificate is checked', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => {});
      // The client asks for TLS, and then starts it.
      socket.once('data', () => {
        socket.write('S');
        socket.once('data', (hello) => server.emit('hello', hello, socket.destroy()));
      });
    });
    server.listen(0, 'localhost');
    ends.push(async () => server.close());
    await once(server, 'listening');
    const hello = once(server, 'hello');
    const connectionString = `${urlTo(`localhost:${portOf(server)}`)}?sslmode=verify-full`;
    storeOn(source(database.url), { sync: { connectionString } });
    expect(String(await hello)).toContain('localhost');
  });

  test('a store may listen on another server than that of its pool', async () => {
    const url = new URL(database.url);
    url.searchParams.set('application_name', 'elsewhere');
    const store = storeOn(source(database.url), { sync: { connectionString: url.href } });
    await up(store);
    const names = (await listeners()).map((each) => each.application_name);
    expect(names).toEqual(['elsewhere']);
  });

  test('a listener in another database than that of its pool is detected, and reported once', async () => {
    await using elsewhere = await freshDatabase();
    const store = storeOn(source(database.url), {
      sync: { connectionString: elsewhere.url, heartbeat: 0.05 },
    });
    const states: string[] = [];
    store.on('sync', (state: string) => states.push(state));
    const tries = new Set<number>();
    await until(async () => {
      for (const { pid } of await listeners(elsewhere)) tries.add(pid);
      return tries.size >= 4;
    });
    expect(states).toEqual([]);
    expect(logged).toEqual([[expect.stringContaining('to another database.')]]);
  });
});

test('a listener that waits for a transaction of the app on PGlite is given up, and listens again', async () => {
  const client = await pglite;
  const store = storeOn(client, { sync: { heartbeat: 0.3 } });
  await up(store);
  const down = untilSync(store, 'down');
  // Until then, everything else waits; then come the heartbeat, the end of the listener, and a new one.
  await client.transaction(() => down);
  await up(store);
  const { rows } = await client.query('select count(*)::int from pg_listening_channels()');
  expect(rows).toEqual([{ count: 1 }]);
});

test('a transaction of the app on PGlite does not keep a listening store from closing', async () => {
  const client = await pglite;
  const store = storeOn(client, { sync: true });
  await up(store);
  await client.transaction(() => store.close());
});

test('pauses between retries double up to a limit, with a jitter of half', () => {
  const backoff = { firstMs: 100, longestMs: 15_000 };
  const random = vi.spyOn(Math, 'random').mockReturnValue(0.5);
  expect([0, 1, 2, 3].map((tries) => backoffMs(tries, backoff))).toEqual([100, 200, 400, 800]);
  expect([20, 2000].map((tries) => backoffMs(tries, backoff))).toEqual([15_000, 15_000]);
  random.mockReturnValue(0);
  expect(backoffMs(0, backoff)).toBe(50);
  random.mockReturnValue(1);
  expect(backoffMs(0, backoff)).toBe(150);
});

test('a store that was created while its database was unavailable listens when it is available', async () => {
  await using proxy = await startProxy(database.url);
  proxy.refuse();
  const store = storeOn(database.pool({ connectionString: proxy.url }));
  while (logged.length === 0) await once(logs, 'line');
  proxy.accept();
  await up(store);
});

test('a listener uses the password that the pool got as a field', async () => {
  const { hostname, port, username, password } = new URL(database.url);
  const pool = new pg.Pool({
    host: hostname,
    port: Number(port),
    user: username,
    password,
    database: database.name,
  });
  ends.push(() => pool.end());
  pool.on('error', () => {});
  expect(Object.keys(pool.options)).not.toContain('password');
  await up(storeOn(pool));
});

test('a store whose pool cannot announce reports it, and is up when it can', async () => {
  await storeOn(database.pool()).ready();
  await using proxy = await startProxy(database.url);
  const announced = proxy.hold('toServer', (piece) => piece.includes('pg_notify'));
  const store = storeOn(database.pool({ connectionString: proxy.url }), {
    createTableIfMissing: false,
    sync: { connectionString: database.url },
  });
  await announced;
  proxy.refuse();
  proxy.lose();
  while (logged.length === 0) await once(logs, 'line');
  expect(logged[0]).toEqual([
    'connect-drizzle: Announcing session changes failed',
    expect.objectContaining({ code: 'ERR_CONNECTION' }),
  ]);
  expect(store.stats().sync).toBe('down');
  proxy.accept();
  await up(store);
});

test('close() gives up a store that is opening on a database that does not answer', async () => {
  await using proxy = await startProxy(database.url);
  const held = proxy.hold('toServer', (piece) => piece.includes('to_regclass'));
  const store = storeOn(database.pool({ connectionString: proxy.url }), { timeout: 3600 });
  await held;
  await store.close();
  expect(logged).toEqual([]);
});

describe('with several hosts on postgres-js', () => {
  const storeListeningAt = (hosts: string) => {
    const sql = postgres(database.url, { onnotice: () => {} });
    ends.push(() => sql.end());
    return storeOn(sql, { sync: { connectionString: urlTo(hosts) } });
  };

  test('a store listens on the one that answers', async () => {
    await up(storeListeningAt(`127.0.0.1:1,${new URL(database.url).host}`));
  });

  test('a store retries if none answers', async () => {
    storeListeningAt('127.0.0.1:1,127.0.0.1:2');
    while (logged.length < 3) await once(logs, 'line');
  });
});

describe('every other way to end sessions is announced:', () => {
  const byUser: DrizzleStoreOptions = {
    userId: (session) => Reflect.get(session, 'user'),
    maxSessionsPerUser: 2,
  };
  let one: DrizzleStore;
  let heard: HeardEvent[];
  let heardHere: HeardEvent[];
  let other: DrizzleStore;

  beforeEach(async () => {
    [one, other] = await twoOn(() => database.pool(), byUser);
    for (const [sid, user] of Object.entries({ a: 'ann', b: 'ann', c: 'bob' })) {
      await one.set(sid, sessionWith({ user }));
    }
    await caughtUp(other, one);
    [heardHere, heard] = [hear(one), hear(other)];
  });

  async function ended(): Promise<string[][]> {
    await caughtUp(other, one);
    return [heardHere, heard].map((events) =>
      about(events, 'a', 'b', 'c')
        .filter(({ name }) => name === 'destroy')
        .map(({ id, local }) => `${['a', 'b', 'c'].find((sid) => idOf(sid) === id)} ${local}`)
        .sort(),
    );
  }

  test('revoke', async () => {
    await one.revoke(idOf('a'));
    expect(await ended()).toEqual([['a true'], ['a false']]);
  });

  test('revokeUser', async () => {
    await one.revokeUser('ann', { except: 'b' });
    expect(await ended()).toEqual([['a true'], ['a false']]);
  });

  test('clear', async () => {
    await one.clear();
    expect(await ended()).toEqual([
      ['a true', 'b true', 'c true'],
      ['a false', 'b false', 'c false'],
    ]);
  });

  test('a log-in beyond the limit', async () => {
    await one.set('d', sessionWith({ user: 'ann' }));
    const [here, there] = await ended();
    expect(here).toHaveLength(1);
    expect(there).toEqual(here?.map((line) => line.replace('true', 'false')));
  });
});

test('a write that the server refuses is not announced', async () => {
  const [one, other] = await twoOn(() => database.pool());
  await refuseByContent(database);
  const [heardHere, heard] = [hear(one), hear(other)];
  await expect(one.set('sid', sessionWith({ refuse: '23514' }))).rejects.toThrow('23514');
  await caughtUp(other, one);
  expect([...about(heardHere, 'sid'), ...about(heard, 'sid')]).toEqual([]);
});

const alone = onPortable('a portable statement has one row: there are no batches');
test.skipIf(alone)('every session of a full batch is announced, in messages that fit', async () => {
  const [one, other] = await twoOn(() => database.pool());
  const heard = hear(other);
  const sids = Array.from({ length: 600 }, (_, at) => `sid ${at}`);
  using log = logStatements();
  const obstacle = await holdingTable(database);
  const sets = sids.map((sid) => one.set(sid, sessionWith()));
  await obstacle.waiting(2);
  await obstacle.release();
  await Promise.all(sets);
  expect(Math.max(...log.rows())).toBe(256);
  // A message that is too long is refused, and its batch split.
  expect(one.stats().retries).toBe(0);
  await caughtUp(other, one);
  expect(new Set(about(heard, ...sids).map(({ id }) => id)).size).toBe(600);
});

test("all of a user's thousand sessions are announced when they end at once", async () => {
  const userId = () => 'ann';
  const [one, other] = await twoOn(() => database.pool(), { userId });
  await database.query(`
    insert into sessions (id, data, user_id, expires_at)
    select rpad(i::text, 43, 'x'), '{"cookie":{}}', 'ann', now() + interval '1 hour'
    from generate_series(1, 1000) as i`);
  const heard = hear(other);
  expect(await one.revokeUser('ann')).toBe(1000);
  await caughtUp(other, one);
  expect(heard.filter(({ name }) => name === 'destroy')).toHaveLength(1000);
});

test('clear() ends rows with ids of any form and length, and announces the sessions among them', async () => {
  const [one, other] = await twoOn(() => database.pool());
  await one.set('sid', sessionWith());
  await database.query(`
    insert into sessions (id, data, expires_at)
    select id, '{"cookie":{}}', now() + interval '1 hour'
    from generate_series(1, 300) as i,
      unnest(array[rpad(i::text, 2600, 'x'), rpad(i::text, 43, 'ü'), i || ',,', '']) as id
    on conflict do nothing`);
  const heard = hear(other);
  await one.clear();
  await caughtUp(other, one);
  expect(heard.filter(({ name }) => name === 'destroy')).toEqual([
    { name: 'destroy', id: idOf('sid'), local: false },
  ]);
  expect(logged).toEqual([]);
});

describe.each(everyDriver)('a table that is found by the search_path, with %s', (_, source) => {
  /** A URL whose connections look for tables in these schemas. */
  function searching(...schemas: string[]): string {
    const url = new URL(database.url);
    url.searchParams.set('options', `-c search_path=${schemas.join(',')}`);
    return url.href;
  }

  async function expectToHearEachOther(one: DrizzleStore, other: DrizzleStore): Promise<void> {
    await up(one, other);
    const [byOne, byOther] = [hear(one), hear(other)];
    await one.set('by one', sessionWith());
    await other.set('by other', sessionWith());
    const heard = (events: HeardEvent[], sid: string) => async () => {
      // A round trip, so that what has arrived can be read.
      await database.query('select 1');
      return about(events, sid).some(({ local }) => !local);
    };
    await until(heard(byOther, 'by one'));
    await until(heard(byOne, 'by other'));
  }

  test('is the same as the one that schemaName names: the stores get each other’s events', async () => {
    const named = storeOn(source(database.url), { schemaName: 'app' });
    await named.ready();
    const found = storeOn(source(searching('missing', 'app', 'public')));
    await expectToHearEachOther(named, found);
  });

  test('is the same as the one that schemaName names if the search_path is that of the role', async () => {
    const named = storeOn(source(database.url), { schemaName: 'app' });
    await named.ready();
    const setting = `alter role current_user in database ${database.name}`;
    await database.query(`${setting} set search_path = app`);
    ends.push(() =>
      database.query(`${setting} reset search_path; set search_path = "$user", public`),
    );
    await expectToHearEachOther(named, storeOn(source(database.url)));
  });

  test('is not the one of the same name in another schema', async () => {
    await database.query('create schema app');
    const inApp = storeOn(source(searching('app')));
    await inApp.ready();
    const [inPublic, other] = await twoOn(() => source(database.url));
    await up(inApp);
    const heard = hear(other);
    await inApp.set('sid', sessionWith());
    // Notifications keep their order, so that of the other table would have come before.
    await caughtUp(other, inPublic);
    expect(about(heard, 'sid')).toEqual([]);
  });

  test('may be created later, and not in the first schema', async () => {
    await database.query('create schema app');
    const early = storeOn(source(searching('app', 'public')), { createTableIfMissing: false });
    await up(early);
    await expect(early.get('sid')).rejects.toMatchObject({ code: 'ERR_TABLE_MISSING' });
    const creating = storeOn(source(database.url));
    await creating.ready();
    expect(await early.get('sid')).toBeUndefined();
    await expectToHearEachOther(early, creating);
  });

  test('is announced and listened to as before after it was replaced by renaming', async () => {
    const before = storeOn(source(database.url));
    await up(before);
    await database.query(`begin; create table copied (like sessions including all);
      alter table sessions rename to former; alter table copied rename to sessions; commit`);
    await expectToHearEachOther(before, storeOn(source(database.url)));
  });

  test('may be partitioned', async () => {
    const created = storeOn(source(database.url));
    await created.ready();
    await created.close();
    await database.query(`
      create table parted (like sessions including all) partition by hash (id);
      create table parted_0 partition of parted for values with (modulus 2, remainder 0);
      create table parted_1 partition of parted for values with (modulus 2, remainder 1);
      drop table sessions; alter table parted rename to sessions`);
    await expectToHearEachOther(
      storeOn(source(searching('public'))),
      storeOn(source(database.url), { schemaName: 'public' }),
    );
  });
});

describe('a process that does nothing else ends by itself', () => {
  describe.each(['node-postgres', 'postgres-js'] as const)('with %s', (driver) => {
    test('while it listens', async () => {
      await using worker = await startWorker();
      await worker.call('open', { driver, url: database.url, options: { sync: true } });
      await worker.call('untilSync', 'up');
      worker.leave();
      expect(await worker.ended).toBe(0);
    });

    test('while it waits for a server that does not answer', async () => {
      await using proxy = await startProxy(database.url);
      // The connection would be given up after ten seconds.
      const limitMs = 9000;
      const tookMs = await shortestMs(limitMs, async () => {
        const held = proxy.hold('toServer');
        await using worker = await startWorker();
        const options = { sync: { connectionString: proxy.url } };
        await worker.call('open', { driver, url: database.url, options });
        await held;
        const since = performance.now();
        worker.leave();
        expect(await worker.ended).toBe(0);
        return performance.now() - since;
      });
      expect(tookMs).toBeLessThan(limitMs);
    });
  });
});
