/**
 * The three-way merge of a session that another request has changed meanwhile: what this request
 * changed (from `seen` to `now`) is applied to what is `stored`.
 *
 * Plain objects are merged key by key, everything else is one value. A path that this request changed
 * or deleted is this request's; any other is the stored one's. Removing an object, or replacing it by
 * something that is not one, wins over a change inside it, on either side: else a slow request's
 * `user.lastSeen = …` would bring back the user who has logged out.
 *
 * @module
 */
import { isUsableCookie, LIFETIME_DRIFT_MS } from './cookie.js';

/** Whether two values that are not both plain objects are the same. */
export type SameValue = (one: unknown, other: unknown) => boolean;

type PlainObject = Record<string, unknown>;

/** A key that is not there, in a place where `undefined` could be a value. */
const ABSENT = Symbol('absent');

/** How two values are compared, and what is left out. */
export interface MergeSettings {
  readonly same: SameValue;
  /** The top-level keys that express-session's `Session` drops when it loads one: a request cannot have changed them. */
  readonly isDropped: (key: string) => boolean;
}

/**
 * Applies the changes of this request to the stored session. None of the three is changed; the result
 * shares parts with them.
 */
export function merge(
  seen: PlainObject,
  now: PlainObject,
  stored: PlainObject,
  { same, isDropped }: MergeSettings,
): PlainObject {
  const merged = mergeObjects(seen, now, stored, same, isDropped);
  const cookie = mergeCookies(own(seen, 'cookie'), own(now, 'cookie'), own(stored, 'cookie'), same);
  if (cookie !== ABSENT) define(merged, 'cookie', cookie);
  return merged;
}

/** Whether a request changed nothing of what it has seen but when the session expires. */
export function onlyExpiryMoved(
  seen: PlainObject,
  now: PlainObject,
  { same, isDropped }: MergeSettings,
): boolean {
  const withoutCookie = (key: string) => key === 'cookie' || isDropped(key);
  if (!sameObjects(seen, now, same, withoutCookie)) return false;
  const before = own(seen, 'cookie');
  const after = own(now, 'cookie');
  if (!isPlain(before) || !isPlain(after)) return sameValues(before, after, same);
  return (
    hasExpiry(before) === hasExpiry(after) &&
    sameLifetimes(before, after) &&
    sameObjects(before, after, same, (key) => key === 'expires' || key === 'originalMaxAge')
  );
}

function sameLifetimes(before: PlainObject, after: PlainObject): boolean {
  const one = own(before, 'originalMaxAge');
  const other = own(after, 'originalMaxAge');
  return typeof one === 'number' && typeof other === 'number'
    ? Math.abs(one - other) <= LIFETIME_DRIFT_MS
    : (one === ABSENT ? null : one) === (other === ABSENT ? null : other);
}

function hasExpiry(cookie: PlainObject): boolean {
  const expires = own(cookie, 'expires');
  return expires !== ABSENT && Boolean(expires);
}

/** The cookie by its keys, with the later of two expiries that both moved. */
function mergeCookies(seen: unknown, now: unknown, stored: unknown, same: SameValue): unknown {
  // A merge keeps the usable one of two cookies: without one, the stored session would be lost.
  if (isUsableCookie(now) && !isUsableCookie(stored)) return now;
  if (isUsableCookie(stored) && !isUsableCookie(now)) return stored;
  if (!isPlain(seen) || !isPlain(now) || !isPlain(stored)) {
    return mergeValues(seen, now, stored, same);
  }
  const settled = { ...now };
  if (sameLifetimes(seen, now)) restore(settled, 'originalMaxAge', own(seen, 'originalMaxAge'));
  const merged = mergeObjects(seen, settled, stored, same, () => false);
  const [before, mine, theirs] = [seen, now, stored].map((cookie) =>
    timeOf(own(cookie, 'expires')),
  );
  if (mine === undefined) return merged;
  if (theirs === undefined) {
    // A touch moves an expiry, it does not bring one back that the other has taken away.
    const isOnlyTouched = before !== undefined && sameLifetimes(seen, now);
    if (isOnlyTouched) restore(merged, 'expires', own(stored, 'expires'));
  } else if (theirs !== before && theirs > mine) {
    define(merged, 'expires', own(stored, 'expires'));
  }
  return merged;
}

function timeOf(expires: unknown): number | undefined {
  if (typeof expires !== 'string' && !(expires instanceof Date)) return undefined;
  const time = new Date(expires).getTime();
  return Number.isNaN(time) ? undefined : time;
}

function mergeObjects(
  seen: PlainObject,
  now: PlainObject,
  stored: PlainObject,
  same: SameValue,
  isUnchanged: (key: string) => boolean,
): PlainObject {
  const merged: PlainObject = {};
  for (const key of new Set([...Object.keys(stored), ...Object.keys(now)])) {
    const theirs = own(stored, key);
    const value = isUnchanged(key)
      ? theirs
      : mergeValues(own(seen, key), own(now, key), theirs, same);
    if (value !== ABSENT) define(merged, key, value);
  }
  return merged;
}

function mergeValues(seen: unknown, now: unknown, stored: unknown, same: SameValue): unknown {
  if (sameValues(seen, now, same)) return stored;
  if (sameValues(seen, stored, same)) return now;
  // Both have changed it.
  if (isPlain(now) && isPlain(stored) && (isPlain(seen) || seen === ABSENT)) {
    return mergeObjects(isPlain(seen) ? seen : {}, now, stored, same, () => false);
  }
  // The other removed or replaced an object that this request only changed inside.
  if (isPlain(seen) && isPlain(now)) return stored;
  return now;
}

function sameValues(one: unknown, other: unknown, same: SameValue): boolean {
  if (one === ABSENT || other === ABSENT) return one === other;
  if (isPlain(one) && isPlain(other)) return sameObjects(one, other, same, () => false);
  return one === other || same(one, other);
}

function sameObjects(
  one: PlainObject,
  other: PlainObject,
  same: SameValue,
  isIgnored: (key: string) => boolean,
): boolean {
  const keys = Object.keys(one).filter((key) => !isIgnored(key));
  if (keys.length !== Object.keys(other).filter((key) => !isIgnored(key)).length) return false;
  for (const key of keys) {
    if (!sameValues(own(one, key), own(other, key), same)) return false;
  }
  return true;
}

export function isPlain(value: unknown): value is PlainObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** An own property, never one of the prototype's: keys such as `constructor` are data. */
function own(object: PlainObject, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : ABSENT;
}

/** Sets an own property, or deletes it. */
function restore(object: PlainObject, key: string, value: unknown): void {
  if (value === ABSENT) Reflect.deleteProperty(object, key);
  else define(object, key, value);
}

/** Sets an own property, whatever its name: an assignment to `__proto__` would set the prototype. */
function define(object: PlainObject, key: string, value: unknown): void {
  Object.defineProperty(object, key, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}
