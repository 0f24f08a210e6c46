/**
 * What a store runs on: its source, opened at the first call and once; the calls that are under way;
 * pruning; listening; and how all of it ends.
 *
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
// The function itself: an app's tests may have put a clock of their own into the place of the global one.
import { setImmediate } from 'node:timers';
import { Batcher, onLanes } from '../batching/batcher.js';
import { Patience } from '../batching/deadlines.js';
import { BatchedRows, type Rows } from '../batching/rows.js';
import type { Connection, Opener } from '../drivers/detect.js';
import { StoreClosedError, safeError, storeError, TableMissingError } from '../errors.js';
import type { Settings } from '../options.js';
import { buildStatements, type Statements } from '../queries/statements.js';
import type { SessionView } from '../queries/view.js';
import type { Codec } from '../session/codec.js';
import { isId } from '../session/id.js';
import { CachedRows } from '../sync/cache.js';
import { type Announcement, channelOf } from '../sync/channel.js';
import { Realtime, type SyncSource } from '../sync/realtime.js';
import { traced } from '../util/tracing.js';
import { migrate } from './migrate.js';
import { pruneAll, pruneAtIntervals } from './prune.js';

/** What is there once the source is open. */
export interface Opened {
  readonly connection: Connection;
  readonly statements: Statements;
  readonly batcher: Batcher;
  readonly rows: Rows;
  readonly cache: CachedRows | undefined;
}

/** What an engine is made from, and whom it tells. */
export interface EngineParts {
  readonly opener: Opener;
  readonly settings: Settings;
  readonly table: SessionView;
  readonly codec: Codec;
  /** Another store has changed or ended a session. */
  readonly onForeign: (event: 'change' | 'destroy', id: string) => void;
  readonly onState: (state: 'up' | 'down') => void;
}

export class Engine {
  readonly realtime: Realtime | undefined;
  /** Once the source is open. */
  opened: Opened | undefined;
  /** Rows that pruning deleted. */
  pruned = 0;
  readonly #parts: EngineParts;
  /** What is opened here is the store's, in no context of the request that came first. */
  readonly #context = new AsyncResource('connect-drizzle');
  readonly #closing = new AbortController();
  readonly #pruning: Promise<void>;
  readonly #patience: Patience;
  #opening: Promise<Opened> | undefined;
  #closed: Promise<void> | undefined;
  #underWay = 0;
  #waitingToOpen = 0;
  #whenIdle: (() => void) | undefined;

  constructor(parts: EngineParts) {
    this.#parts = parts;
    this.#patience = new Patience(parts.settings.timeout);
    const { signal, pruneSessionInterval: interval, sync } = parts.settings;
    this.realtime = sync && this.#makeRealtime(sync);
    this.#pruning =
      interval === false
        ? Promise.resolve()
        : pruneAtIntervals({
            interval,
            signal: this.#closing.signal,
            run: () => this.prune(),
            onError: (error) => this.log('Pruning expired sessions failed', error),
          });
    const closeQuietly = () => {
      this.close().catch((error) => this.log('Closing the session store failed', error));
    };
    if (signal?.aborted) closeQuietly();
    else signal?.addEventListener('abort', closeQuietly, { signal: this.#closing.signal });
    // Listening starts with the store, not with its first request.
    if (!signal?.aborted) this.realtime?.start(() => this.#syncSource());
  }

  get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  /**
   * Runs a call. `prepare` runs at once and reads the arguments; the function that it returns runs when the source is
   * open; `onResult` and `onError` create the result from what comes of it. Only the promise crosses over: the caller
   * continues in its own async context.
   */
  perform<T, Result>(
    prepare: () => (opened: Opened) => Promise<T>,
    onResult: (value: T) => Result,
    onError: (error: unknown) => Result,
  ): Promise<Result> {
    let running: Promise<T>;
    try {
      if (this.#closed !== undefined) throw new StoreClosedError();
      const run = prepare();
      // A call that comes when the source is just open does not overtake those that have waited for it.
      const isNext = this.#waitingToOpen === 0;
      running = this.opened !== undefined && isNext ? run(this.opened) : this.#onceOpen(run);
    } catch (error) {
      return Promise.reject(error).catch(onError);
    }
    this.#underWay += 1;
    return running.then(
      (value) => {
        this.#ended();
        return onResult(value);
      },
      (error) => {
        this.#ended();
        return onError(error);
      },
    );
  }

  async #onceOpen<T>(run: (opened: Opened) => Promise<T>): Promise<T> {
    this.#waitingToOpen += 1;
    let opened: Opened;
    try {
      opened = await this.#openInTime();
    } finally {
      this.#waitingToOpen -= 1;
    }
    return run(opened);
  }

  #ended(): void {
    this.#underWay -= 1;
    if (this.#underWay === 0) this.#whenIdle?.();
  }

  /** Deletes what has expired, and gives the number of rows. */
  async prune(): Promise<number> {
    const { statements } = this.opened ?? (await this.#openInTime());
    return traced({ operation: 'prune' }, async () => {
      const deleteBatch = async (limit: number) => {
        const deleted = await statements.prune(limit);
        this.pruned += deleted;
        return deleted;
      };
      return pruneAll(deleteBatch, this.#closing.signal);
    });
  }

  /** Brings the table up to date, however long that takes, or within the `patience` of a call: seconds. */
  migrate({ alone }: Connection, patience?: number): Promise<void> {
    const { settings, table } = this.#parts;
    return alone((db) => migrate(db, settings, patience)).catch((error) => {
      throw storeError(error, table.label);
    });
  }

  /** Ends pruning and listening at once, waits for the calls that are under way, and closes the source. */
  close(): Promise<void> {
    this.#closed ??= this.#shutDown();
    return this.#closed;
  }

  /** An app's log that throws must not fail what is being logged. */
  log(message: string, error?: unknown): void {
    try {
      if (error === undefined) this.#parts.settings.errorLog(`connect-drizzle: ${message}`);
      else this.#parts.settings.errorLog(`connect-drizzle: ${message}`, safeError(error));
    } catch {
      // There is nobody left to tell.
    }
  }

  /** A database that does not answer keeps no caller waiting for longer than any other call. */
  #openInTime(): Promise<Opened> {
    return this.#patience.waitFor(this.#open());
  }

  /** Opens the source once; after a failure, the next call tries again. */
  #open(): Promise<Opened> {
    this.#opening ??= this.#context
      .runInAsyncScope(() => this.#connect())
      .then(
        (opened) => {
          this.opened = opened;
          return opened;
        },
        (error) => {
          this.#opening = undefined;
          throw storeError(error, this.#parts.table.label);
        },
      );
    return this.#opening;
  }

  async #connect(): Promise<Opened> {
    const {
      lanes,
      timeout,
      preparedStatements,
      maxLifetime,
      cache: cacheOptions,
    } = this.#parts.settings;
    // pg adds the whole client to such an error: none of that belongs into a log.
    const connection = await this.#parts.opener.open({
      timeout,
      onIdleError: (error) =>
        this.log(
          'An idle connection of the session store failed',
          storeError(error, this.#parts.table.label),
        ),
    });
    try {
      const built = buildStatements(connection.db, {
        ...this.#parts.table,
        withUser: this.#parts.settings.userId !== undefined,
        maxLifetime,
        prepared: preparedStatements,
        timeout,
        announce: this.realtime && { channel: this.#channel, sender: this.realtime.sender },
      });
      await this.#ensureTable(connection, built);
      const batcher = new Batcher({ connections: connection.connections, lanes, timeout });
      const statements = onLanes(built, batcher);
      const batched = new BatchedRows(statements, batcher, this.#parts.codec, timeout);
      const cache =
        cacheOptions && this.realtime
          ? new CachedRows(batched, this.realtime, cacheOptions)
          : undefined;
      return { connection, statements, batcher, rows: cache ?? batched, cache };
    } catch (error) {
      await connection.close();
      throw error;
    }
  }

  async #ensureTable(connection: Connection, statements: Statements): Promise<void> {
    if (!this.#parts.settings.createTableIfMissing && !this.#parts.opener.embedded) return;
    try {
      await statements.probe();
    } catch (error) {
      if (!(error instanceof TableMissingError) || this.#parts.settings.table !== undefined)
        throw error;
      // What has hung is left behind; the next call tries again.
      const { timeout } = this.#parts.settings;
      await this.#patience.waitFor(this.migrate(connection, timeout));
    }
  }

  get #channel(): string {
    return channelOf(this.#parts.table.schemaName, this.#parts.table.tableName);
  }

  #makeRealtime({ heartbeat, connectionString }: NonNullable<Settings['sync']>): Realtime {
    return new Realtime({
      channel: this.#channel,
      heartbeat,
      connectionString,
      onMessage: (message, isOwn) => this.#hear(message, isOwn),
      onState: (state) => {
        if (state === 'down') this.opened?.cache?.clear();
        this.#parts.onState(state);
      },
      onError: (message, error) => this.log(message, error),
    });
  }

  async #syncSource(): Promise<SyncSource> {
    const { connection, statements } = this.opened ?? (await this.#open());
    return {
      listen: connection.listen,
      announce: (payload) => statements.notify(this.#channel, payload),
    };
  }

  /** What another store has done, or an echo of what this one has. */
  #hear({ kind, body }: Announcement, isOwn: boolean): void {
    const ids = body.split(',').filter(isId);
    const cache = this.opened?.cache;
    if (isOwn) {
      cache?.echoed(kind, ids);
      return;
    }
    cache?.ended(ids);
    for (const id of ids) this.#parts.onForeign(kind, id);
  }

  async #shutDown(): Promise<void> {
    this.#closing.abort(new StoreClosedError());
    await this.#pruning;
    await this.realtime?.close();
    if (this.#underWay > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
    // The last callers are answered in the next tick.
    await new Promise((resolve) => setImmediate(resolve));
    await this.#patience.waitFor(this.#closeConnection());
  }

  async #closeConnection(): Promise<void> {
    const opened = await this.#opening?.catch(() => undefined);
    opened?.cache?.close();
    await opened?.connection.close();
  }
}
