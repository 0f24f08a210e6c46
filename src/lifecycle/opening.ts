/**
 * Opens a store's source: connects, checks or creates the table, and builds the parts that the store's calls use.
 *
 * @module
 */
import { AsyncResource } from 'node:async_hooks';
import { Batcher, type TableCalls, tableCalls } from '../batching/batcher.js';
import type { Deadlines } from '../batching/deadlines.js';
import { runDirect } from '../batching/direct.js';
import { BatchedRows, type Rows } from '../batching/rows.js';
import type { Sealing } from '../batching/sends.js';
import type { Opener } from '../drivers/detect.js';
import type { Driver } from '../drivers/driver.js';
import {
  InvalidArgumentError,
  StoreClosedError,
  StoreTimeoutError,
  sqlState,
  storeError,
} from '../errors.js';
import type { Settings } from '../options.js';
import { chosenEngine, type Engine } from '../queries/engines.js';
import { statementsFor } from '../queries/statements.js';
import type { ExpectedTable } from '../queries/table-check.js';
import type { SessionView } from '../queries/view.js';
import { CachedRows } from '../sync/cache.js';
import { channelOf } from '../sync/channel.js';
import type { Realtime } from '../sync/realtime.js';
import { unlessAborted } from '../util/abort.js';
import { LOCK_NOT_AVAILABLE } from '../util/sql-states.js';
import { migrate } from './migrate.js';
import { type OnConnection, TableGuard } from './table-guard.js';

/** The parts that calls use after the source is open. */
export interface Opened {
  readonly driver: Driver;
  readonly statements: TableCalls;
  readonly batcher: Batcher;
  readonly rows: Rows;
  readonly cache: CachedRows | undefined;
  /** The channel for announcements; `undefined` without `sync`. */
  readonly channel: string | undefined;
  readonly engine: Engine;
}

export interface OpeningParts {
  readonly opener: Opener;
  readonly settings: Settings;
  readonly table: SessionView;
  readonly sealing: Sealing;
  readonly deadlines: Deadlines;
  readonly realtime: Realtime | undefined;
  /** Called when an idle connection of the store's own pool fails. */
  readonly onIdleError: (error: unknown) => void;
}

export class Opening {
  /** The last result of opening. */
  current: Opened | undefined;
  readonly #parts: OpeningParts;
  readonly #table: TableGuard;
  readonly #expected: ExpectedTable;
  /** Opens the source in the store's async context, not in the context of the first request. */
  readonly #context = new AsyncResource('connect-drizzle');
  readonly #closing = new AbortController();
  #driver: Promise<Driver> | undefined;
  #opening: Promise<Opened> | undefined;

  constructor(parts: OpeningParts) {
    this.#parts = parts;
    this.#expected = { ...parts.table, withUser: parts.settings.userId !== undefined };
    this.#table = new TableGuard(this.#expected, this.#errorOf);
  }

  /** The open parts; `undefined` if the source must be opened or its table checked first. */
  get opened(): Opened | undefined {
    return this.#table.isUsable ? this.current : undefined;
  }

  /** Opens the source. If it is open, checks the table again. After a failure, the next call tries again. */
  open(): Promise<Opened> {
    this.#opening ??= this.#context
      .runInAsyncScope(() => this.#open())
      .catch((error) => {
        throw this.#errorOf(error);
      })
      .finally(() => {
        this.#opening = undefined;
      });
    return this.#opening;
  }

  /** Resolves if the database responds within `deadlines`, which may be shorter than the deadlines of calls. */
  probe(deadlines: Deadlines): Promise<void> {
    return deadlines.within(async (deadline) => {
      const { statements } = this.opened ?? (await deadline.waitFor(this.open()));
      await statements.probe(deadline);
    });
  }

  /**
   * Creates or updates the table. Acquiring the connection has the time limit of a call. Only `signal` limits the migration
   * itself. `lockTimeout`: see {@link migrate}.
   */
  async migrate(signal: AbortSignal, lockTimeout?: number): Promise<void> {
    const { deadlines } = this.#parts;
    const run = async () => {
      const driver = await this.#context.runInAsyncScope(() => this.#connect());
      await driver.transaction((on) => migrate(on, this.#expected, lockTimeout), {
        deadlineMs: deadlines.nowPlusTimeout(),
        signal,
      });
    };
    try {
      await unlessAborted(run(), signal);
    } catch (error) {
      throw this.#errorOf(error);
    }
  }

  /** Stops opening, if it is in progress, and closes the connections that the store itself opened. */
  close(): Promise<void> {
    this.#closing.abort(new StoreClosedError());
    return this.#parts.deadlines.within((deadline) => deadline.waitFor(this.#close()));
  }

  async #close(): Promise<void> {
    await this.#opening?.catch(() => {});
    this.current?.cache?.close();
    const driver = await this.#driver?.catch(() => undefined);
    await driver?.close();
  }

  readonly #errorOf = (error: unknown): Error => {
    const { table, opener } = this.#parts;
    return storeError(error, table.label, opener.server);
  };

  async #open(): Promise<Opened> {
    const driver = await this.#connect();
    const { settings, realtime } = this.#parts;
    const table = await unlessAborted(this.#ensureTable(driver), this.#closing.signal);
    const engine = chosenEngine(table.engine, settings.engine);
    refuseWhatItLacks(engine, settings);
    const channel = this.#channelIn(table.schemaName);
    const { current } = this;
    const isMoved = current !== undefined && current.channel !== channel;
    if (current === undefined || isMoved || !runsSameStatements(current.engine, engine)) {
      current?.cache?.close();
      this.current = this.#build(driver, channel, engine);
      if (isMoved) realtime?.restart();
      return this.current;
    }
    return current;
  }

  #connect(): Promise<Driver> {
    const { opener, settings, onIdleError } = this.#parts;
    this.#driver ??= opener.open({ timeout: settings.timeout, onIdleError }).catch((error) => {
      this.#driver = undefined;
      throw error;
    });
    return this.#driver;
  }

  #ensureTable(driver: Driver) {
    const { opener, settings, deadlines } = this.#parts;
    const mayCreate = (settings.createTableIfMissing || opener.embedded) && !settings.table;
    // If a migration hangs, stop waiting for it. The next call tries again.
    const create = () => {
      const over = new AbortController();
      const migrating = this.migrate(over.signal, settings.timeout).catch((error) => {
        // The server may end the wait for another migration just before the deadline does.
        const isOver = sqlState(error) === LOCK_NOT_AVAILABLE;
        throw isOver ? new StoreTimeoutError(settings.timeout, false) : error;
      });
      return deadlines.within((deadline) => deadline.waitFor(migrating, () => over.abort()));
    };
    return this.#table.ensure(this.#on(driver), mayCreate ? create : undefined);
  }

  #on(driver: Driver): OnConnection {
    const { deadlines } = this.#parts;
    return (work) => deadlines.within((deadline) => runDirect(driver, deadline, work));
  }

  #channelIn(schemaName = 'public'): string | undefined {
    const { table, realtime } = this.#parts;
    return realtime && channelOf(schemaName, table.tableName);
  }

  #build(driver: Driver, channel: string | undefined, engine: Engine): Opened {
    const { settings, table, sealing, deadlines, realtime } = this.#parts;
    const { lanes, preparedStatements, maxLifetime, cache: cacheOptions } = settings;
    const statements = statementsFor({
      ...table,
      withUser: settings.userId !== undefined,
      maxLifetime,
      prepared: preparedStatements,
      engine,
      announce:
        realtime && channel !== undefined ? { channel, sender: realtime.sender } : undefined,
    });
    const batcher = new Batcher({
      driver,
      lanes,
      isRowByRow: engine.isPortable,
      waitsForRows: engine.isPortable && !engine.limitsLockWaits,
      deadlines,
      errorOf: this.#errorOf,
      explain: (error) => this.#table.explain(error, this.#on(driver)),
    });
    const batched = new BatchedRows(statements, batcher, sealing);
    const cache =
      cacheOptions && realtime ? new CachedRows(batched, realtime, cacheOptions) : undefined;
    return {
      driver,
      statements: tableCalls(statements, batcher),
      batcher,
      rows: cache ?? batched,
      cache,
      channel,
      engine,
    };
  }
}

function runsSameStatements(one: Engine, other: Engine): boolean {
  return one.isPortable === other.isPortable && one.limitsLockWaits === other.limitsLockWaits;
}

/** @throws {InvalidArgumentError} for an option that the engine does not support */
function refuseWhatItLacks({ canListen, name }: Engine, settings: Settings): void {
  if (canListen || settings.sync === undefined) return;
  const option = settings.cache === undefined ? 'sync' : 'cache';
  throw new InvalidArgumentError(`The option ${option} needs LISTEN, which ${name} does not have`);
}
