import type { DrizzleStore } from 'connect-drizzle';
import type { SessionData } from 'express-session';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type ReusedDatabase, reusedDatabase } from '../support/reused-database.js';
import { contentOf, endOf, sessionUntil } from '../support/sessions.js';

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(() => database.clear());

afterAll(() => database.drop());

type Content = Readonly<Record<string, string | number>>;

interface Live {
  /** Distinguishes it from earlier sessions with the same sid. */
  readonly life: number;
  readonly content: Content;
  readonly end: number;
}

/** The store as a plain Map. */
class Model {
  readonly sessions = new Map<number, Live | 'ended'>();
  readonly inHand: { sid: number; life: number; seen: Content }[] = [];
  lives = 0;
  ends = 0;

  live(sid: number): Live | undefined {
    const session = this.sessions.get(sid);
    return session === 'ended' ? undefined : session;
  }

  all(): [number, Live][] {
    return [...this.sessions].flatMap(([sid, session]) =>
      session === 'ended' ? [] : [[sid, session]],
    );
  }

  nextEnd(): number {
    this.ends += 1;
    return Date.UTC(2100, 0, 1) + this.ends * 1000;
  }

  begin(sid: number, content: Content, end: number): void {
    this.lives += 1;
    this.sessions.set(sid, { life: this.lives, content, end });
  }
}

/** Stores on one table, used in turn, so that each reads what another has written. */
class Real {
  readonly inHand: { store: DrizzleStore; object: SessionData }[] = [];
  turn = 0;

  constructor(
    readonly stores: readonly DrizzleStore[],
    readonly prefix: string,
  ) {}

  /** The store of the next call. */
  get store(): DrizzleStore {
    this.turn += 1;
    return this.stores[this.turn % this.stores.length] as DrizzleStore;
  }

  sidOf(sid: number): string {
    return `${this.prefix} ${sid}`;
  }
}

const MAX_PER_RUN = 25;

const sids = fc.nat({ max: 3 });
const keys = fc.constantFrom('a', 'b');
const values = fc.nat({ max: 3 });
const users = fc.constantFrom('ada', 'bob');
const contents = fc
  .tuple(fc.dictionary(keys, values, { noNullPrototype: true }), fc.option(users))
  .map(([content, user]): Content => (user === null ? content : { ...content, user }));

type Step = fc.AsyncCommand<Model, Real>;

function step(name: string, run: Step['run'], check: Step['check'] = () => true): Step {
  return { check, run, toString: () => name };
}

const steps: fc.Arbitrary<Step>[] = [
  sids.map((sid) =>
    step(`get(${sid})`, async (model, real) => {
      const { store } = real;
      const found = await store.get(real.sidOf(sid));
      const live = model.live(sid);
      expect(contentOf(found)).toEqual(live?.content);
      expect(endOf(found)).toBe(live?.end);
      if (found === undefined || live === undefined) return;
      real.inHand.push({ store, object: found });
      model.inHand.push({ sid, life: live.life, seen: live.content });
    }),
  ),
  fc.tuple(sids, contents).map(([sid, content]) =>
    step(`set(${sid}, ${JSON.stringify(content)})`, async (model, real) => {
      const end = model.nextEnd();
      await real.store.set(real.sidOf(sid), sessionUntil(new Date(end), content));
      const session = model.sessions.get(sid);
      if (session === undefined) model.begin(sid, content, end);
      else if (session !== 'ended') model.sessions.set(sid, { ...session, content, end });
    }),
  ),
  fc.tuple(sids, contents).map(([sid, content]) =>
    step(`set(${sid}, generated ${JSON.stringify(content)})`, async (model, real) => {
      const end = model.nextEnd();
      const session = sessionUntil(new Date(end), content);
      const { store } = real;
      // express-session sets and calls `generate` like this.
      Reflect.set(store, 'generate', (request: object) =>
        Object.assign(request, { session, sessionID: real.sidOf(sid) }),
      );
      Reflect.get(store, 'generate')({});
      await store.set(real.sidOf(sid), session);
      model.begin(sid, content, end);
    }),
  ),
  fc.tuple(fc.nat(), keys, values).map(([which, key, value]) =>
    step(
      `set(loaded ${which}, ${key} = ${value})`,
      async (model, real) => {
        const at = which % model.inHand.length;
        const [hand] = model.inHand.splice(at, 1);
        const [read] = real.inHand.splice(at, 1);
        if (hand === undefined || read === undefined) return;
        const live = model.live(hand.sid);
        // Other tests show that two users are never mixed.
        if (live !== undefined && live.content.user !== hand.seen.user) return;
        await read.store.set(real.sidOf(hand.sid), Object.assign(read.object, { [key]: value }));
        if (live?.life !== hand.life || hand.seen[key] === value) return;
        model.sessions.set(hand.sid, { ...live, content: { ...live.content, [key]: value } });
      },
      ({ inHand }) => inHand.length > 0,
    ),
  ),
  sids.map((sid) =>
    step(`destroy(${sid})`, async (model, real) => {
      await real.store.destroy(real.sidOf(sid));
      if (model.sessions.has(sid)) model.sessions.set(sid, 'ended');
    }),
  ),
  fc.tuple(sids, keys, values).map(([sid, key, value]) =>
    step(`update(${sid}, ${key} = ${value})`, async (model, real) => {
      const updated = await real.store.update(real.sidOf(sid), (session) =>
        Object.assign(session, { [key]: value }),
      );
      const live = model.live(sid);
      if (live !== undefined) {
        model.sessions.set(sid, { ...live, content: { ...live.content, [key]: value } });
      }
      expect(contentOf(updated)).toEqual(model.live(sid)?.content);
    }),
  ),
  users.map((user) =>
    step(`revokeUser(${user})`, async (model, real) => {
      const theirs = model.all().filter(([, { content }]) => content.user === user);
      expect(await real.store.revokeUser(user)).toBe(theirs.length);
      for (const [sid] of theirs) model.sessions.set(sid, 'ended');
    }),
  ),
  fc.constant(
    step('length()', async (model, real) => {
      expect(await real.store.length()).toBe(model.all().length);
      expect(await real.store.ids()).toHaveLength(model.all().length);
    }),
  ),
  fc.constant(
    step('clear()', async (model, real) => {
      await real.store.clear();
      model.sessions.clear();
    }),
  ),
];

/** Runs the same steps on each set of statements, and on both in turn on one table. */
test.each([
  ['postgres', ['postgres']],
  ['portable', ['portable']],
  ['both in turn', ['postgres', 'portable']],
] as const)(
  '%s: random calls, one after the other, have the results that a Map has',
  async (_, engines) => {
    const userId = (session: SessionData) => Reflect.get(session, 'user');
    const stores: DrizzleStore[] = [];
    for (const engine of engines) stores.push(await database.store({ engine, userId }));
    let runs = 0;
    await fc.assert(
      fc.asyncProperty(fc.commands(steps, { maxCommands: MAX_PER_RUN }), async (commands) => {
        runs += 1;
        await stores[0]?.clear();
        const setup = () => ({ model: new Model(), real: new Real(stores, `run ${runs}`) });
        await fc.asyncModelRun(setup, commands);
      }),
      { numRuns: 40 },
    );
  },
);
