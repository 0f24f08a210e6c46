/**
 * Promises where there should be none.
 *
 * @module
 */
import { hasMethod } from './guards.js';

/**
 * Ignores the rejection of a promise that a function of the app returned although it must not be async. Otherwise the
 * rejection would end the process.
 */
export function ignoreRejection(returned: unknown): void {
  if (hasMethod(returned, 'then')) Promise.resolve(returned).catch(() => {});
}
