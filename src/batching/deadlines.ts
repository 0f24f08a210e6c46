/**
 * How long a call may take: from its start, through its wait for its turn and its connection, to the
 * database's answer.
 *
 * @module
 */

import { AsyncResource } from 'node:async_hooks';
import { StoreTimeoutError } from '../errors.js';
import { monotonicMs, setImmediate, setTimeout } from '../util/clock.js';

/** What a call is waiting in. It takes the call out, or leaves it to end unheard. */
export interface Holder {
  giveUp(error: StoreTimeoutError): void;
}

/** A moment at which a call gives up. */
export class Deadline {
  /** Where the call is now; `undefined` if it waits for nothing of the store's. */
  holder: Holder | undefined;
  /** Set when the moment has come. */
  error: StoreTimeoutError | undefined;
  /** @internal The list of all deadlines, oldest first. */
  previous: Deadline | undefined;
  /** @internal */
  next: Deadline | undefined;

  /** `atMs`: on the monotonic clock. */
  constructor(readonly atMs: number) {}

  /** Waits for a promise, but not beyond the deadline; `onGiveUp` runs then. */
  waitFor<T>(promise: Promise<T>, onGiveUp?: () => void): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.error !== undefined) reject(this.error);
      this.holder = {
        giveUp: (error) => {
          onGiveUp?.();
          reject(error);
        },
      };
      promise.then(resolve, reject);
    });
  }
}

/**
 * All deadlines of a store. They are all equally far away, so the oldest is always the first to pass: one
 * list and one timer serve them all, and a call that ends in time costs no timer.
 */
export class Deadlines {
  readonly seconds: number;
  #first: Deadline | undefined;
  #last: Deadline | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** The timer belongs to the store, not to the request that came first. */
  readonly #context = new AsyncResource('connect-drizzle');

  constructor(seconds: number) {
    this.seconds = seconds;
  }

  /** The deadline of what starts now, on the monotonic clock. */
  nowPlusTimeout(): number {
    return monotonicMs() + this.seconds * 1000;
  }

  /** Starts a deadline. Each is ended once. */
  start(): Deadline {
    const deadline = new Deadline(this.nowPlusTimeout());
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

  /** Runs a call with a deadline of its own. */
  async within<T>(work: (deadline: Deadline) => Promise<T>): Promise<T> {
    const deadline = this.start();
    try {
      return await work(deadline);
    } finally {
      this.end(deadline);
    }
  }

  #wakeAt(atMs: number): NodeJS.Timeout {
    const ms = Math.max(Math.ceil(atMs - monotonicMs()), 1);
    return this.#context.runInAsyncScope(() =>
      // If the event loop was blocked, answers may be waiting in the sockets: they count first.
      setTimeout(() => setImmediate(() => setImmediate(() => this.#wake())), ms).unref(),
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
      this.end(first);
      first.error = new StoreTimeoutError(this.seconds);
      first.holder?.giveUp(first.error);
    }
  }
}
