import { ConnectionError, type DrizzleStore, idOf } from 'connect-drizzle';
import type { SessionData } from 'express-session';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { gatedPool, type QueryGate } from './support/gated-pool.js';
import { holding, holdMarked, until } from './support/obstacles.js';
import { startProxy } from './support/proxy.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, endOf, sessionUntil, sessionWith } from './support/sessions.js';
import { logStatements } from './support/statements.js';

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(() => database.clear());

afterAll(() => database.drop());

function times<T>(count: number, make: (at: number) => T): T[] {
  return Array.from({ length: count }, (_, at) => make(at));
}

describe('random calls on three sids, answered in any order,', () => {
  /** The content of a session, without its cookie. */
  type Content = Readonly<Record<string, number>>;

  /** A live session. `life` distinguishes it from earlier sessions with the same sid. */
  interface Live {
    readonly life: number;
    readonly content: Content;
    readonly end: number;
  }

  /** A session object that a request has loaded, and the content it has seen. */
  interface InHand {
    readonly sid: number;
    readonly object: Promise<SessionData | undefined>;
    /** The life of the session that was live at the time of the `get`. */
    life: number | undefined;
    seen: Content;
    now: Content;
  }

  /** The store as a plain Map: every call takes effect at once. */
  class Model {
    readonly sessions = new Map<number, Live | 'ended'>();
    readonly inHand: InHand[] = [];
    #lives = 0;
    #ends = 0;

    live(sid: number): Live | undefined {
      const session = this.sessions.get(sid);
      return session === 'ended' ? undefined : session;
    }

    /** An expiry later than all before. */
    nextEnd(): number {
      this.#ends += 1;
      return Date.UTC(2100, 0, 1) + this.#ends * 1000;
    }

    begin(sid: number, content: Content, end: number): void {
      this.#lives += 1;
      this.sessions.set(sid, { life: this.#lives, content, end });
    }
  }

  interface Real {
    readonly store: DrizzleStore;
    readonly sidOf: (n: number) => string;
    /** The calls in flight, each with the check of its answer. */
    readonly underWay: Promise<void>[];
  }

  type Step = fc.AsyncCommand<Model, Real>;

  /** A command that starts its call and does not wait for the answer. */
  function call(
    name: string,
    run: (model: Model, real: Real) => Promise<void>,
    check: (model: Model) => boolean = () => true,
  ): Step {
    return {
      check,
      toString: () => name,
      async run(model, real) {
        await run(model, real);
      },
    };
  }

  const sids = fc.nat({ max: 2 });
  const keys = fc.constantFrom('a', 'b', 'c');
  const values = fc.nat({ max: 3 });
  const contents = fc.dictionary(keys, values, { maxKeys: 3, noNullPrototype: true });

  const get = sids.map((sid) =>
    call(`get(${sid})`, async (model, { store, sidOf, underWay }) => {
      const live = model.live(sid);
      const object = store.get(sidOf(sid));
      const content = live?.content ?? {};
      model.inHand.push({ sid, object, life: live?.life, seen: content, now: content });
      underWay.push(
        object.then((found) => {
          expect(contentOf(found)).toEqual(live?.content);
          expect(endOf(found)).toBe(live?.end);
        }),
      );
    }),
  );

  const setForeign = fc.tuple(sids, contents).map(([sid, content]) =>
    call(`set(${sid}, ${JSON.stringify(content)})`, async (model, { store, sidOf, underWay }) => {
      const end = model.nextEnd();
      const session = model.sessions.get(sid);
      if (session === undefined) model.begin(sid, content, end);
      else if (session !== 'ended') model.sessions.set(sid, { ...session, content, end });
      underWay.push(store.set(sidOf(sid), sessionUntil(new Date(end), content)));
    }),
  );

  const setGenerated = fc.tuple(sids, contents).map(([sid, content]) =>
    call(
      `set(${sid}, generated ${JSON.stringify(content)})`,
      async (model, { store, sidOf, underWay }) => {
        const end = model.nextEnd();
        const session = sessionUntil(new Date(end), content);
        model.begin(sid, content, end);
        // express-session sets and calls `generate` like this.
        Reflect.set(store, 'generate', (request: object) =>
          Object.assign(request, { session, sessionID: sidOf(sid) }),
        );
        Reflect.get(store, 'generate')({});
        underWay.push(store.set(sidOf(sid), session));
      },
    ),
  );

  const setLoaded = fc.tuple(fc.nat(), keys, fc.option(values)).map(([which, key, value]) =>
    call(
      `set(loaded ${which}, ${key} = ${value})`,
      async (model, { store, sidOf, underWay }) => {
        const hand = model.inHand[which % model.inHand.length];
        const object = await hand?.object;
        if (hand === undefined || object === undefined) return;
        const { [key]: _, ...others } = hand.now;
        hand.now = value === null ? others : { ...others, [key]: value };
        const end = model.nextEnd();
        if (value === null) Reflect.deleteProperty(object, key);
        else Object.assign(object, { [key]: value });
        Object.assign(object, sessionUntil(new Date(end)));
        const live = model.live(hand.sid);
        if (live !== undefined && live.life === hand.life) {
          const content = merged(hand.seen, hand.now, live.content);
          model.sessions.set(hand.sid, { ...live, content, end });
          hand.seen = hand.now;
        }
        underWay.push(store.set(sidOf(hand.sid), object));
      },
      ({ inHand }) => inHand.length > 0,
    ),
  );

  const touchForeign = sids.map((sid) =>
    call(`touch(${sid})`, async (model, { store, sidOf, underWay }) => {
      const end = model.nextEnd();
      const live = model.live(sid);
      if (live !== undefined) model.sessions.set(sid, { ...live, end });
      underWay.push(store.touch(sidOf(sid), sessionUntil(new Date(end))));
    }),
  );

  const touchLoaded = fc.nat().map((which) =>
    call(
      `touch(loaded ${which})`,
      async (model, { store, sidOf, underWay }) => {
        const hand = model.inHand[which % model.inHand.length];
        const object = await hand?.object;
        if (hand === undefined || object === undefined) return;
        const end = model.nextEnd();
        const live = model.live(hand.sid);
        if (live !== undefined && live.life === hand.life) {
          model.sessions.set(hand.sid, { ...live, end });
        }
        underWay.push(
          store.touch(sidOf(hand.sid), Object.assign(object, sessionUntil(new Date(end)))),
        );
      },
      ({ inHand }) => inHand.length > 0,
    ),
  );

  const destroy = sids.map((sid) =>
    call(`destroy(${sid})`, async (model, { store, sidOf, underWay }) => {
      if (model.sessions.has(sid)) model.sessions.set(sid, 'ended');
      underWay.push(store.destroy(sidOf(sid)));
    }),
  );

  const settle = fc.constant(
    call('settle', async (_, { underWay }) => {
      await Promise.all(underWay.splice(0));
    }),
  );

  /** Applies the changes of this request to the stored content. */
  function merged(seen: Content, now: Content, stored: Content): Content {
    const result: Record<string, number> = { ...stored };
    for (const key of ['a', 'b', 'c']) {
      const value = now[key];
      if (value === seen[key]) continue;
      if (value === undefined) delete result[key];
      else result[key] = value;
    }
    return result;
  }

  const steps = [
    get,
    get,
    setForeign,
    setGenerated,
    setLoaded,
    setLoaded,
    touchForeign,
    touchLoaded,
    destroy,
    settle,
  ];

  test.each([2, 10])('have the results that a plain Map has, on a pool of %i', async (max) => {
    const open = new Set<QueryGate>();
    const gate: QueryGate = (query, text) => {
      const [current] = open;
      return current === undefined ? query() : current(query, text);
    };
    const pool = database.pool({ max });
    const store = await database.store({ touchAfter: 0 }, gatedPool(pool, gate));
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.commands(steps, { maxCommands: 40, size: 'max' }),
        async (scheduler, commands) => {
          runs += 1;
          const run = runs;
          const sidOf = (n: number) => `sid ${n} of run ${run}`;
          // The scheduler decides when a query is sent and when its answer arrives.
          const scheduled: QueryGate = async (query) => {
            await scheduler.schedule(Promise.resolve(), 'sent');
            const [answer] = await Promise.allSettled([query()]);
            await scheduler.schedule(Promise.resolve(), 'answered');
            if (answer.status === 'rejected') throw answer.reason;
            return answer.value;
          };
          open.clear();
          open.add(scheduled);
          const model = new Model();
          const underWay: Promise<void>[] = [];
          const real = { store, sidOf, underWay };
          try {
            const all = fc.asyncModelRun(() => ({ model, real }), commands);
            await scheduler.waitFor(all.then(() => Promise.all(underWay)));
          } finally {
            open.clear();
          }
          const rows = await database.query<{
            id: string;
            data: SessionData | null;
            end: Date;
          }>('select id, data, expires_at as end from sessions where id = any($1)', [
            [0, 1, 2].map((n) => idOf(sidOf(n))),
          ]);
          const stored = new Map(rows.map((row) => [row.id, row]));
          for (const n of [0, 1, 2]) {
            const row = stored.get(idOf(sidOf(n)));
            const session = model.sessions.get(n);
            if (session === undefined || session === 'ended') {
              expect(row?.data).toBe(session === undefined ? undefined : null);
            } else {
              expect(contentOf(row?.data)).toEqual(session.content);
              expect(row?.end.getTime()).toBe(session.end);
            }
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});

describe('a lost connection', () => {
  async function killWaiting(): Promise<void> {
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
  }

  async function contents(): Promise<Map<string, object | undefined>> {
    const rows = await database.query<{ id: string; data: object }>(
      'select id, data from sessions',
    );
    return new Map(rows.map(({ id, data }) => [id, contentOf(data)]));
  }

  test('fails every write in its batch, and loses no acknowledged write', async () => {
    const store = await database.store({}, database.pool({ max: 2 }));
    await Promise.all(times(50, (n) => store.set(`sid ${n}`, sessionWith({ n }))));
    const loaded = await Promise.all(times(10, (n) => store.get(`sid ${n}`)));
    await holdMarked(database);
    await using lock = await holding(database, 'select pg_advisory_xact_lock(1)');

    const inFlight = times(40, (n) =>
      store.set(`new ${n}`, sessionWith(n === 20 ? { held: true } : { n })),
    );
    const outcomes = Promise.allSettled(inFlight);
    await lock.waiting(1);
    // These calls wait for the lane. They are not in the batch that fails.
    const waiting = [
      ...loaded.map((one, n) =>
        store.set(`sid ${n}`, Object.assign(one ?? {}, sessionWith({ n: n + 100 }))),
      ),
      store.touch('sid 11', sessionWith()),
      store.destroy('sid 12'),
    ];
    await killWaiting();
    for (const outcome of await outcomes) {
      expect(outcome.status).toBe('rejected');
      if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(ConnectionError);
    }
    await Promise.all(waiting);
    const stored = await contents();
    expect(stored.size).toBe(50);
    for (const n of times(50, (at) => at)) {
      const expected = n === 12 ? undefined : { n: n < 10 ? n + 100 : n };
      expect(stored.get(idOf(`sid ${n}`))).toEqual(expected);
    }
    await store.set('after', sessionWith({ n: 1 }));
    expect(contentOf(await store.get('after'))).toEqual({ n: 1 });
    expect(await store.get('new 1')).toBeUndefined();
  });

  test('fails every read in its batch, and no later read', async () => {
    const store = await database.store();
    await store.set('sid', sessionWith({ n: 1 }));
    const table = await holding(database, 'lock table sessions in access exclusive mode');
    const reads = Promise.allSettled(times(30, (n) => store.get(n % 2 ? 'sid' : `sid ${n}`)));
    let answered = false;
    void reads.then(() => {
      answered = true;
    });
    await until(async () => {
      await killWaiting();
      return answered;
    });
    for (const read of await reads) {
      expect(read.status === 'rejected' && read.reason).toBeInstanceOf(ConnectionError);
    }
    await table.release();
    expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
  });

  test('fails writes whose commit was not acknowledged, also if they were committed', async () => {
    await using proxy = await startProxy(database.url);
    const store = await database.store({}, database.pool({ connectionString: proxy.url, max: 2 }));
    await store.set('sid', sessionWith({ n: 1 }));
    const held = proxy.hold('toClient');
    const outcomes = Promise.allSettled(
      times(20, (n) => store.set(`new ${n}`, sessionWith({ n }))),
    );
    await held;
    await until(async () => (await contents()).size === 21);
    proxy.cut();
    proxy.release();
    for (const outcome of await outcomes) {
      expect(outcome.status === 'rejected' && outcome.reason).toBeInstanceOf(ConnectionError);
    }
    expect(contentOf(await store.get('new 7'))).toEqual({ n: 7 });
    await store.set('new 7', sessionWith({ n: 8 }));
    expect(contentOf(await store.get('new 7'))).toEqual({ n: 8 });
  });

  test('loses no acknowledged write, also if connections are lost again and again', async () => {
    const pool = database.pool({ application_name: 'victim' });
    const store = await database.store({}, pool);
    let acknowledged = 0;
    let failed = 0;
    const kills: Promise<{ killed: boolean }[]>[] = [];
    const kill = () =>
      database.query<{ killed: boolean }>(
        `select pg_terminate_backend(pid) as killed from pg_stat_activity
         where datname = current_database() and application_name = 'victim'`,
      );
    const writer = async (n: number) => {
      let last = 0;
      for (let count = 1; count <= 60; count += 1) {
        try {
          await store.set(`sid ${n}`, sessionWith({ count }));
          last = count;
          acknowledged += 1;
          if (acknowledged % 100 === 0) kills.push(kill());
        } catch (error) {
          expect(error).toBeInstanceOf(ConnectionError);
          failed += 1;
        }
      }
      return last;
    };
    const last = await Promise.all(times(20, writer));
    expect((await Promise.all(kills)).flat().length).toBeGreaterThan(10);
    const stored = await contents();
    for (const [n, count] of last.entries()) {
      const { count: found } = Object.assign({ count: 0 }, stored.get(idOf(`sid ${n}`)));
      expect(found).toBeGreaterThanOrEqual(count);
    }
    expect(acknowledged + failed).toBe(20 * 60);
  });
});

describe('two stores on one table', () => {
  test('write the same sessions thousands of times without a deadlock or a lost change', async () => {
    using log = logStatements();
    const hasty = () => database.pool({ options: '-c deadlock_timeout=10ms' });
    const pair = [await database.store({}, hasty()), await database.store({}, hasty())];
    const [first] = pair;
    if (first === undefined) throw new Error('no store');
    const sids = times(24, (n) => `sid ${n}`);
    await Promise.all(sids.map((sid) => first.set(sid, sessionWith({ count: 0 }))));
    const rounds = 60;
    const increment = (session: SessionData) => {
      Object.assign(session, { count: Number(Reflect.get(session, 'count')) + 1 });
    };
    await Promise.all(
      pair.map(async (store, which) => {
        for (let round = 0; round < rounds; round += 1) {
          const order = which === 0 ? sids : sids.toReversed();
          await Promise.all(
            order.flatMap((sid, n) => [
              store.update(sid, increment),
              store.touch(sid, sessionWith()),
              store.get(sid),
              // Inserts and tombstones of the same ids.
              (n + round) % 2 === 0
                ? store.set(`${sid} of ${round}`, sessionWith({ which }))
                : store.destroy(`${sid} of ${round}`),
            ]),
          );
        }
      }),
    );
    const found = await Promise.all(sids.map((sid) => first.get(sid)));
    expect(found.map(contentOf)).toEqual(sids.map(() => ({ count: 2 * rounds })));
    expect(log.refusals.filter((state) => state === '40P01')).toEqual([]);
    expect(log.sent.length).toBeGreaterThan(1000);
  });
});
