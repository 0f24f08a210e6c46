/**
 * The meaning of SQLSTATEs and of connection errors of Node and node-postgres, in plain words and for the store.
 *
 * @module
 */
import { property } from './guards.js';

/** Whether an error concerns the whole connection: network, log-in, too many connections, shutdown, internal errors. */
export function isConnectionFailure(state: string): boolean {
  return !isSqlState(state) || /^(08|28|3D|53300|57P|58|XX)/.test(state);
}

/** Whether an error concerns the whole server, not the rows of a statement. This includes a full disk and a time limit. */
export function concernsServer(state: string): boolean {
  return isConnectionFailure(state) || isPreparedMismatch(state) || /^(25|53|57)/.test(state);
}

export const NO_PERMISSION = '42501';

/** A statement was cancelled, by an app's own time limit for example. */
export const QUERY_CANCELED = '57014';

/**
 * Whether the server may have run a statement that failed with this code, or may still run it: the connection was lost, or
 * a client's own time limit passed, which is reported like a cancel. With any other code, the server has refused it.
 */
export function isInDoubt(state: string | undefined): boolean {
  return state === undefined || state === QUERY_CANCELED || isConnectionFailure(state);
}

/** A `lock_timeout` has passed. */
export const LOCK_NOT_AVAILABLE = '55P03';

/** Deadlock detected, could not serialize, lock not available: the same statement may succeed when sent again. */
const TRANSIENT: ReadonlySet<string> = new Set(['40P01', '40001', LOCK_NOT_AVAILABLE]);

/** Whether a statement failed only because of another transaction, and may succeed when sent again. */
export function isTransient(state: string | undefined): boolean {
  return state !== undefined && TRANSIENT.has(state);
}

/** A statement with this name is already prepared on the server. */
export const PREPARED_TWICE = '42P05';

/** Whether a client and its server disagree on which statements are prepared. */
export function isPreparedMismatch(state: string | undefined): boolean {
  return state === '26000' || state === PREPARED_TWICE;
}

/** Ran in a transaction of the app. */
export const IN_TRANSACTION = '25001';

/** The server is read-only: the primary has moved. */
export const READ_ONLY = '25006';

/** Why a connection or a statement failed, by SQLSTATE or its first two characters, or by Node's code. */
const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing accepts connections there',
  ECONNRESET: 'it was closed by the other side',
  EPIPE: 'it was closed by the other side',
  CONNECTION_CLOSED: 'it was closed by the other side',
  ETIMEDOUT: 'the server did not answer',
  EHOSTUNREACH: 'the network does not reach the host',
  ENETUNREACH: 'the network does not reach the host',
  ENOTFOUND: 'the host name is unknown',
  EAI_AGAIN: 'the host name could not be looked up',
  25001: 'the connection is in a transaction of the app, which may undo the statement',
  25006: 'the server is read-only, such as a standby or a primary that has been replaced',
  '25P02': 'the connection is in a failed transaction of the app',
  26000:
    'a prepared statement is missing. With a pooler in between, pass preparedStatements: false',
  28: 'the user or the password was refused',
  '3D000': 'the database does not exist',
  '42P05':
    'a prepared statement already exists. With a pooler in between, pass preparedStatements: false',
  53100: 'the disk of the server is full',
  53200: 'the server is out of memory',
  53300: 'the server has too many connections. Use smaller pools or raise max_connections',
  [LOCK_NOT_AVAILABLE]: 'it waited for a lock for longer than its lock_timeout',
  57014:
    'it was cancelled, by a statement_timeout or query_timeout set outside the store, or by an administrator',
  '57P01': 'the server is shutting down, or an administrator closed the connection',
  '57P02': 'the server has crashed and is restarting',
  '57P03': 'the server is starting up, shutting down or in recovery',
};

export function reasonOf(state: string | undefined): string | undefined {
  return state === undefined ? undefined : (REASONS[state] ?? REASONS[state.slice(0, 2)]);
}

const SCRAM = 'SASL: SCRAM-SERVER-FIRST-MESSAGE: ';
const NO_PASSWORD = 'the server requires a password, but there is none';

/** Why a connection failed, by the message of an error that node-postgres creates itself, without a code. */
const UNCODED_REASONS: ReadonlyMap<unknown, string> = new Map([
  [
    'timeout exceeded when trying to connect',
    'the pool had no free connection within its connectionTimeoutMillis',
  ],
  [
    'Connection terminated due to connection timeout',
    'the server did not answer within connectionTimeoutMillis',
  ],
  ['timeout expired', 'the server did not answer within connectionTimeoutMillis'],
  ['Connection terminated unexpectedly', 'it was closed by the other side'],
  ['Cannot use a pool after calling end on the pool', 'the app has ended its pool'],
  ['The server does not support SSL connections', 'the server does not support TLS'],
  [`${SCRAM}client password must be a string`, NO_PASSWORD],
  [`${SCRAM}client password must be a non-empty string`, NO_PASSWORD],
]);

/** Returns the reason of an error without a code. */
export function uncodedReasonOf(error: unknown): string | undefined {
  return UNCODED_REASONS.get(property(error, 'message'));
}

/** Returns the end of a message: the reason and the code, if known. */
export function explained(reason: string | undefined, code: string | undefined): string {
  return (reason === undefined ? '' : `: ${reason}`) + (code === undefined ? '' : ` (${code})`);
}

/** Whether a code is an SQLSTATE (`23505`, `P0001`, `XX000`) and not one of Node's that looks like it (`EPIPE`). */
export function isSqlState(code: string): boolean {
  return /^([0-9]|F0|HV|P0|XX)[0-9A-Z]+$/.test(code) && code.length === 5;
}
