/**
 * `store.migrate()`: the bundled migrations under the store's own table name, in one transaction under
 * an advisory lock, with a tracking table of their own. Processes that start at once wait for the
 * first and then find nothing left to do.
 *
 * @module
 */
import { sql } from 'drizzle-orm';
import { MigrationError } from '../errors.js';
import { DEFAULT_TABLE_NAME, indexName } from '../names.js';
import type { Database } from '../queries/fragments.js';
import { checkTable, type ExpectedTable } from '../queries/table-check.js';
import { quoted } from '../queries/table-facts.js';
import { migrations } from './migrations.js';
import { rowsOf, runOn } from './table.js';

/** Which migrations a table has had. */
const TRACKING_TABLE = '__connect_drizzle_store';

/** A number of this package's own among the advisory locks of a database. */
const LOCK = sql.raw(`hashtextextended('connect-drizzle migrate', 0)`);

/**
 * Brings a session table up to date; makes it, and its Postgres schema, where there is none. `patience`: how many
 * seconds it waits for other transactions, each time; without it, as long as they take.
 */
export async function migrate(
  db: Database,
  expected: ExpectedTable,
  patience?: number,
): Promise<void> {
  const { tableName, schemaName } = expected;
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
      if (schemaName !== undefined && !(await schemaExists(tx, quoted(schemaName)))) {
        await tx.execute(sql`create schema ${sql.identifier(schemaName)}`);
      }
      const before = await checkTable(runOn(tx), expected);
      if (before.state === 'mismatch' && before.reason !== 'outdated') {
        throw new MigrationError(before.message);
      }
      await tx.execute(sql`create table if not exists ${tracking}
      (table_name text not null, migration text not null, applied_at timestamptz not null default now(),
       primary key (table_name, migration))`);
      const isThere = before.state !== 'missing';
      // Whoever has dropped it meant to begin anew.
      if (!isThere)
        await tx.execute(sql`delete from ${tracking} where table_name = ${tableName}::text`);
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
      // Nothing of this is kept if the migrations cannot make the table usable.
      const after = await checkTable(runOn(tx), expected);
      if (after.state === 'mismatch') {
        throw new MigrationError(`The migrations have run, but: ${after.message}`);
      }
    },
    // Whatever the app's default is: what the process before has done must be seen after the wait.
    { isolationLevel: 'read committed' },
  );
}

async function schemaExists(tx: Pick<Database, 'execute'>, name: string): Promise<boolean> {
  const found = await tx.execute(sql`select to_regnamespace(${name}::text)::text as name`);
  return namesIn(found).length > 0;
}

/** The `name` column of a driver's result. */
function namesIn(result: unknown): string[] {
  return rowsOf(result).flatMap((row) => {
    const name = typeof row === 'object' && row !== null && 'name' in row ? row.name : undefined;
    return typeof name === 'string' ? [name] : [];
  });
}
