import { createRequire } from 'node:module';
import { DrizzleStore, type DrizzleStoreOptions, idOf } from 'connect-drizzle';
import express from 'express';
import session, { MemoryStore, type SessionData, type Store } from 'express-session';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { asSql, guide, importScript } from './support/guide.js';
import { type Browser, type Site, serve } from './support/http.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, endOf, sessionWith } from './support/sessions.js';

/** connect-pg-simple has no types of its own. */
const connectPgSimple: (
  library: typeof session,
) => new (
  options: object,
) => Store & { close(): Promise<void>; pruneSessions(done: (error?: unknown) => void): void } =
  createRequire(import.meta.url)('connect-pg-simple');

/** The SQL of the guide for this app. */
const importSessions = asSql(
  importScript({
    source: 'session',
    target: 'sessions',
    user_path: '{userId}',
    zone: 'America/St_Johns',
  }),
);

const minutes = 60_000;
const undo: (() => unknown)[] = [];
let database: ReusedDatabase;

beforeAll(async () => {
  // With this setting, connect-pg-simple stores times that are not in UTC.
  database = await reusedDatabase({ settings: { TimeZone: 'America/St_Johns' } });
});

afterAll(() => database.drop());

afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
  await database.clear();
});

type Owned = SessionData & { userId?: string };

/** The app on a given store. */
async function appOn(store: Store): Promise<Site> {
  const app = express();
  app.use(express.json());
  app.use(
    session({
      store,
      secret: 'one secret before and after',
      name: 'shop',
      resave: false,
      saveUninitialized: false,
      cookie: { maxAge: 30 * minutes },
    }),
  );
  app.get('/', (request, response) => {
    response.json({ sid: request.sessionID, ...contentOf(request.session) });
  });
  app.post('/login', (request, response, next) => {
    request.session.regenerate((error) => {
      if (error) return next(error);
      Object.assign(request.session, request.body);
      response.end();
    });
  });
  app.post('/visit', (request, response) => {
    const visits = Number(Reflect.get(request.session, 'visits') ?? 0);
    Object.assign(request.session, { visits: visits + 1 });
    response.end();
  });
  app.post('/logout', (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.end()));
  });
  const site = await serve(app);
  undo.push(() => site.close());
  return site;
}

function peer(): InstanceType<ReturnType<typeof connectPgSimple>> {
  const PgStore = connectPgSimple(session);
  const store = new PgStore({
    pool: database.pool(),
    createTableIfMissing: true,
    pruneSessionInterval: false,
  });
  undo.push(() => store.close());
  return store;
}

async function ours(options: DrizzleStoreOptions = {}): Promise<DrizzleStore> {
  const store = new DrizzleStore(database.pool(), {
    pruneSessionInterval: false,
    userId: (data: Owned) => data.userId,
    ...options,
  });
  undo.push(() => store.close());
  await store.migrate();
  return store;
}

/** A browser with the same cookies on another site. */
function moved(browser: Browser, site: Site): Browser {
  const other = site.browser();
  for (const [name, value] of browser.cookies) other.cookies.set(name, value);
  return other;
}

async function idsOf(store: DrizzleStore, userId: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of store.sessions({ userId })) ids.push(id);
  return ids;
}

async function seenBy(browser: Browser): Promise<Record<string, unknown>> {
  return (await browser.get('/')).json();
}

describe('from connect-pg-simple', () => {
  test('the script moves the sessions, so that users stay logged in', async () => {
    const before = await appOn(peer());
    const people = {
      ada: { userId: 'ada', cart: { apples: 3, list: [1, null, 'é🙈'] } },
      bob: { userId: 'bob', note: 'a "quoted" \\ text\u001f' },
      eve: { userId: 'eve' },
      gone: { userId: 'gone' },
    };
    const browsers = new Map<string, Browser>();
    for (const [name, content] of Object.entries(people)) {
      const browser = before.browser();
      await browser.post('/login', content);
      browsers.set(name, browser);
    }
    const at = (name: string) => {
      const browser = browsers.get(name);
      if (browser === undefined) throw new Error(`no ${name}`);
      return browser;
    };
    const anonymous = before.browser();
    await anonymous.post('/visit');
    await at('eve').post('/logout');
    const seen = new Map<string, Record<string, unknown>>();
    for (const [name, browser] of browsers) seen.set(name, await seenBy(browser));
    const expiries = await database.query<{ sid: string; ms: number }>(
      `select sid, extract(epoch from expire::timestamptz)::float8 * 1000 as ms from session`,
    );
    await database.query(`update session set expire = now() - interval '1 minute' where sid = $1`, [
      seen.get('gone')?.sid,
    ]);
    await before.close();

    const store = await ours();
    await database.query(importSessions);
    const after = await appOn(store);
    for (const name of ['ada', 'bob']) {
      const browser = moved(at(name), after);
      expect(await seenBy(browser)).toEqual(seen.get(name));
      await browser.post('/visit');
      expect(await seenBy(browser)).toEqual({ ...seen.get(name), visits: 1 });
    }
    const stranger = moved(anonymous, after);
    await stranger.post('/visit');
    expect(await seenBy(stranger)).toMatchObject({ visits: 2 });
    for (const name of ['eve', 'gone']) {
      expect(await seenBy(moved(at(name), after))).not.toHaveProperty('userId');
    }

    // The rows look like those that the store writes.
    const sids = ['ada', 'bob'].map((name) => String(seen.get(name)?.sid));
    const stored = await database.query<{ id: string }>(
      'select id, sessions::text as row from sessions',
    );
    expect(stored.map(({ id }) => id)).toEqual(expect.arrayContaining(sids.map(idOf)));
    expect(stored).toHaveLength(3);
    for (const sid of sids) expect(JSON.stringify(stored)).not.toContain(sid);
    expect(await store.length()).toBe(3);
    for (const { sid, ms } of expiries.filter((each) => sids.includes(each.sid))) {
      // The requests above have touched the session.
      const end = endOf(await store.get(sid)) ?? 0;
      expect(end).toBeGreaterThan(ms - 1000);
      expect(end).toBeLessThan(ms + minutes);
    }
    expect(await store.revokeUser('ada')).toBe(1);
    expect(await seenBy(moved(at('ada'), after))).not.toHaveProperty('userId');
    await moved(at('bob'), after).post('/logout');
    expect(await seenBy(moved(at('bob'), after))).not.toHaveProperty('userId');
  });

  test('the script keeps the expiry of a session in any time zone', async () => {
    const store = peer();
    const data = sessionWith({ userId: 'ada' }, 600);
    await new Promise((resolve) => store.set('sid', data, resolve));
    const own = await ours();
    await database.query(importSessions);
    const [row] = await database.query<{ ms: number }>(
      'select extract(epoch from expires_at)::float8 * 1000 as ms from sessions',
    );
    // connect-pg-simple rounds up to a second.
    const late = (row?.ms ?? 0) - (endOf(data) ?? 0);
    expect(late).toBeGreaterThanOrEqual(0);
    expect(late).toBeLessThan(1000);
    expect(endOf(await own.get('sid'))).toBe(row?.ms);
  });

  test('a session without a usable maxAge gets the time of the import as its created_at', async () => {
    const old = peer();
    const cookies = [null, 'a day', [], Number.MAX_SAFE_INTEGER];
    for (const [at, originalMaxAge] of cookies.entries()) {
      const data = { cookie: { originalMaxAge }, userId: 'ada' };
      await new Promise((resolve) => Reflect.apply(old.set, old, [`sid ${at}`, data, resolve]));
    }
    await ours();
    await database.query(importSessions);
    const rows = await database.query<{ recent: boolean }>(
      `select created_at between now() - interval '1 minute' and now() as recent from sessions
       where id <> $1`,
      [idOf('sid 3')],
    );
    expect(rows).toEqual(Array(3).fill({ recent: true }));
  });

  test('the script ignores its time zone if the expiry has one', async () => {
    await new Promise((resolve) => peer().set('sid', sessionWith({}, 600), resolve));
    await database.query('alter table session alter column expire type timestamptz');
    await ours();
    await database.query(
      asSql(importScript({ source: 'session', target: 'sessions', zone: 'Asia/Tokyo' })),
    );
    expect(
      await database.query('select expires_at = expire as same from sessions, session'),
    ).toEqual([{ same: true }]);
  });

  test('the script can run again and keeps the changes of the new store', async () => {
    const old = peer();
    const set = (sid: string, data: SessionData) =>
      new Promise((resolve) => old.set(sid, data, resolve));
    for (const sid of ['changed', 'ended', 'untouched'])
      await set(sid, sessionWith({ userId: sid }));
    const store = await ours();
    await database.query(importSessions);
    await store.update('changed', (data) => void Object.assign(data, { page: 2 }));
    await store.destroy('ended');
    await set('late', sessionWith({ userId: 'late' }));
    await database.query(importSessions);
    expect(contentOf(await store.get('changed'))).toEqual({ userId: 'changed', page: 2 });
    expect(await store.get('ended')).toBeUndefined();
    expect(contentOf(await store.get('untouched'))).toEqual({ userId: 'untouched' });
    expect(contentOf(await store.get('late'))).toEqual({ userId: 'late' });
    // As if an hour had passed and the tombstone was deleted.
    await database.query('delete from sessions where revoked_at is not null');
    await database.query(importSessions);
    expect(await store.get('ended')).toBeUndefined();
  });

  test('a later run copies the changes of the old store, unless the session has changed in the new one', async () => {
    const old = peer();
    const set = (sid: string, data: SessionData) =>
      new Promise((resolve) => old.set(sid, data, resolve));
    const sids = ['changed', 'touched', 'ended', 'changed in both', 'touched here'];
    for (const sid of sids) await set(sid, sessionWith({ userId: sid }, 600));
    const store = await ours();
    await database.query(importSessions);
    await set('changed', sessionWith({ userId: 'ada', page: 2 }, 900));
    const touched = sessionWith({ userId: 'touched' }, 1200);
    await new Promise<void>((resolve) => {
      if (old.touch === undefined) throw new Error('no touch');
      old.touch('touched', touched, resolve);
    });
    await new Promise((resolve) => old.destroy('ended', resolve));
    await set('changed in both', sessionWith({ userId: 'there' }, 900));
    await store.set('changed in both', sessionWith({ userId: 'here' }, 900));
    const here = await store.get('touched here');
    if (!here) throw new Error('no session');
    const later = sessionWith({}, 1800).cookie;
    await store.touch('touched here', { ...here, cookie: later });
    const end = endOf(await store.get('touched here'));

    await database.query(importSessions);
    expect(contentOf(await store.get('changed'))).toEqual({ userId: 'ada', page: 2 });
    expect(await idsOf(store, 'ada')).toEqual([idOf('changed')]);
    expect(endOf(await store.get('touched'))).toBe(Math.ceil((endOf(touched) ?? 0) / 1000) * 1000);
    expect(await store.get('ended')).toBeUndefined();
    expect(contentOf(await store.get('changed in both'))).toEqual({ userId: 'here' });
    expect(endOf(await store.get('touched here'))).toBe(end);

    await set('changed', sessionWith({ userId: 'ada', page: 3 }, 900));
    await database.query(importSessions);
    expect(contentOf(await store.get('changed'))).toEqual({ userId: 'ada', page: 3 });
  });

  test('a session that the old store has pruned stays logged in if the new store has used it', async () => {
    const old = peer();
    const lifetimes = { expired: 600, 'about to expire': 45, 'logged out': 600 };
    for (const [sid, seconds] of Object.entries(lifetimes))
      await new Promise((resolve) => old.set(sid, sessionWith({ userId: sid }, seconds), resolve));
    const store = await ours();
    await database.query(importSessions);
    for (const sid of Object.keys(lifetimes)) {
      const data = await store.get(sid);
      if (!data) throw new Error(`no ${sid}`);
      await store.touch(sid, { ...data, cookie: sessionWith({}, 1800).cookie });
    }
    await database.query(
      `update session set expire = now() - interval '1 minute' where sid = 'expired'`,
    );
    await database.query(importSessions);
    await new Promise((resolve) => old.pruneSessions(resolve));
    // As a process with a clock ahead of time would prune it.
    await database.query(`delete from session where sid = 'about to expire'`);
    await new Promise((resolve) => old.destroy('logged out', resolve));
    expect(await database.query('select sid from session')).toEqual([]);

    await database.query(importSessions);
    expect(contentOf(await store.get('expired'))).toEqual({ userId: 'expired' });
    expect(contentOf(await store.get('about to expire'))).toEqual({ userId: 'about to expire' });
    expect(await store.get('logged out')).toBeUndefined();
  });

  test('a session with U+0000 is copied, and gets its user with its next change', async () => {
    const old = peer();
    const odd = sessionWith({ userId: 'ada', odd: 'a\0b' });
    await new Promise((resolve) => old.set('odd', odd, resolve));
    await new Promise((resolve) => old.set('even', sessionWith({ userId: 'ada' }), resolve));
    const store = await ours();
    await database.query(importSessions);
    expect(contentOf(await store.get('odd'))).toEqual({ userId: 'ada', odd: 'a\0b' });
    expect(await idsOf(store, 'ada')).toEqual([idOf('even')]);
    await store.update('odd', (data) => void Object.assign(data, { page: 2 }));
    expect(await store.revokeUser('ada')).toBe(2);
  });

  test('a store with the name of the old table fails with an explanation', async () => {
    await new Promise((resolve) => peer().set('sid', sessionWith(), resolve));
    const options = {
      tableName: 'session',
      pruneSessionInterval: false,
      errorLog: () => {},
    } as const;
    for (const createTableIfMissing of [false, true]) {
      const store = new DrizzleStore(database.pool(), { ...options, createTableIfMissing });
      undo.push(() => store.close());
      await expect(store.get('sid')).rejects.toThrow('connect-pg-simple');
    }
    const store = new DrizzleStore(database.pool(), options);
    undo.push(() => store.close());
    await expect(store.migrate()).rejects.toMatchObject({ code: 'ERR_MIGRATION' });
    await expect(store.migrate()).rejects.toThrow('belongs to connect-pg-simple');
    expect(await database.query('select sid from session')).toEqual([{ sid: 'sid' }]);
    // After the old table is dropped, its name can be used.
    await database.query('drop table session');
    const heir = await ours({ tableName: 'session' });
    await heir.set('sid', sessionWith());
    expect(await heir.get('sid')).toBeDefined();
  });
});

test('from any other store, sessions that are saved again under their sids stay logged in', async () => {
  const memory = new MemoryStore();
  const before = await appOn(memory);
  const ada = before.browser();
  await ada.post('/login', { userId: 'ada', cart: ['apples'] });
  const seen = await seenBy(ada);
  await before.close();

  const store = await ours({ encryptionKeys: ['5'.repeat(64)] });
  const old = Object.entries(
    await new Promise<Record<string, SessionData>>((resolve, reject) => {
      memory.all((error, all) =>
        error ? reject(error) : resolve({ ...all } as Record<string, SessionData>),
      );
    }),
  );
  expect(old).toHaveLength(1);
  for (const [sid, data] of old) await store.set(sid, JSON.parse(JSON.stringify(data)));
  const after = await appOn(store);
  expect(await seenBy(moved(ada, after))).toEqual(seen);
  expect(await store.revokeUser('ada')).toBe(1);
});

test('schemaName may be public, as in connect-pg-simple', async () => {
  const store = await ours({ schemaName: 'public', createTableIfMissing: true });
  await store.set('sid', sessionWith({ userId: 'ada' }));
  expect(contentOf(await (await ours()).get('sid'))).toEqual({ userId: 'ada' });
});

test('the next start creates the table again if it was dropped', async () => {
  const store = await ours({ createTableIfMissing: true });
  await store.set('sid', sessionWith());
  await database.query('drop table sessions');
  const next = new DrizzleStore(database.pool(), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
  });
  undo.push(() => next.close());
  await next.set('sid', sessionWith({ page: 1 }));
  expect(contentOf(await next.get('sid'))).toEqual({ page: 1 });
});

// Options of other stores, by package, that the guide says are replaced or not needed.
const options: Record<string, Record<string, unknown>> = {
  'connect-pg-simple': {
    pool: {},
    pgPromise: {},
    conString: 'postgres://localhost/db',
    conObject: {},
    pruneSessionRandomizedInterval: false,
  },
  'connect-pg-pool': { pool: {} },
  'session-pouchdb-store': { maxIdle: 300_000, scavenge: 1000, purge: 300_000, commit: 1000 },
  'connect-redis': { client: {}, prefix: 'sess:', disableTTL: true, scanCount: 100 },
  'connect-mongo': {
    mongoUrl: 'mongodb://localhost',
    client: {},
    clientPromise: {},
    dbName: 'shop',
    mongoOptions: {},
    collectionName: 'sessions',
    autoRemove: 'native',
    autoRemoveInterval: 10,
    stringify: true,
    serialize: () => {},
    unserialize: () => {},
    crypto: { secret: 'x' },
    cryptoAdapter: {},
    timestamps: true,
    transformId: () => {},
    writeOperationOptions: {},
  },
};

/** Options that this store has, too. */
const kept: Record<string, DrizzleStoreOptions> = {
  'connect-pg-simple': {
    tableName: 'session',
    schemaName: 'public',
    createTableIfMissing: true,
    ttl: 86_400,
    disableTouch: false,
    pruneSessionInterval: 900,
    errorLog: () => {},
  },
  'connect-pg-pool': {
    tableName: 'session',
    schemaName: 'public',
    ttl: 60,
    pruneSessionInterval: false,
    errorLog: () => {},
  },
  'session-pouchdb-store': {},
  'connect-redis': { ttl: () => 60, disableTouch: true, serializer: JSON },
  'connect-mongo': { ttl: 1_209_600, touchAfter: 86_400 },
};

describe.each(Object.keys(options))('the options of %s', (name) => {
  const section = guide.split(/^## /m).find((part) => part.startsWith(`${name}\n`)) ?? '';

  test.each(Object.entries(options[name] ?? {}))(
    'include %s, which is refused with an error that says what to use',
    (option, value) => {
      expect(section).toContain(`\`${option}\``);
      const make = () => new DrizzleStore('memory://', { [option]: value });
      expect(make).toThrow(TypeError);
      expect(make).toThrow(`unknown option ${option}: `);
      expect(make).not.toThrow('the options are');
    },
  );

  test('that have the same name are accepted', async () => {
    for (const [option, value] of Object.entries(kept[name] ?? {})) {
      expect(section).toContain(`\`${option}\``);
      const store = new DrizzleStore('postgres://localhost:1/nowhere', {
        pruneSessionInterval: false,
        [option]: value,
      });
      await store.close();
    }
  });
});
