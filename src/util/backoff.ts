/**
 * The wait before a retry.
 *
 * @module
 */

export interface Backoff {
  /** The mean wait before the first retry. */
  readonly firstMs: number;
  /** The longest mean wait. */
  readonly longestMs: number;
}

/**
 * Returns the wait in milliseconds after `retries` (0 or more) earlier retries. The mean doubles with each retry up to
 * `longestMs`. The wait is random, between half of the mean and one and a half times the mean, so that two callers that
 * collided do not collide again.
 *
 * @param random from 0 (inclusive) to 1 (exclusive)
 */
export function backoffMs(
  retries: number,
  { firstMs, longestMs }: Backoff,
  random = Math.random(),
): number {
  return Math.min(firstMs * 2 ** retries, longestMs) * (0.5 + random);
}
