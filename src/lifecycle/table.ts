/**
 * Knows whether the session table can be used. The table is checked before the first call, before each call after a
 * failed check, and after a statement failed in a way that a changed table explains. A healthy store pays nothing.
 *
 * @module
 */
import { type SQL, sql } from 'drizzle-orm';
import type { Patience } from '../batching/deadlines.js';
import {
  StatementError,
  sqlState,
  storeError,
  TableMismatchError,
  TableMissingError,
} from '../errors.js';
import type { Database } from '../queries/fragments.js';
import { checkTable, type ExpectedTable, type Verdict } from '../queries/table-check.js';
import type { Run } from '../queries/table-facts.js';

/** Undefined column, undefined table, no unique index for ON CONFLICT: the table may have been replaced. */
const TABLE_CHANGED: ReadonlySet<string> = new Set(['42703', '42P01', '42P10']);

type Queryable = Pick<Database, 'execute'>;

export class TableGuard {
  /** Whether statements may be sent without a check. */
  isUsable = false;
  /** A table that is dropped while the store is open is not created again. */
  #mayCreate = true;
  readonly #expected: ExpectedTable;
  readonly #patience: Patience;

  constructor(expected: ExpectedTable, patience: Patience) {
    this.#expected = expected;
    this.#patience = patience;
  }

  /**
   * Checks the table unless it is known to be usable. A missing table is created with `create`; without it, nothing
   * is thrown, since the statement that needs the table fails by itself.
   *
   * @throws {TableMismatchError}
   */
  async ensure(db: Queryable, create: (() => Promise<void>) | undefined): Promise<void> {
    if (this.isUsable) return;
    const verdict = await this.#check(db).catch((error) => {
      throw storeError(error, this.#expected.label);
    });
    if (verdict.state === 'mismatch') throw mismatchError(verdict);
    if (verdict.state === 'missing') {
      if (create === undefined || !this.#mayCreate) return;
      await create();
    }
    this.isUsable = true;
    this.#mayCreate = false;
  }

  /** Returns the error to report for a failed statement: what is wrong with the table, if that is the cause. */
  async explain(error: unknown, db: Queryable): Promise<Error> {
    const { label } = this.#expected;
    const reported = storeError(error, label);
    if (!TABLE_CHANGED.has(sqlState(error) ?? '')) return reported;
    const verdict = await this.#check(db).catch(() => undefined);
    switch (verdict?.state) {
      case undefined:
        return reported;
      case 'usable':
        // Something else is missing, such as a table that a trigger of the app uses.
        return new StatementError(error);
      case 'missing':
        return new TableMissingError(label, error);
      case 'mismatch':
        this.isUsable = false;
        return mismatchError(verdict, error);
    }
  }

  #check(db: Queryable): Promise<Verdict> {
    return this.#patience.waitFor(checkTable(runOn(db), this.#expected));
  }
}

/** Runs a query with `$1`, `$2` … on a Drizzle database. */
export function runOn(db: Queryable): Run {
  return async (text, values) => {
    const parts = text.split(/\$(\d+)/);
    const chunks = parts.map(
      (part, at): SQL => (at % 2 === 0 ? sql.raw(part) : sql`${values[Number(part) - 1]}`),
    );
    return rowsOf(await db.execute(sql.join(chunks)));
  };
}

/** The rows of a driver's result, which is an array or has `rows`. */
export function rowsOf(result: unknown): readonly unknown[] {
  if (Array.isArray(result)) return result;
  const rows =
    typeof result === 'object' && result !== null && 'rows' in result ? result.rows : undefined;
  return Array.isArray(rows) ? rows : [];
}

function mismatchError(verdict: Verdict & { state: 'mismatch' }, cause?: unknown) {
  return new TableMismatchError(verdict.message, verdict.reason, verdict.owner, cause);
}
