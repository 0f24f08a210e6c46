/**
 * A lock per session id. Calls for one id take effect in the order in which they were made. Reads of an id may run at the
 * same time; a write runs alone. Different ids do not wait for each other.
 *
 * @module
 */
import type { StoreTimeoutError } from '../errors.js';
import { Deadline, type Holder } from './deadlines.js';

/** The calls for one id. */
interface Line {
  running: number;
  isExclusive: boolean;
  waiting: Waiting[] | undefined;
}

class Waiting implements Holder {
  isOver = false;

  constructor(
    readonly isExclusive: boolean,
    readonly resolve: () => void,
    readonly reject: (error: unknown) => void,
  ) {}

  giveUp(error: StoreTimeoutError): void {
    this.isOver = true;
    this.reject(error);
  }
}

export class KeyedLock {
  readonly #lines = new Map<string, Line>();

  /**
   * Enters the line of an id. Returns `undefined` if the call may run at once, otherwise a promise that resolves when it
   * may run. The caller must call {@link leave} once afterwards.
   *
   * @throws {StoreTimeoutError} through the promise, at the deadline; the caller must not leave then
   */
  enter(id: string, isExclusive: boolean, deadline: Deadline): Promise<void> | undefined {
    const line = this.#lines.get(id);
    if (line === undefined) {
      this.#lines.set(id, { running: 1, isExclusive, waiting: undefined });
      return undefined;
    }
    if (!isExclusive && !line.isExclusive && !line.waiting?.length) {
      line.running += 1;
      return undefined;
    }
    return new Promise((resolve, reject) => {
      if (deadline.error !== undefined) return reject(deadline.error);
      const waiting = new Waiting(isExclusive, resolve, reject);
      deadline.holder = waiting;
      line.waiting ??= [];
      line.waiting.push(waiting);
    });
  }

  leave(id: string): void {
    const line = this.#lines.get(id);
    if (line === undefined) return;
    line.running -= 1;
    if (line.running > 0) return;
    let next = this.#next(line);
    if (next === undefined) {
      this.#lines.delete(id);
      return;
    }
    line.isExclusive = next.isExclusive;
    while (next !== undefined) {
      line.running += 1;
      next.resolve();
      next = line.isExclusive ? undefined : this.#next(line, false);
    }
  }

  /** Returns a promise that resolves when the current writes of all ids have left; `undefined` if there are none. */
  afterWrites(): Promise<void> | undefined {
    const turns: Promise<void>[] = [];
    for (const [id, line] of this.#lines) {
      if (!line.isExclusive && !line.waiting?.length) continue;
      const turn = this.enter(id, false, new Deadline(Number.POSITIVE_INFINITY));
      if (turn !== undefined) turns.push(turn.then(() => this.leave(id)));
    }
    return turns.length === 0 ? undefined : Promise.all(turns).then(() => {});
  }

  /** Removes and returns the next call that still waits. With `isExclusive`, only if it is of that kind. */
  #next({ waiting }: Line, isExclusive?: boolean): Waiting | undefined {
    while (waiting?.[0]?.isOver) waiting.shift();
    const next = waiting?.[0];
    if (next === undefined || (isExclusive !== undefined && next.isExclusive !== isExclusive)) {
      return undefined;
    }
    waiting?.shift();
    return next;
  }
}
