/**
 * Sets options of an app's node-postgres pool, only while the store uses it.
 *
 * @module
 */
import { property } from '../../util/guards.js';

interface Pool {
  readonly options: object;
}

/** Runs synchronous work while the pool has a `connectionTimeoutMillis`. Keeps the app's own, if set. */
export function limited(pool: Pool, limitMs: number | undefined, work: () => void): void {
  const name = 'connectionTimeoutMillis';
  withOption(pool, name, property(pool.options, name) || limitMs, work);
}

/** Runs synchronous work while an option of the pool has another value. */
export function withOption(pool: Pool, name: string, value: unknown, work: () => void): void {
  const own = property(pool.options, name);
  Reflect.set(pool.options, name, value);
  try {
    work();
  } finally {
    Reflect.set(pool.options, name, own);
  }
}

/** By pool: the time limit for new clients, and how many calls of `acquire` wait. */
const limits = new WeakMap<object, { waiting: number; limitMs: number }>();

/** Limits the time to connect until the returned function is called. A pool creates new clients when others were removed. */
export function limitNewClients(pool: Pool, limitMs: number): () => void {
  const limit = limits.get(pool) ?? { waiting: 0, limitMs };
  if (!limits.has(pool)) {
    limits.set(pool, limit);
    const newClient = property(pool, 'newClient');
    if (typeof newClient === 'function') {
      const value = (...args: unknown[]) =>
        limited(pool, limit.waiting === 0 ? undefined : limit.limitMs, () => {
          Reflect.apply(newClient, pool, args);
        });
      Object.defineProperty(pool, 'newClient', { value, configurable: true, writable: true });
    }
  }
  // Stores with other timeouts may wait for this pool, too.
  limit.limitMs = limit.waiting === 0 ? limitMs : Math.max(limit.limitMs, limitMs);
  limit.waiting += 1;
  return () => {
    limit.waiting -= 1;
  };
}
