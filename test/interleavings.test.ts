import { randomUUID } from 'node:crypto';
import { DrizzleStore, idOf } from 'connect-drizzle';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { type Example, startExample } from './support/example.js';
import { type Site, serve } from './support/http.js';
import type { Setup, Step } from './support/script.js';
import { type Scripted, scriptedExpress } from './support/scripted-express.js';
import { scriptedFastify } from './support/scripted-fastify.js';
import { Tab } from './support/tab.js';

const hour = 3_600_000;
const program = 'test/support/scripted-process.ts';

let database: TestDatabase;
let store: DrizzleStore;
const closing: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  database = await freshDatabase();
  store = new DrizzleStore(database.pool(), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
  });
  await store.ready();
});

afterAll(async () => {
  for (const close of closing.splice(0).reverse()) await close();
  await store.close();
  await database.drop();
});

/** Starts the scripted app in another process, on the same database. Returns its URL. */
async function otherProcess(...args: string[]): Promise<string> {
  const example: Example = await startExample(program, {
    args,
    env: { DATABASE_URL: database.url },
  });
  closing.push(() => example.stop());
  return example.url;
}

interface Row {
  live: boolean;
  expires: number;
  data: { cookie: { originalMaxAge: number | null; expires: string | null } } | null;
}

async function rowOf(tab: Tab): Promise<Row | undefined> {
  const [row] = await database.query<Row>(
    `select revoked_at is null and expires_at > now() as live, data,
       round(extract(epoch from expires_at) * 1000)::float8 as expires
     from sessions where id = $1`,
    [idOf(tab.sid)],
  );
  return row;
}

/** Sets the expiry of a session or tombstone to the past. */
async function expire(tab: Tab): Promise<void> {
  await database.query(`update sessions set expires_at = now() - interval '1 s' where id = $1`, [
    idOf(tab.sid),
  ]);
}

async function pruneTombstone(tab: Tab): Promise<void> {
  expect(await rowOf(tab)).toMatchObject({ live: false });
  await expire(tab);
  await store.pruneSessions();
  expect(await rowOf(tab)).toBeUndefined();
}

/** The URLs to which the slow and the quick request of an interleaving go. */
type Places = () => { slowUrl: string; quickUrl: string };

/** A browser with a session, its tabs on both URLs, and a function that reads the session. */
async function visitor(places: Places, content: object, setup: Setup = {}) {
  const { slowUrl, quickUrl } = places();
  const first = new Tab(slowUrl, setup);
  await first.run(...stepsFor(content));
  return {
    slow: first.another(),
    quick: first.another(quickUrl),
    tab: (url = slowUrl) => first.another(url),
    look: () => seenBy(first, places),
  };
}

function stepsFor(content: object): Step[] {
  return Object.entries(content).map(([key, value]) => ['set', key, value]);
}

/** The session that new requests with a tab's cookie see, which must be the same on both URLs; `{}` if it has ended. */
async function seenBy(tab: Tab, places: Places): Promise<unknown> {
  const { slowUrl, quickUrl } = places();
  const { session } = await tab.another(slowUrl).run();
  const { session: other } = await tab.another(quickUrl).run();
  expect(other).toEqual(session);
  return session;
}

describe('Express', () => {
  let site: Site;
  let otherUrl: string;

  beforeAll(async () => {
    const scripted = scriptedExpress(database.pool());
    closing.push(() => scripted.close());
    site = await serve(scripted.app);
    closing.push(() => site.close());
    otherUrl = await otherProcess('express');
  });

  describe.each<[string, Places]>([
    ['one process', () => ({ slowUrl: site.url, quickUrl: site.url })],
    ['two processes', () => ({ slowUrl: site.url, quickUrl: otherUrl })],
  ])('in %s', (_, places) => {
    interface Interleaving {
      readonly before: object;
      readonly slow: Step[];
      readonly quick: Step[];
      readonly after: object;
    }

    const interleavings: Record<string, Interleaving> = {
      'changes of different keys are both kept': {
        before: { a: 1, b: 1 },
        slow: [['set', 'a', 2]],
        quick: [['set', 'b', 2]],
        after: { a: 2, b: 2 },
      },
      'of two changes of one key, the last save wins': {
        before: { a: 1, b: 1 },
        slow: [['set', 'a', 'slow']],
        quick: [['set', 'a', 'quick']],
        after: { a: 'slow', b: 1 },
      },
      'changes of different nested keys are both kept': {
        before: { deep: { x: 1, y: 1, deeper: { z: 1 } } },
        slow: [['set', 'deep.x', 2]],
        quick: [
          ['set', 'deep.y', 2],
          ['set', 'deep.deeper.z', 2],
        ],
        after: { deep: { x: 2, y: 2, deeper: { z: 2 } } },
      },
      'two objects created under one key are merged': {
        before: { a: 1 },
        slow: [['set', 'cart', { tea: 1 }]],
        quick: [['set', 'cart', { nuts: 2 }]],
        after: { a: 1, cart: { tea: 1, nuts: 2 } },
      },
      'elements that both requests append to an array are kept': {
        before: { list: [0] },
        slow: [['push', 'list', 'slow']],
        quick: [['push', 'list', 'quick']],
        after: { list: [0, 'quick', 'slow'] },
      },
      'arrays that only one of the requests changed keep the change': {
        before: { one: [0], two: [0] },
        slow: [['push', 'one', 1]],
        quick: [['push', 'two', 2]],
        after: { one: [0, 1], two: [0, 2] },
      },
      'deletions of different keys are both kept': {
        before: { a: 1, b: 1, c: 1 },
        slow: [['delete', 'a']],
        quick: [['delete', 'b']],
        after: { c: 1 },
      },
      'a key that the slow request deletes and the quick one changes is deleted': {
        before: { a: 1, b: 1 },
        slow: [['delete', 'a']],
        quick: [['set', 'a', 2]],
        after: { b: 1 },
      },
      'a key that the quick request deletes and the slow one changes keeps the change': {
        before: { a: 1, b: 1 },
        slow: [['set', 'a', 2]],
        quick: [['delete', 'a']],
        after: { a: 2, b: 1 },
      },
      'a key that the quick request deletes stays deleted if the slow one changes another key': {
        before: { a: 1, b: 1 },
        slow: [['set', 'b', 2]],
        quick: [['delete', 'a']],
        after: { b: 2 },
      },
      'a log-out by `delete req.session.user` holds against a slow `user.lastSeen = …`': {
        before: { user: { name: 'ada' }, theme: 'dark' },
        slow: [['set', 'user.lastSeen', 1]],
        quick: [['delete', 'user']],
        after: { theme: 'dark' },
      },
      'a log-out by `req.session.user = null` holds against a slow `user.lastSeen = …`': {
        before: { user: { name: 'ada' }, theme: 'dark' },
        slow: [['set', 'user.lastSeen', 1]],
        quick: [['set', 'user', null]],
        after: { user: null, theme: 'dark' },
      },
      'a slow log-out by `delete req.session.user` holds against a quick `user.lastSeen = …`': {
        before: { user: { name: 'ada' }, theme: 'dark' },
        slow: [['delete', 'user']],
        quick: [['set', 'user.lastSeen', 1]],
        after: { theme: 'dark' },
      },
      'a role that was removed does not come back with the slow save of another key': {
        before: { roles: ['user', 'admin'], user: { name: 'ada', admin: true } },
        slow: [
          ['set', 'page', 7],
          ['set', 'user.lastSeen', 1],
        ],
        quick: [
          ['set', 'roles', ['user']],
          ['delete', 'user.admin'],
        ],
        after: { roles: ['user'], user: { name: 'ada', lastSeen: 1 }, page: 7 },
      },
    };

    const names = Object.keys(interleavings);
    const setups: [string, Setup][] = [
      ['resave: false', {}],
      ['resave: true, rolling: true', { resave: true, rolling: true, maxAge: hour }],
    ];

    describe.each(setups)('with %s', (_name, setup) => {
      test.each(names)('%s', async (name) => {
        const { before, slow, quick, after } = interleavings[name] ?? ({} as Interleaving);
        const tabs = await visitor(places, before, setup);
        const running = await tabs.slow.begin(['wait'], ...slow);
        await tabs.quick.run(...quick);
        await running.end();
        expect(await tabs.look()).toEqual(after);
      });
    });

    test('two concurrent requests keep both changes, whichever saves first', async () => {
      for (const order of [0, 1]) {
        const tabs = await visitor(places, { n: 0 });
        const one = await tabs.slow.begin(['wait'], ['set', 'one', 1]);
        const two = await tabs.quick.begin(['wait'], ['set', 'two', 2]);
        for (const running of order === 0 ? [one, two] : [two, one]) await running.end();
        expect(await tabs.look()).toEqual({ n: 0, one: 1, two: 2 });
      }
    });

    test('twenty concurrent requests lose no change', async () => {
      const tabs = await visitor(places, { n: 0 });
      const { slowUrl, quickUrl } = places();
      const running = await Promise.all(
        Array.from({ length: 20 }, (_empty, at) =>
          tabs
            .tab(at % 2 === 0 ? slowUrl : quickUrl)
            .begin(['wait'], ['set', `key${at}`, at], ['set', 'last', at]),
        ),
      );
      await Promise.all(running.map((each) => each.end()));
      const expected = Array.from({ length: 20 }, (_empty, at) => [`key${at}`, at]);
      expect(await tabs.look()).toEqual({
        n: 0,
        last: expect.any(Number),
        ...Object.fromEntries(expected),
      });
    });

    test('two increments of a counter count once in a merge, and twice with update()', async () => {
      const tabs = await visitor(places, { count: 0 });
      const slow = await tabs.slow.begin(['wait'], ['set', 'count', 1]);
      await tabs.quick.run(['set', 'count', 1]);
      await slow.end();
      expect(await tabs.look()).toEqual({ count: 1 });
      const adding = await tabs.slow.begin(['wait'], ['add', 'count', 1]);
      await tabs.quick.run(['add', 'count', 1]);
      await adding.end();
      expect(await tabs.look()).toEqual({ count: 3 });
    });

    test('a request that saves several times, with other saves in between, loses no change', async () => {
      const tabs = await visitor(places, { gone: 1 });
      const slow = await tabs.slow.begin(
        ['wait'],
        ['set', 'a', 1],
        ['save'],
        ['wait'],
        ['set', 'a', 2],
        ['set', 'b', 1],
        ['save'],
        ['wait'],
        ['set', 'c', 1],
      );
      await slow.next();
      await tabs.quick.run(['set', 'x', 1], ['delete', 'gone']);
      await slow.next();
      await tabs.quick.run(['set', 'y', 1], ['delete', 'b']);
      await slow.end();
      expect(await tabs.look()).toEqual({ a: 2, c: 1, x: 1, y: 1 });
    });

    test('reload() loads the changes of other requests, and only later changes count as this request’s', async () => {
      const tabs = await visitor(places, { a: 1, b: 1 });
      const slow = await tabs.slow.begin(
        ['wait'],
        ['set', 'a', 'unsaved'],
        ['reload'],
        ['wait'],
        ['set', 'c', 1],
      );
      await tabs.quick.run(['set', 'b', 2]);
      await slow.next();
      await tabs.quick.run(['set', 'a', 3]);
      expect((await slow.end()).session).toEqual({ a: 1, b: 2, c: 1 });
      expect(await tabs.look()).toEqual({ a: 3, b: 2, c: 1 });
    });

    test('reload() after a log-out fails, and a later save of the request writes nothing', async () => {
      const tabs = await visitor(places, { user: 'ada' });
      const slow = await tabs.slow.begin(['wait'], ['reload'], ['set', 'a', 1], ['save']);
      await tabs.quick.run(['destroy']);
      expect((await slow.end()).errors).toEqual(['failed to load session']);
      expect(await tabs.look()).toEqual({});
    });

    interface Ending {
      readonly setup?: Setup;
      readonly first?: Step[];
      readonly last?: Step[];
    }

    const endings: Record<string, Ending> = {
      'saves a change': { last: [['set', 'a', 1]] },
      'saves several times': {
        last: [['set', 'a', 1], ['save'], ['set', 'a', 2], ['save'], ['set', 'a', 3]],
      },
      'only touches': {},
      'changes the cookie’s lifetime': { last: [['maxAge', 30 * 24 * hour]] },
      'ends with resave: true': { setup: { resave: true } },
      'ends with rolling: true': { setup: { rolling: true, maxAge: hour } },
      'saves with resave: true and rolling: true': {
        setup: { resave: true, rolling: true, maxAge: hour },
        last: [['set', 'a', 1]],
      },
      'is a stream that saves at its end': { first: [['write']], last: [['set', 'a', 1]] },
      'is a stream that touches at its end': {
        setup: { rolling: true, maxAge: hour },
        first: [['write']],
      },
    };

    describe.each([
      ['whose tombstone exists', false],
      ['whose tombstone was pruned', true],
    ])('a logged-out session %s stays logged out if a slow request', (_when, isPruned) => {
      test.each(Object.keys(endings))('%s', async (name) => {
        const { setup = {}, first = [], last = [] } = endings[name] ?? {};
        const tabs = await visitor(places, { user: 'ada' }, setup);
        const slow = await tabs.slow.begin(...first, ['wait'], ...last);
        await tabs.quick.run(['destroy']);
        if (isPruned) await pruneTombstone(tabs.tab());
        expect((await slow.end()).errors).toEqual([]);
        expect(await tabs.look()).toEqual({});
        const row = await rowOf(tabs.tab());
        if (isPruned) expect(row).toBeUndefined();
        else expect(row).toMatchObject({ live: false, data: null });
      });
    });

    test('a log-out by `req.session = null` with unset: destroy holds like one by destroy()', async () => {
      const tabs = await visitor(places, { user: 'ada' }, { unset: 'destroy' });
      const slow = await tabs.slow.begin(['wait'], ['set', 'a', 1]);
      await tabs.quick.run(['unset']);
      await slow.end();
      expect(await tabs.look()).toEqual({});
    });

    test('a log-out holds against the second save of a slow request', async () => {
      const tabs = await visitor(places, { user: 'ada' });
      const slow = await tabs.slow.begin(
        ['wait'],
        ['set', 'a', 1],
        ['save'],
        ['wait'],
        ['set', 'a', 2],
      );
      await slow.next();
      expect(await tabs.look()).toEqual({ user: 'ada', a: 1 });
      await tabs.quick.run(['destroy']);
      await slow.end();
      expect(await tabs.look()).toEqual({});
    });

    test.each(Object.keys(endings))(
      'after regenerate(), the old sid stays ended if a slow request %s',
      async (name) => {
        const { setup = {}, first = [], last = [] } = endings[name] ?? {};
        const tabs = await visitor(places, { cart: 1 }, setup);
        // An attacker who fixed or stole the sid before the log-in has the old one.
        const old = tabs.tab();
        const slow = await tabs.slow.begin(...first, ['wait'], ...last);
        await tabs.quick.run(['regenerate'], ['set', 'user', 'ada']);
        await slow.end();
        expect(tabs.quick.sid).not.toBe(old.sid);
        expect(await seenBy(tabs.quick, places)).toEqual({ user: 'ada' });
        expect(await seenBy(old, places)).toEqual({});
        expect(await rowOf(old)).toMatchObject({ live: false, data: null });
      },
    );

    test('the log-in of another user in the same session is not mixed with the changes of a slow request', async () => {
      const tabs = await visitor(places, { user: 'ada', cart: ['hers'] }, { userKey: 'user' });
      const slow = await tabs.slow.begin(['wait'], ['set', 'address', 'hers']);
      await tabs.quick.run(['set', 'user', 'bob'], ['set', 'cart', []]);
      await slow.end();
      expect(await tabs.look()).toEqual({ user: 'bob', cart: [] });
    });

    test('a log-in during a slow anonymous request keeps the changes of both', async () => {
      const tabs = await visitor(places, { page: 1 }, { userKey: 'user' });
      const slow = await tabs.slow.begin(['wait'], ['set', 'page', 2]);
      await tabs.quick.run(['set', 'user', 'ada']);
      await slow.end();
      expect(await tabs.look()).toEqual({ user: 'ada', page: 2 });
    });

    describe('“remember me”, which changes only the cookie’s lifetime,', () => {
      const remembered = 30 * 24 * hour;

      /** express-session computes `originalMaxAge` from two readings of the clock, so it can be some milliseconds shorter. */
      const expectRemembered = (row: Awaited<ReturnType<typeof rowOf>>) => {
        expect(row?.data?.cookie.originalMaxAge).toBeLessThanOrEqual(remembered);
        expect(row?.data?.cookie.originalMaxAge).toBeGreaterThan(remembered - 60_000);
        expect(row?.expires).toBeGreaterThan(Date.now() + remembered - hour);
      };

      test.each<[string, Step[]]>([
        ['saves another key', [['set', 'a', 1]]],
        ['only touches', []],
      ])('holds against a slow request that %s', async (_what, last) => {
        const tabs = await visitor(places, { user: 'ada' }, { maxAge: hour });
        const slow = await tabs.slow.begin(['wait'], ...last);
        await tabs.quick.run(['maxAge', remembered]);
        await slow.end();
        const row = await rowOf(tabs.tab());
        expectRemembered(row);
      });

      test('in a slow request holds against a quick one that saves another key', async () => {
        const tabs = await visitor(places, { user: 'ada' }, { maxAge: hour });
        const slow = await tabs.slow.begin(['wait'], ['maxAge', remembered]);
        await tabs.quick.run(['set', 'a', 1]);
        await slow.end();
        const row = await rowOf(tabs.tab());
        expectRemembered(row);
        expect(await tabs.look()).toEqual({ user: 'ada', a: 1 });
      });

      test('that is turned off stays off against a slow request that saves another key', async () => {
        const tabs = await visitor(places, { user: 'ada' }, { maxAge: remembered });
        const slow = await tabs.slow.begin(['wait'], ['set', 'a', 1]);
        await tabs.quick.run(['maxAge', null]);
        await slow.end();
        const row = await rowOf(tabs.tab());
        expect(row?.data?.cookie).toMatchObject({ originalMaxAge: null, expires: null });
      });
    });

    test('a session that expires during a request is saved with the changes of the request', async () => {
      const tabs = await visitor(places, { user: 'ada' }, { maxAge: hour });
      const slow = await tabs.slow.begin(['wait'], ['set', 'a', 1]);
      await expire(tabs.tab());
      expect(await tabs.look()).toEqual({});
      await slow.end();
      expect(await tabs.look()).toEqual({ user: 'ada', a: 1 });
    });

    test('a session that expires during a request is not revived by its touch', async () => {
      const tabs = await visitor(places, { user: 'ada' }, { maxAge: hour });
      const slow = await tabs.slow.begin(['wait']);
      await expire(tabs.tab());
      await slow.end();
      expect(await tabs.look()).toEqual({});
    });

    test('a stream that set the expiry at its start does not shorten a session that was used since', async () => {
      const tabs = await visitor(places, { user: 'ada' }, { rolling: true, maxAge: hour });
      const stream = await tabs.slow.begin(['write'], ['wait']);
      await tabs.quick.run(['set', 'a', 1]);
      // As if the session had been used during the next hour.
      const later = Date.now() + 2 * hour;
      await database.query('update sessions set expires_at = to_timestamp($1) where id = $2', [
        later / 1000,
        idOf(tabs.tab().sid),
      ]);
      await stream.end();
      expect((await rowOf(tabs.tab()))?.expires).toBe(later);
    });

    describe('if genid reuses a sid after a log-out,', () => {
      test.each(
        [false, true].flatMap((isPruned) =>
          Object.keys(endings).map((name): [string, string, boolean] => [
            isPruned ? 'after' : 'before',
            name,
            isPruned,
          ]),
        ),
      )(
        '%s the tombstone is pruned, a slow request of the old session does not change the new one if it %s',
        async (_when, name, isPruned) => {
          const { setup = {}, first = [], last = [] } = endings[name] ?? {};
          const sid = randomUUID();
          const tabs = await visitor(places, { user: 'ada' }, { ...setup, sid });
          const slow = await tabs.slow.begin(...first, ['wait'], ...last);
          await tabs.quick.run(['destroy']);
          if (isPruned) await pruneTombstone(tabs.tab());
          const second = new Tab(places().quickUrl, { ...setup, sid });
          await second.run(['set', 'user', 'bob']);
          expect(second.sid).toBe(sid);
          const before = await rowOf(second);
          await slow.end();
          expect(await rowOf(second)).toEqual(before);
          expect(await tabs.look()).toEqual({ user: 'bob' });
        },
      );
    });
  });
});

// @fastify/session copies sessions, so to the store its objects are foreign. These tests show what holds
// nevertheless, and what does not.
describe('@fastify/session', () => {
  let url: string;
  let otherUrl: string;

  const listen = async (setup?: Setup) => {
    const scripted: Scripted<{ listen(at: object): Promise<string> }> = await scriptedFastify(
      database.pool(),
      setup,
    );
    closing.push(() => scripted.close());
    return scripted.app.listen({ host: '127.0.0.1', port: 0 });
  };

  beforeAll(async () => {
    url = await listen();
    otherUrl = await otherProcess('fastify');
  });

  describe.each<[string, Places]>([
    ['one process', () => ({ slowUrl: url, quickUrl: url })],
    ['two processes', () => ({ slowUrl: url, quickUrl: otherUrl })],
  ])('in %s', (_, places) => {
    const endings: Record<string, Step[]> = {
      'saves a change': [['set', 'a', 1]],
      'saves several times': [
        ['set', 'a', 1],
        ['save'],
        ['set', 'a', 2],
        ['save'],
        ['set', 'a', 3],
      ],
      'changes nothing': [],
    };

    test.each(Object.keys(endings))(
      'a logged-out session stays logged out if a slow request %s',
      async (name) => {
        const tabs = await visitor(places, { user: 'ada' });
        const slow = await tabs.slow.begin(['wait'], ...(endings[name] ?? []));
        await tabs.quick.run(['destroy']);
        expect((await slow.end()).errors).toEqual([]);
        expect(await tabs.look()).toEqual({});
        expect(await rowOf(tabs.tab())).toMatchObject({ live: false, data: null });
      },
    );

    test.each(Object.keys(endings))(
      'after regenerate(), the old sid stays ended if a slow request %s',
      async (name) => {
        const tabs = await visitor(places, { cart: 1 });
        const old = tabs.tab();
        const slow = await tabs.slow.begin(['wait'], ...(endings[name] ?? []));
        await tabs.quick.run(['regenerate'], ['set', 'user', 'ada']);
        await slow.end();
        expect(tabs.quick.sid).not.toBe(old.sid);
        expect(await seenBy(tabs.quick, places)).toEqual({ user: 'ada' });
        expect(await seenBy(old, places)).toEqual({});
      },
    );

    test('a log-out no longer holds against a slow request once its tombstone was pruned', async () => {
      const tabs = await visitor(places, { user: 'ada' });
      const slow = await tabs.slow.begin(['wait'], ['set', 'a', 1]);
      await tabs.quick.run(['destroy']);
      await pruneTombstone(tabs.tab());
      await slow.end();
      expect(await tabs.look()).toEqual({ user: 'ada', a: 1 });
    });

    test('of two concurrent requests, the last save replaces the whole session', async () => {
      const tabs = await visitor(places, { a: 1, b: 1, roles: ['admin'] });
      const slow = await tabs.slow.begin(['wait'], ['set', 'a', 2]);
      await tabs.quick.run(['set', 'b', 2], ['set', 'roles', []]);
      await slow.end();
      expect(await tabs.look()).toEqual({ a: 2, b: 1, roles: ['admin'] });
    });

    test('a request that changed nothing does not overwrite the change of another', async () => {
      const tabs = await visitor(places, { a: 1 });
      const slow = await tabs.slow.begin(['wait']);
      await tabs.quick.run(['set', 'a', 2]);
      await slow.end();
      expect(await tabs.look()).toEqual({ a: 2 });
    });

    test('reload() before a change loads the earlier changes of other requests, so that they are kept', async () => {
      const tabs = await visitor(places, { a: 1, b: 1 });
      const slow = await tabs.slow.begin(['wait'], ['reload'], ['set', 'a', 2]);
      await tabs.quick.run(['set', 'b', 2]);
      await slow.end();
      expect(await tabs.look()).toEqual({ a: 2, b: 2 });
    });

    test('the saves of a request after its first are merged', async () => {
      const tabs = await visitor(places, { a: 1 });
      const slow = await tabs.slow.begin(
        ['wait'],
        ['set', 'a', 2],
        ['save'],
        ['wait'],
        ['set', 'a', 3],
      );
      await slow.next();
      await tabs.quick.run(['set', 'b', 1]);
      await slow.end();
      expect(await tabs.look()).toEqual({ a: 3, b: 1 });
    });

    test('concurrent calls of update() lose no change', async () => {
      const tabs = await visitor(places, { count: 0 });
      const { slowUrl, quickUrl } = places();
      await Promise.all(
        Array.from({ length: 10 }, (_empty, at) =>
          tabs.tab(at % 2 === 0 ? slowUrl : quickUrl).run(['add', 'count', 1]),
        ),
      );
      expect(await tabs.look()).toEqual({ count: 10 });
    });

    test('a session that expires during a request is saved with the changes of the request', async () => {
      const tabs = await visitor(places, { user: 'ada' });
      const slow = await tabs.slow.begin(['wait'], ['set', 'a', 1]);
      await expire(tabs.tab());
      await slow.end();
      expect(await tabs.look()).toEqual({ user: 'ada', a: 1 });
    });
  });

  test('with rolling: true, every request saves, and a log-out holds against it', async () => {
    const rolling = await listen({ rolling: true, maxAge: hour });
    const places = () => ({ slowUrl: rolling, quickUrl: rolling });
    const tabs = await visitor(places, { user: 'ada' });
    const slow = await tabs.slow.begin(['wait']);
    await tabs.quick.run(['destroy']);
    await slow.end();
    expect(await tabs.look()).toEqual({});
  });

  test('with rolling: true, a request that changed nothing overwrites the change of another', async () => {
    const rolling = await listen({ rolling: true, maxAge: hour });
    const places = () => ({ slowUrl: rolling, quickUrl: rolling });
    const tabs = await visitor(places, { user: 'ada', a: 1 });
    const slow = await tabs.slow.begin(['wait']);
    await tabs.quick.run(['set', 'a', 2]);
    await slow.end();
    expect(await tabs.look()).toEqual({ user: 'ada', a: 1 });
  });

  test('a sid that idGenerator reuses works once the tombstone was pruned', async () => {
    const again = await listen({ sid: randomUUID() });
    const places = () => ({ slowUrl: again, quickUrl: again });
    const tabs = await visitor(places, { user: 'ada' });
    await tabs.quick.run(['destroy']);
    await new Tab(again).run(['set', 'user', 'bob']);
    expect(await tabs.look()).toEqual({});
    await pruneTombstone(tabs.tab());
    await new Tab(again).run(['set', 'user', 'bob']);
    expect(await tabs.look()).toEqual({ user: 'bob' });
  });
});
