/**
 * The order of calls on one id: they take effect in the order in which they came. Reads of an id may
 * run side by side; a write runs alone. Ids do not wait for each other.
 *
 * @module
 */

// The function itself: an app's tests may have put a clock of their own into the place of the global one.
import { performance } from 'node:perf_hooks';
import { StoreTimeoutError } from '../errors.js';

interface Waiting {
  readonly exclusive: boolean;
  readonly start: () => void;
}

interface Line {
  running: number;
  exclusive: boolean;
  waiting: Waiting[] | undefined;
}

export class Turns {
  readonly #lines = new Map<string, Line>();
  readonly #timeout: number;

  /** `timeout`: how many seconds a call waits for its turn. */
  constructor(timeout: number) {
    this.#timeout = timeout;
  }

  /** Runs `work` once everything earlier of this id has ended. */
  exclusive<T>(id: string, work: () => Promise<T>): Promise<T> {
    const turn = this.enter(id, true);
    const leave = () => this.leave(id);
    const run = () => {
      const result = started(work);
      result.then(leave, leave);
      return result;
    };
    return turn === undefined ? run() : turn.then(run);
  }

  /**
   * Takes a place, to be left once; `undefined` where it is one's turn at once, else when it is. A turn that comes too
   * late is given up: what waits behind what hangs does not hang for as long again.
   *
   * @throws {StoreTimeoutError} by the promise; there is then nothing to leave
   */
  enter(id: string, exclusive: boolean): Promise<void> | undefined {
    const line = this.#lines.get(id);
    if (line === undefined) {
      this.#lines.set(id, { running: 1, exclusive, waiting: undefined });
      return undefined;
    }
    if (!exclusive && !line.exclusive && !line.waiting?.length) {
      line.running += 1;
      return undefined;
    }
    const deadline = performance.now() + this.#timeout * 1000;
    return new Promise((resolve, reject) => {
      const start = () => {
        if (performance.now() < deadline) {
          resolve();
          return;
        }
        reject(new StoreTimeoutError(this.#timeout));
        queueMicrotask(() => this.leave(id));
      };
      line.waiting ??= [];
      line.waiting.push({ exclusive, start });
    });
  }

  leave(id: string): void {
    const line = this.#lines.get(id);
    if (line === undefined) return;
    line.running -= 1;
    if (line.running > 0) return;
    let next = line.waiting?.shift();
    if (next === undefined) {
      this.#lines.delete(id);
      return;
    }
    line.exclusive = next.exclusive;
    while (next !== undefined) {
      line.running += 1;
      next.start();
      const following: Waiting | undefined = line.waiting?.[0];
      next = !line.exclusive && following?.exclusive === false ? line.waiting?.shift() : undefined;
    }
  }
}

/** What fails before its first wait must give its place back as well. */
function started<T>(work: () => Promise<T>): Promise<T> {
  try {
    return work();
  } catch (error) {
    return Promise.reject(error);
  }
}
