import { StatementError, StoreTimeoutError } from 'connect-drizzle';
import { causeCode } from './statements.js';

/**
 * Repeats a call until it is in time. For the calls that have to succeed on a store with a short time limit: a busy
 * machine may fail them.
 */
export async function eventually<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!isLate(error)) throw error;
    }
  }
}

/** The store's own limit, or one of the server or the client for a statement. */
function isLate(error: unknown): boolean {
  if (error instanceof StoreTimeoutError) return true;
  return error instanceof StatementError && causeCode(error) === '57014';
}

/**
 * Makes calls on a store with a short time limit, until `sent` resolves: those that a busy machine has failed before
 * they were sent have no effect and are made again. Returns the calls that were sent.
 */
export async function untilSent<T>(
  sent: Promise<void>,
  make: () => Promise<T>[] | Promise<Promise<T>[]>,
): Promise<Promise<T>[]> {
  let isSent = false;
  const seen = sent.then(() => {
    isSent = true;
  });
  for (;;) {
    const calls = await make();
    const ended = Promise.allSettled(calls);
    await Promise.race([seen, ended]);
    if (isSent) return calls;
    const outcomes = await ended;
    if (outcomes.every(wasNotSent)) continue;
    await seen;
    return calls;
  }
}

function wasNotSent(outcome: PromiseSettledResult<unknown>): boolean {
  return (
    outcome.status === 'rejected' &&
    outcome.reason instanceof StoreTimeoutError &&
    !outcome.reason.sent
  );
}
