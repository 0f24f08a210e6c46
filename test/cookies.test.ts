/** Sessions stored with a malformed cookie or without one: by SQL, by `update()` or by `set`. */
import { createRequire } from 'node:module';
import { DrizzleStore, type DrizzleStoreOptions, idOf } from 'connect-drizzle';
import express from 'express';
import session from 'express-session';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { type Browser, serve } from './support/http.js';
import { up } from './support/realtime.js';
import { ending, loaded } from './support/requests.js';
import { asSession, callbacksOf, contentOf, endOf, sessionWith } from './support/sessions.js';

declare module 'express-session' {
  interface SessionData {
    visits: number;
  }
}

const require = createRequire(import.meta.url);
const { sign }: { sign(value: string, key: string): string } = require('cookie-signature');

const secret = 'a secret of 32 characters or more';
const sid = 'the sid';

let database: TestDatabase;
let logged: string[];
const ends: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  database = await freshDatabase();
});
afterAll(() => database.drop());
beforeEach(() => {
  logged = [];
});
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await database.query('delete from sessions');
});

async function open(options: DrizzleStoreOptions = {}): Promise<DrizzleStore> {
  const store = new DrizzleStore(database.pool(), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    errorLog: (message) => logged.push(message),
    ...options,
  });
  ends.push(() => store.close());
  await store.ready();
  if (options.cache) await up(store);
  return store;
}

/** A browser with the cookie of the sid, on an app that counts its visits. */
async function visitor(store: DrizzleStore, options: { rolling?: boolean } = {}): Promise<Browser> {
  const app = express();
  app.use(session({ store, secret, resave: false, saveUninitialized: false, ...options }));
  app.get('/', (request, response) => {
    request.session.visits = (request.session.visits ?? 0) + 1;
    response.json(request.session.visits);
  });
  app.get('/look', (request, response) => {
    response.json([request.session.visits ?? null, request.session.cookie.maxAge ?? null]);
  });
  const site = await serve(app);
  ends.push(() => site.close());
  const browser = site.browser();
  browser.cookies.set('connect.sid', encodeURIComponent(`s:${sign(sid, secret)}`));
  return browser;
}

/** Inserts a session with SQL; `undefined` is a session without a cookie. */
async function insert(cookie: unknown, key = sid): Promise<void> {
  await database.query(
    `insert into sessions (id, data, expires_at) values ($1, $2, now() + interval '1 hour')`,
    [idOf(key), JSON.stringify({ cookie, visits: 7 })],
  );
}

/** Changes the stored session, as a store in another process would. */
function overwrite(data: object): Promise<unknown[]> {
  return database.query('update sessions set data = $2, version = version + 1 where id = $1', [
    idOf(sid),
    JSON.stringify(data),
  ]);
}

async function stored(key = sid): Promise<unknown> {
  const [row] = await database.query('select data from sessions where id = $1', [idOf(key)]);
  return row?.data;
}

const unusable = (key = sid) =>
  `connect-drizzle: The session with the id ${idOf(key)} cannot be read: ` +
  'it has no cookie that express-session can use';

const malformed: [what: string, cookie: unknown][] = [
  ['missing', undefined],
  ['null', null],
  ['a string', 'crumbs'],
  ['an empty string', ''],
  ['a number', 5],
  ['zero', 0],
  ['true', true],
  ['false', false],
  ['an array', []],
  ['an array of cookies', [{ originalMaxAge: null }]],
  ['one whose lifetime is a string', { originalMaxAge: '3600000' }],
  ['one whose lifetime is an object', { originalMaxAge: {} }],
  ['one whose lifetime is true', { originalMaxAge: true }],
  ['one whose lifetime is beyond any date', { originalMaxAge: 1e300 }],
  ['one whose lifetime is before any date', { originalMaxAge: -1e300 }],
  ['one whose maxAge is a string', { maxAge: 'for ever' }],
];

const odd: [what: string, cookie: object][] = [
  ['no field', {}],
  ['null in every field', { originalMaxAge: null, expires: null, path: null, sameSite: null }],
  ['an expiry that is no date', { originalMaxAge: 3_600_000, expires: 'tomorrow, or so' }],
  ['an empty expiry', { originalMaxAge: 3_600_000, expires: '' }],
  ['an expiry that is a number', { originalMaxAge: 3_600_000, expires: 1e300 }],
  ['an expiry that is zero', { originalMaxAge: 3_600_000, expires: 0 }],
  ['an expiry that is true', { originalMaxAge: 3_600_000, expires: true }],
  ['an expiry that is an object', { originalMaxAge: 3_600_000, expires: { year: 2030 } }],
  ['an expiry that is an array', { originalMaxAge: 3_600_000, expires: [] }],
  ['a lifetime that is an empty string', { originalMaxAge: '' }],
  ['a lifetime that is false', { originalMaxAge: false }],
  ['a maxAge', { maxAge: 3_600_000 }],
  ['fields that no cookie has', { note: { crumbs: [1] }, data: 1, toJSON: 1, _expires: 'x' }],
  ['the field __proto__', JSON.parse('{"originalMaxAge":null,"__proto__":{"path":"/app"}}')],
];

describe.each([
  ['', {}],
  [' from the cache', { cache: true }],
] as const)('a request%s', (_, options) => {
  test.each(malformed)('starts a new session if the stored cookie is %s', async (_what, bad) => {
    const store = await open(options);
    await insert(bad);
    const before = await stored();
    const browser = await visitor(store);
    for (const times of [1, 2]) {
      const page = await browser.copy().get('/look');
      expect([page.status, page.json()]).toEqual([200, [null, null]]);
      expect(logged).toEqual(Array(times).fill(unusable()));
      expect(store.stats().unreadable).toBe(times);
    }
    const pages = [await browser.get('/'), await browser.get('/')];
    expect(pages.map((page) => [page.status, page.json()])).toEqual([
      [200, 1],
      [200, 2],
    ]);
    expect(browser.cookies.get('connect.sid')).not.toContain(encodeURIComponent(sid));
    expect(await stored()).toEqual(before);
  });

  test.each(odd)('keeps its session if the stored cookie has %s', async (_what, cookie) => {
    const store = await open(options);
    await insert(cookie);
    const browser = await visitor(store, { rolling: true });
    for (const visits of [8, 9]) {
      const page = await browser.get('/');
      expect([page.status, page.json()]).toEqual([200, visits]);
      const look = await browser.get('/look');
      expect([look.status, look.json<unknown[]>()[0]]).toEqual([200, visits]);
    }
    expect(logged).toEqual([]);
  });
});

test('a request cannot reload a session that has lost its cookie meanwhile, but is answered', async () => {
  const store = await open();
  await store.set(sid, sessionWith({ visits: 1 }));
  const app = express();
  app.use(session({ store, secret, resave: false, saveUninitialized: false }));
  app.get('/', async (request, response) => {
    await overwrite({ visits: 2 });
    request.session.reload((error?: Error) => response.json(error?.message));
  });
  const site = await serve(app);
  ends.push(() => site.close());
  const browser = site.browser();
  browser.cookies.set('connect.sid', encodeURIComponent(`s:${sign(sid, secret)}`));
  const page = await browser.get('/');
  expect([page.status, page.json()]).toEqual([200, 'failed to load session']);
});

describe.each(malformed)('a row whose cookie is %s', (_what, cookie) => {
  test('is no session for callbacks and lists, is reported and counts as unreadable', async () => {
    const store = await open();
    await insert(cookie);
    await store.set('other', sessionWith({ visits: 1 }));
    const calls = callbacksOf(store);
    expect(await calls.get(sid)).toBeUndefined();
    expect(await calls.load(sid)).toBeUndefined();
    expect(Object.keys(await calls.all())).toEqual([idOf('other')]);
    expect(Object.keys(await store.all())).toEqual([idOf('other')]);
    const listed: string[] = [];
    for await (const { id } of store.sessions()) listed.push(id);
    expect(listed).toEqual([idOf('other')]);
    expect(logged).toEqual(Array(5).fill(unusable()));
    expect(store.stats().unreadable).toBe(5);
  });

  test('is returned as it is stored by an awaited get()', async () => {
    const store = await open();
    await insert(cookie);
    expect(await store.get(sid)).toEqual(await stored());
    expect(logged).toEqual([]);
  });

  test('is no session for update(), which reports it and does not change it', async () => {
    const store = await open();
    await insert(cookie);
    const before = await stored();
    const update = store.update(sid, () => {
      throw new Error('it ran');
    });
    expect(await update).toBeUndefined();
    expect(await stored()).toEqual(before);
    expect(logged).toEqual([unusable()]);
  });

  test('can be saved, expires after ttl and fails no request', async () => {
    const store = await open({ ttl: 60 });
    const given = { visits: 3, ...(cookie === undefined ? {} : { cookie }) };
    await store.set(sid, asSession(given));
    expect(await stored()).toEqual(given);
    expect(await store.get(sid)).toEqual(given);
    const rows = await database.query(
      `select from sessions where expires_at between now() and now() + interval '61 s'`,
    );
    expect(rows).toHaveLength(1);
    const page = await (await visitor(store)).get('/');
    expect([page.status, page.json()]).toEqual([200, 1]);
  });

  test('gets the cookie of a request in flight when that request saves', async () => {
    const store = await open();
    await store.set(sid, sessionWith({ visits: 1 }));
    const request = await loaded(store, sid);
    await overwrite({ cookie, visits: 1, theirs: 1 });
    await store.set(sid, ending(Object.assign(request, { mine: 1 })));
    const found = await callbacksOf(store).get(sid);
    expect(contentOf(found)).toEqual({ visits: 1, mine: 1, theirs: 1 });
    expect(endOf(found)).toBe(request.cookie.expires?.getTime());
    expect(logged).toEqual([]);
  });

  test.each(['returned', 'changed'] as const)(
    'is not saved by update(), which keeps the stored cookie, if the session was %s',
    async (how) => {
      const store = await open();
      await store.set(sid, sessionWith({ visits: 1 }));
      const before = await callbacksOf(store).get(sid);
      const saved = await store.update(sid, (session) => {
        if (how === 'returned') return asSession({ visits: 2, cookie });
        return void Object.assign(session, { visits: 2, cookie });
      });
      expect(saved).toEqual({ ...before, visits: 2 });
      expect(await callbacksOf(store).get(sid)).toEqual({ ...before, visits: 2 });
      // The session that update() returns can be saved again, and merged.
      await overwrite({ ...before, visits: 2, theirs: 1 });
      await store.set(sid, asSession(Object.assign(saved ?? {}, { mine: 1 })));
      expect(contentOf(await callbacksOf(store).get(sid))).toEqual({
        visits: 2,
        theirs: 1,
        mine: 1,
      });
      expect(logged).toEqual([]);
    },
  );

  test('is not written by a touch', async () => {
    const store = await open();
    await store.set(sid, sessionWith({ visits: 1 }));
    const found = await store.get(sid);
    const before = await stored();
    await store.touch(sid, asSession(Object.assign(found ?? {}, { cookie })));
    expect(await stored()).toEqual(before);
  });
});

test('update() keeps the stored cookie if its function makes a field invalid', async () => {
  const store = await open();
  await store.set(sid, sessionWith({ visits: 1 }));
  const before = await store.get(sid);
  await store.update(sid, (session) => {
    Object.assign(session.cookie, { originalMaxAge: 'an hour' });
  });
  expect(await callbacksOf(store).get(sid)).toEqual(before);
});

test('update() may replace the cookie', async () => {
  const store = await open();
  await store.set(sid, sessionWith({ visits: 1 }));
  const other = sessionWith({ visits: 2 }, 7200);
  await store.update(sid, () => other);
  expect(endOf(await callbacksOf(store).get(sid))).toBe(endOf(other));
});

test('a merge keeps the stored cookie if this request has deleted it', async () => {
  const store = await open();
  await store.set(sid, sessionWith({ visits: 1 }));
  const found = (await store.get(sid)) ?? {};
  await overwrite({ ...found, theirs: 1 });
  await store.set(sid, asSession(Object.assign(found, { mine: 1, cookie: undefined })));
  expect(contentOf(await callbacksOf(store).get(sid))).toEqual({ visits: 1, mine: 1, theirs: 1 });
});
