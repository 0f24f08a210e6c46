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
 * @throws {DriverMissingError} naming the package that is not installed: this one, or one that it needs
 */
export async function loadDriver<Name extends keyof Packages>(name: Name): Promise<Packages[Name]> {
  try {
    return await importPackage(name);
  } catch (error) {
    const code = sqlState(error);
    if (code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') throw error;
    throw new DriverMissingError(missingPackage(error) ?? name);
  }
}

/**
 * Returns the package that Node did not find, if its message names one. Under Jest the error comes from
 * another realm, so it is not an instance of this one's `Error`.
 */
function missingPackage(error: unknown): string | undefined {
  const message = isRecord(error) ? String(error.message) : '';
  return /Cannot find (?:package|module) '([^']+)'/.exec(message)?.[1];
}
