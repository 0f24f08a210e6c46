/**
 * What can be asked of the session table: the statements of one store.
 *
 * @module
 */
import type { ListedRow, Outcome, StoredRow, Written } from './answers.js';
import type { SaveRow, TouchRow, WriteRow } from './columns.js';
import { type Database, fragmentsOf, type StatementSettings } from './fragments.js';
import { preparing } from './prepare.js';
import { rowStatements } from './row-statements.js';
import { tableStatements } from './table-statements.js';

/** One statement over many rows; the results are in the order of the rows. */
export type Statement<Row, Result> = (rows: readonly Row[]) => Promise<readonly Result[]>;

export interface Statements {
  /** Live or expired, never tombstones; `undefined` where there is none. Locks nothing. */
  readonly read: Statement<string, StoredRow | undefined>;
  /** Moves expiries. Its commit does not wait for the disk. */
  readonly touch: Statement<TouchRow, Outcome>;
  /** Compare-and-set on version and `created_at`. */
  readonly save: Statement<SaveRow, Written>;
  /** Inserts, or overwrites whatever has the id, a tombstone too. */
  readonly create: Statement<WriteRow, Written>;
  /** Inserts or overwrites, but never a tombstone. */
  readonly put: Statement<WriteRow, Written>;
  /** Leaves tombstones; `gone` where the session was not live. */
  readonly end: Statement<string, Outcome>;
  /** Deletes rows, tombstones too, up to 1,000 a call. `busy`: there are more, or some are held. */
  readonly clear: () => Promise<{ ended: string[]; busy: boolean }>;
  /** Leaves tombstones of one user's sessions, up to 1,000 a call; gives the live ones. `busy`: there are more, or some are held. */
  readonly endUser: (
    userId: string,
    exceptId: string,
  ) => Promise<{ ended: string[]; busy: boolean }>;
  /** Leaves tombstones of a user's sessions beyond the `keep` last seen, never of `id`. */
  readonly endBeyond: (
    userId: string,
    id: string,
    keep: number,
    now: number,
  ) => Promise<{ ended: string[]; busy: boolean }>;
  /** A page of live sessions in the order of their ids. */
  readonly list: (page: ListPage) => Promise<readonly ListedRow[]>;
  /** A page of ids of live sessions, in their order. */
  readonly listIds: (page: Omit<ListPage, 'userId'>) => Promise<readonly string[]>;
  readonly count: (now: number) => Promise<number>;
  /** Deletes what has expired by the database's clock, `limit` rows at most, and gives their number. */
  readonly prune: (limit: number) => Promise<number>;
  /** Nothing but a statement on the table, which fails where there is none. */
  readonly probe: () => Promise<void>;
  /** Sends a message on a channel. */
  readonly notify: (channel: string, payload: string) => Promise<void>;
}

export interface ListPage {
  readonly userId: string | undefined;
  readonly after: string;
  readonly limit: number;
  readonly now: number;
}

/** Builds the statements of a store; nothing is sent. */
export function buildStatements(db: Database, settings: StatementSettings): Statements {
  const fragments = fragmentsOf(db, settings);
  const prepared = preparing(db, settings);
  return {
    ...rowStatements(settings, fragments, prepared),
    ...tableStatements(settings, fragments, prepared),
  };
}
