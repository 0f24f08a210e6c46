/**
 * The cache: the same contract as the rows behind it. It keeps what the database holds as text, never
 * an object that two callers could share.
 *
 * It never answers with what is stale beyond a bound:
 * - an answer, of a read or of a write, fills it only if nothing was written to that id by this
 *   process, and nothing heard of it from another, since it was asked for, only within the epoch of
 *   listening in which it was asked for, and only if no later question was answered before it;
 * - an entry answers only while the lease holds ({@link Realtime.holds}), checked at each hit, and only
 *   until the database has given a newer answer;
 * - a write of which nobody knows whether it was done forgets its id again when it is announced;
 * - what no store announces (a cascade from `users`, psql) is bounded by `maxAge`.
 *
 * @module
 */

import { LRUCache } from 'lru-cache';
import type { Decided, Rows, RowWrites, Touch } from '../batching/rows.js';
import type { CacheOptions } from '../options.js';
import type { StoredRow } from '../queries/answers.js';
import type { TouchRow, WriteRow } from '../queries/columns.js';

/** What the cache needs to know of realtime. */
export interface Lease {
  readonly epoch: number;
  readonly holds: boolean;
}

export interface CacheStats {
  hits: number;
  misses: number;
}

interface Entry {
  readonly row: StoredRow;
  /** On the monotonic clock, in milliseconds. */
  readonly filledAt: number;
}

/** A question under way whose answer may fill the cache. */
interface Ticket {
  readonly id: string;
  readonly epoch: number;
  /** On the monotonic clock: the answer is at least as new as this. */
  readonly askedAt: number;
  spoiled: boolean;
}

export class CachedRows implements Rows {
  readonly stats: CacheStats = { hits: 0, misses: 0 };
  readonly #rows: Rows;
  readonly #lease: Lease;
  readonly #maxAgeMs: number;
  readonly #entries: LRUCache<string, Entry>;
  /** Under way, by id, in the order in which they were issued. */
  readonly #tickets = new Map<string, Set<Ticket>>();
  /** Ids with a write of this process that failed, and may have been done or be done yet. */
  readonly #doubtful: LRUCache<string, true>;
  readonly #scavenger: NodeJS.Timeout;

  constructor(
    rows: Rows,
    lease: Lease,
    { max, maxIdle, scavenge, maxAge }: Required<CacheOptions>,
  ) {
    this.#rows = rows;
    this.#lease = lease;
    this.#maxAgeMs = maxAge * 1000;
    this.#entries = new LRUCache({
      max,
      ttl: Math.max(Math.round(maxIdle * 1000), 1),
      updateAgeOnGet: true,
    });
    this.#doubtful = new LRUCache({ max });
    this.#scavenger = setInterval(() => this.#entries.purgeStale(), scavenge * 1000);
    this.#scavenger.unref();
  }

  get size(): number {
    return this.#entries.size;
  }

  peek(id: string): StoredRow | undefined {
    const hit = this.#hit(id);
    if (hit !== undefined) this.stats.hits += 1;
    return hit;
  }

  async read(id: string): Promise<StoredRow | undefined> {
    this.stats.misses += 1;
    const ticket = this.#issue(id);
    try {
      const row = await this.#rows.read(id);
      this.#settle(ticket, row && { row, filledAt: ticket.askedAt });
      return row;
    } finally {
      this.#return(ticket);
    }
  }

  async write<T>(id: string, work: (writes: RowWrites) => Promise<T>): Promise<T> {
    // What a read that is under way has seen may be newer.
    const before = this.#tickets.has(id) ? undefined : this.#entries.peek(id);
    this.#invalidate(id);
    const ticket = this.#issue(id);
    let last: Entry | undefined;
    const keeping =
      <Row extends WriteRow>(send: (row: Row) => ReturnType<RowWrites['put']>) =>
      async (row: Row) => {
        last = undefined;
        const written = await send(row);
        if (written.outcome === 'done') {
          const { data, expiresAt, userId } = row;
          const { version, createdAt } = written;
          const stored = { id, data, expiresAt, userId, version, createdAt };
          last = { row: stored, filledAt: ticket.askedAt };
        }
        return written;
      };
    try {
      return await this.#rows.write(id, async (writes) => {
        const result = await work({
          save: keeping((row) => writes.save(row)),
          create: keeping((row) => writes.create(row)),
          put: keeping((row) => writes.put(row)),
          touch: async (row, onDone) => {
            const known = last ?? before;
            last = undefined;
            const outcome = await writes.touch(row, onDone);
            if (outcome === 'done' && known !== undefined) last = moved(known, row);
            return outcome;
          },
          end: async (ended) => {
            last = undefined;
            return writes.end(ended);
          },
        });
        this.#settle(ticket, last);
        return result;
      });
    } catch (error) {
      this.#doubtful.set(id, true);
      throw error;
    } finally {
      this.#return(ticket);
    }
  }

  async touch(...[row, onDone]: Parameters<Touch>): Promise<Decided> {
    const outcome = await this.#rows.touch(row, onDone);
    const entry = this.#entries.peek(row.id);
    if (outcome === 'gone') this.#invalidate(row.id);
    else if (entry !== undefined) this.#entries.set(row.id, moved(entry, row));
    return outcome;
  }

  ended(ids: readonly string[]): void {
    for (const id of ids) this.#invalidate(id);
  }

  /** Forgets an id, and what is on its way of it. */
  #invalidate(id: string): void {
    this.#entries.delete(id);
    for (const ticket of this.#tickets.get(id) ?? []) ticket.spoiled = true;
  }

  /**
   * Hears this process's own announcement. It is known already, and the entry newer, unless nobody
   * knows what became of the write: it may have been given up before it was done.
   */
  echoed(kind: 'change' | 'destroy', ids: readonly string[]): void {
    for (const id of ids) {
      // Sessions are also ended by their user, where the answer tells their ids.
      if (kind === 'destroy' || this.#doubtful.has(id)) this.#invalidate(id);
    }
  }

  /** Forgets everything. What is on its way belongs to an earlier epoch. */
  clear(): void {
    this.#entries.clear();
  }

  close(): void {
    clearInterval(this.#scavenger);
  }

  #hit(id: string): StoredRow | undefined {
    if (!this.#lease.holds) return undefined;
    const entry = this.#entries.get(id);
    if (entry === undefined) return undefined;
    const tooOld = performance.now() - entry.filledAt > this.#maxAgeMs;
    // It may have been touched in another process, which is not announced: the database knows.
    const expired = entry.row.expiresAt <= Date.now();
    if (!tooOld && !expired) return entry.row;
    this.#entries.delete(id);
    return undefined;
  }

  #issue(id: string): Ticket {
    const ticket = { id, epoch: this.#lease.epoch, askedAt: performance.now(), spoiled: false };
    const tickets = this.#tickets.get(id);
    if (tickets === undefined) this.#tickets.set(id, new Set([ticket]));
    else tickets.add(ticket);
    return ticket;
  }

  #return(ticket: Ticket): void {
    const tickets = this.#tickets.get(ticket.id);
    tickets?.delete(ticket);
    if (tickets?.size === 0) this.#tickets.delete(ticket.id);
  }

  /** An answer has come. Where it may not fill the cache, what stands there is older. */
  #settle(ticket: Ticket, entry: Entry | undefined): void {
    const { id, epoch, spoiled } = ticket;
    if (spoiled) return;
    for (const earlier of this.#tickets.get(id) ?? []) {
      if (earlier === ticket) break;
      earlier.spoiled = true;
    }
    const isKnown = epoch === this.#lease.epoch && this.#lease.holds;
    if (isKnown && entry !== undefined) this.#entries.set(id, entry);
    else this.#entries.delete(id);
  }
}

/** As the statement does it: of a session that was read, an expiry is never moved back. */
function moved({ row, filledAt }: Entry, { createdAt, expiresAt }: TouchRow): Entry {
  const later = createdAt === 0 ? expiresAt : Math.max(row.expiresAt, expiresAt);
  return { row: { ...row, expiresAt: later }, filledAt };
}
