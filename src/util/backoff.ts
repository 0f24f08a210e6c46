/**
 * Pauses between tries.
 *
 * @module
 */

export interface Backoff {
  readonly firstMs: number;
  readonly longestMs: number;
}

/** Returns how long to wait after so many earlier tries: doubled each time, capped, with a jitter of half. */
export function backoffMs(tries: number, { firstMs, longestMs }: Backoff): number {
  return Math.min(firstMs * 2 ** tries, longestMs) * (0.5 + Math.random());
}
