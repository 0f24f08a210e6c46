/**
 * The id of a session, which the table stores instead of the sid.
 *
 * @module
 */
import { hash } from 'node:crypto';

/**
 * Returns the id of a session: `base64url(SHA-256(sid))`, 43 characters. The table, events, `all()` and `sessions()` use
 * it. You can show it, because the sid cannot be derived from it. A sid is random, so the hash needs no salt.
 */
export function idOf(sid: string): string {
  return hash('sha256', sid.isWellFormed() ? sid : illFormed(sid), 'base64url');
}

/** Encodes in UTF-16, because UTF-8 maps all lone surrogates to one character. No UTF-8 starts with the byte 0xff. */
function illFormed(sid: string): Buffer {
  return Buffer.concat([Buffer.of(0xff), Buffer.from(sid, 'utf16le')]);
}

/** Whether a string has the form of an id. */
export function isId(text: string): boolean {
  return /^[\w-]{43}$/.test(text);
}

/**
 * Returns the id of a value that was passed as a sid, or an empty string if it is not one. Converts numbers to strings, as
 * MemoryStore does.
 */
export function idOfAny(sid: unknown): string {
  const text = typeof sid === 'number' ? String(sid) : sid;
  return typeof text === 'string' && text !== '' ? idOf(text) : '';
}
