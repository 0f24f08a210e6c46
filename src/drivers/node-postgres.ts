/**
 * node-postgres: pools of `pg`, and of packages with the same interface.
 *
 * @module
 */
import { StoreTimeoutError } from '../errors.js';
import { monotonicMs } from '../util/clock.js';
import { hasMethod, isObject, property } from '../util/guards.js';
import type { Connection, Driver, Listen, Query, Value } from './driver.js';
import { transactionOn } from './transaction.js';

type Callback<T> = (error: Error | null | undefined, result: T) => void;

/** What the store uses of a client. */
export interface PgClient {
  query(config: object, done: Callback<{ rows: Value[][] }>): unknown;
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

/** Added to the limit, so that callers time out first, with a clearer error. */
const PATIENCE_MS = 100;

/** A pool whose own options set no limit, while stores wait for its connections. */
interface Limited {
  waiting: number;
  readonly own: number | undefined;
  /** The limit that was set last. If the options have another one, the app has set it. */
  currentMs: number;
  longestMs: number;
}

const limited = new WeakMap<object, Limited>();

/**
 * Acquires a client. `pool.connect()` cannot be cancelled, and a client that never finishes connecting keeps its
 * place in the pool for good. So while the store waits, a pool without `connectionTimeoutMillis` has one: the pool
 * may connect a new client at any time until then, for example when it removes another one.
 */
function acquired(pool: PgPool, deadlineMs: number, mayBegin: boolean): Promise<Connection> {
  const isIdle = pool.idleCount > pool.waitingCount;
  const startedMs = monotonicMs();
  const limit = isIdle ? undefined : limitConnecting(pool.options, deadlineMs);
  return new Promise((resolve, reject) => {
    try {
      pool.connect((error, client, release) => {
        limit?.end();
        if (client !== undefined && isInTransaction(client)) {
          // The app forgot to end it, and its ROLLBACK would undo what the store has acknowledged.
          release(true);
          resolve(acquired(pool, deadlineMs, mayBegin));
        } else if (client !== undefined) resolve(new PgConnection(client, release, mayBegin));
        else if (monotonicMs() < deadlineMs) reject(error);
        // The pool's own error would fail calls that have only just begun to wait.
        else reject(new StoreTimeoutError((deadlineMs - startedMs) / 1000));
      });
      limit?.share();
    } catch (error) {
      // Such as a certificate that cannot be read.
      limit?.end();
      reject(error);
    }
  });
}

/** Sets a limit for one `connect()`. Call `share` after it, and `end` when the wait is over. */
function limitConnecting(
  options: { connectionTimeoutMillis?: number | undefined },
  deadlineMs: number,
): { share(): void; end(): void } | undefined {
  if (!Number.isFinite(deadlineMs)) return undefined;
  const { connectionTimeoutMillis: own } = options;
  const shared = limited.get(options) ?? { waiting: 0, own, currentMs: 0, longestMs: 0 };
  const isAppsOwn = Boolean(own) && own !== shared.currentMs;
  if (isAppsOwn) return undefined;
  limited.set(options, shared);
  shared.waiting += 1;
  const setTo = (ms: number) => {
    shared.currentMs = ms;
    options.connectionTimeoutMillis = ms;
  };
  const ownMs = Math.max(Math.ceil(deadlineMs - monotonicMs()), 0) + PATIENCE_MS;
  shared.longestMs = Math.max(shared.longestMs, ownMs);
  setTo(ownMs);
  return {
    // Stores with other timeouts may wait for this pool, too.
    share: () => {
      if (shared.waiting > 0) setTo(shared.longestMs);
    },
    end: () => {
      shared.waiting -= 1;
      if (shared.waiting > 0) return;
      limited.delete(options);
      if (options.connectionTimeoutMillis === shared.currentMs)
        options.connectionTimeoutMillis = shared.own;
    },
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

  run({ text, name }: Query, values: readonly Value[]): Promise<Value[][]> {
    return new Promise((resolve, reject) => {
      const config = { text, name, values, rowMode: 'array', types: AS_TEXT };
      this.#client.query(config, (error, result) => {
        if (error) reject(error);
        else if (!this.mayBegin && isInTransaction(this.#client)) {
          // A BEGIN that the app did not await ran just before. Closing the connection undoes both.
          this.destroy();
          reject(new Error('The connection was in a transaction of the app'));
        } else resolve(result.rows);
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

/** Listens on a separate client of the pool's own class, with the pool's settings. */
function listenOn(pool: PgPool): Listen {
  return async (channel, connectionString, { onMessage, onLost, signal }) => {
    signal.throwIfAborted();
    const options = connectionString === undefined ? allOf(pool.options) : { connectionString };
    const client = newClient(pool, { ...options, keepAlive: true });
    let isOver = false;
    const lost = () => {
      if (isOver) return;
      isOver = true;
      destroySocket(client);
      onLost();
    };
    const giveUp = () => destroySocket(client);
    client.on('error', lost);
    client.on('end', lost);
    client.on('notification', (message: { channel: string; payload?: string }) => {
      if (!isOver && message.channel === channel) onMessage(message.payload ?? '');
    });
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      const connecting = client.connect();
      // Neither connecting nor listening keeps the process alive.
      unref(client);
      await connecting;
      // With TLS, the client has another socket now.
      unref(client);
      await client.query(`listen "${channel}"`);
    } catch (error) {
      isOver = true;
      destroySocket(client);
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
    return {
      send: async (payload) => {
        await client.query('select pg_notify($1, $2)', [channel, payload]);
      },
      close: async () => {
        isOver = true;
        destroySocket(client);
      },
    };
  };
}

interface ListeningClient {
  connect(): Promise<unknown>;
  query(text: string, values?: readonly string[]): Promise<unknown>;
  on(event: string, listener: (message: never) => void): unknown;
}

function newClient(pool: PgPool, options: object): ListeningClient {
  const Client = property(pool, 'Client');
  if (typeof Client !== 'function')
    throw new TypeError('This pool has no Client class to listen with');
  return Reflect.construct(Client, [options]);
}

/** Copies the options with the password, which pg-pool makes non-enumerable. */
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
