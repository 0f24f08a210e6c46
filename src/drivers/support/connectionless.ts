/**
 * Drivers that run each statement by itself, over HTTP or through a function of the app.
 *
 * @module
 */
import { InvalidArgumentError } from '../../errors.js';
import { unlessAborted } from '../../util/abort.js';
import type { Connection, Driver, Query, Result, Value } from '../driver.js';
import { ServerClock } from './server-clock.js';

/** Runs one statement. Aborting `signal` gives it up; it may still run on the server. */
export type RunStatement = (
  query: Query,
  values: readonly Value[],
  signal: AbortSignal,
) => Promise<Result>;

/** As many as the pools of other drivers have. */
const STATEMENTS_AT_ONCE = 10;

/** What sources without connections cannot do: the end of a sentence that begins with what needs it. */
export interface Lacks {
  readonly listening: string;
  readonly transactions: string;
}

/** `instead`: what an app can pass for what this driver lacks. */
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

/** Stands for a connection: statements, one after the other. */
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
