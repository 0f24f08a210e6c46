/**
 * Connects a command with its database, and checks the session table.
 *
 * @module
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { nameIn, type Opener, openerFor } from '../drivers/detect.js';
import type { Connection, Driver } from '../drivers/driver.js';
import { loadDriver } from '../drivers/load.js';
import {
  ConnectionError,
  DriverMissingError,
  InvalidArgumentError,
  StatementError,
  StoreTimeoutError,
  sqlState,
  storeError,
} from '../errors.js';
import { type DrizzleStoreOptions, type Settings, settingsFrom } from '../options.js';
import type { Statements } from '../queries/contract.js';
import { chosenEngine, type Engine, engineOfTable, POSTGRES } from '../queries/engines.js';
import type { StatementSettings } from '../queries/fragments.js';
import { type OperationStatements, operationStatements } from '../queries/operations.js';
import { statementsFor } from '../queries/statements.js';
import { type ExpectedTable, judge, type Verdict } from '../queries/table-check.js';
import { quotedName, readFacts } from '../queries/table-facts.js';
import { viewOf } from '../queries/view.js';
import { sessionTable } from '../schema.js';
import { channelOf, newSender } from '../sync/channel.js';
import { monotonicMs } from '../util/clock.js';
import { isPlainObject, property } from '../util/guards.js';
import type { Arguments } from './arguments.js';
import type { CommandContext } from './command.js';
import { CliError, EXIT, exitCodeFor, usageError } from './exit.js';

/** An open database. */
export interface Database {
  readonly settings: Settings;
  readonly driver: Driver;
  /** The only connection of the command. */
  readonly on: Connection;
  readonly expected: ExpectedTable;
  readonly verdict: Verdict;
  /** The engine of the table. */
  readonly engine: Engine;
  /** Converts an error of a driver to an error of this package. */
  readonly errorOf: (error: unknown) => Error;
}

/** A database with a session table that can be used. */
export interface SessionDatabase extends Database {
  readonly statements: Statements;
  readonly operations: OperationStatements;
  readonly statementSettings: StatementSettings;
  /** The schema of the table. */
  readonly schemaName: string;
  /** The table's full name. */
  readonly name: string;
  /** The channel of stores with `sync`. */
  readonly channel: string;
}

const CONNECT_SECONDS = 15;

/** Opens the database of a command, and closes it after `work`. `creates`: the command may create an embedded database. */
export async function withDatabase<T>(
  { args, io }: CommandContext,
  work: (database: Database) => Promise<T>,
  { creates = false } = {},
): Promise<T> {
  const settings = await settingsOf(args);
  const source = args.text('url') ?? io.env.DATABASE_URL;
  if (source === undefined || source === '') {
    throw usageError('which database? Pass --url or set DATABASE_URL');
  }
  const opener = openerFor(source);
  if (!creates) requireFolder(source, opener);
  const errorOf = (error: unknown) => storeError(error, settings.tableName, opener.server);
  let driver: Driver | undefined;
  try {
    driver = await openDriver(source, opener);
    const connection = await connect(driver, opener.server);
    try {
      const on = withErrors(connection, errorOf);
      return await work({ settings, driver, on, errorOf, ...(await locate(on, settings)) });
    } finally {
      connection.release();
    }
  } catch (error) {
    throw isDriverError(error) ? errorOf(error) : error;
  } finally {
    await driver?.close();
  }
}

/** The same for commands that need a usable table. `reads`: the command only reads. */
export function withSessions<T>(
  context: CommandContext,
  { reads }: { readonly reads: boolean },
  work: (database: SessionDatabase) => Promise<T>,
): Promise<T> {
  return withDatabase(context, (database) => {
    const { engine, expected, settings } = database;
    const schemaName = requireTable(database, reads);
    const channel = channelOf(schemaName, expected.tableName);
    const statementSettings = {
      ...expected,
      maxLifetime: settings.maxLifetime,
      prepared: false,
      engine,
      announce: { channel, sender: newSender() },
    };
    return work({
      ...database,
      statements: statementsFor(statementSettings),
      operations: operationStatements(statementSettings),
      statementSettings,
      schemaName,
      name: `${schemaName}.${expected.tableName}`,
      channel,
    }).catch((error) => {
      if (!isMistypedUser(context.args, expected, error)) throw error;
      throw usageError(`--user must be a user id of this table, of type ${expected.userIdType}`);
    });
  });
}

/** @throws {CliError} for an embedded database that does not exist, because opening its folder would create it */
function requireFolder(source: string, { embedded, inMemory }: Opener): void {
  if (!embedded || inMemory || existsSync(join(source, 'PG_VERSION'))) return;
  const problem = existsSync(source) ? 'contains no database' : 'does not exist';
  throw new CliError(
    EXIT.table,
    `The folder ${source} ${problem}. \`connect-drizzle migrate\` creates it, with the session table`,
  );
}

/** @throws {CliError} for work that needs the statements for PostgreSQL */
export function requirePostgres({ engine, name }: SessionDatabase, work: string): void {
  if (!engine.isPortable) return;
  throw new CliError(
    EXIT.failed,
    `${work} needs statements that only PostgreSQL runs, but the table ${name} is in ${engine.name}`,
  );
}

/**
 * Returns the schema of the table.
 *
 * @throws {CliError} if the table cannot be used. A command that only reads needs no permission to write.
 */
function requireTable({ verdict, expected }: Database, reads: boolean): string {
  if (verdict.state === 'missing') {
    throw new CliError(
      EXIT.table,
      `The session table ${expected.label} does not exist. Create it with \`connect-drizzle migrate\` or drizzle-kit`,
    );
  }
  if (verdict.state === 'mismatch' && !(reads && verdict.reason === 'unusable')) {
    const hint = verdict.reason === 'outdated' ? ', or `connect-drizzle migrate`' : '';
    throw new CliError(exitCodeFor(verdict.reason), verdict.message + hint);
  }
  return verdict.schemaName ?? 'public';
}

/** Reads the store's options, from --config and from the arguments. */
export async function settingsOf(args: Arguments): Promise<Settings> {
  const file = args.text('config');
  const options = file === undefined ? {} : await readConfig(file);
  const tableName = args.text('table');
  const schemaName = args.text('schema');
  return settingsFrom({
    ...options,
    ...(tableName === undefined ? {} : { tableName }),
    ...(schemaName === undefined ? {} : { schemaName }),
  });
}

async function readConfig(file: string): Promise<DrizzleStoreOptions> {
  const path = resolve(file);
  let config: unknown;
  try {
    if (path.endsWith('.json')) config = JSON.parse(await readFile(path, 'utf8'));
    else {
      const module: unknown = await import(pathToFileURL(path).href);
      config = defaultOf(module);
      // TypeScript and Babel compile ES modules to CommonJS, with a default inside of Node's.
      if (property(config, '__esModule') === true) config = defaultOf(config);
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw usageError(`--config ${file} cannot be loaded: ${reason}`);
  }
  if (!isPlainObject(config)) {
    throw usageError(`--config ${file} must export the store's options as its default`);
  }
  return config;
}

function defaultOf(module: unknown): unknown {
  return property(module, 'default') ?? module;
}

/** Opens the source: a URL with `pg`, or with `postgres` if `pg` is not installed. */
async function openDriver(source: string, opener: Opener): Promise<Driver> {
  const settings = { timeout: CONNECT_SECONDS, onIdleError: () => {} };
  try {
    return await opener.open(settings);
  } catch (error) {
    const known = storeError(error, '');
    if (!(known instanceof DriverMissingError) || opener.embedded) throw error;
  }
  try {
    const postgres = await loadDriver('postgres');
    return await openerFor(postgres(source, { onnotice: () => {} })).open(settings);
  } catch (error) {
    if (!(storeError(error, '') instanceof DriverMissingError)) throw error;
    throw new CliError(
      EXIT.failed,
      'A driver for Postgres is missing: npm install pg (or npm install postgres)',
    );
  }
}

async function connect(driver: Driver, server: string | undefined): Promise<Connection> {
  try {
    return await driver.acquire(monotonicMs() + CONNECT_SECONDS * 1000);
  } catch (error) {
    // A driver's error may have no code.
    if (!(error instanceof StoreTimeoutError)) throw storeError(error, '', server);
    throw new ConnectionError({ code: 'ETIMEDOUT' }, server);
  }
}

/** Wraps a connection and converts its errors to errors of this package. */
function withErrors(connection: Connection, errorOf: (error: unknown) => Error): Connection {
  return {
    clock: connection.clock,
    run: (query, values) =>
      connection.run(query, values).catch((error) => {
        throw errorOf(error);
      }),
    release: () => connection.release(),
    destroy: () => connection.destroy(),
  };
}

/** Finds the table. Its column of users may have any type. */
async function locate(on: Connection, settings: Settings) {
  const { tableName, schemaName, table = sessionTable({ tableName, schemaName }) } = settings;
  const view = viewOf(table, nameIn(undefined), true);
  const facts = await readFacts(on, { ...view, idName: view.rows.id.name });
  const user =
    facts.kind === null
      ? undefined
      : facts.columns.find(({ name }) => name === view.rows.userId.name);
  const expected: ExpectedTable = {
    ...view,
    withUser: true,
    userIdType: user?.type ?? view.userIdType,
    userIdNullable: user === undefined ? view.userIdNullable : !user.notNull,
  };
  const found =
    facts.server === undefined ? POSTGRES : await engineOfTable(on, facts.server, quotedName(view));
  // Expects the type that the column of users has.
  return {
    engine: chosenEngine(found, settings.engine),
    expected,
    verdict: judge(expected, facts.kind === null ? facts : { ...facts, userType: null }),
  };
}

/** Whether the type of the column of users does not accept the value of --user, for example `ada` for an integer. */
function isMistypedUser(args: Arguments, { userIdType }: ExpectedTable, error: unknown): boolean {
  if (args.text('user') === undefined || userIdType === 'text') return false;
  // Class 22, data exception.
  return error instanceof StatementError && error.cause?.code?.startsWith('22') === true;
}

/** Whether an error comes from a driver, not from this package. */
function isDriverError(error: unknown): boolean {
  return (
    !(error instanceof CliError) &&
    !(error instanceof InvalidArgumentError) &&
    sqlState(error) !== undefined
  );
}
