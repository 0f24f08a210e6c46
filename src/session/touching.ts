/**
 * Decides whether a touch is worth a write: `touchAfter`.
 *
 * @module
 */
import type { Settings } from '../options.js';
import type { StoredRow } from '../queries/wire.js';

/** The clocks of machines differ. If an expiry is earlier by less than this, the app did not shorten it. */
export const CLOCK_SKEW_MS = 1000;

/** With `touchAfter: 'auto'`, sessions with at least this lifetime are touched at most once a minute. */
const LONG_LIFETIME_MS = 3_600_000;
const AUTO_TOUCH_AFTER_MS = 60_000;

/** Returns by how much a touch must move an expiry; 0 if every touch is written. */
export function touchAfterMs(expiresAt: number, touchAfter: Settings['touchAfter']): number {
  if (touchAfter !== 'auto') return touchAfter * 1000;
  const isLong = expiresAt - Date.now() >= LONG_LIFETIME_MS - CLOCK_SKEW_MS;
  return isLong ? AUTO_TOUCH_AFTER_MS : 0;
}

/** Whether to write a touch that would move the expiry of a session to `expiresAt`. */
export function isWorthTouching(
  seen: Pick<StoredRow, 'createdAt' | 'expiresAt' | 'lastSeenAt'>,
  expiresAt: number,
  { touchAfter, maxLifetime = Number.POSITIVE_INFINITY }: Settings,
): boolean {
  const afterMs = touchAfterMs(expiresAt, touchAfter);
  if (afterMs === 0 || expiresAt < seen.expiresAt) return true;
  const now = Date.now();
  const capped = Math.min(expiresAt, Math.floor(seen.createdAt / 1000) + maxLifetime * 1000);
  const isInSecondHalf = seen.expiresAt - now < (capped - now) / 2;
  if (isInSecondHalf || capped - seen.expiresAt >= afterMs) return true;
  // The expiry has reached the end of the absolute lifetime. A touch still says when the session was last seen.
  return capped < expiresAt && now - seen.lastSeenAt >= afterMs;
}
