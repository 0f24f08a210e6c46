/**
 * Bun's SQL. Each statement runs on a connection that the store reserves from the app's pool.
 *
 * @module
 */
import { unlessAborted } from '../util/abort.js';
import { clearTimeout, monotonicMs, setTimeout } from '../util/clock.js';
import { hasMethod, isObject, property } from '../util/guards.js';
import { isSqlState } from '../util/sql-states.js';
import type { Connection, Driver, Listen, Query, Result, Value } from './driver.js';
import { noConnectionWithin } from './support/no-connection.js';
import { ServerClock } from './support/server-clock.js';
import { transactionOn } from './support/transaction.js';

/** The parts of an `SQL` that the store uses. */
export interface BunSql {
  readonly options: object;
  reserve(options: { readonly signal: AbortSignal }): Promise<ReservedSql>;
  /** Older versions of Bun do not have it. */
  listen?(
    channel: string,
    onNotify: (payload: string) => void,
    onListen: () => void,
  ): Promise<Subscription>;
  close(options: { readonly timeout: number }): Promise<void>;
}

interface ReservedSql {
  unsafe(text: string, values: readonly Value[]): BunQuery;
  release(): unknown;
  close(options: { readonly timeout: number }): Promise<void>;
}

interface BunQuery extends Promise<unknown> {
  /** Returns rows as arrays of bytes from the server: text, because the statements select all columns as text. */
  raw(): Promise<RawRows>;
  cancel(): unknown;
}

interface RawRows extends Array<readonly (Uint8Array | null)[]> {
  readonly count: number | null;
}

interface Subscription {
  unlisten(): Promise<void>;
}

const DEFAULT_MAX = 10;

export function bunSql(sql: BunSql): Driver {
  const { max } = sql.options as { readonly max?: unknown };
  const clock = new ServerClock();
  const acquire = (deadlineMs: number) => reserved(sql, deadlineMs, clock);
  return {
    connections: typeof max === 'number' && max >= 1 ? max : DEFAULT_MAX,
    idle: 0,
    acquire,
    listen: listenOn(sql),
    transaction: async (work, { deadlineMs = Number.POSITIVE_INFINITY, signal } = {}) =>
      transactionOn(await acquire(deadlineMs), work, signal),
    close: async () => {},
  };
}

/** Bun closes a connection that is released inside a transaction, so no transaction of the app can be open on it. */
async function reserved(
  sql: BunSql,
  deadlineMs: number,
  clock: ServerClock,
): Promise<BunConnection> {
  const leftMs = deadlineMs - monotonicMs();
  const limit = new AbortController();
  const reserving = sql.reserve({ signal: limit.signal });
  const giveUp = () => limit.abort(noConnectionWithin(leftMs));
  const timer = Number.isFinite(leftMs) ? setTimeout(giveUp, leftMs) : undefined;
  try {
    return new BunConnection(await unlessAborted(reserving, limit.signal), clock);
  } catch (error) {
    reserving.then((late) => late.release()).catch(() => {});
    throw withSqlState(error);
  } finally {
    clearTimeout(timer);
  }
}

class BunConnection implements Connection {
  readonly clock: ServerClock;
  #sql: ReservedSql | undefined;
  #running: BunQuery | undefined;

  constructor(sql: ReservedSql, clock: ServerClock) {
    this.#sql = sql;
    this.clock = clock;
  }

  async run({ text }: Query, values: readonly Value[]): Promise<Result> {
    if (this.#sql === undefined) throw new Error('The connection was closed');
    const query = this.#sql.unsafe(text, [...values]);
    this.#running = query;
    try {
      const rows = await query.raw();
      return { rows: rows.map((row) => row.map(decoded)), rowCount: rows.count ?? 0 };
    } catch (error) {
      throw withSqlState(error);
    } finally {
      this.#running = undefined;
    }
  }

  release(): void {
    this.#take()?.release();
  }

  destroy(): void {
    this.#running?.cancel();
    this.#take()
      ?.close({ timeout: 0 })
      .catch(() => {});
  }

  #take(): ReservedSql | undefined {
    const sql = this.#sql;
    this.#sql = undefined;
    return sql;
  }
}

function decoded(bytes: Uint8Array | null): Value {
  return bytes === null
    ? null
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString();
}

/** Bun has the SQLSTATE in `errno`; its `code` is the same for all errors of the server. */
function withSqlState(error: unknown): unknown {
  const state = property(error, 'errno');
  if (isObject(error) && typeof state === 'string' && isSqlState(state)) {
    Reflect.set(error, 'code', state);
  }
  return error;
}

/**
 * Bun reconnects by itself and subscribes again, but loses the notifications in between. So a second subscription counts
 * as a lost connection.
 */
function listenOn(sql: BunSql): Listen {
  return async (channel, connectionString, { onMessage, onLost, signal }) => {
    const own = connectionString === undefined ? undefined : open(connectionString);
    let subscriptions = 0;
    let isOver = false;
    const heard = (payload: string) => {
      if (!isOver) onMessage(payload);
    };
    const subscribed = () => {
      subscriptions += 1;
      if (subscriptions === 1 || isOver) return;
      isOver = true;
      onLost();
    };
    const end = (subscription?: Subscription) => {
      isOver = true;
      subscription?.unlisten().catch(() => {});
      own?.close({ timeout: 0 }).catch(() => {});
    };
    const on = own ?? sql;
    const listening = listenWith(on, channel, heard, subscribed);
    const subscription = await unlessAborted(listening, signal).catch((error) => {
      listening.then(end, () => end());
      throw withSqlState(error);
    });
    return { close: async () => end(subscription) };
  };
}

async function listenWith(
  sql: BunSql,
  ...args: Parameters<NonNullable<BunSql['listen']>>
): Promise<Subscription> {
  if (sql.listen === undefined) throw new Error('This version of Bun cannot listen');
  return sql.listen(...args);
}

/** Opens an `SQL` for the store. */
function open(url: string): BunSql {
  const make = property(property(globalThis, 'Bun'), 'SQL');
  const made: unknown = typeof make === 'function' ? Reflect.construct(make, [url]) : undefined;
  if (typeof made === 'function' && isBunSql(made)) return made;
  throw new TypeError('An SQL of Bun works in Bun only');
}

/** Bun's SQL looks like postgres-js, but only Bun's has distributed transactions. */
export function isBunSql(client: object): client is BunSql {
  return (
    hasMethod(client, 'reserve') &&
    hasMethod(client, 'beginDistributed') &&
    isObject(property(client, 'options'))
  );
}

/** Returns the kind of database of an `SQL`: `postgres`, `mysql`, `mariadb` or `sqlite`. */
export function adapterOf({ options }: BunSql): string {
  return String(property(options, 'adapter') ?? 'postgres');
}
