/**
 * How long anybody waits for the database.
 *
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
// The functions themselves: an app's tests may have put a clock of their own into the place of the global ones.
import { performance } from 'node:perf_hooks';
import { setTimeout } from 'node:timers';
import { StoreTimeoutError } from '../errors.js';

interface Waiting {
  /** On the monotonic clock, in milliseconds. */
  readonly deadline: number;
  readonly giveUp: () => void;
}

/**
 * Waits for answers, for so many seconds each. Whoever has asked for one goes on without it; what was
 * asked may still take effect. There is one timer for all: what has waited longest is always the first.
 */
export class Patience {
  readonly #seconds: number;
  readonly #waiting = new Set<Waiting>();
  /** The timer is everybody's, and in no caller's context. */
  readonly #context = new AsyncResource('connect-drizzle');
  #timer: NodeJS.Timeout | undefined;

  constructor(seconds: number) {
    this.#seconds = seconds;
  }

  /** @throws {StoreTimeoutError} */
  waitFor<T>(answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        deadline: performance.now() + this.#seconds * 1000,
        giveUp: () => reject(new StoreTimeoutError(this.#seconds)),
      };
      this.#waiting.add(waiting);
      this.#timer ??= this.#wakeAt(waiting.deadline);
      answer.then(
        (value) => {
          this.#waiting.delete(waiting);
          resolve(value);
        },
        (error) => {
          this.#waiting.delete(waiting);
          reject(error);
        },
      );
    });
  }

  #wakeAt(deadline: number): NodeJS.Timeout {
    const ms = Math.ceil(deadline - performance.now());
    return this.#context.runInAsyncScope(() => setTimeout(() => this.#wake(), ms).unref());
  }

  #wake(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const waiting of this.#waiting) {
      if (waiting.deadline > now) {
        this.#timer = this.#wakeAt(waiting.deadline);
        return;
      }
      this.#waiting.delete(waiting);
      waiting.giveUp();
    }
  }
}
