/**
 * The session table for the statements: only the session columns, with the names and the SQL type of `user_id` from the
 * app's table. Statements built with the app's table would list its other columns.
 *
 * @module
 */
import { getTableColumns, is } from 'drizzle-orm';
import {
  type AnyPgColumn,
  customType,
  getTableConfig,
  PgSchema,
  PgTable,
  pgTable,
  text,
} from 'drizzle-orm/pg-core';
import { InvalidArgumentError } from '../errors.js';
import { COLUMN_NAMES, type ColumnNames } from '../names.js';
import type { AppTable } from '../options.js';
import { sessionColumns, sessions } from '../schema.js';
import { describe } from '../util/describe.js';

/** System columns: a row's position in its partition, and the partition. */
const tid = customType<{ data: string }>({ dataType: () => 'tid' });
const oid = customType<{ data: string }>({ dataType: () => 'oid' });

/** The SQL type of `data`. In Postgres both keep JSON byte for byte; in other engines only `text` does. */
export type DataType = 'json' | 'text';

const isDataType = (type: string): type is DataType => type === 'json' || type === 'text';

const rowColumns = (names: ColumnNames) => ({
  ...sessionColumns(names),
  ctid: tid('ctid'),
  tableoid: oid('tableoid'),
});

/** The same with the type of the app's `data`. Statements cast to it, so this type is only important for checks. */
const rowColumnsOf = (names: ColumnNames, dataType: DataType): ReturnType<typeof rowColumns> => {
  const columns = rowColumns(names);
  return dataType === 'json' ? columns : Object.assign(columns, { data: text(names.data) });
};

/**
 * The columns that an insert writes. Drizzle lists every column of a table in an insert. A generated column does not allow
 * that, and the role would need a permission for each column.
 */
const insertableColumns = (names: ColumnNames) => {
  const { id, data, userId, expiresAt } = sessionColumns(names);
  return { id, data, userId, expiresAt };
};

/** The columns of a tombstone that is inserted for an id without a row. */
const tombstoneColumns = (names: ColumnNames) => {
  const { id, expiresAt, revokedAt } = sessionColumns(names);
  return { id, expiresAt, revokedAt };
};

export type RowTable = ReturnType<typeof pgTable<string, ReturnType<typeof rowColumns>>>;
export type InsertableTable = ReturnType<
  typeof pgTable<string, ReturnType<typeof insertableColumns>>
>;

export type TombstoneTable = ReturnType<
  typeof pgTable<string, ReturnType<typeof tombstoneColumns>>
>;

export interface SessionView {
  /** The session columns and the system columns that statements use. */
  readonly rows: RowTable;
  /** The columns that an insert lists. */
  readonly insertable: InsertableTable;
  readonly tombstones: TombstoneTable;
  readonly tableName: string;
  readonly schemaName: string | undefined;
  readonly dataType: DataType;
  /** The table's name in error messages. */
  readonly label: string;
  /** The SQL type of `user_id`, for casts. */
  readonly userIdType: string;
  /** Whether a tombstone's `user_id` can be null. */
  readonly userIdNullable: boolean;
}

/**
 * Builds the view of a table.
 *
 * @param nameOf returns a column's name in the database
 * @param withUser whether the store fills `user_id`
 * @throws {InvalidArgumentError} if it is not a Postgres table, or lacks a session column
 */
export function viewOf(
  table: AppTable,
  nameOf: (column: AnyPgColumn) => string,
  withUser: boolean,
): SessionView {
  if (!is(table, PgTable)) {
    throw new InvalidArgumentError(
      'table must be a Drizzle Postgres table (sessionTable(), or a pgTable with sessionColumns()), ' +
        `but got ${describe(table)}`,
    );
  }
  const columns: Record<string, AnyPgColumn | undefined> = getTableColumns(table);
  const { name: tableName, schema: schemaName } = getTableConfig(table);
  const names: Record<string, string> = {};
  let dataType: DataType = 'json';
  for (const [key, own] of Object.entries(getTableColumns(sessions))) {
    const theirs = columns[key];
    if (theirs === undefined) {
      throw new InvalidArgumentError(
        `table ${tableName} lacks the column ${key}: spread sessionColumns() into it`,
      );
    }
    const type = theirs.getSQLType();
    if (key === 'data' && isDataType(type)) dataType = type;
    else if (key !== 'userId' && type !== own.getSQLType()) {
      throw new InvalidArgumentError(
        `column ${key} of table ${tableName} must be ${own.getSQLType()}, but is ${type}`,
      );
    }
    names[key] = nameOf(theirs);
  }
  const columnNames = { ...COLUMN_NAMES, ...names };
  // The two types differ only in the schema's name, which has no effect on statements.
  const makeTable = (
    schemaName === undefined ? pgTable : new PgSchema(schemaName).table
  ) as typeof pgTable;
  const insertable = insertableColumns(columnNames);
  const { userId: _, ...others } = insertable;
  // Without the option userId, an insert leaves the column to its default.
  const written = withUser ? insertable : (others as typeof insertable);
  const { userId } = table;
  return {
    rows: makeTable(tableName, rowColumnsOf(columnNames, dataType)),
    insertable: makeTable(tableName, written),
    tombstones: makeTable(tableName, tombstoneColumns(columnNames)),
    tableName,
    schemaName,
    dataType,
    label: [schemaName, tableName].filter((part) => part !== undefined).join('.'),
    userIdType: withoutLength(userId.getSQLType()),
    userIdNullable: !userId.notNull,
  };
}

/**
 * Removes the length from an SQL type. A cast to `varchar(10)` would truncate a longer user id and could confuse two users.
 * Without the length, a column that is too short refuses the id.
 */
function withoutLength(type: string): string {
  const name = type.replace(/\s*\([^)]*\)/, '');
  return name === 'char' ? 'bpchar' : name;
}
