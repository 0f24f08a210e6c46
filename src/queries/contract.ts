/**
 * The types of all statements on the session table. Each function runs on a connection that a lane has acquired.
 *
 * @module
 */
import type { Connection } from '../drivers/driver.js';
import type { RekeyStatements } from './rekeying.js';
import type {
  CallTimes,
  Outcome,
  SaveRow,
  StoredRow,
  TouchRow,
  WriteRow,
  Written,
} from './wire.js';

/**
 * A statement for any number of rows, with the times of their calls. The results are in the order of the rows. A write that
 * reaches the server after its caller has given up changes nothing.
 */
export type RowStatement<Row, Result> = (
  on: Connection,
  rows: readonly Row[],
  times: readonly CallTimes[],
) => Promise<readonly Result[]>;

export interface RowStatements {
  /** Maximum number of rows in a statement; `undefined`: no limit. */
  readonly maxRows: number | undefined;
  /** Returns live or expired sessions, never tombstones; `undefined` for no session. Takes no lock. */
  readonly read: RowStatement<string, StoredRow | undefined>;
  /** Moves expiries. Its commit does not wait for the disk. */
  readonly touch: RowStatement<TouchRow, Outcome>;
  /** Compare-and-set on version and `created_at`. */
  readonly save: RowStatement<SaveRow, Written>;
  /** Inserts, or overwrites the row with the id, except a tombstone that was created after the call began. */
  readonly create: RowStatement<WriteRow, Written>;
  /** Inserts or overwrites, but never a tombstone. */
  readonly put: RowStatement<WriteRow, Written>;
  /** Leaves tombstones; `gone` if the session was not live. */
  readonly end: RowStatement<string, Outcome>;
  /** Inserts a tombstone; `busy` if the id exists. */
  readonly bury: RowStatement<string, Outcome>;
}

/** The live sessions that a statement ended. `busy`: there are more, or other transactions have locked some. */
export interface Ended {
  readonly ended: readonly string[];
  readonly busy: boolean;
}

export interface TableStatements {
  /** Deletes rows, including tombstones, up to 1,000 at a time. */
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
  /** Returns a page of live sessions, ordered by id. */
  readonly list: (on: Connection, page: ListPage) => Promise<readonly StoredRow[]>;
  /** Returns a page of ids of live sessions, ordered. */
  readonly listIds: (on: Connection, page: IdPage) => Promise<readonly string[]>;
  readonly count: (on: Connection) => Promise<number>;
  /** Deletes up to `limit` rows that have expired on the database's clock. Returns how many. */
  readonly prune: (on: Connection, limit: number) => Promise<number>;
  /** Fails if there is no usable session table. */
  readonly probe: (on: Connection) => Promise<void>;
  /** Sends a notification. Fails on a read-only server, like a write (25006). */
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

/** The statements of a store, for one kind of engine. Only `queries/` knows which. */
export type Statements = RowStatements & TableStatements & RekeyStatements;
