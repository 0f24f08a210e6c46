/**
 * node-postgres: pools of `pg`, and pools with its interface (`pg.native`, Neon, Vercel).
 *
 * @module
 */
import { StoreTimeoutError } from '../errors.js';
import { monotonicMs } from '../util/clock.js';
import { hasMethod, isObject, property } from '../util/guards.js';
import type { Connection, Driver, Listen, Query, Result, Value } from './driver.js';
import { transactionOn } from './support/transaction.js';

type Callback<T> = (error: Error | null | undefined, result: T) => void;

/** What the store uses of a client. */
export interface PgClient {
  query(config: object, done: Callback<{ rows: Value[][]; rowCount: number | null }>): unknown;
  getTransactionStatus?(): unknown;
  on(event: string, listener: (...args: never[]) => void): unknown;
  off(event: string, listener: (...args: never[]) => void): unknown;
}

/** What the store uses of a pool. */
export interface PgPool {
  readonly options: object;
  readonly totalCount: number;
  readonly idleCount: number;
  readonly waitingCount: number;
  connect(
    done: (
      error: Error | undefined,
      client: PgClient | undefined,
      release: (error?: Error | boolean) => void,
    ) => void,
  ): void;
}

/** Results come as the server sends them, whatever type parsers the app has set. */
const AS_TEXT = { getTypeParser: () => (value: string) => value };

export function nodePostgres(pool: PgPool, close: () => Promise<void>): Driver {
  const acquire = (deadlineMs: number) => acquired(pool, deadlineMs, false);
  const { max } = pool.options as { max?: unknown };
  return {
    connections: typeof max === 'number' && max >= 1 ? max : 10,
    acquire,
    listen: listenOn(pool),
    transaction: async (work) =>
      transactionOn(await acquired(pool, Number.POSITIVE_INFINITY, true), work),
    close,
  };
}

/** The callers give up first, with an error that says so. */
const PATIENCE_MS = 100;

/**
 * A pool's connect cannot be given up, and a client that never finishes connecting takes its place in the pool
 * for good. So a pool without a `connectionTimeoutMillis` has one during the store's own call, and whenever it
 * connects a client while the store waits. The app's calls wait for a free client as long as ever.
 */
function acquired(pool: PgPool, deadlineMs: number, mayBegin: boolean): Promise<Connection> {
  const isIdle = pool.idleCount > pool.waitingCount;
  const startedMs = monotonicMs();
  const limitMs =
    isIdle || !Number.isFinite(deadlineMs)
      ? undefined
      : Math.max(Math.ceil(deadlineMs - startedMs), 0) + PATIENCE_MS;
  const stopLimiting = limitMs === undefined ? undefined : limitNewClients(pool, limitMs);
  return new Promise((resolve, reject) => {
    const connect = () =>
      pool.connect((error, client, release) => {
        stopLimiting?.();
        if (client !== undefined && isInTransaction(client)) {
          // The app forgot to end it, and its ROLLBACK would undo what the store has acknowledged.
          release(true);
          resolve(acquired(pool, deadlineMs, mayBegin));
        } else if (client !== undefined) resolve(new PgConnection(client, release, mayBegin));
        else if (monotonicMs() < deadlineMs) reject(error);
        // The pool's own error would fail calls that have only just begun to wait.
        else reject(new StoreTimeoutError((deadlineMs - startedMs) / 1000));
      });
    try {
      limited(pool, limitMs, connect);
    } catch (error) {
      // Such as a certificate that cannot be read.
      stopLimiting?.();
      reject(error);
    }
  });
}

/** Runs something synchronous while the pool has a `connectionTimeoutMillis`, the app's own if there is one. */
function limited(pool: PgPool, limitMs: number | undefined, work: () => void): void {
  const options: { connectionTimeoutMillis?: number | undefined } = pool.options;
  const own = options.connectionTimeoutMillis;
  options.connectionTimeoutMillis = own || limitMs;
  try {
    work();
  } finally {
    options.connectionTimeoutMillis = own;
  }
}

/** The limit for new clients of a pool, and how many acquires of the store are waiting. */
const limits = new WeakMap<object, { waiting: number; limitMs: number }>();

/** Limits connecting until the returned function is called: a pool makes new clients when others have been removed. */
function limitNewClients(pool: PgPool, limitMs: number): () => void {
  const limit = limits.get(pool) ?? { waiting: 0, limitMs };
  if (!limits.has(pool)) {
    limits.set(pool, limit);
    const newClient = property(pool, 'newClient');
    if (typeof newClient === 'function') {
      const value = (...args: unknown[]) =>
        limited(pool, limit.waiting === 0 ? undefined : limit.limitMs, () => {
          Reflect.apply(newClient, pool, args);
        });
      Object.defineProperty(pool, 'newClient', { value, configurable: true, writable: true });
    }
  }
  // Stores with other timeouts may wait for this pool, too.
  limit.limitMs = limit.waiting === 0 ? limitMs : Math.max(limit.limitMs, limitMs);
  limit.waiting += 1;
  return () => {
    limit.waiting -= 1;
  };
}

class PgConnection implements Connection {
  readonly #client: PgClient;
  #release: ((error?: Error | boolean) => void) | undefined;

  /** `mayBegin`: whether its statements may begin a transaction. */
  constructor(
    client: PgClient,
    release: (error?: Error | boolean) => void,
    readonly mayBegin: boolean,
  ) {
    this.#client = client;
    this.#release = release;
    // The statement fails, too. Without a listener, a connection that breaks would end the process.
    client.on('error', ignore);
  }

  run({ text, name }: Query, values: readonly Value[]): Promise<Result> {
    return new Promise((resolve, reject) => {
      const config = { text, name, values, rowMode: 'array', types: AS_TEXT };
      this.#client.query(config, (error, result) => {
        if (error) reject(error);
        else if (!this.mayBegin && isInTransaction(this.#client)) {
          // A BEGIN that the app did not await ran just before. Closing the connection undoes both.
          this.destroy();
          reject(new Error('The connection was in a transaction of the app'));
        } else resolve({ rows: result.rows, rowCount: result.rowCount ?? 0 });
      });
    });
  }

  release(): void {
    const release = this.#release;
    if (release === undefined) return;
    this.#release = undefined;
    this.#client.off('error', ignore);
    release();
  }

  destroy(): void {
    const release = this.#release;
    if (release === undefined) return;
    this.#release = undefined;
    // The listener stays: the socket may still report an error.
    release(true);
    destroySocket(this.#client);
  }
}

/** Whether a client is in a transaction, or in a failed one. Versions of pg before 8.21 do not tell. */
function isInTransaction(client: PgClient): boolean {
  const native = property(client, 'native');
  if (native !== undefined && !hasMethod(native, 'getTransactionStatus')) return false;
  const status = client.getTransactionStatus?.();
  return status === 'T' || status === 'E';
}

function ignore(): void {}

/** Closes a connection without waiting for the server, which may never answer. */
function destroySocket(client: object): void {
  const stream = property(property(client, 'connection'), 'stream');
  if (hasMethod(stream, 'destroy')) stream.destroy();
}

/** LISTEN on a client of its own, of the pool's own class and with its settings. */
function listenOn(pool: PgPool): Listen {
  return async (channel, connectionString, { onMessage, onLost, signal }) => {
    signal.throwIfAborted();
    const options = connectionString === undefined ? allOf(pool.options) : { connectionString };
    const client = newClient(pool, { ...options, keepAlive: true });
    let isOver = false;
    const destroy = destroyerOf(client);
    const lost = () => {
      if (isOver) return;
      isOver = true;
      destroy();
      onLost();
    };
    client.on('error', lost);
    client.on('end', lost);
    client.on('notification', (message: { channel: string; payload?: string }) => {
      if (!isOver && message.channel === channel) onMessage(message.payload ?? '');
    });
    signal.addEventListener('abort', destroy, { once: true });
    try {
      const connecting = client.connect();
      // Neither connecting nor listening keeps the process alive.
      unref(client);
      await connecting;
      // TLS has made it another socket.
      unref(client);
      await client.query(`listen "${channel}"`);
    } catch (error) {
      isOver = true;
      destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', destroy);
    }
    return {
      send: async (payload) => {
        await client.query('select pg_notify($1, $2)', [channel, payload]);
      },
      close: async () => {
        isOver = true;
        destroy();
      },
    };
  };
}

/** Returns a function that closes a client at once, however often it is called. */
function destroyerOf(client: ListeningClient): () => void {
  let isDestroyed = false;
  return () => {
    if (isDestroyed) return;
    isDestroyed = true;
    // The socket of a pg.native client is libpq's.
    if (property(client, 'native') === undefined) destroySocket(client);
    else client.end().catch(ignore);
  };
}

interface ListeningClient {
  connect(): Promise<unknown>;
  end(): Promise<unknown>;
  query(text: string, values?: readonly string[]): Promise<unknown>;
  on(event: string, listener: (message: never) => void): unknown;
}

function newClient(pool: PgPool, options: object): ListeningClient {
  const Client = property(pool, 'Client');
  if (typeof Client !== 'function') throw new TypeError('This pool has no class of clients');
  return Reflect.construct(Client, [options]);
}

/** A copy with the password, which pg-pool makes a property that a spread leaves out. */
function allOf(options: object): object {
  const copy: Record<string, unknown> = {};
  for (const key of Object.getOwnPropertyNames(options)) copy[key] = property(options, key);
  return copy;
}

function unref(client: object): void {
  if (hasMethod(client, 'unref')) client.unref();
}

export function isPool(client: object): client is PgPool {
  return (
    hasMethod(client, 'connect') &&
    hasMethod(client, 'query') &&
    'totalCount' in client &&
    'idleCount' in client &&
    isObject(property(client, 'options'))
  );
}
