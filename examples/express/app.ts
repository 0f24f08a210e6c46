import { fileURLToPath } from 'node:url';
import { type DrizzleStore, idOf } from 'connect-drizzle';
import express, { type Express, type NextFunction, type Request, type Response } from 'express';
import session, { type Store } from 'express-session';
import { type Account, type Accounts, nameRule, passwordLength } from './accounts.js';
import { adminPage } from './admin.js';
import { devicesOf } from './devices.js';
import type { Html } from './html.js';
import type { Live } from './live.js';
import * as pages from './pages.js';
import { isRaceName, type RaceName, type RaceResult, runRace } from './races.js';
import { racesPage } from './races-page.js';

declare module 'express-session' {
  interface SessionData {
    /** Who is logged in. */
    account: Account;
    /** The browser and its address, for "your devices". */
    device: { agent: string; address: string };
    /** How often the start page was opened in this session. */
    visits: number;
    /** A message to show once, on the next page. */
    notice: string;
    /** The last result of each race, for the page that shows it. */
    races: Partial<Record<RaceName, RaceResult>>;
  }
}

export interface AppOptions {
  store: DrizzleStore;
  /** The store that the races compare with `store`. */
  plainStore: Store;
  accounts: Accounts;
  live: Live;
  /** Where sessions are stored, in words and without a password. */
  storage: string;
  /** Signs the cookie. */
  secret: string;
}

const day = 24 * 60 * 60 * 1000;

export function createApp(options: AppOptions): Express {
  const { store, plainStore, accounts, live, storage, secret } = options;
  const app = express();
  const frameOf = ({ path, session }: Request): pages.Frame => ({
    storage,
    path,
    viewer: session?.account,
  });

  app.disable('x-powered-by');
  app.use(securityHeaders);
  app.use(express.static(fileURLToPath(new URL('public', import.meta.url))));
  app.use(sameOrigin);
  app.use(express.urlencoded({ extended: false, limit: '10kb' }));
  app.use(
    session({
      store,
      secret,
      name: 'sid',
      resave: false,
      saveUninitialized: false,
      // A session ends a week after it was last used.
      rolling: true,
      cookie: { httpOnly: true, sameSite: 'lax', secure: 'auto', maxAge: 7 * day },
    }),
  );

  app.get('/', async (request, response) => {
    const { session } = request;
    const visits = (session.visits ?? 0) + 1;
    session.visits = visits;
    const notice = session.notice;
    delete session.notice;
    if (!session.account) {
      send(response, pages.logInPage(frameOf(request), { visits, notice }));
      return;
    }
    session.device = deviceOf(request);
    const devices = await devicesOf(store, session.account.id);
    const current = idOf(request.sessionID);
    send(
      response,
      pages.accountPage(frameOf(request), {
        name: session.account.name,
        visits,
        notice,
        devices,
        current,
      }),
    );
  });

  app.post('/login', async (request, response) => {
    const name = field(request, 'name');
    const password = field(request, 'password');
    const account =
      password.length <= passwordLength.max ? await accounts.find(name, password) : undefined;
    if (!account) {
      const visits = request.session.visits ?? 1;
      const problem = { field: 'password', text: 'That name and password do not match.' } as const;
      send(response.status(401), pages.logInPage(frameOf(request), { visits, name, problem }));
      return;
    }
    await logIn(request, account);
    response.redirect(303, '/');
  });

  app.get('/signup', (request, response) => {
    send(response, pages.signUpPage(frameOf(request), { visits: request.session.visits ?? 1 }));
  });

  app.post('/signup', async (request, response) => {
    const name = field(request, 'name');
    const password = field(request, 'password');
    const refuse = (problem: pages.FormView['problem']) => {
      const visits = request.session.visits ?? 1;
      send(response.status(422), pages.signUpPage(frameOf(request), { visits, name, problem }));
    };
    if (!nameRule.test(name)) {
      refuse({ field: 'name', text: 'A name has 2 to 30 letters, digits, ".", "_" or "-".' });
      return;
    }
    if (password.length < passwordLength.min || password.length > passwordLength.max) {
      const { min, max } = passwordLength;
      refuse({ field: 'password', text: `A password has ${min} to ${max} characters.` });
      return;
    }
    const account = await accounts.create(name, password);
    if (!account) {
      refuse({ field: 'name', text: 'That name is taken.' });
      return;
    }
    await logIn(request, account);
    response.redirect(303, '/');
  });

  app.post('/logout', async (request, response) => {
    await promised((done) => request.session.destroy(done));
    response.clearCookie('sid');
    response.redirect(303, '/');
  });

  app.post('/devices/logout', async (request, response) => {
    const account = request.session.account;
    if (!account) {
      response.redirect(303, '/');
      return;
    }
    const id = field(request, 'id');
    // An id is not a secret, so check that the session belongs to this account.
    const device = (await devicesOf(store, account.id)).find((device) => device.id === id);
    if (device && (await store.revoke(id)) > 0) {
      request.session.notice = `${device.browser} is logged out.`;
    } else {
      request.session.notice = 'That device is logged out already.';
    }
    response.redirect(303, '/');
  });

  app.post('/devices/others/logout', async (request, response) => {
    const account = request.session.account;
    if (account) {
      const count = await store.revokeUser(account.id, { except: request.sessionID });
      request.session.notice =
        count === 1 ? 'One other device is logged out.' : `${count} other devices are logged out.`;
    }
    response.redirect(303, '/');
  });

  app.get('/races', (request, response) => {
    // Creates a session, so that two races that a new visitor starts at once share it.
    const races = request.session.races ?? {};
    request.session.races = races;
    send(response, racesPage(frameOf(request), races));
  });

  app.post('/races/:name', async (request, response, next) => {
    const { name } = request.params;
    if (!isRaceName(name)) {
      next();
      return;
    }
    const [ours, plain] = await Promise.all([runRace(name, store), runRace(name, plainStore)]);
    request.session.races = {
      ...request.session.races,
      [name]: { ranAt: Date.now(), ours, plain },
    };
    response.redirect(303, `/races#${name}`);
  });

  app.use('/admin/sessions', adminPage(store, accounts));

  app.get('/events', (request, response) => live.open(request, response));

  app.use((request, response) => {
    const text = 'There is nothing at this address.';
    send(response.status(404), pages.errorPage(frameOf(request), 'Not found', text));
  });

  app.use((error: unknown, request: Request, response: Response, next: NextFunction) => {
    if (response.headersSent) {
      next(error);
      return;
    }
    const status = statusOf(error);
    if (status >= 500) console.error(error);
    const text =
      status >= 500 ? 'The server could not answer. Try again in a moment.' : messageOf(error);
    send(response.status(status), pages.errorPage(frameOf(request), 'That did not work', text));
  });

  return app;
}

/** Starts a new session for the account. Whoever knows the old sid must not become logged in. */
async function logIn(request: Request, account: Account): Promise<void> {
  const { visits } = request.session;
  await promised((done) => request.session.regenerate(done));
  Object.assign(request.session, { account, device: deviceOf(request), visits });
  await promised((done) => request.session.save(done));
}

function deviceOf(request: Request): { agent: string; address: string } {
  return {
    agent: (request.get('User-Agent') ?? '').slice(0, 300),
    address: (request.ip ?? '').replace(/^::ffff:/, ''),
  };
}

/** Returns a field of the posted form; an empty string if it is missing or not a string. */
function field(request: Request, name: string): string {
  const body: unknown = request.body;
  if (typeof body !== 'object' || body === null) return '';
  const value: unknown = Object.getOwnPropertyDescriptor(body, name)?.value;
  return typeof value === 'string' ? value : '';
}

function promised(call: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()));
  });
}

function send(response: Response, page: Html): void {
  response.set('Cache-Control', 'no-store').type('html').send(String(page));
}

function securityHeaders(_request: Request, response: Response, next: NextFunction): void {
  response.set({
    'Content-Security-Policy':
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
      "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
  });
  next();
}

/**
 * Refuses a form that another site made the browser send. With SameSite=Lax, such a request has no
 * session cookie; this check also prevents another site from logging a visitor in.
 * All browsers of this decade send at least one of the two headers.
 */
function sameOrigin(request: Request, response: Response, next: NextFunction): void {
  if (request.method === 'GET' || request.method === 'HEAD') {
    next();
    return;
  }
  const site = request.get('Sec-Fetch-Site');
  const origin = request.get('Origin');
  const allowed = site
    ? site === 'same-origin' || site === 'none'
    : origin === undefined || hostOf(origin) === request.get('Host');
  if (allowed) next();
  else response.status(403).type('text').send('This form belongs to another site.');
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

function statusOf(error: unknown): number {
  const status = typeof error === 'object' && error && 'status' in error ? error.status : undefined;
  return typeof status === 'number' && status >= 400 && status < 600 ? status : 500;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : 'The request could not be understood.';
}
