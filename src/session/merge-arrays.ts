/**
 * Merges arrays. If a request only appended to an array, its new elements are appended to the array that is stored now.
 * Any other change of an array is a change of the whole.
 *
 * @module
 */
import { ABSENT, type SameValue } from './equality.js';

/**
 * Returns the merged value of a key that both sides changed, if this request has or had an array there. Returns
 * `undefined` if no rule for arrays applies; this request's value then wins.
 */
export function mergeArrays(
  seen: unknown,
  now: unknown,
  stored: unknown,
  same: SameValue,
): readonly unknown[] | undefined {
  if (!isArray(now) || !isArray(stored)) return undefined;
  if (same(now, stored)) return stored;
  const mine = appendedTo(seen, now, same);
  if (mine !== undefined) return append(stored, mine, seen, same);
  const theirs = appendedTo(seen, stored, same);
  return theirs && append(now, theirs, seen, same);
}

/** Returns the elements that a request appended, or `undefined` if it changed the array in another way. */
export function appendedTo(
  seen: unknown,
  array: readonly unknown[],
  same: SameValue,
): readonly unknown[] | undefined {
  // A new array with several elements is more likely a list than several appends.
  if (seen === ABSENT) return array.length === 1 ? array : undefined;
  if (!isArray(seen) || array.length <= seen.length) return undefined;
  return same(seen, array.slice(0, seen.length)) ? array.slice(seen.length) : undefined;
}

/** Appends elements, unless the array ends with them already: a save may be repeated if its result was lost. */
function append(
  array: readonly unknown[],
  elements: readonly unknown[],
  seen: unknown,
  same: SameValue,
): readonly unknown[] {
  const isThere = endsWith(array, elements, same);
  // The match may be the old elements, so append.
  const wasThere = isArray(seen) && endsWith(seen, elements, same);
  return isThere && !wasThere ? array : [...array, ...elements];
}

function endsWith(
  array: readonly unknown[],
  elements: readonly unknown[],
  same: SameValue,
): boolean {
  return array.length >= elements.length && same(array.slice(-elements.length), elements);
}

export function isArray(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}
