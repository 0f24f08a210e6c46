import type pg from 'pg';

/** Runs a query when the test lets it, and gives its answer when the test lets it. */
export type QueryGate = <Answer>(query: () => Promise<Answer>) => Promise<Answer>;

/** A real pool whose queries pass through a gate on their way there and back. */
export function gatedPool(pool: pg.Pool, gate: QueryGate): pg.Pool {
  return new Proxy(pool, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key);
      if (typeof value !== 'function') return value;
      if (key !== 'query') return value.bind(target);
      return (...args: unknown[]) => gate(() => Reflect.apply(value, target, args));
    },
  });
}
