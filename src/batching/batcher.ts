/**
 * Many callers, one statement.
 *
 * Calls gather, statement by statement, until a lane takes them (see `lanes.ts`): the oldest, with all that
 * wait for the same statement, up to 256 rows or 1 MiB. What the server refuses of many is split, until
 * the guilty row has the error; what another transaction stood in the way of is sent again.
 *
 * A caller gets a promise of its own, made in its own async context and only ever resolved from here:
 * what it does next runs in its context, not in that of the call that filled the batch.
 *
 * @module
 */
// The functions themselves: an app's tests may have put a clock of their own into the place of the global ones.
import { performance } from 'node:perf_hooks';
import { setTimeout } from 'node:timers';
import { isConnectionFailure, StoreTimeoutError, sqlState } from '../errors.js';
import type { Statement, Statements } from '../queries/statements.js';
import { traced } from '../util/tracing.js';
import { Lanes } from './lanes.js';

const MAX_ROWS = 256;
const MAX_BYTES = 1024 * 1024;

/** Waits between tries of what another transaction stood in the way of. */
const FIRST_BACKOFF_MS = 2;
const LONGEST_BACKOFF_MS = 100;

/** Deadlock detected, could not serialize, lock not available: the same statement may succeed when sent again. */
const TRANSIENT = new Set(['40P01', '40001', '55P03']);

export interface BatchSettings {
  readonly connections: number;
  /** Lanes of reads and of writes each, at most. */
  readonly lanes: number;
  /** Seconds. */
  readonly timeout: number;
}

/** What the batcher has done so far. */
export interface BatchStats {
  statements: number;
  rows: number;
  largestBatch: number;
  retries: number;
}

interface Call<Row, Settled> {
  readonly row: Row;
  readonly bytes: number;
  readonly deadline: number;
  readonly order: number;
  readonly resolve: (result: Settled) => void;
  readonly reject: (error: unknown) => void;
  readonly onEnd: ((result?: Settled) => void) | undefined;
  tries: number;
  /** Whether it failed alone, for another transaction's sake: it is sent alone from then on. */
  isSuspect: boolean;
}

/** A statement and the calls that wait for it. */
interface Queue<Row, Result, Settled extends Result> {
  readonly lanes: Lanes;
  readonly isWrite: boolean;
  readonly statement: Statement<Row, Result>;
  readonly isSettled: (result: Result) => result is Settled;
  readonly waiting: Call<Row, Settled>[];
}

export interface BatchedOptions<Row, Result, Settled extends Result> {
  /** How many bytes a row adds to a statement. */
  readonly bytesOf?: (row: Row) => number;
  /** Whether callers of the same row share it, and its result. */
  readonly isShared?: boolean;
  /** Whether a result is one; a row whose result is none is sent again, after a pause that holds no lane. */
  readonly isSettled?: (result: Result) => result is Settled;
  /** @default 256 */
  readonly maxRows?: number;
}

/**
 * Sends a row. `onEnd` is called when the promise has been settled, before anybody hears of it, with the result
 * where there is one.
 */
export type Send<Row, Settled> = (row: Row, onEnd?: (result?: Settled) => void) => Promise<Settled>;

/** Whose lanes a statement takes: `other` is for what may take long and nobody's request waits for. */
export type LaneKind = 'read' | 'write' | 'other';

export class Batcher {
  readonly stats: BatchStats = { statements: 0, rows: 0, largestBatch: 0, retries: 0 };
  readonly #reads: Lanes;
  readonly #writes: Lanes;
  readonly #others: Lanes;
  readonly #timeoutMs: number;
  #calls = 0;

  constructor({ connections, lanes, timeout }: BatchSettings) {
    // Never more than half of the pool; where that is one connection, reads and writes share it.
    const half = Math.floor(connections / 2);
    const each = Math.max(1, Math.min(lanes, Math.floor(half / 2)));
    this.#reads = new Lanes(each);
    this.#writes = half < 2 ? this.#reads : new Lanes(each);
    this.#others = half > 2 * each ? new Lanes(1) : this.#reads;
    this.#timeoutMs = timeout * 1000;
  }

  /** Makes a function that sends one row, alone or with others, and gives its result. */
  batched<Row, Result, Settled extends Result = Result>(
    name: string,
    lane: LaneKind,
    statement: Statement<Row, Result>,
    {
      bytesOf = () => 0,
      isShared = false,
      isSettled = (_): _ is Settled => true,
      maxRows = MAX_ROWS,
    }: BatchedOptions<Row, Result, Settled> = {},
  ): Send<Row, Settled> {
    const lanes = { read: this.#reads, write: this.#writes, other: this.#others }[lane];
    const counted = this.#counted(traceStatement(name, statement));
    const queue: Queue<Row, Result, Settled> = {
      lanes,
      isWrite: lane === 'write',
      statement: isShared ? shared(counted) : counted,
      isSettled,
      waiting: [],
    };
    const { waiting } = queue;
    lanes.kinds.push({
      get head() {
        return waiting[0]?.order ?? Number.POSITIVE_INFINITY;
      },
      run: () => {
        const most = Math.min(lanes.share(waiting.length), maxRows);
        return this.#run(queue, take(lanes, waiting, most));
      },
    });
    return (row, onEnd) =>
      new Promise((resolve, reject) => {
        waiting.push({
          row,
          bytes: bytesOf(row),
          deadline: performance.now() + this.#timeoutMs,
          order: this.#calls,
          resolve,
          reject,
          onEnd,
          tries: 0,
          isSuspect: false,
        });
        this.#calls += 1;
        lanes.waiting += 1;
        lanes.flushSoon();
      });
  }

  /** Makes a function that sends a statement for its caller alone. It waits for a lane like all others. */
  alone<Args extends readonly unknown[], Result>(
    name: string,
    lane: LaneKind,
    statement: (...args: Args) => Promise<Result>,
  ): (...args: Args) => Promise<Result> {
    const each: Statement<Args, Result> = (calls) =>
      Promise.all(calls.map((args) => statement(...args)));
    const send = this.batched(name, lane, each, { maxRows: 1 });
    return (...args) => send(args);
  }

  /** Sends a statement again, after a pause that holds no lane, while another transaction stands in its way. */
  async untilFree<Result>(
    send: () => Promise<Result>,
    isSettled: (result: Result) => boolean,
  ): Promise<Result> {
    const deadline = performance.now() + this.#timeoutMs;
    for (let tries = 0; ; tries += 1) {
      const result = await send();
      if (isSettled(result)) return result;
      if (performance.now() > deadline) throw new StoreTimeoutError(this.#timeoutMs / 1000);
      this.stats.retries += 1;
      await pause(backoff(tries));
    }
  }

  async #run<Row, Result, Settled extends Result>(
    queue: Queue<Row, Result, Settled>,
    calls: readonly Call<Row, Settled>[],
  ): Promise<void> {
    const due = this.#due(calls);
    if (due.length === 0) return;
    queue.lanes.inFlight += due.length;
    let results: readonly Result[];
    try {
      results = await queue.statement(due.map((call) => call.row));
    } catch (error) {
      queue.lanes.inFlight -= due.length;
      await this.#refused(queue, due, error);
      return;
    }
    queue.lanes.inFlight -= due.length;
    for (const [at, call] of due.entries()) {
      const result = results[at] as Result;
      if (queue.isSettled(result)) resolve(call, result);
      else this.#sendLater(queue, call);
    }
  }

  #counted<Row, Result>(statement: Statement<Row, Result>): Statement<Row, Result> {
    const { stats } = this;
    return (rows) => {
      stats.statements += 1;
      stats.rows += rows.length;
      stats.largestBatch = Math.max(stats.largestBatch, rows.length);
      return statement(rows);
    };
  }

  /** The calls that still wait for an answer; the others have waited for too long. */
  #due<Row, Settled>(calls: readonly Call<Row, Settled>[]): readonly Call<Row, Settled>[] {
    const now = performance.now();
    if (calls.every((call) => call.deadline > now)) return calls;
    return calls.filter((call) => {
      const isDue = call.deadline > now;
      if (!isDue) reject(call, new StoreTimeoutError(this.#timeoutMs / 1000));
      return isDue;
    });
  }

  /** A statement that failed: its rows are sent again, apart, or everybody has the error. */
  async #refused<Row, Result, Settled extends Result>(
    queue: Queue<Row, Result, Settled>,
    calls: readonly Call<Row, Settled>[],
    error: unknown,
  ): Promise<void> {
    const state = sqlState(error);
    const isTransient = state !== undefined && TRANSIENT.has(state);
    const [first] = calls;
    if (calls.length > 1 && (isTransient || (queue.isWrite && concernsRows(state)))) {
      this.stats.retries += 1;
      const half = Math.ceil(calls.length / 2);
      await this.#run(queue, calls.slice(0, half));
      await this.#run(queue, calls.slice(half));
    } else if (isTransient && first !== undefined) {
      first.isSuspect = true;
      this.#sendLater(queue, first);
    } else {
      for (const call of calls) reject(call, error);
    }
  }

  /** Puts a call back in its place after a pause, during which its lane serves others. */
  #sendLater<Row, Result, Settled extends Result>(
    queue: Queue<Row, Result, Settled>,
    call: Call<Row, Settled>,
  ): void {
    this.stats.retries += 1;
    void pause(backoff(call.tries)).then(() => {
      queue.lanes.waiting += 1;
      queue.waiting.unshift(call);
      queue.lanes.flushSoon();
    });
    call.tries += 1;
  }
}

function resolve<Settled>(call: Call<unknown, Settled>, result: Settled): void {
  call.resolve(result);
  call.onEnd?.(result);
}

function reject(call: Call<unknown, never>, error: unknown): void {
  call.reject(error);
  call.onEnd?.();
}

/**
 * The same statements, with those on lanes that concern no single row, but answer somebody: a burst of log-ins
 * counts a user's sessions each. (Pruning, the probe and heartbeats go past the lanes.)
 */
export function onLanes(statements: Statements, batcher: Batcher): Statements {
  const { clear, endUser, endBeyond, list, listIds, count } = statements;
  return {
    ...statements,
    clear: batcher.alone('clear', 'other', clear),
    endUser: batcher.alone('end_user', 'write', endUser),
    endBeyond: batcher.alone('end_beyond', 'write', endBeyond),
    list: batcher.alone('list', 'other', list),
    listIds: batcher.alone('list_ids', 'other', listIds),
    count: batcher.alone('count', 'other', count),
  };
}

/**
 * Takes the oldest calls that fit into one statement; one of any size always does. What has failed for another
 * transaction's sake goes alone, so that nobody waits for it twice.
 */
function take<Row, Settled>(
  lanes: Lanes,
  waiting: Call<Row, Settled>[],
  most: number,
): Call<Row, Settled>[] {
  let bytes = 0;
  let count = 0;
  for (const call of waiting) {
    bytes += call.bytes;
    if (count > 0 && (call.isSuspect || count === most || bytes > MAX_BYTES)) break;
    count += 1;
    if (call.isSuspect) break;
  }
  lanes.waiting -= count;
  return waiting.splice(0, count);
}

/**
 * Whether the server refused something in the rows, not the statement, the connection or everything: a
 * limit of the server's that one row exceeds (54000) too.
 */
function concernsRows(state: string | undefined): boolean {
  if (state === undefined || isConnectionFailure(state) || state === '25006') {
    return false;
  }
  return state === '42501' || !state.startsWith('42');
}

/** The same statement, over each of its rows once. */
function shared<Row, Result>(statement: Statement<Row, Result>): Statement<Row, Result> {
  return async (rows) => {
    const distinct = [...new Set(rows)];
    const results = await statement(distinct);
    if (distinct.length === rows.length) return results;
    const places = new Map(distinct.map((row, at) => [row, at]));
    return rows.map((row) => results[places.get(row) as number] as Result);
  };
}

function traceStatement<Row, Result>(
  name: string,
  statement: Statement<Row, Result>,
): Statement<Row, Result> {
  return (rows) =>
    traced({ operation: 'statement', statement: name, rows: rows.length }, () => statement(rows));
}

/** Doubled at each try, and jittered, so that two that stand in each other's way come apart. */
function backoff(tries: number): number {
  return Math.min(FIRST_BACKOFF_MS * 2 ** tries, LONGEST_BACKOFF_MS) * (0.5 + Math.random());
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
