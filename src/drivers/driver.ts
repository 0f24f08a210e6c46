/**
 * The driver interface. Each driver implements it in one file of this folder.
 *
 * @module
 */

import type { ServerClock } from './support/server-clock.js';

/** All parameters and results are strings, so that type parsers of the driver and the app have no effect. */
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
  /** Number of rows that a write changed. Cheaper for the server than returning a column. */
  readonly rowCount: number;
}

/** A connection that nothing else uses until it is released. */
export interface Connection {
  readonly clock: ServerClock;
  run(query: Query, values: readonly Value[]): Promise<Result>;
  /** Makes the connection available to others again. */
  release(): void;
  /**
   * Closes the connection at once, so that its statement fails. The driver opens another one when needed. If a statement
   * is running, tries to cancel it on the server.
   */
  destroy(): void;
}

export interface AcquireOptions {
  /** After its release, the connection does not keep the process alive. */
  readonly isBackground?: boolean;
}

export interface TransactionOptions {
  /** When to give up acquiring a connection. @default never */
  readonly deadlineMs?: number;
  /** Gives up the transaction and closes its connection. */
  readonly signal?: AbortSignal;
}

export interface Driver {
  /** Number of statements that can run at once. */
  readonly connections: number;
  /** Number of open connections that are idle. */
  readonly idle: number;
  /**
   * Acquires a connection.
   *
   * @param deadlineMs on the clock of `util/clock.ts`; the promise then rejects, and leaves nothing behind
   * @throws {StoreTimeoutError}
   */
  acquire(deadlineMs: number, options?: AcquireOptions): Promise<Connection>;
  readonly listen: Listen;
  /** Runs statements in a new transaction; rolls it back if `work` fails. */
  transaction<T>(work: (on: Connection) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /** Closes only the connections that the store itself opened. */
  close(): Promise<void>;
}

/** The callbacks of a listener. */
export interface ListenHandlers {
  onMessage(payload: string): void;
  /** The connection was lost; called once. */
  onLost(): void;
  /** Aborts connecting. */
  readonly signal: AbortSignal;
}

/** A connection that receives notifications. */
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
