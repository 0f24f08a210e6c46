/**
 * Keeps a broken connection of an app's pool from ending the process. If an idle connection breaks, node-postgres emits
 * `error` on the pool; if a checked-out connection breaks, on the client. Without a listener, Node ends the process.
 *
 * @module
 */
import type { EventEmitter } from 'node:events';

type Report = (error: unknown) => void;

/** Attached to a pool: one listener for all stores and all copies of the package. */
interface Guard {
  /** Weak, so that the pool does not keep a store in memory if the app has forgotten to close it. */
  readonly reports: Set<WeakRef<Report>>;
  /** Whether a store was never closed. The listener then stays for good. */
  forgotten: boolean;
  readonly listener: (error: unknown) => void;
}

const GUARD = Symbol.for('connect-drizzle.pool-guard.1');

/**
 * Listens to the pool's `error` event until the returned function is called. Only the first store reports an error. If the
 * app has its own listener, that one gets the error and no store reports it. The caller must keep `report` in memory.
 */
export function guardPool(pool: object, report: Report): () => void {
  if (!isEmitter(pool)) return () => {};
  const guard = guardOf(pool);
  for (const each of guard.reports) {
    if (each.deref() !== undefined) continue;
    guard.reports.delete(each);
    guard.forgotten = true;
  }
  const own = new WeakRef(report);
  guard.reports.add(own);
  if (!pool.listeners('error').includes(guard.listener)) pool.on('error', guard.listener);
  return () => {
    guard.reports.delete(own);
    if (guard.reports.size === 0 && !guard.forgotten) pool.off('error', guard.listener);
  };
}

function guardOf(pool: EventEmitter): Guard {
  const known: unknown = Reflect.get(pool, GUARD);
  if (isGuard(known)) return known;
  const reports: Guard['reports'] = new Set();
  const guard: Guard = {
    reports,
    forgotten: false,
    listener: (error) => {
      if (pool.listenerCount('error') > 1) return;
      for (const each of reports) {
        const report = each.deref();
        if (report !== undefined) return report(error);
      }
    },
  };
  Object.defineProperty(pool, GUARD, { value: guard });
  return guard;
}

function isGuard(value: unknown): value is Guard {
  return typeof value === 'object' && value !== null && 'reports' in value && 'listener' in value;
}

function isEmitter(value: object): value is EventEmitter {
  return 'on' in value && 'off' in value && 'listeners' in value && 'listenerCount' in value;
}
