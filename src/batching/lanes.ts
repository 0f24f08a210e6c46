/**
 * Decides when a statement is sent, and for which calls.
 *
 * A lane sends statements one after the other, each on one connection. There are few lanes, so a burst of calls cannot
 * use all connections of the app. Reads and writes have separate lanes, so they do not wait for each other. A lane first
 * acquires its connection and then takes the waiting calls. So a call that times out while it waits was never sent.
 *
 * An idle lane sends the calls of one turn of the event loop, from all sockets; no call waits for a timer. (Measured:
 * sending the calls of 64 connections one by one costs an Express app a tenth more time.) While statements are in flight,
 * calls wait, and the next free lane takes the oldest. So batches grow with the load; without load there are none.
 *
 * @module
 */

import { AsyncResource } from 'node:async_hooks';
import type { Connection, Driver } from '../drivers/driver.js';
import { StoreTimeoutError } from '../errors.js';
import { clearTimeout, microtask, monotonicMs, setImmediate, setTimeout } from '../util/clock.js';
import type { Deadlines } from './deadlines.js';

/** Free lanes share the waiting calls, so that server and client work in parallel. This is the smallest share. */
const MIN_SHARE = 8;

/**
 * While rows are in flight, another lane starts only if at least half as many rows wait, or after `HOLD_MS`. Fewer rows
 * wait for the next statement of a busy lane. Otherwise callers no longer arrive together, and batches of writes shrink to
 * a third (measured).
 */
const WORTH_A_LANE = 2;
const HOLD_MS = 2;

/** How long a failed lane leaves its calls to the lanes that have a connection. An earlier try would fail, too. */
const COOL_DOWN_MS = 1000;

/** If a statement takes longer, it may be waiting for a locked row. A spare lane then replaces its lane. */
const WAITING_MS = 100;

/** A statement and the calls that wait for it. */
export interface CallQueue {
  /** Number of waiting calls. */
  readonly size: number;
  /** The number of the oldest waiting call, counted over all queues. */
  readonly oldest: number;
  /** The async context of the oldest waiting call. */
  readonly caller: AsyncResource | undefined;
  /** Takes up to `most` calls and sends them. Resolves when they have a result or an error. */
  run(on: Connection, most: number): Promise<void>;
  /** Fails all waiting calls. */
  fail(error: unknown): Promise<void>;
}

export interface LaneOptions {
  /** Whether a statement has one row, so that calls do not need to wait for each other. */
  readonly isRowByRow: boolean;
  /** Number of additional lanes if statements cannot limit how long they wait for rows. */
  readonly spare: number;
}

/** The lanes of reads, of writes, or of other statements; a single connection serves all three. */
export class Lanes {
  readonly queues: CallQueue[] = [];
  /** Rows in flight. */
  inFlight = 0;
  readonly #driver: Driver;
  readonly #deadlines: Deadlines;
  /** Numbers of lanes without a connection, lanes that are acquiring one, and lanes that have one. */
  #free: number;
  #acquiring = 0;
  #running = 0;
  /** Number of connections that lanes have acquired so far. */
  #acquired = 0;
  #coolUntilMs = 0;
  /** Lanes that may start while others wait for rows. */
  #spare: number;
  readonly #minShare: number;
  #isFlushing = false;
  #holding: NodeJS.Timeout | undefined;
  /** A lane serves many requests, so it runs in the store's async context. It enters a caller's context for its statement. */
  readonly #context = new AsyncResource('connect-drizzle');

  constructor(count: number, driver: Driver, deadlines: Deadlines, options: LaneOptions) {
    this.#free = count;
    this.#spare = options.spare;
    this.#minShare = options.isRowByRow ? 1 : MIN_SHARE;
    this.#driver = driver;
    this.#deadlines = deadlines;
  }

  /** Sends the waiting calls, together with others that arrive in this turn of the event loop. */
  flushSoon(): void {
    if (this.#isFlushing || this.#free === 0) return;
    this.#isFlushing = true;
    // Callers that got their results together call again together, so there is no need to wait for other sockets.
    microtask(this.#decide);
  }

  readonly #decide = () => {
    if (this.#waiting >= this.#minShare) this.#flushNow();
    else setImmediate(this.#flushNow);
  };

  readonly #flushNow = () => {
    this.#isFlushing = false;
    this.#context.runInAsyncScope(this.#flush, this, false);
  };

  get #waiting(): number {
    let waiting = 0;
    for (const queue of this.queues) waiting += queue.size;
    return waiting;
  }

  #flush(isHeld: boolean): void {
    while (this.#free > 0 && this.#lanesWanted > this.#acquiring) {
      const coolMs = this.#isBusy ? this.#coolUntilMs - monotonicMs() : 0;
      if (coolMs > 0) {
        this.#hold(coolMs);
        return;
      }
      const isWorthIt = this.#minShare === 1 || this.#waiting * WORTH_A_LANE >= this.inFlight;
      if (!isHeld && !isWorthIt) {
        this.#hold(HOLD_MS);
        return;
      }
      this.#start();
    }
  }

  /** Returns how many lanes the waiting calls need. */
  get #lanesWanted(): number {
    let lanes = 0;
    for (const { size } of this.queues) lanes += Math.ceil(size / this.#minShare);
    return lanes;
  }

  /** For some time, leaves the waiting calls to the lanes that have a connection. */
  #hold(ms: number): void {
    this.#holding ??= setTimeout(() => {
      this.#holding = undefined;
      this.#flush(true);
    }, ms);
  }

  get #isBusy(): boolean {
    return this.#acquiring > 0 || this.#running > 0;
  }

  #start(): void {
    this.#free -= 1;
    this.#acquiring += 1;
    const acquiredBefore = this.#acquired;
    const deadline = this.#deadlines.nowPlusTimeout();
    this.#acquire(deadline).then(
      (connection) => {
        this.#acquiring -= 1;
        this.#acquired += 1;
        this.#run(connection);
      },
      (error) => {
        this.#acquiring -= 1;
        this.#free += 1;
        this.#notAcquired(error, this.#acquired > acquiredBefore);
      },
    );
  }

  /** Acquires a connection in the async context of the oldest call, so that a span of the pool belongs to its request. */
  #acquire(deadlineMs: number): Promise<Connection> {
    const caller = this.#oldest()?.caller ?? this.#context;
    return caller.runInAsyncScope(this.#driver.acquire, this.#driver, deadlineMs);
  }

  /**
   * Calls time out at their own deadlines. Any other error rejects them, unless another lane can serve them, or has
   * acquired a connection since this one began to wait (`isServed`).
   */
  #notAcquired(error: unknown, isServed: boolean): void {
    if (this.#isBusy || isServed) this.#coolUntilMs = monotonicMs() + COOL_DOWN_MS;
    else if (!(error instanceof StoreTimeoutError)) {
      for (const queue of this.queues) void queue.fail(error);
    }
    if (this.#waiting > 0) this.flushSoon();
  }

  #run(connection: Connection): void {
    const queue = this.#oldest();
    if (queue === undefined) {
      connection.release();
      this.#free += 1;
      return;
    }
    this.#running += 1;
    // A statement may take `timeout` from the moment it is sent. Then the lane closes its connection, because the server
    // may never respond.
    const limit = this.#deadlines.start();
    limit.holder = { giveUp: () => connection.destroy() };
    const share = Math.ceil(queue.size / (this.#free + this.#acquiring + 1));
    const replacement = this.#spare === 0 ? undefined : new Replacement(() => this.#replace());
    queue.run(connection, Math.max(share, this.#minShare)).then(() => {
      this.#deadlines.end(limit);
      connection.release();
      this.#running -= 1;
      if (replacement?.end()) this.#spare += 1;
      else this.#free += 1;
      if (this.#waiting > 0) this.flushSoon();
    });
  }

  /** Lets a spare lane replace one that waits. Returns whether there is one. */
  #replace(): boolean {
    if (this.#spare === 0) return false;
    this.#spare -= 1;
    this.#free += 1;
    if (this.#waiting > 0) this.flushSoon();
    return true;
  }

  #oldest(): CallQueue | undefined {
    let oldest: CallQueue | undefined;
    for (const queue of this.queues) {
      if (queue.size > 0 && queue.oldest < (oldest?.oldest ?? Number.POSITIVE_INFINITY)) {
        oldest = queue;
      }
    }
    return oldest;
  }
}

/** Replaces a lane with a spare one if its statement takes long. */
class Replacement {
  readonly #timer: NodeJS.Timeout;
  #isReplaced = false;

  constructor(replace: () => boolean) {
    this.#timer = setTimeout(() => {
      this.#isReplaced = replace();
    }, WAITING_MS);
  }

  /** Ends the wait for a replacement. Returns whether the lane was replaced. */
  end(): boolean {
    clearTimeout(this.#timer);
    return this.#isReplaced;
  }
}
