/**
 * A session's cookie: its expiry, whether express-session can use it, and whether two cookies differ in more than their
 * expiry.
 *
 * @module
 */
import session from 'express-session';
import { isObject, isPlainObject, property } from '../util/guards.js';

/** The fields of a cookie, as `Cookie.data` or its JSON has them. */
export type CookieData = Readonly<Record<string, unknown>>;

/** The greatest time of a `Date`, in milliseconds (ECMA-262, Time Values). */
const MAX_TIME_MS = 8.64e15;

/** Returns when a session's cookie expires, in milliseconds since 1970; `undefined` if it has no valid expiry. */
export function cookieExpiry(object: object, now: number): number | undefined {
  const cookie = property(object, 'cookie');
  if (!isObject(cookie)) return undefined;
  const maxAge = property(cookie, 'maxAge');
  const time =
    timeOf(property(cookie, 'expires')) ?? (typeof maxAge === 'number' ? now + maxAge : undefined);
  return time !== undefined && time <= MAX_TIME_MS ? Math.max(Math.round(time), 0) : undefined;
}

/** Converts a `Date`, a string or a number to milliseconds since 1970. Returns `undefined` for anything else. */
export function timeOf(date: unknown): number | undefined {
  const isText = typeof date === 'string' || typeof date === 'number';
  if (!isText && !(date instanceof Date)) return undefined;
  const time = (isText ? new Date(date) : date).getTime();
  return Number.isNaN(time) ? undefined : time;
}

/**
 * Whether express-session can create a `Cookie` from a stored cookie and touch it (express-session/session/store.js,
 * `createSession`, and session/cookie.js). It throws if the cookie is not an object, if a lifetime is neither a number nor
 * falsy, and, in `Set-Cookie`, if a lifetime ends beyond any `Date`. It accepts every other value; `expires` is replaced
 * by the expiry of the row.
 */
export function isUsableCookie(cookie: unknown): cookie is object {
  return (
    isObject(cookie) &&
    !Array.isArray(cookie) &&
    isUsableLifetime(property(cookie, 'originalMaxAge')) &&
    isUsableLifetime(property(cookie, 'maxAge'))
  );
}

function isUsableLifetime(ms: unknown): boolean {
  return typeof ms === 'number' ? Math.abs(Date.now() + ms) <= MAX_TIME_MS : !ms;
}

/** Returns the fields of an express-session `Cookie` without serializing it; `undefined` for any other object. */
export function cookieData(cookie: unknown): CookieData | undefined {
  // An app may replace `toJSON`. Then only its JSON shows the stored fields.
  if (!isObject(cookie) || property(cookie, 'toJSON') !== TO_JSON) return undefined;
  const data = property(cookie, 'data');
  return isPlainObject(data) ? data : undefined;
}

const TO_JSON = property(session.Cookie.prototype, 'toJSON');

/** Whether two cookies are the same except for their expiry. */
export function isSameCookie(
  one: CookieData,
  other: CookieData,
  same: (one: unknown, other: unknown) => boolean = Object.is,
): boolean {
  if (hasExpiry(one) !== hasExpiry(other) || !isSameLifetime(one, other)) return false;
  for (const key in other) {
    if (!isExpiry(key) && !same(one[key], other[key])) return false;
  }
  for (const key in one) {
    if (one[key] !== undefined && other[key] === undefined && !isExpiry(key)) return false;
  }
  return true;
}

/**
 * At each touch, express-session computes `originalMaxAge` from two readings of the clock. So it drifts by a millisecond,
 * or by more if the process is delayed between the two. A drift does not count as a change.
 */
export const LIFETIME_DRIFT_MS = 100;

/** Whether two cookies have the same lifetime, `originalMaxAge`. */
export function isSameLifetime(one: CookieData, other: CookieData): boolean {
  const { originalMaxAge: before = null } = one;
  const { originalMaxAge: after = null } = other;
  return typeof before === 'number' && typeof after === 'number'
    ? Math.abs(before - after) <= LIFETIME_DRIFT_MS
    : before === after;
}

function isExpiry(key: string): boolean {
  return key === 'expires' || key === 'originalMaxAge';
}

/** Whether a cookie has an expiry. JSON has none for an invalid `Date`. */
function hasExpiry({ expires }: CookieData): boolean {
  return expires instanceof Date ? timeOf(expires) !== undefined : Boolean(expires);
}

/**
 * Whether two JSON texts of a session differ after the last closing brace of an object: a cheap sign that more than the
 * cookie changed. A shorter text may only lack the keys that `Session` drops on loading.
 */
export function differsAfterObjects(seen: string, now: string): boolean {
  if (now.length < seen.length) return false;
  const tail = now.slice(now.lastIndexOf('}', now.length - 2) + 1);
  return seen.slice(-tail.length) !== tail;
}

/**
 * Compares two JSON texts of a session, and parses only their cookies. Returns whether they are the same except for the
 * expiry of the cookie, or `undefined` if only a parse of the whole texts can decide this. That is rare, because
 * express-session puts the cookie first and keeps the order of the keys. (In an app's copy, it may be the last key.)
 *
 * @param nowCookie the JSON of the cookie in `now`
 */
export function isSameButExpiry(
  seen: string,
  now: string,
  nowCookie: string | undefined,
): boolean | undefined {
  const member = `"cookie":${nowCookie}`;
  const isFirst = now.startsWith(member, 1);
  const isLast = now.slice(-1 - member.length, -1) === member && !seen.startsWith(COOKIE_FIRST);
  if (nowCookie === undefined || !(isFirst || isLast)) return undefined;
  const rest = isFirst ? now.slice(1 + member.length) : now.slice(0, -1 - member.length);
  // Comparing slices is much faster than `endsWith` and `startsWith`, which compare character by character.
  if ((isFirst ? seen.slice(-rest.length) : seen.slice(0, rest.length)) !== rest) {
    // A shorter text may only lack the keys that `Session` drops on loading.
    return now.length < seen.length ? undefined : false;
  }
  const before = onlyCookie(
    isFirst ? `${seen.slice(0, -rest.length)}}` : `{${seen.slice(rest.length)}`,
  );
  const after: unknown = JSON.parse(nowCookie);
  return before && isPlainObject(after) ? isSameCookie(before, after) || undefined : undefined;
}

const COOKIE_FIRST = '{"cookie":';

/** Returns the cookie of a JSON text that contains a cookie and nothing else. */
function onlyCookie(text: string): CookieData | undefined {
  try {
    const { cookie, ...others } = JSON.parse(text);
    return isPlainObject(cookie) && Object.keys(others).length === 0 ? cookie : undefined;
  } catch {
    return undefined;
  }
}
