/**
 * Drivers without connections. They send each statement alone, over HTTP or through a function of the app.
 *
 * @module
 */
import { InvalidArgumentError } from '../../errors.js';
import { unlessAborted } from '../../util/abort.js';
import type { Connection, Driver, Query, Result, Value } from '../driver.js';
import { ServerClock } from './server-clock.js';

/** Runs one statement. If `signal` is aborted, stops waiting for it; it may still run on the server. */
export type RunStatement = (
  query: Query,
  values: readonly Value[],
  signal: AbortSignal,
) => Promise<Result>;

/** The default size of the pools of other drivers. */
const STATEMENTS_AT_ONCE = 10;

/** What a source cannot do. Each text ends an error message such as "The option sync needs …". */
export interface Lacks {
  readonly listening: string;
  readonly transactions: string;
}

/** `instead`: the source to use if an app needs what this driver lacks. */
export function lacksConnections(driver: string, instead: string): Lacks {
  return {
    listening: `a connection that listens, which ${driver} does not have: pass ${instead}`,
    transactions:
      `a transaction, which ${driver} does not have: create the table with drizzle-kit, ` +
      `or with a store on ${instead}`,
  };
}

export function connectionless(run: RunStatement, lacks: Lacks): Driver {
  const clock = new ServerClock();
  return {
    connections: STATEMENTS_AT_ONCE,
    idle: 0,
    acquire: async () => new Exchange(run, clock),
    listen: async () => {
      throw new InvalidArgumentError(`Listening needs ${lacks.listening}`);
    },
    transaction: async () => {
      throw new InvalidArgumentError(`This needs ${lacks.transactions}`);
    },
    close: async () => {},
  };
}

/** Acts as a connection: runs statements one after the other. */
class Exchange implements Connection {
  readonly clock: ServerClock;
  readonly #run: RunStatement;
  readonly #over = new AbortController();

  constructor(run: RunStatement, clock: ServerClock) {
    this.#run = run;
    this.clock = clock;
  }

  run(query: Query, values: readonly Value[]): Promise<Result> {
    const { signal } = this.#over;
    return unlessAborted(this.#run(query, values, signal), signal);
  }

  release(): void {}

  destroy(): void {
    this.#over.abort(new Error('The statement was given up'));
  }
}
