/**
 * What statements answer: every answer is the table `result`, typed and read by Drizzle like any other.
 * (Columns are what Drizzle reads fastest; a batch can have many rows.) All columns are texts; some
 * drivers give a lone number as one.
 *
 * @module
 */
import { pgTable, text } from 'drizzle-orm/pg-core';
import { split } from './columns.js';

/** A session's row as a read gives it. Times are milliseconds since 1970. */
export interface StoredRow {
  readonly id: string;
  readonly data: string;
  readonly version: number;
  /** In microseconds: with the version, it tells this session from a later one of the same id. */
  readonly createdAt: number;
  readonly expiresAt: number;
  readonly userId: string | null;
}

/** A row of `sessions()`. Times are milliseconds since 1970. */
export interface ListedRow extends StoredRow {
  readonly lastSeenAt: number;
}

/** `done`; `gone`: no row, or a tombstone; `busy`: held by another transaction, to be sent again. */
export type Outcome = 'done' | 'gone' | 'busy';

/** What became of a write. */
export type Written =
  | { readonly outcome: 'done'; readonly version: number; readonly createdAt: number }
  | { readonly outcome: 'gone' }
  | { readonly outcome: 'busy' }
  | { readonly outcome: 'conflict'; readonly stored: StoredRow };

const answer = 'result';

export const idAnswer = pgTable(answer, { id: text('id').notNull() });
export const countAnswer = pgTable(answer, { count: text('count').notNull() });

/** The ids of the rows to which it was done, joined. */
export const doneAnswer = pgTable(answer, { done: text('done') });

/** The same, and whether there are more. */
export const endedAnswer = pgTable(answer, { done: text('done'), busy: text('busy') });

/** Rows that were written, a joined column each, and the ids of those that were not. */
export const writtenAnswer = pgTable(answer, {
  id: text('id'),
  version: text('version'),
  createdAt: text('created_us'),
  busy: text('busy'),
});

/** A row: its numbers and its id, joined, its text and whose it is. */
export const storedAnswer = pgTable(answer, {
  head: text('head').notNull(),
  data: text('data'),
  userId: text('owner'),
});

export type Answer =
  | typeof idAnswer
  | typeof countAnswer
  | typeof doneAnswer
  | typeof endedAnswer
  | typeof writtenAnswer
  | typeof storedAnswer;

type Stored = typeof storedAnswer.$inferSelect;
type Ended = typeof endedAnswer.$inferSelect;

/** The row of an answer. The id comes last: in a row that the app has made, it can be any text. */
export function storedOf({ head, data, userId }: Stored): ListedRow {
  const version = head.indexOf(',');
  const createdAt = head.indexOf(',', version + 1);
  const expiresAt = head.indexOf(',', createdAt + 1);
  const lastSeenAt = head.indexOf(',', expiresAt + 1);
  return {
    id: head.slice(lastSeenAt + 1),
    data: data ?? 'null',
    version: Number(head.slice(0, version)),
    createdAt: Number(head.slice(version + 1, createdAt)),
    expiresAt: Number(head.slice(createdAt + 1, expiresAt)),
    lastSeenAt: Number(head.slice(expiresAt + 1, lastSeenAt)),
    userId,
  };
}

export function endedIn(found: readonly Ended[]): { ended: string[]; busy: boolean } {
  return {
    ended: found.flatMap(({ done }) => split(done)),
    busy: found.some(({ busy }) => busy !== null),
  };
}
