/**
 * The wire format of rows, as parameters and as results.
 *
 * All parameters and results are strings. Many rows are sent column by column, each column as one string: ids and numbers
 * joined with a comma, session data with U+001F. Values never contain their separator. In SQL, `string_to_array` splits
 * them. A driver would escape every element of an array, but it does not change a string.
 *
 * @module
 */

/** A touch. Times are milliseconds since 1970, `createdAt` is microseconds. */
export interface TouchRow {
  readonly id: string;
  /** Touches only the session created at this time. With 0, touches the session whenever it was created. */
  readonly createdAt: number;
  /** With a `createdAt`, a touch never makes the expiry earlier, because another request may have made it later. */
  readonly expiresAt: number;
  /** A session that had expired by this time is not touched. */
  readonly aliveAt: number;
}

/** A session to write. Times are milliseconds since 1970. */
export interface WriteRow {
  readonly id: string;
  readonly data: string;
  readonly expiresAt: number;
  readonly userId: string | null;
}

/** A compare-and-set: written only if the stored session still has this version and `createdAt`. */
export interface SaveRow extends WriteRow {
  readonly version: number;
  /** Microseconds since 1970. */
  readonly createdAt: number;
  /** The expiry that was read. A touch does not change the version. If both changed the expiry, the later one wins. */
  readonly seenExpiresAt: number;
}

/** Versions have 30 bits. Version 1.0.0 of this package adds 1 to them, which never overflows. */
const VERSIONS = 2 ** 30;

/**
 * Returns a random step to the next version of a row: the exclusive or of the two.
 *
 * A version must not repeat. Otherwise a late save confuses a changed session with the one that it read. A counter repeats
 * if a failover or a restore returns a row to an older state and the row is changed again as often. With a random step, the
 * new version always differs from the previous one, and equals an older one once in 2^30 cases.
 */
export function versionStep(): number {
  return 1 + Math.floor(Math.random() * (VERSIONS - 1));
}

/** A row as it is read. Times are milliseconds since 1970, `createdAt` is microseconds. */
export interface StoredRow {
  readonly id: string;
  readonly data: string;
  readonly version: number;
  /** Together with the version, distinguishes this session from a later one with the same id. */
  readonly createdAt: number;
  readonly expiresAt: number;
  /** The last write or touch, about. 0 if that is not known: only a listing, and a store with `maxLifetime`, read it. */
  readonly lastSeenAt: number;
  readonly userId: string | null;
}

/** On the monotonic clock. */
export interface CallTimes {
  /** When all earlier calls of this process for its id had ended. */
  readonly beganMs: number;
  /** When its caller gives up. */
  readonly atMs: number;
}

/** `gone`: no row, or a tombstone. `busy`: another transaction has locked the row; send it again. */
export type Outcome = 'done' | 'gone' | 'busy';

/** The outcome of a write. */
export type Written =
  | { readonly outcome: 'done'; readonly version: number; readonly createdAt: number }
  | { readonly outcome: 'gone' }
  | { readonly outcome: 'busy' }
  | { readonly outcome: 'conflict'; readonly stored: StoredRow };

/** U+001F, `chr(31)` in SQL: JSON text never contains it unescaped. */
export const DATA_SEPARATOR = '\u001f';

/** Joins one column of many rows. */
export function joined<Row>(
  rows: readonly Row[],
  pick: (row: Row) => string | number,
  separator = ',',
): string {
  return rows.map(pick).join(separator);
}

/** Splits a column; `string_agg` of no rows is null. */
export function split(column: string | null): string[] {
  return column === null ? [] : column.split(',');
}

/** A row as it is read, with the server's clock; 0 if the statement did not read that. */
export interface TimedRow extends StoredRow {
  readonly timeMs: number;
}

/** The result of a read. Numbers and id are joined in `head`, because every column of a row costs the driver time. */
export interface ReadResult {
  readonly head: string;
  readonly data: string | null;
  readonly userId: string | null;
}

/** Decodes a row. The id is last, because in a row inserted by hand it can be any string. */
export function storedRow({ head, data, userId }: ReadResult): TimedRow {
  const version = head.indexOf(',');
  const createdAt = head.indexOf(',', version + 1);
  const expiresAt = head.indexOf(',', createdAt + 1);
  const lastSeenAt = head.indexOf(',', expiresAt + 1);
  const time = head.indexOf(',', lastSeenAt + 1);
  return {
    id: head.slice(time + 1),
    data: data ?? 'null',
    version: Number(head.slice(0, version)),
    createdAt: Number(head.slice(version + 1, createdAt)),
    expiresAt: Number(head.slice(createdAt + 1, expiresAt)),
    lastSeenAt: Number(head.slice(expiresAt + 1, lastSeenAt)),
    timeMs: Number(head.slice(lastSeenAt + 1, time)),
    userId,
  };
}
