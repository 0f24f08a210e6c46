/**
 * The three-way merge of a session that another request changed meanwhile: it applies what this request changed (from
 * `seen` to `now`) to what is `stored`.
 *
 * Plain objects are merged key by key; everything else is one value. If this request changed or deleted a path, its value
 * is kept, otherwise the stored one. Removing an object, or replacing it with something else, beats a change inside it,
 * on either side: otherwise a slow request's `user.lastSeen = …` would bring back a user who has logged out.
 *
 * @module
 */
import { isPlainObject } from '../util/guards.js';
import { isSameCookie, isSameLifetime, isUsableCookie, timeOf } from './cookie.js';

/** Whether two values that are not both plain objects are the same. */
export type SameValue = (one: unknown, other: unknown) => boolean;

type PlainObject = Record<string, unknown>;

/** Stands for a missing key, since `undefined` may be a value. */
const ABSENT = Symbol('absent');

export interface MergeSettings {
  readonly same: SameValue;
  /** Whether `Session` drops a top-level key on loading. A request cannot have changed such a key. */
  readonly isDropped: (key: string) => boolean;
}

/** Merges a session. Changes none of its arguments; the result shares parts with them. */
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

/** Whether a request changed nothing except the time at which the session expires. */
export function onlyExpiryMoved(
  seen: PlainObject,
  now: PlainObject,
  { same, isDropped }: MergeSettings,
): boolean {
  const withoutCookie = (key: string) => key === 'cookie' || isDropped(key);
  if (!sameObjects(seen, now, same, withoutCookie)) return false;
  const before = own(seen, 'cookie');
  const after = own(now, 'cookie');
  return isPlainObject(before) && isPlainObject(after)
    ? isSameCookie(before, after, (one, other) => sameValues(one, other, same))
    : sameValues(before, after, same);
}

/** Merges cookies key by key. If both sides moved the expiry, the later one is kept. */
function mergeCookies(seen: unknown, now: unknown, stored: unknown, same: SameValue): unknown {
  // A merge keeps the usable one of two cookies: without one, the stored session would be lost.
  if (isUsableCookie(now) && !isUsableCookie(stored)) return now;
  if (isUsableCookie(stored) && !isUsableCookie(now)) return stored;
  if (!isPlainObject(seen) || !isPlainObject(now) || !isPlainObject(stored)) {
    return mergeValues(seen, now, stored, same);
  }
  const settled = { ...now };
  if (isSameLifetime(seen, now)) restore(settled, 'originalMaxAge', own(seen, 'originalMaxAge'));
  const merged = mergeObjects(seen, settled, stored, same, () => false);
  const [before, mine, theirs] = [seen, now, stored].map((cookie) =>
    timeOf(own(cookie, 'expires')),
  );
  if (mine === undefined) return merged;
  if (theirs === undefined) {
    // A touch does not bring back an expiry that the other request removed.
    const isOnlyTouched = before !== undefined && isSameLifetime(seen, now);
    if (isOnlyTouched) restore(merged, 'expires', own(stored, 'expires'));
  } else if (theirs !== before && theirs > mine) {
    define(merged, 'expires', own(stored, 'expires'));
  }
  return merged;
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
  // Both sides changed it.
  if (isPlainObject(now) && isPlainObject(stored) && (isPlainObject(seen) || seen === ABSENT)) {
    return mergeObjects(isPlainObject(seen) ? seen : {}, now, stored, same, () => false);
  }
  // The other side removed or replaced an object that this request only changed inside.
  if (isPlainObject(seen) && isPlainObject(now)) return stored;
  return now;
}

function sameValues(one: unknown, other: unknown, same: SameValue): boolean {
  if (one === ABSENT || other === ABSENT) return one === other;
  if (isPlainObject(one) && isPlainObject(other)) return sameObjects(one, other, same, () => false);
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

/** Returns an own property, never an inherited one: keys such as `constructor` are data. */
function own(object: PlainObject, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : ABSENT;
}

/** Sets an own property, or deletes it if the value is `ABSENT`. */
function restore(object: PlainObject, key: string, value: unknown): void {
  if (value === ABSENT) Reflect.deleteProperty(object, key);
  else define(object, key, value);
}

/** Sets an own property of any name. An assignment to `__proto__` would set the prototype. */
function define(object: PlainObject, key: string, value: unknown): void {
  Object.defineProperty(object, key, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
}
