/**
 * Encrypts the sessions of a table, or moves them to the newest key, while apps use the table.
 *
 * Nothing but the stored form of a row changes, and only if the row is still the one that was read. A row that was
 * changed or locked meanwhile is read again. A row that is done is skipped, so a run that was stopped can be repeated.
 *
 * @module
 */
import { pause } from '../batching/call-queue.js';
import { ConflictError } from '../errors.js';
import type { ResealedRow } from '../queries/rekeying.js';
import type { StoredRow } from '../queries/wire.js';
import { type Codec, Unreadable } from './codec.js';
import { isId } from './id.js';

/** What `rekey()` did. */
export interface RekeyResult {
  /** Sessions that are now under the first key. */
  readonly rekeyed: number;
  /** Sessions that cannot be read. They stay as they are. */
  readonly unreadable: number;
}

/** @internal How sessions are read and encrypted. */
export interface Rekeying {
  readonly codec: Codec;
  readonly onUnreadable: (id: string, error: Unreadable) => void;
}

/** @internal */
export interface RekeySettings extends Rekeying {
  /** A page of rows, ordered by id, whose stored form does not begin with `prefix`. */
  readonly list: (prefix: string, after: string, limit: number) => Promise<readonly StoredRow[]>;
  /** Replaces stored forms; returns the ids of the rows that had not changed. */
  readonly reseal: (rows: readonly ResealedRow[]) => Promise<ReadonlySet<string>>;
  /** Called after each page, with the number of rows in it that were done. */
  readonly onProgress?: (count: number) => void;
  readonly signal: AbortSignal;
}

/** Small enough for a statement of sessions of 20 KB to stay far below a second. */
const PAGE_ROWS = 256;

/** Processes that still write under an older key could otherwise keep it running for as long as they do. */
const MAX_PASSES = 3;

/** Passes in a row that could do nothing, because other transactions hold the rows. */
const MAX_BLOCKED_PASSES = 100;

/**
 * @internal
 * Passes over the table until one finds nothing to do: a row can be inserted behind the place that a pass has reached.
 *
 * @throws {ConflictError} if other transactions hold the last rows for too long
 * @throws the signal's reason as soon as it is aborted
 */
export async function rekeyAll(settings: RekeySettings): Promise<RekeyResult> {
  let rekeyed = 0;
  for (let pass = 1, blocked = 0; ; pass += 1) {
    const { done, missed, unreadable } = await rekeyOnce(settings, pass === 1);
    rekeyed += done;
    if (missed === 0 && (done === 0 || pass >= MAX_PASSES)) return { rekeyed, unreadable };
    if (missed === 0) continue;
    blocked = done === 0 ? blocked + 1 : 0;
    if (blocked === MAX_BLOCKED_PASSES) throw new ConflictError(blocked);
    await pause(blocked);
  }
}

async function rekeyOnce(
  { codec, list, reseal, onUnreadable, onProgress, signal }: RekeySettings,
  reports: boolean,
) {
  const counts = { done: 0, missed: 0, unreadable: 0 };
  for (let after = ''; ; ) {
    signal.throwIfAborted();
    const page = await list(codec.currentPrefix, after, PAGE_ROWS);
    const rows: ResealedRow[] = [];
    for (const row of page) {
      // No store has written, and none reads, a row with another kind of id.
      if (codec.isCurrent(row.data) || !isId(row.id)) continue;
      try {
        rows.push({ ...row, data: codec.reseal(row.id, row.data) });
      } catch (error) {
        if (!(error instanceof Unreadable)) throw error;
        counts.unreadable += 1;
        if (reports) onUnreadable(row.id, error);
      }
    }
    const done = rows.length === 0 ? 0 : (await reseal(rows)).size;
    counts.done += done;
    counts.missed += rows.length - done;
    onProgress?.(done);
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE_ROWS) return counts;
    after = last.id;
  }
}
