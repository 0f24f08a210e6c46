/**
 * postgres-js. Statements run on separate instances with the app's settings and one connection each. The driver does not
 * use the app's connections: when a socket fails, `sql.reserve()` ends the process or leaves every later query waiting,
 * and a connection that no longer responds cannot be closed.
 *
 * @module
 */

import { connect, type Socket } from 'node:net';
import { clearTimeout, monotonicMs, setTimeout } from '../util/clock.js';
import { isObject, property } from '../util/guards.js';
import type { Connection, Driver, Listen, Query, Result, Value } from './driver.js';
import { CancelRequests } from './support/cancel-requests.js';
import { noConnectionWithin } from './support/no-connection.js';
import { ServerClock } from './support/server-clock.js';
import { type Address, addressesOf, connected, type SocketOptions } from './support/sockets.js';
import { transactionOn } from './support/transaction.js';

/** The parts of `sql` that the store uses. */
export interface PostgresJs {
  readonly options: { readonly max?: number };
  unsafe(
    text: string,
    values?: readonly Value[],
    options?: { readonly prepare?: boolean; readonly simple?: boolean },
  ): RawQuery;
  end(options: { readonly timeout: number }): Promise<void>;
}

interface RawRows extends Array<readonly (Uint8Array | null)[]> {
  readonly count: number | null;
}

interface RawQuery extends Promise<unknown> {
  /** Returns rows as arrays of the bytes that the server sent, also if the app has set type parsers. */
  raw(): Promise<RawRows>;
  /** Whether the query is running on the server. */
  readonly active: boolean;
  readonly canceller: ((query: RawQuery) => Promise<void>) | null;
}

/** Added to the limit, so that callers time out first, with an error that states their `timeout`. */
const PATIENCE_MS = 100;

type MakePostgres = (source: object | string, options?: object) => PostgresJs;

export function postgresJs(sql: PostgresJs, load: () => Promise<MakePostgres>): Driver {
  const idle: Instance[] = [];
  const open = new Set<Instance>();
  const requests = new CancelRequests();
  let isClosed = false;

  const connections = sql.options.max ?? 10;
  /** Calls of `acquire` that wait until one of the store's connections is free. */
  const waiting = new Set<() => void>();
  const wake = () => {
    for (const first of waiting) return first();
  };

  const freed = (deadlineMs: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const leftMs = deadlineMs - monotonicMs();
      const giveUp = () => {
        waiting.delete(free);
        reject(noConnectionWithin(leftMs));
      };
      const timer = Number.isFinite(leftMs) ? setTimeout(giveUp, leftMs) : undefined;
      const free = () => {
        waiting.delete(free);
        clearTimeout(timer);
        resolve();
      };
      waiting.add(free);
    });

  const acquire = async (deadlineMs: number): Promise<Connection> => {
    const make = await load();
    for (;;) {
      const known = idle.pop();
      if (known?.isUsable) {
        known.hold();
        return known;
      }
      if (known === undefined && open.size < connections) break;
      if (known === undefined) await freed(deadlineMs);
    }
    const instance = new Instance(make, sql.options, undefined, true, {
      onCancel: (socket) => requests.add(socket),
      onRelease: () => {
        if (isClosed) instance.destroy();
        else idle.push(instance);
        wake();
      },
      onLost: () => {
        open.delete(instance);
        wake();
      },
    });
    open.add(instance);
    await instance.connect(deadlineMs);
    return instance;
  };

  return {
    connections,
    get idle() {
      return idle.length;
    },
    acquire,
    listen: listenWith(sql, load),
    transaction: async (work, { deadlineMs = Number.POSITIVE_INFINITY, signal } = {}) =>
      // Only the store uses this connection, so no transaction of the app can be open on it.
      transactionOn(await acquire(deadlineMs), work, signal),
    close: async () => {
      isClosed = true;
      requests.close();
      await Promise.all([...open].map((instance) => instance.close()));
    },
  };
}

interface InstanceEvents {
  readonly onRelease?: () => void;
  /** A socket was opened for a cancel request. */
  readonly onCancel?: (socket: Socket) => void;
  /** The connection was lost, or closed. */
  readonly onLost: () => void;
  readonly onNotify?: (channel: string, payload: string) => void;
}

/** A postgres-js instance with one connection, which never reconnects by itself. */
class Instance implements Connection {
  isUsable = true;
  readonly clock = new ServerClock();
  readonly #sql: PostgresJs;
  readonly #events: InstanceEvents;
  readonly #abort = new AbortController();
  #socket: Socket | undefined;
  /** The address of the server. */
  #address: Address | undefined;
  #isConnected = false;
  #running: RawQuery | undefined;
  #isCancelling = false;
  #isHeld: boolean;
  /** Number of hosts tried so far. */
  #tried = 0;
  /** Fails the first query. postgres-js may leave it waiting if the connection fails. */
  #fail: (error: unknown) => void = () => {};

  /** `isHeld`: whether its socket keeps the process alive from the start. */
  constructor(
    make: MakePostgres,
    options: object,
    url: string | undefined,
    isHeld: boolean,
    events: InstanceEvents,
  ) {
    this.#isHeld = isHeld;
    this.#events = events;
    const own = {
      max: 1,
      idle_timeout: 0,
      max_lifetime: null,
      connect_timeout: 0,
      fetch_types: false,
      // The app's conversions and its debug log must not get session data.
      serializers: {},
      transform: { undefined: undefined, column: {}, value: {}, row: {} },
      debug: false,
      shared: { retries: 0, typeArrayMap: {} },
      onnotify: events.onNotify,
      onclose: () => {
        // With several hosts, postgres-js closes the connection to a server that is not primary and tries the next.
        if (this.#isConnected) this.#lose();
      },
      socket: (to: SocketOptions) => this.#openSocket(to),
    };
    if (url === undefined) this.#sql = make({ ...options, ...own });
    // With a URL, postgres-js would parse these two.
    else this.#sql = make(url, { ...own, transform: undefined, shared: undefined });
  }

  async connect(deadlineMs: number): Promise<void> {
    const leftMs = deadlineMs - monotonicMs();
    const giveUp = () => this.#abort.abort(noConnectionWithin(leftMs));
    const timer = Number.isFinite(leftMs) ? setTimeout(giveUp, leftMs + PATIENCE_MS) : undefined;
    try {
      await this.first('select 1', this.#abort.signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Connects, and runs the first statement. */
  async first(text: string, signal: AbortSignal): Promise<void> {
    const failed = new Promise<never>((_, reject) => {
      this.#fail = reject;
    });
    const giveUp = () => {
      this.#fail(signal.reason);
      this.#socket?.destroy();
    };
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      signal.throwIfAborted();
      await Promise.race([this.#sql.unsafe(text), failed]);
      this.#isConnected = true;
    } catch (error) {
      this.destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  async run({ text, name }: Query, values: readonly Value[]): Promise<Result> {
    const options = { prepare: name !== undefined, simple: false };
    const query = this.#sql.unsafe(text, [...values], options);
    this.#running = query;
    let rows: RawRows;
    try {
      rows = await query.raw();
    } finally {
      this.#running = undefined;
    }
    return { rows: rows.map((row) => row.map(decoded)), rowCount: rows.count ?? 0 };
  }

  /** Marks it as in use. Until its release, its socket keeps the process alive. */
  hold(): void {
    this.#isHeld = true;
    this.#socket?.ref();
  }

  release(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    if (!this.isUsable) return;
    this.#socket?.unref();
    this.#events.onRelease?.();
  }

  destroy(): void {
    if (this.isUsable) this.#cancel();
    this.#lose();
    // Otherwise a socket that is still connecting would log in later, and nothing would close it.
    this.#abort.abort(new Error('The connection was closed'));
    this.#socket?.destroy();
    this.#sql.end({ timeout: 0 }).catch(() => {});
  }

  /** Cancels the running statement. Not with `query.cancel()`, which drops a promise. Its rejection would end the process. */
  #cancel(): void {
    const query = this.#running;
    if (!query?.active || !query.canceller) return;
    this.#isCancelling = true;
    query.canceller(query).catch(() => {});
    this.#isCancelling = false;
  }

  /** Closes the connection gracefully, so that the server does not log a lost connection. */
  async close(): Promise<void> {
    if (!this.#isConnected) return this.destroy();
    this.#lose();
    await this.#sql.end({ timeout: 1 });
    this.#socket?.destroy();
  }

  #lose(): void {
    if (!this.isUsable) return;
    this.isUsable = false;
    this.#events.onLost();
  }

  /** Creates a socket, because a socket of postgres-js can neither be unref'd nor closed at once. */
  async #openSocket(options: SocketOptions): Promise<Socket> {
    if (this.#isCancelling && this.#address !== undefined) {
      const socket = connect(this.#address);
      this.#events.onCancel?.(socket);
      return Object.assign(socket, this.#address);
    }
    try {
      if (this.#isConnected || !this.isUsable) throw new Error('The connection was lost');
      const { signal } = this.#abort;
      let failure: unknown = new Error('No host accepts the connection');
      // Tries each host once: postgres-js asks for another socket if a server is not primary.
      for (const address of addressesOf(options).slice(this.#tried)) {
        this.#tried += 1;
        const socket = connect(address);
        if (!this.#isHeld) socket.unref();
        try {
          this.#socket = await connected(socket, signal);
          this.#address = address;
          // postgres-js takes the host from the socket, to check it against the server's certificate.
          return Object.assign(socket, address);
        } catch (error) {
          failure = error;
        }
      }
      throw failure;
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }
}

function decoded(bytes: Uint8Array | null): Value {
  return bytes === null
    ? null
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString();
}

/** Listens without `sql.listen`, which reconnects by itself and so hides lost notifications. */
function listenWith(sql: PostgresJs, load: () => Promise<MakePostgres>): Listen {
  return async (channel, connectionString, { onMessage, onLost, signal }) => {
    const make = await load();
    signal.throwIfAborted();
    let isOver = false;
    const instance = new Instance(make, sql.options, connectionString, false, {
      onLost: () => {
        if (isOver) return;
        isOver = true;
        onLost();
      },
      onNotify: (on, payload) => {
        if (!isOver && on === channel) onMessage(payload);
      },
    });
    try {
      await instance.first(`listen "${channel}"`, signal);
    } catch (error) {
      isOver = true;
      throw error;
    }
    return {
      close: async () => {
        isOver = true;
        instance.destroy();
      },
    };
  };
}

export function isPostgresJs(client: object): client is PostgresJs {
  return 'unsafe' in client && isObject(property(client, 'options'));
}
