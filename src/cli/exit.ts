/**
 * Exit codes, and the conversion of errors to one line and an exit code.
 *
 * @module
 */
import {
  ConnectionError,
  InvalidArgumentError,
  type MismatchReason,
  SessionStoreError,
  TableMismatchError,
  TableMissingError,
} from '../errors.js';

export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  /** The table is missing or outdated. */
  table: 3,
  /** The table belongs to another package. */
  foreign: 4,
  noConnection: 5,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** An error that ends the command with its own exit code. */
export class CliError extends Error {
  constructor(
    readonly exitCode: ExitCode,
    message: string,
  ) {
    super(message);
  }
}

/** Creates the error for invalid arguments. */
export function usageError(message: string): CliError {
  return new CliError(EXIT.usage, message);
}

const BY_REASON: Readonly<Record<MismatchReason, ExitCode>> = {
  outdated: EXIT.table,
  foreign: EXIT.foreign,
  unusable: EXIT.failed,
};

export function exitCodeFor(reason: MismatchReason): ExitCode {
  return BY_REASON[reason];
}

/** Returns the exit code and the message for an error, without a stack and without content of a session. */
export function failureOf(error: unknown): { exitCode: ExitCode; message: string } {
  const message = error instanceof Error ? error.message : String(error);
  return { exitCode: exitCodeOf(error), message };
}

function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof CliError) return error.exitCode;
  if (error instanceof ConnectionError) return EXIT.noConnection;
  if (error instanceof TableMissingError) return EXIT.table;
  if (error instanceof TableMismatchError) return exitCodeFor(error.reason);
  if (error instanceof InvalidArgumentError) return EXIT.usage;
  return EXIT.failed;
}

/** Whether a user can act on an error's message. Any other error is a bug. */
export function isExpected(error: unknown): boolean {
  return (
    error instanceof CliError ||
    error instanceof SessionStoreError ||
    error instanceof InvalidArgumentError
  );
}
