/**
 * Converts between a session and its stored form. There are three forms:
 *
 * - the session itself;
 * - its text: JSON, or the string from an app's serializer. The store compares, merges and caches texts;
 * - the stored form, always JSON: the text itself, or a JSON string with a serializer's text or the ciphertext.
 *
 * @module
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  type KeyObject,
  randomBytes,
} from 'node:crypto';
import type { SessionData } from 'express-session';
import { NotSerializableError } from '../errors.js';
import { PLAINTEXT } from '../option-reader.js';
import type { Serializer, Settings } from '../options.js';
import { hasMethod, isObject, isPlainObject } from '../util/guards.js';
import { ignoreRejection } from '../util/promises.js';
import type { SameValue } from './equality.js';

/** A stored form that cannot be read: corrupt, encrypted with an unknown key, or not a session. */
export class Unreadable extends Error {}

/** A parsed session: the app's data, not validated. */
export type ParsedSession = SessionData & Record<string, unknown>;

/** The pattern of the stored form of an encrypted session. */
const ENVELOPE = /^"1[\w-]{8}\.[\w-]{16}\.[\w-]+"$/;

export class Codec {
  readonly #serializer: Serializer | undefined;
  readonly #keys: readonly RowKey[];
  /** The key that encrypts; `undefined` if sessions are stored as plaintext. */
  readonly #current: RowKey | undefined;
  /** Whether the store accepts sessions that are not encrypted. */
  readonly #readsPlaintext: boolean;

  /** @param keys the first encrypts; all decrypt. An empty list means {@link PLAINTEXT} alone. */
  constructor(serializer: Serializer | undefined, keys: Settings['encryptionKeys']) {
    this.#serializer = serializer;
    this.#readsPlaintext = keys.length === 0 || keys.includes(PLAINTEXT);
    const all = keys.map((key) => (key === PLAINTEXT ? undefined : new RowKey(key)));
    this.#current = all[0];
    this.#keys = all.filter((key) => key !== undefined);
  }

  /** Whether the stored form is the text itself. */
  get isPlain(): boolean {
    return this.#serializer === undefined && this.#keys.length === 0;
  }

  /** Whether texts are JSON. */
  get isJson(): boolean {
    return this.#serializer === undefined;
  }

  /**
   * Returns the text of a session.
   *
   * @throws {NotSerializableError} for a BigInt, a cycle, a `toJSON` that throws, too many levels for the stack of
   *   `JSON.stringify`, or a value that is not an object
   */
  text(session: object): string {
    const text = isObject(session) && !Array.isArray(session) ? this.#textOf(session) : undefined;
    // Reject a value that could not be read again: an array, or an object with a `toJSON` that returns something else.
    if (text === undefined || (this.isJson && !text.startsWith('{'))) {
      throw new NotSerializableError('it is not an object');
    }
    return text;
  }

  #textOf(value: object): string {
    let text: unknown;
    try {
      text =
        this.#serializer === undefined
          ? JSON.stringify(value)
          : this.#serializer.stringify(plainCopy(value));
    } catch (error) {
      // An error of `JSON.stringify` may contain keys of the session. The app decides what its serializer's errors contain.
      throw new NotSerializableError(reasonOf(error), this.isJson ? undefined : error);
    }
    if (typeof text === 'string') return text;
    ignoreRejection(text);
    throw new NotSerializableError('its serialization is not a string');
  }

  /**
   * Parses a text into a new session object.
   *
   * @throws {Unreadable}
   */
  parse(text: string): ParsedSession {
    let session: unknown;
    try {
      session = this.#serializer === undefined ? JSON.parse(text) : this.#serializer.parse(text);
    } catch {
      throw new Unreadable('its text cannot be parsed');
    }
    if (!isSession(session)) {
      ignoreRejection(session);
      const isString = typeof session === 'string';
      throw new Unreadable(
        `it is not an object${isString ? '; it may be encrypted, or from another serializer' : ''}`,
      );
    }
    return session;
  }

  /**
   * Returns the stored form of the text of a row.
   *
   * @throws {NotSerializableError} if it is too long for a string, because the stored form is longer than the text
   */
  seal(id: string, text: string): string {
    try {
      const json = this.#serializer === undefined ? text : JSON.stringify(text);
      return this.#current === undefined ? json : JSON.stringify(this.#current.encrypt(id, json));
    } catch {
      throw new NotSerializableError('it is too large');
    }
  }

  /**
   * Returns the text of the stored form of a row.
   *
   * @throws {Unreadable}
   */
  unseal(id: string, stored: string): string {
    const isPlain = this.#keys.length === 0 || (this.#readsPlaintext && !ENVELOPE.test(stored));
    const json = isPlain ? stored : this.#decrypt(id, asString(stored));
    return this.#serializer === undefined ? json : asString(json);
  }

  /** Whether a stored form is encrypted with the first key, or is plaintext if that is first. */
  isCurrent(stored: string): boolean {
    if (this.#current === undefined) return !ENVELOPE.test(stored);
    return stored.startsWith(this.currentPrefix);
  }

  /** The beginning of stored forms that are encrypted with the first key; empty for plaintext. */
  get currentPrefix(): string {
    return this.#current === undefined ? '' : `"${this.#current.name}.`;
  }

  /**
   * Returns the stored form of a row, encrypted with the first key.
   *
   * @throws {Unreadable}
   */
  reseal(id: string, stored: string): string {
    return this.seal(id, this.unseal(id, stored));
  }

  #decrypt(id: string, envelope: string): string {
    const [name] = envelope.split('.', 1);
    const key = this.#keys.find((one) => one.name === name);
    if (key === undefined)
      throw new Unreadable('it is not encrypted with any of the encryptionKeys');
    return key.decrypt(id, envelope);
  }

  /** Compares two values that are not both plain objects by their text. */
  readonly same: SameValue = (one, other) => {
    if (this.#serializer === undefined && !(isObject(one) && isObject(other))) return false;
    try {
      return this.#textOf([one]) === this.#textOf([other]);
    } catch {
      return false;
    }
  };
}

/**
 * AES-256-GCM with a key derived for each row, because with random nonces one key is safe for only 2^32 messages (NIST
 * SP 800-38D, section 8.3). The id of the row is associated data, so the ciphertext of one row does not decrypt in
 * another. An envelope is `<name of the key>.<nonce>.<ciphertext and tag>`.
 */
class RowKey {
  readonly name: string;
  readonly #key: KeyObject;

  constructor(key: KeyObject) {
    this.#key = key;
    this.name = `1${createHmac('sha256', key).update('connect-drizzle key name').digest('base64url').slice(0, 8)}`;
  }

  encrypt(id: string, text: string): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv('aes-256-gcm', this.#derive(id), nonce);
    cipher.setAAD(Buffer.from(id));
    const sealed = Buffer.concat([
      cipher.update(text, 'utf8'),
      cipher.final(),
      cipher.getAuthTag(),
    ]);
    return `${this.name}.${nonce.toString('base64url')}.${sealed.toString('base64url')}`;
  }

  decrypt(id: string, envelope: string): string {
    const [, nonce = '', body = ''] = envelope.split('.');
    const sealed = Buffer.from(body, 'base64url');
    try {
      const decipher = createDecipheriv(
        'aes-256-gcm',
        this.#derive(id),
        Buffer.from(nonce, 'base64url'),
        {
          authTagLength: TAG_BYTES,
        },
      );
      decipher.setAAD(Buffer.from(id));
      decipher.setAuthTag(sealed.subarray(-TAG_BYTES));
      return (
        decipher.update(sealed.subarray(0, -TAG_BYTES), undefined, 'utf8') + decipher.final('utf8')
      );
    } catch {
      throw new Unreadable('it does not decrypt');
    }
  }

  #derive(id: string): Buffer {
    return createHmac('sha256', this.#key).update(id).digest();
  }
}

const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Returns a shallow copy for a serializer, which may support dates and maps. Converts the cookie to plain data. */
function plainCopy(session: object): object {
  const copy: Record<string, unknown> = { ...session };
  const { cookie } = copy;
  if (isObject(cookie) && hasMethod(cookie, 'toJSON')) copy.cookie = cookie.toJSON();
  return copy;
}

/** Returns a reason without content of the session, because V8's message for a cycle contains keys. */
function reasonOf(error: unknown): string {
  if (error instanceof RangeError) {
    return /call stack/i.test(error.message) ? 'it is nested too deeply' : 'it is too large';
  }
  if (!(error instanceof TypeError)) return 'its serialization threw an error';
  if (/BigInt/.test(error.message)) return 'it contains a BigInt';
  if (/circular/i.test(error.message)) return 'it contains a cycle';
  return 'its serialization threw a TypeError';
}

/** Parses a JSON string. */
function asString(json: string): string {
  let text: unknown;
  try {
    text = JSON.parse(json);
  } catch {
    throw new Unreadable('it is not JSON');
  }
  if (typeof text !== 'string') throw new Unreadable('this store did not write it');
  return text;
}

function isSession(value: unknown): value is ParsedSession {
  return isPlainObject(value);
}
