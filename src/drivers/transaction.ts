import { isUnusable } from '../errors.js';
import type { Connection } from './driver.js';

/**
 * Runs work in a transaction on a connection, which it releases. The isolation level does not depend on the
 * app's default: after a wait for a lock, what its holder has done must be visible.
 */
export async function transactionOn<T>(
  on: Connection,
  work: (on: Connection) => Promise<T>,
): Promise<T> {
  const run = (text: string) => on.run({ text, name: undefined }, []);
  try {
    await run('begin isolation level read committed');
    const result = await work(on);
    await run('commit');
    return result;
  } catch (error) {
    // A connection that cannot roll back is of no more use to anybody.
    await run('rollback').catch(() => on.destroy());
    if (isUnusable(error)) on.destroy();
    throw error;
  } finally {
    on.release();
  }
}
