/**
 * The origins of session objects: where each one came from.
 *
 * @module
 */
import type { StoredRow } from '../queries/wire.js';
import type { CookieData } from './cookie.js';

/** The origin of a session that `get` returned or that was saved before. Every save updates it. */
export interface Loaded {
  readonly id: string;
  /** Microseconds since 1970. */
  readonly createdAt: number;
  version: number;
  /** The text as stored. */
  stored: string;
  /** The text as this request sees it. It differs after a merge, because its object lacks the other request's changes. */
  seen: string;
  userId: string | null;
  /** Milliseconds since 1970. */
  expiresAt: number;
  /** See {@link StoredRow}. */
  lastSeenAt: number;
  /** Whether express-session has created a `Session` from it, which drops some keys. */
  readonly isInflated: boolean;
  /** The cookie as it was read; `undefined` after a save, which may have changed it. */
  cookie: CookieData | undefined;
}

/** The origin of a session that express-session generated in this request. */
export interface Generated {
  readonly generatedFor: string;
}

/** Attaches private data to an object, like a WeakMap but cheaper for the garbage collector. */
export interface Attachments<T> {
  get(object: object): T | undefined;
  set(object: object, value: T): void;
}

export type Origins = Attachments<Loaded | Generated>;

/** Returns the origin of a session that was loaded under this id. */
export function loadedOrigin(origins: Origins, object: object, id: string): Loaded | undefined {
  const origin = origins.get(object);
  return origin !== undefined && 'id' in origin && origin.id === id ? origin : undefined;
}

class Returned {
  constructor(object: object) {
    // biome-ignore lint/correctness/noConstructorReturn: a derived class adds its private field to it
    return object;
  }
}

/**
 * A derived class adds its private fields to the object that the base constructor returns. The garbage collector finds
 * such a field together with its object. In a WeakMap, it has to search for live keys in each run (measured: half a
 * microsecond more for each `get`).
 */
export function attachments<T>(): Attachments<T> {
  class Carrier extends Returned {
    #value: T;

    private constructor(object: object, value: T) {
      super(object);
      this.#value = value;
    }

    static get(object: object): T | undefined {
      return #value in object ? object.#value : undefined;
    }

    static set(object: object, value: T): void {
      if (#value in object) object.#value = value;
      else new Carrier(object, value);
    }
  }
  return Carrier;
}
