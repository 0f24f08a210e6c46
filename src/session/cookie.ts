/**
 * A session's cookie: when it expires, and whether two differ in more than that. Both are asked at
 * every request, so both are told without parsing a text or making one, where that can be.
 *
 * @module
 */
import session from 'express-session';

/** A cookie as its JSON has it. */
export type CookieData = Readonly<Record<string, unknown>>;

/** When a session's cookie expires, in milliseconds since 1970; `undefined` where it does not, or beyond any Date. */
export function cookieExpiry(object: object, now: number): number | undefined {
  const cookie: unknown = Reflect.get(object, 'cookie');
  if (typeof cookie !== 'object' || cookie === null) return undefined;
  const time =
    timeOf(Reflect.get(cookie, 'expires')) ?? timeAfter(now, Reflect.get(cookie, 'maxAge'));
  return time !== undefined && time <= MAX_TIME ? Math.max(Math.round(time), 0) : undefined;
}

/** The greatest time of a Date, in milliseconds. */
const MAX_TIME = 8.64e15;

/**
 * Whether express-session can make a `Cookie` of a stored cookie and touch it. `createSession` throws for a cookie
 * that is no object, and the setter of `maxAge` for a lifetime that is no number; a lifetime that ends beyond any
 * `Date` throws in `Set-Cookie`. It accepts any other value, and `expires` follows the row.
 */
export function isUsableCookie(cookie: unknown): cookie is object {
  if (typeof cookie !== 'object' || cookie === null || Array.isArray(cookie)) return false;
  return (
    isLifetime(Reflect.get(cookie, 'originalMaxAge')) && isLifetime(Reflect.get(cookie, 'maxAge'))
  );
}

function isLifetime(ms: unknown): boolean {
  return typeof ms === 'number' ? Math.abs(Date.now() + ms) <= MAX_TIME : !ms;
}

function timeOf(expires: unknown): number | undefined {
  const isText = typeof expires === 'string' || typeof expires === 'number';
  if (!isText && !(expires instanceof Date)) return undefined;
  const time = (isText ? new Date(expires) : expires).getTime();
  return Number.isNaN(time) ? undefined : time;
}

function timeAfter(now: number, maxAge: unknown): number | undefined {
  return typeof maxAge === 'number' ? now + maxAge : undefined;
}

/**
 * Whether a request's cookie is the one that was read but for when it expires, as `onlyExpiryMoved` tells it of
 * whole sessions. What it cannot tell, of anything but an express-session `Cookie`, it denies.
 */
export function isSameCookie(seen: CookieData, cookie: unknown): boolean {
  if (typeof cookie !== 'object' || cookie === null) return false;
  if (Reflect.get(cookie, 'toJSON') !== TO_JSON) return false;
  // All that a `Cookie` knows; a key without a value is none in JSON.
  const now: CookieData = Reflect.get(cookie, 'data');
  for (const key in now) {
    if (!isExpiry(key) && now[key] !== seen[key]) return false;
  }
  return isSameLifetime(seen, now);
}

/** What makes JSON of a `Cookie`: its `data`. An app's own function may make anything. */
const TO_JSON: unknown = Reflect.get(session.Cookie.prototype, 'toJSON');

/**
 * express-session sets `originalMaxAge` anew at each touch from two readings of the clock, so it drifts by
 * a millisecond or, where the process was held up between the two, by more. That is no change.
 */
export const LIFETIME_DRIFT_MS = 100;

function isExpiry(key: string): boolean {
  return key === 'expires' || key === 'originalMaxAge';
}

function isSameLifetime(seen: CookieData, now: CookieData): boolean {
  if (!seen.expires || timeOf(now.expires) === undefined) {
    return seen.expires === now.expires && seen.originalMaxAge === now.originalMaxAge;
  }
  const [before, after] = [seen.originalMaxAge, now.originalMaxAge];
  return typeof before === 'number' && typeof after === 'number'
    ? Math.abs(before - after) <= LIFETIME_DRIFT_MS
    : before === after;
}

/** express-session puts the cookie first. */
const COOKIE_START = '{"cookie":{';
const EXPIRES_START = ',"expires":"';

/**
 * Compares the JSON texts of a session, as it was read and as it is now, without parsing them: `moved` where they
 * differ in the cookie's expiry at most, `changed` where they surely differ in what is none of the cookie's.
 */
export function compareTexts(seen: string, now: string): 'moved' | 'changed' | undefined {
  const [end, endNow] = [cookieEnd(seen), cookieEnd(now)];
  if (end === -1 || endNow === -1) return undefined;
  if (seen.slice(end) !== now.slice(endNow)) {
    // A shorter one may lack just the keys that `Session` drops on loading.
    return now.length < seen.length ? undefined : 'changed';
  }
  return withoutExpiry(seen.slice(0, end)) === withoutExpiry(now.slice(0, endNow))
    ? 'moved'
    : undefined;
}

/** Where the cookie ends in the text of a session; -1 where that cannot be told at a glance. */
function cookieEnd(text: string): number {
  if (!text.startsWith(COOKIE_START)) return -1;
  const end = text.indexOf('}', COOKIE_START.length);
  const cookie = text.slice(COOKIE_START.length, end);
  return cookie.includes('{') || cookie.includes('\\') ? -1 : end;
}

/** The text of a cookie with any expiry made one; without a backslash, no value can look like a key. */
function withoutExpiry(cookie: string): string {
  const start = cookie.indexOf(EXPIRES_START);
  if (start === -1) return cookie;
  const from = start + EXPIRES_START.length;
  const to = cookie.indexOf('"', from);
  // An empty one is none.
  return to === from ? cookie : `${cookie.slice(0, from)}*${cookie.slice(to)}`;
}

/** Puts another cookie into the text of a session; `undefined` where the text is not as express-session makes it. */
export function replaceCookie(text: string, cookie: unknown): string | undefined {
  const end = cookieEnd(text);
  // A brace within a value: not worth a guess.
  if (end === -1 || text.slice(0, end).split('"').length % 2 === 0) return undefined;
  const json = JSON.stringify(cookie);
  return json?.startsWith('{') ? `{"cookie":${json}${text.slice(end + 1)}` : undefined;
}
