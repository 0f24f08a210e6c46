/** Pruning: what it deletes, how, and what stops it. */
import { tracingChannel } from 'node:diagnostics_channel';
import { DrizzleStore, idOf, StoreClosedError } from 'connect-drizzle';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { gate } from './support/gate.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { promised, sessionUntil, sessionWith } from './support/sessions.js';
import { isPortable, onPortable } from './support/statement-set.js';

type Options = NonNullable<ConstructorParameters<typeof DrizzleStore>[1]>;

/** The waits of the pruning loop, in order. */
const waits: { ms: number | undefined; ref: boolean | undefined }[] = [];

vi.mock(import('node:timers/promises'), async (importOriginal) => {
  const timers = await importOriginal();
  return {
    ...timers,
    setTimeout: (ms, value, options) => {
      waits.push({ ms, ref: options?.ref });
      return timers.setTimeout(ms, value, options);
    },
  };
});

let database: ReusedDatabase;
let pool: pg.Pool;
const open: DrizzleStore[] = [];

beforeAll(async () => {
  database = await reusedDatabase();
});

afterAll(() => database.drop());

beforeEach(async () => {
  pool = database.pool();
  await storeWith({ pruneSessionInterval: false }).migrate();
  waits.length = 0;
});
afterEach(async () => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  for (const store of open.splice(0)) await store.close();
  await database.clear();
});

function storeWith(options: Options = {}, source: pg.Pool = pool): DrizzleStore {
  const store = new DrizzleStore(source, { pruneSessionInterval: false, ...options });
  open.push(store);
  return store;
}

/** In seconds; so often that tests do not have to wait. */
const OFTEN = 0.001;

/** Inserts rows that expired a minute ago, and rows that expire in an hour. */
async function fill(expired: number, live: number): Promise<void> {
  await database.query(
    `insert into sessions (id, data, expires_at)
     select 'expired ' || n, '{}'::json, now() - interval '1 minute' from generate_series(1, $1::int) n
     union all
     select 'live ' || n, '{}'::json, now() + interval '1 hour' from generate_series(1, $2::int) n`,
    [expired, live],
  );
}

function eventually(check: () => unknown): Promise<unknown> {
  return vi.waitFor(check, { timeout: 20_000, interval: 10 });
}

async function ids(): Promise<string[]> {
  const rows = await database.query<{ id: string }>('select id from sessions order by id');
  return rows.map(({ id }) => id);
}

async function count(): Promise<number> {
  const [row] = await database.query<{ count: number }>(
    'select count(*)::int as count from sessions',
  );
  return row?.count ?? Number.NaN;
}

/** Resolves when the next run of pruning in this process ends, whether it fails or not. */
function nextRun(): Promise<void> {
  const channel = tracingChannel('connect-drizzle:prune');
  const ended = gate();
  const subscriber = {
    start() {},
    end() {},
    asyncStart() {},
    asyncEnd() {
      channel.unsubscribe(subscriber);
      ended.open();
    },
    error() {},
  };
  channel.subscribe(subscriber);
  return ended.opened;
}

/** Holds all deletes until `letGo`. `arrived` resolves when the first one waits. */
async function holdDeletes() {
  const holder = await pool.connect();
  await holder.query('select pg_advisory_lock(1)');
  await database.query(`create function wait_for_the_test() returns trigger language plpgsql as $$
    begin perform pg_advisory_xact_lock_shared(1); return null; end $$`);
  await database.query(
    `create trigger wait before delete on sessions for each statement execute function wait_for_the_test()`,
  );
  return {
    arrived: () =>
      eventually(async () => {
        const waiting = await database.query(
          `select from pg_stat_activity where datname = current_database() and wait_event = 'advisory'`,
        );
        expect(waiting).toHaveLength(1);
      }),
    letGo() {
      holder.release(true);
    },
  };
}

/** Expects that one batch of 20,000 rows was deleted. A portable statement skips rows that it would wait for. */
async function expectOneBatchLess(): Promise<void> {
  const left = await count();
  if (!isPortable) expect(left).toBe(15_000);
  else {
    expect(left).toBeGreaterThanOrEqual(19_500);
    expect(left).toBeLessThan(20_000);
  }
}

describe('pruneSessions()', () => {
  test('deletes expired sessions and returns their number', async () => {
    const store = storeWith();
    await store.set('live', sessionWith());
    await store.set('expired', sessionUntil(new Date(Date.now() - 1)));
    await store.set('long expired', sessionUntil(new Date(0)));
    await store.set('endless', sessionWith({}, null));
    expect(await store.pruneSessions()).toBe(2);
    expect(await ids()).toEqual([idOf('live'), idOf('endless')].sort());
    expect(await store.pruneSessions()).toBe(0);
    expect(await promised((done) => store.pruneSessions(done))).toBe(0);
    expect(store.stats().pruned).toBe(2);
  });

  test('deletes no session before its expiry, even within the same hour', async () => {
    await database.query(
      `insert into sessions (id, data, expires_at)
       select n::text, '{}'::json, now() + n * interval '7 minutes' from generate_series(-20, 20) n`,
    );
    expect(await storeWith().pruneSessions()).toBe(21);
    expect(await count()).toBe(20);
  });

  test('keeps a tombstone for an hour', async () => {
    const store = storeWith();
    for (const sid of ['fresh', 'old']) {
      await store.set(sid, sessionWith());
      await store.destroy(sid);
    }
    await database.query(
      `update sessions set expires_at = expires_at - interval '1 hour' where id = $1`,
      [idOf('old')],
    );
    expect(await store.pruneSessions()).toBe(1);
    expect(await ids()).toEqual([idOf('fresh')]);
  });

  test('uses the clock of the database, not that of the process', async () => {
    const store = storeWith();
    await store.set('live', sessionWith());
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 365 * 86_400_000 });
    expect(await store.get('live')).toBeUndefined();
    expect(await store.pruneSessions()).toBe(0);
    vi.useRealTimers();
    expect(await store.get('live')).toBeDefined();
  });

  test('deletes any number of sessions, in batches that delay no other call', async () => {
    await fill(12_000, 100);
    using query = vi.spyOn(pg.Client.prototype, 'query');
    const held = await holdDeletes();
    const store = storeWith({ timeout: 60 });
    const pruned = store.pruneSessions();
    await held.arrived();
    // A delete is in flight and delays no other call.
    await store.set('sid', sessionWith());
    expect(await store.get('sid')).toBeDefined();
    await store.destroy('sid');
    expect(await store.length()).toBe(100);
    held.letGo();
    expect(await pruned).toBe(12_000);
    expect(await count()).toBe(101);
    const deletes = query.mock.calls.filter(([sent]) =>
      JSON.stringify(sent).includes('delete from'),
    );
    expect(deletes.length).toBeGreaterThanOrEqual(4);
  });

  test('skips rows that the app has locked, and deletes them on the next run', async () => {
    await fill(10, 0);
    const app = await pool.connect();
    await app.query('begin');
    await app.query(`select from sessions where id in ('expired 3', 'expired 4') for update`);
    const store = storeWith();
    expect(await store.pruneSessions()).toBe(8);
    expect(await ids()).toEqual(['expired 3', 'expired 4']);
    await app.query('rollback');
    app.release();
    expect(await store.pruneSessions()).toBe(2);
  });

  test('shares the work among processes that prune at once', async () => {
    await fill(30_000, 10);
    const counts = await Promise.all(
      [1, 2, 3, 4].map(() => storeWith({}, database.pool({ max: 2 })).pruneSessions()),
    );
    expect(counts.reduce((sum, each) => sum + each)).toBe(30_000);
    expect(await count()).toBe(10);
  });

  const inOne = onPortable('a portable statement deletes one row');
  test.skipIf(inOne)('finds its rows through an index', async () => {
    await fill(1000, 100_000);
    await database.query('analyze sessions');
    using query = vi.spyOn(pg.Client.prototype, 'query');
    await storeWith({ preparedStatements: false }).pruneSessions();
    const text = query.mock.calls
      .map(([sent]: unknown[]) =>
        typeof sent === 'object' && sent !== null && 'text' in sent ? sent.text : sent,
      )
      .find((each) => String(each).includes('delete from'));
    const rows = await database
      .query<{ 'QUERY PLAN': string }>(`explain (generic_plan) ${text}`)
      .catch(
        // Before Postgres 16.
        () =>
          database.query<{ 'QUERY PLAN': string }>(
            `explain ${String(text).replace('$1', "'5000'")}`,
          ),
      );
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
    expect(plan).toContain('sessions_expires_hour_index');
    expect(plan).not.toContain('Seq Scan');
  });

  test('stops after the current batch when the store is closed', async () => {
    await fill(20_000, 0);
    const held = await holdDeletes();
    const store = storeWith({ errorLog: () => {} });
    const pruned = expect(store.pruneSessions()).rejects.toThrow(StoreClosedError);
    await held.arrived();
    const closed = store.close();
    held.letGo();
    await pruned;
    await closed;
    // Only the batch in flight was deleted.
    await expectOneBatchLess();
  });
});

describe('automatic pruning', () => {
  test('runs for as long as the store is open', async () => {
    const store = storeWith({ pruneSessionInterval: OFTEN });
    for (let round = 1; round <= 3; round += 1) {
      await fill(5, 0);
      await eventually(async () => expect(await count()).toBe(0));
    }
    expect(store.stats().pruned).toBe(15);
    await store.close();
    await fill(5, 0);
    const before = waits.length;
    await new Promise((resolve) => setImmediate(resolve));
    expect(waits).toHaveLength(before);
    expect(await count()).toBe(5);
  });

  test('runs about every quarter of an hour by default, and keeps no process alive', async () => {
    const random = vi.spyOn(Math, 'random');
    for (const value of [0, 0.5, 0.999]) {
      random.mockReturnValue(value);
      storeWith({ pruneSessionInterval: undefined });
    }
    expect(waits.map(({ ms }) => ms)).toEqual([450_000, 900_000, 1_349_100]);
    expect(waits.map(({ ref }) => ref)).toEqual([false, false, false]);
  });

  test('waits for the interval, with a new jitter each time', async () => {
    const random = vi.spyOn(Math, 'random').mockReturnValueOnce(0.25).mockReturnValueOnce(0.75);
    random.mockReturnValue(0.5);
    const run = nextRun();
    storeWith({ pruneSessionInterval: 0.01 });
    await run;
    await eventually(() => expect(waits.length).toBeGreaterThanOrEqual(3));
    expect(waits.slice(0, 3).map(({ ms }) => ms)).toEqual([7.5, 12.5, 10]);
  });

  test('is off with `pruneSessionInterval: false`', async () => {
    const store = storeWith({ pruneSessionInterval: false });
    await fill(1, 0);
    await store.set('sid', sessionWith());
    expect(waits).toEqual([]);
    expect(await count()).toBe(2);
    expect(await store.pruneSessions()).toBe(1);
  });

  test('logs a failure and carries on', async () => {
    const logged: unknown[][] = [];
    const errorLog = (...args: unknown[]) => logged.push(args);
    await fill(7, 0);
    await database.query('alter table sessions rename to moved_away');
    const store = storeWith({ pruneSessionInterval: OFTEN, errorLog });
    await eventually(() => expect(logged.length).toBeGreaterThanOrEqual(2));
    expect(logged[0]).toEqual([
      'connect-drizzle: Pruning expired sessions failed',
      expect.objectContaining({ code: 'ERR_TABLE_MISSING' }),
    ]);
    await database.query('alter table moved_away rename to sessions');
    await eventually(() => expect(store.stats().pruned).toBe(7));
  });

  // Vitest fails if a rejection is not handled.
  test.each([
    [
      'throws',
      () => {
        throw new Error("the log's own");
      },
    ],
    ['returns a promise that rejects', () => Promise.reject(new Error("the log's own"))],
  ])('carries on if `errorLog` itself %s', async (_, fail) => {
    let calls = 0;
    // Not `vi.fn`, which handles the rejection.
    const errorLog = () => {
      calls += 1;
      return fail();
    };
    await fill(7, 0);
    await database.query('alter table sessions rename to moved_away');
    const store = storeWith({ pruneSessionInterval: OFTEN, errorLog });
    await eventually(() => expect(calls).toBeGreaterThanOrEqual(2));
    await database.query('alter table moved_away rename to sessions');
    await eventually(() => expect(store.stats().pruned).toBe(7));
  });

  test.each(['close', 'signal'])(
    'stops after the current batch on %s, and logs nothing',
    async (by) => {
      await fill(20_000, 0);
      const held = await holdDeletes();
      const errorLog = vi.fn();
      const controller = new AbortController();
      const { signal } = controller;
      const store = storeWith({ pruneSessionInterval: OFTEN, errorLog, signal });
      await held.arrived();
      if (by === 'signal') controller.abort();
      const closed = store.close();
      held.letGo();
      await closed;
      await expectOneBatchLess();
      expect(errorLog).not.toHaveBeenCalled();
    },
  );

  test('stops at once while it waits', async () => {
    const store = storeWith({ pruneSessionInterval: 86_400 });
    expect(waits).toHaveLength(1);
    await store.close();
    expect(pool.totalCount).toBeLessThanOrEqual(1);
  });
});
