/**
 * How a `set` finds out that only the expiry has changed: CPU time per call for three ways to compare the text that was
 * read with the text to save. Run `npm run build`, then `node bench/cookie.js`.
 *
 * - scan: finds the end of the cookie by hand and compares the rest as strings (the way until 1.0)
 * - cookie only: compares the rest as strings and parses nothing but the cookies (the way now)
 * - parse: parses both texts and compares the objects
 *
 * @module
 */
import session from 'express-session';
import { isSameButExpiry } from '../dist/session/cookie.js';
import { onlyExpiryMoved } from '../dist/session/merge.js';

const SECONDS_PER_FIGURE = 0.5;
const HOUR_MS = 3_600_000;

/** Compares arrays as the store does. */
const settings = {
  same: (/** @type {unknown} */ one, /** @type {unknown} */ other) =>
    JSON.stringify([one]) === JSON.stringify([other]),
  isDropped: () => false,
};

for (const bytes of [200, 2_000, 20_000]) {
  const object = sessionOf(bytes);
  const seen = JSON.stringify(object);
  object.cookie.maxAge = HOUR_MS + 60_000;
  object.cookie.originalMaxAge = HOUR_MS;
  const texts = { 'expiry moved': JSON.stringify(object) };
  texts.changed = JSON.stringify({ ...object, user: 'user 4712' });
  for (const [what, now] of Object.entries(texts)) {
    const ways = {
      scan: () => compareTexts(seen, now) === 'moved',
      'cookie only': () => isSameButExpiry(seen, now, JSON.stringify(object.cookie)),
      parse: () => onlyExpiryMoved(JSON.parse(seen), JSON.parse(now), settings),
    };
    const figures = Object.entries(ways).map(([name, way]) => {
      if (way() !== (what === 'expiry moved')) throw new Error(`${name} is wrong`);
      return `${name} ${nanoseconds(way)}`;
    });
    console.log(`${seen.length} bytes, ${what}, ns per call: ${figures.join(', ')}`);
  }
}

/** @param {number} bytes */
function sessionOf(bytes) {
  const cart = [];
  const object = {
    cookie: new session.Cookie({ maxAge: HOUR_MS }),
    user: 'user 4711',
    cart,
  };
  while (JSON.stringify(object).length < bytes) {
    cart.push({ sku: `sku-${cart.length}`, name: 'An item', price: 12.5, count: 2 });
  }
  return object;
}

/**
 * CPU time, so that other processes have no effect. The best of five runs.
 *
 * @param {() => unknown} call
 */
function nanoseconds(call) {
  let best = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 5; run += 1) {
    let calls = 0;
    const start = process.cpuUsage();
    const until = performance.now() + (SECONDS_PER_FIGURE * 1000) / 5;
    while (performance.now() < until) {
      for (let i = 0; i < 100; i += 1) call();
      calls += 100;
    }
    const { user, system } = process.cpuUsage(start);
    best = Math.min(best, ((user + system) * 1000) / calls);
  }
  return Math.round(best);
}

/**
 * @param {string} seen
 * @param {string} now
 */
function compareTexts(seen, now) {
  const [end, endNow] = [cookieEnd(seen), cookieEnd(now)];
  if (end === -1 || endNow === -1) return undefined;
  if (seen.slice(end) !== now.slice(endNow)) {
    return now.length < seen.length ? undefined : 'changed';
  }
  return withoutExpiry(seen.slice(0, end)) === withoutExpiry(now.slice(0, endNow))
    ? 'moved'
    : undefined;
}

/** @param {string} text */
function cookieEnd(text) {
  if (!text.startsWith('{"cookie":{')) return -1;
  const end = text.indexOf('}', '{"cookie":{'.length);
  const cookie = text.slice('{"cookie":{'.length, end);
  return cookie.includes('{') || cookie.includes('\\') ? -1 : end;
}

/** @param {string} cookie */
function withoutExpiry(cookie) {
  const start = cookie.indexOf(',"expires":"');
  if (start === -1) return cookie;
  const from = start + ',"expires":"'.length;
  const to = cookie.indexOf('"', from);
  return to === from ? cookie : `${cookie.slice(0, from)}*${cookie.slice(to)}`;
}
