/**
 * The cache: an implementation of {@link Rows} in front of another one. It keeps the text of each row,
 * never an object that two callers could share.
 *
 * What keeps an answer from being stale:
 * - The answer of a read or a write is cached only if, since it was asked for, this process has written
 *   nothing to that id and has heard no announcement of it, listening was not interrupted, and no later
 *   question was answered first.
 * - An entry is served only while the lease holds ({@link Lease.holdsAt}).
 * - A write evicts its id when it starts, and again if it is announced after its caller had an error.
 * - `maxAge` bounds the age of what no store announces: SQL by hand, a cascade from `users`.
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

/** What the cache needs from realtime. */
export interface Lease {
  /** Changes whenever announcements may have been missed, and when listening begins. */
  readonly epoch: number;
  /** Whether everything that was announced more than `heartbeat` seconds ago has been heard. */
  holdsAt(nowMs: number): boolean;
}

export interface CacheStats {
  hits: number;
  misses: number;
}

/** A row, and when it was requested; it is at least as new as that. Times are of {@link agingMs}. */
interface Known {
  readonly row: StoredRow;
  readonly askedAtMs: number;
}

interface Entry extends Known {
  usedAtMs: number;
}

/** A call in flight whose answer may fill the cache. */
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
  /** Calls in flight by id, in the order in which they were made. */
  readonly #tickets = new Map<string, Set<Ticket>>();
  readonly #ownWrites: OwnWrites;
  readonly #scavengeMs: number;
  /** Runs while there are entries: an app's fake timers, installed before this package was loaded, fire it too. */
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
          const stored = { id, data, expiresAt, userId, version, createdAt };
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
   * Handles an announcement of this process itself. The entry is already newer, unless the outcome of
   * the write is unknown.
   */
  echoed(kind: 'change' | 'destroy', ids: readonly string[]): void {
    for (const id of ids) {
      // Ending all sessions of a user evicts their ids only after its result arrives.
      if (kind === 'destroy' || this.#ownWrites.hear(id)) this.#evict(id);
    }
  }

  /** Evicts everything. Answers in flight belong to an earlier epoch and are not cached. */
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
    // A touch in another process is not announced, so only the database knows whether it has expired.
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

  /** Evicts an id, and keeps answers in flight from filling the cache. */
  #evict(id: string): void {
    this.#entries.delete(id);
    for (const ticket of this.#tickets.get(id) ?? []) ticket.isSpoiled = true;
  }

  /** Deletes the entries that were not used for `maxIdle`; the least recently used come first. */
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

  /** Caches an answer. If it cannot be cached, deletes the entry, which is older than the answer. */
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

/** Moves the expiry like the statement does: that of a loaded session never moves back. */
function moved({ row, askedAtMs }: Known, { createdAt, expiresAt }: TouchRow): Known {
  const later = createdAt === 0 ? expiresAt : Math.max(row.expiresAt, expiresAt);
  return { row: { ...row, expiresAt: later }, askedAtMs };
}
