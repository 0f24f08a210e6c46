/**
 * The error for a call that got no connection in time.
 *
 * @module
 */
import { StoreTimeoutError } from '../../errors.js';

/** `waitedMs`: the time that was left, slightly less than the configured time. The message shows the configured one. */
export function noConnectionWithin(waitedMs: number): StoreTimeoutError {
  return new StoreTimeoutError(Number((waitedMs / 1000).toPrecision(3)), false);
}
