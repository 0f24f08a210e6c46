/**
 * Recognises arguments that apps pass by mistake instead of a source.
 *
 * @module
 */
import { OTHER_STORES } from '../option-reader.js';
import { OPTIONS } from '../options.js';
import { hasMethod, isPlainObject } from '../util/guards.js';

/** The settings of a pool or client of `pg`, or of `postgres()`. */
const CONNECTION_SETTINGS: readonly string[] = [
  'connectionString',
  'host',
  'port',
  'user',
  'password',
  'database',
  'url',
];

/** @internal Says what a value is and what to write instead; `undefined` if that is unknown. Never shows its content. */
export function slipIn(source: unknown): string | undefined {
  if (isExpressSession(source)) {
    return 'express-session itself; DrizzleStore is a class, not a factory: new DrizzleStore(pool, options)';
  }
  if (!isPlainObject(source)) return undefined;
  for (const [name, hint] of Object.entries(OTHER_STORES)) {
    if (Object.hasOwn(source, name) && hint.startsWith('pass ')) {
      return `an object with the option ${name}: ${hint}`;
    }
  }
  const names = Object.keys(source);
  if (names.some((name) => CONNECTION_SETTINGS.includes(name))) {
    return 'the settings of a connection; pass a URL or a pg.Pool: new DrizzleStore(new Pool(settings), options)';
  }
  if (names.some((name) => OPTIONS.includes(name) || Object.hasOwn(OTHER_STORES, name))) {
    return (
      'options without a source; pass it first: new DrizzleStore(pool, options), or for an in-memory store ' +
      "new DrizzleStore('memory://', options)"
    );
  }
  return undefined;
}

function isExpressSession(value: unknown): boolean {
  return (
    typeof value === 'function' &&
    hasMethod(value, 'Store') &&
    hasMethod(value, 'Cookie') &&
    hasMethod(value, 'MemoryStore')
  );
}
