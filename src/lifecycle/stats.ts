/**
 * The counts of a store: `stats()`.
 *
 * @module
 */
import type { Sessions } from '../session/sessions.js';
import type { Runtime } from './runtime.js';

/** Counts since the store was created. */
export interface StoreStats {
  /** Reads answered by the cache. */
  readonly hits: number;
  /** Reads that were not in the cache, and those that bypass it (`update()`). */
  readonly misses: number;
  /** Batched statements sent. Excludes the reads that find out why a row was not written. */
  readonly statements: number;
  /** Rows in these statements. */
  readonly rows: number;
  readonly largestBatch: number;
  /** Statements or rows sent again. */
  readonly retries: number;
  /** Saves merged with another request's. */
  readonly merges: number;
  /** Saves and touches that did nothing because the session had ended. */
  readonly dropped: number;
  /** Reads of a row that could not be read or had no usable cookie. */
  readonly unreadable: number;
  /** Rows deleted by pruning. */
  readonly pruned: number;
  readonly sync: 'off' | 'up' | 'down';
  /** Entries in the cache now. */
  readonly cached: number;
}

/** @internal */
export function statsOf(runtime: Runtime, { saver, loader }: Sessions): StoreStats {
  const { batcher, cache } = runtime.opened ?? {};
  return {
    hits: cache?.stats.hits ?? 0,
    misses: cache?.stats.misses ?? 0,
    statements: batcher?.stats.statements ?? 0,
    rows: batcher?.stats.rows ?? 0,
    largestBatch: batcher?.stats.largestBatch ?? 0,
    retries: batcher?.stats.retries ?? 0,
    merges: saver.stats.merges,
    dropped: saver.stats.dropped,
    unreadable: loader.unreadableRows,
    pruned: runtime.pruned,
    sync: runtime.realtime?.state ?? 'off',
    cached: cache?.size ?? 0,
  };
}
