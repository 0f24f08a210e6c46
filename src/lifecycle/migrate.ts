/**
 * `store.migrate()`: runs the bundled migrations for the store's table name, in one transaction. A tracking table records
 * which migrations have run. An advisory lock lets only one process migrate at a time; the others wait and then find
 * nothing to do.
 *
 * @module
 */
import { type SQL, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { MigrationError } from '../errors.js';
import { DEFAULT_TABLE_NAME, indexName } from '../names.js';
import { runSql } from '../queries/compile.js';
import { askEngine } from '../queries/engines.js';
import { checkTable, type ExpectedTable } from '../queries/table-check.js';
import { quoted } from '../queries/table-facts.js';
import { migrations } from './migrations.js';

const TRACKING_TABLE = '__connect_drizzle_store';

/** This package's key among the advisory locks of a database. */
const LOCK = sql.raw(`hashtextextended('connect-drizzle migrate', 0)`);

/**
 * Creates the session table and its schema, or updates the table, in a transaction. Fails if it waits longer than
 * `lockTimeout` seconds for another transaction; by default it waits without a limit.
 *
 * @throws {MigrationError} if the table belongs to another package, or cannot be used after the migrations
 */
export async function migrate(
  on: Connection,
  expected: ExpectedTable,
  lockTimeout?: number,
): Promise<void> {
  const { tableName, schemaName } = expected;
  const { canMigrate, name: engine } = await askEngine(on);
  if (!canMigrate) {
    throw new MigrationError(
      `Migrations need advisory locks and DDL in transactions, which ${engine} does not have: create the table with ` +
        'drizzle-kit, or run the statements that `connect-drizzle sql` prints',
    );
  }
  const execute = (statement: SQL) => runSql(on, statement);
  if (lockTimeout !== undefined) {
    const limit = `${Math.ceil(lockTimeout * 1000)}ms`;
    await execute(sql`select set_config('lock_timeout', ${limit}::text, true)`);
  }
  await execute(sql`select pg_advisory_xact_lock(${LOCK})::text`);
  if (schemaName !== undefined && !(await exists(on, 'to_regnamespace', quoted(schemaName)))) {
    await execute(sql`create schema ${sql.identifier(schemaName)}`);
  }
  const before = await checkTable(on, expected);
  if (before.state === 'mismatch' && before.reason !== 'outdated') {
    throw new MigrationError(before.message);
  }
  const isThere = before.state !== 'missing';
  const tracking = sql.raw(trackingTable(before.schemaName));
  // Not `create table if not exists`: postgres-js prints the notice that it raises.
  if (!(await exists(on, 'to_regclass', trackingTable(before.schemaName)))) {
    await execute(sql`create table ${tracking}
      (table_name text not null, migration text not null, applied_at timestamptz not null default now(),
       primary key (table_name, migration))`);
  }
  // If the table was dropped, all its migrations must run again.
  if (!isThere) await execute(sql`delete from ${tracking} where table_name = ${tableName}::text`);
  const rows = await execute(
    sql`select migration from ${tracking} where table_name = ${tableName}::text`,
  );
  const done = new Set(rows.map(([name]) => name));
  const renamed = renaming(tableName, inSchema(before.schemaName, tableName));
  for (const { name, statements } of migrations) {
    if (done.has(name)) continue;
    const isFirst = name === migrations[0]?.name;
    // If drizzle-kit created the table, it has the result of the first migration.
    if (!(isFirst && isThere)) {
      for (const statement of statements) await execute(sql.raw(renamed(statement)));
    }
    await execute(
      sql`insert into ${tracking} (table_name, migration) values (${tableName}::text, ${name}::text)`,
    );
  }
  // If the table cannot be used after the migrations, this error rolls everything back.
  const after = await checkTable(on, expected);
  if (after.state === 'mismatch') {
    throw new MigrationError(`The migrations have run, but: ${after.message}`);
  }
}

/**
 * Returns the names of the migrations that `migrate()` has recorded for a table; `undefined` if there are none, for
 * example because drizzle-kit creates the table.
 */
export async function recordedMigrations(
  on: Connection,
  { tableName }: ExpectedTable,
  schemaName: string | undefined,
): Promise<ReadonlySet<string> | undefined> {
  const name = trackingTable(schemaName);
  if (!(await exists(on, 'to_regclass', name))) return undefined;
  const rows = await runSql(
    on,
    sql`select migration from ${sql.raw(name)} where table_name = ${tableName}::text`,
  );
  const names = rows.flatMap(([migration]) => migration ?? []);
  return names.length === 0 ? undefined : new Set(names);
}

/** Returns the statements of the migrations that are not in `done`, with the names of a table and its schema. */
export function migrationSql(
  tableName: string,
  schemaName: string | undefined,
  done: ReadonlySet<string> = new Set(),
): { readonly name: string; readonly statements: readonly string[] }[] {
  const renamed = renaming(tableName, inSchema(schemaName, tableName));
  return migrations
    .filter(({ name }) => !done.has(name))
    .map(({ name, statements }) => ({ name, statements: statements.map(renamed) }));
}

/** Returns the tracking table, in the schema of the session table; the connection's search_path has no effect. */
function trackingTable(schemaName: string | undefined): string {
  return inSchema(schemaName, TRACKING_TABLE);
}

function inSchema(schemaName: string | undefined, name: string): string {
  return [schemaName, name].flatMap((part) => (part === undefined ? [] : [quoted(part)])).join('.');
}

/** Returns a function that replaces the names in a generated statement with the names of this store. */
function renaming(tableName: string, table: string): (statement: string) => string {
  const ownNames = new Map([
    [DEFAULT_TABLE_NAME, table],
    [indexName(DEFAULT_TABLE_NAME, 'user_id'), quoted(indexName(tableName, 'user_id'))],
    [indexName(DEFAULT_TABLE_NAME, 'expires_hour'), quoted(indexName(tableName, 'expires_hour'))],
  ]);
  return (statement) =>
    statement.replace(/"([^"]+)"/g, (whole, name: string) => ownNames.get(name) ?? whole);
}

/** Returns whether a table or a schema exists; `name` is quoted. */
async function exists(
  on: Connection,
  lookup: 'to_regclass' | 'to_regnamespace',
  name: string,
): Promise<boolean> {
  const [row] = await runSql(on, sql`select ${sql.raw(lookup)}(${name}::text)::text`);
  return (row?.[0] ?? null) !== null;
}
