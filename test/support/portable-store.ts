/**
 * Replaces `connect-drizzle` when the core suite runs on the portable statements: every store gets the option
 * `engine: 'portable'` by default.
 */
import { type DrizzleStoreOptions, DrizzleStore as Store } from '../../src/index.js';

export * from '../../src/index.js';

function isPlainObject(value: unknown): value is object {
  return (
    typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
  );
}

function withEngine(args: readonly unknown[]): unknown[] {
  const [source, options = {}, ...others] = args;
  // The constructor refuses anything else.
  if (!isPlainObject(options)) return [...args];
  const own: DrizzleStoreOptions = { engine: 'portable' };
  return [args.length === 0 ? 'memory://' : source, { ...own, ...options }, ...others];
}

export const DrizzleStore: typeof Store = new Proxy(Store, {
  construct: (target, args: readonly unknown[], newTarget) =>
    Reflect.construct(target, withEngine(args), newTarget === DrizzleStore ? target : newTarget),
});
Object.defineProperty(Store.prototype, 'constructor', { value: DrizzleStore });
export type DrizzleStore = Store;
