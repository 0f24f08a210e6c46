/**
 * The session table as a Drizzle schema.
 *
 * An app re-exports `sessions` from its own schema (`export * from 'connect-drizzle/schema'`), makes
 * one under another name with {@link sessionTable}, or spreads {@link sessionColumns} and
 * {@link sessionIndexes} into a table of its own.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { getTableName, sql } from 'drizzle-orm';
import {
  type AnyPgColumn,
  index,
  integer,
  json,
  pgSchema,
  pgTable,
  text,
  timestamp,
} from 'drizzle-orm/pg-core';

/** The table that the package's own migrations make. */
export const DEFAULT_TABLE_NAME = 'sessions';

/** Postgres cuts longer identifiers off without an error (NAMEDATALEN - 1). */
export const MAX_IDENTIFIER_BYTES = 63;

/** Where a table is: its name and, unless the connection's `search_path` finds it, its schema. */
export interface TableName {
  /** @default 'sessions' */
  readonly tableName?: string | undefined;
  /** @default undefined: wherever the connection's `search_path` leads */
  readonly schemaName?: string | undefined;
}

/**
 * The columns of the session table, anew for each call, to spread into a `pgTable` of the app's own.
 *
 * `userId` may be replaced by a column of another SQL type with a foreign key:
 * `{ ...sessionColumns(), userId: integer('user_id').references(() => users.id, { onDelete: 'cascade' }) }`.
 */
export function sessionColumns() {
  return {
    /** `base64url(SHA-256(sid))`: safe to show; the sid itself is never stored. */
    id: text('id').primaryKey(),
    /** `json`, not `jsonb`: kept to the letter, U+0000 and lone surrogates included. Null in a tombstone. */
    data: json('data'),
    userId: text('user_id'),
    /** Raised by every change of `data`, never by a touch. */
    version: integer('version').notNull().default(1),
    createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
    lastSeenAt: timestamp('last_seen_at', { withTimezone: true }).notNull().defaultNow(),
    /** Not indexed, so that a touch within the hour is a HOT update: no index is written. */
    expiresAt: timestamp('expires_at', { withTimezone: true }).notNull(),
    /** Set in a tombstone: the session was ended and must not be written back. */
    revokedAt: timestamp('revoked_at', { withTimezone: true }),
    /** What pruning finds its rows by. */
    expiresHour: timestamp('expires_hour', { withTimezone: true }).generatedAlwaysAs(
      sql`date_bin('1 hour', "expires_at", timestamptz '2000-01-01 00:00:00+00')`,
    ),
  };
}

interface IndexedColumns {
  readonly userId: AnyPgColumn;
  readonly expiresHour: AnyPgColumn;
}

/**
 * The two indexes of the session table, for the third argument of the app's own `pgTable`. Their names
 * derive from the table's, cut to what Postgres takes.
 */
export function sessionIndexes(table: IndexedColumns) {
  const tableName = getTableName(table.userId.table);
  return [
    index(indexName(tableName, 'user_id')).on(table.userId).where(sql`${table.userId} is not null`),
    index(indexName(tableName, 'expires_hour')).on(table.expiresHour),
  ];
}

/** The name of an index of the session table: `sessions_user_id_index`, within 63 bytes whatever the table's. */
export function indexName(tableName: string, column: 'user_id' | 'expires_hour'): string {
  const name = `${tableName}_${column}_index`;
  if (Buffer.byteLength(name) <= MAX_IDENTIFIER_BYTES) return name;
  const hash = createHash('sha256').update(tableName).digest('hex').slice(0, 8);
  return `${cut(tableName, 30)}_${hash}_${column}_index`;
}

/**
 * A session table under a name, or in a Postgres schema, of the app's own:
 * `export const sessions = sessionTable({ tableName: 'web_sessions', schemaName: 'auth' })`.
 */
export function sessionTable(name?: TableName & { schemaName?: undefined }): PlainSessionTable;
export function sessionTable(name: TableName & { schemaName: string }): QualifiedSessionTable;
export function sessionTable(name: TableName): SessionTable;
export function sessionTable({ tableName = DEFAULT_TABLE_NAME, schemaName }: TableName = {}) {
  return schemaName === undefined ? plainTable(tableName) : qualifiedTable(tableName, schemaName);
}

function plainTable(tableName: string) {
  return pgTable(tableName, sessionColumns(), sessionIndexes);
}

function qualifiedTable(tableName: string, schemaName: string) {
  return pgSchema(schemaName).table(tableName, sessionColumns(), sessionIndexes);
}

type PlainSessionTable = ReturnType<typeof plainTable>;
type QualifiedSessionTable = ReturnType<typeof qualifiedTable>;

/** The session table under its default name. */
export const sessions = sessionTable();

/** A session table that {@link sessionTable} made. */
export type SessionTable = PlainSessionTable | QualifiedSessionTable;

/** The start of a text, of at most so many bytes of UTF-8, no character torn apart. */
function cut(value: string, bytes: number): string {
  let end = value.length;
  while (Buffer.byteLength(value.slice(0, end)) > bytes) end -= 1;
  return value.slice(0, end);
}
