/**
 * Ends sessions: one, all of a user, those beyond `maxSessionsPerUser`, or all.
 *
 * @module
 */
import type { Batcher, TableCalls } from '../batching/batcher.js';
import type { Deadline } from '../batching/deadlines.js';
import type { Rows } from '../batching/rows.js';
import type { Ended } from '../queries/contract.js';
import type { SaveResult } from './save.js';

/** The parts of an open store that are needed to end sessions. */
export interface Opened {
  readonly rows: Rows;
  readonly batcher: Batcher;
  readonly statements: TableCalls;
}

export type Announce = (event: 'change' | 'destroy', id: string) => void;

export class Revoker {
  readonly #maxPerUser: number | undefined;
  readonly #announce: Announce;

  constructor(maxPerUser: number | undefined, announce: Announce) {
    this.#maxPerUser = maxPerUser;
    this.#announce = announce;
  }

  /** Ends the session with this id. Returns the number of live sessions ended, 0 or 1. */
  async end(id: string, { rows }: Opened, deadline: Deadline): Promise<number> {
    const outcome = await rows.write(id, deadline, (writes) => writes.end(id));
    if (outcome === 'gone') return 0;
    this.#announce('destroy', id);
    return 1;
  }

  /** Ends a user's sessions except the one with the id `except`. Returns the number of live sessions ended. */
  endUser(
    userId: string,
    except: string | undefined,
    opened: Opened,
    deadline: Deadline,
  ): Promise<number> {
    const { statements } = opened;
    return this.#endAll(() => statements.endUser(deadline, userId, except ?? ''), opened, deadline);
  }

  /** Deletes all rows, tombstones included. */
  async clear(opened: Opened, deadline: Deadline): Promise<void> {
    await this.#endAll(() => opened.statements.clear(deadline), opened, deadline);
  }

  /** Runs {@link limit} after a save if there is a limit. */
  afterSave(
    id: string,
    saving: Promise<SaveResult>,
    opened: Opened,
    deadline: Deadline,
  ): Promise<SaveResult | undefined> {
    return this.#maxPerUser === undefined
      ? saving
      : saving.then((result) => this.limit(id, result, opened, deadline));
  }

  /**
   * Emits `change` for a committed save. If the session gained a user, ends the user's least recently used sessions beyond
   * `maxSessionsPerUser`, but never this one.
   */
  async limit(
    id: string,
    { changed, gainedUser }: SaveResult,
    opened: Opened,
    deadline: Deadline,
  ): Promise<undefined> {
    if (changed) this.#announce('change', id);
    const most = this.#maxPerUser;
    if (gainedUser === null || most === undefined) return;
    const { endBeyond } = opened.statements;
    const end = () => endBeyond(deadline, gainedUser, id, most, Date.now());
    await this.#endAll(end, opened, deadline);
  }

  /** Repeats a statement that ends several sessions, until none are left. Returns how many it ended. */
  async #endAll(
    statement: () => Promise<Ended>,
    { rows, batcher }: Opened,
    deadline: Deadline,
  ): Promise<number> {
    let count = 0;
    for (;;) {
      const { ended, busy } = await batcher.untilFree(
        deadline,
        statement,
        (result) => result.ended.length > 0 || !result.busy,
      );
      rows.forget(ended);
      for (const id of ended) this.#announce('destroy', id);
      count += ended.length;
      if (!busy) return count;
    }
  }
}
