/**
 * The error of a call that got no connection in time.
 *
 * @module
 */
import { StoreTimeoutError } from '../../errors.js';

/** `waitedMs`: the time that was left, a little less than the configured one; the message shows that. */
export function noConnectionWithin(waitedMs: number): StoreTimeoutError {
  return new StoreTimeoutError(Number((waitedMs / 1000).toPrecision(3)), false);
}
