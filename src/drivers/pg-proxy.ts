/**
 * Databases of `drizzle-orm/pg-proxy`: the app's own function runs the statements.
 *
 * @module
 */
import { isObject, property } from '../util/guards.js';
import type { Driver, Value } from './driver.js';
import { connectionless, lacksConnections } from './support/connectionless.js';

/** The function that the app passed to `drizzle()`. It returns rows as arrays for the method `all`. */
export type ProxyCallback = (text: string, values: readonly Value[], method: 'all') => unknown;

export const PG_PROXY_LACKS = lacksConnections(
  'drizzle-orm/pg-proxy',
  'a pg.Pool or a URL of the same database',
);

export function pgProxy(callback: ProxyCallback): Driver {
  return connectionless(async ({ text, isCommand }, values) => {
    // It does not return the number of changed rows, so the statement returns the rows and they are counted.
    const counted = isCommand ? `${text} returning 1` : text;
    const rows = rowsOf(await callback(counted, [...values], 'all'));
    return { rows, rowCount: rows.length };
  }, PG_PROXY_LACKS);
}

function rowsOf(result: unknown): (readonly Value[])[] {
  const rows = property(result, 'rows');
  if (Array.isArray(rows) && rows.every(Array.isArray)) return rows;
  throw new TypeError(
    "The function passed to drizzle() of drizzle-orm/pg-proxy must return { rows }, with each row as an array for the method 'all'",
  );
}

/** Returns the function of a pg-proxy database, recognised by the name of its class; `undefined` for any other database. */
export function callbackOf(database: object): ProxyCallback | undefined {
  const session = property(database, 'session') ?? property(property(database, '_'), 'session');
  const callback = isObject(session) ? property(session, 'client') : undefined;
  return isCallback(callback) ? callback : undefined;
}

function isCallback(value: unknown): value is ProxyCallback {
  return typeof value === 'function';
}
