/**
 * When statements leave, and which.
 *
 * A lane is one connection's worth of statements in flight; there are few, and reads and writes have
 * their own, so that a burst of sessions can take neither the app's connections nor each other's.
 * A call that finds a lane idle leaves with what else comes in the same turn of the event loop, be it
 * from many sockets: it waits for no other and for no timer. (Sent one by one, the calls of 64 connections
 * cost an Express app a tenth more of its time: measured.) While statements are under way, calls gather,
 * and the lane that is free next takes the oldest; a second lane is opened for as many as are worth it.
 * So the batches grow with the load and vanish without it.
 *
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
// The functions themselves: an app's tests may have put a clock of their own into the place of the global ones.
import { setImmediate, setTimeout } from 'node:timers';

/**
 * Lanes that are free at the same time share what waits, so that the server works on one half while
 * this process has the other. Fewer rows than this are not worth a statement of their own.
 */
const MIN_SHARE = 8;

/**
 * While statements are under way, another lane is opened for half as many rows, or after a short while:
 * fewer are better off in the next statement of a lane that is busy. (Else the callers fall out of
 * step, and the batches of writes shrink to a third: measured.)
 */
const WORTH_A_LANE = 2;
const HOLD_MS = 2;

/** A statement with its waiting calls, as the lanes see it: whatever its rows are. */
export interface Kind {
  /** The number of the oldest waiting call; infinite where none waits. */
  readonly head: number;
  /** Takes what fits into one statement and runs it. */
  run(): Promise<void>;
}

/** The lanes of reads, of writes or of others (one connection's may serve all), and what waits for them. */
export class Lanes {
  readonly kinds: Kind[] = [];
  /** Rows that wait, and rows in the statements under way. */
  waiting = 0;
  inFlight = 0;
  #free: number;
  #isFlushing = false;
  #holding: NodeJS.Timeout | undefined;
  /** Connections that a statement opens belong to the store, not to the request that came first. */
  readonly #context = new AsyncResource('connect-drizzle');

  constructor(count: number) {
    this.#free = count;
  }

  /** How many of so many rows that wait for one statement it takes at most, while it runs on a lane of its own. */
  share(rows: number): number {
    return Math.max(Math.ceil(rows / (this.#free + 1)), MIN_SHARE);
  }

  /** Sends what waits, together with what else comes in this turn of the event loop. */
  flushSoon(): void {
    if (this.#isFlushing || this.#free === 0) return;
    this.#isFlushing = true;
    const flush = () => {
      this.#isFlushing = false;
      this.#context.runInAsyncScope(() => this.#flush());
    };
    // Callers that were answered together come back together: they need not wait for those who read other sockets.
    queueMicrotask(() => {
      if (this.waiting < MIN_SHARE) setImmediate(flush);
      else flush();
    });
  }

  #flush(held = false): void {
    while (this.#free > 0) {
      const kind = this.#oldest();
      if (kind === undefined) return;
      if (!held && this.waiting * WORTH_A_LANE < this.inFlight) {
        this.#hold();
        return;
      }
      this.#free -= 1;
      kind.run().finally(() => {
        this.#free += 1;
        this.flushSoon();
      });
    }
  }

  /** Lets a few calls wait for the statement that is under way, or for no longer than a short while. */
  #hold(): void {
    this.#holding ??= setTimeout(() => {
      this.#holding = undefined;
      this.#flush(true);
    }, HOLD_MS);
  }

  /** Of the statements with waiting calls, that of the oldest. */
  #oldest(): Kind | undefined {
    let oldest: Kind | undefined;
    for (const kind of this.kinds) {
      if (kind.head < (oldest?.head ?? Number.POSITIVE_INFINITY)) oldest = kind;
    }
    return oldest;
  }
}
