import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  ConflictError,
  DrizzleStore,
  InvalidArgumentError,
  idOf,
  NotSerializableError,
  type StoreStats,
} from 'connect-drizzle';
import type { SessionData } from 'express-session';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { bundleProgram } from './support/bundle.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { launch } from './support/example.js';
import { gate } from './support/gate.js';
import { gatedPool } from './support/gated-pool.js';
import { ending, generated, loaded, type RequestSession } from './support/requests.js';
import { BUSY_TIMEOUT_S } from './support/sessions.js';

type Options = NonNullable<ConstructorParameters<typeof DrizzleStore>[1]>;

const hour = 3_600_000;

let database: TestDatabase;
let stores: DrizzleStore[];
/** Two stores that share only the database, like those of two processes. */
let here: DrizzleStore;
let there: DrizzleStore;
let sid: string;

beforeAll(async () => {
  database = await freshDatabase();
  const first = new DrizzleStore(database.pool(), { createTableIfMissing: true });
  await first.ready();
  await first.close();
  await countVersions();
});

afterAll(() => database.drop());

beforeEach(() => {
  stores = [];
  sid = randomUUID();
  [here, there] = [open(), open()];
});

afterEach(() => Promise.all(stores.map((store) => store.close())));

function open(options: Options = {}): DrizzleStore {
  const store = new DrizzleStore(database.pool(), {
    pruneSessionInterval: false,
    timeout: BUSY_TIMEOUT_S,
    // Every touch is written: most tests are about what it does.
    touchAfter: 0,
    ...options,
  });
  stores.push(store);
  return store;
}

/** Creates and saves a session, in a first request. */
async function begun(content: object = {}, { store = here, maxAge = hour as number | null } = {}) {
  const session = generated(store, sid, maxAge === null ? {} : { maxAge });
  Object.assign(session, content);
  await store.set(sid, session);
}

function foreign(content: object = {}, maxAge = hour): SessionData {
  const expires = new Date(Date.now() + maxAge);
  const cookie = { originalMaxAge: maxAge, expires, httpOnly: true, path: '/' };
  return { cookie, ...content } as object as SessionData;
}

/** Returns what is stored, without the cookie. */
async function content(store = there): Promise<Record<string, unknown> | undefined> {
  const session = await store.get(sid);
  if (session === undefined) return undefined;
  const { cookie, ...rest } = session as SessionData & Record<string, unknown>;
  return rest;
}

async function cookieOf(store = there): Promise<{ expires?: string; originalMaxAge?: number }> {
  const session: object | undefined = await store.get(sid);
  return session === undefined ? {} : Reflect.get(session, 'cookie');
}

/** Counts the versions of each row, which are random numbers, in a column of the test's own. */
async function countVersions(): Promise<void> {
  await database.query(`
    alter table sessions add column versions integer not null default 1;
    create function count_versions() returns trigger language plpgsql as $$ begin
      if new.version <> old.version then new.versions := old.versions + 1; end if;
      return new;
    end $$;
    create trigger count_versions before update on sessions for each row execute function count_versions();
  `);
}

interface Row {
  /** How many versions the row has had. */
  versions: number;
  expires: number;
  created: string;
  revoked: boolean;
  data: { cookie: Record<string, unknown> } | null;
}

async function row(): Promise<Row | undefined> {
  const [found] = await database.query<Row>(
    `select versions, round(extract(epoch from expires_at) * 1000)::float8 as expires,
       created_at::text as created, revoked_at is not null as revoked, data
     from sessions where id = $1`,
    [idOf(sid)],
  );
  return found;
}

/** Lets a session expire without waiting. */
function expire(): Promise<unknown[]> {
  return database.query(`update sessions set expires_at = now() - interval '1 s' where id = $1`, [
    idOf(sid),
  ]);
}

/** Lets the hour of a tombstone pass without waiting. */
async function pruned(): Promise<void> {
  await expire();
  await here.pruneSessions();
  expect(await row()).toBeUndefined();
}

function counts(store: DrizzleStore): Pick<StoreStats, 'merges' | 'dropped'> {
  const { merges, dropped } = store.stats();
  return { merges, dropped };
}

describe('a set of a loaded session', () => {
  test('writes the changes and raises the version', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.b = 2;
    await here.set(sid, ending(session));
    expect(await content()).toEqual({ a: 1, b: 2 });
    expect(await row()).toMatchObject({ versions: 2 });
    expect(counts(here)).toEqual({ merges: 0, dropped: 0 });
  });

  test('takes one statement if there is no conflict', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.b = 2;
    const before = here.stats().statements;
    await here.set(sid, ending(session));
    expect(here.stats().statements - before).toBe(1);
  });

  test('is merged with what another process stored meanwhile, and counted once', async () => {
    await begun({ a: 1, b: 1, c: 1, list: [1], deep: { x: 1, y: 1 } });
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    Object.assign(mine, { a: 2, mine: true, deep: { x: 2, y: 1 } });
    Object.assign(theirs, { b: 2, theirs: true, deep: { x: 1, y: 2 }, list: [1, 2] });
    delete theirs.c;
    await there.set(sid, ending(theirs));
    await here.set(sid, ending(mine));
    expect(await content()).toEqual({
      a: 2,
      b: 2,
      list: [1, 2],
      deep: { x: 2, y: 2 },
      mine: true,
      theirs: true,
    });
    expect(await row()).toMatchObject({ versions: 3 });
    expect(counts(here)).toEqual({ merges: 1, dropped: 0 });
    expect(counts(there)).toEqual({ merges: 0, dropped: 0 });
  });

  test('writes nothing and reports no error if the session was ended meanwhile', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    await there.destroy(sid);
    session.b = 2;
    await here.set(sid, ending(session));
    await here.set(sid, ending(session));
    expect(await here.get(sid)).toBeUndefined();
    expect(await row()).toMatchObject({ revoked: true, data: null });
    expect(counts(here)).toEqual({ merges: 0, dropped: 2 });
  });

  test('writes nothing if the tombstone was pruned meanwhile', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    await there.destroy(sid);
    await pruned();
    session.b = 2;
    await here.set(sid, ending(session));
    expect(await row()).toBeUndefined();
    expect(counts(here)).toEqual({ merges: 0, dropped: 1 });
  });

  test.each([
    ['over the tombstone', false],
    ['after the tombstone was pruned, at the same version', true],
  ])('is not taken for a later session of the same sid, made %s', async (_, isPruned) => {
    await begun({ user: 'ada' });
    const setVersion = (version: string) =>
      database.query(`update sessions set version = ${version} where id = $1`, [idOf(sid)]);
    await setVersion('7');
    const session = await loaded(here, sid);
    await there.destroy(sid);
    if (isPruned) await pruned();
    await begun({ user: 'bob' }, { store: there });
    if (isPruned) await setVersion('7');
    const before = await row();
    session.user = 'ada';
    session.cart = ['hers'];
    await here.set(sid, ending(session));
    expect(await row()).toEqual(before);
    expect(counts(here)).toEqual({ merges: 0, dropped: 1 });
  });

  test('saves a session that expired while its request ran', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    await expire();
    expect(await here.get(sid)).toBeUndefined();
    session.b = 2;
    await here.set(sid, ending(session));
    expect(await content()).toEqual({ a: 1, b: 2 });
  });

  test('saves the session as it is at the call', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.a = 2;
    const first = here.set(sid, ending(session));
    session.a = 3;
    const second = here.set(sid, ending(session));
    session.a = 4;
    await Promise.all([first, second]);
    expect(await content()).toEqual({ a: 3 });
  });

  test('compares with what is stored when its turn comes: a key that was set and deleted is deleted', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.b = 2;
    const first = here.set(sid, ending(session));
    delete session.b;
    const second = here.set(sid, ending(session));
    await Promise.all([first, second]);
    expect(await content()).toEqual({ a: 1 });
    expect(counts(here)).toEqual({ merges: 0, dropped: 0 });
  });

  test('does not delete the keys of another request, which a merge added, at its next save', async () => {
    await begun({ a: 1, b: 1 });
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    theirs.theirs = 1;
    delete theirs.b;
    await there.set(sid, ending(theirs));
    mine.a = 2;
    await here.set(sid, ending(mine));
    expect(mine.theirs).toBeUndefined();
    mine.a = 3;
    await here.set(sid, ending(mine));
    // Nor does it bring back what the other request deleted.
    expect(mine.b).toBe(1);
    expect(await content()).toEqual({ a: 3, theirs: 1 });
    expect(counts(here)).toEqual({ merges: 1, dropped: 0 });
  });

  test('keeps every change of a request that saves repeatedly between the saves of another one', async () => {
    await begun({});
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    for (const round of [1, 2, 3]) {
      mine[`mine${round}`] = round;
      mine.last = `mine${round}`;
      await here.set(sid, ending(mine));
      theirs[`theirs${round}`] = round;
      delete theirs[`theirs${round - 1}`];
      await there.set(sid, ending(theirs));
    }
    expect(await content()).toEqual({ mine1: 1, mine2: 2, mine3: 3, last: 'mine3', theirs3: 3 });
  });

  test('writes only the changes since the last reload', async () => {
    await begun({ a: 1, b: 1 });
    await loaded(here, sid);
    const theirs = await loaded(there, sid);
    Object.assign(theirs, { b: 2, c: 2 });
    await there.set(sid, ending(theirs));
    const again = await loaded(here, sid);
    expect(again).toMatchObject({ a: 1, b: 2, c: 2 });
    delete again.c;
    await here.set(sid, ending(again));
    expect(await content()).toEqual({ a: 1, b: 2 });
    expect(counts(here)).toEqual({ merges: 0, dropped: 0 });
  });

  test('does not bring back a role that another request removed', async () => {
    await begun({ roles: ['admin'], user: { name: 'ada', admin: true } });
    const slow = await loaded(here, sid);
    const theirs = await loaded(there, sid);
    Object.assign(theirs, { roles: [], user: { name: 'ada' } });
    await there.set(sid, ending(theirs));
    Object.assign(slow, { page: 7, user: { ...Object(slow.user), lastSeen: 1 } });
    await here.set(sid, ending(slow));
    expect(await content()).toEqual({ roles: [], user: { name: 'ada', lastSeen: 1 }, page: 7 });
  });

  test('under another sid creates a copy, which shares neither history nor tombstone', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    const other = randomUUID();
    await here.set(other, session);
    await there.destroy(sid);
    session.a = 2;
    await here.set(other, session);
    expect(await here.get(other)).toMatchObject({ a: 2 });
    await there.destroy(other);
    await here.set(other, session);
    expect(await here.get(other)).toBeUndefined();
  });
});

describe('a set of a session whose user changed meanwhile', () => {
  const userId = (session: SessionData) => {
    const user: unknown = Reflect.get(session, 'user');
    return typeof user === 'string' ? user : null;
  };

  beforeEach(() => {
    [here, there] = [open({ userId }), open({ userId })];
  });

  async function race(before: object, theirs: object, mine: object) {
    await begun({ user: null, ...before });
    const [slow, quick] = [await loaded(here, sid), await loaded(there, sid)];
    await there.set(sid, ending(Object.assign(quick, theirs)));
    await here.set(sid, ending(Object.assign(slow, mine)));
    return content();
  }

  test('writes nothing if another user logged in: two users are never mixed', async () => {
    const after = await race({ user: 'ada' }, { user: 'bob', cart: 'his' }, { address: 'hers' });
    expect(after).toEqual({ user: 'bob', cart: 'his' });
    expect(counts(here)).toEqual({ merges: 0, dropped: 1 });
  });

  test('writes nothing if the user logged out', async () => {
    expect(await race({ user: 'ada' }, { user: null }, { address: 'hers' })).toEqual({
      user: null,
    });
    expect(counts(here)).toEqual({ merges: 0, dropped: 1 });
  });

  test('writes nothing if two users log in at once', async () => {
    const after = await race({}, { user: 'bob', cart: 'his' }, { user: 'ada', cart: 'hers' });
    expect(after).toEqual({ user: 'bob', cart: 'his' });
    expect(counts(here)).toEqual({ merges: 0, dropped: 1 });
  });

  test('is merged if an anonymous session gained a user', async () => {
    const after = await race({}, { user: 'ada' }, { page: 7 });
    expect(after).toEqual({ user: 'ada', page: 7 });
    expect(await here.revokeUser('ada')).toBe(1);
  });

  test('is merged if its own request logged in', async () => {
    expect(await race({}, { page: 7 }, { user: 'ada' })).toEqual({ user: 'ada', page: 7 });
    expect(await here.revokeUser('ada')).toBe(1);
  });

  test('is merged if the user is the same, and compares with the user of the merged session from then on', async () => {
    await begun({ user: null });
    const [slow, quick] = [await loaded(here, sid), await loaded(there, sid)];
    await there.set(sid, ending(Object.assign(quick, { user: 'ada' })));
    slow.page = 1;
    await here.set(sid, ending(slow));
    const third = await loaded(there, sid);
    await there.set(sid, ending(Object.assign(third, { user: 'bob' })));
    slow.page = 2;
    await here.set(sid, ending(slow));
    expect(await content()).toEqual({ user: 'bob', page: 1 });
    expect(counts(here)).toEqual({ merges: 1, dropped: 1 });
  });
});

describe('a set or touch in which nothing changed but the expiry', () => {
  const calls = ['set', 'touch'] as const;

  test.each(calls)('moves the expiry of the row and writes no data (%s)', async (call) => {
    await begun({ a: 1 });
    const before = await row();
    const session = await loaded(here, sid);
    session.cookie.expires = new Date(Date.now() + 2 * hour);
    session.cookie.originalMaxAge = hour;
    const changes: unknown[] = [];
    here.on('change', (event) => changes.push(event));
    await here[call](sid, session);
    const after = await row();
    expect(after).toEqual({ ...before, expires: session.cookie.expires.getTime() });
    expect(changes).toEqual([]);
  });

  test.each(calls)('moves the expiry of the cookie that is read back, too (%s)', async (call) => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.cookie.expires = new Date(Date.now() + 2 * hour);
    session.cookie.originalMaxAge = hour;
    await here[call](sid, session);
    expect(await cookieOf()).toMatchObject({
      expires: session.cookie.expires.toISOString(),
      originalMaxAge: hour,
    });
  });

  test('is sent as a touch at the end of each request of express-session', async () => {
    await begun({ a: 1 });
    for (const call of [...calls, ...calls]) await here[call](sid, ending(await loaded(here, sid)));
    expect(await row()).toMatchObject({ versions: 1 });
  });

  test.each(calls)(
    'moves the expiry that `ttl` gives to a cookie without one (%s)',
    async (call) => {
      await begun({ a: 1 }, { maxAge: null, store: open({ ttl: 60 }) });
      const before = await row();
      const session = await loaded(open({ ttl: 120 }), sid);
      const store = open({ ttl: 120 });
      await store[call](sid, ending(await loaded(store, sid)));
      const after = await row();
      expect(after?.versions).toBe(1);
      expect((after?.expires ?? 0) - (before?.expires ?? 0)).toBeGreaterThanOrEqual(60_000);
      expect(session.cookie.expires).toBeNull();
      expect((await cookieOf()).expires).toBeNull();
    },
  );

  test.each(calls)(
    'writes data if the lifetime changed, as for “remember me” (%s)',
    async (call) => {
      await begun({ a: 1 });
      const session = await loaded(here, sid);
      session.cookie.maxAge = 30 * 24 * hour;
      await here[call](sid, session);
      expect(await row()).toMatchObject({ versions: 2 });
      expect(await cookieOf()).toMatchObject({ originalMaxAge: 30 * 24 * hour });
      const next = ending(await loaded(there, sid));
      expect(next.cookie.maxAge).toBeGreaterThan(29 * 24 * hour);
    },
  );

  test.each(calls)('writes data if the expiry was removed or added (%s)', async (call) => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.cookie.expires = null;
    await here[call](sid, session);
    expect(await row()).toMatchObject({ versions: 2 });
    expect(await cookieOf()).toMatchObject({ expires: null });
    const again = await loaded(there, sid);
    again.cookie.expires = new Date(Date.now() + hour);
    await there[call](sid, again);
    expect(await row()).toMatchObject({ versions: 3, expires: again.cookie.expires.getTime() });
    expect(await cookieOf()).toMatchObject({ expires: again.cookie.expires.toISOString() });
  });

  test.each(calls)('writes data if the expiry was shortened (%s)', async (call) => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.cookie.expires = new Date(Date.now() + hour / 2);
    session.cookie.originalMaxAge = hour;
    await here[call](sid, session);
    expect(await row()).toMatchObject({ versions: 2, expires: session.cookie.expires.getTime() });
  });

  test.each(calls)(
    'writes data if this request shortened the expiry after it had extended it (%s)',
    async (call) => {
      await begun({ a: 1 });
      const session = await loaded(here, sid);
      const end = (hours: number) => {
        session.cookie.expires = new Date(Date.now() + hours * hour);
        session.cookie.originalMaxAge = hour;
        return session;
      };
      await here.touch(sid, end(4));
      await here[call](sid, end(3));
      expect(await row()).toMatchObject({ expires: session.cookie.expires?.getTime() });
      await here.set(sid, Object.assign(end(6), { a: 2 }));
      await here[call](sid, end(5));
      expect(await row()).toMatchObject({
        expires: session.cookie.expires?.getTime(),
        data: { a: 2 },
      });
    },
  );

  test.each([false, true])(
    'shortens the expiry if it follows a touch that nobody awaited (cache: %s)',
    async (cache) => {
      await begun({ a: 1 });
      const store = open({ cache });
      await store.ready();
      if (cache) await expect.poll(() => store.stats().sync).toBe('up');
      const session = await loaded(store, sid);
      const end = (hours: number) => {
        session.cookie.expires = new Date(Date.now() + hours * hour);
        session.cookie.originalMaxAge = hour;
        return session;
      };
      // The touches wait for the read, and become one.
      const reading = store.get(sid);
      const touching = [store.touch(sid, end(4)), store.touch(sid, end(3))];
      const saving = store.set(sid, Object.assign(end(0.1), { a: 2 }));
      await Promise.all([reading, ...touching, saving]);
      expect(await row()).toMatchObject({ expires: session.cookie.expires?.getTime() });
      await Promise.all([store.get(sid), store.touch(sid, end(4)), store.touch(sid, end(3))]);
      await store.set(sid, Object.assign(end(2), { a: 3 }));
      expect(await row()).toMatchObject({ expires: session.cookie.expires?.getTime() });
    },
  );

  test.each(calls)(
    'writes data if the cookie was changed before the request got it (%s)',
    async (call) => {
      await begun({ a: 1 });
      const read = await here.get(sid);
      if (read === undefined) throw new Error('no session');
      read.cookie.sameSite = 'strict';
      const request = { sessionID: sid, sessionStore: here } as never;
      const session = here.createSession(request, read);
      session.cookie.expires = new Date(Date.now() + hour);
      session.cookie.originalMaxAge = hour;
      await here[call](sid, session);
      expect(await row()).toMatchObject({ versions: 2, data: { cookie: { sameSite: 'strict' } } });
    },
  );

  test.each(calls)('writes data if an empty expiry becomes a date (%s)', async (call) => {
    const stored = foreign({ a: 1 }, 48 * hour);
    Object.assign(stored.cookie, { expires: '' });
    await here.set(sid, stored);
    const session = await loaded(there, sid);
    session.cookie.expires = new Date(Date.now() + 48 * hour);
    session.cookie.originalMaxAge = 48 * hour;
    await there[call](sid, session);
    const expires = session.cookie.expires.toISOString();
    expect(await row()).toMatchObject({ versions: 2, data: { cookie: { expires } } });
  });

  test.each(calls)('writes data if another field of the cookie changed (%s)', async (call) => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.cookie.path = '/app';
    await here[call](sid, ending(session));
    expect(await row()).toMatchObject({ versions: 2, data: { cookie: { path: '/app' } } });
  });

  test.each(calls)('writes data if a changed cookie is changed back (%s)', async (call) => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.cookie.path = '/app';
    await here.set(sid, ending(session));
    session.cookie.path = '/';
    await here[call](sid, ending(session));
    expect(await row()).toMatchObject({ versions: 3, data: { cookie: { path: '/' } } });
  });

  test.each(calls)('writes data if a field of the cookie was removed (%s)', async (call) => {
    const fresh = generated(here, sid, { maxAge: hour, sameSite: 'lax' });
    await here.set(sid, fresh);
    const session = await loaded(here, sid);
    Reflect.deleteProperty(session.cookie, 'sameSite');
    await here[call](sid, ending(session));
    expect(await row()).toMatchObject({ versions: 2 });
    expect(await cookieOf()).not.toHaveProperty('sameSite');
  });

  test.each(calls)('compares what toJSON of the cookie returns (%s)', async (call) => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    const { data } = session.cookie as unknown as { data: object };
    Object.assign(session.cookie, { toJSON: () => ({ ...data, domain: 'example.com' }) });
    await here[call](sid, ending(session));
    expect(await row()).toMatchObject({ versions: 2, data: { cookie: { domain: 'example.com' } } });
  });

  test.each([
    { name: 'an object', field: { partitioned: { by: 'site' } } },
    { name: 'a brace and an escaped quotation mark', field: { domain: 'a"}b' } },
  ])('changes a stored cookie that holds $name', async ({ field }) => {
    const stored = foreign({ a: 1 });
    Object.assign(stored.cookie, field);
    await here.set(sid, stored);
    const session = await loaded(there, sid);
    session.cookie.path = '/app';
    await there.touch(sid, ending(session));
    const cookie = { path: '/app', ...field };
    expect(await row()).toMatchObject({ versions: 2, data: { cookie, a: 1 } });
  });

  test('is sent as a touch if the session lacks keys that Session drops', async () => {
    await here.set(sid, foreign({ id: 'of the app', a: 1 }));
    const session = await loaded(there, sid);
    await there.set(sid, ending(session));
    expect(await row()).toMatchObject({ versions: 1, data: { id: 'of the app' } });
  });

  test.each(calls)(
    'is sent as a touch if the lifetime differs only by the time between two readings of the clock (%s)',
    async (call) => {
      await begun({ a: 1 });
      const session = await loaded(here, sid);
      session.cookie.expires = new Date(Date.now() + hour);
      session.cookie.originalMaxAge = hour - 2;
      await here[call](sid, session);
      expect(await row()).toMatchObject({ versions: 1 });
    },
  );

  test('moves the expiry in a set, but not in a touch, with disableTouch', async () => {
    await begun({ a: 1 }, { maxAge: hour });
    const store = open({ disableTouch: true });
    const before = await row();
    const session = await loaded(store, sid);
    session.cookie.expires = new Date(Date.now() + 2 * hour);
    session.cookie.originalMaxAge = hour;
    await store.touch(sid, session);
    expect(await row()).toEqual(before);
    await store.set(sid, session);
    expect(await row()).toEqual({ ...before, expires: session.cookie.expires.getTime() });
  });

  test('writes only a new cookie in a touch, not what a handler changed and did not save', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.a = 2;
    session.cookie.maxAge = 2 * hour;
    await here.touch(sid, session);
    expect(await content()).toEqual({ a: 1 });
    await here.set(sid, session);
    expect(await content()).toEqual({ a: 2 });
  });

  test('keeps what a save wrote that nobody awaited, in a touch with a new cookie', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    session.b = 2;
    const saved = here.set(sid, session);
    session.cookie.maxAge = 2 * hour;
    await here.touch(sid, session);
    await saved;
    expect(await content()).toEqual({ a: 1, b: 2 });
    expect(await cookieOf()).toMatchObject({ originalMaxAge: 2 * hour });
  });

  test('does not bring back an ended session, and is counted as dropped', async () => {
    await begun({ a: 1 });
    const [saving, touching] = [await loaded(here, sid), await loaded(here, sid)];
    await there.destroy(sid);
    const before = await row();
    await here.set(sid, ending(saving));
    await here.touch(sid, ending(touching));
    expect(await row()).toEqual(before);
    expect(counts(here)).toEqual({ merges: 0, dropped: 2 });
  });

  test('saves a session that expired while its request ran in a set, but not in a touch', async () => {
    await begun({ a: 1 });
    const [saving, touching] = [await loaded(here, sid), await loaded(here, sid)];
    await expire();
    await here.touch(sid, ending(touching));
    expect(await here.get(sid)).toBeUndefined();
    await here.set(sid, ending(saving));
    expect(await content()).toEqual({ a: 1 });
  });
});

describe('an expiry that two requests move', () => {
  /** A request that loaded its session and will move its expiry by so much. */
  async function moving(store: DrizzleStore, by: number): Promise<RequestSession> {
    const session = await loaded(store, sid);
    session.cookie.expires = new Date(Date.now() + by);
    session.cookie.originalMaxAge = hour;
    return session;
  }

  test('is the later one, even if the earlier touch comes last: a stream moved it when it began', async () => {
    await begun();
    const [stream, click] = [await moving(here, hour), await moving(there, 3 * hour)];
    await there.touch(sid, click);
    await here.touch(sid, stream);
    expect((await row())?.expires).toBe(click.cookie.expires?.getTime());
  });

  test('is the later one, even if the earlier touch comes last in one process, waiting for its turn', async () => {
    await begun();
    const sessions = [
      await moving(here, hour),
      await moving(here, 3 * hour),
      await moving(here, 2 * hour),
    ];
    await Promise.all(sessions.map((session) => here.touch(sid, session)));
    expect((await row())?.expires).toBe(sessions[1]?.cookie.expires?.getTime());
  });

  test('is the later one if a save comes after a touch', async () => {
    await begun();
    const [slow, click] = [await moving(here, 2 * hour), await moving(there, 3 * hour)];
    await there.touch(sid, click);
    slow.a = 1;
    await here.set(sid, slow);
    expect(await row()).toMatchObject({ versions: 2, expires: click.cookie.expires?.getTime() });
  });

  test('is the later one if both save', async () => {
    await begun();
    for (const [first, second] of [
      [3 * hour, 2 * hour],
      [4 * hour, 5 * hour],
    ] as const) {
      const [mine, theirs] = [await moving(here, second), await moving(there, first)];
      await there.set(sid, Object.assign(theirs, { theirs: first }));
      await here.set(sid, Object.assign(mine, { mine: second }));
      const later = first > second ? theirs : mine;
      expect((await row())?.expires).toBe(later.cookie.expires?.getTime());
      expect(await cookieOf()).toMatchObject({ expires: later.cookie.expires?.toISOString() });
    }
  });

  test('stays as another request shortened it if a save in the middle of a request did not move it', async () => {
    await begun();
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    theirs.cookie.maxAge = hour / 2;
    await there.set(sid, theirs);
    mine.a = 1;
    await here.set(sid, mine);
    expect((await row())?.expires).toBe(theirs.cookie.expires?.getTime());
  });

  test('stays as a touch left it if a save in the middle of a request did not move it', async () => {
    await begun();
    const [mine, theirs] = [await loaded(here, sid), await moving(there, 3 * hour)];
    await there.touch(sid, theirs);
    mine.a = 1;
    await here.set(sid, mine);
    expect((await row())?.expires).toBe(theirs.cookie.expires?.getTime());
  });

  test('stays as a touch left it if update() changes the session meanwhile', async () => {
    await begun({ count: 1 });
    const theirs = await moving(there, 3 * hour);
    await here.update(sid, async (session) => {
      Reflect.set(session, 'count', 2);
      await there.touch(sid, theirs);
    });
    expect(await content()).toEqual({ count: 2 });
    expect((await row())?.expires).toBe(theirs.cookie.expires?.getTime());
  });

  test('is not moved by a touch of an earlier session of the same sid', async () => {
    await begun();
    const slow = await moving(here, 9 * hour);
    await there.destroy(sid);
    await begun({}, { store: there });
    const before = await row();
    await here.touch(sid, slow);
    await here.set(sid, slow);
    expect(await row()).toEqual(before);
    expect(counts(here)).toEqual({ merges: 0, dropped: 2 });
  });

  test('is the one of a foreign object, even if it is earlier', async () => {
    await begun();
    const other = foreign({}, hour / 2);
    await here.touch(sid, other);
    expect((await row())?.expires).toBe(other.cookie.expires?.getTime());
    expect(await row()).toMatchObject({ versions: 1 });
  });

  test('is not restored by a touch after another request removed it: “remember me” was switched off', async () => {
    await begun();
    const [slow, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    theirs.cookie.expires = null;
    await there.set(sid, theirs);
    slow.a = 1;
    await here.set(sid, ending(slow));
    expect(await cookieOf()).toMatchObject({ expires: null, originalMaxAge: null });
  });
});

describe('a session that a request generated', () => {
  test('is inserted', async () => {
    await begun({ a: 1 });
    expect(await content()).toEqual({ a: 1 });
    expect(await row()).toMatchObject({ versions: 1, revoked: false });
  });

  test('overwrites a session with the same sid and starts a new history', async () => {
    await begun({ a: 1 });
    const before = await row();
    const old = await loaded(here, sid);
    await begun({ b: 1 }, { store: there });
    const after = await row();
    expect(await content()).toEqual({ b: 1 });
    expect(after?.versions).toBe(2);
    expect(after?.created).not.toBe(before?.created);
    await here.set(sid, ending(Object.assign(old, { a: 2 })));
    expect(await content()).toEqual({ b: 1 });
  });

  test('overwrites a tombstone', async () => {
    await begun({ a: 1 });
    await here.destroy(sid);
    await begun({ b: 1 }, { store: there });
    expect(await content()).toEqual({ b: 1 });
    expect(await row()).toMatchObject({ versions: 3, revoked: false });
  });

  test('is merged and never brought back after its first save, like a loaded one', async () => {
    const session = generated(here, sid);
    session.a = 1;
    await here.set(sid, session);
    const theirs = await loaded(there, sid);
    await there.set(sid, ending(Object.assign(theirs, { b: 1 })));
    await here.set(sid, ending(Object.assign(session, { a: 2 })));
    expect(await content()).toEqual({ a: 2, b: 1 });
    await there.destroy(sid);
    await here.set(sid, ending(Object.assign(session, { a: 3 })));
    expect(await content()).toBeUndefined();
  });

  test('stays destroyed if it was destroyed before its first save ended', async () => {
    const session = generated(here, sid);
    const saved = here.set(sid, session);
    const destroyed = here.destroy(sid);
    await Promise.all([saved, destroyed]);
    expect(await here.get(sid)).toBeUndefined();
    expect(await row()).toMatchObject({ revoked: true });
  });
});

describe('a foreign object', () => {
  test('is inserted or overwrites: the last one wins', async () => {
    await here.set(sid, foreign({ a: 1 }));
    await there.set(sid, foreign({ b: 1 }));
    expect(await content()).toEqual({ b: 1 });
    expect(await row()).toMatchObject({ versions: 2 });
  });

  test('never overwrites a tombstone, and is counted as dropped', async () => {
    await here.set(sid, foreign({ a: 1 }));
    await there.destroy(sid);
    await here.set(sid, foreign({ a: 2 }));
    expect(await here.get(sid)).toBeUndefined();
    expect(counts(here)).toEqual({ merges: 0, dropped: 1 });
  });

  test('creates the session again after the tombstone was pruned: nothing records the log-out', async () => {
    await here.set(sid, foreign({ a: 1 }));
    await there.destroy(sid);
    await pruned();
    await here.set(sid, foreign({ a: 2 }));
    expect(await content()).toEqual({ a: 2 });
  });

  test('is merged after its first save, like a loaded one', async () => {
    const mine = foreign({ a: 1 });
    await here.set(sid, mine);
    const theirs = await loaded(there, sid);
    await there.set(sid, ending(Object.assign(theirs, { b: 1 })));
    await here.set(sid, Object.assign(mine, { a: 2 }));
    expect(await content()).toEqual({ a: 2, b: 1 });
  });
});

describe('a session from get() without a request', () => {
  test('is merged key by key, whatever the names of the keys', async () => {
    await begun({});
    await here.set(sid, foreign({ id: 1, save: 1, constructor: 1, a: 1 }));
    const [mine, theirs] = [await here.get(sid), await there.get(sid)];
    if (mine === undefined || theirs === undefined) throw new Error('no session');
    await there.set(sid, Object.assign(theirs, { a: 2 }));
    await here.set(sid, Object.assign(mine, { id: 2, save: 2, constructor: 2 }));
    expect(await content()).toEqual({ id: 2, save: 2, constructor: 2, a: 2 });
  });

  test('is written if only a key changed that a Session would drop', async () => {
    await here.set(sid, foreign({ id: 1 }));
    const session = await there.get(sid);
    if (session === undefined) throw new Error('no session');
    await there.set(sid, Object.assign(session, { id: 2 }));
    expect(await content()).toEqual({ id: 2 });
  });
});

describe('keys that a Session drops when it is loaded', () => {
  test.each(['id', 'req', 'save', 'constructor', 'toString'])(
    'include %s, which counts as unchanged: a touch stays a touch, a merge keeps it',
    async (key) => {
      await here.set(sid, foreign({ [key]: 'kept', a: 1 }));
      const before = await row();
      await here.touch(sid, ending(await loaded(here, sid)));
      expect(await row()).toMatchObject({ versions: before?.versions });
      const mine = await loaded(here, sid);
      const theirs = await there.get(sid);
      if (theirs === undefined) throw new Error('no session');
      await there.set(sid, Object.assign(theirs, { b: 1 }));
      await here.set(sid, ending(Object.assign(mine, { a: 2 })));
      expect(await content()).toEqual({ [key]: 'kept', a: 2, b: 1 });
    },
  );
});

describe('destroy', () => {
  test('leaves a tombstone without data for an hour', async () => {
    await begun({ a: 1 });
    await here.destroy(sid);
    const left = (await row())?.expires ?? 0;
    expect(await row()).toMatchObject({ revoked: true, data: null, versions: 2 });
    expect(Math.abs(left - Date.now() - hour)).toBeLessThan(60_000);
    await here.pruneSessions();
    expect(await row()).toBeDefined();
  });

  test('writes nothing if there is no session', async () => {
    await here.destroy(sid);
    expect(await row()).toBeUndefined();
  });

  test('leaves a tombstone of an expired session, so that no request in flight saves it', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    await expire();
    await there.destroy(sid);
    await here.set(sid, ending(Object.assign(session, { a: 2 })));
    expect(await here.get(sid)).toBeUndefined();
    expect(await row()).toMatchObject({ revoked: true });
  });

  test('is not undone by a touch of any object', async () => {
    await begun({ a: 1 });
    const session = await loaded(here, sid);
    await there.destroy(sid);
    const before = await row();
    await here.touch(sid, ending(session));
    await here.touch(sid, foreign());
    await here.touch(sid, generated(here, sid));
    expect(await row()).toEqual(before);
  });
});

describe('clear', () => {
  test('ends sessions for requests in flight, too', async () => {
    const own = open({ tableName: 'cleared', createTableIfMissing: true });
    await own.set(sid, generated(own, sid));
    const session = await loaded(own, sid);
    await own.clear();
    await own.set(sid, ending(Object.assign(session, { a: 1 })));
    expect(await own.get(sid)).toBeUndefined();
    expect(counts(own)).toEqual({ merges: 0, dropped: 1 });
  });
});

describe('calls about many sessions', () => {
  test('include the sessions that this process has just set, revokeUser() too', async () => {
    const store = open({ userId: (session) => Reflect.get(session, 'user') });
    const other = randomUUID();
    void store.set(sid, foreign({ user: sid }));
    void store.set(other, foreign({ user: sid }));
    expect(await store.revokeUser(sid, { except: other })).toBe(1);
    expect(await store.get(sid)).toBeUndefined();
    expect(await store.get(other)).toBeDefined();
  });

  test('do not wait for a write that waits for a lock', async () => {
    await begun();
    const store = open({ timeout: 10, errorLog: () => {} });
    const session = await loaded(store, sid);
    const locking = await database.pool().connect();
    await locking.query('begin');
    await locking.query('select from sessions where id = $1 for update', [idOf(sid)]);
    const setting = store.set(sid, Object.assign(session, { a: 1 }));
    let isSet = false;
    void setting.then(() => (isSet = true));
    expect(await store.ids()).toContain(idOf(sid));
    expect(isSet).toBe(false);
    await locking.query('rollback');
    locking.release();
    await setting;
  });
});

describe('update', () => {
  const increment = (session: SessionData) => {
    Reflect.set(session, 'count', Number(Reflect.get(session, 'count')) + 1);
  };

  test('loses none of forty increments from two processes, unlike set', async () => {
    await begun({ count: 0 });
    const calls = Array.from({ length: 20 }, () => [here, there]).flat();
    await Promise.all(calls.map((store) => store.update(sid, increment)));
    expect(await content()).toEqual({ count: 40 });
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    increment(mine);
    increment(theirs);
    await there.set(sid, ending(theirs));
    await here.set(sid, ending(mine));
    expect(await content()).toEqual({ count: 41 });
  });

  test('runs its function again on what another process stored meanwhile', async () => {
    await begun({ count: 1 });
    const seen: unknown[] = [];
    await here.update(sid, async (session) => {
      seen.push(Reflect.get(session, 'count'));
      if (seen.length === 1) await there.update(sid, increment);
      increment(session);
    });
    expect(seen).toEqual([1, 2]);
    expect(await content()).toEqual({ count: 3 });
  });

  test('saves and returns what the function changed or returned', async () => {
    await begun({ a: 1 });
    expect(await here.update(sid, (session) => void Reflect.set(session, 'a', 2))).toMatchObject({
      a: 2,
    });
    expect(await here.update(sid, (session) => foreign({ b: session.cookie.path }))).toMatchObject({
      b: '/',
    });
    expect(await content()).toEqual({ b: '/' });
  });

  test('returns undefined and does not run the function if there is no live session', async () => {
    const run = () => {
      throw new Error('it ran');
    };
    expect(await here.update(sid, run)).toBeUndefined();
    await begun();
    await expire();
    expect(await here.update(sid, run)).toBeUndefined();
    await here.destroy(sid);
    expect(await here.update(sid, run)).toBeUndefined();
  });

  test('returns undefined and revives nothing if the session was ended while the function ran', async () => {
    await begun({ count: 1 });
    const result = await here.update(sid, async (session) => {
      await there.destroy(sid);
      increment(session);
    });
    expect(result).toBeUndefined();
    expect(await here.get(sid)).toBeUndefined();
  });

  test('writes nothing if the function fails', async () => {
    await begun({ count: 1 });
    const failing = open({ errorLog: () => {} }).update(sid, (session) => {
      increment(session);
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    expect(await content()).toEqual({ count: 1 });
  });

  test.each([
    ['a number', (cart: unknown[]) => cart.push('book')],
    ['a boolean', () => false],
    ['a string', () => 'secret'],
    ['an array', (cart: unknown[]) => cart],
    ['a function', () => () => {}],
  ])('writes nothing if the function returns %s, as untyped code can', async (kind, change) => {
    await begun({ cart: ['pen'], user: 'ada' });
    const untyped: (session: SessionData) => unknown = (session) =>
      change(Reflect.get(session, 'cart'));
    const failing = open({ errorLog: () => {} }).update(sid, untyped as () => undefined);
    await expect(failing).rejects.toThrow(
      new InvalidArgumentError(
        `The function passed to update() must return a session or nothing, but returned ${kind}`,
      ),
    );
    expect(await content()).toEqual({ cart: ['pen'], user: 'ada' });
  });

  test('fails with ConflictError, as a set does, if others are first at every try', async () => {
    await begun({ count: 1 });
    let isLate = false;
    const gated = gatedPool(database.pool(), async (query, text) => {
      const isSave = text.includes('update "sessions"');
      if (isLate && isSave) await database.query('update sessions set version = version + 1');
      return query();
    });
    await using store = new DrizzleStore(gated, {
      pruneSessionInterval: false,
      errorLog: () => {},
      timeout: 600,
    });
    const mine = await loaded(store, sid);
    isLate = true;
    await expect(store.update(sid, increment)).rejects.toMatchObject({ code: 'ERR_CONFLICT' });
    await expect(store.set(sid, ending(Object.assign(mine, { a: 1 })))).rejects.toThrow(
      ConflictError,
    );
    expect(await content()).toEqual({ count: 1 });
  }, 600_000);

  test('blocks no other call while its function runs', async () => {
    await begun({ count: 1 });
    const [inside, leave] = [gate(), gate()];
    const slow = here.update(sid, async (session) => {
      inside.open();
      await leave.opened;
      increment(session);
    });
    await inside.opened;
    const mine = await loaded(here, sid);
    await here.set(sid, ending(Object.assign(mine, { a: 1 })));
    leave.open();
    await slow;
    expect(await content()).toEqual({ count: 2, a: 1 });
  });

  test('is merged with the save of a request in flight, like any other write', async () => {
    await begun({ count: 1 });
    const mine = await loaded(here, sid);
    await there.update(sid, increment);
    await here.set(sid, ending(Object.assign(mine, { a: 1 })));
    expect(await content()).toEqual({ count: 2, a: 1 });
  });

  test('returns an object that can be saved again', async () => {
    await begun({ count: 1 });
    const session = await here.update(sid, increment);
    if (session === undefined) throw new Error('no session');
    await there.update(sid, increment);
    await here.set(sid, Object.assign(session, { a: 1 }));
    expect(await content()).toEqual({ count: 3, a: 1 });
  });
});

test('thirty thousand requests leave nothing in memory', async () => {
  const program = await bundleProgram({ file: 'heap.ts' });
  const run = launch(process.execPath, ['--expose-gc', program, '30000'], {
    env: { DATABASE_URL: database.url },
  });
  expect(await run.ended).toBe(0);
  const [stats = '', ...heaps] = run.output.trim().split('\n').reverse();
  expect(JSON.parse(stats).merges).toBeGreaterThan(1000);
  const [last = 0, , , , , , , , second = 0] = heaps.map(Number);
  expect(heaps).toHaveLength(10);
  // A few bytes per request; an origin has hundreds.
  expect(last - second).toBeLessThan(1_000_000);
}, 600_000);

describe('with a cache', () => {
  beforeEach(async () => {
    [here, there] = [open({ cache: true }), open({ cache: true })];
    for (const store of [here, there]) {
      while (store.stats().sync !== 'up') await once(store, 'sync');
    }
  });

  test('a session that it served is saved like any other: changes are merged, log-outs hold', async () => {
    await begun({ a: 1 });
    await loaded(here, sid);
    const mine = await loaded(here, sid);
    expect(here.stats().hits).toBeGreaterThan(0);
    const theirs = await loaded(there, sid);
    await there.set(sid, ending(Object.assign(theirs, { b: 1 })));
    await here.set(sid, ending(Object.assign(mine, { a: 2 })));
    expect(await content(open())).toEqual({ a: 2, b: 1 });
    await there.destroy(sid);
    await here.set(sid, ending(Object.assign(mine, { a: 3 })));
    expect(await content(open())).toBeUndefined();
    expect(await row()).toMatchObject({ revoked: true });
  });

  test('an expiry does not move back', async () => {
    await begun();
    const sessions = [await loaded(here, sid), await loaded(here, sid)];
    const ends = [3 * hour, 2 * hour].map((by) => new Date(Date.now() + by));
    for (const [at, session] of sessions.entries()) {
      session.cookie.expires = ends[at] ?? null;
      session.cookie.originalMaxAge = hour;
      await here.touch(sid, session);
    }
    const { hits } = here.stats();
    expect(await cookieOf(here)).toMatchObject({ expires: ends[0]?.toISOString() });
    expect(here.stats().hits).toBe(hits + 1);
  });
});

describe('with encryption', () => {
  test('sessions are merged, and touches write no data', async () => {
    const encryptionKeys = ['00'.repeat(32)];
    [here, there] = [open({ encryptionKeys }), open({ encryptionKeys })];
    await begun({ a: 1 });
    const before = await row();
    await here.set(sid, ending(await loaded(here, sid)));
    expect((await row())?.versions).toBe(before?.versions);
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    await there.set(sid, ending(Object.assign(theirs, { b: 1 })));
    await here.set(sid, ending(Object.assign(mine, { c: 1 })));
    expect(await content()).toEqual({ a: 1, b: 1, c: 1 });
  });
});

describe('with a serializer', () => {
  /** Keeps dates and sets, which JSON does not. */
  const serializer = {
    stringify: (session: object) => JSON.stringify(packed(session)),
    parse: (text: string): unknown => unpacked(JSON.parse(text)),
  };

  function packed(value: unknown): unknown {
    if (value instanceof Date) return { $date: value.getTime() };
    if (value instanceof Set) return { $set: [...value].map(packed) };
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, packed(inner)]));
  }

  function unpacked(value: unknown): unknown {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    if ('$date' in value) return new Date(Number(value.$date));
    if ('$set' in value && Array.isArray(value.$set)) return new Set(value.$set);
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unpacked(inner)]));
  }

  beforeEach(() => {
    [here, there] = [open({ serializer }), open({ serializer })];
  });

  test('values that are not plain objects are merged as a whole, and are equal if their text is', async () => {
    const at = new Date(1);
    await begun({ at, tags: new Set(['x']), deep: { at, n: 1 } });
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    Object.assign(theirs, { tags: new Set(['x', 'theirs']), deep: { at, n: 2 } });
    await there.set(sid, ending(theirs));
    Object.assign(mine, { at: new Date(2), deep: { at: new Date(3), n: 1 } });
    await here.set(sid, ending(mine));
    expect(await content()).toEqual({
      at: new Date(2),
      tags: new Set(['x', 'theirs']),
      deep: { at: new Date(3), n: 2 },
    });
  });

  test('an error that it throws in a touch fails that touch, and no later call of the session', async () => {
    await begun({ a: 1 });
    let left = Number.POSITIVE_INFINITY;
    const failing = open({
      errorLog: () => {},
      serializer: {
        ...serializer,
        stringify(session) {
          if (left === 0) throw new Error('no');
          left -= 1;
          return serializer.stringify(session);
        },
      },
    });
    const session = await loaded(failing, sid);
    session.cookie.maxAge = 2 * hour;
    // It is serialized at the call, and again when its turn comes.
    left = 1;
    await expect(failing.touch(sid, session)).rejects.toThrow(NotSerializableError);
    expect(await content(failing)).toEqual({ a: 1 });
  });

  test('a touch writes no data, and the cookie has the expiry of the row', async () => {
    await begun({ at: new Date(1) });
    const session = await loaded(here, sid);
    session.cookie.expires = new Date(Date.now() + 2 * hour);
    session.cookie.originalMaxAge = hour;
    await here.set(sid, session);
    expect(await row()).toMatchObject({ versions: 1 });
    expect(await cookieOf()).toMatchObject({ expires: session.cookie.expires });
  });
});
