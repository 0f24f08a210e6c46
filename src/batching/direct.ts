/**
 * Statements that bypass the lanes: table checks, pruning, heartbeats.
 *
 * @module
 */
import type { Connection, Driver } from '../drivers/driver.js';
import { isUnusable } from '../errors.js';
import type { Deadlines } from './deadlines.js';

/** Runs work on a connection of its own, for at most `timeout`; then closes the connection. */
export function runDirect<T>(
  driver: Driver,
  deadlines: Deadlines,
  work: (on: Connection) => Promise<T>,
): Promise<T> {
  return deadlines.within(async (deadline) => {
    const acquiring = driver.acquire(deadline.atMs);
    const on = await deadline.waitFor(acquiring).catch((error) => {
      acquiring.then((late) => late.release()).catch(() => {});
      throw error;
    });
    try {
      return await deadline.waitFor(work(on), () => on.destroy());
    } catch (error) {
      if (isUnusable(error)) on.destroy();
      throw error;
    } finally {
      on.release();
    }
  });
}
