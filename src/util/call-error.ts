/**
 * Explains a call of a class without `new`.
 *
 * @module
 */

/** Returns the class. A call without `new` throws the error of `errorOf` instead of JavaScript's own. */
export function withCallError<Class extends { readonly prototype: object }>(
  target: Class,
  errorOf: () => Error,
): Class {
  const explained = new Proxy(target, {
    apply() {
      throw errorOf();
    },
  });
  Object.defineProperty(target.prototype, 'constructor', { value: explained });
  return explained;
}
