import { isUnusable } from '../../errors.js';
import type { Connection } from '../driver.js';

/**
 * Runs work in a transaction on a connection, and releases the connection. Sets the isolation level, because the app may
 * have another default: after waiting for a lock, a statement must see the commits of the lock's previous holder.
 *
 * @param signal closes the connection, which rolls back the work unless its commit was sent
 * @param prepare runs before the transaction begins
 */
export async function transactionOn<T>(
  on: Connection,
  work: (on: Connection) => Promise<T>,
  signal?: AbortSignal,
  prepare?: () => Promise<void>,
): Promise<T> {
  const run = (text: string) => on.run({ text, name: undefined }, []);
  const giveUp = () => on.destroy();
  try {
    signal?.throwIfAborted();
    signal?.addEventListener('abort', giveUp, { once: true });
    await prepare?.();
    await run('begin isolation level read committed');
    const result = await work(on);
    await run('commit');
    return result;
  } catch (error) {
    // A connection that cannot roll back cannot be used again.
    if (!signal?.aborted) await run('rollback').catch(giveUp);
    if (isUnusable(error)) on.destroy();
    throw error;
  } finally {
    signal?.removeEventListener('abort', giveUp);
    on.release();
  }
}
