/**
 * Imports the optional packages of the drivers. In the CommonJS build, import-package.cts replaces this module.
 *
 * @module
 */
import type * as pglite from '@electric-sql/pglite';
import type pg from 'pg';
import type postgres from 'postgres';

/** The optional packages, with the types of their exports. */
export interface Packages {
  pg: typeof pg;
  postgres: typeof postgres;
  '@electric-sql/pglite': typeof pglite;
}

/**
 * Imports a package. Bundlers do not follow this import, so an app needs only the package of the driver that it
 * uses. Rejects with Node's own error if the package is not installed.
 */
export async function importPackage<Name extends keyof Packages>(
  name: Name,
): Promise<Packages[Name]> {
  const module = await import(/* webpackIgnore: true */ /* @vite-ignore */ name);
  return module.default ?? module;
}
