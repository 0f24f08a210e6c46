/**
 * The queue of calls for one statement, with retries.
 *
 * If the server refuses a batch, the queue splits it until only the caller at fault gets the error. If another
 * transaction has locked a row, the queue sends the row again.
 *
 * A caller's promise is created in its own async context and only resolved here. So the caller continues in its own
 * context, not in the context of the call that filled the batch.
 *
 * @module
 */

import { AsyncResource } from 'node:async_hooks';
import type { Connection } from '../drivers/driver.js';
import { isUnusable, type StoreTimeoutError, sqlState } from '../errors.js';
import type { RowStatement } from '../queries/contract.js';
import { type Backoff, backoffMs } from '../util/backoff.js';
import { setTimeout } from '../util/clock.js';
import { asBatch } from '../util/opentelemetry.js';
import { concernsServer, isInDoubt, isTransient } from '../util/sql-states.js';
import type { Deadline, Holder } from './deadlines.js';
import type { CallQueue, Lanes } from './lanes.js';

/** Limits for one statement. */
export const MAX_ROWS = 256;
const MAX_BYTES = 1024 * 1024;

const BACKOFF: Backoff = { firstMs: 2, longestMs: 100 };

/**
 * Runs when a call has ended, before its caller continues. Gets the result if there is one. `isInDoubt`: the call was
 * sent, and the server may still run it.
 */
export type OnEnd<Settled> = (result: Settled | undefined, isInDoubt: boolean) => void;

/** Sends a row. */
export type Send<Row, Settled> = (
  row: Row,
  deadline: Deadline,
  onEnd?: OnEnd<Settled>,
) => Promise<Settled>;

export interface BatchStats {
  statements: number;
  rows: number;
  largestBatch: number;
  retries: number;
}

export interface CallSettings<Row, Result, Settled extends Result> {
  readonly name: string;
  readonly lanes: Lanes;
  readonly isWrite: boolean;
  readonly statement: RowStatement<Row, Result>;
  readonly bytesOf: (row: Row) => number;
  readonly isSettled: (result: Result) => result is Settled;
  readonly maxRows: number;
  readonly explain: (error: unknown) => Promise<unknown>;
  /** Numbers the calls of all queues in the order of their arrival. */
  readonly order: { next: number };
  readonly stats: BatchStats;
}

/** An async resource, because it keeps the async context of its caller. */
class Call<Row, Settled> extends AsyncResource implements Holder {
  tries = 0;
  isSent = false;
  /** Whether the caller has a result or an error, or has given up. */
  isOver = false;
  /** Set after it failed alone because of another transaction. It is then sent alone, so that other calls do not wait for it. */
  isSuspect = false;
  /** Whether the same caller has sent other statements before. */
  readonly #followsOthers: boolean;

  constructor(
    readonly row: Row,
    readonly deadline: Deadline,
    readonly order: number,
    readonly resolve: (result: Settled) => void,
    readonly reject: (error: unknown) => void,
    readonly onEnd: OnEnd<Settled> | undefined,
  ) {
    super('connect-drizzle');
    this.#followsOthers = deadline.isSent;
  }

  sent(): void {
    this.isSent = true;
    this.deadline.isSent = true;
  }

  /** Marks the call as not sent: the server has done nothing, and the queue will send it again. */
  unsent(): void {
    this.isSent = false;
    this.deadline.isSent = this.#followsOthers;
  }

  succeed(result: Settled): void {
    this.deadline.holder = undefined;
    if (!this.isOver) this.resolve(result);
    this.isOver = true;
    this.onEnd?.(result, false);
  }

  fail(error: unknown, isInDoubt = false): void {
    this.deadline.holder = undefined;
    if (!this.isOver) this.reject(error);
    this.isOver = true;
    this.onEnd?.(undefined, isInDoubt);
  }

  /** The caller stops waiting. If the call was not sent, it never will be. If it was, its result is ignored. */
  giveUp(error: StoreTimeoutError): void {
    if (!this.isSent) this.fail(error);
    else {
      this.isOver = true;
      this.reject(error);
    }
  }
}

export class BatchedCalls<Row, Result, Settled extends Result> implements CallQueue {
  /** Oldest first. */
  readonly #waiting: Call<Row, Settled>[] = [];
  readonly #settings: CallSettings<Row, Result, Settled>;

  constructor(settings: CallSettings<Row, Result, Settled>) {
    this.#settings = settings;
  }

  get size(): number {
    // The oldest calls give up first. Remove those, so that no lane acquires a connection for them.
    while (this.#waiting[0]?.isOver) this.#waiting.shift();
    return this.#waiting.length;
  }

  get oldest(): number {
    return this.#waiting[0]?.order ?? Number.POSITIVE_INFINITY;
  }

  get caller(): AsyncResource | undefined {
    return this.#waiting[0];
  }

  send(row: Row, deadline: Deadline, onEnd?: OnEnd<Settled>): Promise<Settled> {
    const { order, lanes } = this.#settings;
    return new Promise((resolve, reject) => {
      const call = new Call(row, deadline, order.next, resolve, reject, onEnd);
      order.next += 1;
      if (deadline.error !== undefined) return call.fail(deadline.error);
      deadline.holder = call;
      this.#waiting.push(call);
      lanes.flushSoon();
    });
  }

  run(on: Connection, most: number): Promise<void> {
    const calls = this.#take(Math.min(most, this.#settings.maxRows));
    return calls.length === 0 ? Promise.resolve() : this.#send(on, calls);
  }

  async fail(error: unknown): Promise<void> {
    await this.#fail(
      this.#waiting.splice(0).filter((call) => !call.isOver),
      error,
    );
  }

  /** Takes the oldest calls that fit into one statement; at least one, of any size. */
  #take(most: number): Call<Row, Settled>[] {
    const { bytesOf } = this.#settings;
    const isAlone = this.#waiting.length === 1;
    const taken: Call<Row, Settled>[] = [];
    let bytes = 0;
    let count = 0;
    for (const call of this.#waiting) {
      if (!call.isOver) {
        if (!isAlone) bytes += bytesOf(call.row);
        const isFull = taken.length === most || bytes > MAX_BYTES;
        if (taken.length > 0 && (call.isSuspect || isFull)) break;
        taken.push(call);
      }
      count += 1;
      if (call.isSuspect && !call.isOver) break;
    }
    if (count === 1) this.#waiting.shift();
    else this.#waiting.splice(0, count);
    return taken;
  }

  #send(on: Connection, calls: readonly Call<Row, Settled>[]): Promise<void> {
    const { name, lanes, statement } = this.#settings;
    lanes.inFlight += calls.length;
    for (const call of calls) call.sent();
    const rows = calls.map((call) => call.row);
    const times = calls.map((call) => call.deadline);
    const [first] = calls;
    const answered =
      calls.length === 1 && first !== undefined
        ? first.runInAsyncScope(statement, undefined, on, rows, times)
        : asBatch(name, calls, () => statement(on, rows, times));
    return answered.then(
      (results) => {
        lanes.inFlight -= calls.length;
        this.#answer(calls, results);
      },
      (error) => {
        lanes.inFlight -= calls.length;
        return this.#refused(on, calls, error);
      },
    );
  }

  #answer(calls: readonly Call<Row, Settled>[], results: readonly Result[]): void {
    for (let at = 0; at < calls.length; at += 1) {
      const call = calls[at] as Call<Row, Settled>;
      const result = results[at] as Result;
      if (this.#settings.isSettled(result)) call.succeed(result);
      else this.#sendAgain(call);
    }
  }

  /** After a statement failed, sends its rows again in halves, or rejects all its calls. */
  async #refused(on: Connection, calls: readonly Call<Row, Settled>[], error: unknown) {
    const { isWrite, stats } = this.#settings;
    const state = sqlState(error);
    const mayRetry = isTransient(state);
    const [first] = calls;
    if (calls.length > 1 && (mayRetry || (isWrite && concernsRows(state)))) {
      stats.retries += 1;
      const half = Math.ceil(calls.length / 2);
      await this.#send(on, calls.slice(0, half));
      await this.#send(on, calls.slice(half));
    } else if (mayRetry && first !== undefined) {
      first.isSuspect = true;
      this.#sendAgain(first);
    } else {
      if (isUnusable(error)) on.destroy();
      // Not awaited: finding the reason needs a connection, and this lane may hold the only one.
      void this.#fail(calls, error);
    }
  }

  async #fail(calls: readonly Call<Row, Settled>[], error: unknown): Promise<void> {
    const reason = await this.#settings.explain(error);
    const wasLost = isInDoubt(sqlState(error));
    for (const call of calls) {
      if (!call.isOver || call.isSent) call.fail(reason, call.isSent && wasLost);
    }
  }

  /** Sends a call again after a pause, in its old place in the queue. Holds no lane during the pause. */
  #sendAgain(call: Call<Row, Settled>): void {
    const { stats, lanes } = this.#settings;
    call.unsent();
    if (call.isOver) {
      call.onEnd?.(undefined, false);
      return;
    }
    stats.retries += 1;
    void pause(call.tries).then(() => {
      if (call.isOver) return;
      const waiting = this.#waiting;
      const at = waiting.findIndex((other) => other.order > call.order);
      waiting.splice(at === -1 ? waiting.length : at, 0, call);
      lanes.flushSoon();
    });
    call.tries += 1;
  }
}

/**
 * Whether the cause of an error is in the rows, not in the statement or the connection. This includes a row that exceeds a
 * limit of the server (54000).
 */
function concernsRows(state: string | undefined): boolean {
  if (state === undefined || concernsServer(state)) return false;
  return state === '42501' || !state.startsWith('42');
}

/** Pauses before a retry, longer after each try. */
export function pause(tries: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, backoffMs(tries, BACKOFF));
  });
}
