/**
 * Whose a session is.
 *
 * @module
 */

import { InvalidUserIdError } from '../errors.js';
import { describe } from '../util/check.js';

/** Well within the 2,704 bytes that an entry of an index may have. */
const MAX_USER_ID_BYTES = 1000;

/** A user's id as the table has it. */
export function userIdText(userId: unknown): string | null {
  if (userId === undefined || userId === null || userId === '') return null;
  if (typeof userId === 'number') {
    // Above that, several users' ids are one number.
    if (Math.abs(userId) <= Number.MAX_SAFE_INTEGER) return String(userId);
    throw new InvalidUserIdError('A user id that is a number must be within 2^53; pass it as text');
  }
  if (typeof userId !== 'string') {
    const came = typeof userId === 'object' ? describe(userId) : `a ${typeof userId}`;
    throw new InvalidUserIdError(`A user id must be a string or a number, but is ${came}`);
  }
  if (Buffer.byteLength(userId) > MAX_USER_ID_BYTES) {
    throw new InvalidUserIdError(`A user id must be at most ${MAX_USER_ID_BYTES} bytes long`);
  }
  if (userId.includes('\0') || !userId.isWellFormed()) {
    throw new InvalidUserIdError('A user id must be well-formed text without U+0000');
  }
  return userId;
}

/** Whether a merge would put one user's data into another's session. Who is nobody's may become somebody's. */
export function mixesUsers(
  seen: string | null,
  now: string | null,
  stored: string | null,
): boolean {
  if (stored === seen) return false;
  return seen !== null || (now !== null && now !== stored);
}
