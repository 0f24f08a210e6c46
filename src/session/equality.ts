/**
 * Compares parts of two sessions. Without recursion: a session may be nested as deeply as JSON allows.
 *
 * @module
 */
import { isPlainObject } from '../util/guards.js';

/** Whether two values that are not both plain objects are the same. */
export type SameValue = (one: unknown, other: unknown) => boolean;

export type PlainObject = Record<string, unknown>;

/** Means a missing key, because `undefined` may be a value. */
export const ABSENT = Symbol('absent');

/** Returns an own property, never an inherited one: keys such as `constructor` are data. */
export function own(object: PlainObject, key: string): unknown {
  return Object.hasOwn(object, key) ? object[key] : ABSENT;
}

/** Compares two values. Compares plain objects by their keys, in any order. */
export function sameValues(one: unknown, other: unknown, same: SameValue): boolean {
  return sameObjects({ value: one }, { value: other }, same, () => false);
}

/** Compares two objects by their keys, in any order. Ignores some keys of the objects themselves, but not of nested ones. */
export function sameObjects(
  one: PlainObject,
  other: PlainObject,
  same: SameValue,
  isIgnored: (key: string) => boolean,
): boolean {
  const pairs: [PlainObject, PlainObject][] = [];
  const compareKeys = (left: PlainObject, right: PlainObject, keys: readonly string[]) => {
    for (const key of keys) {
      const [before, after] = [own(left, key), own(right, key)];
      if (isPlainObject(before) && isPlainObject(after)) pairs.push([before, after]);
      else if (before !== after && !sameLeaves(before, after, same)) return false;
    }
    return true;
  };
  const keys = Object.keys(one).filter((key) => !isIgnored(key));
  if (keys.length !== Object.keys(other).filter((key) => !isIgnored(key)).length) return false;
  if (!compareKeys(one, other, keys)) return false;
  for (let pair = pairs.pop(); pair !== undefined; pair = pairs.pop()) {
    const inner = Object.keys(pair[0]);
    if (inner.length !== Object.keys(pair[1]).length || !compareKeys(...pair, inner)) return false;
  }
  return true;
}

function sameLeaves(one: unknown, other: unknown, same: SameValue): boolean {
  return one !== ABSENT && other !== ABSENT && same(one, other);
}
