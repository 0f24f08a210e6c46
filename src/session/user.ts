/**
 * The owner of a session.
 *
 * @module
 */

import { InvalidArgumentError, InvalidUserIdError, invalidValue } from '../errors.js';
import type { Settings, UserId } from '../options.js';
import { describe } from '../util/describe.js';
import { ignoreRejection } from '../util/promises.js';

/** An index entry can have at most 2,704 bytes. */
const MAX_USER_ID_BYTES = 1000;

/**
 * Returns a user id as the table stores it; null for undefined, null and an empty string (an anonymous session).
 *
 * @throws {InvalidUserIdError}
 */
export function userIdText(userId: unknown): string | null {
  if (userId === undefined || userId === null || userId === '') return null;
  if (typeof userId === 'number') {
    // Beyond 2^53, different ids become the same number.
    if (Math.abs(userId) <= Number.MAX_SAFE_INTEGER) return String(userId);
    throw new InvalidUserIdError(
      'A user id that is a number must be within 2^53; pass it as a string',
    );
  }
  if (typeof userId !== 'string') {
    ignoreRejection(userId);
    const got = typeof userId === 'object' ? describe(userId) : `a ${typeof userId}`;
    throw new InvalidUserIdError(`A user id must be a string or a number, but is ${got}`);
  }
  if (Buffer.byteLength(userId) > MAX_USER_ID_BYTES) {
    throw new InvalidUserIdError(`A user id must be at most ${MAX_USER_ID_BYTES} bytes long`);
  }
  if (userId.includes('\0') || !userId.isWellFormed()) {
    throw new InvalidUserIdError('A user id must be a well-formed string without U+0000');
  }
  return userId;
}

/** Whether a merge would put one user's data into another's session. An anonymous session may gain a user. */
export function mixesUsers(
  seen: string | null,
  now: string | null,
  stored: string | null,
): boolean {
  if (stored === seen) return false;
  return seen !== null || (now !== null && now !== stored);
}

/**
 * Returns the id of a user as the table stores it, to find the user's sessions.
 *
 * @throws {InvalidArgumentError} for an empty id, or without the option `userId`
 */
export function userIdToFind(settings: Pick<Settings, 'userId'>, userId: UserId): string {
  if (settings.userId === undefined) {
    throw new InvalidArgumentError('To find sessions by user, the store needs the option userId');
  }
  const text = userIdText(userId);
  if (text === null) throw invalidValue('userId', 'a user id', userId);
  return text;
}
