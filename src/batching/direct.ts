/**
 * Statements that bypass the lanes: table checks, pruning, heartbeats.
 *
 * @module
 */
import type { AcquireOptions, Connection, Driver } from '../drivers/driver.js';
import { isUnusable } from '../errors.js';
import type { Deadline } from './deadlines.js';

/** Runs work on a separate connection. If the deadline passes, closes the connection. */
export async function runDirect<T>(
  driver: Driver,
  deadline: Deadline,
  work: (on: Connection) => Promise<T>,
  options?: AcquireOptions,
): Promise<T> {
  const acquiring = driver.acquire(deadline.atMs, options);
  const on = await deadline.waitFor(acquiring).catch((error) => {
    acquiring.then((late) => late.release()).catch(() => {});
    throw error;
  });
  deadline.isSent = true;
  try {
    return await deadline.waitFor(work(on), () => on.destroy());
  } catch (error) {
    if (isUnusable(error)) on.destroy();
    throw error;
  } finally {
    on.release();
  }
}
