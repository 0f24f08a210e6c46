import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import express, { type Express, type NextFunction, type Request, type Response } from 'express';
import session, { type Store } from 'express-session';

declare module 'express-session' {
  interface SessionData {
    /** Who is logged in to the shop of the races. */
    customer: string;
    cart: string[];
    theme: string;
  }
}

/** The path of the other request, which is sent while the slow one is running. */
const otherRequests = {
  'lost-update': '/cart',
  'revived-log-out': '/log-out',
} as const;

export type RaceName = keyof typeof otherRequests;

export function isRaceName(name: string): name is RaceName {
  return Object.hasOwn(otherRequests, name);
}

/** The content of the shop's session, or null if there is no log-in. */
export type ShopSession = { customer: string; cart?: string[]; theme?: string } | null;

export interface Outcome {
  /** The session that a request with the same cookie found after the race. */
  left: ShopSession;
  /** Whether that is correct: no change is lost, and the log-out is not undone. */
  held: boolean;
}

/** One race, run once on each store. */
export interface RaceResult {
  /** Time of the run, in milliseconds since 1970. */
  ranAt: number;
  ours: Outcome;
  plain: Outcome;
}

/**
 * Runs a race: starts a shop with its own session middleware and sends requests to it over HTTP, with
 * a cookie. The order is fixed because each request waits for another one, never for a time.
 */
export async function runRace(race: RaceName, store: Store): Promise<Outcome> {
  const gate = new Gate();
  const problems: unknown[] = [];
  const shop = createShop(store, gate, (error) => problems.push(error));
  const server = createServer(shop).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  let cookie = '';
  const send = async (method: 'GET' | 'POST', path: string): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      headers: { cookie },
    });
    // The session is saved only when the body has ended.
    const text = await response.text();
    if (problems.length > 0) throw problems[0];
    cookie ||= response.headers.getSetCookie()[0]?.split(';')[0] ?? '';
    return text;
  };

  let sid: string | undefined;
  try {
    sid = await send('POST', '/log-in');
    await Promise.all([
      // The slow request loads the session, and waits at the gate.
      send('POST', '/theme'),
      // Then the other request is sent and gets its response. Then the gate opens, and the slow one saves.
      gate.reached.then(() => send('POST', otherRequests[race])).then(() => gate.open()),
    ]);
    const left: ShopSession = JSON.parse(await send('GET', '/session'));
    return { left, held: hasHeld(race, left) };
  } finally {
    gate.open();
    await end(store, sid);
    server.close();
    server.closeAllConnections();
  }
}

/** Deletes the session of a race. */
function end(store: Store, sid: string | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (sid) store.destroy(sid, () => resolve());
    else resolve();
  });
}

function hasHeld(race: RaceName, left: ShopSession): boolean {
  if (race === 'revived-log-out') return left === null;
  return left?.cart?.includes('tea') === true && left.theme === 'dark';
}

/** An ordinary shop, except that one of its handlers waits at a gate. */
function createShop(store: Store, gate: Gate, onError: (error: unknown) => void): Express {
  const shop = express();
  const secret = randomBytes(32).toString('hex');
  shop.use(session({ store, secret, resave: false, saveUninitialized: false }));

  shop.post('/log-in', (request, response) => {
    request.session.customer = 'Ada';
    request.session.cart = [];
    response.send(request.sessionID);
  });

  shop.post('/theme', async (request, response) => {
    await gate.pass(); // in a real app, slow work
    request.session.theme = 'dark';
    response.send();
  });

  shop.post('/cart', (request, response) => {
    request.session.cart?.push('tea');
    response.send();
  });

  shop.post('/log-out', (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.send()));
  });

  shop.get('/session', (request, response) => {
    const { cookie, ...content } = request.session;
    response.json(content.customer ? content : null);
  });

  // express-session reports a failed save here, after it has sent the status.
  shop.use((error: unknown, _request: Request, response: Response, _next: NextFunction) => {
    onError(error);
    if (!response.headersSent) response.status(500);
    response.end();
  });

  return shop;
}

/** Makes a request wait until the gate opens. */
class Gate {
  /** Resolves when the request is at the gate. */
  readonly reached: Promise<void>;
  readonly #opened: Promise<void>;
  #arrive = () => {};
  #open = () => {};

  constructor() {
    this.reached = new Promise((resolve) => {
      this.#arrive = resolve;
    });
    this.#opened = new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  pass(): Promise<void> {
    this.#arrive();
    return this.#opened;
  }

  open(): void {
    this.#open();
  }
}
