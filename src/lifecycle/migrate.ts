/**
 * `store.migrate()`: the bundled migrations under the store's own table name, in one transaction under
 * an advisory lock, with a tracking table of their own. Processes that start at once wait for the
 * first and then find nothing left to do.
 *
 * @module
 */
import { sql } from 'drizzle-orm';
import { MigrationError } from '../errors.js';
import { COLUMN_NAMES, DEFAULT_TABLE_NAME, indexName } from '../names.js';
import type { Database } from '../queries/fragments.js';
import { migrations } from './migrations.js';

/** Which migrations a table has had. */
const TRACKING_TABLE = '__connect_drizzle_store';

/** A number of this package's own among the advisory locks of a database. */
const LOCK = sql.raw(`hashtextextended('connect-drizzle migrate', 0)`);

export interface MigrateTarget {
  readonly tableName: string;
  readonly schemaName: string | undefined;
}

/**
 * Brings a session table up to date; makes it, and its Postgres schema, where there is none. `patience`: how many
 * seconds it waits for other transactions, each time; without it, as long as they take.
 */
export async function migrate(
  db: Database,
  { tableName, schemaName }: MigrateTarget,
  patience?: number,
): Promise<void> {
  const qualified = (name: string) =>
    schemaName === undefined ? quoted(name) : `${quoted(schemaName)}.${quoted(name)}`;
  const table = qualified(tableName);
  const tracking = sql.raw(qualified(TRACKING_TABLE));
  /** The names of the generated statements, and those of this store. */
  const names = new Map([
    [DEFAULT_TABLE_NAME, table],
    [indexName(DEFAULT_TABLE_NAME, 'user_id'), quoted(indexName(tableName, 'user_id'))],
    [indexName(DEFAULT_TABLE_NAME, 'expires_hour'), quoted(indexName(tableName, 'expires_hour'))],
  ]);
  const renamed = (statement: string) =>
    statement.replace(/"([^"]+)"/g, (whole, name: string) => names.get(name) ?? whole);

  await db.transaction(
    async (tx) => {
      if (patience !== undefined) {
        const limit = `${Math.ceil(patience * 1000)}ms`;
        await tx.execute(sql`select set_config('lock_timeout', ${limit}::text, true)`);
      }
      await tx.execute(sql`select pg_advisory_xact_lock(${LOCK})`);
      if (schemaName !== undefined && !(await exists(tx, 'to_regnamespace', quoted(schemaName)))) {
        await tx.execute(sql`create schema ${sql.identifier(schemaName)}`);
      }
      await tx.execute(sql`create table if not exists ${tracking}
      (table_name text not null, migration text not null, applied_at timestamptz not null default now(),
       primary key (table_name, migration))`);
      const isThere = await exists(tx, 'to_regclass', table);
      if (isThere) await refuseOthers(tx, table);
      // Whoever has dropped it meant to begin anew.
      else await tx.execute(sql`delete from ${tracking} where table_name = ${tableName}::text`);
      const done = new Set(
        namesIn(
          await tx.execute(
            sql`select migration as name from ${tracking} where table_name = ${tableName}::text`,
          ),
        ),
      );
      for (const { name, statements } of migrations) {
        if (done.has(name)) continue;
        const isFirst = name === migrations[0]?.name;
        // A table that drizzle-kit made, before or beside this store, is as the first migration leaves it.
        if (!(isFirst && isThere)) {
          for (const statement of statements) await tx.execute(sql.raw(renamed(statement)));
        }
        await tx.execute(
          sql`insert into ${tracking} (table_name, migration) values (${tableName}::text, ${name}::text)`,
        );
      }
    },
    // Whatever the app's default is: what the process before has done must be seen after the wait.
    { isolationLevel: 'read committed' },
  );
}

/** A table of that name may be another package's: connect-pg-simple's is called `session`. */
async function refuseOthers(tx: Pick<Database, 'execute'>, table: string): Promise<void> {
  const found = await tx.execute(sql`select attname as name from pg_attribute
    where attrelid = ${table}::text::regclass and attname = ${COLUMN_NAMES.expiresHour}::text and not attisdropped`);
  if (namesIn(found).length > 0) return;
  throw new MigrationError(
    `The table ${table} is not one of this package. Pass another tableName; its sessions can be imported`,
  );
}

async function exists(
  tx: Pick<Database, 'execute'>,
  lookup: 'to_regclass' | 'to_regnamespace',
  name: string,
): Promise<boolean> {
  const found = await tx.execute(sql`select ${sql.raw(lookup)}(${name}::text)::text as name`);
  return namesIn(found).length > 0;
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** The `name` column of a driver's result, which is an array or has `rows`. */
function namesIn(result: unknown): string[] {
  const rows: unknown = Array.isArray(result) ? result : rowsOf(result);
  if (!Array.isArray(rows)) return [];
  return rows.map((row: { name?: unknown }) => row.name).filter((name) => typeof name === 'string');
}

function rowsOf(result: unknown): unknown {
  return typeof result === 'object' && result !== null && 'rows' in result
    ? result.rows
    : undefined;
}
