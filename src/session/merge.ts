/**
 * The three-way merge of a session that another request has changed. It applies the changes of this request (from `seen`
 * to `now`) to the session that is `stored`.
 *
 * Plain objects are merged key by key, and arrays by `merge-arrays.ts`. Everything else is one value. If this request
 * changed or deleted a path, its value wins; otherwise the stored value stays. If one side removes an object or an array,
 * or replaces it with something else, this wins over a change inside it by the other side. Otherwise a slow request's
 * `user.lastSeen = …` would bring back a user who has logged out.
 *
 * @module
 */
import { isPlainObject } from '../util/guards.js';
import { isSameCookie, isSameLifetime, isUsableCookie, timeOf } from './cookie.js';
import {
  ABSENT,
  own,
  type PlainObject,
  type SameValue,
  sameObjects,
  sameValues,
} from './equality.js';
import { appendedTo, isArray, mergeArrays } from './merge-arrays.js';

export interface MergeSettings {
  readonly same: SameValue;
  /** Whether `Session` drops a top-level key on loading. A request cannot have changed such a key. */
  readonly isDropped: (key: string) => boolean;
}

/** Merges a session. Does not change its arguments; the result shares parts with them. */
export function merge(
  seen: PlainObject,
  now: PlainObject,
  stored: PlainObject,
  { same, isDropped }: MergeSettings,
): PlainObject {
  const merged = mergeObjects(seen, now, stored, same, isDropped);
  const [before, mine, theirs, byKeys] = [seen, now, stored, merged].map((side) =>
    own(side, 'cookie'),
  );
  const cookie = mergeCookies(before, mine, theirs, byKeys, same);
  if (cookie !== ABSENT) define(merged, 'cookie', cookie);
  return merged;
}

/** Whether a request changed nothing except the expiry of the session. */
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

/**
 * Merges cookies key by key. If both sides changed the expiry, the later one wins.
 *
 * @param byKeys the result of merging them like any other value
 */
function mergeCookies(
  seen: unknown,
  now: unknown,
  stored: unknown,
  byKeys: unknown,
  same: SameValue,
): unknown {
  // If only one of the two cookies is usable, keep that one. Without a usable cookie, the stored session would be lost.
  if (isUsableCookie(now) && !isUsableCookie(stored)) return now;
  if (isUsableCookie(stored) && !isUsableCookie(now)) return stored;
  if (!isPlainObject(seen) || !isPlainObject(now) || !isPlainObject(stored)) {
    return byKeys;
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

/** Objects that are being merged key by key. */
interface Frame {
  readonly seen: PlainObject;
  readonly now: PlainObject;
  readonly stored: PlainObject;
  /** Their key in the parent frame. */
  readonly name: string;
  readonly keys: readonly string[];
  /** Number of merged keys. */
  done: number;
  readonly merged: PlainObject;
  /** Whether this request changed one of the merged keys. */
  isMineChanged: boolean;
  /** Whether the other request changed one of them. */
  areTheirsChanged: boolean;
}

/**
 * Merges objects key by key, at every depth. The stack is an array, because a session may be nested as deeply as JSON
 * allows. Visits each value once: after all keys of an object are merged, it is known whether the object was changed.
 */
function mergeObjects(
  seen: PlainObject,
  now: PlainObject,
  stored: PlainObject,
  same: SameValue,
  isUnchanged: (key: string) => boolean,
): PlainObject {
  const root = frameOf('', seen, now, stored);
  const stack = [root];
  for (let frame = root; ; ) {
    const key = frame.keys[frame.done];
    frame.done += 1;
    if (key === undefined) {
      stack.pop();
      const above = stack.at(-1);
      if (above === undefined) return root.merged;
      settle(above, frame.name, resultOf(frame), frame.isMineChanged, frame.areTheirsChanged);
      frame = above;
      continue;
    }
    const before = own(frame.seen, key);
    const mine = own(frame.now, key);
    const theirs = own(frame.stored, key);
    if (frame === root && isUnchanged(key)) {
      settle(frame, key, theirs, false, false);
    } else if (
      isPlainObject(mine) &&
      isPlainObject(theirs) &&
      (isPlainObject(before) || before === ABSENT)
    ) {
      frame = frameOf(key, before, mine, theirs);
      stack.push(frame);
    } else {
      const isMineChanged = !sameValues(before, mine, same);
      const areTheirsChanged = !sameValues(before, theirs, same);
      const value =
        isMineChanged && areTheirsChanged
          ? mergeChanged(before, mine, theirs, same)
          : isMineChanged
            ? mine
            : theirs;
      settle(frame, key, value, isMineChanged, areTheirsChanged);
    }
  }
}

/** @param seen `ABSENT` if both requests created an object under the key */
function frameOf(
  name: string,
  seen: PlainObject | typeof ABSENT,
  now: PlainObject,
  stored: PlainObject,
): Frame {
  const isNew = seen === ABSENT;
  const before = isNew ? {} : seen;
  const keys = new Set([...Object.keys(stored), ...Object.keys(now), ...Object.keys(before)]);
  return {
    seen: before,
    now,
    stored,
    name,
    keys: [...keys],
    done: 0,
    merged: {},
    isMineChanged: isNew,
    areTheirsChanged: isNew,
  };
}

/** Puts the merged value of a key into a frame. */
function settle(
  frame: Frame,
  key: string,
  value: unknown,
  isMineChanged: boolean,
  areTheirsChanged: boolean,
): void {
  if (value !== ABSENT) define(frame.merged, key, value);
  frame.isMineChanged ||= isMineChanged;
  frame.areTheirsChanged ||= areTheirsChanged;
}

/** If only one side changed an object, returns that side's object, with its order of keys. Otherwise returns the merged one. */
function resultOf({ now, stored, merged, isMineChanged, areTheirsChanged }: Frame): PlainObject {
  if (!isMineChanged) return stored;
  return areTheirsChanged ? merged : now;
}

/** Merges values that both sides changed and that are not objects on both. */
function mergeChanged(seen: unknown, now: unknown, stored: unknown, same: SameValue): unknown {
  // The other side removed or replaced the object; this request only changed something inside it.
  if (isPlainObject(seen) && isPlainObject(now)) return stored;
  if (isArray(seen) && isArray(now) && !isArray(stored)) {
    return appendedTo(seen, now, same) === undefined ? now : stored;
  }
  return mergeArrays(seen, now, stored, same) ?? now;
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
