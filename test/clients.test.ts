import type { IncomingMessage, ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import fastifyCookie from '@fastify/cookie';
import fastifySession from '@fastify/session';
import connect, { type NextHandleFunction } from 'connect';
import { DrizzleStore, idOf } from 'connect-drizzle';
import express5 from 'express';
import session, { type SessionData, type SessionOptions } from 'express-session';
import { fastify } from 'fastify';
import passport from 'passport';
import { Strategy } from 'passport-local';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Gate, gate } from './support/gate.js';
import { type Answer, type Browser, type Site, serve } from './support/http.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';

declare module 'express-session' {
  interface SessionData {
    visits: number;
    member: string;
  }
}

declare module 'fastify' {
  interface Session {
    visits?: number;
    member?: string;
  }
}

// Express 4 has no types of its own here, and express-session's types do not fit Connect's requests.
const require = createRequire(import.meta.url);
const express4: typeof express5 = require('express4');
const connectSession: (options: SessionOptions) => NextHandleFunction = require('express-session');

const secret = 'a secret of 32 characters or more';

let database: ReusedDatabase;
let store: DrizzleStore;
const open: Site[] = [];

beforeAll(async () => {
  database = await reusedDatabase();
});

afterAll(() => database.drop());

beforeEach(async () => {
  store = new DrizzleStore(database.pool(), { createTableIfMissing: true, touchAfter: 0 });
  await store.ready();
});

afterEach(async () => {
  for (const site of open.splice(0)) await site.close();
  await store.close();
  await database.clear();
});

async function site(...app: Parameters<typeof serve>): Promise<Site> {
  const served = await serve(...app);
  open.push(served);
  return served;
}

/** The sid in the signed cookie of express-session and @fastify/session: `s%3A<sid>.<signature>`. */
function sidOf(browser: Browser, cookie: string): string {
  const value = decodeURIComponent(browser.cookies.get(cookie) ?? '').replace(/^s:/, '');
  return value.slice(0, value.lastIndexOf('.'));
}

async function liveIds(): Promise<string[]> {
  const rows = await database.query<{ id: string }>(
    'select id from sessions where revoked_at is null order by created_at',
  );
  return rows.map(({ id }) => id);
}

async function expiryOf(id: string): Promise<number> {
  const [row] = await database.query<{ at: Date }>(
    'select expires_at as at from sessions where id = $1',
    [id],
  );
  return row?.at.getTime() ?? 0;
}

interface Seen {
  visits?: number;
  member?: string;
}

function seen(answer: Answer): Seen {
  return answer.json<Seen>();
}

type WithSession = { session: session.Session & Partial<SessionData>; sessionID: string };

function hasSession<Request extends object>(request: Request): request is Request & WithSession {
  return 'session' in request && 'sessionID' in request;
}

function promised(call: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()));
  });
}

/** Gates of a slow request: it opens `inside` once it has loaded its session, and ends after `leave`. */
interface Slow {
  inside: Gate;
  leave: Gate;
}

/** One handler for all frameworks on which express-session runs. */
function handler(slow: Slow) {
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    if (!hasSession(request)) throw new Error('no session on the request');
    switch (`${request.method} ${request.url}`) {
      case 'GET /look':
        break;
      case 'GET /visit':
        request.session.visits = (request.session.visits ?? 0) + 1;
        break;
      case 'GET /slow':
        slow.inside.open();
        await slow.leave.opened;
        request.session.visits = 1_000;
        break;
      case 'POST /login':
        await promised((done) => request.session.regenerate(done));
        request.session.member = 'ada';
        await promised((done) => request.session.save(done));
        break;
      case 'POST /logout':
        await promised((done) => request.session.destroy(done));
        response.statusCode = 204;
        response.end();
        return;
      default:
        response.statusCode = 404;
    }
    const { visits, member } = request.session;
    response.end(JSON.stringify({ visits, member }));
  };
  return (request: IncomingMessage, response: ServerResponse, next: (error?: unknown) => void) => {
    answer(request, response).catch(next);
  };
}

const frameworks = {
  'express 5': (options: SessionOptions, slow: Slow) =>
    express5().use(session(options)).use(handler(slow)),
  'express 4': (options: SessionOptions, slow: Slow) =>
    express4().use(session(options)).use(handler(slow)),
  connect: (options: SessionOptions, slow: Slow) =>
    connect().use(connectSession(options)).use(handler(slow)),
};

describe.each(Object.entries(frameworks))('%s', (_name, framework) => {
  let slow: Slow;
  let at: Site;

  beforeEach(async () => {
    slow = { inside: gate(), leave: gate() };
    at = await site(
      framework(
        { store, secret, resave: false, saveUninitialized: false, cookie: { maxAge: 3_600_000 } },
        slow,
      ),
    );
  });

  test('keeps a session from request to request, and two browsers apart', async () => {
    const one = at.browser();
    const other = at.browser();
    for (const visits of [1, 2, 3]) expect(seen(await one.get('/visit'))).toEqual({ visits });
    expect(seen(await other.get('/visit'))).toEqual({ visits: 1 });
    expect(seen(await one.get('/look'))).toEqual({ visits: 3 });
    expect(await liveIds()).toEqual([
      idOf(sidOf(one, 'connect.sid')),
      idOf(sidOf(other, 'connect.sid')),
    ]);
  });

  test('neither stores an empty session nor sends its cookie', async () => {
    const browser = at.browser();
    expect(seen(await browser.get('/look'))).toEqual({});
    expect(browser.cookies.size).toBe(0);
    expect(await liveIds()).toEqual([]);
  });

  test('gives a log-in a new sid and ends the old session', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    const before = browser.copy();
    expect(seen(await browser.post('/login'))).toEqual({ member: 'ada' });
    expect(seen(await browser.get('/look'))).toEqual({ member: 'ada' });
    expect(seen(await before.get('/look'))).toEqual({});
    expect(await liveIds()).toEqual([idOf(sidOf(browser, 'connect.sid'))]);
  });

  test('ends a logged-out session for everyone who has its cookie', async () => {
    const browser = at.browser();
    await browser.post('/login');
    const thief = browser.copy();
    expect((await browser.post('/logout')).status).toBe(204);
    expect(seen(await thief.get('/look'))).toEqual({});
    expect(await liveIds()).toEqual([]);
  });

  test('does not let a request in flight bring a logged-out session back', async () => {
    const browser = at.browser();
    await browser.post('/login');
    const tab = browser.copy();
    const late = tab.get('/slow');
    await slow.inside.opened;
    await browser.post('/logout');
    slow.leave.open();
    expect((await late).status).toBe(200);
    expect(seen(await tab.get('/look'))).toEqual({});
    expect(await liveIds()).toEqual([]);
  });

  test('extends the expiry with a request that changes nothing', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    const id = idOf(sidOf(browser, 'connect.sid'));
    const before = await expiryOf(id);
    await browser.get('/look');
    expect(await expiryOf(id)).toBeGreaterThan(before);
  });

  test('treats a sid that it never created as unknown, even if it is signed', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    const sid = sidOf(browser, 'connect.sid');
    const forged = at.browser();
    forged.cookies.set('connect.sid', signed('made-up'));
    expect(seen(await forged.get('/visit'))).toEqual({ visits: 1 });
    expect(sidOf(forged, 'connect.sid')).not.toBe('made-up');
    // The id in the table, which an admin page may show, is no valid sid.
    const curious = at.browser();
    curious.cookies.set('connect.sid', signed(idOf(sid)));
    expect(seen(await curious.get('/look'))).toEqual({});
  });
});

/** A cookie with a valid signature. */
function signed(sid: string): string {
  const { sign }: { sign(value: string, key: string): string } = require('cookie-signature');
  return encodeURIComponent(`s:${sign(sid, secret)}`);
}

describe('passport', () => {
  let at: Site;

  beforeEach(async () => {
    const auth = new passport.Passport();
    auth.use(new Strategy((name, password, done) => done(null, password === 'right' && { name })));
    auth.serializeUser((user, done) => done(null, user.name));
    auth.deserializeUser((name: string, done) => done(null, { name }));

    const app = express5();
    app.use(express5.json());
    app.use(session({ store, secret, resave: false, saveUninitialized: false }));
    app.use(auth.session());
    app.get('/visit', (request, response) => {
      request.session.visits = (request.session.visits ?? 0) + 1;
      response.json({ visits: request.session.visits, member: request.user?.name });
    });
    app.get('/look', (request, response) => {
      response.json({ visits: request.session.visits, member: request.user?.name });
    });
    app.post('/login', auth.authenticate('local'), (_request, response) => {
      response.sendStatus(204);
    });
    app.post(
      '/login/keeping',
      auth.authenticate('local', { keepSessionInfo: true }),
      (_request, response) => {
        response.sendStatus(204);
      },
    );
    app.post('/logout', (request, response, next) => {
      request.logout((error) => (error ? next(error) : response.sendStatus(204)));
    });
    at = await site(app);
  });

  const right = { username: 'ada', password: 'right' };

  test('regenerates the session at log-in, and the old sid is unknown', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    const before = browser.copy();
    expect((await browser.post('/login', right)).status).toBe(204);
    expect(sidOf(browser, 'connect.sid')).not.toBe(sidOf(before, 'connect.sid'));
    expect(seen(await browser.get('/visit'))).toEqual({ visits: 1, member: 'ada' });
    expect(seen(await before.get('/look'))).toEqual({});
  });

  test('keeps the content of the session at log-in with keepSessionInfo', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    await browser.post('/login/keeping', right);
    expect(seen(await browser.get('/visit'))).toEqual({ visits: 2, member: 'ada' });
  });

  test('does not change the session if the password is wrong', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    const answer = await browser.post('/login', { username: 'ada', password: 'wrong' });
    expect(answer.status).toBe(401);
    expect(seen(await browser.get('/visit'))).toEqual({ visits: 2 });
  });

  test('logs out everyone who has the cookie of the session', async () => {
    const browser = at.browser();
    await browser.post('/login', right);
    const thief = browser.copy();
    await browser.post('/logout');
    expect(seen(await browser.get('/look'))).toEqual({});
    expect(seen(await thief.get('/look'))).toEqual({});
  });
});

describe('@fastify/session', () => {
  let slow: Slow;
  let at: Site;
  let close: () => Promise<void>;

  beforeEach(async () => {
    slow = { inside: gate(), leave: gate() };
    const app = fastify();
    app.register(fastifyCookie);
    app.register(fastifySession, {
      store,
      secret,
      saveUninitialized: false,
      rolling: false,
      cookie: { secure: false, maxAge: 3_600_000 },
    });
    app.get('/look', async ({ session: { visits, member } }) => ({ visits, member }));
    app.get('/visit', async ({ session }) => {
      session.visits = (session.visits ?? 0) + 1;
      return { visits: session.visits, member: session.member };
    });
    app.get('/slow', async ({ session }) => {
      slow.inside.open();
      await slow.leave.opened;
      session.visits = 1_000;
      return {};
    });
    app.post('/login', async (request) => {
      await request.session.regenerate();
      request.session.member = 'ada';
      return { member: 'ada' };
    });
    app.post('/logout', async (request) => {
      await request.session.destroy();
      return {};
    });
    await app.ready();
    close = () => app.close();
    at = await site((request, response) => app.routing(request, response));
  });

  afterEach(() => close());

  test('keeps a session from request to request, and two browsers apart', async () => {
    const one = at.browser();
    const other = at.browser();
    for (const visits of [1, 2, 3]) expect(seen(await one.get('/visit'))).toEqual({ visits });
    expect(seen(await other.get('/visit'))).toEqual({ visits: 1 });
    expect(seen(await one.get('/look'))).toEqual({ visits: 3 });
  });

  test('gives a log-in a new sid and ends the old session', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    const before = browser.copy();
    await browser.post('/login');
    expect(sidOf(browser, 'sessionId')).not.toBe(sidOf(before, 'sessionId'));
    expect(seen(await browser.get('/look'))).toEqual({ member: 'ada' });
    expect(seen(await before.get('/look'))).toEqual({});
  });

  test('does not let a request in flight bring a logged-out session back', async () => {
    const browser = at.browser();
    await browser.post('/login');
    const tab = browser.copy();
    const late = tab.get('/slow');
    await slow.inside.opened;
    await browser.post('/logout');
    slow.leave.open();
    expect((await late).status).toBe(200);
    expect(seen(await browser.copy().get('/look'))).toEqual({});
    expect(seen(await tab.get('/look'))).toEqual({});
    expect(await liveIds()).toEqual([]);
  });

  test('lets the last of two concurrent requests win, because it copies sessions', async () => {
    const browser = at.browser();
    await browser.get('/visit');
    const late = browser.copy().get('/slow');
    await slow.inside.opened;
    await browser.get('/visit');
    slow.leave.open();
    await late;
    expect(seen(await browser.get('/look'))).toEqual({ visits: 1_000 });
  });
});
