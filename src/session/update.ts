/**
 * `update()`: changes the stored session atomically.
 *
 * @module
 */
import type { SessionData } from 'express-session';
import type { Deadline } from '../batching/deadlines.js';
import { InvalidArgumentError } from '../errors.js';
import type { SaveRow, StoredRow } from '../queries/wire.js';
import { isObject } from '../util/guards.js';
import { compareAndSet } from './compare-and-set.js';
import { isUsableCookie } from './cookie.js';
import type { Opened } from './revoking.js';
import type { Sessions } from './sessions.js';

/** Changes the session that it gets, or returns another one. May run more than once. */
// biome-ignore lint/suspicious/noConfusingVoidType: a function that returns nothing is meant
export type Updater = (session: SessionData) => SessionData | void | Promise<SessionData | void>;

/** @internal Returns the saved session, or `undefined` if there is no live session. */
export async function updateSession(
  id: string,
  update: Updater,
  opened: Opened,
  deadline: Deadline,
  { loader, saver, revoker }: Sessions,
): Promise<SessionData | undefined> {
  const { rows } = opened;
  let changed: SessionData | undefined;
  let userBefore: string | null = null;

  const change = async (row: StoredRow): Promise<SaveRow | undefined> => {
    const session = loader.endOf(row) > Date.now() ? loader.sessionOf(row) : undefined;
    if (session === undefined) return undefined;
    const returned = (await deadline.waitFor(Promise.resolve(update(session)))) ?? session;
    refuseOther(returned);
    // The stored cookie is parsed again because `update` may have changed the one that it got.
    changed = isUsableCookie(returned.cookie)
      ? returned
      : { ...returned, cookie: (loader.sessionOf(row) ?? session).cookie };
    userBefore = row.userId;
    const { text: data, expiresAt, userId } = saver.draft(changed);
    const { version, createdAt, expiresAt: seenExpiresAt } = row;
    return { id, data, expiresAt, userId, version, createdAt, seenExpiresAt };
  };

  const row = await loader.readable(id, rows.read(id, deadline));
  const first = row && (await change(row));
  if (first === undefined) return undefined;
  const write = (save: SaveRow) =>
    loader.readable(
      id,
      rows.write(id, deadline, (writes) => writes.save(save)),
    );
  const saved = await compareAndSet(first, write, change);
  if (saved === undefined || changed === undefined) return undefined;
  const { userId } = saved.row;
  const gainedUser = userId === userBefore ? null : userId;
  await revoker.limit(id, { changed: true, gainedUser }, opened, deadline);
  saver.loaded(changed, { ...saved.row, lastSeenAt: Date.now() });
  return changed;
}

/**
 * Refuses a result that is not a session, such as the new length that `(session) => session.cart.push(item)` returns. Saved
 * as a session, it would have only the stored cookie.
 *
 * @throws {InvalidArgumentError}
 */
function refuseOther(returned: unknown): void {
  if (isObject(returned) && !Array.isArray(returned)) return;
  // Does not show the value, which may be content of the session.
  const got = Array.isArray(returned) ? 'an array' : `a ${typeof returned}`;
  throw new InvalidArgumentError(
    `The function passed to update() must return a session or nothing, but returned ${got}`,
  );
}
