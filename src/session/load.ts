/**
 * What a row is for the app: its session, or none.
 *
 * @module
 */
import type { SessionData } from 'express-session';
import type { ListedRow, StoredRow } from '../queries/answers.js';
import { type Codec, Unreadable } from './codec.js';
import { isUsableCookie } from './cookie.js';
import { asSession, type Saver } from './save.js';

export class Loader {
  /** Rows that could not be read so far. */
  unreadableRows = 0;
  readonly #codec: Codec;
  readonly #saver: Saver;
  readonly #maxLifetime: number | undefined;
  readonly #log: (message: string) => void;

  /** `maxLifetime` is in seconds. */
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
   * Returns the session of a live row and remembers its origin. `isForRequest`: a row without a usable cookie is no
   * session; otherwise it is returned as stored.
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

  /** Returns the session of a row as stored, its cookie with the expiry of the row. */
  #stored(row: StoredRow): SessionData | undefined {
    try {
      const session = this.#codec.parse(row.data);
      const { cookie } = session;
      if (typeof cookie !== 'object' || cookie === null || !('expires' in cookie)) {
        return asSession(session);
      }
      if (!cookie.expires) return asSession(session);
      const expires = new Date(this.endOf(row));
      // What an app's serializer gives is the app's.
      if (!this.#codec.isJson) return asSession({ ...session, cookie: { ...cookie, expires } });
      cookie.expires = expires.toISOString();
      return asSession(session);
    } catch (error) {
      this.unreadable(row.id, error);
      return undefined;
    }
  }

  /** When a session ends: at its expiry, or at the end of its absolute lifetime. */
  endOf({ expiresAt, createdAt }: StoredRow): number {
    return this.#maxLifetime === undefined
      ? expiresAt
      : Math.min(expiresAt, Math.floor(createdAt / 1000) + this.#maxLifetime * 1000);
  }

  /** What is being read; `undefined` where it cannot be. */
  readable<T>(id: string, reading: Promise<T>): Promise<T | undefined> {
    return reading.catch((error) => this.unreadable(id, error));
  }

  /** Reports a row that cannot be read, which is no session; any other error stays one. */
  unreadable(id: string, error: unknown): undefined {
    if (!(error instanceof Unreadable)) throw error;
    this.unreadableRows += 1;
    this.#log(`The session with the id ${id} cannot be read: ${error.message}`);
    return undefined;
  }

  /** A listed row with its text. */
  unsealed(row: ListedRow): ListedRow | undefined {
    try {
      return { ...row, data: this.#codec.unseal(row.id, row.data) };
    } catch (error) {
      this.unreadable(row.id, error);
      return undefined;
    }
  }
}
