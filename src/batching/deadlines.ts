/**
 * Limits the total time of a call: its waits for earlier calls of the id, for a connection and for the database.
 *
 * @module
 */

import { AsyncResource } from 'node:async_hooks';
import { StoreTimeoutError } from '../errors.js';
import { monotonicMs, setTimeout, socketsRead } from '../util/clock.js';

/** The place where a call waits. */
export interface Holder {
  /** Ends the caller's wait with an error. A statement that was already sent continues. */
  giveUp(error: StoreTimeoutError): void;
}

/** The moment when a call gives up. */
export class Deadline {
  /** The place where the call waits; `undefined` if it does not wait. */
  holder: Holder | undefined;
  /** Whether a statement of the call was sent. */
  isSent = false;
  /** If another call is also sent for this one: the deadline of that call. */
  sentWith: Deadline | undefined;
  /** Set once the deadline has passed. */
  error: StoreTimeoutError | undefined;
  /** @internal The list of all deadlines, oldest first. */
  previous: Deadline | undefined;
  /** @internal */
  next: Deadline | undefined;

  /** Both on the monotonic clock; see `CallTimes`. */
  constructor(
    readonly atMs: number,
    public beganMs = monotonicMs(),
  ) {}

  /** Waits for a promise. At the deadline, calls `onGiveUp` and rejects. */
  waitFor<T>(promise: Promise<T>, onGiveUp?: () => void): Promise<T> {
    return new Promise((resolve, reject) => {
      const giveUp = (error: StoreTimeoutError) => {
        onGiveUp?.();
        reject(error);
      };
      const holder = { giveUp };
      const settled = () => {
        if (this.holder === holder) this.holder = undefined;
      };
      if (this.error === undefined) this.holder = holder;
      else giveUp(this.error);
      promise.finally(settled).then(resolve, reject);
    });
  }
}

/**
 * All deadlines of a store. All calls have the same time limit, so the oldest deadline is always the next to pass. One
 * list and one timer are enough for all, and a call that ends in time needs no timer.
 */
export class Deadlines {
  readonly seconds: number;
  #first: Deadline | undefined;
  #last: Deadline | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Runs the timer in the context of the store, not of the first request. */
  readonly #context = new AsyncResource('connect-drizzle');

  constructor(seconds: number) {
    this.seconds = seconds;
  }

  /** Returns the deadline of a call that starts now, on the monotonic clock. */
  nowPlusTimeout(): number {
    return monotonicMs() + this.seconds * 1000;
  }

  /** Starts a deadline. {@link end} must follow. */
  start(): Deadline {
    const nowMs = monotonicMs();
    const deadline = new Deadline(nowMs + this.seconds * 1000, nowMs);
    deadline.previous = this.#last;
    if (this.#last === undefined) this.#first = deadline;
    else this.#last.next = deadline;
    this.#last = deadline;
    this.#timer ??= this.#wakeAt(deadline.atMs);
    return deadline;
  }

  end(deadline: Deadline): void {
    const { previous, next } = deadline;
    if (previous === undefined && this.#first !== deadline) return;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    deadline.previous = undefined;
    deadline.next = undefined;
  }

  /** Runs work with a new deadline, which also passes when `signal` is aborted. */
  async within<T>(work: (deadline: Deadline) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const deadline = this.start();
    const giveUp = () => this.#pass(deadline);
    signal?.addEventListener('abort', giveUp, { once: true });
    try {
      if (signal?.aborted) giveUp();
      return await work(deadline);
    } finally {
      signal?.removeEventListener('abort', giveUp);
      this.end(deadline);
    }
  }

  #wakeAt(atMs: number): NodeJS.Timeout {
    const ms = Math.max(Math.ceil(atMs - monotonicMs()), 1);
    return this.#context.runInAsyncScope(() =>
      // If the event loop was blocked, results may already be in the sockets.
      setTimeout(() => void socketsRead().then(() => this.#wake()), ms).unref(),
    );
  }

  #wake(): void {
    this.#timer = undefined;
    const now = monotonicMs();
    for (let first = this.#first; first !== undefined; first = this.#first) {
      if (first.atMs > now) {
        this.#timer = this.#wakeAt(first.atMs);
        return;
      }
      this.#pass(first);
    }
  }

  #pass(deadline: Deadline): void {
    this.end(deadline);
    const { isSent } = deadline.sentWith ?? deadline;
    deadline.error = new StoreTimeoutError(this.seconds, isSent);
    deadline.holder?.giveUp(deadline.error);
  }
}
