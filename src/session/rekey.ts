/**
 * Encrypts the sessions of a table, or moves them to the newest key, while apps use the table.
 *
 * It changes only the stored form of a row, and only if the row is still the one that was read. If a row was changed or
 * locked in between, it reads the row again. It skips rows that are done, so a run that was stopped can be repeated.
 *
 * @module
 */
import { pause } from '../batching/call-queue.js';
import { ConflictError } from '../errors.js';
import type { ResealedRow } from '../queries/rekeying.js';
import type { StoredRow } from '../queries/wire.js';
import { type Codec, Unreadable } from './codec.js';
import { isId } from './id.js';

/** The result of `rekey()`. */
export interface RekeyResult {
  /** Number of sessions that were encrypted with the first key. */
  readonly rekeyed: number;
  /** Number of sessions that cannot be read. They do not change. */
  readonly unreadable: number;
}

/** @internal The parts that read and encrypt sessions. */
export interface Rekeying {
  readonly codec: Codec;
  readonly onUnreadable: (id: string, error: Unreadable) => void;
}

/** @internal */
export interface RekeySettings extends Rekeying {
  /** A page of rows, ordered by id, with a stored form that does not begin with `prefix`. */
  readonly list: (prefix: string, after: string, limit: number) => Promise<readonly StoredRow[]>;
  /** Replaces stored forms; returns the ids of the rows that had not changed. */
  readonly reseal: (rows: readonly ResealedRow[]) => Promise<ReadonlySet<string>>;
  /** Called after each page with its number of finished rows. */
  readonly onProgress?: (count: number) => void;
  readonly signal: AbortSignal;
}

/** With sessions of 20 KB, a statement takes much less than a second. */
const PAGE_ROWS = 256;

/** A limit, because processes that still write with an older key could keep it running forever. */
const MAX_PASSES = 3;

/** Maximum number of consecutive passes without progress, because other transactions have locked the rows. */
const MAX_BLOCKED_PASSES = 100;

/**
 * @internal
 * Repeats passes over the table until one finds nothing to do, because a row may be inserted before the current position.
 *
 * @throws {ConflictError} if other transactions lock the last rows for too long
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
      // Stores neither write nor read rows with another kind of id.
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
