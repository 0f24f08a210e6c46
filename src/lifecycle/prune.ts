/**
 * Pruning: one loop that waits, deletes what has expired in batches that no reader waits for, and
 * goes on until none is left. It stops at once, in the middle of a run too, when its signal is aborted.
 *
 * @module
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';

/** Rows in one statement: its longest takes about a tenth of a second. */
const BATCH_ROWS = 5000;

export interface PruneSettings {
  /** The mean pause between two runs, in seconds. */
  readonly interval: number;
  readonly signal: AbortSignal;
  /** Deletes all that has expired. */
  readonly run: () => Promise<unknown>;
  readonly onError: (error: unknown) => void;
}

/** Node makes a longer delay one of a millisecond. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

/** Prunes at intervals, jittered from half to one and a half so that many processes do not prune at once. */
export async function pruneAtIntervals({
  interval,
  signal,
  run,
  onError,
}: PruneSettings): Promise<void> {
  for (;;) {
    try {
      const delay = Math.min(interval * 1000 * (0.5 + Math.random()), LONGEST_DELAY_MS);
      await sleep(delay, undefined, { signal, ref: false });
    } catch {
      return;
    }
    try {
      await run();
    } catch (error) {
      if (signal.aborted) return;
      onError(error);
    }
  }
}

/** Deletes all that has expired, batch by batch, and gives the number of rows deleted. */
export async function pruneAll(
  deleteBatch: (limit: number) => Promise<number>,
  signal: AbortSignal,
): Promise<number> {
  let total = 0;
  for (;;) {
    signal.throwIfAborted();
    const deleted = await deleteBatch(BATCH_ROWS);
    total += deleted;
    if (deleted === 0) return total;
    await nextTurn();
  }
}
