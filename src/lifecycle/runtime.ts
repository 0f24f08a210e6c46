/**
 * The runtime of a store. It opens the source at the first call, keeps the order of calls while the source opens, passes
 * announcements to the cache and the app's events, prunes, and closes everything.
 *
 * @module
 */
import { type Deadline, Deadlines } from '../batching/deadlines.js';
import type { Sealing } from '../batching/sends.js';
import type { Opener } from '../drivers/detect.js';
import {
  InvalidArgumentError,
  MigrationError,
  StoreClosedError,
  safeError,
  sqlState,
  storeError,
} from '../errors.js';
import type { Settings } from '../options.js';
import type { SessionView } from '../queries/view.js';
import { isId } from '../session/id.js';
import { type Rekeying, type RekeyResult, rekeyAll } from '../session/rekey.js';
import type { Announcement } from '../sync/channel.js';
import { Realtime, type SyncSource } from '../sync/realtime.js';
import { followSignal } from '../util/abort.js';
import { setImmediate } from '../util/clock.js';
import { READ_ONLY } from '../util/sql-states.js';
import { traced } from '../util/tracing.js';
import { Availability } from './availability.js';
import { InFlight } from './in-flight.js';
import { type Opened, Opening } from './opening.js';
import { pruneAll, pruneAtIntervals } from './prune.js';

export type { Opened } from './opening.js';

export interface RuntimeParts {
  readonly opener: Opener;
  readonly settings: Settings;
  readonly table: SessionView;
  readonly sealing: Sealing;
  /** Called when another store has changed or ended a session. */
  readonly onForeign: (event: 'change' | 'destroy', id: string) => void;
  readonly onState: (state: 'up' | 'down') => void;
  /** With `whenUnavailable: 'skip'`: emits the event for express-session. */
  readonly onAvailability: (event: 'connect' | 'disconnect') => void;
}

export class Runtime {
  readonly realtime: Realtime | undefined;
  /** Number of rows deleted by pruning. */
  pruned = 0;
  readonly #parts: RuntimeParts;
  readonly #opening: Opening;
  readonly #deadlines: Deadlines;
  readonly #inFlight = new InFlight();
  readonly #availability: Availability | undefined;
  /** A field, because the pool's guard references it weakly. Converts the error, because node-postgres adds the client to it. */
  readonly #onIdleError = (error: unknown) =>
    this.log(
      'An idle connection of the session store failed',
      storeError(error, this.#parts.table.label, this.#parts.opener.server),
    );
  /** Guards the app's pool from the start, because a connection may break before the first call. */
  readonly #unguard: (() => void) | undefined;
  readonly #closing = new AbortController();
  /** Aborted when `close()` has waited for migrations long enough. */
  readonly #migrating = new AbortController();
  readonly #pruning: Promise<void>;
  #letGoOfSignal = () => {};
  #closed: Promise<void> | undefined;
  #waitingToOpen = 0;

  constructor(parts: RuntimeParts) {
    this.#parts = parts;
    const { settings, table, opener, sealing } = parts;
    refuseWhatItLacks(opener, settings);
    const { signal, pruneSessionInterval: interval, sync } = settings;
    this.#deadlines = new Deadlines(settings.timeout);
    if (opener.inMemory && process.env.NODE_ENV === 'production') {
      process.emitWarning(
        'connect-drizzle: this store is in memory; its sessions end with the process',
      );
    }
    this.#unguard = opener.guard?.(this.#onIdleError);
    this.realtime = sync && this.#makeRealtime(sync);
    this.#opening = new Opening({
      opener,
      settings,
      table,
      sealing,
      deadlines: this.#deadlines,
      realtime: this.realtime,
      onIdleError: this.#onIdleError,
    });
    if (settings.whenUnavailable === 'skip') {
      this.#availability = new Availability({
        probe: (deadlines) => this.#opening.probe(deadlines),
        timeout: settings.timeout,
        signal: this.#closing.signal,
        onChange: parts.onAvailability,
      });
    }
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
    if (signal !== undefined) this.#letGoOfSignal = followSignal(signal, closeQuietly);
    // Listening starts when the store is created, not at its first call.
    if (!this.isClosed) this.realtime?.start(() => this.#syncSource());
  }

  /** The parts that calls use after the source is open. */
  get opened(): Opened | undefined {
    return this.#opening.opened;
  }

  get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  /** Aborted when the store is closed. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Runs a call. `prepare` runs at once and reads the arguments. The function that it returns runs when the source is open,
   * and gives up at the deadline. `onResult` and `onError` convert the outcome to the result. Only the promise connects the
   * caller with the call, so the caller continues in its own async context.
   */
  perform<T, Result>(
    prepare: () => (opened: Opened, deadline: Deadline) => Promise<T>,
    onResult: (value: T) => Result,
    onError: (error: unknown) => Result,
  ): Promise<Result> {
    const deadline = this.#deadlines.start();
    let running: Promise<T>;
    try {
      if (this.isClosed) throw new StoreClosedError();
      const run = prepare();
      const { opened } = this;
      // A call that comes just after opening must not overtake those that waited for it.
      const isNext = this.#waitingToOpen === 0;
      running =
        opened !== undefined && isNext ? run(opened, deadline) : this.#onceOpen(run, deadline);
    } catch (error) {
      this.#deadlines.end(deadline);
      return Promise.reject(error).catch(onError);
    }
    return this.#inFlight.track(
      running,
      (value) => {
        this.#deadlines.end(deadline);
        return onResult(value);
      },
      (error) => {
        this.#deadlines.end(deadline);
        this.#availability?.failed(error);
        return onError(error);
      },
    );
  }

  /** Deletes all rows that have expired and returns their number. */
  async prune(): Promise<number> {
    const { statements } = this.opened ?? (await this.#openInTime());
    return traced({ operation: 'prune' }, async () => {
      const deleteBatch = async (limit: number) => {
        const deleted = await this.#deadlines.within((each) => statements.prune(each, limit));
        this.pruned += deleted;
        return deleted;
      };
      return pruneAll(deleteBatch, this.#closing.signal);
    });
  }

  /**
   * Encrypts all sessions with the first of the keys. Stops only if the store is closed. Each statement has the time limit
   * of a call.
   */
  async rekey(rekeying: Rekeying): Promise<RekeyResult> {
    if (this.#parts.settings.encryptionKeys.length === 0) {
      throw new InvalidArgumentError('rekey() needs the option encryptionKeys');
    }
    const { statements } = this.opened ?? (await this.#openInTime());
    return rekeyAll({
      ...rekeying,
      list: (...page) => this.#deadlines.within((each) => statements.listStored(each, ...page)),
      reseal: (rows) => this.#deadlines.within((each) => statements.reseal(each, rows)),
      signal: this.#closing.signal,
    });
  }

  /** Creates or updates the table, without a time limit. Stops only if the store is closed. */
  migrate(): Promise<void> {
    if (this.#parts.settings.table !== undefined) {
      const message =
        "The table is the app's own: create it with drizzle-kit (`drizzle-kit generate`, `drizzle-kit migrate`)";
      return Promise.reject(new MigrationError(message));
    }
    const { transactions } = this.#parts.opener.lacks ?? {};
    if (transactions !== undefined) {
      return Promise.reject(new MigrationError(`migrate() needs ${transactions}`));
    }
    if (this.isClosed) return Promise.reject(new StoreClosedError());
    return this.#inFlight.track(
      this.#opening.migrate(this.#migrating.signal),
      () => {},
      (error) => {
        throw error;
      },
    );
  }

  /** Stops pruning and listening at once, waits for the calls in flight, and closes the source. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** Logs an error. Ignores an error of the log function itself. */
  log(message: string, error?: unknown): void {
    const { errorLog } = this.#parts.settings;
    const call = async () =>
      error === undefined
        ? errorLog(`connect-drizzle: ${message}`)
        : errorLog(`connect-drizzle: ${message}`, safeError(error));
    // It may be an async function. There is no other place to report its error.
    call().catch(() => {});
  }

  /** Opens the source within the time limit of a call. */
  #openInTime(): Promise<Opened> {
    return this.#deadlines.within((deadline) => deadline.waitFor(this.#opening.open()));
  }

  async #onceOpen<T>(
    run: (opened: Opened, deadline: Deadline) => Promise<T>,
    deadline: Deadline,
  ): Promise<T> {
    this.#waitingToOpen += 1;
    let opened: Opened;
    try {
      opened = await deadline.waitFor(this.#opening.open());
    } finally {
      this.#waitingToOpen -= 1;
    }
    return run(opened, deadline);
  }

  #makeRealtime({ heartbeat, connectionString }: NonNullable<Settings['sync']>): Realtime {
    return new Realtime({
      heartbeat,
      connectionString,
      onMessage: (message, isOwn) => this.#hear(message, isOwn),
      onState: (state) => {
        if (state === 'down') this.#opening.current?.cache?.clear();
        this.#parts.onState(state);
      },
      onError: (message, error) => this.log(message, error),
    });
  }

  async #syncSource(): Promise<SyncSource> {
    const { driver, statements, channel = '' } = await this.#opening.open();
    return {
      channel,
      listen: driver.listen,
      announce: async (payload, onSend, signal) => {
        const send = () =>
          this.#deadlines.within(
            (deadline) => statements.notify(deadline, onSend, channel, payload),
            signal,
          );
        // Each open connection may be to a former primary. It is closed then.
        for (let { idle } = driver; idle > 0; idle -= 1) {
          try {
            return await send();
          } catch (error) {
            if (sqlState(error) !== READ_ONLY) throw error;
          }
        }
        return send();
      },
    };
  }

  #hear({ kind, body }: Announcement, isOwn: boolean): void {
    const ids = body.split(',').filter(isId);
    const cache = this.#opening.current?.cache;
    if (isOwn) {
      cache?.echoed(kind, ids);
      return;
    }
    cache?.forget(ids);
    for (const id of ids) this.#parts.onForeign(kind, id);
  }

  async #close(): Promise<void> {
    this.#closing.abort(new StoreClosedError());
    this.#letGoOfSignal();
    await this.#pruning;
    await this.realtime?.close();
    // Calls end in time by themselves. A migration may wait for another one, or for an unreachable server.
    const limit = this.#deadlines.start();
    limit.holder = { giveUp: () => this.#migrating.abort(new StoreClosedError()) };
    await this.#inFlight.idle();
    this.#deadlines.end(limit);
    // The callbacks of the last calls run in the next tick.
    await new Promise((resolve) => setImmediate(resolve));
    await this.#opening.close();
    this.#unguard?.();
  }
}

/** @throws {InvalidArgumentError} for an option that the source does not support */
function refuseWhatItLacks({ lacks }: Opener, settings: Settings): void {
  if (lacks?.listening !== undefined && settings.sync !== undefined) {
    const name = settings.cache === undefined ? 'sync' : 'cache';
    throw new InvalidArgumentError(`The option ${name} needs ${lacks.listening}`);
  }
  if (lacks?.transactions !== undefined && settings.createTableIfMissing) {
    throw new InvalidArgumentError(`The option createTableIfMissing needs ${lacks.transactions}`);
  }
}
