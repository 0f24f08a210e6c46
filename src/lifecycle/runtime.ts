/**
 * What a store runs on: it opens the source at the first call, keeps the calls in order while the source
 * opens, connects realtime with the cache and the app's events, prunes, and closes all of it.
 *
 * @module
 */
import type { Opener } from '../drivers/detect.js';
import { StoreClosedError, safeError, storeError } from '../errors.js';
import type { Settings } from '../options.js';
import type { SessionView } from '../queries/view.js';
import type { Codec } from '../session/codec.js';
import { isId } from '../session/id.js';
import type { Announcement } from '../sync/channel.js';
import { Realtime, type SyncSource } from '../sync/realtime.js';
import { followSignal } from '../util/abort.js';
import { setImmediate } from '../util/clock.js';
import { traced } from '../util/tracing.js';
import { Calls } from './calls.js';
import { type Opened, Opening } from './opening.js';
import { pruneAll, pruneAtIntervals } from './prune.js';

export type { Opened } from './opening.js';

export interface RuntimeParts {
  readonly opener: Opener;
  readonly settings: Settings;
  readonly table: SessionView;
  readonly codec: Codec;
  /** Another store changed or ended a session. */
  readonly onForeign: (event: 'change' | 'destroy', id: string) => void;
  readonly onState: (state: 'up' | 'down') => void;
}

export class Runtime {
  readonly realtime: Realtime | undefined;
  /** Rows that pruning deleted. */
  pruned = 0;
  readonly #parts: RuntimeParts;
  readonly #opening: Opening;
  readonly #calls = new Calls();
  readonly #closing = new AbortController();
  readonly #pruning: Promise<void>;
  #letGoOfSignal = () => {};
  #closed: Promise<void> | undefined;
  #waitingToOpen = 0;

  constructor(parts: RuntimeParts) {
    this.#parts = parts;
    const { settings, table, opener, codec } = parts;
    const { signal, pruneSessionInterval: interval, sync } = settings;
    this.realtime = sync && this.#makeRealtime(sync);
    this.#opening = new Opening({
      opener,
      settings,
      table,
      codec,
      realtime: this.realtime,
      // pg adds the whole client to this error; none of that may be logged.
      onIdleError: (error) =>
        this.log('An idle connection of the session store failed', storeError(error, table.label)),
    });
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
    // Listening starts with the store, not with its first call.
    if (!this.isClosed) this.realtime?.start(() => this.#syncSource());
  }

  /** What calls use, once the source is open. */
  get opened(): Opened | undefined {
    return this.#opening.opened;
  }

  get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  /**
   * Runs a call. `begin` is called at once and reads the arguments; the function it returns runs when the
   * source is open. `give` and `recover` turn the outcome into the result. Nothing but the promise
   * connects the caller with what runs, so the caller continues in its own async context.
   */
  perform<T, Result>(
    begin: () => (opened: Opened) => Promise<T>,
    give: (value: T) => Result,
    recover: (error: unknown) => Result,
  ): Promise<Result> {
    let running: Promise<T>;
    try {
      if (this.isClosed) throw new StoreClosedError();
      const run = begin();
      const { opened } = this;
      // A call that comes just after opening must not overtake those that waited for it.
      const isNext = this.#waitingToOpen === 0;
      running = opened !== undefined && isNext ? run(opened) : this.#onceOpen(run);
    } catch (error) {
      return Promise.reject(error).catch(recover);
    }
    return this.#calls.track(running, give, recover);
  }

  /** Deletes all rows that have expired and returns their number. */
  async prune(): Promise<number> {
    const { statements } = this.opened ?? (await this.#opening.openInTime());
    return traced({ operation: 'prune' }, async () => {
      const deleteBatch = async (limit: number) => {
        const deleted = await statements.prune(limit);
        this.pruned += deleted;
        return deleted;
      };
      return pruneAll(deleteBatch, this.#closing.signal);
    });
  }

  /** Creates the table or brings it up to date, however long that takes. */
  migrate(connection: Opened['connection']): Promise<void> {
    return this.#opening.migrate(connection);
  }

  /** Stops pruning and listening at once, waits for the calls in flight, and closes the source. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  /** Logs an error. A log function that throws must not fail what is logged. */
  log(message: string, error?: unknown): void {
    try {
      if (error === undefined) this.#parts.settings.errorLog(`connect-drizzle: ${message}`);
      else this.#parts.settings.errorLog(`connect-drizzle: ${message}`, safeError(error));
    } catch {
      // There is nowhere left to report it.
    }
  }

  async #onceOpen<T>(run: (opened: Opened) => Promise<T>): Promise<T> {
    this.#waitingToOpen += 1;
    let opened: Opened;
    try {
      opened = await this.#opening.openInTime();
    } finally {
      this.#waitingToOpen -= 1;
    }
    return run(opened);
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
    const { connection, statements, channel = '' } = await this.#opening.open();
    return {
      channel,
      listen: connection.listen,
      announce: (payload) => statements.notify(channel, payload),
    };
  }

  #hear({ kind, body }: Announcement, isOwn: boolean): void {
    const ids = body.split(',').filter(isId);
    const cache = this.#opening.current?.cache;
    if (isOwn) {
      cache?.echoed(kind, ids);
      return;
    }
    cache?.ended(ids);
    for (const id of ids) this.#parts.onForeign(kind, id);
  }

  async #close(): Promise<void> {
    this.#closing.abort(new StoreClosedError());
    this.#letGoOfSignal();
    await this.#pruning;
    await this.realtime?.close();
    await this.#calls.idle();
    // The last callers are answered in the next tick.
    await new Promise((resolve) => setImmediate(resolve));
    await this.#opening.close();
  }
}
