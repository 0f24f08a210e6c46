/**
 * node-postgres: pools of `pg`, and pools with its interface (`pg.native`, Neon, Vercel).
 *
 * @module
 */
import { InAppTransaction, sqlState } from '../errors.js';
import { monotonicMs } from '../util/clock.js';
import { hasMethod, isObject, property } from '../util/guards.js';
import { isPreparedMismatch, PREPARED_TWICE, QUERY_CANCELED } from '../util/sql-states.js';
import type { AcquireOptions, Connection, Driver, Query, Result, Value } from './driver.js';
import { CancelRequests } from './support/cancel-requests.js';
import { noConnectionWithin } from './support/no-connection.js';
import { cancelStatementOf } from './support/pg-cancel.js';
import { allOf, destroySocket, listenOn, newClient } from './support/pg-listener.js';
import { isExtended, PgQuery, takesPgQueries } from './support/pg-query.js';
import { isInTransaction, watchTransactions } from './support/pg-transactions.js';
import { limited, limitNewClients, withOption } from './support/pool-options.js';
import { ServerClock } from './support/server-clock.js';
import { transactionOn } from './support/transaction.js';

interface PgResult {
  readonly rows: readonly (readonly Value[])[];
  readonly rowCount: number | null;
}

/** The parts of a client that the store uses. */
export interface PgClient {
  query(
    config: object,
    done?: (error: Error | null | undefined, result?: PgResult) => void,
  ): unknown;
  readonly native?: unknown;
  getTransactionStatus?(): unknown;
  on(event: string, listener: (...args: never[]) => void): unknown;
  off(event: string, listener: (...args: never[]) => void): unknown;
}

/** The parts of a pool that the store uses. */
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

type Release = (error?: Error | boolean) => void;

/** Returns results as the server sends them, also if the app has set type parsers. */
const AS_TEXT = { getTypeParser: () => (value: string) => value };

export function nodePostgres(pool: PgPool, close: () => Promise<void>): Driver {
  const requests = new CancelRequests();
  const cancel = (client: PgClient) =>
    cancelStatementOf(client, () => newClient(pool, allOf(pool.options)), requests);
  const { max } = pool.options as { max?: unknown };
  return {
    connections: typeof max === 'number' && max >= 1 ? max : 10,
    get idle() {
      return pool.idleCount;
    },
    acquire: (deadlineMs, options) => acquired(pool, deadlineMs, cancel, options),
    listen: listenOn(pool),
    transaction: async (work, { deadlineMs = Number.POSITIVE_INFINITY, signal } = {}) => {
      const connection = await acquired(pool, deadlineMs, cancel);
      return transactionOn(connection, work, signal, () => connection.leaveAppTransaction());
    },
    close: () => {
      requests.close();
      return close();
    },
  };
}

/** Added to the pool's limit, so that callers time out first, with a clear error. */
const PATIENCE_MS = 100;

/**
 * A call of `pool.connect()` cannot be cancelled, and a client that never finishes connecting keeps its place in the pool
 * for good. So if a pool has no `connectionTimeoutMillis`, this sets one during the store's own call, and whenever the
 * pool connects a client while the store waits. The app's own calls still wait for a free client without a limit.
 */
function acquired(
  pool: PgPool,
  deadlineMs: number,
  cancel: Cancel,
  options: AcquireOptions = {},
): Promise<PgConnection> {
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
          // The app forgot to end its transaction. Its ROLLBACK would undo acknowledged writes of the store.
          release(true);
          resolve(acquired(pool, deadlineMs, cancel, options));
        } else if (client !== undefined) {
          const again = () => acquired(pool, deadlineMs, cancel, options);
          const isBackground = options.isBackground === true;
          resolve(new PgConnection(client, releaseTo(pool, release, isBackground), cancel, again));
        } else if (monotonicMs() < deadlineMs) reject(error);
        // The pool's own time-out would reject calls that have just begun to wait.
        else reject(noConnectionWithin(deadlineMs - startedMs));
      });
    try {
      if (limitMs === undefined) connect();
      else limited(pool, limitMs, connect);
    } catch (error) {
      // Such as a certificate that cannot be read.
      stopLimiting?.();
      reject(error);
    }
  });
}

/** `isBackground`: after its release, the client does not keep the process alive, as in a pool with `allowExitOnIdle`. */
function releaseTo(pool: PgPool, release: Release, isBackground: boolean): Release {
  if (!isBackground) return release;
  return (error) => withOption(pool, 'allowExitOnIdle', true, () => release(error));
}

/** Asks the server to cancel the statement of a client. */
type Cancel = (client: PgClient) => void;

/** What the store knows about a client. A pool lends the same client many times. */
interface Known {
  readonly clock: ServerClock;
  readonly takesPgQueries: boolean;
}

const known = new WeakMap<PgClient, Known>();

function knownOf(client: PgClient): Known {
  const before = known.get(client);
  if (before !== undefined) return before;
  const first = { clock: new ServerClock(), takesPgQueries: takesPgQueries(client) };
  known.set(client, first);
  return first;
}

class PgConnection implements Connection {
  #client: PgClient;
  #known: Known;
  #release: Release | undefined;
  readonly #acquireAgain: () => Promise<PgConnection>;
  /** Whether an open transaction is the store's own. */
  #isInOwnTransaction = false;
  #isDestroyed = false;
  #isRunning = false;
  readonly #cancel: Cancel;

  constructor(
    client: PgClient,
    release: Release,
    cancel: Cancel,
    acquireAgain: () => Promise<PgConnection>,
  ) {
    this.#client = client;
    this.#known = knownOf(client);
    this.#release = release;
    this.#cancel = cancel;
    this.#acquireAgain = acquireAgain;
    watchTransactions(client);
    // Without a listener, a broken connection would end the process. The statement fails, too.
    client.on('error', ignore);
  }

  get clock(): ServerClock {
    return this.#known.clock;
  }

  run(query: Query, values: readonly Value[]): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#send(query, values, true, resolve, reject);
    });
  }

  /** Makes sure that no transaction of the app is open. From now on, statements may begin one of the store. */
  async leaveAppTransaction(): Promise<void> {
    await this.run({ text: 'select 1', name: undefined }, []);
    this.#isInOwnTransaction = true;
  }

  #send(
    query: Query,
    values: readonly Value[],
    mayRetry: boolean,
    resolve: (result: Result) => void,
    reject: (error: unknown) => void,
  ): void {
    const client = this.#client;
    this.#isRunning = true;
    const done = (error: Error | null | undefined, result?: PgResult) => {
      this.#isRunning = false;
      if (this.#isInTransactionOfApp(client, error)) {
        this.#runElsewhere(query, values, mayRetry).then(resolve, reject);
      } else if (!error) {
        resolve({ rows: result?.rows ?? [], rowCount: result?.rowCount ?? 0 });
      } else if (mayRetry && correctPrepared(client, query, error)) {
        this.#send(query, values, false, resolve, reject);
      } else {
        reject(this.#failure(error));
      }
    };
    if (this.#known.takesPgQueries && isExtended(query, values)) {
      client.query(new PgQuery(query, values, done));
    } else {
      const { text, name } = query;
      client.query({ text, name, values, rowMode: 'array', types: AS_TEXT }, done);
    }
  }

  /** Whether the last statement ran in a transaction that the app began without awaiting it. */
  #isInTransactionOfApp(client: PgClient, error: Error | null | undefined): boolean {
    if (this.#isInOwnTransaction) return false;
    return isInTransaction(client) || (error ? sqlState(error) === IN_FAILED_TRANSACTION : false);
  }

  /** Closes the connection, which rolls back the app's transaction and the statement in it. So the statement can be repeated. */
  async #runElsewhere(query: Query, values: readonly Value[], mayRetry: boolean): Promise<Result> {
    const wasDestroyed = this.#isDestroyed;
    this.#close();
    if (wasDestroyed || !mayRetry) throw new InAppTransaction();
    const other = await this.#acquireAgain();
    this.#client = other.#client;
    this.#known = other.#known;
    this.#release = other.#release;
    // The statement exceeded its time limit while it waited for this connection.
    if (this.#isDestroyed) {
      this.release();
      throw new Error('The connection was closed');
    }
    return new Promise((resolve, reject) => {
      this.#send(query, values, false, resolve, reject);
    });
  }

  #failure(error: Error): Error {
    if (error.message !== QUERY_TIMEOUT || sqlState(error) !== undefined) return error;
    // The statement is still running on the server, and the client would queue others behind it.
    this.#isRunning = true;
    this.destroy();
    return Object.assign(error, { code: QUERY_CANCELED });
  }

  release(): void {
    const release = this.#release;
    if (release === undefined) return;
    this.#release = undefined;
    this.#client.off('error', ignore);
    release();
  }

  destroy(): void {
    this.#isDestroyed = true;
    if (this.#isRunning && this.#release !== undefined) this.#cancel(this.#client);
    this.#close();
  }

  #close(): void {
    const release = this.#release;
    if (release === undefined) return;
    this.#release = undefined;
    // The listener stays: the socket may still report an error.
    release(true);
    destroySocket(this.#client);
  }
}

/** The message of node-postgres if an app's own `query_timeout` passes. */
const QUERY_TIMEOUT = 'Query read timeout';

const IN_FAILED_TRANSACTION = '25P02';

/**
 * If the client and the server disagree on whether a statement is prepared, corrects the client. An app may have sent
 * DISCARD ALL or DEALLOCATE ALL.
 */
function correctPrepared(client: PgClient, { name, text }: Query, error: Error): boolean {
  const state = sqlState(error);
  if (name === undefined || !isPreparedMismatch(state)) return false;
  const prepared =
    property(client, 'namedQueries') ??
    property(property(client, 'connection'), 'parsedStatements');
  if (!isObject(prepared)) return false;
  if (state === PREPARED_TWICE) return Reflect.set(prepared, name, text);
  return Reflect.deleteProperty(prepared, name);
}

function ignore(): void {}

export function isPool(client: object): client is PgPool {
  return (
    hasMethod(client, 'connect') &&
    hasMethod(client, 'query') &&
    'totalCount' in client &&
    'idleCount' in client &&
    isObject(property(client, 'options'))
  );
}
