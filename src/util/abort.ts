/**
 * Helpers for abort signals.
 *
 * @module
 */

interface Followers {
  readonly callbacks: Set<() => void>;
  readonly stop: () => void;
}

const followed = new WeakMap<AbortSignal, Followers>();

/**
 * Calls `onAbort` when the signal is aborted, or at once if it already is. Returns a function that removes the callback.
 * All callbacks share one listener, because Node warns of a leak if there are more than ten.
 */
export function followSignal(signal: AbortSignal, onAbort: () => void): () => void {
  if (signal.aborted) {
    onAbort();
    return () => {};
  }
  const { callbacks, stop } = followed.get(signal) ?? listen(signal);
  callbacks.add(onAbort);
  return () => {
    callbacks.delete(onAbort);
    if (callbacks.size === 0) stop();
  };
}

function listen(signal: AbortSignal): Followers {
  const callbacks = new Set<() => void>();
  const abort = () => {
    stop();
    for (const callback of callbacks) callback();
  };
  const stop = () => {
    signal.removeEventListener('abort', abort);
    followed.delete(signal);
  };
  signal.addEventListener('abort', abort);
  const followers = { callbacks, stop };
  followed.set(signal, followers);
  return followers;
}

/** Waits for a promise, and rejects with the signal's reason as soon as the signal is aborted. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
  });
}
