import type session from 'express-session';
import type { SessionData } from 'express-session';

/** Seconds. As `timeout`, long enough for hundreds of calls at once beside twenty other busy processes. */
export const BUSY_TIMEOUT_S = 250;

/** A foreign session object whose cookie expires after `seconds`; with `null`, it has no expiry. */
export function sessionWith(data: object = {}, seconds: number | null = 3600): SessionData {
  const expires = seconds === null ? null : new Date(Date.now() + seconds * 1000);
  return sessionUntil(expires, data);
}

/** A foreign session object with this value as the expiry of its cookie. */
export function sessionUntil(expires: unknown, data: object = {}): SessionData {
  const time = expires instanceof Date ? expires.getTime() - Date.now() : null;
  const cookie = { originalMaxAge: time, expires, httpOnly: true, path: '/' };
  return asSession({ cookie, ...data });
}

/** Passes any object as a session, as an untyped app can. */
export function asSession(value: object): SessionData {
  return value as SessionData;
}

/** The content of a session without its cookie. */
export function contentOf(found: object | null | undefined): object | undefined {
  if (found === null || found === undefined) return undefined;
  return Object.fromEntries(Object.entries(found).filter(([key]) => key !== 'cookie'));
}

/** The expiry of a session's cookie, in milliseconds since 1970. */
export function endOf(found: SessionData | null | undefined): number | undefined {
  return timeOf(found?.cookie.expires);
}

/** A date, or a date as a string, in milliseconds since 1970. */
export function timeOf(date: unknown): number | undefined {
  return date instanceof Date || typeof date === 'string' ? new Date(date).getTime() : undefined;
}

/** A store with the optional methods of the contract, like MemoryStore. */
export type FullStore = Pick<session.Store, keyof session.Store> & {
  all(callback: (error?: unknown, found?: object | null) => void): void;
  length(callback: (error?: unknown, length?: number) => void): void;
  clear(callback?: (error?: unknown) => void): void;
  touch(sid: string, session: SessionData, callback?: () => void): void;
};

/** Calls a store with callbacks, as express-session does, and returns promises. */
export function callbacksOf(store: FullStore) {
  return {
    get: (sid: string) =>
      promised<SessionData | undefined>((done) =>
        store.get(sid, (error, found) => done(error, found ?? undefined)),
      ),
    set: (sid: string, data: SessionData) => promised<void>((done) => store.set(sid, data, done)),
    touch: (sid: string, data: SessionData) =>
      promised<void>((done) => store.touch(sid, data, done)),
    destroy: (sid: string) => promised<void>((done) => store.destroy(sid, done)),
    all: () => promised<object>((done) => store.all((error, found) => done(error, found ?? {}))),
    length: () =>
      promised<number>((done) => store.length((error, count) => done(error, count ?? Number.NaN))),
    clear: () => promised<void>((done) => store.clear(done)),
    load: (sid: string) =>
      promised<SessionData | undefined>((done) =>
        store.load(sid, (error, found) => done(error, found)),
      ),
  };
}

/** Converts a call with a Node callback to a promise. */
export function promised<T>(
  call: (done: (error?: unknown, result?: T) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    call((error, result) => (error ? reject(error) : resolve(result as T)));
  });
}
