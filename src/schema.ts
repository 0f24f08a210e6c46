/**
 * The session table as a Drizzle schema.
 *
 * An app re-exports the table from its own schema (`export { sessions } from 'connect-drizzle/schema'`),
 * creates one with another name with {@link sessionTable}, or spreads {@link sessionColumns} and
 * {@link sessionIndexes} into its own table. This module imports only `drizzle-orm`, so that an app can share its schema
 * file with a browser.
 *
 * @module connect-drizzle/schema
 */
import { getTableName, sql } from 'drizzle-orm';
import {
  type AnyPgColumn,
  index,
  integer,
  json,
  PgSchema,
  type PgTableFn,
  pgTable,
  text,
  timestamp,
} from 'drizzle-orm/pg-core';
import { COLUMN_NAMES, type ColumnNames, DEFAULT_TABLE_NAME, indexName } from './names.js';

/** The name of a table, and of its schema if the table is not on the connection's `search_path`. */
export interface TableName {
  /** @default 'sessions' */
  readonly tableName?: string | undefined;
  /** @default undefined: the first schema on the connection's `search_path` that has the table */
  readonly schemaName?: string | undefined;
  /** @internal The names of the columns in an app's own table. */
  readonly columnNames?: ColumnNames | undefined;
}

/** The SQL type of `data`: see {@link sessionTable}. */
interface JsonData {
  readonly data?: 'json' | undefined;
}

interface TextData {
  readonly data: 'text';
}

/**
 * Returns new columns of the session table, to spread into an app's own `pgTable`.
 *
 * You can replace `userId` with a column of another SQL type and a foreign key:
 * `{ ...sessionColumns(), userId: integer('user_id').references(() => users.id, { onDelete: 'cascade' }) }`.
 * You can replace `data` with `text('data')`: see {@link sessionTable}.
 */
export function sessionColumns(names: ColumnNames = COLUMN_NAMES): SessionColumns {
  return {
    /** `base64url(SHA-256(sid))`: safe to show; the sid itself is never stored. */
    id: text(names.id).primaryKey(),
    /** `json`, not `jsonb`, because Postgres returns it byte for byte. Null in a tombstone. */
    data: json(names.data),
    userId: text(names.userId),
    /**
     * Changes with every change of `data`, never with a touch. Random, not a counter: after a failover that lost changes,
     * a counter would use the lost versions again.
     */
    version: integer(names.version).notNull().default(sql`(random() * 1073741823)`),
    createdAt: timestamp(names.createdAt, { withTimezone: true }).notNull().defaultNow(),
    lastSeenAt: timestamp(names.lastSeenAt, { withTimezone: true }).notNull().defaultNow(),
    /** Not indexed, so that a touch within the hour is a HOT update: no index is written. */
    expiresAt: timestamp(names.expiresAt, { withTimezone: true }).notNull(),
    /** Set in a tombstone: the session has ended and must not be written back. */
    revokedAt: timestamp(names.revokedAt, { withTimezone: true }),
    /** Pruning finds expired rows by this column. */
    expiresHour: timestamp(names.expiresHour, { withTimezone: true }).generatedAlwaysAs(
      sql`date_bin('1 hour', ${sql.identifier(names.expiresAt)}, timestamptz '2000-01-01 00:00:00+00')`,
    ),
  };
}

// Drizzle 0.45 and 1.0 have different names for the same types. These types are derived from Drizzle's own functions and
// work with both; inferred types would contain the names of one version in the declarations.
type Text = ReturnType<typeof text>;
type Integer = ReturnType<typeof integer>;
type Timestamp = ReturnType<typeof timestamp>;
type NotNull<Builder extends { notNull(): unknown }> = ReturnType<Builder['notNull']>;
type HasDefault<Builder extends { default(value: never): unknown }> = ReturnType<
  Builder['default']
>;

/** The columns of the session table. */
export type SessionColumns = {
  readonly id: ReturnType<Text['primaryKey']>;
  readonly data: ReturnType<typeof json>;
  readonly userId: Text;
  readonly version: HasDefault<NotNull<Integer>>;
  readonly createdAt: HasDefault<NotNull<Timestamp>>;
  readonly lastSeenAt: HasDefault<NotNull<Timestamp>>;
  readonly expiresAt: NotNull<Timestamp>;
  readonly revokedAt: Timestamp;
  readonly expiresHour: ReturnType<Timestamp['generatedAlwaysAs']>;
};

/** The same with `data` as `text`. */
type TextSessionColumns = Omit<SessionColumns, 'data'> & { readonly data: Text };

interface IndexedColumns {
  readonly id: AnyPgColumn;
  readonly userId: AnyPgColumn;
  readonly createdAt: AnyPgColumn;
  readonly expiresHour: AnyPgColumn;
}

/** Indexes that not every app needs. */
export interface OptionalIndexes {
  /** Index `(created_at, id)`, for the admin page of a large table. A touch does not write it. @default false */
  readonly createdAtIndex?: boolean | undefined;
}

/**
 * Returns the indexes of the session table, for the third argument of an app's own `pgTable`. Their names start with the
 * table's name, shortened if they are too long for Postgres.
 */
export function sessionIndexes(
  table: IndexedColumns,
  { createdAtIndex = false }: OptionalIndexes = {},
) {
  const tableName = getTableName(table.userId.table);
  const indexes = [
    index(indexName(tableName, 'user_id')).on(table.userId).where(sql`${table.userId} is not null`),
    index(indexName(tableName, 'expires_hour')).on(table.expiresHour),
  ];
  if (createdAtIndex) {
    indexes.push(index(indexName(tableName, 'created_at')).on(table.createdAt, table.id));
  }
  return indexes;
}

/**
 * Creates a session table with another name, in a Postgres schema, or with the optional index:
 * `export const sessions = sessionTable({ tableName: 'web_sessions', schemaName: 'auth', createdAtIndex: true })`.
 *
 * With `data: 'text'`, the column `data` has the type `text`, for databases that do not keep `json` byte for byte, such as
 * CockroachDB. The database then does not check that it is JSON.
 */
export function sessionTable(
  options?: TableName & OptionalIndexes & JsonData & { schemaName?: undefined },
): PlainSessionTable;
export function sessionTable(
  options: TableName & OptionalIndexes & JsonData & { schemaName: string },
): QualifiedSessionTable;
export function sessionTable(options: TableName & OptionalIndexes & JsonData): SessionTable;
export function sessionTable(options: TableName & OptionalIndexes & TextData): TextSessionTable;
export function sessionTable({
  tableName = DEFAULT_TABLE_NAME,
  schemaName,
  columnNames = COLUMN_NAMES,
  createdAtIndex,
  data = 'json',
}: TableName & OptionalIndexes & (JsonData | TextData) = {}) {
  if (data === 'text') return textTable(tableName, schemaName, columnNames, { createdAtIndex });
  return schemaName === undefined
    ? plainTable(tableName, columnNames, { createdAtIndex })
    : qualifiedTable(tableName, schemaName, columnNames, { createdAtIndex });
}

function plainTable(
  tableName: string,
  columnNames: ColumnNames,
  indexes?: OptionalIndexes,
): PlainSessionTable {
  return pgTable(tableName, sessionColumns(columnNames), (t) => sessionIndexes(t, indexes));
}

function qualifiedTable(
  tableName: string,
  schemaName: string,
  columnNames: ColumnNames,
  indexes: OptionalIndexes,
) {
  // `pgSchema()` refuses the name `public`, but an app may pass it.
  return new PgSchema(schemaName).table(tableName, sessionColumns(columnNames), (t) =>
    sessionIndexes(t, indexes),
  );
}

function textTable(
  tableName: string,
  schemaName: string | undefined,
  columnNames: ColumnNames,
  indexes: OptionalIndexes,
): TextSessionTable {
  const columns = { ...sessionColumns(columnNames), data: text(columnNames.data) };
  return schemaName === undefined
    ? pgTable(tableName, columns, (t) => sessionIndexes(t, indexes))
    : new PgSchema(schemaName).table(tableName, columns, (t) => sessionIndexes(t, indexes));
}

declare const tableInSchema: PgTableFn<string>;
type PlainSessionTable = ReturnType<typeof pgTable<string, SessionColumns>>;
type QualifiedSessionTable = ReturnType<typeof tableInSchema<string, SessionColumns>>;

type TextSessionTable =
  | ReturnType<typeof pgTable<string, TextSessionColumns>>
  | ReturnType<typeof tableInSchema<string, TextSessionColumns>>;

/** The session table with its default name. */
// Not sessionTable(): its PgSchema imports Drizzle's query builder, 30 kB in a browser bundle.
export const sessions: PlainSessionTable = /* @__PURE__ */ plainTable(
  DEFAULT_TABLE_NAME,
  COLUMN_NAMES,
);

/** A session table that {@link sessionTable} created. */
export type SessionTable = PlainSessionTable | QualifiedSessionTable;
