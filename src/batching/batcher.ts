/**
 * Many callers, one statement: chooses the lanes of each statement, and counts what is sent.
 *
 * @module
 */

import type { AcquireOptions, Connection, Driver } from '../drivers/driver.js';
import type { IdPage, ListPage, RowStatement, Statements } from '../queries/contract.js';
import type { ResealedRow, StoredPage } from '../queries/rekeying.js';
import type { CallTimes } from '../queries/wire.js';
import { traced, tracing } from '../util/tracing.js';
import {
  BatchedCalls,
  type BatchStats,
  type CallSettings,
  MAX_ROWS,
  pause,
  type Send,
} from './call-queue.js';
import type { Deadline, Deadlines } from './deadlines.js';
import { runDirect } from './direct.js';
import { Lanes } from './lanes.js';

export interface BatcherSettings {
  readonly driver: Driver;
  /** Maximum number of lanes for reads, and for writes. */
  readonly lanes: number;
  /** Whether a statement has one row. */
  readonly isRowByRow: boolean;
  /** Whether only the deadline limits how long a write waits for a row. */
  readonly waitsForRows: boolean;
  readonly deadlines: Deadlines;
  /** Converts a driver's error to one of this package. */
  readonly errorOf: (error: unknown) => unknown;
  /** The same, but first checks whether the table is the cause. */
  readonly explain: (error: unknown) => Promise<unknown>;
}

/** `other`: slow work that no request is waiting for. */
export type LaneKind = 'read' | 'write' | 'other';

export interface BatchedOptions<Row, Result, Settled extends Result> {
  /** How many bytes a row adds to a statement. */
  readonly bytesOf?: (row: Row) => number;
  /** Whether callers of the same row share it, and its result. */
  readonly isShared?: boolean;
  /** Whether a result is final; otherwise the row is sent again, after a pause that holds no lane. */
  readonly isSettled?: (result: Result) => result is Settled;
  /** @default 256 */
  readonly maxRows?: number | undefined;
}

/** A statement about more than one session. It fails with a {@link StoreTimeoutError} at the deadline of its call. */
export type TableCall<Args extends readonly unknown[], Result> = (
  deadline: Deadline,
  ...args: Args
) => Promise<Result>;

export class Batcher {
  readonly stats: BatchStats = { statements: 0, rows: 0, largestBatch: 0, retries: 0 };
  readonly #lanes: Readonly<Record<LaneKind, Lanes>>;
  readonly #settings: BatcherSettings;
  readonly #order = { next: 0 };

  constructor(settings: BatcherSettings) {
    this.#settings = settings;
    const { driver, deadlines } = settings;
    const { isRowByRow } = settings;
    const lanesOf = (count: number, spare = 0) =>
      new Lanes(count, driver, deadlines, { isRowByRow, spare });
    // Never more than half of the app's pool. If that is one connection, everything shares it.
    const half = Math.floor(driver.connections / 2);
    const each = Math.max(1, Math.min(settings.lanes, Math.floor(half / 2)));
    // While writes wait for locked rows, they may use another quarter of the pool.
    const spare = settings.waitsForRows ? Math.floor(driver.connections / 4) : 0;
    const read = lanesOf(each);
    this.#lanes = {
      read,
      write: half < 2 ? read : lanesOf(each, spare),
      other: half > 2 * each ? lanesOf(1) : read,
    };
  }

  /** Returns a function that sends one row, alone or together with others. */
  batched<Row, Result, Settled extends Result = Result>(
    name: string,
    kind: LaneKind,
    statement: RowStatement<Row, Result>,
    options: BatchedOptions<Row, Result, Settled> = {},
  ): Send<Row, Settled> {
    const counted = this.#counted(withTracing(name, statement, this.#settings.errorOf));
    const lanes = this.#lanes[kind];
    const settings: CallSettings<Row, Result, Settled> = {
      name,
      lanes,
      isWrite: kind === 'write',
      statement: options.isShared ? sharing(counted) : counted,
      bytesOf: options.bytesOf ?? (() => 0),
      isSettled: options.isSettled ?? ((_): _ is Settled => true),
      maxRows: options.maxRows ?? MAX_ROWS,
      explain: this.#settings.explain,
      order: this.#order,
      stats: this.stats,
    };
    const calls = new BatchedCalls(settings);
    lanes.queues.push(calls);
    return (row, deadline, onEnd) => calls.send(row, deadline, onEnd);
  }

  /** Returns a function that waits for a lane and sends a statement for one caller. */
  alone<Args extends readonly unknown[], Result>(
    name: string,
    kind: LaneKind,
    statement: (on: Connection, times: CallTimes, ...args: Args) => Promise<Result>,
  ): TableCall<Args, Result> {
    const each: RowStatement<Args, Result> = (on, calls, times) =>
      Promise.all(calls.map((args, at) => statement(on, times[at] as CallTimes, ...args)));
    const send = this.batched(name, kind, each, { maxRows: 1 });
    return (deadline, ...args) => send(args, deadline);
  }

  /** Returns a function that runs a statement on a separate connection, without a lane. */
  direct<Args extends readonly unknown[], Result>(
    statement: (on: Connection, ...args: Args) => Promise<Result>,
    options?: AcquireOptions,
  ): TableCall<Args, Result> {
    const { driver, explain } = this.#settings;
    return async (deadline, ...args) => {
      try {
        return await runDirect(driver, deadline, (on) => statement(on, ...args), options);
      } catch (error) {
        throw await deadline.waitFor(explain(error));
      }
    };
  }

  /** Repeats a statement while another transaction has locked its rows. Pauses between the tries and holds no lane then. */
  async untilFree<Result>(
    deadline: Deadline,
    send: () => Promise<Result>,
    isSettled: (result: Result) => boolean,
  ): Promise<Result> {
    for (let tries = 0; ; tries += 1) {
      const result = await send();
      if (isSettled(result)) return result;
      this.stats.retries += 1;
      await deadline.waitFor(pause(tries));
    }
  }

  #counted<Row, Result>(statement: RowStatement<Row, Result>): RowStatement<Row, Result> {
    const { stats } = this;
    return (on, rows, times) => {
      stats.statements += 1;
      stats.rows += rows.length;
      stats.largestBatch = Math.max(stats.largestBatch, rows.length);
      return statement(on, rows, times);
    };
  }
}

/** Returns the statements about more than one session, as functions that wait for a lane. */
export function tableCalls(statements: Statements, batcher: Batcher) {
  const { clear, endUser, endBeyond, list, listIds, count, prune, probe, notify } = statements;
  const { listStored, reseal } = statements;
  return {
    clear: batcher.alone('clear', 'other', clear),
    // Requests wait for these two: each log-in runs one.
    endUser: batcher.alone('end_user', 'write', endUser),
    endBeyond: batcher.alone('end_beyond', 'write', endBeyond),
    list: batcher.alone('list', 'other', (on, _, page: ListPage) => list(on, page)),
    listIds: batcher.alone('list_ids', 'other', (on, _, page: IdPage) => listIds(on, page)),
    count: batcher.alone('count', 'other', (on) => count(on)),
    listStored: batcher.alone('list_stored', 'other', (on, _, ...page: StoredPage) =>
      listStored(on, ...page),
    ),
    reseal: batcher.alone('reseal', 'other', (on, _, rows: readonly ResealedRow[]) =>
      reseal(on, rows),
    ),
    prune: batcher.direct(prune),
    probe: batcher.direct(probe),
    // In the background, so that heartbeats do not keep the process alive.
    notify: batcher.direct(
      (on, onSend: () => void, channel: string, payload: string) => {
        onSend();
        return notify(on, channel, payload);
      },
      { isBackground: true },
    ),
  };
}

export type TableCalls = ReturnType<typeof tableCalls>;

/** Wraps a statement so that it gets each row once. Only for reads: the times of the calls no longer match the rows. */
function sharing<Row, Result>(statement: RowStatement<Row, Result>): RowStatement<Row, Result> {
  return (on, rows, times) =>
    rows.length === 1 ? statement(on, rows, times) : shared(on, rows, times, statement);
}

async function shared<Row, Result>(
  on: Connection,
  rows: readonly Row[],
  times: readonly CallTimes[],
  statement: RowStatement<Row, Result>,
): Promise<readonly Result[]> {
  const distinct = [...new Set(rows)];
  const results = await statement(on, distinct, times);
  if (distinct.length === rows.length) return results;
  const places = new Map(distinct.map((row, at) => [row, at]));
  return rows.map((row) => results[places.get(row) as number] as Result);
}

/** Publishes each statement. Subscribers get the callers' error, because a driver's error can contain a row. */
function withTracing<Row, Result>(
  name: string,
  statement: RowStatement<Row, Result>,
  errorOf: BatcherSettings['errorOf'],
): RowStatement<Row, Result> {
  return (on, rows, times) =>
    tracing.statement.hasSubscribers
      ? traced({ operation: 'statement', statement: name, rows: rows.length }, () =>
          statement(on, rows, times).catch((error) => {
            throw errorOf(error);
          }),
        )
      : statement(on, rows, times);
}
