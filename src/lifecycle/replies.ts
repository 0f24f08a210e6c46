/**
 * Delivers the results of calls to a Node callback or with a promise.
 *
 * @module
 */
import type { Deadline } from '../batching/deadlines.js';
import type { StoredRow } from '../queries/wire.js';
import type { List } from '../session/listing.js';
import { clearTimeout, monotonicMs, nextTick, setTimeout } from '../util/clock.js';
import { tracing } from '../util/tracing.js';
import type { Opened, Runtime } from './runtime.js';

/** A Node callback. express-session passes one to every method. */
export type Callback<T> = (error?: unknown, result?: T) => void;

/** @internal Runs the calls of a store and delivers their results. */
export class Replies {
  readonly #runtime: Runtime;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  /**
   * Runs a call (see {@link Runtime.perform}). Without a callback, returns a promise of the result.
   *
   * Calls the callback in the next tick, and creates the result just before. If all sessions of a batch were created at
   * once, they would survive a run of the garbage collector.
   */
  run<T>(
    callback: Callback<T> | undefined,
    prepare: () => (opened: Opened, deadline: Deadline) => Promise<T>,
  ): Promise<T>;
  run<T, Result>(
    callback: Callback<Result> | undefined,
    prepare: () => (opened: Opened, deadline: Deadline) => Promise<T>,
    onResult: (value: T) => Result,
    onError?: (error: unknown) => Result,
  ): Promise<Result>;
  run(
    callback: Callback<unknown> | undefined,
    prepare: () => (opened: Opened, deadline: Deadline) => Promise<unknown>,
    onResult: (value: unknown) => unknown = identity,
    onError: (error: unknown) => unknown = rethrow,
  ): Promise<unknown> | undefined {
    if (typeof callback !== 'function') {
      return this.promise(this.#runtime.perform(prepare, onResult, onError));
    }
    void this.#runtime.perform(
      prepare,
      (value) => nextTick(reply, callback, onResult, value),
      (error) => nextTick(reply, callback, onError, error),
    );
    return undefined;
  }

  /** Runs a call that needs no preparation. */
  query<T>(
    callback: Callback<T> | undefined,
    run: (opened: Opened, deadline: Deadline) => Promise<T>,
  ): Promise<T> {
    return this.run(callback, () => run);
  }

  /** Runs a call. Its caller handles a rejection. */
  perform<T>(run: (opened: Opened, deadline: Deadline) => Promise<T>): Promise<T> {
    return this.#runtime.perform(() => run, identity<T>, rethrow);
  }

  /** Reads a page of a listing. */
  readonly list: List = (page) =>
    this.perform(afterWrites(({ statements }, deadline) => statements.list(deadline, page)));

  /**
   * Returns a promise that the caller may not await. Passes its rejection to `errorLog`, so that it never counts as
   * unhandled, which would end the process.
   */
  promise<T>(promise: Promise<T>): Promise<T> {
    promise.catch((error) => this.#runtime.log('A session store call failed', error));
    return promise;
  }

  /**
   * Returns a promise that the app usually awaits at startup. The app then prints the error with its stack, so `errorLog`
   * gets only the message.
   */
  startup<T>(promise: Promise<T>): Promise<T> {
    promise.catch((error) => {
      const reason = error instanceof Error ? error.message : String(error);
      this.#runtime.log(`A session store call failed: ${reason}`);
    });
    return promise;
  }

  /** Replies with the outcome of a promise. */
  settle<T>(callback: Callback<T> | undefined, done: Promise<T>): Promise<T> | undefined {
    if (typeof callback !== 'function') return this.promise(done);
    done.then(
      (value) => nextTick(callback, null, value),
      (error) => nextTick(callback, error),
    );
    return undefined;
  }

  /** Replies with a known value. */
  now<T>(callback: Callback<T> | undefined, value: T): Promise<T> | undefined {
    if (typeof callback !== 'function') return Promise.resolve(value);
    nextTick(callback, null, value);
    return undefined;
  }

  /**
   * Returns the result of `load` for the cached row of an id, without a promise; `null` if the result is undefined. Returns
   * `undefined` if the call has to run: no row is cached, or `load` threw and the caller must get the error.
   */
  cached<T>(id: string, load: (row: StoredRow) => T | undefined): T | null | undefined {
    if (this.#runtime.isClosed || tracing.get.hasSubscribers) return undefined;
    const row = this.#runtime.opened?.rows.peek(id);
    try {
      return row && (load(row) ?? null);
    } catch {
      return undefined;
    }
  }
}

/** Creates a result and passes it to a callback. */
function reply<T>(callback: Callback<unknown>, create: (from: T) => unknown, from: T): void {
  let result: unknown;
  try {
    result = create(from);
  } catch (error) {
    callback(error);
    return;
  }
  callback(null, result);
}

function identity<T>(value: T): T {
  return value;
}

function rethrow(error: unknown): never {
  throw error;
}

/** @internal Runs a call after the source is open. */
export type Run<T> = (opened: Opened, deadline: Deadline) => Promise<T>;

/** A write that takes longer waits for a lock or the network. Calls about many sessions do not wait for it. */
const WRITES_WAIT_MS = 5000;

/**
 * @internal
 * Returns a call about many sessions that runs after the current writes, so that it includes a session that the app has
 * just set without awaiting it.
 */
export function afterWrites<T>(run: Run<T>): Run<T> {
  return async (opened, deadline) => {
    const written = opened.rows.afterWrites();
    if (written !== undefined) {
      // Half of the time is for the call itself.
      const waitMs = Math.min(WRITES_WAIT_MS, (deadline.atMs - monotonicMs()) / 2);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        void written.finally(() => clearTimeout(timer)).then(resolve);
      });
    }
    return run(opened, deadline);
  };
}
