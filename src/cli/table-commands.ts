/**
 * Commands about the session table itself: status, migrate, sql.
 *
 * @module
 */
import { migrate, migrationSql, recordedMigrations } from '../lifecycle/migrate.js';
import { migrations } from '../lifecycle/migrations.js';
import { operationStatements, type Totals } from '../queries/operations.js';
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, WRITE_OPTIONS } from './arguments.js';
import type { Command, CommandContext } from './command.js';
import { type Database, settingsOf, withDatabase } from './database.js';
import { CliError, EXIT, type ExitCode, exitCodeFor, usageError } from './exit.js';

export const status: Command = {
  name: 'status',
  summary: 'Shows whether the table exists, its owner, version and size',
  usage: ['[--exact]'],
  details:
    'Numbers with a ~ are estimated from a sample of the table. The exit code says whether the store\n' +
    'can use the table: 0 yes, 3 missing or outdated, 4 another package owns it.',
  options: {
    exact: { help: 'count every row' },
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    'connect-drizzle status --url postgres://localhost/shop',
    'connect-drizzle status --exact --json',
    'connect-drizzle status --table web_sessions --schema auth',
  ],
  run: (context) => {
    context.args.noPositionals();
    return withDatabase(context, (database) => showStatus(context, database));
  },
};

/** Number of pages that an estimate reads, about 8 MB. */
const SAMPLED_PAGES = 1000;

async function showStatus(
  { args, out }: CommandContext,
  database: Database,
): Promise<ExitCode | undefined> {
  const { on, expected, verdict, settings } = database;
  const { schemaName } = verdict;
  const table = [schemaName, expected.tableName].filter(Boolean).join('.');
  if (verdict.state === 'missing') {
    const advice = 'create it with `connect-drizzle migrate` or drizzle-kit';
    out.record({ table, state: 'missing' }, [
      ['table', table],
      ['state', `missing: ${advice}`],
    ]);
    return EXIT.table;
  }
  if (verdict.state === 'mismatch') {
    const { reason, owner = null, message } = verdict;
    out.record({ table, state: reason, owner, message }, [
      ['table', table],
      ['state', reason],
      ['owner', owner ?? (reason === 'foreign' ? 'unknown' : 'connect-drizzle')],
      ['problem', message],
    ]);
    return exitCodeFor(reason);
  }
  const statements = operationStatements({
    ...expected,
    maxLifetime: settings.maxLifetime,
    prepared: false,
    announce: undefined,
  });
  const { bytes, pages, expiredSince } = await statements.sizes(on);
  const percent = args.flag('exact') ? 100 : Math.min(100, (SAMPLED_PAGES / pages) * 100);
  const isExact = percent === 100;
  const totals = await statements.totals(on, percent);
  const recorded = await recordedMigrations(on, expected, schemaName);
  const drift = [
    ...pendingMigrations(recorded).map((name) => `the migration ${name} has not run`),
    ...missingIndexes(database, await statements.indexedColumns(on)),
  ];
  const version =
    recorded === undefined ? null : migrations.findLast(({ name }) => recorded.has(name))?.name;
  out.record(
    {
      table,
      state: 'usable',
      owner: 'connect-drizzle',
      version: version ?? null,
      drift,
      ...totals,
      oldestAt: dateText(totals.oldestAt),
      expiredSince: dateText(expiredSince),
      estimated: !isExact,
      bytes,
    },
    [
      ['table', table],
      ['state', drift.length === 0 ? 'usable' : `usable, but ${drift.join('; ')}`],
      ['owner', 'connect-drizzle'],
      ['version', version ?? 'not recorded: created by drizzle-kit or SQL'],
      ...counts(totals, isExact ? '' : '~'),
      ['oldest', date(totals.oldestAt)],
      ['to prune', expiredSince === null ? 'nothing' : `since ${shortDate(expiredSince)}`],
      ['size', sizeText(bytes)],
    ],
  );
  return pendingMigrations(recorded).length > 0 ? EXIT.table : undefined;
}

function counts({ live, expired, revoked }: Totals, mark: string) {
  const number = (value: number) => mark + value.toLocaleString('en-US');
  return [
    ['live', number(live)],
    ['expired', number(expired)],
    ['revoked', number(revoked)],
  ] as const;
}

function pendingMigrations(recorded: ReadonlySet<string> | undefined): readonly string[] {
  if (recorded === undefined) return [];
  return migrations.filter(({ name }) => !recorded.has(name)).map(({ name }) => name);
}

/** Without these indexes, everything works, but more slowly. */
function missingIndexes({ expected }: Database, indexed: ReadonlySet<string>): readonly string[] {
  const { userId, expiresHour } = expected.rows;
  return [userId, expiresHour]
    .filter(({ name }) => !indexed.has(name))
    .map(({ name }) => `the index on ${name} is missing`);
}

export const migrateTable: Command = {
  name: 'migrate',
  summary: 'Creates the table, or updates it',
  usage: ['[--dry-run]'],
  details:
    'Runs the same migrations as `store.migrate()`, in one transaction. Use drizzle-kit instead if the\n' +
    'table is in your own Drizzle schema.',
  options: { ...WRITE_OPTIONS, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS },
  examples: [
    'connect-drizzle migrate --url postgres://localhost/shop',
    'connect-drizzle migrate --dry-run',
    'connect-drizzle migrate --table web_sessions --schema auth',
  ],
  run: (context) => {
    context.args.noPositionals();
    const { args, out } = context;
    const isDry = args.flag('dry-run');
    const work = async (database: Database) => {
      const { driver, on, expected, verdict, settings } = database;
      if (settings.table !== undefined) {
        throw usageError("the table in --config is the app's own: create it with drizzle-kit");
      }
      if (verdict.state === 'mismatch' && verdict.reason !== 'outdated') {
        throw new CliError(exitCodeFor(verdict.reason), verdict.message);
      }
      const isMissing = verdict.state === 'missing';
      const recorded = isMissing
        ? undefined
        : ((await recordedMigrations(on, expected, verdict.schemaName)) ??
          // A table that drizzle-kit or SQL has created has the result of the first migration.
          new Set(migrations.slice(0, 1).map(({ name }) => name)));
      const pending = migrationSql(expected.tableName, verdict.schemaName, recorded);
      const names = pending.map(({ name }) => name);
      if (isDry) {
        const statements = pending.flatMap((each) => each.statements);
        const text = names.length === 0 ? 'Nothing to do.' : sqlText(statements);
        out.result({ dryRun: true, pending: names, statements }, text);
        return undefined;
      }
      await driver.transaction((connection) => migrate(connection, expected));
      const what = isMissing ? 'Created' : 'Updated';
      const text =
        names.length === 0
          ? `The table ${expected.label} is up to date.`
          : `${what} the table ${expected.label}: ${names.join(', ')}.`;
      out.result({ applied: names }, text);
      return undefined;
    };
    return withDatabase(context, work, { creates: !isDry });
  },
};

export const printSql: Command = {
  name: 'sql',
  summary: 'Prints the SQL that creates the table',
  usage: [''],
  details: 'Needs no database. Use it if another tool runs your migrations.',
  options: {
    table: { value: 'NAME', help: 'the name of the table (default: sessions)' },
    schema: { value: 'NAME', help: 'its Postgres schema' },
    ...OUTPUT_OPTIONS,
  },
  examples: [
    'connect-drizzle sql > migrations/0042_sessions.sql',
    'connect-drizzle sql --table web_sessions --schema auth | psql shop',
  ],
  run: async ({ args, out }) => {
    args.noPositionals();
    const { tableName, schemaName } = await settingsOf(args);
    const steps = migrationSql(tableName, schemaName);
    const statements = steps.flatMap((each) => each.statements);
    out.result({ statements }, sqlText(statements));
    return undefined;
  },
};

function sqlText(statements: readonly string[]): string {
  const ended = statements.map((each) => (each.endsWith(';') ? each : `${each};`));
  return ended.join('\n').replaceAll('\t', '  ');
}

function dateText(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}

function date(ms: number | null): Date | null {
  return ms === null ? null : new Date(ms);
}

function shortDate(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')}Z`;
}

const UNITS = ['bytes', 'KB', 'MB', 'GB', 'TB'];

function sizeText(bytes: number): string {
  const power = bytes < 1024 ? 0 : Math.min(Math.floor(Math.log2(bytes) / 10), UNITS.length - 1);
  const value = bytes / 1024 ** power;
  return `${power === 0 ? value : value.toFixed(1)} ${UNITS[power]}`;
}
