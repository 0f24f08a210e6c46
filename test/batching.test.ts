import { AsyncLocalStorage } from 'node:async_hooks';
import { DrizzleStore, idOf, StatementError, StoreTimeoutError } from 'connect-drizzle';
import express from 'express';
import session, { type SessionData } from 'express-session';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { eventually } from './support/eventually.js';
import { gate } from './support/gate.js';
import { serve } from './support/http.js';
import { holding, holdingTable, holdMarked, refuseByContent } from './support/obstacles.js';
import { startProxy } from './support/proxy.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, endOf, promised, sessionUntil, sessionWith } from './support/sessions.js';
import { causeCode, logStatements, type StatementLog } from './support/statements.js';

let database: ReusedDatabase;
let log: StatementLog;

beforeAll(async () => {
  database = await reusedDatabase();
});

beforeEach(() => {
  log = logStatements();
});

afterEach(async () => {
  log.close();
  await database.clear();
});

afterAll(() => database.drop());

/** Opens a store with its table that has sent no batch yet. It writes every touch: most tests are about what is sent. */
function openStore(
  ...[options, source]: Parameters<ReusedDatabase['store']>
): Promise<DrizzleStore> {
  return database.store({ touchAfter: 0, ...options }, source);
}

/** A pool so small that reads and writes share one lane. */
function oneLane(): pg.Pool {
  return database.pool({ max: 2 });
}

function times<T>(count: number, make: (at: number) => T): T[] {
  return Array.from({ length: count }, (_, at) => make(at));
}

/** Creates sessions with one statement that is not in the log. */
async function insertSessions(sids: readonly string[], data: object = {}): Promise<void> {
  await database.query(
    `insert into sessions (id, data, expires_at)
     select unnest($1::text[]), $2::json, now() + interval '1 day'`,
    [sids.map(idOf), JSON.stringify(sessionWith(data))],
  );
}

async function contents(): Promise<Map<string, Record<string, unknown> | null>> {
  const rows = await database.query<{ id: string; data: Record<string, unknown> | null }>(
    'select id, data from sessions',
  );
  return new Map(rows.map(({ id, data }) => [id, data]));
}

describe('lanes', () => {
  test('a call is sent at once and alone if a lane is free', async () => {
    const store = await openStore();
    for (const n of [1, 2, 3]) await store.set('sid', sessionWith({ n }));
    for (const _ of [1, 2, 3]) await store.get('sid');
    expect(log.rows()).toEqual([1, 1, 1, 1, 1, 1]);
  });

  test('calls wait for no timer if a lane is free', async () => {
    const store = await openStore();
    await store.set('sid', sessionWith({ n: 1 }));
    vi.useFakeTimers({ toFake: ['setTimeout', 'setImmediate', 'setInterval'] });
    try {
      expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
      await store.set('sid', sessionWith({ n: 2 }));
      await Promise.all(times(50, (n) => store.set(`sid ${n}`, sessionWith({ n }))));
      await store.touch('sid', sessionWith());
      await store.destroy('sid');
    } finally {
      vi.useRealTimers();
    }
  });

  test('a call that finds a lane idle is sent within two turns of the event loop, also after a failure', async () => {
    const store = await openStore();
    const hasLeft = async () => {
      const before = log.sent.length;
      const found = store.get('sid');
      for (const _ of [1, 2]) await new Promise(setImmediate);
      expect(log.sent.length).toBe(before + 1);
      expect(await found).toBeUndefined();
    };
    await hasLeft();
    await database.query('alter table sessions rename to away');
    const failing = times(32, (n) => store.get(`sid ${n}`));
    for (const failed of await Promise.allSettled(failing)) expect(failed.status).toBe('rejected');
    await database.query('alter table away rename to sessions');
    await hasLeft();
  });

  test('a few calls do not wait for a long statement to end', async () => {
    const store = await openStore();
    await holdMarked(database);
    const sids = times(8, (n) => `sid ${n}`);
    await insertSessions(sids);
    const sessions = await Promise.all(sids.map((sid) => store.get(sid)));
    await using lock = await holding(database, 'select pg_advisory_xact_lock(1)');
    const held = sids.map((sid, n) =>
      store.set(sid, Object.assign(sessions[n] as SessionData, { held: true })),
    );
    await lock.waiting(1);
    expect(log.rows('save')).toEqual([8]);
    // Too few to be worth a lane of their own at once.
    await store.set('another', sessionWith());
    expect(log.underWay).toBe(1);
    await lock.release();
    await Promise.all(held);
  });

  test('calls of one turn of the event loop share a statement', async () => {
    const store = await openStore();
    await insertSessions(['first', 'second', 'third']);
    const found: Promise<unknown>[] = [];
    // Like three sockets that are read one after the other, each with its own microtasks and ticks.
    await new Promise<void>((resolve) => {
      setImmediate(() => {
        found.push(store.get('first'));
        setTimeout(resolve, 0);
      });
      setImmediate(() => found.push(store.get('second')));
      setImmediate(() => process.nextTick(() => found.push(store.get('third'))));
    });
    expect((await Promise.all(found)).every((one) => one !== undefined)).toBe(true);
    expect(log.rows()).toEqual([3]);
  });

  test('calls that arrive while the lanes are busy share a statement', async () => {
    const store = await openStore({}, oneLane());
    const sids = times(201, (n) => `sid ${n}`);
    await insertSessions(sids);
    const table = await holdingTable(database);
    const first = store.get('sid 200');
    await table.waiting(1);
    const others = sids.slice(0, 200).map((sid) => store.get(sid));
    await table.release();
    const found = await Promise.all([first, ...others]);
    expect(found.every((one) => one !== undefined)).toBe(true);
    expect(log.rows()).toEqual([1, 200]);
    expect(store.stats()).toMatchObject({ statements: 2, rows: 201, largestBatch: 200 });
  });

  test('the oldest call is sent first, together with all that wait for the same statement', async () => {
    const store = await openStore({}, oneLane());
    await insertSessions(['a', 'b', 'c', 'd', 'first']);
    const table = await holdingTable(database);
    const first = store.get('first');
    await table.waiting(1);
    const others = [
      store.destroy('a'),
      store.touch('b', sessionWith()),
      store.set('e', sessionWith()),
      store.destroy('c'),
      store.touch('d', sessionWith()),
      store.get('f'),
    ];
    await table.release();
    await Promise.all([first, ...others]);
    expect(log.sent.map(({ name, rows }) => `${name} ${rows}`)).toEqual([
      'read 1',
      'end 2',
      'touch 2',
      'put 1',
      'read 1',
    ]);
  });

  test('a statement takes 256 rows at most', async () => {
    const store = await openStore({}, oneLane());
    await Promise.all(times(600, (n) => store.set(`sid ${n}`, sessionWith({ n }))));
    expect(log.rows('put')).toEqual([256, 256, 88]);
    await Promise.all(times(600, (n) => store.get(`sid ${n}`)));
    expect(log.rows('read')).toEqual([256, 256, 88]);
    expect(store.stats().largestBatch).toBe(256);
  });

  test('a statement takes 1 MiB of sessions at most, and one session of any size', async () => {
    const store = await openStore({}, oneLane());
    const text = 'x'.repeat(200_000);
    const big = 'x'.repeat(2_000_000);
    await Promise.all(
      times(12, (n) => store.set(`sid ${n}`, sessionWith({ text: n === 7 ? big : text }))),
    );
    expect(log.rows('put')).toEqual([5, 2, 1, 4]);
    expect(contentOf(await store.get('sid 7'))).toEqual({ text: big });
    expect(contentOf(await store.get('sid 11'))).toEqual({ text });
  });

  test('a session counts by its bytes, not by its characters', async () => {
    const store = await openStore({}, oneLane());
    const text = '語'.repeat(100_000);
    await Promise.all(times(6, (n) => store.set(`sid ${n}`, sessionWith({ text }))));
    expect(log.rows('put')).toEqual([3, 3]);
  });

  test('statements are prepared once per kind for a row alone, and once for any number of rows', async () => {
    const pool = database.pool({ max: 1 });
    const store = await openStore({}, pool);
    for (const count of [1, 2, 3, 10, 50]) {
      const sids = times(count, (n) => `sid ${n} of ${count}`);
      await Promise.all(sids.map((sid) => store.set(sid, sessionWith())));
      const loaded = await Promise.all(sids.map((sid) => store.get(sid)));
      await Promise.all(
        sids.map((sid, n) => store.set(sid, Object.assign(loaded[n] ?? {}, sessionWith({ n })))),
      );
      await Promise.all(sids.map((sid) => store.touch(sid, sessionWith())));
      await Promise.all(sids.map((sid) => store.destroy(sid)));
    }
    const { rows } = await pool.query<{ name: string }>(
      `select substring(name from 'connect_drizzle_(.+)_.{16}$') as name from pg_prepared_statements
       where name !~ 'probe|clock' order by name`,
    );
    const kinds = ['end', 'put', 'read', 'save', 'touch'];
    // For one row, a put is an update, and an insert if there is nothing to update.
    const alone = ['end', 'insert', 'put', 'read', 'save', 'touch_any'];
    expect(rows.map(({ name }) => name)).toEqual(
      [...alone, ...kinds.map((kind) => `${kind}_many`)].sort(),
    );
    expect(log.rows('save')).toEqual([1, 2, 3, 10, 50]);
  });

  test('two stores with different tables share a pool and its connections', async () => {
    const pool = database.pool({ max: 1 });
    const one = await openStore({ tableName: 'one' }, pool);
    const other = await openStore({ tableName: 'other' }, pool);
    for (const n of [1, 2, 3]) {
      await one.set('sid', sessionWith({ from: 'one', n }));
      await other.set('sid', sessionWith({ from: 'other', n }));
      await one.touch('sid', sessionWith());
      await other.touch('sid', sessionWith());
      expect(contentOf(await one.get('sid'))).toEqual({ from: 'one', n });
      expect(contentOf(await other.get('sid'))).toEqual({ from: 'other', n });
    }
    await one.destroy('sid');
    expect(await one.get('sid')).toBeUndefined();
    expect(await other.get('sid')).toBeDefined();
  });

  test('without prepared statements the server holds none', async () => {
    const pool = database.pool({ max: 1 });
    const store = await openStore({ preparedStatements: false }, pool);
    await Promise.all(times(20, (n) => store.set(`sid ${n}`, sessionWith({ n }))));
    const found = await Promise.all(times(20, (n) => store.get(`sid ${n}`)));
    expect(found.map(contentOf)).toEqual(times(20, (n) => ({ n })));
    const loaded = found[0];
    if (loaded === undefined) throw new Error('no session');
    await store.set('sid 0', Object.assign(loaded, { n: 100 }));
    await store.touch('sid 1', sessionWith());
    await store.destroy('sid 2');
    expect(Object.keys(await store.all())).toHaveLength(19);
    const { rows } = await pool.query('select name from pg_prepared_statements');
    expect(rows).toEqual([]);
  });
});

describe('the lanes of a pool', () => {
  const shares: [max: number, lanes: number | undefined, most: number][] = [
    [1, undefined, 1],
    [2, undefined, 1],
    [3, undefined, 1],
    [4, undefined, 2],
    [5, undefined, 2],
    [8, undefined, 4],
    [10, undefined, 4],
    [10, 50, 4],
    [10, 1, 2],
    [24, 5, 10],
  ];

  test.each(shares)(
    'a pool of %i with lanes: %s has %i statements in flight at most',
    async (...share) => {
      const [max, lanes, most] = share;
      const store = await openStore({ lanes }, database.pool({ max }));
      const table = await holdingTable(database);
      // One after the other, so that each finds the next lane free.
      const calls: Promise<unknown>[] = [];
      for (const n of times(60, (at) => at)) {
        calls.push(store.get(`sid ${n}`), store.set(`other ${n}`, sessionWith()));
        await Promise.resolve();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await table.waiting(most);
      expect(log.underWay).toBe(most);
      await table.release();
      await Promise.all(calls);
      expect(log.mostUnderWay).toBe(most);
    },
  );

  test.each([1, 3, 4, 6, 8, 10])(
    'calls of every kind take half of a pool of %i at most',
    async (max) => {
      const userId = (of: object): string => Reflect.get(of, 'user');
      const store = await openStore({ userId, maxSessionsPerUser: 3 }, database.pool({ max }));
      const calls = times(20, (n) => [
        store.get(`sid ${n}`),
        store.set(`sid ${n}`, sessionWith({ user: 'ada' })),
        store.touch(`sid ${n}`, sessionWith()),
        store.destroy(`other ${n}`),
        store.update(`sid ${n}`, () => {}),
        store.length(),
        store.ids(),
        store.all(),
        store.revokeUser(`user ${n}`),
      ]).flat();
      await Promise.all([...calls, store.clear()]);
      const kinds = new Set(log.sent.map(({ name }) => name));
      expect([...kinds]).toEqual(
        expect.arrayContaining(['read', 'put', 'end_beyond', 'end_user', 'count', 'list', 'clear']),
      );
      expect(log.mostUnderWay).toBeLessThanOrEqual(Math.max(1, Math.floor(max / 2)));
    },
  );

  test('500 hanging session calls leave the app more than half of a shared pool of 5', async () => {
    const pool = database.pool({ max: 5 });
    const store = await openStore(
      { userId: (of) => Reflect.get(of, 'user'), maxSessionsPerUser: 3 },
      pool,
    );
    const table = await holdingTable(database);
    const calls = times(100, (n) => [
      store.get(`sid ${n}`),
      store.set(`other ${n}`, sessionWith({ user: `user ${n % 7}` })),
      store.length(),
      store.revokeUser(`user ${n}`),
      store.update(`sid ${n}`, () => {}),
    ]).flat();
    expect(calls).toHaveLength(500);
    await table.waiting(2);
    // The app's queries are answered before the table is released, and none of the 500 calls.
    const answers = await Promise.all(times(3, (n) => pool.query('select $1::int as n', [n])));
    expect(answers.map(({ rows }) => rows[0])).toEqual([{ n: 0 }, { n: 1 }, { n: 2 }]);
    expect(pool.waitingCount).toBe(0);
    await table.release();
    await Promise.all(calls);
  });

  test('a lane that gets no connection leaves its calls to the other one, and retries rarely', async () => {
    const role = `${database.name}_few`;
    await database.query(`create role ${role} login password 'few' connection limit 1`);
    await database.query(`grant all on schema public to ${role}`);
    const url = new URL(database.url);
    url.username = role;
    url.password = 'few';
    const pool = database.pool({ connectionString: url.href });
    const store = await openStore({}, pool);
    const table = await holdingTable(database);
    const hangs = store.get('sid');
    await table.waiting(1);
    const tries = vi.spyOn(pool, 'connect');
    const startedAt = performance.now();
    const calls = times(100, (n) => store.get(`sid ${n}`));
    // Far more time than a refusal takes.
    for (let n = 0; n < 100; n += 1) await table.waiting(1);
    const seconds = Math.ceil((performance.now() - startedAt) / 1000);
    expect(tries.mock.calls.length).toBeGreaterThan(0);
    expect(tries.mock.calls.length).toBeLessThanOrEqual(1 + seconds);
    tries.mockRestore();
    await table.release();
    expect(await Promise.all([hangs, ...calls])).toEqual(times(101, () => undefined));
    await store.close();
    await pool.end();
    await database.query(`drop owned by ${role}`);
    await database.query(`drop role ${role}`);
  });

  test("an app's query waits for two session statements at most, on a pool of one connection too", async () => {
    for (const max of [1, 2, 5]) {
      const tableName = `pool_of_${max}`;
      const pool = database.pool({ max });
      const userId = (of: object): string => Reflect.get(of, 'user');
      const store = await openStore({ tableName, userId, maxSessionsPerUser: 3 }, pool);
      // No call may wait for a connection that is being opened.
      await Promise.all(times(max, () => pool.query('select 1')));
      const table = await holdingTable(database, tableName);
      const calls = times(100, (n) => [
        store.get(`sid ${n}`),
        store.set(`other ${n}`, sessionWith({ user: `user ${n % 7}` })),
        store.length(),
        store.revokeUser(`user ${n}`),
        store.destroy(`sid ${n}`),
      ]).flat();
      await table.waiting(1);
      let served = 0;
      pool.on('acquire', () => {
        served += 1;
      });
      const own = pool.connect().then((client) => {
        client.release();
        return served;
      });
      await table.release();
      // Its own answer is among those that were sent.
      expect((await own) - 1).toBeLessThanOrEqual(2);
      await Promise.all(calls);
    }
  });
});

describe('async contexts', () => {
  test('each of 200 concurrent callers continues in its own context', async () => {
    const store = await openStore();
    const user = new AsyncLocalStorage<number>();
    const seen: string[] = [];
    const request = async (n: number) => {
      const check = (where: string) => {
        if (user.getStore() !== n) seen.push(`${where} of ${n} ran as ${user.getStore()}`);
      };
      const sid = `sid ${n}`;
      await promised<void>((done) =>
        store.set(sid, sessionWith({ n }), (error) => {
          check('the callback of set');
          done(error);
        }),
      );
      await promised<void>((done) =>
        store.get(sid, (error, found) => {
          check('the callback of get');
          expect(contentOf(found)).toEqual({ n });
          done(error);
        }),
      );
      // All of them wait for the same row, and for the same statement.
      await promised<void>((done) =>
        store.get('sid 0', (error) => {
          check('the callback of a shared get');
          done(error);
        }),
      );
      await promised<void>((done) =>
        store.touch('sid 0', sessionWith(), (error) => {
          check('the callback of a shared touch');
          done(error);
        }),
      );
      await store.get(sid);
      check('what follows a get');
      await store.touch(sid, sessionWith());
      check('what follows a touch');
      await store.update(sid, () => check('the function of an update'));
      check('what follows an update');
      await store.destroy(sid);
      check('what follows a destroy');
    };
    await Promise.all(times(200, (n) => user.run(n, () => request(n))));
    expect(seen).toEqual([]);
    expect(store.stats().largestBatch).toBeGreaterThan(50);
  });

  test('a caller whose row was refused or locked continues in its own context, too', async () => {
    const store = await openStore();
    await refuseByContent(database);
    const user = new AsyncLocalStorage<number>();
    const contexts = await Promise.all(
      times(50, (n) =>
        user.run(n, async () => {
          const data = n % 10 === 0 ? { refuse: '23514' } : { transient: '40001' };
          await store.set(`sid ${n}`, sessionWith(data)).catch(() => {});
          return user.getStore();
        }),
      ),
    );
    expect(contexts).toEqual(times(50, (n) => n));
    expect(store.stats().retries).toBeGreaterThan(0);
  });
});

describe('touchAfter', () => {
  const MINUTE = 60_000;

  /** Returns what is sent if the expiry of a session moves, from and to so many minutes from now. */
  async function sentFor(
    store: DrizzleStore,
    stored: number,
    wanted: number,
    call: 'touch' | 'set' = 'touch',
  ): Promise<string[]> {
    await store.set('sid', sessionUntil(new Date(Date.now() + stored * MINUTE)));
    const object = await store.get('sid');
    if (object === undefined) throw new Error('no session');
    object.cookie.expires = new Date(Date.now() + wanted * MINUTE);
    const before = log.sent.length;
    await store[call]('sid', object);
    const sent = log.sent.slice(before).map(({ name }) => name);
    const isWritten = Math.abs((endOf(await store.get('sid')) ?? 0) - Date.now() - wanted * MINUTE);
    expect(isWritten < 10_000).toBe(sent.length > 0);
    return sent;
  }

  test('skips touches that move the expiry by less, in the first half of the lifetime', async () => {
    const store = await openStore({ touchAfter: 600 });
    expect(await sentFor(store, 60, 69)).toEqual([]);
    expect(await sentFor(store, 60, 69, 'set')).toEqual([]);
    expect(await sentFor(store, 60, 71)).toEqual(['touch']);
    expect(await sentFor(store, 60, 71, 'set')).toEqual(['touch']);
  });

  test('writes in the second half of a lifetime, however long it is', async () => {
    const store = await openStore({ touchAfter: 86_400 });
    expect(await sentFor(store, 20, 30)).toEqual([]);
    expect(await sentFor(store, 10, 30)).toEqual(['touch']);
  });

  test('is a minute by default for a lifetime of an hour or more, and else 0', async () => {
    const store = await openStore({ touchAfter: undefined });
    for (const call of ['touch', 'set'] as const) {
      expect(await sentFor(store, 60, 60.9, call)).toEqual([]);
      expect(await sentFor(store, 60, 61.1, call)).toEqual(['touch']);
      expect(await sentFor(store, 43_200, 43_200.9, call)).toEqual([]);
      expect(await sentFor(store, 43_200, 43_201.1, call)).toEqual(['touch']);
      expect(await sentFor(store, 59, 59.2, call)).toEqual(['touch']);
    }
  });

  test.each(['auto', 600] as const)(
    'applies to objects that the store did not load: %s',
    async (touchAfter) => {
      const store = await openStore({ touchAfter });
      const endsIn = (minutes: number) => sessionUntil(new Date(Date.now() + minutes * MINUTE));
      const sentForForeign = async (minutes: number) => {
        const before = log.sent.length;
        await store.touch('sid', endsIn(minutes));
        return log.sent.slice(before).map(({ name }) => name);
      };
      await store.set('sid', endsIn(120));
      expect(await sentForForeign(120.5)).toEqual(['read']);
      expect(await sentForForeign(131)).toEqual(['read', 'touch']);
      expect(await sentForForeign(119)).toEqual(['read', 'touch']);
      expect(Math.round(((endOf(await store.get('sid')) ?? 0) - Date.now()) / MINUTE)).toBe(119);
      await store.destroy('sid');
      expect(await sentForForeign(300)).toEqual(['read']);
    },
  );

  test.each([
    { object: 'a loaded session', cache: false },
    { object: 'a loaded session', cache: true },
    { object: 'a foreign object', cache: false },
    { object: 'a foreign object', cache: true },
  ])(
    'holds at the end of the absolute lifetime, where a touch only says when a session was seen: $object, cache: $cache',
    async ({ object, cache }) => {
      const options = { touchAfter: 'auto', maxLifetime: 7200 } as const;
      const endingIn = (minutes: number) => sessionUntil(new Date(Date.now() + minutes * MINUTE));
      const writer = await openStore(options);
      for (const sid of ['just seen', 'seen before']) await writer.set(sid, endingIn(1440));
      await database.query(
        `update sessions set last_seen_at = now() - interval '61 seconds' where id = $1`,
        [idOf('seen before')],
      );
      const store = await openStore({ ...options, cache });
      await expect.poll(() => store.stats().sync).toBe(cache ? 'up' : 'off');
      const sentFor = async (call: 'touch' | 'set', sid: string) => {
        const loaded = await store.get(sid);
        const session = object === 'a loaded session' && loaded ? loaded : endingIn(0);
        session.cookie.expires = new Date(Date.now() + 1500 * MINUTE);
        const before = log.sent.length;
        await store[call](sid, session);
        return log.sent.slice(before).flatMap(({ name }) => (name === 'read' ? [] : [name]));
      };
      expect(await sentFor('touch', 'just seen')).toEqual([]);
      expect(await sentFor('touch', 'seen before')).toEqual(['touch']);
      expect(await sentFor('touch', 'seen before')).toEqual([]);
      if (object === 'a loaded session') expect(await sentFor('set', 'just seen')).toEqual([]);
      const seen = await database.query(
        `select from sessions where last_seen_at > now() - interval '60 seconds'`,
      );
      expect(seen.length).toBe(2);
    },
  );

  test('a shorter expiry is always written', async () => {
    const store = await openStore({ touchAfter: 86_400 });
    expect(await sentFor(store, 60, 50)).toEqual(['save']);
  });
});

test('a row whose expiry is out of JavaScript’s range fails no call', async () => {
  const store = await openStore();
  const ends = ['infinity', '-infinity', '290000-01-01', '1900-01-01'];
  const sids = [...ends, 'another'];
  await insertSessions(sids);
  for (const end of ends) {
    await database.query('update sessions set expires_at = $2 where id = $1', [idOf(end), end]);
  }
  const isThere = async () => {
    const found = await Promise.all(sids.map((sid) => store.get(sid)));
    return found.map((one) => one !== undefined);
  };
  expect(await isThere()).toEqual([true, false, true, false, true]);
  expect(Object.keys(await store.all())).toHaveLength(3);
  const sessions = await Promise.all(sids.map((sid) => store.get(sid)));
  await Promise.all(
    sids.map((sid, at) => store.set(sid, Object.assign(sessions[at] ?? sessionWith(), { n: 1 }))),
  );
  expect((await Promise.all(sids.map((sid) => store.get(sid)))).map(contentOf)).toEqual(
    sids.map(() => ({ n: 1 })),
  );
});

describe('the order of calls of one id', () => {
  test('each call sees the effects of earlier calls, awaited or not', async () => {
    const store = await openStore();
    const answers = await Promise.all([
      store.get('sid'),
      store.set('sid', sessionWith({ n: 1 })),
      store.get('sid'),
      store.set('sid', sessionWith({ n: 2 })),
      store.touch('sid', sessionUntil(new Date('2100-01-01'))),
      store.get('sid'),
      store.get('sid'),
      store.destroy('sid'),
      store.get('sid'),
      store.touch('sid', sessionWith()),
      store.set('sid', sessionWith({ n: 3 })),
      store.get('sid'),
    ]);
    expect(answers.map((answer) => contentOf(answer ?? undefined))).toEqual([
      undefined,
      undefined,
      { n: 1 },
      undefined,
      undefined,
      { n: 2 },
      { n: 2 },
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(endOf(answers[5] ?? undefined)).toBe(Date.parse('2100-01-01'));
  });

  test('a read waits for a write of its id in flight, and for no other', async () => {
    const store = await openStore();
    await insertSessions(['other']);
    await holdMarked(database);
    const lock = await holding(database, 'select pg_advisory_xact_lock(1)');
    const done: string[] = [];
    const write = store
      .set('sid', sessionWith({ n: 1, held: true }))
      .then(() => done.push('write'));
    await lock.waiting(1);
    const read = store.get('sid').then((found) => {
      done.push('read');
      return found;
    });
    await store.get('other');
    done.push('read of another');
    await lock.release();
    await write;
    expect(contentOf(await read)).toEqual({ n: 1, held: true });
    expect(done).toEqual(['read of another', 'write', 'read']);
  });

  test('a browser that follows the redirect of its log-in before the session is saved is logged in', async () => {
    const store = await openStore();
    await holdMarked(database);
    const arrived = gate();
    const app = express();
    app.use('/home', (_request, _response, next) => {
      arrived.open();
      next();
    });
    app.use(session({ store, secret: 'a secret', resave: false, saveUninitialized: false }));
    app.post('/login', (request, response) => {
      Object.assign(request.session, { who: 'ada', held: true });
      response.redirect('/home');
    });
    app.get('/home', (request, response) => {
      response.json({ who: Reflect.get(request.session, 'who') ?? null });
    });
    await using site = await serve(app);
    await using lock = await holding(database, 'select pg_advisory_xact_lock(1)');

    const browser = site.browser();
    // The head of the answer comes before the session is in the database.
    const redirect = await browser.open('/login', { method: 'POST' });
    expect(redirect.status).toBe(302);
    await lock.waiting(1);
    const home = browser.get(redirect.headers.get('location') ?? '');
    await arrived.opened;
    await lock.release();
    expect((await home).json()).toEqual({ who: 'ada' });
    await redirect.text();
  });

  test('200 browsers that follow the redirects of their log-ins at once are all logged in, and then out', async () => {
    const store = await openStore();
    const app = express();
    app.use(session({ store, secret: 'a secret', resave: false, saveUninitialized: false }));
    app.post('/login/:who', (request, response) => {
      Object.assign(request.session, { who: request.params.who });
      response.redirect('/home');
    });
    app.get('/home', (request, response) => {
      response.json({ who: Reflect.get(request.session, 'who') ?? null });
    });
    await using site = await serve(app);
    const visits = times(200, async (n) => {
      const browser = site.browser();
      const redirect = await browser.open(`/login/${n}`, { method: 'POST' });
      const home = await browser.get(redirect.headers.get('location') ?? '');
      await redirect.text();
      return home.json();
    });
    expect(await Promise.all(visits)).toEqual(times(200, (n) => ({ who: `${n}` })));
  });

  test('waiting touches of one id become one, which moves the expiry to the last of them', async () => {
    const store = await openStore();
    await insertSessions(['sid', 'other']);
    const table = await holdingTable(database);
    const first = store.touch('sid', sessionWith());
    await table.waiting(1);
    const until = times(50, (n) => new Date(Date.UTC(2100, 0, 1, 0, 0, n)));
    const others = until.map((expires) => store.touch('sid', sessionUntil(expires)));
    await table.release();
    await Promise.all([first, ...others]);
    expect(log.rows('touch')).toEqual([1, 1]);
    expect(endOf(await store.get('sid'))).toBe(until.at(-1)?.getTime());
  });

  test('the last of several waiting touches counts if the session was not read', async () => {
    const store = await openStore();
    await insertSessions(['sid']);
    const table = await holdingTable(database);
    const first = store.touch('sid', sessionWith());
    await table.waiting(1);
    const until = ['2100-01-03', '2100-01-02', '2100-01-01'];
    const others = until.map((end) => store.touch('sid', sessionUntil(new Date(end))));
    await table.release();
    await Promise.all([first, ...others]);
    expect(log.rows('touch')).toEqual([1, 1]);
    expect(endOf(await store.get('sid'))).toBe(Date.parse('2100-01-01'));
  });

  test('of several waiting touches of sessions that were read, the latest expiry wins, and each object remembers its own', async () => {
    const store = await openStore();
    await insertSessions(['sid']);
    const [one, two, three] = await Promise.all([1, 2, 3].map(() => store.get('sid')));
    if (!one || !two || !three) throw new Error('no session');
    const touch = (object: SessionData, end: string) => {
      object.cookie.expires = new Date(end);
      return store.touch('sid', object);
    };
    const table = await holdingTable(database);
    const first = touch(one, '2100-01-01');
    await table.waiting(1);
    const others = [touch(two, '2100-01-05'), touch(three, '2100-01-03')];
    await table.release();
    await Promise.all([first, ...others]);
    expect(log.rows('touch')).toEqual([1, 1]);
    expect(endOf(await store.get('sid'))).toBe(Date.parse('2100-01-05'));
    // It knows from its own touch that this one is shorter.
    await touch(three, '2100-01-02');
    expect(log.rows('save')).toEqual([1]);
  });

  test('a touch that joins another one takes effect even if the session would have expired in between', async () => {
    const store = await openStore();
    await insertSessions(['sid']);
    const now = Date.now();
    const inSeconds = (seconds: number) => sessionUntil(new Date(now + seconds * 1000));
    const table = await holdingTable(database);
    const first = store.touch('sid', inSeconds(20));
    await table.waiting(1);
    const second = store.touch('sid', inSeconds(1000));
    vi.setSystemTime(now + 60_000);
    try {
      const third = store.touch('sid', inSeconds(2000));
      await table.release();
      await Promise.all([first, second, third]);
      expect(endOf(await store.get('sid'))).toBe(now + 2_000_000);
    } finally {
      vi.useRealTimers();
    }
  });

  test('a touch does not overtake a write that came before it', async () => {
    const store = await openStore();
    await insertSessions(['sid']);
    const table = await holdingTable(database);
    const calls = [
      store.touch('sid', sessionUntil(new Date('2100-01-01'))),
      store.touch('sid', sessionUntil(new Date('2100-01-02'))),
      store.set('sid', sessionUntil(new Date('2100-01-03'), { n: 1 })),
      store.touch('sid', sessionUntil(new Date('2100-01-04'))),
      store.get('sid'),
      store.destroy('sid'),
      store.touch('sid', sessionUntil(new Date('2100-01-05'))),
    ] as const;
    await table.waiting(1);
    await table.release();
    await Promise.all(calls);
    expect(endOf(await calls[4])).toBe(Date.parse('2100-01-04'));
    expect(await store.get('sid')).toBeUndefined();
  });

  test('a touch does not join another one that is in flight', async () => {
    const store = await openStore();
    await insertSessions(['sid']);
    const [one, two, three] = [1, 2, 3].map((hours) =>
      sessionUntil(new Date(Date.now() + hours * 3_600_000)),
    );
    const first = store.touch('sid', one as SessionData);
    const second = store.touch('sid', two as SessionData);
    // By then the second one is in flight.
    await first;
    await Promise.all([second, store.touch('sid', three as SessionData)]);
    const [row] = await database.query<{ end: Date }>('select expires_at as "end" from sessions');
    expect(row?.end.getTime()).toBe(endOf(three));
    expect(log.rows('touch')).toEqual([1, 1, 1]);
  });

  test('callers that read one id at once share its row, and each gets its own object', async () => {
    const pool = database.pool();
    // Both lanes find a connection at once.
    await Promise.all(times(4, () => pool.query('select 1')));
    const store = await openStore({}, pool);
    await insertSessions(['sid'], { cart: { items: ['book'] } });
    const table = await holdingTable(database);
    const first = [store.get('other'), store.get('another')];
    await table.waiting(1);
    const reads = times(10, () => store.get('sid'));
    await table.release();
    const found = await Promise.all(reads);
    await Promise.all(first);
    expect(log.rows('read')).toEqual([2, 1]);
    expect(new Set(found).size).toBe(10);
    for (const [n, one] of found.entries()) {
      expect(contentOf(one)).toEqual({ cart: { items: ['book'] } });
      Object.assign(Reflect.get(one ?? {}, 'cart'), { items: [n] });
    }
  });
});

describe('rows that others have locked', () => {
  /** What a store does to a session that exists. */
  const writes: Record<string, (store: DrizzleStore, sid: string) => Promise<unknown>> = {
    touch: (store, sid) => store.touch(sid, sessionWith()),
    'set of a session of its own': (store, sid) => store.set(sid, sessionWith({ written: true })),
    'set of a loaded session': async (store, sid) => {
      const loaded = await store.get(sid);
      if (loaded) await store.set(sid, Object.assign(loaded, { written: true }));
    },
    'set of a generated session': (store, sid) => {
      const request: { session?: object; sessionID?: string } = {};
      const made = sessionWith({ written: true });
      Object.assign(store, {
        generate: () => Object.assign(request, { session: made, sessionID: sid }),
      });
      Reflect.get(store, 'generate')(request);
      return store.set(sid, made);
    },
    destroy: (store, sid) => store.destroy(sid),
  };

  /** A pool of an app with this default isolation level. */
  const strict = (level: string) =>
    database.pool({ options: `-c default_transaction_isolation=${level.replace(' ', '\\ ')}` });

  /** A pool on whose connections a deadlock is detected at once. */
  const hasty = () => database.pool({ options: '-c deadlock_timeout=10ms' });

  for (const icu of [false, true]) {
    describe(icu ? 'in a database with an ICU collation' : 'in a table of 400 rows', () => {
      if (icu) {
        beforeAll(async () => {
          await database.drop();
          database = await reusedDatabase({ icu });
        });
      }

      test.each(Object.keys(writes))(
        'a row that the app has locked delays only the callers of its %s',
        async (kind) => {
          const write = writes[kind];
          if (write === undefined) throw new Error(kind);
          const store = await openStore({}, oneLane());
          const sids = times(400, (n) => `sid ${n}`);
          await insertSessions(sids);
          const row = await holding(database, {
            text: 'select id from sessions where id = $1 for update',
            values: [idOf('sid 17')],
          });
          const done = new Set<string>();
          const calls = sids.map((sid) => write(store, sid).then(() => done.add(sid)));
          await Promise.all(calls.filter((_, n) => n !== 17));
          expect(done.has('sid 17')).toBe(false);
          // Its caller occupies no lane while it waits.
          await Promise.all(times(10, (n) => store.touch(`sid ${n}`, sessionWith())));
          expect(done.has('sid 17')).toBe(false);
          await row.release();
          await calls[17];
          expect(log.refusals).toEqual([]);
        },
      );

      test('two stores that write the same 200 rows in opposite orders do not deadlock', async () => {
        const sids = times(200, (n) => `sid ${n}`);
        const [one, other] = [await openStore({}, hasty()), await openStore({}, hasty())];
        await insertSessions(sids);
        for (const kind of ['touch', 'set of a session of its own', 'set of a loaded session']) {
          const write = writes[kind];
          if (write === undefined) throw new Error(kind);
          for (let round = 0; round < 12; round += 1) {
            await Promise.all([
              ...sids.map((sid) => write(one, sid)),
              ...sids.toReversed().map((sid) => write(other, sid)),
            ]);
          }
        }
        expect(log.refusals.filter((state) => state === '40P01')).toEqual([]);
        expect(Math.max(...log.rows('touch'))).toBeGreaterThan(50);
        expect((await contents()).size).toBe(200);
      });

      test('two stores that insert the same 200 rows in opposite orders do not deadlock', async () => {
        const [one, other] = [await openStore({}, hasty()), await openStore({}, hasty())];
        for (let round = 0; round < 12; round += 1) {
          const sids = times(200, (n) => `sid ${n} of ${round}`);
          await Promise.all([
            ...sids.map((sid) => one.set(sid, sessionWith({ by: 'one' }))),
            ...sids.toReversed().map((sid) => other.set(sid, sessionWith({ by: 'other' }))),
          ]);
        }
        expect(log.refusals.filter((state) => state === '40P01')).toEqual([]);
        expect((await contents()).size).toBe(12 * 200);
      });
    });
  }

  test('a row that the app is inserting delays only the calls of its id', async () => {
    const store = await openStore();
    const row = await holding(database, {
      text: `insert into sessions (id, data, expires_at) values ($1, '{}', now() + interval '1 day')`,
      values: [idOf('sid 17')],
    });
    const done = new Set<number>();
    const calls = times(100, (n) =>
      store.set(`sid ${n}`, sessionWith({ n })).then(() => done.add(n)),
    );
    await Promise.all(calls.filter((_, n) => n !== 17));
    expect(done.has(17)).toBe(false);
    await row.release();
    await calls[17];
    expect(contentOf(await store.get('sid 17'))).toEqual({ n: 17 });
  });

  test.each(['repeatable read', 'serializable'])(
    'every write happens exactly once if transactions are %s',
    async (level) => {
      const strict = () =>
        database.pool({ options: `-c default_transaction_isolation=${level.replace(' ', '\\ ')}` });
      const [one, other] = [await openStore({}, strict()), await openStore({}, strict())];
      const sids = times(20, (n) => `sid ${n}`);
      await Promise.all(sids.map((sid) => one.set(sid, sessionWith({ count: 0 }))));
      await Promise.all(
        times(15, () =>
          [one, other].flatMap((store) =>
            sids.flatMap((sid) => [
              store.update(sid, (found) => {
                Object.assign(found, { count: Number(Reflect.get(found, 'count')) + 1 });
              }),
              store.touch(sid, sessionWith()),
              store.get(sid),
            ]),
          ),
        ).flat(),
      );
      const found = await Promise.all(sids.map((sid) => one.get(sid)));
      expect(found.map(contentOf)).toEqual(sids.map(() => ({ count: 30 })));
    },
  );

  test.each(['repeatable read', 'serializable'])(
    'an upsert that another transaction overtook is sent again if transactions are %s',
    async (level) => {
      const store = await openStore({}, strict(level));
      await holdMarked(database);
      // On a busy machine, the statement's wait for the lock may end before the other insert, and its next try sees that.
      for (let round = 0; !log.refusals.includes('40001'); round += 1) {
        const lock = await holding(database, 'select pg_advisory_xact_lock(1)');
        // In the order in which one statement inserts them.
        const [first = '', second = ''] = times(2, (n) => `sid ${round} ${n}`).sort((one, other) =>
          idOf(one) < idOf(other) ? -1 : 1,
        );
        const calls = [
          store.set(first, sessionWith({ held: true })),
          store.set(second, sessionWith({ n: 2 })),
        ];
        await lock.waiting(1);
        await insertSessions([second], { n: 1 });
        await lock.release();
        await Promise.all(calls);
        expect(contentOf(await store.get(first))).toEqual({ held: true });
        expect(contentOf(await store.get(second))).toEqual({ n: 2 });
      }
    },
  );

  test("a user's session that the app has locked delays only the calls that end that user's sessions", async () => {
    const store = await openStore({ userId: (of) => Reflect.get(of, 'user') }, oneLane());
    await Promise.all(
      times(20, (n) => store.set(`sid ${n}`, sessionWith({ user: n < 10 ? 'ada' : 'bob' }))),
    );
    const row = await holding(database, {
      text: 'select id from sessions where id = $1 for update',
      values: [idOf('sid 7')],
    });
    let ended: number | undefined;
    const revoked = store.revokeUser('ada').then((count) => {
      ended = count;
    });
    expect(await store.revokeUser('bob')).toBe(10);
    await store.set('other', sessionWith({ user: 'ada' }));
    expect(await store.get('sid 1')).toBeUndefined();
    expect(ended).toBeUndefined();
    await row.release();
    await revoked;
    expect(ended).toBeGreaterThanOrEqual(10);
    expect(await store.get('sid 7')).toBeUndefined();
  });

  test.each(['40001', '40P01', '55P03'])(
    'a statement that failed because of another transaction (%s) is retried, and no call fails',
    async (transient) => {
      const store = await openStore({ userId: (of) => Reflect.get(of, 'user') });
      await refuseByContent(database);
      const again = () => database.query('alter sequence tries restart');
      const user = 'ada';
      await Promise.all(
        times(20, (n) => store.set(`sid ${n}`, sessionWith(n === 7 ? { transient, user } : {}))),
      );
      expect((await contents()).size).toBe(20);
      await again();
      await Promise.all(times(20, (n) => store.touch(`sid ${n}`, sessionWith())));
      await again();
      expect(await store.revokeUser(user)).toBe(1);
      await store.set('sid 7', sessionWith({ transient, user }));
      await store.set('sid 30', sessionWith({ transient, user }));
      await again();
      await store.clear();
      expect(await store.length()).toBe(0);
      expect(log.refusals.every((state) => state === transient)).toBe(true);
      expect(log.refusals.length).toBeGreaterThan(0);
    },
  );
});

describe('refusals', () => {
  const concernsRows = ['54000', '42501', 'P0001', '21000', '23514', '22023', '0A000'];

  test.each(concernsRows)(
    'only the sessions that are refused with %s fail, out of 256 in one statement',
    async (refuse) => {
      const store = await openStore({}, oneLane());
      await refuseByContent(database);
      const guilty = new Set([100, 255]);
      const outcomes = await Promise.allSettled(
        times(256, (n) => store.set(`sid ${n}`, sessionWith(guilty.has(n) ? { refuse } : { n }))),
      );
      expect(log.rows('put')[0]).toBe(256);
      const failed = outcomes.flatMap(({ status }, n) => (status === 'rejected' ? [n] : []));
      expect(failed).toEqual([...guilty]);
      for (const outcome of outcomes) {
        if (outcome.status === 'fulfilled') continue;
        expect(outcome.reason).toBeInstanceOf(StatementError);
        expect(causeCode(outcome.reason)).toBe(refuse);
      }
      const stored = await contents();
      expect([...stored.keys()].sort()).toEqual(
        times(256, (n) => n)
          .filter((n) => !guilty.has(n))
          .map((n) => idOf(`sid ${n}`))
          .sort(),
      );
      // The store works as before.
      expect(contentOf(await store.get('sid 1'))).toEqual({ n: 1 });
    },
  );

  test('only the refused ones fail, out of 256 touches, saves or log-outs in one statement', async () => {
    const store = await openStore({}, oneLane());
    const sids = times(256, (n) => `sid ${n}`);
    await insertSessions(sids);
    await insertSessions(['guilty'], { refuseUpdate: '42501' });
    await refuseByContent(database);
    const all = [...sids.slice(0, 255), 'guilty'];
    const loaded = new Map(
      await Promise.all(all.map(async (sid) => [sid, await store.get(sid)] as const)),
    );
    const kinds: Record<string, (sid: string) => Promise<void>> = {
      touch: (sid) => store.touch(sid, sessionWith()),
      save: (sid) => store.set(sid, Object.assign(loaded.get(sid) ?? {}, sessionWith({ n: 1 }))),
      end: (sid) => store.destroy(sid),
    };
    // A save replaces the value that the trigger refuses, so it has its own.
    Object.assign(loaded.get('guilty') ?? {}, { refuse: '42501' });
    for (const [name, call] of Object.entries(kinds)) {
      const outcomes = await Promise.allSettled(all.map(call));
      expect(log.rows(name)[0]).toBe(256);
      expect(outcomes.flatMap(({ status }, n) => (status === 'rejected' ? [all[n]] : []))).toEqual([
        'guilty',
      ]);
    }
  });

  test('a session that is too long for an index of the app fails alone', async () => {
    const store = await openStore({}, oneLane());
    await database.query(`create index on sessions ((data ->> 'bio'))`);
    const bio = times(3_000, () => Math.random().toString(36)).join('');
    const outcomes = await Promise.allSettled(
      times(256, (n) => store.set(`sid ${n}`, sessionWith({ bio: n === 99 ? bio : 'short' }))),
    );
    const failed = outcomes.flatMap((outcome, n) =>
      outcome.status === 'rejected' ? [[n, causeCode(outcome.reason)]] : [],
    );
    expect(failed).toEqual([[99, '54000']]);
    expect((await contents()).size).toBe(255);
  });

  test.each(['08006', '53100', '57014', '58030', 'XX000', '25006', '42703'])(
    'a failure that no session caused (%s) fails every call of the statement, which is sent once',
    async (refuse) => {
      const store = await openStore({}, oneLane());
      await refuseByContent(database);
      const outcomes = await Promise.allSettled(
        times(50, (n) => store.set(`sid ${n}`, sessionWith(n === 25 ? { refuse } : {}))),
      );
      expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
      expect(log.rows('put')).toEqual([50]);
      expect((await contents()).size).toBe(0);
      await store.set('sid', sessionWith({ n: 1 }));
      expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
    },
  );
});

describe('joined strings', () => {
  test('no characters in a session affect others in the statement', async () => {
    const store = await openStore({ userId: (of) => Reflect.get(of, 'user') }, oneLane());
    const awkward = [
      '\u001f',
      'a\u001fb\u001f\u001f',
      '\\u001f',
      ',',
      '"',
      '\\',
      "'",
      '{}',
      'null',
      'NULL',
      '\u0000',
      '\ud800',
      '😀',
      '\u2028',
      '',
      '\n\t',
      '$1 %s ? {}',
      '{"a":[1,2]}',
    ];
    const data = awkward.map((text) => ({ text, [text]: [text, { [text]: text }] }));
    const user = (n: number) => (n % 3 === 0 ? null : `${n}, "\\'{}NULL\u001f`);
    await Promise.all(
      data.map((content, n) => store.set(`sid ${n}`, sessionWith({ ...content, user: user(n) }))),
    );
    expect(log.rows()).toEqual([awkward.length]);
    const found = await Promise.all(data.map((_, n) => store.get(`sid ${n}`)));
    expect(found.map(contentOf)).toEqual(data.map((content, n) => ({ ...content, user: user(n) })));
    for (const [n, one] of found.entries()) Object.assign(one ?? {}, { n });
    await Promise.all(found.map((one, n) => store.set(`sid ${n}`, one ?? sessionWith())));
    expect(log.rows('save')).toEqual([awkward.length]);
    const again = await Promise.all(data.map((_, n) => store.get(`sid ${n}`)));
    expect(again.map(contentOf)).toEqual(
      data.map((content, n) => ({ ...content, user: user(n), n })),
    );
    const owners = await database.query<{ user_id: string | null }>(
      'select user_id from sessions order by user_id',
    );
    expect(owners.map(({ user_id }) => user_id).sort()).toEqual(data.map((_, n) => user(n)).sort());
  });

  test('the string of a serializer may contain the separator', async () => {
    const serializer = {
      stringify: (of: object) => `\u001f${JSON.stringify(of)}\u001f`,
      parse: (text: string) => JSON.parse(text.slice(1, -1)),
    };
    const store = await openStore({ serializer }, oneLane());
    await Promise.all(times(20, (n) => store.set(`sid ${n}`, sessionWith({ n }))));
    expect(log.rows()).toEqual([20]);
    const found = await Promise.all(times(20, (n) => store.get(`sid ${n}`)));
    expect(found.map(contentOf)).toEqual(times(20, (n) => ({ n })));
  });

  test('an expiry is kept to the millisecond', async () => {
    const store = await openStore({}, oneLane());
    const until = times(50, (n) => Date.UTC(2100, 0, 1) + n * 1_111_111 + n);
    await Promise.all(until.map((at, n) => store.set(`sid ${n}`, sessionUntil(new Date(at)))));
    const found = await Promise.all(until.map((_, n) => store.get(`sid ${n}`)));
    expect(found.map(endOf)).toEqual(until);
    await Promise.all(
      until.map((at, n) => store.touch(`sid ${n}`, sessionUntil(new Date(at + 1)))),
    );
    const touched = await Promise.all(until.map((_, n) => store.get(`sid ${n}`)));
    expect(touched.map(endOf)).toEqual(until.map((at) => at + 1));
  });
});

describe('a connection that hangs', () => {
  test('fails its calls within the timeout and frees the lane', async () => {
    await using proxy = await startProxy(database.url);
    await openStore();
    const store = await openStore(
      { timeout: 0.3 },
      database.pool({ connectionString: proxy.url, max: 10 }),
    );
    await eventually(() => store.set('sid', sessionWith({ n: 1 })));
    proxy.swallow();
    const outcomes = await Promise.allSettled([
      ...times(20, (n) => store.get(`sid ${n}`)),
      ...times(20, (n) => store.set(`sid ${n}`, sessionWith())),
      ...times(20, (n) => store.touch(`other ${n}`, sessionWith())),
      store.length(),
      store.ids(),
      store.all(),
      store.clear(),
      store.ready(),
      store.pruneSessions(),
    ]);
    expect(
      outcomes.map(
        (each) => each.status === 'rejected' && each.reason instanceof StoreTimeoutError,
      ),
    ).toEqual(outcomes.map(() => true));
    proxy.release();
    // The half-open connections still hang; new ones do not.
    expect(contentOf(await eventually(() => store.get('sid')))).toEqual({ n: 1 });
    await eventually(() => store.set('sid', sessionWith({ n: 2 })));
    await eventually(() => store.touch('sid', sessionWith()));
    expect(contentOf(await eventually(() => store.get('sid')))).toEqual({ n: 2 });
    proxy.cut();
  });

  test('fails its calls within the timeout after an app’s test used fake timers, too', async () => {
    await openStore();
    await using store = new DrizzleStore(database.pool(), {
      timeout: 0.5,
      errorLog: () => {},
    });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    try {
      await eventually(() => store.get('sid'));
    } finally {
      vi.useRealTimers();
    }
    const table = await holdingTable(database);
    await expect(store.get('sid')).rejects.toBeInstanceOf(StoreTimeoutError);
    await table.release();
  });

  test('does not delay the calls that wait for their turn for another timeout', async () => {
    await using proxy = await startProxy(database.url);
    const pool = database.pool({ connectionString: proxy.url });
    const store = await openStore({ timeout: 0.3 }, pool);
    proxy.swallow();
    // On a busy machine, the time may be over before the first is sent.
    while (log.sent.length === 0) {
      const calls = times(6, (n) => store.set('sid', sessionWith({ n })));
      for (const call of [...calls, store.get('sid'), store.touch('sid', sessionWith())]) {
        await expect(call).rejects.toThrow(StoreTimeoutError);
      }
    }
    expect(log.rows()).toEqual([1]);
  });

  test('lets no later touch join one whose turn never came', async () => {
    const store = await openStore({ timeout: 0.3 });
    await insertSessions(['sid']);
    await using table = await holdingTable(database);
    const calls = [store.set('sid', sessionWith()), store.touch('sid', sessionWith())];
    for (const call of calls) await expect(call).rejects.toThrow(StoreTimeoutError);
    await table.release();
    const end = new Date('2100-01-01');
    await eventually(() => store.touch('sid', sessionUntil(end)));
    expect(endOf(await eventually(() => store.get('sid')))).toBe(end.getTime());
  });

  test('fails the calls that only wait for its lane, too', async () => {
    const store = await openStore({ timeout: 0.3 }, oneLane());
    const table = await holdingTable(database);
    const outcomes = await Promise.allSettled([
      ...times(300, (n) => store.get(`sid ${n}`)),
      store.set('sid', sessionWith()),
      store.destroy('sid'),
    ]);
    expect(
      outcomes.map(
        (each) => each.status === 'rejected' && each.reason instanceof StoreTimeoutError,
      ),
    ).toEqual(outcomes.map(() => true));
    await table.release();
    await eventually(() => store.set('other', sessionWith({ n: 1 })));
    expect(contentOf(await eventually(() => store.get('other')))).toEqual({ n: 1 });
    // No later caller joins what was never sent.
    expect(await eventually(() => store.get('sid 299'))).toBeUndefined();
  });
});

describe('plans', () => {
  test('made while the table was empty do not scan it when it is large', async () => {
    const pool = database.pool({ max: 1, options: '-c plan_cache_mode=force_generic_plan' });
    const store = await openStore(
      { userId: (of) => Reflect.get(of, 'user'), maxSessionsPerUser: 5 },
      pool,
    );
    await database.query('alter table sessions set (autovacuum_enabled = false)');
    const everyKind = async (count: number) => {
      const all = (call: (sid: string) => Promise<unknown>) =>
        Promise.all(times(count, (n) => call(`sid ${n}`)));
      const generated = (sid: string) => {
        const own = sessionWith({ user: 'ada' });
        Object.assign(store, { generate: () => {} });
        Reflect.get(store, 'generate')({ session: own, sessionID: sid });
        return store.set(sid, own);
      };
      await all(generated);
      // Now there is something to overwrite.
      await all(generated);
      await all(async (sid) => {
        const content = sessionWith({ user: 'ada', n: 1 });
        const loaded = Object.assign((await store.get(sid)) ?? {}, content);
        await store.set(sid, loaded);
        await store.touch(sid, loaded);
      });
      await all((sid) => store.set(sid, sessionWith({ user: 'ada' })));
      await all((sid) => store.touch(sid, sessionWith()));
      await all((sid) => store.destroy(sid));
      await store.revokeUser('ada');
      for await (const _ of store.sessions({ userId: 'ada' })) break;
      await store.pruneSessions();
    };
    await everyKind(1);
    await everyKind(2);
    await database.query('delete from sessions');
    await database.query(
      `insert into sessions (id, user_id, data, expires_at)
       select md5(n::text) || md5(n::text), 'user ' || n, '{"cookie":{}}', now() + interval '1 day'
       from generate_series(1, 20000) as n`,
    );
    const { rows: prepared } = await pool.query<{ name: string; statement: string }>(
      `select name, statement from pg_prepared_statements
       where name ~ '_(read|touch|save|insert|create|put|end|end_user|end_beyond|list_user|prune)_'`,
    );
    // Eight for one row, six for many, three others. Pruning is planned each time.
    expect(prepared).toHaveLength(17);
    for (const { name, statement } of prepared) {
      const count = new Set(statement.match(/\$\d+/g)).size;
      const values = times(count, () => `'0'`).join(', ');
      const { rows: plan } = await pool.query<{ 'QUERY PLAN': string }>(
        `explain execute "${name}"(${values})`,
      );
      const lines = plan.map((row) => row['QUERY PLAN']).join('\n');
      expect(lines, `${name}:\n${lines}`).not.toMatch(/Seq Scan on sessions/);
      expect(lines).toMatch(/Index/);
    }
  });
});
