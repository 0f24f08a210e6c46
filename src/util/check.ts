/**
 * What an app passes is checked one value at a time. A message says what came, short, and what is taken.
 *
 * @module
 */
import { inspect } from 'node:util';
import { InvalidArgumentError } from '../errors.js';
import { MAX_IDENTIFIER_BYTES } from '../names.js';

/** Reads single options; a message names the option with its path (`cache.max`). */
export class Reader {
  constructor(
    private readonly options: object,
    private readonly path: string,
  ) {}

  /** Refuses what is not known; `hints` tell where options went that others know. */
  only(known: readonly string[], hints: Readonly<Record<string, string>> = {}): void {
    for (const name of Object.keys(this.options)) {
      if (known.includes(name)) continue;
      const hint = hints[name] ?? `the options are ${known.join(', ')}`;
      throw new InvalidArgumentError(`unknown option ${this.path}${name}: ${hint}`);
    }
  }

  boolean(name: string, value: unknown, fallback: boolean): boolean {
    if (value === undefined) return fallback;
    if (typeof value !== 'boolean') throw wrong(this.path + name, 'true or false', value);
    return value;
  }

  function<F>(name: string, value: F | undefined): F | undefined {
    if (value !== undefined && typeof value !== 'function') {
      throw wrong(this.path + name, 'a function', value);
    }
    return value;
  }

  integer(name: string, value: unknown, min: number, max: number): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw wrong(this.path + name, `a whole number from ${min} to ${max}`, value);
    }
    return value;
  }

  /** A duration: above `min` (or `min` itself where it is given), up to `max` seconds. */
  seconds(name: string, value: unknown, max: number, min?: number, otherwise = ''): number {
    const low = typeof value === 'number' && (min === undefined ? value > 0 : value >= min);
    if (typeof value !== 'number' || !low || !(value <= max)) {
      const from = min === undefined ? 'above 0' : `from ${min}`;
      throw wrong(
        this.path + name,
        `a number of seconds (not milliseconds) ${from} up to ${max}${otherwise}`,
        value,
      );
    }
    return value;
  }

  identifier(name: string, value: unknown): string | undefined {
    if (value === undefined) return undefined;
    if (typeof value !== 'string' || value === '' || value.includes('\0')) {
      throw wrong(this.path + name, 'an identifier', value);
    }
    if (Buffer.byteLength(value) > MAX_IDENTIFIER_BYTES) {
      throw new InvalidArgumentError(
        `${this.path}${name} must be at most ${MAX_IDENTIFIER_BYTES} bytes long, but got ${Buffer.byteLength(value)}`,
      );
    }
    return value;
  }
}

export function wrong(name: string, taken: string, came: unknown): InvalidArgumentError {
  return new InvalidArgumentError(`${name} must be ${taken}, but got ${describe(came)}`);
}

/** A value in a message: short, and of a text or an object no more than its kind (it may hold a password). */
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

export function isPlainObject(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
