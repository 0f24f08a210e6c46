/**
 * Opens a store's source: connects, finds or creates the table, and builds what the store's calls use.
 *
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import { Batcher, onLanes } from '../batching/batcher.js';
import { Patience } from '../batching/deadlines.js';
import { BatchedRows, type Rows } from '../batching/rows.js';
import type { Connection, Opener } from '../drivers/detect.js';
import { StoreClosedError, storeError, TableMissingError } from '../errors.js';
import type { Settings } from '../options.js';
import { buildStatements, type Statements } from '../queries/statements.js';
import type { SessionView } from '../queries/view.js';
import type { Codec } from '../session/codec.js';
import { CachedRows } from '../sync/cache.js';
import { channelOf } from '../sync/channel.js';
import type { Realtime } from '../sync/realtime.js';
import { unlessAborted } from '../util/abort.js';
import { type Location, locate } from './catalog.js';
import { migrate } from './migrate.js';

/** What calls use once the source is open. */
export interface Opened {
  readonly connection: Connection;
  readonly statements: Statements;
  readonly batcher: Batcher;
  readonly rows: Rows;
  readonly cache: CachedRows | undefined;
  /** Where changes are announced; `undefined` without `sync`. */
  readonly channel: string | undefined;
}

export interface OpeningParts {
  readonly opener: Opener;
  readonly settings: Settings;
  readonly table: SessionView;
  readonly codec: Codec;
  readonly realtime: Realtime | undefined;
  /** An idle connection of the store's own pool failed. */
  readonly onIdleError: (error: unknown) => void;
}

export class Opening {
  /** What was opened last. */
  current: Opened | undefined;
  readonly #parts: OpeningParts;
  readonly #patience: Patience;
  /** What is opened here belongs to the store, not to the async context of the first request. */
  readonly #context = new AsyncResource('connect-drizzle');
  readonly #closing = new AbortController();
  #connection: Connection | undefined;
  #opening: Promise<Opened> | undefined;
  #isTableKnown = false;

  constructor(parts: OpeningParts) {
    this.#parts = parts;
    this.#patience = new Patience(parts.settings.timeout);
  }

  /** What calls can use without asking the database; `undefined` before that. */
  get opened(): Opened | undefined {
    return this.#isTableKnown ? this.current : undefined;
  }

  /** Opens the source, within the time that a call may take. After a failure, the next call tries again. */
  openInTime(): Promise<Opened> {
    return this.#patience.waitFor(this.open());
  }

  /** Opens the source, or, if it is open, asks again where the table is. */
  open(): Promise<Opened> {
    this.#opening ??= this.#context
      .runInAsyncScope(() => this.#open())
      .catch((error) => {
        throw storeError(error, this.#parts.table.label);
      })
      .finally(() => {
        this.#opening = undefined;
      });
    return this.#opening;
  }

  /** Creates the table or brings it up to date. `lockTimeout`: see {@link migrate}. */
  migrate({ alone }: Connection, lockTimeout?: number): Promise<void> {
    const { settings, table } = this.#parts;
    return alone((db) => migrate(db, settings, lockTimeout)).catch((error) => {
      throw storeError(error, table.label);
    });
  }

  /** Gives up opening, if it is still under way, and closes what the store itself opened. */
  close(): Promise<void> {
    this.#closing.abort(new StoreClosedError());
    return this.#patience.waitFor(this.#close());
  }

  async #close(): Promise<void> {
    await this.#opening?.catch(() => {});
    this.current?.cache?.close();
    await this.#connection?.close();
  }

  async #open(): Promise<Opened> {
    const { opener, settings, onIdleError } = this.#parts;
    const connection =
      this.#connection ?? (await opener.open({ timeout: settings.timeout, onIdleError }));
    try {
      const location = await this.#locate(connection);
      const channel = this.#channelAt(location);
      if (this.current === undefined || this.current.channel !== channel) {
        this.current?.cache?.close();
        const isMoved = this.current !== undefined;
        this.current = this.#build(connection, channel);
        if (isMoved) this.#parts.realtime?.restart();
      }
      this.#connection = connection;
      this.#isTableKnown = location?.exists ?? true;
      return this.current;
    } catch (error) {
      if (this.#connection === undefined) await connection.close();
      throw error;
    }
  }

  /**
   * Finds the table, and creates it if the store may. Returns `undefined` if nothing depends on where it
   * is: then the first statement finds out whether it exists.
   */
  async #locate(connection: Connection): Promise<Location | undefined> {
    const { opener, settings, table, realtime } = this.#parts;
    const creates = settings.createTableIfMissing || opener.embedded;
    const isNamed = table.schemaName !== undefined;
    if (!creates && (realtime === undefined || isNamed)) return undefined;
    const find = () =>
      unlessAborted(this.#patience.waitFor(locate(connection.db, table)), this.#closing.signal);
    const location = await find();
    if (location.exists || !creates) return location;
    if (settings.table !== undefined) throw new TableMissingError(table.label);
    // If this hangs, it is given up, and the next call tries again.
    await this.#patience.waitFor(this.migrate(connection, settings.timeout));
    return find();
  }

  #channelAt(location: Location | undefined): string | undefined {
    const { table, realtime } = this.#parts;
    if (realtime === undefined) return undefined;
    const schemaName = table.schemaName ?? location?.schemaName ?? 'public';
    return channelOf(schemaName, table.tableName);
  }

  #build(connection: Connection, channel: string | undefined): Opened {
    const { settings, table, codec, realtime } = this.#parts;
    const { lanes, timeout, preparedStatements, maxLifetime, cache: cacheOptions } = settings;
    const built = buildStatements(connection.db, {
      ...table,
      withUser: settings.userId !== undefined,
      maxLifetime,
      prepared: preparedStatements,
      timeout,
      announce:
        realtime && channel !== undefined ? { channel, sender: realtime.sender } : undefined,
    });
    const batcher = new Batcher({ connections: connection.connections, lanes, timeout });
    const statements = onLanes(built, batcher);
    const batched = new BatchedRows(statements, batcher, codec, timeout);
    const cache =
      cacheOptions && realtime ? new CachedRows(batched, realtime, cacheOptions) : undefined;
    return { connection, statements, batcher, rows: cache ?? batched, cache, channel };
  }
}
