/** Several requests of one browser append to an array at once, through express-session. */
import { randomUUID } from 'node:crypto';
import { DrizzleStore } from 'connect-drizzle';
import express, { type Request, type RequestHandler } from 'express';
import session from 'express-session';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { type Gate, gate } from './support/gate.js';
import { type Browser, type Site, serve } from './support/http.js';

/** Does what `req.flash` of connect-flash 0.1.1 does: without a message, it returns and deletes those of the type. */
function flash({ session }: Request, type: string, message?: string): unknown {
  const sessionFlash = (Reflect.get(session, 'flash') ?? {}) as Record<string, unknown[]>;
  Reflect.set(session, 'flash', sessionFlash);
  if (message === undefined) {
    const messages = sessionFlash[type];
    Reflect.deleteProperty(sessionFlash, type);
    return messages ?? [];
  }
  sessionFlash[type] = sessionFlash[type] ?? [];
  return sessionFlash[type].push(message);
}

function cartOf({ session }: Request): unknown[] {
  const cart: unknown = Reflect.get(session, 'cart');
  if (Array.isArray(cart)) return cart;
  const created: unknown[] = [];
  Reflect.set(session, 'cart', created);
  return created;
}

let database: TestDatabase;
let store: DrizzleStore;
let site: Site;
let browser: Browser;
/** Requests that have loaded their session and wait for their turn, by name. */
const waiting = new Map<string, { arrived: Gate; turn: Gate }>();

/** Holds a request that has loaded its session until the test opens its turn. */
const inTurn: RequestHandler = async ({ query }, _response, next) => {
  const place = waiting.get(String(query.name));
  place?.arrived.open();
  await place?.turn.opened;
  next();
};

/** Starts requests that all load the session first and then run one after the other. */
async function atOnce(...paths: string[]): Promise<void> {
  const requests: { turn: Gate; answer: Promise<unknown> }[] = [];
  for (const path of paths) {
    const name = randomUUID();
    const place = { arrived: gate(), turn: gate() };
    waiting.set(name, place);
    const answer = browser.get(`${path}${path.includes('?') ? '&' : '?'}name=${name}`);
    await place.arrived.opened;
    requests.push({ turn: place.turn, answer });
  }
  for (const { turn, answer } of requests) {
    turn.open();
    await answer;
  }
}

async function seen(path: string): Promise<unknown> {
  return (await browser.get(path)).json();
}

beforeAll(async () => {
  database = await freshDatabase();
  store = new DrizzleStore(database.pool(), { createTableIfMissing: true });
  const app = express();
  app.use(session({ store, secret: 'secret', resave: false, saveUninitialized: false }), inTurn);
  app.get('/begin', (request, response) => {
    Reflect.set(request.session, 'user', 'ada');
    response.json('ok');
  });
  app.get('/cart', (request, response) => void response.json(cartOf(request)));
  app.get('/cart/add/:item', (request, response) => {
    cartOf(request).push({ item: request.params.item });
    response.json('ok');
  });
  app.get('/cart/add-and-save/:item/:next', async (request, response) => {
    const { item, next } = request.params;
    cartOf(request).push({ item });
    await new Promise((resolve) => request.session.save(resolve));
    cartOf(request).push({ item: next });
    response.json('ok');
  });
  app.get('/cart/empty', (request, response) => {
    Reflect.deleteProperty(request.session, 'cart');
    response.json('ok');
  });
  app.get('/flash', (request, response) => void response.json(flash(request, 'info')));
  app.get('/flash/:message', (request, response) => {
    flash(request, 'info', request.params.message);
    response.json('ok');
  });
  site = await serve(app);
});

beforeEach(async () => {
  waiting.clear();
  browser = site.browser();
  await browser.get('/begin');
});

afterAll(async () => {
  await site.close();
  await store.close();
  await database.drop();
});

const cart = (...items: string[]) => items.map((item) => ({ item }));

describe('a cart', () => {
  test('keeps the items of three requests that push at once, also if it did not exist before', async () => {
    await atOnce('/cart/add/tea', '/cart/add/nuts', '/cart/add/figs');
    expect(await seen('/cart')).toEqual(cart('tea', 'nuts', 'figs'));
    await atOnce('/cart/add/oats', '/cart/add/rice', '/cart/add/salt');
    expect(await seen('/cart')).toEqual(cart('tea', 'nuts', 'figs', 'oats', 'rice', 'salt'));
  });

  test('has an item only once after a double click', async () => {
    await browser.get('/cart/add/tea');
    await atOnce('/cart/add/nuts', '/cart/add/nuts');
    expect(await seen('/cart')).toEqual(cart('tea', 'nuts'));
  });

  test('keeps the items of requests that push and save twice', async () => {
    await browser.get('/cart/add/tea');
    await atOnce('/cart/add-and-save/a1/a2', '/cart/add-and-save/b1/b2', '/cart/add/c');
    expect(await seen('/cart')).toEqual(cart('tea', 'a1', 'a2', 'b1', 'b2', 'c'));
  });

  test('does not come back through a push if another request deletes it', async () => {
    await browser.get('/cart/add/tea');
    await atOnce('/cart/empty', '/cart/add/nuts');
    expect(await seen('/cart')).toEqual([]);
    await browser.get('/cart/add/tea');
    await atOnce('/cart/add/nuts', '/cart/empty');
    expect(await seen('/cart')).toEqual([]);
  });
});

describe('the messages of connect-flash', () => {
  test('are all kept if three requests add one at once, and are shown once', async () => {
    await atOnce('/flash/one', '/flash/two', '/flash/three');
    expect(await seen('/flash')).toEqual(['one', 'two', 'three']);
    expect(await seen('/flash')).toEqual([]);
  });

  test('do not come back once they were shown; one added at the same time is lost', async () => {
    await browser.get('/flash/one');
    await atOnce('/flash', '/flash/two');
    expect(await seen('/flash')).toEqual([]);
  });
});
