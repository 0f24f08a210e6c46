/**
 * Runs the same tests on express-session's own MemoryStore, which is the reference, and on this store with every
 * source: with callbacks, and over HTTP through express-session.
 */
import { DrizzleStore, idOf } from 'connect-drizzle';
import express, { type Request, type Response } from 'express';
import session, { type SessionOptions } from 'express-session';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { type Browser, type Site, serve } from './support/http.js';
import {
  asSession,
  callbacksOf,
  contentOf,
  endOf,
  type FullStore,
  promised,
  sessionUntil,
  sessionWith,
  timeOf,
} from './support/sessions.js';
import { type OpenSource, sources } from './support/sources.js';
import { isPortable } from './support/statement-set.js';

/** A moment on the clock of the process, within a second in which a session may end. */
const NOON = Date.UTC(2031, 4, 6, 12, 0, 0, 123);

function setClock(time: number): void {
  vi.useFakeTimers({ toFake: ['Date'], now: time });
}

/** The store under test, its callbacks as promises, and the key of a session in `all()`. */
let store: FullStore;
let calls: ReturnType<typeof callbacksOf>;
let keyOf: (sid: string) => string;

function use(subject: FullStore, key: (sid: string) => string): void {
  store = subject;
  calls = callbacksOf(subject);
  keyOf = key;
}

afterEach(() => vi.useRealTimers());

describe('MemoryStore', () => {
  beforeAll(() => use(new session.MemoryStore(), (sid) => sid));
  contract();
  overHttp();
});

describe.each(Object.entries(sources))('DrizzleStore on %s', (_, open) => {
  let source: OpenSource;
  beforeAll(async () => {
    source = await open();
    use(source.store, idOf);
  });
  afterAll(() => source.close());
  contract();
  overHttp();
  beyondMemoryStore(() => source.store);
});

function contract() {
  afterEach(async () => {
    await closeSites();
    await calls.clear();
  });

  describe('with callbacks', () => {
    test('returns what was set', async () => {
      await calls.set('sid', sessionWith({ visits: 1, cart: { apples: [1, 2] } }));
      expect(contentOf(await calls.get('sid'))).toEqual({ visits: 1, cart: { apples: [1, 2] } });
    });

    test('returns no session, and no error, for an unknown sid', async () => {
      expect(await calls.get('unknown')).toBeUndefined();
      expect(await calls.load('unknown')).toBeUndefined();
      await calls.touch('unknown', sessionWith());
      await calls.destroy('unknown');
      expect(await calls.length()).toBe(0);
    });

    test('returns the cookie exactly as it was set', async () => {
      const cookie = new session.Cookie();
      Object.assign(cookie, {
        path: '/shop',
        domain: 'example.org',
        secure: true,
        sameSite: 'none',
        partitioned: true,
        priority: 'high',
        maxAge: 90_000,
      });
      const written = JSON.parse(JSON.stringify(cookie));
      await calls.set('sid', { ...sessionWith(), cookie });
      expect((await calls.get('sid'))?.cookie).toEqual(written);
    });

    test('replaces the whole session when it is set again', async () => {
      await calls.set('sid', sessionWith({ one: 1, both: 1 }));
      await calls.set('sid', sessionWith({ two: 2, both: 2 }));
      expect(contentOf(await calls.get('sid'))).toEqual({ two: 2, both: 2 });
    });

    test('saves a session as it is at the call', async () => {
      const data = { list: [1] };
      const given = sessionWith({ data });
      // The second call waits for the first one.
      const saves = [calls.set('sid', sessionWith()), calls.set('sid', given)];
      data.list.push(2);
      Object.assign(given, { later: true });
      await Promise.all(saves);
      expect(contentOf(await calls.get('sid'))).toEqual({ data: { list: [1] } });
    });

    test('returns a new object to every caller', async () => {
      await calls.set('sid', sessionWith({ list: [1] }));
      const [one, other] = await Promise.all([calls.get('sid'), calls.get('sid')]);
      expect(one).toEqual(other);
      expect(one).not.toBe(other);
      Object.assign(one ?? {}, { list: [2] });
      expect(contentOf(other)).toEqual({ list: [1] });
      expect(contentOf(await calls.get('sid'))).toEqual({ list: [1] });
    });

    test('calls that nobody awaits take effect in order', async () => {
      const saves = ['a', 'b', 'c'].map((name) => calls.set('sid', sessionWith({ name })));
      const seen = calls.get('sid');
      const ended = calls.destroy('sid');
      const after = calls.get('sid');
      await Promise.all([...saves, ended]);
      expect(contentOf(await seen)).toEqual({ name: 'c' });
      expect(await after).toBeUndefined();
    });

    test('counts and lists sessions that were set and ended before, even if nobody awaited it', async () => {
      const sids = ['a', 'b', 'c', 'd', 'e', 'f'];
      for (const sid of sids) store.set(sid, sessionWith({ sid }), () => {});
      expect(await calls.length()).toBe(6);
      for (const sid of sids) store.set(sid, sessionWith({ sid: `${sid} again` }), () => {});
      store.destroy('a', () => {});
      store.destroy('b', () => {});
      const all = new Map(Object.entries(await calls.all()));
      expect(contentOf(all.get(keyOf('c')))).toEqual({ sid: 'c again' });
      expect(all.size).toBe(4);
      for (const sid of sids) store.set(sid, sessionWith(), () => {});
      await calls.clear();
      expect(await calls.length()).toBe(0);
    });

    test('treats a numeric sid like the same string', async () => {
      const sid = 5 as unknown as string;
      await calls.set(sid, sessionWith({ name: 'five' }, 60));
      expect(contentOf(await calls.get('5'))).toEqual({ name: 'five' });
      await calls.set('5', sessionWith({ name: 'changed' }, 60));
      expect(contentOf(await calls.get(sid))).toEqual({ name: 'changed' });
      const later = sessionWith({ name: 'changed' }, 7200);
      await calls.touch(sid, later);
      expect(endOf(await calls.get('5'))).toBe(endOf(later));
      expect(await calls.get(6 as unknown as string)).toBeUndefined();
      await calls.destroy(sid);
      expect(await calls.get('5')).toBeUndefined();
      await calls.set(Number.NaN as unknown as string, sessionWith({ name: 'no number' }));
      expect(contentOf(await calls.get('NaN'))).toEqual({ name: 'no number' });
    });

    test('ends one session and leaves the others', async () => {
      await calls.set('one', sessionWith({ name: 'one' }));
      await calls.set('two', sessionWith({ name: 'two' }));
      await calls.destroy('one');
      await calls.destroy('one');
      expect(await calls.get('one')).toBeUndefined();
      expect(contentOf(await calls.get('two'))).toEqual({ name: 'two' });
    });

    test('lists, counts and clears the live sessions', async () => {
      setClock(NOON);
      await calls.set('one', sessionWith({ name: 'one' }));
      await calls.set('two', sessionWith({ name: 'two' }));
      await calls.set('endless', sessionWith({ name: 'endless' }, null));
      await calls.set('ended', sessionWith({ name: 'ended' }));
      await calls.set('short', sessionWith({ name: 'short' }, 60));
      await calls.destroy('ended');
      setClock(NOON + 60_000);
      const found = Object.entries(await calls.all());
      expect(found.map(([key, data]) => [key, contentOf(data)])).toEqual(
        expect.arrayContaining(['one', 'two', 'endless'].map((name) => [keyOf(name), { name }])),
      );
      expect(found).toHaveLength(3);
      expect(await calls.length()).toBe(3);
      await calls.clear();
      expect(await calls.all()).toEqual({});
      expect(await calls.length()).toBe(0);
      expect(await calls.get('one')).toBeUndefined();
    });

    test('moves only the expiry in a touch', async () => {
      setClock(NOON);
      await calls.set('sid', sessionWith({ name: 'as set' }, 60));
      await calls.touch('sid', sessionWith({ name: 'as touched' }, 120));
      const found = await calls.get('sid');
      expect(contentOf(found)).toEqual({ name: 'as set' });
      expect(endOf(found)).toBe(NOON + 120_000);
      setClock(NOON + 119_999);
      expect(await calls.get('sid')).toBeDefined();
      setClock(NOON + 120_000);
      expect(await calls.get('sid')).toBeUndefined();
    });

    test('brings back no session in a touch', async () => {
      setClock(NOON);
      await calls.set('destroyed', sessionWith());
      await calls.destroy('destroyed');
      await calls.set('expired', sessionWith({}, 60));
      setClock(NOON + 60_000);
      for (const sid of ['destroyed', 'expired', 'unknown']) {
        await calls.touch(sid, sessionWith({}, 3600));
        expect(await calls.get(sid), sid).toBeUndefined();
      }
    });

    test('ends a session in the same millisecond as its cookie', async () => {
      setClock(NOON);
      const ends = [1, 2, 499, 500, 999, 1000, 1001, 86_399_999].map((ms) => NOON + ms);
      for (const end of ends) await calls.set(`ends ${end}`, sessionUntil(new Date(end)));
      for (const end of ends) {
        setClock(end - 1);
        expect(endOf(await calls.get(`ends ${end}`))).toBe(end);
        setClock(end);
        expect(await calls.get(`ends ${end}`)).toBeUndefined();
        expect(await calls.length()).toBe(ends.length - 1 - ends.indexOf(end));
      }
    });

    test('accepts the expiry of a cookie as a date or a string', async () => {
      const end = NOON + 61_007;
      setClock(NOON);
      await calls.set('date', sessionUntil(new Date(end)));
      await calls.set('text', sessionUntil(new Date(end).toISOString()));
      for (const sid of ['date', 'text']) {
        setClock(end - 1);
        expect((await calls.get(sid))?.cookie.expires).toBe(new Date(end).toISOString());
        setClock(end);
        expect(await calls.get(sid)).toBeUndefined();
      }
    });

    test('stores no session whose cookie had expired when it was set', async () => {
      await calls.set('sid', sessionUntil(new Date(Date.now() - 1)));
      expect(await calls.get('sid')).toBeUndefined();
    });

    test('keeps a session whose cookie has no expiry, and adds none', async () => {
      setClock(NOON);
      await calls.set('sid', sessionWith({ name: 'endless' }, null));
      setClock(NOON + 3_600_000);
      const found = await calls.get('sid');
      expect(contentOf(found)).toEqual({ name: 'endless' });
      expect(found?.cookie.expires).toBeNull();
      await calls.touch('sid', sessionWith({}, null));
      expect((await calls.get('sid'))?.cookie.expires).toBeNull();
    });

    test('returns a session as it is after JSON.stringify and JSON.parse', async () => {
      const data = {
        date: new Date(NOON),
        none: undefined,
        nan: Number.NaN,
        list: [undefined, null, [], {}],
        own: { toJSON: () => 'its own text' },
        // biome-ignore lint/complexity/useLiteralKeys: a key that is like no name
        ['']: 'no name',
        emoji: '👩‍👩‍👧',
        controls: '\u0000\u0001\u001f\u007f\u2028',
        lone: '\ud800 \udc00',
        number: 1e21,
        tiny: 5e-324,
      };
      await calls.set('sid', sessionWith(data));
      expect(contentOf(await calls.get('sid'))).toEqual(JSON.parse(JSON.stringify(data)));
    });

    test('distinguishes similar sids, and accepts any string', async () => {
      const sids = [
        '__proto__',
        'constructor',
        'a',
        'A',
        ' a',
        'a\u0000',
        'ä',
        'a\u0308',
        "'",
        '"',
      ];
      // The one as UTF-8 and the other as UTF-16 are the same bytes.
      sids.push('A\u0600\0', '\ud841\u0080');
      sids.push('\\', '%', '👻', '\ud800', '{"$ne":null}', 'a'.repeat(1_000_000));
      await Promise.all(sids.map((sid, at) => calls.set(sid, sessionWith({ at }))));
      const found = await Promise.all(sids.map((sid) => calls.get(sid)));
      expect(found.map(contentOf)).toEqual(sids.map((_sid, at) => ({ at })));
      expect(await calls.length()).toBe(sids.length);
    });

    test('never calls a callback before the call has returned', async () => {
      const outcomes: string[] = [];
      const call = (name: string, send: (done: () => void) => void) =>
        promised<void>((done) => {
          let returned = false;
          send(() => {
            outcomes.push(`${name} ${returned}`);
            done();
          });
          returned = true;
        });
      await call('set', (done) => store.set('sid', sessionWith(), done));
      await call('touch', (done) => store.touch('sid', sessionWith(), done));
      await call('get', (done) => store.get('sid', done));
      await call('get', (done) => store.get('unknown', done));
      await call('all', (done) => store.all(done));
      await call('length', (done) => store.length(done));
      await call('destroy', (done) => store.destroy('sid', done));
      await call('clear', (done) => store.clear(done));
      const names = ['set', 'touch', 'get', 'get', 'all', 'length', 'destroy', 'clear'];
      expect(outcomes).toEqual(names.map((name) => `${name} true`));
    });

    test('accepts calls without a callback', async () => {
      store.set('sid', sessionWith({ name: 'kept' }));
      store.touch('sid', sessionWith());
      expect(contentOf(await calls.get('sid'))).toEqual({ name: 'kept' });
      store.destroy('sid');
      expect(await calls.get('sid')).toBeUndefined();
      await calls.set('sid', sessionWith());
      store.clear();
      await expect.poll(() => calls.length()).toBe(0);
    });

    test('loads a Session of express-session', async () => {
      const end = new Date(Date.now() + 61_007);
      await calls.set('sid', sessionUntil(end, { name: 'loaded' }));
      const loaded = await calls.load('sid');
      expect(loaded).toBeInstanceOf(session.Session);
      expect(loaded).toMatchObject({ id: 'sid', name: 'loaded' });
      expect(loaded?.cookie).toBeInstanceOf(session.Cookie);
      expect(loaded?.cookie.expires).toEqual(end);
    });
  });
}

function overHttp() {
  describe('over HTTP', () => {
    test('keeps a session of each browser from request to request', async () => {
      const { browser } = await openSite({ '/': (request) => count(request) });
      const [one, other] = [browser(), browser()];
      expect(await bodies(one, '/', '/', '/')).toEqual([1, 2, 3]);
      expect(await bodies(other, '/')).toEqual([1]);
      expect(await bodies(one, '/')).toEqual([4]);
    });

    test('keeps what is changed, added and deleted within a session', async () => {
      const { browser } = await openSite({
        '/fill': (request) =>
          assign(request, { list: [1], user: { name: 'Ada', age: 36 }, gone: 1 }),
        '/change': ({ session: own }) => {
          Reflect.get(own, 'list').push(2);
          Reflect.deleteProperty(Reflect.get(own, 'user'), 'age');
          Reflect.deleteProperty(own, 'gone');
        },
        '/': ({ session: own }) => contentOf(own),
      });
      const visitor = browser();
      await bodies(visitor, '/fill', '/change');
      expect(await bodies(visitor, '/')).toEqual([{ list: [1, 2], user: { name: 'Ada' } }]);
    });

    test('creates another session and ends the old one by regenerate', async () => {
      const { browser } = await openSite({
        '/': (request) => count(request),
        '/regenerate': async (request) => {
          await promised((done) => request.session.regenerate(done));
          assign(request, { regenerated: true });
        },
        '/look': ({ session: own }) => contentOf(own),
      });
      const visitor = browser();
      await bodies(visitor, '/', '/');
      const stolen = visitor.copy();
      await bodies(visitor, '/regenerate');
      expect(await bodies(visitor, '/look')).toEqual([{ regenerated: true }]);
      expect(await bodies(stolen, '/look')).toEqual([{}]);
      expect(await calls.length()).toBe(1);
    });

    test('reloads what is stored, and drops what was not saved', async () => {
      const { browser } = await openSite({
        '/': (request) => assign(request, { name: 'first' }),
        '/reload': async (request) => {
          const stored = await calls.get(request.sessionID);
          await calls.set(request.sessionID, { ...sessionWith(stored), ...{ name: 'second' } });
          assign(request, { unsaved: true });
          await promised((done) => request.session.reload(done));
          const reloaded = contentOf(request.session);
          assign(request, { third: true });
          return reloaded;
        },
        '/look': ({ session: own }) => contentOf(own),
      });
      const visitor = browser();
      await bodies(visitor, '/');
      expect(await bodies(visitor, '/reload')).toEqual([{ name: 'second' }]);
      expect(await bodies(visitor, '/look')).toEqual([{ name: 'second', third: true }]);
    });

    test('fails to reload a session that was ended', async () => {
      const { browser } = await openSite({
        '/': (request) => count(request),
        '/reload': async (request) => {
          await calls.destroy(request.sessionID);
          const failure = await promised((done) => request.session.reload(done)).catch(String);
          request.session.destroy(() => {});
          return failure;
        },
      });
      expect(await bodies(browser(), '/', '/reload')).toEqual([1, 'Error: failed to load session']);
    });

    test('ends a session by destroy', async () => {
      const { browser } = await openSite({
        '/': (request) => count(request),
        '/destroy': (request) => promised((done) => request.session.destroy(done)),
      });
      const visitor = browser();
      expect(await bodies(visitor, '/', '/', '/destroy', '/')).toEqual([1, 2, null, 1]);
      expect(await calls.length()).toBe(1);
    });

    test("ends a session that was unset if unset is 'destroy', and keeps it otherwise", async () => {
      for (const unset of ['destroy', 'keep'] as const) {
        const { browser } = await openSite(
          {
            '/': (request) => count(request),
            '/unset': (request) => void Reflect.set(request, 'session', null),
          },
          { unset },
        );
        const visits = await bodies(browser(), '/', '/unset', '/');
        expect(visits, unset).toEqual([1, null, unset === 'destroy' ? 1 : 2]);
      }
    });

    test('stores an empty session only with saveUninitialized', async () => {
      for (const saveUninitialized of [false, true]) {
        await calls.clear();
        const { browser } = await openSite({ '/': () => null }, { saveUninitialized });
        const visitor = browser();
        await bodies(visitor, '/', '/');
        expect(visitor.cookies.size).toBe(saveUninitialized ? 1 : 0);
        expect(await calls.length()).toBe(saveUninitialized ? 1 : 0);
      }
    });

    test('moves the expiry at every request, by resave or by a touch', async () => {
      for (const resave of [true, false]) {
        setClock(NOON);
        const { browser } = await openSite(
          { '/': (request) => count(request), '/look': ({ session: own }) => contentOf(own) },
          { resave, cookie: { maxAge: 60_000 } },
        );
        const visitor = browser();
        await bodies(visitor, '/');
        setClock(NOON + 59_999);
        expect(await bodies(visitor, '/look')).toEqual([{ visits: 1 }]);
        setClock(NOON + 59_999 + 59_999);
        expect(await bodies(visitor, '/look')).toEqual([{ visits: 1 }]);
        setClock(NOON + 59_999 + 59_999 + 60_000);
        expect(await bodies(visitor, '/look')).toEqual([{}]);
      }
    });

    test('sends the browser a later expiry at every request with rolling', async () => {
      for (const rolling of [true, false]) {
        setClock(NOON);
        const { browser } = await openSite(
          { '/': (request) => count(request), '/look': () => null },
          { rolling, cookie: { maxAge: 60_000 } },
        );
        const visitor = browser();
        await visitor.get('/');
        setClock(NOON + 30_000);
        const { headers } = await visitor.get('/look');
        const expires = new Date(NOON + 90_000).toUTCString();
        expect(headers.get('set-cookie') ?? '').toEqual(
          rolling ? expect.stringContaining(`Expires=${expires}`) : '',
        );
      }
    });

    test('accepts another lifetime that a request sets', async () => {
      setClock(NOON);
      const { browser } = await openSite(
        {
          '/': (request) => count(request),
          '/remember': ({ session: own }) => {
            own.cookie.maxAge = 3_600_000;
          },
          '/forget': ({ session: own }) => {
            own.cookie.expires = null;
          },
          '/shorten': ({ session: own }) => {
            own.cookie.maxAge = 1000;
          },
          '/look': ({ session: { cookie } }) => [
            cookie.originalMaxAge,
            timeOf(cookie.expires) ?? null,
          ],
        },
        { cookie: { maxAge: 60_000 } },
      );
      const visitor = browser();
      await bodies(visitor, '/', '/remember');
      expect(await bodies(visitor, '/look')).toEqual([[3_600_000, NOON + 3_600_000]]);
      setClock(NOON + 3_599_999);
      expect(await bodies(visitor, '/look')).toEqual([[3_600_000, NOON + 3_600_000]]);
      await bodies(visitor, '/forget');
      expect(await bodies(visitor, '/look')).toEqual([[null, null]]);
      await bodies(visitor, '/shorten');
      setClock(NOON + 3_599_999 + 999);
      expect(await bodies(visitor, '/')).toEqual([2]);
      setClock(NOON + 3_599_999 + 999 + 1000);
      expect(await bodies(visitor, '/')).toEqual([1]);
    });

    test('keeps a session whose cookie ends with the browser', async () => {
      setClock(NOON);
      const { browser } = await openSite({ '/': (request) => count(request) });
      const visitor = browser();
      const { headers } = await visitor.get('/');
      expect(headers.get('set-cookie')).not.toContain('Expires');
      setClock(NOON + 3_600_000);
      expect(await bodies(visitor, '/')).toEqual([2]);
    });

    test('accepts the sids that genid creates', async () => {
      let made = 0;
      const { browser } = await openSite(
        { '/': (request) => [request.sessionID, count(request)] },
        { genid: () => `the sid "${++made}" 👻` },
      );
      const visitor = browser();
      expect(await bodies(visitor, '/', '/')).toEqual([
        ['the sid "1" 👻', 1],
        ['the sid "1" 👻', 2],
      ]);
      expect(contentOf(await calls.get('the sid "1" 👻'))).toEqual({ visits: 2 });
    });

    test('saves as often as a request calls save', async () => {
      const { browser } = await openSite({
        '/': async (request) => {
          assign(request, { one: 1, both: 1 });
          await promised((done) => request.session.save(done));
          Reflect.deleteProperty(request.session, 'one');
          assign(request, { two: 2, both: 2 });
          await promised((done) => request.session.save(done));
          const between = contentOf(await calls.get(request.sessionID));
          assign(request, { three: 3 });
          return between;
        },
        '/look': ({ session: own }) => contentOf(own),
      });
      const visitor = browser();
      expect(await bodies(visitor, '/', '/look')).toEqual([
        { two: 2, both: 2 },
        { two: 2, both: 2, three: 3 },
      ]);
      expect(await bodies(visitor, '/', '/look')).toEqual([
        { two: 2, both: 2, three: 3 },
        { two: 2, both: 2, three: 3 },
      ]);
    });

    test('saves and reloads in turn within one request', async () => {
      const { browser } = await openSite({
        '/': (request) => assign(request, { name: 'first', list: [1] }),
        '/turns': async (request) => {
          assign(request, { name: 'second' });
          await promised((done) => request.session.save(done));
          assign(request, { name: 'dropped' });
          await promised((done) => request.session.reload(done));
          Reflect.get(request.session, 'list').push(2);
          await promised((done) => request.session.save(done));
          await promised((done) => request.session.reload(done));
          Reflect.deleteProperty(request.session, 'name');
        },
        '/look': ({ session: own }) => contentOf(own),
      });
      const visitor = browser();
      await bodies(visitor, '/', '/turns');
      expect(await bodies(visitor, '/look')).toEqual([{ list: [1, 2] }]);
    });

    test('ends a session and creates another one within one request', async () => {
      const { browser } = await openSite({
        '/': (request) => count(request),
        '/anew': async (request) => {
          await promised((done) => request.session.destroy(done));
          request.sessionStore.generate(request);
          assign(request, { anew: true });
        },
        '/look': ({ session: own }) => contentOf(own),
      });
      const visitor = browser();
      await bodies(visitor, '/');
      const copy = visitor.copy();
      await bodies(visitor, '/anew');
      expect(await bodies(visitor, '/look')).toEqual([{ anew: true }]);
      expect(await bodies(copy, '/look')).toEqual([{}]);
    });

    test('ends a session and creates another one with the same sid within one request', async () => {
      const { browser } = await openSite(
        {
          '/': (request) => count(request),
          '/anew': async (request) => {
            await promised((done) => request.session.regenerate(done));
            assign(request, { anew: 1 });
            await promised((done) => request.session.save(done));
            await promised((done) => request.session.regenerate(done));
            assign(request, { anew: 2 });
          },
          '/look': ({ session: own }) => contentOf(own),
        },
        { genid: () => 'always the same' },
      );
      const visitor = browser();
      await bodies(visitor, '/', '/anew');
      expect(await bodies(visitor, '/look')).toEqual([{ anew: 2 }]);
    });

    test('copies a session to another sid', async () => {
      const { browser } = await openSite({
        '/': (request) => count(request),
        '/copy': async (request) => {
          await calls.set('the copy', asSession(request.session));
        },
      });
      const visitor = browser();
      await bodies(visitor, '/', '/copy');
      expect(contentOf(await calls.get('the copy'))).toEqual({ visits: 1 });
      expect(await bodies(visitor, '/')).toEqual([2]);
      expect(contentOf(await calls.get('the copy'))).toEqual({ visits: 1 });
    });

    test('starts a new session for a cookie whose session is gone', async () => {
      const { browser } = await openSite({ '/': (request) => count(request) });
      const visitor = browser();
      await bodies(visitor, '/', '/');
      await calls.clear();
      expect(await bodies(visitor, '/', '/')).toEqual([1, 2]);
    });
  });
}

/** What MemoryStore does not have. */
function beyondMemoryStore(drizzleStore: () => DrizzleStore) {
  describe('beyond MemoryStore', () => {
    let store: DrizzleStore;
    beforeAll(() => {
      store = drizzleStore();
    });

    test('returns promises if there is no callback', async () => {
      await store.ready();
      expect(await store.set('sid', sessionWith({ name: 'Ada' }))).toBeUndefined();
      expect(await store.touch('sid', sessionWith())).toBeUndefined();
      expect(contentOf(await store.get('sid'))).toEqual({ name: 'Ada' });
      expect(Object.keys(await store.all())).toEqual([idOf('sid')]);
      expect(await store.ids()).toEqual([idOf('sid')]);
      expect(await store.length()).toBe(1);
      expect(await store.destroy('sid')).toBeUndefined();
      expect(await store.get('sid')).toBeUndefined();
      expect(await store.clear()).toBeUndefined();
      expect(await store.pruneSessions()).toBe(0);
    });

    test('accepts callbacks for its own methods, too', async () => {
      await store.set('sid', sessionWith());
      await store.set('expired', sessionUntil(new Date(Date.now() - 1)));
      expect(await promised((done) => store.ids(done))).toEqual([idOf('sid')]);
      expect(await promised((done) => store.pruneSessions(done))).toBe(1);
    });

    test('lists sessions that were set before without await, in ids() and sessions() too', async () => {
      store.set('a', sessionWith({ name: 'a' }));
      expect(await store.ids()).toEqual([idOf('a')]);
      store.set('a', sessionWith({ name: 'changed' }));
      for await (const { data } of store.sessions())
        expect(contentOf(data)).toEqual({ name: 'changed' });
      store.destroy('a');
      expect(await store.ids()).toEqual([]);
    });

    test('ends every session that all() or ids() lists', async () => {
      for (const sid of ['a', 'b', 'c', 'd']) await store.set(sid, sessionWith({ sid }));
      for (const id of Object.keys(await store.all()).slice(0, 2)) await store.destroy(id);
      expect(await store.length()).toBe(2);
      for (const id of await store.ids()) await store.destroy(id);
      expect(await store.length()).toBe(0);
      for (const sid of ['a', 'b', 'c', 'd']) expect(await store.get(sid)).toBeUndefined();
    });

    test('creates, reads and touches no session by an id', async () => {
      setClock(NOON);
      await store.set('sid', sessionWith({}, 60));
      const id = idOf('sid');
      expect(await store.get(id)).toBeUndefined();
      await store.touch(id, sessionWith({}, 3600));
      setClock(NOON + 60_000);
      expect(await store.get('sid')).toBeUndefined();
      await store.destroy(id);
      expect(await store.length()).toBe(0);
      await store.set(id, sessionWith({ name: 'a sid that looks like an id' }));
      expect(await store.ids()).toEqual([idOf(id)]);
      expect(await store.get('sid')).toBeUndefined();
    });

    test('ends a session after a day if its cookie has no expiry', async () => {
      setClock(NOON);
      await store.set('sid', sessionWith({}, null));
      setClock(NOON + 86_399_999);
      expect(await store.get('sid')).toBeDefined();
      setClock(NOON + 86_400_000);
      expect(await store.get('sid')).toBeUndefined();
    });

    test('goes through all sessions page by page', async () => {
      // More than a page. A portable statement writes one row.
      const count = isPortable ? 260 : 600;
      const sids = Array.from({ length: count }, (_none, at) => `sid ${at}`);
      await Promise.all(sids.map((sid) => store.set(sid, sessionWith({ sid }))));
      const found: unknown[] = [];
      for await (const { id, data } of store.sessions()) {
        found.push([id, Reflect.get(data, 'sid')]);
      }
      expect(new Map(found as [string, string][])).toEqual(
        new Map(sids.map((sid) => [idOf(sid), sid])),
      );
      expect(found).toHaveLength(count);
      expect((await store.ids()).toSorted()).toEqual(sids.map(idOf).toSorted());
      expect(Object.keys(await store.all())).toHaveLength(count);
      await store.clear();
      expect(await store.length()).toBe(0);
    });

    test('is a Store of express-session', () => {
      expect(store).toBeInstanceOf(session.Store);
      expect(store).toBeInstanceOf(DrizzleStore);
    });
  });
}

describe('a session whose cookie has no expiry', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await freshDatabase();
  });
  afterAll(() => database.drop());

  async function withTtl(ttl: TtlOption, run: (store: DrizzleStore) => Promise<void>) {
    setClock(NOON);
    await using store = new DrizzleStore(database.pool(), { ttl, createTableIfMissing: true });
    await run(store);
  }

  test('ends ttl seconds after its last touch or save', () =>
    withTtl(60.5, async (store) => {
      for (const sid of ['left', 'touched', 'saved']) await store.set(sid, sessionWith({}, null));
      setClock(NOON + 60_499);
      await store.touch('touched', sessionWith({}, null));
      await store.set('saved', sessionWith({}, null));
      expect(await store.length()).toBe(3);
      setClock(NOON + 60_500);
      expect(await store.get('left')).toBeUndefined();
      setClock(NOON + 60_499 + 60_499);
      expect(await store.length()).toBe(2);
      setClock(NOON + 60_499 + 60_500);
      expect(await store.length()).toBe(0);
    }));

  test('ends after the seconds that ttl returns for it', () =>
    withTtl(
      (data) => (Reflect.get(data, 'remember') === true ? 3600 : 60),
      async (store) => {
        await store.set('short', sessionWith({}, null));
        await store.set('long', sessionWith({ remember: true }, null));
        await store.set('by its cookie', sessionWith({}, 7200));
        setClock(NOON + 60_000);
        expect(await store.get('short')).toBeUndefined();
        setClock(NOON + 3_599_999);
        expect(await store.get('long')).toBeDefined();
        setClock(NOON + 3_600_000);
        expect(await store.get('long')).toBeUndefined();
        expect(await store.get('by its cookie')).toBeDefined();
      },
    ));
});

type TtlOption = NonNullable<ConstructorParameters<typeof DrizzleStore>[1]>['ttl'];

type Routes = Record<string, (request: Request, response: Response) => unknown>;

const sites: Site[] = [];

/** Serves an app on the store under test, with a page for each route. */
async function openSite(routes: Routes, options: Partial<SessionOptions> = {}): Promise<Site> {
  const app = express();
  const defaults = { secret: 'a secret', resave: false, saveUninitialized: false };
  app.use(session({ ...defaults, ...options, store }));
  app.use(async (request, response) => {
    const body = await routes[request.path]?.(request, response);
    response.json(body ?? null);
  });
  const site = await serve(app);
  sites.push(site);
  return site;
}

async function closeSites(): Promise<void> {
  for (const site of sites.splice(0)) await site.close();
  // express-session listens for them as long as the store exists.
  for (const event of ['connect', 'disconnect']) store.removeAllListeners(event);
}

/** Visits pages in turn and returns their answers. */
async function bodies(browser: Browser, ...paths: string[]): Promise<unknown[]> {
  const answers: unknown[] = [];
  for (const path of paths) {
    const answer = await browser.get(path);
    expect(answer.status, answer.text).toBe(200);
    answers.push(answer.json());
  }
  return answers;
}

function count({ session: own }: Request): number {
  const visits = Number(Reflect.get(own, 'visits') ?? 0) + 1;
  Object.assign(own, { visits });
  return visits;
}

function assign({ session: own }: Request, data: object): void {
  Object.assign(own, data);
}
