/**
 * Descriptions of values for error messages.
 *
 * @module
 */
import { inspect } from 'node:util';

/** Describes a value in a few words. Never shows the content of a string or an object, which may be a password. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return value === '' ? 'an empty string' : 'a string';
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object' && value !== null) {
    const name: unknown = Object.getPrototypeOf(value)?.constructor?.name;
    return typeof name === 'string' && name !== 'Object' ? `an instance of ${name}` : 'an object';
  }
  return inspect(value);
}
