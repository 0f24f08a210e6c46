// The deadline of a write uses the server's clock, which may differ from the process's clock, and may be set.
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ServerClock } from '../src/drivers/support/server-clock.js';
import { monotonicMs } from '../src/util/clock.js';
import { generated } from './support/requests.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, sessionWith } from './support/sessions.js';

describe('the estimate of the server’s clock', () => {
  /** Reads a clock that is `aheadMs` ahead, with a statement that took `thereMs` to reach the server. */
  function read(clock: ServerClock, aheadMs: number, thereMs: number): void {
    const nowMs = monotonicMs();
    clock.read(nowMs + aheadMs, nowMs - thereMs);
  }

  test('contains the true time after each reading, and quicker readings narrow it', () => {
    const clock = new ServerClock();
    expect(clock.isFresh).toBe(false);
    let width = Number.POSITIVE_INFINITY;
    for (const thereMs of [500, 2000, 50, 900, 5]) {
      read(clock, 10_000, thereMs);
      expect(clock.isFresh).toBe(true);
      expect(clock.earliest(7)).toBeLessThanOrEqual(10_007);
      expect(clock.latest(7)).toBeGreaterThanOrEqual(10_007);
      expect(clock.latest(0) - clock.earliest(0)).toBeLessThanOrEqual(width);
      width = clock.latest(0) - clock.earliest(0);
    }
    expect(width).toBeLessThan(100);
  });

  test.each([3_600_000, -3_600_000, 100, -100])(
    'starts anew after the clock was set by %s ms',
    (stepMs) => {
      const clock = new ServerClock();
      read(clock, 0, 5);
      read(clock, stepMs, 5);
      expect(clock.earliest(0)).toBeLessThanOrEqual(stepMs);
      expect(clock.latest(0)).toBeGreaterThanOrEqual(stepMs);
      expect(clock.latest(0) - clock.earliest(0)).toBeLessThan(100);
    },
  );
});

describe('a server whose clock is changed while the store works', () => {
  let database: ReusedDatabase;

  beforeAll(async () => {
    database = await reusedDatabase();
  });

  afterEach(() => database.clear());
  afterAll(() => database.drop());

  // The same happens after a failover behind a pooler: the connection stays, but its server has another clock.
  test.each(['1 hour', '-1 hour'])('by %s accepts all writes', async (step) => {
    await database.query(`
      create table step (by interval);
      insert into step values ('0');
      create function public.clock_timestamp() returns timestamptz volatile language sql
        begin atomic select pg_catalog.clock_timestamp() + by from public.step; end;
      create function public.statement_timestamp() returns timestamptz volatile language sql
        begin atomic select pg_catalog.statement_timestamp() + by from public.step; end;
    `);
    const pool = database.pool({ options: '-c search_path=public,pg_catalog' });
    const store = await database.store({ touchAfter: 0 }, pool);
    const sids = ['a', 'b', 'c'];
    const all = (call: (sid: string) => Promise<unknown>) => Promise.all(sids.map(call));
    const writes: Record<string, (sid: string) => Promise<unknown>> = {
      'a new session': (sid) => store.set(sid, generated(store, sid)),
      'a foreign object': (sid) => store.set(sid, sessionWith({ n: 1 })),
      'a save': async (sid) => {
        const session = await store.get(sid);
        await store.set(sid, Object.assign(session ?? {}, sessionWith({ n: 2 })));
      },
      'a touch': (sid) => store.touch(sid, sessionWith()),
      'a log-out': (sid) => store.destroy(sid),
    };
    const setBy = (by: string) => database.query('update step set by = $1', [by]);
    for (const [name, write] of Object.entries(writes)) {
      for (const some of [(call: typeof write) => call('a'), all]) {
        await setBy('0');
        if (name !== 'a new session') await all((sid) => store.set(sid, generated(store, sid)));
        await store.ids();
        await setBy(step);
        await some(write);
        if (name === 'a save') expect(contentOf(await store.get('a')), name).toEqual({ n: 2 });
        if (name === 'a log-out') expect(await store.get('a')).toBeUndefined();
        await setBy('0');
        await store.clear();
      }
    }
  });
});
