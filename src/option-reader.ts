/**
 * Checks the options that an app passes, one value at a time.
 *
 * @module
 */
import { createSecretKey, KeyObject } from 'node:crypto';
import { InvalidArgumentError, invalidValue } from './errors.js';
import { MAX_IDENTIFIER_BYTES } from './names.js';

/** Means "not encrypted" in a list of encryption keys. */
export const PLAINTEXT = 'plaintext';

/** Hints for the options of other session stores. */
export const OTHER_STORES: Readonly<Record<string, string>> = {
  // connect-pg-simple, connect-pg-pool
  pool: 'pass the pool as the first argument: new DrizzleStore(pool, options)',
  pgPromise: 'pass its pool as the first argument: new DrizzleStore(db.$pool, options)',
  conString: 'pass the URL as the first argument: new DrizzleStore(url, options)',
  conObject: 'pass a pg.Pool as the first argument: new DrizzleStore(new Pool(…), options)',
  pruneSessionRandomizedInterval: 'pruneSessionInterval is always jittered, by 50 %',
  // session-pouchdb-store
  purge: 'use pruneSessionInterval, in seconds',
  maxIdle: 'it is an option of the cache: cache: { maxIdle }, in seconds',
  scavenge: 'it is an option of the cache: cache: { scavenge }, in seconds',
  commit: 'each save is in the database when its call returns',
  // connect-redis
  client: 'pass the pool or database as the first argument: new DrizzleStore(pool, options)',
  db: 'pass the database as the first argument: new DrizzleStore(db, options)',
  prefix: 'use a separate table instead: tableName',
  disableTTL: 'every session expires: give the cookie a long maxAge',
  scanCount: 'sessions are listed in pages by the primary key',
  // connect-mongo
  mongoUrl: 'pass a postgres:// URL as the first argument: new DrizzleStore(url, options)',
  clientPromise: 'pass the pool or database as the first argument: new DrizzleStore(pool, options)',
  mongoOptions: 'pass a pg.Pool as the first argument: new DrizzleStore(new Pool(…), options)',
  dbName: 'it is part of the URL',
  collectionName: 'use tableName',
  autoRemove: 'use pruneSessionInterval, in seconds; false never deletes',
  autoRemoveInterval: 'use pruneSessionInterval, in seconds',
  stringify: 'a session is stored as JSON, or as serializer converts it',
  serialize: 'use serializer: { stringify, parse }',
  unserialize: 'use serializer: { stringify, parse }',
  crypto: 'use encryptionKeys',
  cryptoAdapter: 'use encryptionKeys',
  timestamps: 'the table always has them: created_at, last_seen_at',
  transformId: 'the table always stores a hash of the sid: idOf(sid)',
  writeOperationOptions: "use the server's setting synchronous_commit",
};

/** Every method throws an {@link InvalidArgumentError} that names the option with its path (`cache.max`). */
export class OptionReader {
  readonly #options: object;
  readonly #path: string;

  constructor(options: object, path: string) {
    this.#options = options;
    this.#path = path;
  }

  /** Throws for unknown options. `hints` has a hint for each option of other packages. */
  only(known: readonly string[], hints: Readonly<Record<string, string>> = {}): void {
    for (const name of Object.keys(this.#options)) {
      if (known.includes(name)) continue;
      const hint = hints[name] ?? `the options are ${known.join(', ')}`;
      throw new InvalidArgumentError(`unknown option ${this.#path}${name}: ${hint}`);
    }
  }

  boolean(name: string, value: unknown, fallback: boolean): boolean {
    if (value === undefined) return fallback;
    if (typeof value !== 'boolean') throw this.#invalid(name, 'true or false', value);
    return value;
  }

  function<F>(name: string, value: F | undefined): F | undefined {
    if (value !== undefined && typeof value !== 'function') {
      throw this.#invalid(name, 'a function', value);
    }
    return value;
  }

  integer(name: string, value: unknown, min: number, max: number): number {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
      throw this.#invalid(name, `a whole number from ${min} to ${max}`, value);
    }
    return value;
  }

  /**
   * Reads a duration in seconds, up to `max`. Without `min`, it must be above 0. `otherwise` names other values that the
   * option accepts.
   */
  seconds(name: string, value: unknown, max: number, min?: number, otherwise = ''): number {
    const low = typeof value === 'number' && (min === undefined ? value > 0 : value >= min);
    if (typeof value !== 'number' || !low || !(value <= max)) {
      const from = min === undefined ? 'above 0' : `from ${min}`;
      const accepted = `a number of seconds (not milliseconds) ${from} up to ${max}${otherwise}`;
      throw this.#invalid(name, accepted, value, secondsMeant(value, max));
    }
    return value;
  }

  oneOf<Choice extends string>(
    name: string,
    value: unknown,
    choices: readonly Choice[],
    fallback: Choice,
  ): Choice {
    if (value === undefined) return fallback;
    const choice = choices.find((each) => each === value);
    if (choice === undefined) {
      throw this.#invalid(name, choices.map((each) => `'${each}'`).join(' or '), value);
    }
    return choice;
  }

  /** Reads keys of 32 bytes. Error messages never contain a key. */
  keys(name: string, values: unknown): readonly (KeyObject | typeof PLAINTEXT)[] {
    if (values === undefined) return [];
    if (!Array.isArray(values) || values.length === 0) {
      throw new InvalidArgumentError(
        `${this.#path}${name} must be an array with the current key first, and not empty`,
      );
    }
    return values.map((value: unknown, at) => {
      if (value === PLAINTEXT) return value;
      const bytes = keyBytes(value);
      if (bytes?.byteLength === 32) return createSecretKey(bytes);
      const got = bytes === undefined ? typeof value : `${bytes.byteLength} bytes`;
      throw new InvalidArgumentError(
        `${this.#path}${name}[${at}] must be 32 bytes as a Buffer, a secret KeyObject, hex or base64, but got ${got}`,
      );
    });
  }

  /** Reads the name of a table without its schema. */
  tableName(name: string, value: unknown): string | undefined {
    const tableName = this.identifier(name, value);
    const [, schema, table] = /^"?([\w$]+)"?\."?([\w$]+)"?$/.exec(tableName ?? '') ?? [];
    if (table === undefined) return tableName;
    throw new InvalidArgumentError(
      `${this.#path}${name} must be the name of a table without its schema, but got '${tableName}': ` +
        `write schemaName: '${schema}', tableName: '${table}'`,
    );
  }

  /** Reads the name of a table or a Postgres schema. */
  identifier(name: string, value: unknown): string | undefined {
    if (value === undefined) return undefined;
    if (typeof value !== 'string' || value === '' || value.includes('\0')) {
      throw this.#invalid(name, 'an identifier', value);
    }
    if (Buffer.byteLength(value) > MAX_IDENTIFIER_BYTES) {
      throw new InvalidArgumentError(
        `${this.#path}${name} must be at most ${MAX_IDENTIFIER_BYTES} bytes long, but got ${Buffer.byteLength(value)}`,
      );
    }
    return value;
  }

  #invalid(name: string, accepted: string, value: unknown, hint = ''): InvalidArgumentError {
    return invalidValue(this.#path + name, accepted, value, hint);
  }
}

function keyBytes(key: unknown): Uint8Array | undefined {
  if (key instanceof Uint8Array) return key;
  if (key instanceof KeyObject) return key.type === 'secret' ? key.export() : undefined;
  if (typeof key !== 'string') return undefined;
  if (/^[0-9a-f]{64}$/i.test(key)) return Buffer.from(key, 'hex');
  if (/^[A-Za-z0-9+/_-]+={0,2}$/.test(key)) return Buffer.from(key, 'base64');
  return undefined;
}

/** Returns a hint if a duration is too long in seconds, but not in milliseconds. */
function secondsMeant(value: unknown, max: number): string {
  if (typeof value !== 'number' || value <= max || value % 1000 !== 0) return '';
  return value / 1000 <= max ? ` (if these are milliseconds, write ${value / 1000})` : '';
}
