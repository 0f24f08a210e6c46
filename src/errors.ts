/**
 * Every error of this package, each a class with a stable `code`, and the conversion of drivers' errors to them.
 *
 * No error contains a sid or any content of a session. Its `cause` is a copy of the driver's error with the safe fields
 * only: Drizzle's message contains all parameters, and Postgres' `detail` the failing row. (The `cause` of a
 * {@link NotSerializableError} is the error of the app's own serializer.)
 *
 * @module
 */
import { describe } from './util/describe.js';
import { isRecord, property } from './util/guards.js';
import {
  explained,
  IN_TRANSACTION,
  isConnectionFailure,
  isSqlState,
  NO_PERMISSION,
  READ_ONLY,
  reasonOf,
  uncodedReasonOf,
} from './util/sql-states.js';

/** The safe fields of a driver's error: no message, no detail, no parameters. */
export interface SafeCause {
  readonly code?: string;
  readonly severity?: string;
  readonly routine?: string;
  readonly schema?: string;
  readonly table?: string;
  readonly column?: string;
  readonly constraint?: string;
}

const SAFE_FIELDS = [
  'code',
  'severity',
  'routine',
  'schema',
  'table',
  'column',
  'constraint',
] as const;

/** postgres-js has other names for some of them. */
const ALIASES: Readonly<Record<string, (typeof SAFE_FIELDS)[number]>> = {
  schema_name: 'schema',
  table_name: 'table',
  column_name: 'column',
  constraint_name: 'constraint',
};

/** @internal A statement ran in a transaction of the app, which may still roll it back. */
export class InAppTransaction extends Error {
  readonly code = IN_TRANSACTION;
}

/** The base of all errors of this package except {@link InvalidArgumentError}, which is a `TypeError`. */
export abstract class SessionStoreError extends Error {
  abstract readonly code: string;
  declare readonly cause?: SafeCause;

  constructor(message: string, cause?: unknown) {
    super(message);
    this.name = new.target.name;
    if (cause !== undefined) {
      Object.defineProperty(this, 'cause', { value: safeCause(cause), configurable: true });
    }
  }
}

/**
 * An invalid argument or option. `new DrizzleStore()` throws it; a method rejects with it if it gets an invalid argument,
 * or if an option that is a function (`ttl`) returns an invalid value.
 */
export class InvalidArgumentError extends TypeError {
  readonly code = 'ERR_INVALID_ARGUMENT';
  override readonly name = 'InvalidArgumentError';
}

/** Creates the error for a value that is not one of the `accepted` ones. */
export function invalidValue(
  name: string,
  accepted: string,
  value: unknown,
  hint = '',
): InvalidArgumentError {
  return new InvalidArgumentError(`${name} must be ${accepted}, but got ${describe(value)}${hint}`);
}

/** The store was closed before the call. */
export class StoreClosedError extends SessionStoreError {
  readonly code = 'ERR_STORE_CLOSED';
  constructor() {
    super('The session store is closed');
  }
}

/** The call took longer than `timeout` seconds. */
export class StoreTimeoutError extends SessionStoreError {
  readonly code = 'ERR_STORE_TIMEOUT';
  constructor(
    seconds: number,
    /** Whether a statement was sent. If so, a write may have taken effect; if not, the call has no effect. */
    readonly sent: boolean,
  ) {
    super(
      sent
        ? `The database did not answer within ${seconds} s. A write may have taken effect`
        : `The call could not be sent within ${seconds} s: it waited for a connection, or for earlier calls for its session. It has no effect`,
    );
  }
}

/** The session table does not exist. */
export class TableMissingError extends SessionStoreError {
  readonly code = 'ERR_TABLE_MISSING';
  constructor(table: string, cause?: unknown) {
    super(
      `The session table ${table} does not exist. Create it with drizzle-kit (\`drizzle-kit migrate\`) or, ` +
        'unless you pass your own `table`, with `await store.migrate()` or `createTableIfMissing: true`. ' +
        'drizzle-kit creates no table if two modules that your schema re-exports with `export *` both export ' +
        "`sessions`: write `export { sessions } from 'connect-drizzle/schema'`",
      cause,
    );
  }
}

/**
 * Why the store cannot use a table: it belongs to another package, it is an older or incomplete version of the session
 * table, or something else is wrong (a column type, a missing permission, a view …).
 */
export type MismatchReason = 'foreign' | 'outdated' | 'unusable';

/** A table of that name exists, but the store cannot use it. The message says why, and what to do. */
export class TableMismatchError extends SessionStoreError {
  readonly code = 'ERR_TABLE_MISMATCH';
  constructor(
    message: string,
    readonly reason: MismatchReason,
    /** The package that owns the table, such as `'connect-pg-simple'`, if recognised. */
    readonly owner: string | undefined,
    cause?: unknown,
  ) {
    super(message, cause);
  }
}

/**
 * The session cannot be serialized: it contains a BigInt or a cycle, it is nested too deeply, a `toJSON` or the app's
 * serializer throws, or it is not an object. The `cause` is the unchanged error of the serializer.
 */
export class NotSerializableError extends SessionStoreError {
  readonly code = 'ERR_NOT_SERIALIZABLE';

  constructor(reason: string, serializerError?: unknown) {
    super(`The session cannot be serialized: ${reason}`);
    if (serializerError !== undefined) {
      Object.defineProperty(this, 'cause', { value: serializerError, configurable: true });
    }
  }

  /** For `console` and `util.inspect`: omits the cause, because its message may contain the session. */
  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `${this.stack} {\n  code: '${this.code}'\n}`;
  }
}

/** `set` got a sid that is empty, or neither a string nor a number. The other methods treat such a sid as unknown. */
export class InvalidSidError extends SessionStoreError {
  readonly code = 'ERR_INVALID_SID';
  constructor(sid: unknown) {
    super(`A session id must be a non-empty string, but got ${describe(sid)}`);
  }
}

/** `userId` returned a value that is not a user id, or one that is too long for an index. */
export class InvalidUserIdError extends SessionStoreError {
  readonly code = 'ERR_INVALID_USER_ID';
}

/** Another writer changed the session before each try of a `set`, `touch` or `update`. */
export class ConflictError extends SessionStoreError {
  readonly code = 'ERR_CONFLICT';
  constructor(tries: number) {
    super(`Other writers changed the session before each of ${tries} tries`);
  }
}

/** `migrate()` cannot or must not create the table. */
export class MigrationError extends SessionStoreError {
  readonly code = 'ERR_MIGRATION';
}

/** Another process, worker thread or store has the folder of an embedded database open. */
export class FolderInUseError extends SessionStoreError {
  readonly code = 'ERR_FOLDER_IN_USE';
  constructor(
    folder: string,
    /** The process that uses the folder. */
    readonly pid: number,
  ) {
    super(
      `The folder ${folder} is in use by process ${pid}; an embedded database can be open only once at a time`,
    );
  }
}

const FOLDER_REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  EEXIST: 'a file is in the way',
  ENOTDIR: 'a file is in the way',
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  ENAMETOOLONG: 'the path is too long',
};

/** The folder of an embedded database cannot be created or written to. */
export class FolderError extends SessionStoreError {
  readonly code = 'ERR_FOLDER';
  constructor(folder: string, code: string) {
    const reason = FOLDER_REASONS[code];
    super(
      `The folder ${folder} cannot be used: ${reason === undefined ? code : `${reason} (${code})`}`,
    );
  }
}

/** The package of the source's driver is not installed. */
export class DriverMissingError extends SessionStoreError {
  readonly code = 'ERR_DRIVER_MISSING';
  constructor(driver: string) {
    super(
      `This source needs the package ${driver}, which is not installed: npm install ${driver} ` +
        '(a bundled app needs it in node_modules as well)',
    );
  }
}

/**
 * The connection to the database was refused or lost. A write may have taken effect. `cause.code` is the SQLSTATE, or
 * Node's code, such as `ECONNREFUSED`.
 */
export class ConnectionError extends SessionStoreError {
  readonly code = 'ERR_CONNECTION';
  constructor(cause?: unknown, server?: string) {
    const state = sqlState(cause);
    const at = server === undefined ? '' : ` at ${server}`;
    const reason = state === undefined ? uncodedReasonOf(cause) : reasonOf(state);
    super(`The connection to the database${at} failed${explained(reason, state)}`, cause);
  }
}

/** The database refused a statement; `cause.code` is the SQLSTATE. */
export class StatementError extends SessionStoreError {
  readonly code = 'ERR_STATEMENT';
  constructor(cause: unknown, table?: string) {
    const state = sqlState(cause) ?? 'unknown';
    const reason = state === NO_PERMISSION ? permissionReason(cause, table) : reasonOf(state);
    super(`The database refused the statement${explained(reason, `SQLSTATE ${state}`)}`, cause);
  }
}

/** Names the object that the user may not use. Never repeats the message of an app's trigger, which may raise the same code. */
function permissionReason(cause: unknown, table = 'the session table'): string {
  const error = driverErrors(cause).find(({ routine }) => routine === 'aclcheck_error');
  const [, named] = /^permission denied for (.+)$/.exec(String(error?.message)) ?? [];
  return named === undefined
    ? `the database user lacks a permission on ${table}, or on an object that its triggers or policies use`
    : `the database user lacks a permission on ${named}`;
}

/** Returns the SQLSTATE of a driver's error (five characters), or Node's `code` of a connection error (`ECONNREFUSED`). */
export function sqlState(error: unknown): string | undefined {
  return driverErrors(error)
    .map(({ code }) => code)
    .find((code): code is string => typeof code === 'string' && code !== '');
}

/** Returns an error and its causes, because Drizzle wraps errors. Skips errors of this package: their `code` is no SQLSTATE. */
function driverErrors(error: unknown): Record<string, unknown>[] {
  const errors: Record<string, unknown>[] = [];
  for (let at = error, depth = 0; isRecord(at) && depth < 5; at = at.cause, depth += 1) {
    if (!(at instanceof SessionStoreError)) errors.push(at);
  }
  return errors;
}

/**
 * Converts a driver's error into one of this package. Returns a bug (a `TypeError` and the like) as it is.
 *
 * @param table the session table's name in the message
 * @param server the host and port in the message
 */
export function storeError(error: unknown, table: string, server?: string): Error {
  if (error instanceof SessionStoreError || error instanceof InvalidArgumentError) return error;
  const fault = programFault(error);
  if (fault !== undefined) return fault;
  const state = sqlState(error);
  if (state === '42P01' || state === '3F000') return new TableMissingError(table, error);
  if (state === undefined || isConnectionFailure(state)) return new ConnectionError(error, server);
  return new StatementError(error, table);
}

/** Returns the `TypeError`, `ReferenceError` or `RangeError` that an error wraps: a bug, not a database error. */
function programFault(error: unknown): Error | undefined {
  return driverErrors(error).find(
    (at): at is Record<string, unknown> & Error =>
      (at instanceof TypeError || at instanceof ReferenceError || at instanceof RangeError) &&
      property(at, 'code') === undefined,
  );
}

/**
 * Returns an error that is safe to log. Converts a driver's error, omits a serializer's, and returns any other as it is.
 */
export function safeError(error: unknown): unknown {
  if (error instanceof NotSerializableError) {
    const { message, stack } = error;
    return Object.assign(new NotSerializableError(''), { message, stack });
  }
  return sqlState(error) === undefined ? error : storeError(error, '');
}

/**
 * Whether a connection has failed, or its server is shutting down or read-only. The next connection may be to the new
 * primary.
 */
export function isUnusable(error: unknown): boolean {
  const state = sqlState(error);
  return (
    state === undefined || !isSqlState(state) || state === READ_ONLY || /^(08|57P)/.test(state)
  );
}

function safeCause(error: unknown): SafeCause {
  const safe: { -readonly [K in keyof SafeCause]: SafeCause[K] } = {};
  for (const [key, value] of driverErrors(error).flatMap(Object.entries)) {
    const field = ALIASES[key] ?? SAFE_FIELDS.find((name) => name === key);
    if (field !== undefined && typeof value === 'string') safe[field] ??= value;
  }
  return safe;
}
