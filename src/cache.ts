/**
 * The cache: the same contract as the rows behind it. It keeps what the database holds as text, never
 * an object that two callers could share.
 *
 * It never answers with what is stale beyond a bound:
 * - an answer, of a read or of a write, fills it only if nothing was written to that id by this
 *   process, and nothing heard of it from another, since its statement was sent, and only within the
 *   epoch of listening in which it was sent;
 * - an entry answers only while the lease holds ({@link Realtime.holds}), checked at each hit;
 * - what no store announces (a cascade from `users`, psql) is bounded by `maxAge`.
 *
 * @module
 */
import { LRUCache } from 'lru-cache';
import type { CacheOptions } from './options.js';
import type { Decided, Rows, RowWrites } from './rows.js';
import type { StoredRow, TouchRow } from './statements.js';

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

/** A statement under way whose answer may fill the cache. */
interface Ticket {
  readonly id: string;
  readonly epoch: number;
  /** On the monotonic clock: the answer is at least as new as this. */
  readonly sentAt: number;
  spoiled: boolean;
}

export class CachedRows implements Rows {
  readonly stats: CacheStats = { hits: 0, misses: 0 };
  readonly #rows: Rows;
  readonly #lease: Lease;
  readonly #maxAgeMs: number;
  readonly #entries: LRUCache<string, Entry>;
  readonly #tickets = new Map<string, Set<Ticket>>();
  readonly #scavenger: NodeJS.Timeout;

  constructor(
    rows: Rows,
    lease: Lease,
    { max, maxIdle, scavenge, maxAge }: Required<CacheOptions>,
  ) {
    this.#rows = rows;
    this.#lease = lease;
    this.#maxAgeMs = maxAge * 1000;
    this.#entries = new LRUCache({ max, ttl: maxIdle * 1000, updateAgeOnGet: true });
    this.#scavenger = setInterval(() => this.#entries.purgeStale(), scavenge * 1000);
    this.#scavenger.unref();
  }

  get size(): number {
    return this.#entries.size;
  }

  async read(id: string): Promise<StoredRow | undefined> {
    const hit = this.#hit(id);
    if (hit !== undefined) {
      this.stats.hits += 1;
      return hit;
    }
    this.stats.misses += 1;
    const ticket = this.#issue(id);
    try {
      const row = await this.#rows.read(id);
      this.#fill(ticket, row);
      return row;
    } finally {
      this.#return(ticket);
    }
  }

  async write<T>(id: string, work: (writes: RowWrites) => Promise<T>): Promise<T> {
    this.invalidate(id);
    return this.#rows.write(id, async (writes) => {
      // What came before this turn may have filled it.
      this.invalidate(id);
      const ticket = this.#issue(id);
      let last: StoredRow | undefined;
      const keep =
        <Row extends { id: string; data: string; expiresAt: number; userId: string | null }>(
          send: (row: Row) => ReturnType<RowWrites['put']>,
        ) =>
        async (row: Row) => {
          last = undefined;
          const written = await send(row);
          if (written.outcome === 'done') {
            const { version, createdAt } = written;
            last = {
              id,
              data: row.data,
              expiresAt: row.expiresAt,
              userId: row.userId,
              version,
              createdAt,
            };
          }
          return written;
        };
      const touch = async (row: TouchRow) => {
        last = undefined;
        return writes.touch(row);
      };
      try {
        const result = await work({
          save: keep((row) => writes.save(row)),
          create: keep((row) => writes.create(row)),
          put: keep((row) => writes.put(row)),
          touch,
          end: async (ended) => {
            last = undefined;
            return writes.end(ended);
          },
        });
        this.#fill(ticket, last);
        return result;
      } finally {
        this.#return(ticket);
      }
    });
  }

  async touch(row: TouchRow): Promise<Decided> {
    const outcome = await this.#rows.touch(row);
    const entry = this.#entries.peek(row.id);
    if (outcome === 'gone') {
      this.invalidate(row.id);
    } else if (entry !== undefined) {
      this.#entries.set(row.id, { ...entry, row: { ...entry.row, expiresAt: row.expiresAt } });
    }
    return outcome;
  }

  ended(ids: readonly string[]): void {
    for (const id of ids) this.invalidate(id);
  }

  /** Forgets an id, and what is on its way of it. */
  invalidate(id: string): void {
    this.#entries.delete(id);
    for (const ticket of this.#tickets.get(id) ?? []) ticket.spoiled = true;
  }

  /** Forgets everything. What is on its way belongs to an earlier epoch. */
  clear(): void {
    this.#entries.clear();
  }

  close(): void {
    clearInterval(this.#scavenger);
    this.#entries.clear();
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
    const ticket = { id, epoch: this.#lease.epoch, sentAt: performance.now(), spoiled: false };
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

  #fill({ id, epoch, sentAt, spoiled }: Ticket, row: StoredRow | undefined): void {
    if (spoiled || row === undefined || epoch !== this.#lease.epoch || !this.#lease.holds) return;
    this.#entries.set(id, { row, filledAt: sentAt });
  }
}
