/**
 * The cache: an implementation of {@link Rows} in front of another one. It keeps the text of each row, so that two callers
 * never share an object.
 *
 * Why it never returns a stale row:
 * - It caches the result of a read or a write only if, since the call was sent, this process has not written to that id
 *   and has received no announcement for it, listening was not interrupted, and no later call had its result first.
 * - It returns an entry only while the lease is valid ({@link Lease.holdsAt}).
 * - A write evicts its id when it starts, and again if its announcement arrives after its caller got an error.
 * - `maxAge` limits the age of changes that no store announces: SQL by hand, a cascade from `users`.
 *
 * @module
 */

import { LRUCache } from 'lru-cache';
import type { Deadline } from '../batching/deadlines.js';
import type { Rows, RowWrites } from '../batching/rows.js';
import type { Decided } from '../batching/sends.js';
import type { CacheOptions } from '../options.js';
import type { StoredRow, TouchRow, WriteRow } from '../queries/wire.js';
import { agingMs, clearInterval, setInterval } from '../util/clock.js';
import { OwnWrites } from './own-writes.js';

/** The parts of realtime that the cache needs. */
export interface Lease {
  /** Changes whenever announcements may have been missed, and when listening begins. */
  readonly epoch: number;
  /** Whether this process has received every announcement that is older than `heartbeat` seconds. */
  holdsAt(nowMs: number): boolean;
}

export interface CacheStats {
  hits: number;
  misses: number;
}

/** A row, and the time of the call that read it. The row is at least as new. Times are from {@link agingMs}. */
interface Known {
  readonly row: StoredRow;
  readonly askedAtMs: number;
}

interface Entry extends Known {
  usedAtMs: number;
}

/** A call in flight. Its result may fill the cache. */
interface Ticket {
  readonly id: string;
  readonly epoch: number;
  readonly askedAtMs: number;
  isSpoiled: boolean;
}

export class CachedRows implements Rows {
  readonly stats: CacheStats = { hits: 0, misses: 0 };
  readonly #rows: Rows;
  readonly #lease: Lease;
  readonly #maxAgeMs: number;
  readonly #maxIdleMs: number;
  readonly #entries: LRUCache<string, Entry>;
  /** Calls in flight by id, in the order of the calls. */
  readonly #tickets = new Map<string, Set<Ticket>>();
  readonly #ownWrites: OwnWrites;
  readonly #scavengeMs: number;
  /** Runs only while there are entries, because it may be a fake timer that an app's test runs in a loop. */
  #scavenger: NodeJS.Timeout | undefined;

  constructor(
    rows: Rows,
    lease: Lease,
    { max, maxIdle, scavenge, maxAge }: Required<CacheOptions>,
  ) {
    this.#rows = rows;
    this.#lease = lease;
    this.#maxAgeMs = maxAge * 1000;
    this.#maxIdleMs = maxIdle * 1000;
    // Without `ttl`, for which lru-cache would use the global timers.
    this.#entries = new LRUCache({ max });
    this.#ownWrites = new OwnWrites(lease);
    this.#scavengeMs = scavenge * 1000;
  }

  get size(): number {
    return this.#entries.size;
  }

  peek(id: string): StoredRow | undefined {
    const hit = this.glance(id);
    if (hit !== undefined) this.stats.hits += 1;
    return hit;
  }

  async read(id: string, deadline: Deadline): Promise<StoredRow | undefined> {
    this.stats.misses += 1;
    const ticket = this.#issue(id);
    try {
      const row = await this.#rows.read(id, deadline);
      this.#settle(ticket, row && { row, askedAtMs: ticket.askedAtMs });
      return row;
    } finally {
      this.#discard(ticket);
    }
  }

  async write<T>(
    id: string,
    deadline: Deadline,
    work: (writes: RowWrites) => Promise<T>,
  ): Promise<T> {
    // A read in flight may have seen something newer than the entry.
    const before = this.#tickets.has(id) ? undefined : this.#entries.peek(id);
    this.#evict(id);
    const ticket = this.#issue(id);
    let last: Known | undefined;
    const keeping =
      <Row extends WriteRow>(send: (row: Row) => ReturnType<RowWrites['put']>) =>
      async (row: Row) => {
        last = undefined;
        const written = await send(row);
        if (written.outcome === 'done') {
          this.#ownWrites.acknowledge(id, ticket.epoch);
          const { data, expiresAt, userId } = row;
          const { version, createdAt } = written;
          const lastSeenAt = Date.now();
          const stored = { id, data, expiresAt, lastSeenAt, userId, version, createdAt };
          last = { row: stored, askedAtMs: ticket.askedAtMs };
        }
        return written;
      };
    this.#ownWrites.begin(id);
    try {
      return await this.#rows.write(id, deadline, async (writes) => {
        const result = await work({
          read: async (read) => {
            const row = await writes.read(read);
            last = row && { row, askedAtMs: ticket.askedAtMs };
            return row;
          },
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
    } finally {
      this.#discard(ticket);
      if (this.#ownWrites.end(id)) this.#evict(id);
    }
  }

  async touch(...[row, deadline, onDone]: Parameters<Rows['touch']>): Promise<Decided> {
    const outcome = await this.#rows.touch(row, deadline, onDone);
    const entry = this.#entries.peek(row.id);
    if (outcome === 'gone') this.#evict(row.id);
    else if (entry !== undefined) this.#keep(row.id, moved(entry, row));
    return outcome;
  }

  forget(ids: readonly string[]): void {
    for (const id of ids) this.#evict(id);
  }

  afterWrites(): Promise<void> | undefined {
    return this.#rows.afterWrites();
  }

  /**
   * Handles an announcement from this process. The entry is already newer, unless the outcome of the write is unknown.
   */
  echoed(kind: 'change' | 'destroy', ids: readonly string[]): void {
    for (const id of ids) {
      // A call that ends all sessions of a user evicts their ids only after its result has arrived.
      if (kind === 'destroy' || this.#ownWrites.hear(id)) this.#evict(id);
    }
  }

  /** Evicts everything. Results in flight belong to an earlier epoch and are not cached. */
  clear(): void {
    this.#entries.clear();
  }

  close(): void {
    this.#stopScavenging();
  }

  glance(id: string): StoredRow | undefined {
    const nowMs = agingMs();
    if (!this.#lease.holdsAt(nowMs)) return undefined;
    const entry = this.#entries.get(id);
    if (entry === undefined) return undefined;
    const isTooOld = nowMs - entry.askedAtMs > this.#maxAgeMs;
    // Touches of other processes are not announced, so only the database knows whether the session has expired.
    const isExpired = entry.row.expiresAt <= Date.now();
    if (isTooOld || isExpired) {
      this.#entries.delete(id);
      return undefined;
    }
    entry.usedAtMs = nowMs;
    return entry.row;
  }

  #keep(id: string, { row, askedAtMs }: Known): void {
    this.#entries.set(id, { row, askedAtMs, usedAtMs: agingMs() });
    this.#scavenger ??= setInterval(() => this.#releaseIdle(), this.#scavengeMs).unref();
  }

  /** Evicts an id, and keeps results in flight out of the cache. */
  #evict(id: string): void {
    this.#entries.delete(id);
    for (const ticket of this.#tickets.get(id) ?? []) ticket.isSpoiled = true;
  }

  /** Deletes entries that were not used for `maxIdle`. Entries are ordered by their last use. */
  #releaseIdle(): void {
    const nowMs = agingMs();
    for (;;) {
      const [oldest] = this.#entries.rkeys();
      if (oldest === undefined) {
        this.#stopScavenging();
        return;
      }
      const { usedAtMs = 0 } = this.#entries.peek(oldest) ?? {};
      if (nowMs - usedAtMs <= this.#maxIdleMs) return;
      this.#entries.delete(oldest);
    }
  }

  #stopScavenging(): void {
    clearInterval(this.#scavenger);
    this.#scavenger = undefined;
  }

  #issue(id: string): Ticket {
    const ticket = { id, epoch: this.#lease.epoch, askedAtMs: agingMs(), isSpoiled: false };
    const tickets = this.#tickets.get(id);
    if (tickets === undefined) this.#tickets.set(id, new Set([ticket]));
    else tickets.add(ticket);
    return ticket;
  }

  #discard(ticket: Ticket): void {
    const tickets = this.#tickets.get(ticket.id);
    tickets?.delete(ticket);
    if (tickets?.size === 0) this.#tickets.delete(ticket.id);
  }

  /** Caches a result. If it cannot be cached, deletes the entry, which is older than the result. */
  #settle(ticket: Ticket, known: Known | undefined): void {
    const { id, epoch, isSpoiled } = ticket;
    if (isSpoiled) return;
    for (const earlier of this.#tickets.get(id) ?? []) {
      if (earlier === ticket) break;
      earlier.isSpoiled = true;
    }
    const isCacheable = epoch === this.#lease.epoch && this.#lease.holdsAt(agingMs());
    if (isCacheable && known !== undefined) this.#keep(id, known);
    else this.#entries.delete(id);
  }
}

/** Changes the expiry as the statement does: a touch of a loaded session never makes it earlier. */
function moved({ row, askedAtMs }: Known, { createdAt, expiresAt }: TouchRow): Known {
  const later = createdAt === 0 ? expiresAt : Math.max(row.expiresAt, expiresAt);
  return { row: { ...row, expiresAt: later, lastSeenAt: Date.now() }, askedAtMs };
}
