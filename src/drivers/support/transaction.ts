import { isUnusable } from '../../errors.js';
import type { Connection } from '../driver.js';

/**
 * Runs work in a transaction on a connection, and releases the connection. Sets the isolation level, whatever the
 * app's default is: after waiting for a lock, a statement must see what the lock's holder committed.
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
    // A connection that cannot roll back cannot be used again.
    await run('rollback').catch(() => on.destroy());
    if (isUnusable(error)) on.destroy();
    throw error;
  } finally {
    on.release();
  }
}
