/**
 * Reads many sessions: `sessions()`, `all()` and `ids()`. Pages are in the order of the primary key. So a session that
 * exists during the whole listing appears exactly once, even if others are created and deleted.
 *
 * @module
 */
import type { SessionData } from 'express-session';
import type { TableCalls } from '../batching/batcher.js';
import type { Deadline } from '../batching/deadlines.js';
import { InvalidArgumentError, invalidValue } from '../errors.js';
import type { Settings, UserId } from '../options.js';
import type { ListPage } from '../queries/contract.js';
import type { StoredRow } from '../queries/wire.js';
import type { Loader } from './load.js';
import { userIdToFind } from './user.js';

const PAGE_ROWS = 256;
const ID_PAGE_ROWS = 10_000;

/** A session from `sessions()`. */
export interface StoredSession {
  /** `base64url(SHA-256(sid))`, for `revoke`. */
  readonly id: string;
  readonly userId: string | null;
  readonly data: SessionData;
  readonly createdAt: Date;
  readonly lastSeenAt: Date;
  readonly expiresAt: Date;
}

export interface ListOptions {
  /** Lists the sessions of this user only. */
  userId?: UserId;
  /** The maximum number of sessions. */
  limit?: number;
}

/** @internal Reads a page, within the time limit of a call. */
export type List = (page: ListPage) => Promise<readonly StoredRow[]>;

/** @internal Yields live sessions. Leaves out and reports those that cannot be read. */
export async function* listSessions(
  list: List,
  loader: Loader,
  settings: Pick<Settings, 'userId'>,
  options: ListOptions,
): AsyncGenerator<StoredSession, void, undefined> {
  const { userId, limit = Number.POSITIVE_INFINITY } = options;
  if (!(limit >= 0)) throw invalidValue('limit', 'a number of sessions', limit);
  if (userId === undefined && 'userId' in options) {
    throw new InvalidArgumentError(
      'userId is undefined: omit it to list the sessions of all users',
    );
  }
  const user = userId === undefined ? undefined : userIdToFind(settings, userId);
  let left = limit;
  if (left === 0) return;
  for await (const row of readableRows(list, loader, user, limit)) {
    const data = loader.sessionOf(row);
    if (data === undefined) continue;
    yield {
      id: row.id,
      userId: row.userId,
      data,
      createdAt: new Date(Math.round(row.createdAt / 1000)),
      lastSeenAt: new Date(row.lastSeenAt),
      expiresAt: new Date(loader.endOf(row)),
    };
    left -= 1;
    if (left <= 0) return;
  }
}

/** @internal Returns all live sessions by id. Leaves out and reports those that cannot be read. */
export async function allSessions(
  { statements }: { readonly statements: Pick<TableCalls, 'list'> },
  deadline: Deadline,
  loader: Loader,
): Promise<Record<string, SessionData>> {
  const list: List = (page) => statements.list(deadline, page);
  const all: Record<string, SessionData> = Object.create(null);
  for await (const row of readableRows(list, loader, undefined, PAGE_ROWS)) {
    const session = loader.sessionOf(row);
    if (session !== undefined) all[row.id] = session;
  }
  return all;
}

/** @internal Returns the ids of all live sessions. */
export async function allIds(
  { statements }: { readonly statements: Pick<TableCalls, 'listIds'> },
  deadline: Deadline,
): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const page = await statements.listIds(deadline, {
      after: ids.at(-1) ?? '',
      limit: ID_PAGE_ROWS,
      now: Date.now(),
    });
    if (page.length === 0) return ids;
    ids.push(...page);
  }
}

/** Yields rows with their texts. `wanted` keeps the pages small if the caller needs only a few rows. */
async function* readableRows(
  list: List,
  loader: Loader,
  userId: string | undefined,
  wanted: number,
): AsyncGenerator<StoredRow, void, undefined> {
  const limit = Math.min(Math.ceil(wanted), PAGE_ROWS);
  let after = '';
  for (;;) {
    const rows = await list({ userId, after, limit, now: Date.now() });
    for (const row of rows) {
      const readable = loader.unsealed(row);
      if (readable !== undefined) yield readable;
    }
    const last = rows.at(-1);
    if (last === undefined || rows.length < limit) return;
    after = last.id;
  }
}
