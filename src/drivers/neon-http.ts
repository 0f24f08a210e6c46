/**
 * Neon over HTTP: `neon()`, and databases of `drizzle-orm/neon-http`.
 *
 * @module
 */
import { hasMethod, isObject, property } from '../util/guards.js';
import type { Driver, Result, Value } from './driver.js';
import { connectionless, lacksConnections } from './support/connectionless.js';

interface NeonOptions {
  readonly arrayMode: true;
  readonly fullResults: true;
  readonly types: object;
  readonly fetchOptions: { readonly signal: AbortSignal };
}

type RunNeon = (text: string, values: readonly Value[], options: NeonOptions) => Promise<Result>;

/** The parts of `neon()` that the store uses. Before version 1, the function itself runs statements. */
export type NeonHttp = ((...args: never[]) => unknown) & { readonly transaction: unknown };

/** Returns results as the server sends them, also if the app has set type parsers. */
const AS_TEXT = { getTypeParser: () => (value: string) => value };

export const NEON_HTTP_LACKS = lacksConnections(
  'Neon over HTTP',
  'a Pool of @neondatabase/serverless',
);

export function neonHttp(client: NeonHttp): Driver {
  const run = runOf(client);
  return connectionless(async ({ text }, values, signal) => {
    const { rows, rowCount } = await run(text, values, {
      arrayMode: true,
      fullResults: true,
      types: AS_TEXT,
      fetchOptions: { signal },
    });
    return { rows, rowCount };
  }, NEON_HTTP_LACKS);
}

function runOf(client: NeonHttp): RunNeon {
  const run: unknown = property(client, 'query') ?? client;
  return async (...args) => {
    const result: unknown = typeof run === 'function' ? await run.apply(client, args) : undefined;
    if (isResult(result)) return result;
    throw new TypeError('neon() returned no result');
  };
}

function isResult(value: unknown): value is Result {
  return isObject(value) && Array.isArray(property(value, 'rows'));
}

export function isNeonHttp(client: object): client is NeonHttp {
  // Vercel's `sql` forwards the properties of a pool, which has no `transaction`.
  return typeof client === 'function' && hasMethod(client, 'transaction') && !('options' in client);
}
