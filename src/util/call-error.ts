/**
 * Explains a call of a class without `new`.
 *
 * @module
 */

/** Returns the class, but calling it without `new` throws the error of `errorOf` and not a message of JavaScript. */
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
