/**
 * What stands in the table in place of a sid.
 *
 * @module
 */
import { hash } from 'node:crypto';

/**
 * The id of a session, `base64url(SHA-256(sid))`, 43 characters: what the table, events, `all()` and
 * `sessions()` call it. The sid cannot be found from it (a sid is random, so no salt is needed), so it may be shown.
 */
export function idOf(sid: string): string {
  return hash('sha256', sid.isWellFormed() ? sid : illFormed(sid), 'base64url');
}

/** As UTF-8, all lone surrogates are one; so as UTF-16, after a byte that no UTF-8 has. */
function illFormed(sid: string): Buffer {
  return Buffer.concat([Buffer.of(0xff), Buffer.from(sid, 'utf16le')]);
}

/** Whether a text has the form of an id. */
export function isId(text: string): boolean {
  return /^[\w-]{43}$/.test(text);
}
