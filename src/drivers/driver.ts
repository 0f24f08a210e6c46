/**
 * The driver interface. Each driver implements it in one file of this folder.
 *
 * @module
 */

import type { ServerClock } from './support/server-clock.js';

/** All parameters and results are strings, so that neither the driver's nor the app's type parsers matter. */
export type Value = string | null;

/** A statement. With a name, the server keeps it prepared under that name. */
export interface Query {
  readonly text: string;
  readonly name: string | undefined;
  /** A write that returns no rows, only their number. */
  readonly isCommand?: boolean;
}

export interface Result {
  /** Each row is an array of its columns. */
  readonly rows: readonly (readonly Value[])[];
  /** How many rows a write changed. Cheaper for the server than returning something of them. */
  readonly rowCount: number;
}

/** A connection that nothing else uses until it is released. */
export interface Connection {
  readonly clock: ServerClock;
  run(query: Query, values: readonly Value[]): Promise<Result>;
  /** Makes the connection available to others again. */
  release(): void;
  /**
   * Closes the connection at once, so that its statement fails; the driver opens another one when needed. If a statement
   * is running, asks the server to cancel it, best effort.
   */
  destroy(): void;
}

export interface AcquireOptions {
  /** Once released, the connection does not keep the process alive. */
  readonly isBackground?: boolean;
}

export interface TransactionOptions {
  /** When to give up acquiring a connection. @default never */
  readonly deadlineMs?: number;
  /** Gives up the transaction and closes its connection. */
  readonly signal?: AbortSignal;
}

export interface Driver {
  /** How many statements can run at once. */
  readonly connections: number;
  /** Open connections that nothing uses now. */
  readonly idle: number;
  /**
   * Acquires a connection.
   *
   * @param deadlineMs on the clock of `util/clock.ts`; the promise rejects then, and nothing is left behind
   * @throws {StoreTimeoutError}
   */
  acquire(deadlineMs: number, options?: AcquireOptions): Promise<Connection>;
  readonly listen: Listen;
  /** Runs statements in a transaction of its own; rolls it back if `work` fails. */
  transaction<T>(work: (on: Connection) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /** Closes only what the store itself opened. */
  close(): Promise<void>;
}

/** What a listener reports. */
export interface ListenHandlers {
  onMessage(payload: string): void;
  /** The connection was lost; called once. */
  onLost(): void;
  /** Aborts connecting. */
  readonly signal: AbortSignal;
}

/** A connection that listens. */
export interface Listener {
  /** Closes the connection at once; `onLost` is not called. */
  close(): Promise<void>;
}

/** Opens a listener, with the source's own settings or on a URL. */
export type Listen = (
  channel: string,
  connectionString: string | undefined,
  handlers: ListenHandlers,
) => Promise<Listener>;
