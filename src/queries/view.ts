/**
 * The store's own view of an app's table: the session columns alone, with the names and the SQL type of
 * `user_id` taken from the app's. Statements built on the app's table itself would list its other columns.
 *
 * @module
 */
import { getTableColumns, is } from 'drizzle-orm';
import { type AnyPgColumn, getTableConfig, PgTable } from 'drizzle-orm/pg-core';
import { InvalidArgumentError } from '../errors.js';
import { COLUMN_NAMES } from '../names.js';
import type { AppTable } from '../options.js';
import { type SessionTable, sessions, sessionTable } from '../schema.js';
import { describe } from '../util/describe.js';

/** The store's own view of an app's table: its columns alone. */
export interface SessionView {
  readonly view: SessionTable;
  readonly tableName: string;
  readonly schemaName: string | undefined;
  /** What error messages call it. */
  readonly label: string;
  /** The SQL type of `user_id`, to cast to. */
  readonly userIdType: string;
  /** Whether `user_id` may be emptied in a tombstone. */
  readonly userIdNullable: boolean;
}

/** Makes the view of a table, with the names and `user_id`'s SQL type taken from it. */
export function viewOf(table: AppTable, nameOf: (column: AnyPgColumn) => string): SessionView {
  if (!is(table, PgTable)) {
    throw new InvalidArgumentError(
      'table must be a Drizzle Postgres table (sessionTable(), or a pgTable with sessionColumns()), ' +
        `but got ${describe(table)}`,
    );
  }
  const columns: Record<string, AnyPgColumn | undefined> = getTableColumns(table);
  const { name: tableName, schema: schemaName } = getTableConfig(table);
  const names: Record<string, string> = {};
  for (const [key, own] of Object.entries(getTableColumns(sessions))) {
    const theirs = columns[key];
    if (theirs === undefined) {
      throw new InvalidArgumentError(
        `table ${tableName} lacks the column ${key}: spread sessionColumns() into it`,
      );
    }
    if (key !== 'userId' && theirs.getSQLType() !== own.getSQLType()) {
      throw new InvalidArgumentError(
        `column ${key} of table ${tableName} must be ${own.getSQLType()}, but is ${theirs.getSQLType()}`,
      );
    }
    names[key] = nameOf(theirs);
  }
  const view = sessionTable({ tableName, schemaName, columnNames: { ...COLUMN_NAMES, ...names } });
  const { userId } = table;
  return {
    view,
    tableName,
    schemaName,
    label: [schemaName, tableName].filter((part) => part !== undefined).join('.'),
    userIdType: withoutLength(userId.getSQLType()),
    userIdNullable: !userId.notNull,
  };
}

/**
 * An SQL type to cast to. A cast to `varchar(10)` would cut a longer user id off, and so take one user
 * for another; without the length, a column that cannot hold the id refuses it.
 */
function withoutLength(type: string): string {
  const name = type.replace(/\s*\([^)]*\)/, '');
  return name === 'char' ? 'bpchar' : name;
}
