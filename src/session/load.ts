/**
 * Creates sessions from rows.
 *
 * @module
 */
import type { SessionData } from 'express-session';
import type { Deadline } from '../batching/deadlines.js';
import type { Rows } from '../batching/rows.js';
import type { StoredRow } from '../queries/wire.js';
import { isObject } from '../util/guards.js';
import { type Codec, type ParsedSession, Unreadable } from './codec.js';
import { isUsableCookie } from './cookie.js';
import type { Saver } from './save.js';

export class Loader {
  /** Number of rows that could not be read so far. */
  unreadableRows = 0;
  readonly #codec: Codec;
  readonly #saver: Saver;
  readonly #maxLifetime: number | undefined;
  readonly #log: (message: string) => void;

  /** @param maxLifetime in seconds */
  constructor(
    codec: Codec,
    saver: Saver,
    maxLifetime: number | undefined,
    log: (message: string) => void,
  ) {
    this.#codec = codec;
    this.#saver = saver;
    this.#maxLifetime = maxLifetime;
    this.#log = log;
  }

  /**
   * Returns the session of a live row and remembers its origin. With `isForRequest`, a row without a usable cookie
   * counts as no session; otherwise it is returned as stored.
   */
  loaded(row: StoredRow, isForRequest: boolean): SessionData | undefined {
    if (this.endOf(row) <= Date.now()) return undefined;
    const session = isForRequest ? this.sessionOf(row) : this.#stored(row);
    if (session !== undefined) this.#saver.loaded(session, row, session.cookie);
    return session;
  }

  /** Returns the session of a row; reports one that cannot be read or has no usable cookie and returns `undefined`. */
  sessionOf(row: StoredRow): SessionData | undefined {
    const session = this.#stored(row);
    if (session === undefined || isUsableCookie(session.cookie)) return session;
    return this.unreadable(row.id, new Unreadable('it has no cookie that express-session can use'));
  }

  /** Returns when a session ends, in milliseconds since 1970: at its expiry, or at the end of its absolute lifetime. */
  endOf({ expiresAt, createdAt }: StoredRow): number {
    return this.#maxLifetime === undefined
      ? expiresAt
      : Math.min(expiresAt, Math.floor(createdAt / 1000) + this.#maxLifetime * 1000);
  }

  /** Awaits a read or write of a row; reports a row that cannot be read and returns `undefined`. */
  readable<T>(id: string, reading: Promise<T>): Promise<T | undefined> {
    return reading.catch((error) => this.unreadable(id, error));
  }

  /** Reports a row that cannot be read. Throws any other error. */
  unreadable(id: string, error: unknown): undefined {
    if (!(error instanceof Unreadable)) throw error;
    this.unreadableRows += 1;
    this.#log(`The session with the id ${id} cannot be read: ${error.message}`);
    return undefined;
  }

  /** Returns a listed row with its text; reports a row that cannot be read and returns `undefined`. */
  unsealed(row: StoredRow): StoredRow | undefined {
    try {
      return { ...row, data: this.#codec.unseal(row.id, row.data) };
    } catch (error) {
      return this.unreadable(row.id, error);
    }
  }

  /** Returns the session of a row as stored, except that its cookie has the expiry of the row. */
  #stored(row: StoredRow): ParsedSession | undefined {
    try {
      const session = this.#codec.parse(row.data);
      const cookie: unknown = session.cookie;
      if (!isObject(cookie) || !('expires' in cookie) || !cookie.expires) return session;
      const expires = new Date(this.endOf(row));
      // An app's serializer may return frozen objects.
      if (!this.#codec.isJson) return { ...session, cookie: { ...session.cookie, expires } };
      cookie.expires = expires.toISOString();
      return session;
    } catch (error) {
      return this.unreadable(row.id, error);
    }
  }
}

/** Returns the row from the cache, or from the database. */
export function rowOf(id: string, rows: Rows, deadline: Deadline): Promise<StoredRow | undefined> {
  const cached = rows.peek(id);
  return cached === undefined ? rows.read(id, deadline) : Promise.resolve(cached);
}
