/**
 * Pruning: a loop that waits, and then deletes expired rows in batches until none are left. Readers do not wait for it.
 * When its signal is aborted, it stops after the current batch.
 *
 * @module
 */
import { pause, setImmediate } from '../util/clock.js';

/** Rows per statement. Such a statement takes about a tenth of a second at most. */
const BATCH_ROWS = 5000;

export interface PruneSettings {
  /** The mean pause between two runs, in seconds. */
  readonly interval: number;
  readonly signal: AbortSignal;
  /** Deletes all rows that have expired. */
  readonly run: () => Promise<unknown>;
  readonly onError: (error: unknown) => void;
}

/** Prunes at random intervals (plus or minus 50 %), so that many processes do not prune at the same time. */
export async function pruneAtIntervals({
  interval,
  signal,
  run,
  onError,
}: PruneSettings): Promise<void> {
  for (;;) {
    await pause(interval * 1000 * (0.5 + Math.random()), signal);
    if (signal.aborted) return;
    try {
      await run();
    } catch (error) {
      if (signal.aborted) return;
      onError(error);
    }
  }
}

/** Deletes all rows that have expired and returns their number. */
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
    await new Promise((resolve) => setImmediate(resolve));
  }
}
