/**
 * The source table of an import, and the record of the copies.
 *
 * @module
 */
import { sql } from 'drizzle-orm';
import {
  bigint as bigintColumn,
  integer as integerColumn,
  PgSchema,
  text as textColumn,
  timestamp as timestampColumn,
} from 'drizzle-orm/pg-core';
import type { Connection } from '../drivers/driver.js';
import { MAX_IDENTIFIER_BYTES } from '../names.js';
import { runSql } from './compile.js';
import type { FragmentSettings } from './fragments.js';
import { quoted } from './table-facts.js';

/** The table to copy from. */
export interface ImportSource {
  readonly schemaName: string;
  readonly tableName: string;
  /** Whether `expire` has no time zone. */
  readonly isLocalTime: boolean;
}

export interface ImportSettings extends FragmentSettings {
  readonly schemaName: string;
  readonly source: ImportSource;
  /** The path of the owner in a session's JSON. With `undefined`, the import does not write the column of owners. */
  readonly userPath: readonly string[] | undefined;
  /** The time zone of `expire`; `undefined` for the zone of this connection. */
  readonly timeZone: string | undefined;
}

/**
 * Finds the source. `name` is the name of a table, or an SQL name such as `auth.session`. If it is not a table of
 * connect-pg-simple, returns a text that says why.
 */
export async function findSource(on: Connection, name: string): Promise<ImportSource | string> {
  const isSqlName = /^(\w+|"[^"]+")(\.(\w+|"[^"]+"))?$/.test(name);
  const names = [quoted(name), isSqlName ? name : quoted(name)].map(
    (each) => sql`to_regclass(${each}::text)`,
  );
  const [table] = await runSql(
    on,
    sql`select pg_class.oid::text, relkind::text, nspname::text, relname::text from pg_class
      join pg_namespace on pg_namespace.oid = relnamespace
      where pg_class.oid = coalesce(${sql.join(names, sql`, `)})`,
  );
  const [oid, kind, schemaName, tableName] = table ?? [];
  if (!oid || !schemaName || !tableName) return 'it does not exist';
  if (kind !== 'r') return 'it is not an ordinary table';
  const columns = await runSql(
    on,
    sql`select attname::text, format_type(atttypid, null) from pg_attribute
      where attrelid = ${oid}::oid and attnum > 0 and not attisdropped`,
  );
  const types = new Map(columns.map(([column, type]) => [column, type]));
  const missing = ['sid', 'sess', 'expire'].filter((column) => !types.has(column));
  if (missing.length > 0)
    return `it is not a table of connect-pg-simple, because it lacks ${missing.join(', ')}`;
  const isLocalTime = types.get('expire') === 'timestamp without time zone';
  return { schemaName, tableName, isLocalTime };
}

/** Returns the name of the record table. */
export function recordName(tableName: string): string {
  const name = `${tableName}_connect_drizzle_import`;
  return Buffer.byteLength(name) <= MAX_IDENTIFIER_BYTES ? name : 'connect_drizzle_import';
}

/** The tables of an import, and expressions for the source's columns. */
export function importTables(settings: ImportSettings) {
  const { schemaName, tableName, source: names } = settings;
  const inSchema = (schema: string) => new PgSchema(schema).table;

  const source = inSchema(names.schemaName)(names.tableName, {
    sid: textColumn('sid').notNull(),
    sess: textColumn('sess').notNull(),
    expire: timestampColumn('expire').notNull(),
  });
  const record = inSchema(schemaName)(recordName(tableName), {
    id: textColumn('id').primaryKey(),
    version: integerColumn('version').notNull(),
    content: bigintColumn('content', { mode: 'number' }).notNull(),
    expiresAt: timestampColumn('expires_at', { withTimezone: true }).notNull(),
  });
  const zone =
    settings.timeZone === undefined
      ? sql`current_setting('TimeZone')`
      : sql`${settings.timeZone}::text`;
  const sourceExpiry = names.isLocalTime
    ? sql`(${source.expire} at time zone ${zone})`
    : sql`${source.expire}`;
  /** `idOf(sid)` in SQL. */
  const sourceId = sql`translate(encode(sha256(convert_to(${source.sid}, 'UTF8')), 'base64'), '+/=', '-_')`;
  return { source, record, sourceExpiry, sourceId };
}

export type ImportTables = ReturnType<typeof importTables>;
