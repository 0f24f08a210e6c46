/**
 * How the rows of a batch travel to the server: column by column, each as one text. Ids and numbers are
 * joined by a comma, which they cannot contain, data by U+001F, which JSON text cannot contain; in SQL,
 * `string_to_array` takes them apart. For a driver, an array costs an escape per element; one text costs
 * nothing. Ids come back in the same way.
 *
 * @module
 */

/** What a touch moves. Times as in a {@link WriteRow}. */
export interface TouchRow {
  readonly id: string;
  /** Of a session that was read, and only of that one; 0: of whatever session has the id. */
  readonly createdAt: number;
  /** Where a session was read, another request may have moved it further: it is never moved back. */
  readonly expiresAt: number;
  /** A session that had expired by then is not touched. */
  readonly aliveAt: number;
}

/** What a save writes. Times are milliseconds since 1970, but `createdAt`, which is microseconds. */
export interface WriteRow {
  readonly id: string;
  readonly data: string;
  readonly expiresAt: number;
  readonly userId: string | null;
}

/** A write that holds only if the stored session is the one that was read. */
export interface SaveRow extends WriteRow {
  readonly version: number;
  readonly createdAt: number;
  /** When it was to expire. A touch does not raise the version: of two expiries that both moved, the later holds. */
  readonly seenExpiresAt: number;
}

/** U+001F, `chr(31)` in SQL. */
export const DATA_SEPARATOR = '\u001f';

/** Joins one column of many rows. */
export function joined<Row>(
  rows: readonly Row[],
  pick: (row: Row) => string | number,
  separator = ',',
): string {
  return rows.map(pick).join(separator);
}

/** Takes a column apart; `string_agg` of nothing is null. A driver may give a lone number as one. */
export function split(column: string | number | null, separator = ','): string[] {
  return column === null ? [] : String(column).split(separator);
}

/** Takes a column of numbers apart. */
export function numbers(column: string | number | null): number[] {
  return split(column).map(Number);
}
