/**
 * Type guards and property access for values of unknown shape.
 *
 * @module
 */

/** Whether a value is an object, arrays included, and not a function. */
export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

/** Like {@link isObject}, for callers that read its properties by name. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return isObject(value);
}

/** Whether a value is a plain object, as from a literal or `JSON.parse`: not an array or an instance of a class. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (!isObject(value)) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Returns a property of an object or a function, own or inherited; `undefined` for any other value. */
export function property(value: unknown, key: PropertyKey): unknown {
  return hasProperties(value) ? value[key] : undefined;
}

function hasProperties(value: unknown): value is Record<PropertyKey, unknown> {
  return isObject(value) || typeof value === 'function';
}

export function hasMethod<Name extends string>(
  value: unknown,
  name: Name,
): value is Record<Name, () => unknown> {
  return typeof property(value, name) === 'function';
}
