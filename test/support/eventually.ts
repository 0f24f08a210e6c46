import { StatementError, StoreTimeoutError } from 'connect-drizzle';
import { causeCode } from './statements.js';

/**
 * Repeats a call until it does not time out. For calls that must succeed on a store with a short timeout, even on a
 * busy machine.
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

/** Whether it is a timeout of the store, or a statement timeout of the server or the client. */
function isLate(error: unknown): boolean {
  if (error instanceof StoreTimeoutError) return true;
  return error instanceof StatementError && causeCode(error) === '57014';
}

/**
 * Makes calls on a store with a short timeout, and makes them again if they time out before they are sent, as on a
 * busy machine. Returns the calls when `sent` has resolved.
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

/**
 * Measures how long something takes, up to three times until it is below a limit: a busy machine may hold up one of
 * them. Returns the shortest time in milliseconds.
 */
export async function shortestMs(limitMs: number, measure: () => Promise<number>): Promise<number> {
  let shortest = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 3 && shortest >= limitMs; tries += 1) {
    shortest = Math.min(shortest, await measure());
  }
  return shortest;
}
