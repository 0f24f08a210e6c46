/**
 * The command import: copies the sessions of connect-pg-simple or connect-pg-pool.
 *
 * @module
 */
import { sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { SessionStoreError, sqlState } from '../errors.js';
import { runSql } from '../queries/compile.js';
import { findSource, type ImportSource } from '../queries/import-source.js';
import { type ImportStatements, importStatements, type OddSession } from '../queries/importing.js';
import { userIdText } from '../session/user.js';
import { property } from '../util/guards.js';
import { LOCK_NOT_AVAILABLE } from '../util/sql-states.js';
import { type Arguments, BULK_OPTIONS, CONNECTION_OPTIONS, OUTPUT_OPTIONS } from './arguments.js';
import type { Command, CommandContext } from './command.js';
import { requirePostgres, type SessionDatabase, withSessions } from './database.js';
import { CliError, EXIT, usageError } from './exit.js';
import type { Progress } from './output.js';
import { agreed, sessionsText, untilFree } from './revoke-commands.js';

/** Limits of one transaction: rows to copy, and memory on the server. */
const BATCH_BYTES = 8 * 1024 ** 2;

const SOURCES = ['connect-pg-simple', 'connect-pg-pool'];

export const importSessions: Command = {
  name: 'import',
  summary: 'Copies the sessions of connect-pg-simple or connect-pg-pool',
  usage: [
    '--from connect-pg-simple [--source-table session] [--user-path passport.user]',
    '--from connect-pg-simple … --final',
  ],
  details:
    'Run it while the old app is in use. If you stop it, run it again: it copies sessions that are missing\n' +
    'or have changed, and keeps changes of the new store. When the old app has stopped, run it with\n' +
    '--final: it locks the source, copies the rest, and ends the sessions that were logged out there.',
  options: {
    from: { value: 'PACKAGE', help: 'connect-pg-simple or connect-pg-pool' },
    'source-table': { value: 'T', help: 'the table to copy (default: session)' },
    'user-path': {
      value: 'PATH',
      help: "path of the user's id in a session, such as passport.user",
    },
    'source-timezone': {
      value: 'Z',
      help: "the time zone of the old app's connections (default: this connection's)",
    },
    final: {
      help: 'lock the source, copy the rest, and end the sessions that were logged out there',
    },
    ...BULK_OPTIONS,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    'connect-drizzle import --from connect-pg-simple --user-path passport.user --dry-run',
    'connect-drizzle import --from connect-pg-simple --user-path passport.user --yes',
    'connect-drizzle import --from connect-pg-simple --user-path passport.user --final --yes',
    'connect-drizzle import --from connect-pg-pool --source-table old.session --source-timezone UTC',
  ],
  run: (context) => {
    const { args } = context;
    args.noPositionals();
    const from = args.text('from');
    if (from === undefined || !SOURCES.includes(from)) {
      throw usageError(`--from must be ${SOURCES.join(' or ')}`);
    }
    const sourceName = args.text('source-table') ?? 'session';
    const userPath = userPathIn(args);
    return withSessions(context, { reads: false }, async (database) => {
      const { on, settings, statementSettings, name } = database;
      requirePostgres(database, 'import');
      if (settings.serializer !== undefined) {
        throw usageError(
          'import cannot use the serializer of --config: save each session with store.set() instead',
        );
      }
      const source = await sourceOf(on, sourceName);
      const timeZone = args.text('source-timezone');
      if (timeZone !== undefined) await checkTimeZone(on, timeZone);
      const statements = importStatements({
        ...statementSettings,
        schemaName: database.schemaName,
        source,
        userPath,
        timeZone,
      });
      const run = { context, database, statements, source, userPath };
      return args.flag('dry-run') ? preview(run) : copyAll(run, name);
    });
  },
};

interface ImportRun {
  readonly context: CommandContext;
  readonly database: SessionDatabase;
  readonly statements: ImportStatements;
  readonly source: ImportSource;
  readonly userPath: readonly string[] | undefined;
}

async function preview({ context, database, statements, source }: ImportRun): Promise<undefined> {
  const { live, copied } = await statements.count(database.on);
  const from = `${source.schemaName}.${source.tableName}`;
  const text = `${number(live)} live sessions in ${from}, ${number(copied)} of them already in ${database.name}.`;
  context.out.result({ dryRun: true, source: from, live, copied }, text);
  return undefined;
}

async function copyAll(run: ImportRun, name: string): Promise<undefined> {
  const { context, database, statements, source } = run;
  const { args, out } = context;
  const { driver, on, settings } = database;
  const from = `${source.schemaName}.${source.tableName}`;
  const isFinal = args.flag('final');
  const lock = isFinal ? ' The old app cannot write while the source is locked.' : '';
  await agreed(context, `Copy the sessions of ${from} to ${name}?${lock}`);
  await statements.prepare(on);
  const total = { inserted: 0, updated: 0, revoked: 0 };
  const pass = async (label: string, inTransaction: InTransaction) => {
    const extent = await inTransaction((connection) => statements.extent(connection));
    const progress = out.progress(label, extent.pages, 'pages');
    try {
      const { inserted, updated } = await copyPass(run, extent, inTransaction, progress);
      total.inserted += inserted;
      total.updated += updated;
    } finally {
      progress.end();
    }
  };
  await pass('Copying', (work) => driver.transaction(work));
  if (isFinal) {
    // Only little is left to copy now, so the lock on the source is short.
    await driver.transaction(async (connection) => {
      await lockSource(statements, connection, from);
      await pass('Locked, copying the rest', (work) => work(connection));
      await untilFree(async () => {
        total.revoked += await statements.endGone(connection);
        return (await statements.countGone(connection)) === 0 ? true : undefined;
      });
      await statements.dropRecord(connection);
    });
  }
  const text = [
    `Copied ${sessionsText(total.inserted)}, and ${number(total.updated)} again that had changed.`,
    isFinal
      ? `Ended ${number(total.revoked)} that were logged out in ${from}. Drop that table, because it contains usable cookies.`
      : 'Run it with --final when the old app has stopped.',
  ];
  out.result({ dryRun: false, source: from, ...total }, text.join('\n'));
  if (settings.encryptionKeys.length > 0) {
    out.note(
      "The copies are not encrypted: run `connect-drizzle rekey`, with 'plaintext' among the keys.",
    );
  }
  return undefined;
}

type InTransaction = <T>(work: (on: Connection) => Promise<T>) => Promise<T>;

/** Copies all rows of the source, one batch per transaction. The next pass copies rows that move during this one. */
async function copyPass(
  { statements, userPath }: ImportRun,
  { pages, bytes }: { readonly pages: number; readonly bytes: number },
  inTransaction: InTransaction,
  progress: Progress,
) {
  const step = Math.max(1, Math.floor((pages * BATCH_BYTES) / bytes));
  let inserted = 0;
  let updated = 0;
  for (let page = 0; page < pages; page += step) {
    const batch = await inTransaction(async (on) => {
      const copied = await statements.copy(on, page, page + step);
      for (const odd of copied.odd) await statements.complete(on, odd, factsIn(odd, userPath));
      return copied;
    });
    inserted += batch.inserted;
    updated += batch.updated;
    progress.add(Math.min(step, pages - page));
  }
  return { inserted, updated };
}

/** Reads the same values from a session's JSON that Postgres reads for other sessions. */
function factsIn({ text }: OddSession, userPath: readonly string[] | undefined) {
  const session: unknown = JSON.parse(text);
  const user = userPath?.reduce<unknown>((value, key) => property(value, key), session);
  const maxAge = property(property(session, 'cookie'), 'originalMaxAge');
  return { owner: ownerFrom(user), maxAgeMs: typeof maxAge === 'number' ? maxAge : null };
}

function ownerFrom(value: unknown): string | null {
  if (typeof value !== 'string' && typeof value !== 'number') return null;
  try {
    return userIdText(value);
  } catch (error) {
    if (error instanceof SessionStoreError) return null;
    throw error;
  }
}

function userPathIn(args: Arguments): readonly string[] | undefined {
  const keys = args.text('user-path')?.split('.');
  if (keys?.includes('')) throw usageError('--user-path must be keys, separated by dots');
  return keys;
}

async function sourceOf(on: Connection, name: string): Promise<ImportSource> {
  const found = await findSource(on, name);
  if (typeof found !== 'string') return found;
  throw new CliError(EXIT.failed, `The table ${name} cannot be copied: ${found}`);
}

async function checkTimeZone(on: Connection, zone: string): Promise<void> {
  try {
    await runSql(on, sql`select (now() at time zone ${zone}::text)::text`);
  } catch (error) {
    if (sqlState(error) !== '22023') throw error;
    throw usageError(`--source-timezone: Postgres does not know the time zone ${zone}`);
  }
}

async function lockSource(statements: ImportStatements, on: Connection, from: string) {
  try {
    await statements.lockSource(on);
  } catch (error) {
    if (sqlState(error) !== LOCK_NOT_AVAILABLE) throw error;
    throw new CliError(
      EXIT.failed,
      `${from} could not be locked within 30 s, because a transaction is writing to it. Try again`,
    );
  }
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}
