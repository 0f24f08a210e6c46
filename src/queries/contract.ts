/**
 * What the store asks of its table. Each function runs on a connection that a lane has acquired.
 *
 * @module
 */
import type { Connection } from '../drivers/driver.js';
import type { RekeyStatements } from './rekeying.js';
import type {
  CallTimes,
  ListedRow,
  Outcome,
  SaveRow,
  StoredRow,
  TouchRow,
  WriteRow,
  Written,
} from './wire.js';

/**
 * A statement for any number of rows, with the times of their calls; the results are in the order of the rows. A write
 * that reaches the server after its caller gave up changes nothing.
 */
export type RowStatement<Row, Result> = (
  on: Connection,
  rows: readonly Row[],
  times: readonly CallTimes[],
) => Promise<readonly Result[]>;

export interface RowStatements {
  /** How many rows a statement takes at most; `undefined`: as many as fit. */
  readonly maxRows: number | undefined;
  /** Live or expired sessions, never tombstones; `undefined` if there is none. Locks nothing. */
  readonly read: RowStatement<string, StoredRow | undefined>;
  /** Moves expiries. Its commit does not wait for the disk. */
  readonly touch: RowStatement<TouchRow, Outcome>;
  /** Compare-and-set on version and `created_at`. */
  readonly save: RowStatement<SaveRow, Written>;
  /** Inserts, or overwrites whatever has the id, except a tombstone made after the call began. */
  readonly create: RowStatement<WriteRow, Written>;
  /** Inserts or overwrites, but never a tombstone. */
  readonly put: RowStatement<WriteRow, Written>;
  /** Leaves tombstones; `gone` if the session was not live. */
  readonly end: RowStatement<string, Outcome>;
  /** Inserts a tombstone; `busy` if the id exists. */
  readonly bury: RowStatement<string, Outcome>;
}

/** The live sessions that a statement ended. `busy`: there are more, or some are locked by others. */
export interface Ended {
  readonly ended: readonly string[];
  readonly busy: boolean;
}

export interface TableStatements {
  /** Deletes rows, tombstones too, up to 1,000 at a time. */
  readonly clear: (on: Connection, times: CallTimes) => Promise<Ended>;
  /** Ends a user's sessions, up to 1,000 at a time, except `exceptId`. */
  readonly endUser: (
    on: Connection,
    times: CallTimes,
    userId: string,
    exceptId: string,
  ) => Promise<Ended>;
  /** Ends a user's sessions except the `keep` last seen and, among these, `id`. */
  readonly endBeyond: (
    on: Connection,
    times: CallTimes,
    userId: string,
    id: string,
    keep: number,
    now: number,
  ) => Promise<Ended>;
  /** A page of live sessions, ordered by id. */
  readonly list: (on: Connection, page: ListPage) => Promise<readonly ListedRow[]>;
  /** A page of ids of live sessions, ordered. */
  readonly listIds: (on: Connection, page: IdPage) => Promise<readonly string[]>;
  readonly count: (on: Connection) => Promise<number>;
  /** Deletes up to `limit` rows that have expired by the database's clock; returns how many. */
  readonly prune: (on: Connection, limit: number) => Promise<number>;
  /** Fails if there is no usable session table. */
  readonly probe: (on: Connection) => Promise<void>;
  /** Sends a notification. Fails on a server that is read-only, like a write (25006). */
  readonly notify: (on: Connection, channel: string, payload: string) => Promise<void>;
}

/** Times are milliseconds since 1970. */
export interface ListPage {
  readonly userId: string | undefined;
  readonly after: string;
  readonly limit: number;
  readonly now: number;
}

export type IdPage = Omit<ListPage, 'userId'>;

/** The statements of a store, for one kind of engine. Nothing outside of `queries/` knows which. */
export type Statements = RowStatements & TableStatements & RekeyStatements;
