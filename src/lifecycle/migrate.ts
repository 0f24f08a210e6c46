/**
 * `store.migrate()`: runs the bundled migrations under the store's own table name, in one transaction.
 * A tracking table remembers which ones a table has had. Processes that migrate at the same time take
 * turns by an advisory lock; the later ones find nothing left to do.
 *
 * @module
 */
import { sql } from 'drizzle-orm';
import { MigrationError } from '../errors.js';
import { COLUMN_NAMES, DEFAULT_TABLE_NAME, indexName } from '../names.js';
import type { Database } from '../queries/fragments.js';
import {
  type Executor,
  exists,
  locate,
  qualified,
  quoted,
  selectNames,
  type TableName,
} from './catalog.js';
import { migrations } from './migrations.js';

const TRACKING_TABLE = '__connect_drizzle_store';

/** This package's key among the advisory locks of a database. */
const LOCK = sql.raw(`hashtextextended('connect-drizzle migrate', 0)`);

/**
 * Creates the session table and its schema, or brings the table up to date. Fails if it waits longer
 * than `lockTimeout` seconds for another transaction; by default it waits as long as it takes.
 *
 * @throws {MigrationError} if the table belongs to another package
 */
export async function migrate(
  db: Database,
  { tableName, schemaName }: TableName,
  lockTimeout?: number,
): Promise<void> {
  await db.transaction(
    async (tx) => {
      if (lockTimeout !== undefined) {
        const limit = `${Math.ceil(lockTimeout * 1000)}ms`;
        await tx.execute(sql`select set_config('lock_timeout', ${limit}::text, true)`);
      }
      await tx.execute(sql`select pg_advisory_xact_lock(${LOCK})`);
      if (schemaName !== undefined && !(await exists(tx, 'to_regnamespace', quoted(schemaName)))) {
        await tx.execute(sql`create schema ${sql.identifier(schemaName)}`);
      }
      // The tracking table is beside the session table, whatever this connection's search_path is.
      const found = await locate(tx, { tableName, schemaName });
      const inSchema = (name: string) => qualified({ ...found, tableName: name });
      const table = inSchema(tableName);
      const tracking = sql.raw(inSchema(TRACKING_TABLE));
      const renamed = renaming(tableName, table);
      // Not `create table if not exists`: postgres-js prints the notice that it raises.
      if (!(await exists(tx, 'to_regclass', inSchema(TRACKING_TABLE)))) {
        await tx.execute(sql`create table ${tracking}
          (table_name text not null, migration text not null, applied_at timestamptz not null default now(),
           primary key (table_name, migration))`);
      }
      if (found.exists) await refuseOthers(tx, table);
      // The table was dropped, so all of its migrations have to run again.
      else await tx.execute(sql`delete from ${tracking} where table_name = ${tableName}::text`);
      const done = new Set(
        await selectNames(
          tx,
          sql`select migration as name from ${tracking} where table_name = ${tableName}::text`,
        ),
      );
      for (const { name, statements } of migrations) {
        if (done.has(name)) continue;
        const isFirst = name === migrations[0]?.name;
        // A table that drizzle-kit created is what the first migration creates.
        if (!(isFirst && found.exists)) {
          for (const statement of statements) await tx.execute(sql.raw(renamed(statement)));
        }
        await tx.execute(
          sql`insert into ${tracking} (table_name, migration) values (${tableName}::text, ${name}::text)`,
        );
      }
    },
    // With a stricter default of the app, a process that waited for the lock would not see what it waited for.
    { isolationLevel: 'read committed' },
  );
}

/** Returns a function that puts this store's names into a generated statement. */
function renaming(tableName: string, table: string): (statement: string) => string {
  const ownNames = new Map([
    [DEFAULT_TABLE_NAME, table],
    [indexName(DEFAULT_TABLE_NAME, 'user_id'), quoted(indexName(tableName, 'user_id'))],
    [indexName(DEFAULT_TABLE_NAME, 'expires_hour'), quoted(indexName(tableName, 'expires_hour'))],
  ]);
  return (statement) =>
    statement.replace(/"([^"]+)"/g, (whole, name: string) => ownNames.get(name) ?? whole);
}

/** Throws unless the table is one of this package: that of connect-pg-simple is called `session`. */
async function refuseOthers(tx: Executor, table: string): Promise<void> {
  const found = await selectNames(
    tx,
    sql`select attname as name from pg_attribute
      where attrelid = ${table}::text::regclass and attname = ${COLUMN_NAMES.expiresHour}::text and not attisdropped`,
  );
  if (found.length > 0) return;
  throw new MigrationError(
    `The table ${table} belongs to another package. Pass another tableName; its sessions can be imported`,
  );
}
