/**
 * Loads the optional packages of the drivers. In the CommonJS build, load.cts replaces this module.
 *
 * @module
 */
import type * as pglite from '@electric-sql/pglite';
import type pg from 'pg';
import type postgres from 'postgres';

/** The optional packages, each with what its `require` returns. */
export interface Drivers {
  pg: typeof pg;
  postgres: typeof postgres;
  '@electric-sql/pglite': typeof pglite;
}

/**
 * Loads the package of a driver. Bundlers leave the import alone, so that an app needs only the package of
 * the driver it uses. Rejects with Node's own error if the package is not installed.
 */
export async function loadDriver<Name extends keyof Drivers>(name: Name): Promise<Drivers[Name]> {
  const module = await import(/* webpackIgnore: true */ /* @vite-ignore */ name);
  return module.default ?? module;
}
