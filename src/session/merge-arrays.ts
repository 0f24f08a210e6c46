/**
 * Merges arrays. A request that only appended to an array appends its new elements to whatever is stored now. Any other
 * change of an array is a change of the whole.
 *
 * @module
 */
import { ABSENT, type SameValue } from './equality.js';

/**
 * Returns the merged value of a key that both sides changed, if this request has an array there or had one. Returns
 * `undefined` if no rule for arrays applies: then this request's value is kept.
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

/** Returns what a request appended, or `undefined` if it changed the array in another way. */
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

/** Appends elements, unless they are there already: a save whose reply was lost may be repeated. */
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
