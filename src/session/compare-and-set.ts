/**
 * Saves a session only if the stored one is still the one that was read. Otherwise tries again with the one stored now.
 *
 * @module
 */
import type { RowWrites } from '../batching/rows.js';
import { ConflictError } from '../errors.js';
import type { SaveRow, StoredRow } from '../queries/wire.js';

/** More than the number of callers that can conflict at once. */
const MAX_TRIES = 1000;

export interface Saved {
  /** The row as it was written, with its new version. */
  readonly row: SaveRow;
  readonly tries: number;
}

/**
 * Writes `row`. If another writer has changed the session, passes the stored session to `next`, writes the row that it
 * returns, and so on. Returns `undefined` if the session has ended (gone, revoked, or replaced by a later one with its id)
 * or if `next` returns `undefined`.
 *
 * @throws {ConflictError} if another writer was faster at each of {@link MAX_TRIES} tries
 */
export async function compareAndSet(
  row: SaveRow,
  write: (row: SaveRow) => Promise<Awaited<ReturnType<RowWrites['save']>> | undefined>,
  next: (stored: StoredRow) => SaveRow | undefined | Promise<SaveRow | undefined>,
): Promise<Saved | undefined> {
  let attempt = row;
  for (let tries = 1; ; tries += 1) {
    const written = await write(attempt);
    if (written === undefined || written.outcome === 'gone') return undefined;
    if (written.outcome === 'done') return { row: { ...attempt, version: written.version }, tries };
    if (written.stored.createdAt !== attempt.createdAt) return undefined;
    if (tries === MAX_TRIES) throw new ConflictError(MAX_TRIES);
    const again = await next(written.stored);
    if (again === undefined) return undefined;
    attempt = again;
  }
}
