/**
 * What the database says about its own tables and schemas.
 *
 * @module
 */
import { type SQL, sql } from 'drizzle-orm';
import type { Database } from '../queries/fragments.js';

/** A database or a transaction that runs a statement. */
export type Executor = Pick<Database, 'execute'>;

/** A table as an app names it: without a schema, `search_path` decides. */
export interface TableName {
  readonly tableName: string;
  readonly schemaName: string | undefined;
}

export interface Location {
  /**
   * The schema of the table; if it does not exist, the one in which it would be created. `undefined` if
   * no schema of the search_path exists.
   */
  readonly schemaName: string | undefined;
  readonly exists: boolean;
}

/** Finds out where a table really is. */
export async function locate(db: Executor, table: TableName): Promise<Location> {
  const [found] = await selectNames(
    db,
    sql`select nspname::text as name from pg_class join pg_namespace on pg_namespace.oid = relnamespace
      where pg_class.oid = to_regclass(${qualified(table)}::text)`,
  );
  if (found !== undefined) return { schemaName: found, exists: true };
  const [current] = await selectNames(db, sql`select current_schema()::text as name`);
  return { schemaName: table.schemaName ?? current, exists: false };
}

/** Returns whether a table or a schema exists; `name` is quoted. */
export async function exists(
  db: Executor,
  lookup: 'to_regclass' | 'to_regnamespace',
  name: string,
): Promise<boolean> {
  const found = await selectNames(db, sql`select ${sql.raw(lookup)}(${name}::text)::text as name`);
  return found.length > 0;
}

/** Returns the column `name` of a query's rows, without nulls. */
export async function selectNames(db: Executor, query: SQL): Promise<string[]> {
  const result: unknown = await db.execute(query);
  const rows: unknown = Array.isArray(result) ? result : rowsOf(result);
  if (!Array.isArray(rows)) return [];
  return rows.map((row: { name?: unknown }) => row.name).filter((name) => typeof name === 'string');
}

/** Some drivers return an array of rows, others an object that has one. */
function rowsOf(result: unknown): unknown {
  return typeof result === 'object' && result !== null && 'rows' in result
    ? result.rows
    : undefined;
}

export function qualified({ schemaName, tableName }: TableName): string {
  return schemaName === undefined
    ? quoted(tableName)
    : `${quoted(schemaName)}.${quoted(tableName)}`;
}

export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
