/**
 * Checks the session table before the first call, before each call after a failed check, and after a statement failed with
 * an error that a changed table could cause. Other calls need no check.
 *
 * @module
 */
import type { Connection } from '../drivers/driver.js';
import { StatementError, sqlState, TableMismatchError, TableMissingError } from '../errors.js';
import {
  checkTable,
  type ExpectedTable,
  type Located,
  type Mismatch,
} from '../queries/table-check.js';

const NOT_SUPPORTED = '0A000';

/**
 * After "undefined column", "undefined table" or "no unique index for ON CONFLICT", the table may have been replaced. After
 * "not supported", an extension such as Citus may have distributed it.
 */
const TABLE_CHANGED: ReadonlySet<string> = new Set(['42703', '42P01', '42P10', NOT_SUPPORTED]);

/** Acquires a connection and runs work on it, within the time limit of a call. */
export type OnConnection = <T>(work: (on: Connection) => Promise<T>) => Promise<T>;

export class TableGuard {
  /** Whether statements may be sent without a check. */
  isUsable = false;
  /** Only until the first check: a table that is dropped while the store is open is not created again. */
  #mayCreate = true;
  readonly #expected: ExpectedTable;
  readonly #errorOf: (error: unknown) => Error;

  /** `errorOf`: converts a driver's error. */
  constructor(expected: ExpectedTable, errorOf: (error: unknown) => Error) {
    this.#expected = expected;
    this.#errorOf = errorOf;
  }

  /**
   * Checks the table and returns its schema. If the table is missing, calls `create`. Without `create` it throws nothing,
   * because the statement that needs the table fails by itself.
   *
   * @throws {TableMismatchError}
   */
  async ensure(run: OnConnection, create: (() => Promise<void>) | undefined): Promise<Located> {
    const located = await this.#locate(run);
    if (located.state === 'missing') {
      if (create === undefined || !this.#mayCreate) return located;
      await create();
      const created = await this.#locate(run);
      this.#isKnown();
      return created;
    }
    this.#isKnown();
    return located;
  }

  /** Returns the error to report for a failed statement. If the table is the cause, the error says what is wrong with it. */
  async explain(error: unknown, run: OnConnection): Promise<Error> {
    const { label } = this.#expected;
    const reported = this.#errorOf(error);
    if (!TABLE_CHANGED.has(sqlState(error) ?? '')) return reported;
    const verdict = await this.#check(run).catch(() => undefined);
    switch (verdict?.state) {
      case undefined:
        return reported;
      case 'usable':
        // The next call checks the table again, and finds the engine that has it now.
        if (sqlState(error) === NOT_SUPPORTED) this.isUsable = false;
        // Something else is missing, such as a table that a trigger of the app uses.
        return new StatementError(error, label);
      case 'missing':
        return reported instanceof TableMissingError
          ? reported
          : new TableMissingError(label, error);
      case 'mismatch':
        this.isUsable = false;
        return mismatchError(verdict, error);
    }
  }

  #isKnown(): void {
    this.isUsable = true;
    this.#mayCreate = false;
  }

  async #locate(run: OnConnection): Promise<Located> {
    const verdict = await this.#check(run).catch((error) => {
      throw this.#errorOf(error);
    });
    if (verdict.state === 'mismatch') throw mismatchError(verdict);
    return verdict;
  }

  #check(run: OnConnection) {
    return run((on) => checkTable(on, this.#expected));
  }
}

function mismatchError({ message, reason, owner }: Mismatch, cause?: unknown) {
  return new TableMismatchError(message, reason, owner, cause);
}
