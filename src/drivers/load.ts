/**
 * Loads the package of a driver when a store needs it.
 *
 * @module
 */
import { DriverMissingError, sqlState } from '../errors.js';
import { isRecord } from '../util/guards.js';
import { importPackage, type Packages } from './support/import-package.js';

/**
 * Loads a package.
 *
 * @throws {DriverMissingError} naming the package that is not installed: this one, or one of its dependencies
 */
export async function loadDriver<Name extends keyof Packages>(name: Name): Promise<Packages[Name]> {
  try {
    return await importPackage(name);
  } catch (error) {
    throw loadError(name, error);
  }
}

/** @internal Returns the error to report if a package cannot be loaded. */
export function loadError(name: string, error: unknown): unknown {
  const code = sqlState(error);
  const isMissing = code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND';
  return isMissing ? new DriverMissingError(missingPackage(error) ?? name) : error;
}

/**
 * Returns the package that was not found, if Node's message names one. In Jest the error comes from another realm, so it
 * is not an instance of this realm's `Error`.
 */
function missingPackage(error: unknown): string | undefined {
  const message = isRecord(error) ? String(error.message) : '';
  return /Cannot find (?:package|module) '([^']+)'/.exec(message)?.[1];
}
