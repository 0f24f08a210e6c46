/**
 * The sessions for every contender: the same sids, the same contents, of an exact size.
 *
 * @module
 */
import { createHash, createHmac } from 'node:crypto';

/** A day, as in most apps. */
export const MAX_AGE_SECONDS = 86_400;

/** The secret with which the apps sign their cookies. */
export const SECRET = 'benchmark';

/** The placeholder for the session's number in a template. It is replaced with a text of the same length. */
export const NUMBER_PLACEHOLDER = '@@@@@@@@@@';

/**
 * The sid of the session with this number: 32 characters, as express-session's own. In SQL:
 * `md5('s' || i)`.
 *
 * @param {number} number
 */
export function sidOf(number) {
  return createHash('md5').update(`s${number}`).digest('hex');
}

/**
 * The Cookie header for the session with this number, signed as express-session does.
 *
 * @param {number} number
 */
export function cookieOf(number) {
  const sid = sidOf(number);
  const signature = createHmac('sha256', SECRET).update(sid).digest('base64').replace(/=+$/, '');
  return `connect.sid=${encodeURIComponent(`s:${sid}.${signature}`)}`;
}

/** @param {number} number as it stands in the session */
export function numberText(number) {
  return String(number).padStart(NUMBER_PLACEHOLDER.length, '0');
}

/**
 * The content of a session, so that its JSON text, including the cookie, has an exact number of bytes: a user, and a
 * basket of items with incompressible names (Postgres would compress a text of one repeated letter to almost nothing).
 *
 * @param {number} bytes
 * @returns {{ user: { id: string, name: string }, views: number, basket?: object[], note?: string }}
 */
export function contents(bytes) {
  const random = randomTexts();
  const content = { user: { id: NUMBER_PLACEHOLDER, name: 'Ada' }, views: 1000 };
  const size = () => jsonText(content).length;
  if (bytes >= size() + 200) {
    content.basket = [];
    while (size() + 120 <= bytes) {
      content.basket.push({ sku: random(12), name: random(40), count: 1, price: 19.95 });
    }
  }
  content.note = '';
  content.note = random(Math.max(0, bytes - size()));
  return content;
}

/**
 * The JSON text of a session, as from express-session's `Session`.
 *
 * @param {object} content
 */
export function jsonText(content) {
  const cookie = {
    originalMaxAge: MAX_AGE_SECONDS * 1000,
    expires: new Date(Date.now() + MAX_AGE_SECONDS * 1000).toISOString(),
    httpOnly: true,
    path: '/',
  };
  return JSON.stringify({ cookie, ...content });
}

/**
 * A template from which the database creates sessions, see {@link NUMBER_PLACEHOLDER}.
 *
 * @param {number} bytes
 */
export function template(bytes) {
  return jsonText(contents(bytes));
}

/** Texts of letters and digits, the same in every process. */
function randomTexts() {
  let state = 0x9e3779b9;
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return (/** @type {number} */ length) => {
    let text = '';
    for (let i = 0; i < length; i += 1) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      text += letters[state & 63];
    }
    return text;
  };
}
