/**
 * The page's statements. They wait for the lane for slow work.
 *
 * @module
 */
import type { Batcher } from '../batching/batcher.js';
import type { Deadline } from '../batching/deadlines.js';
import type { StoreAccess } from '../lifecycle/access.js';
import { expiryStatement } from '../queries/expiries.js';
import { operationStatements, type SessionFacts } from '../queries/operations.js';

/** The position of a session in the listing. */
export interface Place {
  readonly createdUs: string;
  readonly id: string;
}

function callsOf({ table }: StoreAccess, batcher: Batcher) {
  const operations = operationStatements(table);
  const expiries = expiryStatement(table);
  return {
    newest: batcher.alone(
      'admin_newest',
      'other',
      (on, _, user: string | undefined, before: Place | undefined, limit: number) =>
        operations.newest(on, user, before, limit),
    ),
    one: batcher.alone('admin_one', 'other', (on, _, id: string) => operations.one(on, id)),
    ofUser: batcher.alone(
      'admin_user',
      'other',
      (on, _, user: string, after: string, max: number) => operations.ofUser(on, user, after, max),
    ),
    sizes: batcher.alone('admin_sizes', 'other', (on) => operations.sizes(on)),
    totals: batcher.alone('admin_totals', 'other', (on, _, percent: number) =>
      operations.totals(on, percent),
    ),
    indexed: batcher.alone('admin_indexed', 'other', (on) => operations.indexedColumns(on)),
    expiries: batcher.alone('admin_expiries', 'other', (on, _, percent: number) =>
      expiries(on, percent),
    ),
  };
}

type Calls = ReturnType<typeof callsOf>;
export type UserRow = SessionFacts & { readonly data: string };

/** Runs the page's statements on a store. */
export class Statements {
  readonly #access: StoreAccess;
  /** If a store has opened another table, it has another batcher. */
  readonly #calls = new WeakMap<Batcher, Calls>();

  constructor(access: StoreAccess) {
    this.#access = access;
  }

  run<T>(work: (calls: Calls, deadline: Deadline) => Promise<T>): Promise<T> {
    return this.#access.perform(({ batcher }, deadline) => {
      let calls = this.#calls.get(batcher);
      if (calls === undefined) {
        calls = callsOf(this.#access, batcher);
        this.#calls.set(batcher, calls);
      }
      return work(calls, deadline);
    });
  }
}
