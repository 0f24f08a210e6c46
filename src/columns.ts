/**
 * How the rows of a batch travel to the server: column by column, each as one text. Ids and numbers are
 * joined by a comma, which they cannot contain, data by U+001F, which JSON text cannot contain; in SQL,
 * `string_to_array` takes them apart. For a driver, an array costs an escape per element; one text costs
 * nothing. Ids come back in the same way.
 *
 * @module
 */

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
