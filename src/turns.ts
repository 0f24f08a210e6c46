/**
 * The order of calls on one id: they take effect in the order in which they came. Reads of an id may
 * run side by side; a write runs alone. Ids do not wait for each other.
 *
 * @module
 */

interface Waiting {
  readonly exclusive: boolean;
  readonly start: () => void;
}

interface Line {
  running: number;
  exclusive: boolean;
  readonly waiting: Waiting[];
}

export class Turns {
  readonly #lines = new Map<string, Line>();

  /** Whether anything of this id is running or waiting. */
  has(id: string): boolean {
    return this.#lines.has(id);
  }

  /** Runs `work` once all earlier writes of this id have ended. */
  shared<T>(id: string, work: () => Promise<T>): Promise<T> {
    return this.#take(id, false, work);
  }

  /** Runs `work` once everything earlier of this id has ended. */
  exclusive<T>(id: string, work: () => Promise<T>): Promise<T> {
    return this.#take(id, true, work);
  }

  #take<T>(id: string, exclusive: boolean, work: () => Promise<T>): Promise<T> {
    const turn = this.#enter(id, exclusive);
    const result = turn === undefined ? started(work) : turn.then(work);
    const leave = () => this.#leave(id);
    result.then(leave, leave);
    return result;
  }

  /** Takes a place; `undefined` where it is one's turn at once. */
  #enter(id: string, exclusive: boolean): Promise<void> | undefined {
    const line = this.#lines.get(id);
    if (line === undefined) {
      this.#lines.set(id, { running: 1, exclusive, waiting: [] });
      return undefined;
    }
    if (!exclusive && !line.exclusive && line.waiting.length === 0) {
      line.running += 1;
      return undefined;
    }
    return new Promise((start) => line.waiting.push({ exclusive, start }));
  }

  #leave(id: string): void {
    const line = this.#lines.get(id);
    if (line === undefined) return;
    line.running -= 1;
    if (line.running > 0) return;
    let next = line.waiting.shift();
    if (next === undefined) {
      this.#lines.delete(id);
      return;
    }
    line.exclusive = next.exclusive;
    while (next !== undefined) {
      line.running += 1;
      next.start();
      const following: Waiting | undefined = line.waiting[0];
      next = !line.exclusive && following?.exclusive === false ? line.waiting.shift() : undefined;
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
