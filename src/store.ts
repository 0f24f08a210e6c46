/**
 * The store: express-session's contract and what goes beyond it.
 *
 * @module
 */
import type { Request } from 'express';
import session, { type Session, type SessionData } from 'express-session';
import type { Rows } from './batching/rows.js';
import { nameIn, openerFor, type Source } from './drivers/detect.js';
import { ConflictError, InvalidArgumentError, InvalidSidError, MigrationError } from './errors.js';
import { Engine, type Opened } from './lifecycle/runtime.js';
import { type DrizzleStoreOptions, type Settings, settingsFrom, type UserId } from './options.js';
import type { ListedRow, StoredRow } from './queries/answers.js';
import { viewOf } from './queries/view.js';
import { sessionTable } from './schema.js';
import { Codec } from './session/codec.js';
import { isUsableCookie } from './session/cookie.js';
import { idOf, isId } from './session/id.js';
import { Loader } from './session/load.js';
import { type SaveResult, Saver } from './session/save.js';
import { userIdText } from './session/user.js';
import { describe, wrong } from './util/check.js';
import { traced, tracing } from './util/tracing.js';

/** The Node callback that express-session passes. */
export type Callback<T> = (error?: unknown, result?: T) => void;

/** A session of `sessions()`. */
export interface StoredSession {
  /** `base64url(SHA-256(sid))`: what `revoke` takes. */
  readonly id: string;
  readonly userId: string | null;
  readonly data: SessionData;
  readonly createdAt: Date;
  readonly lastSeenAt: Date;
  readonly expiresAt: Date;
}

/** Changes the session that it gets, or gives another. It may run more than once. */
// biome-ignore lint/suspicious/noConfusingVoidType: a function that returns nothing is meant
export type Updater = (session: SessionData) => SessionData | void | Promise<SessionData | void>;

/** What happened to a session, and whether this store did it. */
export interface SessionEvent {
  readonly id: string;
  readonly local: boolean;
}

/** Counts since the store was made. */
export interface StoreStats {
  /** Reads that the cache answered, and that it could not, or was not asked to (`update()`). */
  readonly hits: number;
  readonly misses: number;
  /** Statements sent in batches, and the rows in them; not the reads that tell why a row was not written. */
  readonly statements: number;
  readonly rows: number;
  readonly largestBatch: number;
  /** Statements or rows sent again. */
  readonly retries: number;
  /** Writes that were merged with another request's. */
  readonly merges: number;
  /** Writes that came after their session had ended, and were not done. */
  readonly dropped: number;
  /** Rows that could not be read. */
  readonly unreadable: number;
  /** Rows that pruning deleted. */
  readonly pruned: number;
  readonly sync: 'off' | 'up' | 'down';
  /** Entries in the cache now. */
  readonly cached: number;
}

/** What express-session assigns to `store.generate`: it gives a request its new session. */
type GenerateSession = (request: Request) => void;

const PAGE_ROWS = 256;

/** More tries of `update()` than callers that could stand in each other's way. */
const UPDATE_TRIES = 1000;

/**
 * A session store for express-session on PostgreSQL.
 *
 * A method takes a Node callback, or gives a promise where there is none. A callback is never
 * called synchronously. A sid that is unknown, expired, revoked or malformed is "no session", never
 * an error: errors are for the system ({@link SessionStoreError}). Any call may fail with a
 * {@link StoreClosedError}, {@link ConnectionError}, {@link StoreTimeoutError}, {@link TableMissingError} or
 * {@link StatementError}.
 */
export class DrizzleStore extends session.Store {
  readonly #settings: Settings;
  readonly #codec: Codec;
  readonly #saver: Saver;
  readonly #engine: Engine;
  readonly #loader: Loader;
  #generate: GenerateSession | undefined;

  static {
    // express-session assigns `store.generate`: what it generates must be known as a request's own.
    Object.defineProperty(DrizzleStore.prototype, 'generate', {
      configurable: true,
      get(this: DrizzleStore) {
        return this.#generate;
      },
      set(this: DrizzleStore, generate: GenerateSession) {
        this.#generate = (request) => {
          generate(request);
          this.#saver.generated(request.session, request.sessionID);
        };
      },
    });
  }

  /**
   * @param source a Drizzle database, a pool, a PGlite or postgres-js client, a URL, a folder, or
   *   nothing for an in-memory store
   * @throws {InvalidArgumentError} a TypeError that names what came and what is taken
   */
  constructor(...args: [source?: Source, options?: DrizzleStoreOptions]) {
    super();
    // An explicit `undefined` is an unset variable, and refused.
    const opener = openerFor(args.length === 0 ? 'memory://' : args[0]);
    const settings = settingsFrom(args[1] === undefined ? {} : args[1]);
    const { table, tableName, schemaName } = settings;
    const named = table === undefined ? sessionTable({ tableName, schemaName }) : table;
    this.#settings = settings;
    this.#codec = new Codec(settings.serializer, settings.encryptionKeys);
    this.#saver = new Saver(this.#codec, settings);
    this.#engine = new Engine({
      opener,
      settings,
      table: viewOf(named, nameIn(opener.drizzle)),
      codec: this.#codec,
      onForeign: (event, id) => this.#announce(event, id, false),
      onState: (state) => process.nextTick(() => this.emit('sync', state)),
    });
    this.#loader = new Loader(this.#codec, this.#saver, settings.maxLifetime, (message) =>
      this.#engine.log(message),
    );
    if (opener.inMemory && process.env.NODE_ENV === 'production') {
      process.emitWarning(
        'connect-drizzle: this store is in memory; its sessions end with the process',
      );
    }
  }

  /**
   * Reads a session. A row that cannot be read is reported to `errorLog` and is no session.
   *
   * Frameworks pass a callback and make a request's session of what they get, which fails without a usable cookie: for
   * a callback, a row without one is no session and is reported, too. A promise returns it as it is stored.
   */
  override get(sid: string, callback: (error: unknown, session?: SessionData | null) => void): void;
  override get(sid: string): Promise<SessionData | undefined>;
  override get(sid: string, callback?: Callback<SessionData | undefined>) {
    const id = isSid(sid) ? idOf(sid) : '';
    const isForRequest = typeof callback === 'function';
    const hit = this.#hit(id, isForRequest);
    if (hit === undefined) {
      return this.#call(
        callback,
        () => {
          if (id === '') return async () => undefined;
          return ({ rows }) => traced({ operation: 'get', id }, () => rowOf(id, rows));
        },
        (row) => row && this.#loader.loaded(row, isForRequest),
        (error) => this.#loader.unreadable(id, error),
      );
    }
    const session = hit ?? undefined;
    if (typeof callback !== 'function') return Promise.resolve(session);
    process.nextTick(callback, null, session);
    return undefined as never;
  }

  /**
   * Saves a session: compare-and-set with a merge for one that `get` gave, an insert for a new one. A
   * session that was ended meanwhile is not written, which is no error.
   *
   * @throws {InvalidSidError} for a sid that is empty or no string
   * @throws {NotSerializableError} for a session that is not JSON
   * @throws {InvalidUserIdError} where `userId` gives no user's id
   * @throws {ConflictError} where other writers were first a thousand times
   */
  override set(sid: string, session: SessionData, callback: Callback<void>): void;
  override set(sid: string, session: SessionData): Promise<void>;
  override set(sid: string, session: SessionData, callback?: Callback<void>) {
    const id = isSid(sid) ? idOf(sid) : '';
    return this.#save(callback, 'set', id, () => {
      if (id === '') throw new InvalidSidError(describe(sid));
      const draft = this.#saver.draft(session);
      return ({ rows }) => rows.write(id, (writes) => this.#saver.save(id, session, draft, writes));
    });
  }

  /** Moves a session's expiry to its cookie's. Does nothing where there is no live session. */
  override touch(sid: string, session: SessionData, callback: Callback<void>): void;
  override touch(sid: string, session: SessionData): Promise<void>;
  override touch(sid: string, session: SessionData, callback?: Callback<void>) {
    if (!isSid(sid) || this.#settings.disableTouch) {
      return this.#call(callback, () => async () => {});
    }
    const id = idOf(sid);
    return this.#save(callback, 'touch', id, () => {
      return ({ rows }) => this.#saver.touch(id, session, rows);
    });
  }

  /** Ends a session, by its sid or by an id of `all()` or `ids()`. No error where there is none. */
  override destroy(sid: string): Promise<void>;
  override destroy(sid: string, callback?: Callback<void>): void;
  override destroy(sid: string, callback?: Callback<void>) {
    return this.#call(callback, () => {
      if (!isSid(sid)) return async () => {};
      const id = idOf(sid);
      return (opened) =>
        traced({ operation: 'destroy', id }, async () => {
          await this.#end(id, opened);
          if (isId(sid)) await this.#end(sid, opened);
        });
    });
  }

  /** All live sessions by their ids. Of a large table, use `sessions()`. */
  override all(
    callback: (error: unknown, sessions?: Record<string, SessionData> | null) => void,
  ): void;
  override all(): Promise<Record<string, SessionData>>;
  override all(callback?: Callback<Record<string, SessionData>>) {
    return this.#call(callback, () => async (opened) => {
      const all: Record<string, SessionData> = Object.create(null);
      for await (const row of this.#pages(undefined, opened)) {
        const session = this.#loader.sessionOf(row);
        if (session !== undefined) all[row.id] = session;
      }
      return all;
    });
  }

  /** The number of live sessions. */
  override length(callback: (error: unknown, length?: number) => void): void;
  override length(): Promise<number>;
  override length(callback?: Callback<number>) {
    return this.#call(
      callback,
      () =>
        ({ statements }) =>
          statements.count(Date.now()),
    );
  }

  /** The ids of all live sessions, which `destroy` and `revoke` take. */
  ids(callback: (error: unknown, ids?: string[]) => void): void;
  ids(): Promise<string[]>;
  ids(callback?: Callback<string[]>) {
    return this.#call(callback, () => async ({ statements }) => {
      const ids: string[] = [];
      for (;;) {
        const page = { after: ids.at(-1) ?? '', limit: 10_000, now: Date.now() };
        const found = await statements.listIds(page);
        if (found.length === 0) return ids;
        ids.push(...found);
      }
    });
  }

  /**
   * Deletes all sessions, and what is left of ended ones. A request that is in flight with a session that it has
   * read does not bring it back.
   */
  override clear(callback: Callback<void>): void;
  override clear(): Promise<void>;
  override clear(callback?: Callback<void>) {
    return this.#call(callback, () => async (opened) => {
      await this.#endWhile(opened, () => opened.statements.clear());
    });
  }

  /** Deletes expired sessions and tombstones, and gives their number. */
  pruneSessions(callback: Callback<number>): void;
  pruneSessions(): Promise<number>;
  pruneSessions(callback?: Callback<number>) {
    return this.#call(callback, () => () => this.#engine.prune());
  }

  /**
   * Changes a session from what is stored, atomically: two increments of one counter are two. `fn`
   * changes the session that it gets, or gives another; it runs again where another writer was first.
   * A session without a usable cookie is saved with the stored one.
   * Gives what was saved, or `undefined` where there is no live session.
   *
   * @throws {ConflictError} where other writers were first a thousand times
   * @throws what `fn` throws, and what `set` does
   */
  update(sid: string, fn: Updater): Promise<SessionData | undefined> {
    return this.#call(undefined, () => {
      if (!isSid(sid)) return async () => undefined;
      const id = idOf(sid);
      return (opened) => traced({ operation: 'update', id }, () => this.#update(id, fn, opened));
    });
  }

  /**
   * Live sessions, of one user or all, in pages that are read as they are needed; those that cannot be read are left
   * out. `limit`: how many at most. What it throws, it throws at the first step.
   *
   * @throws {InvalidArgumentError} for a `userId` that is there and undefined: a visitor who is not logged in must
   *   not be shown everybody's
   */
  async *sessions(
    options: { userId?: UserId; limit?: number } = {},
  ): AsyncGenerator<StoredSession, void, undefined> {
    const { userId, limit = Number.POSITIVE_INFINITY } = options;
    if (!(limit >= 0)) throw wrong('limit', 'a number of sessions', limit);
    if (userId === undefined && 'userId' in options) {
      throw new InvalidArgumentError(
        "userId is undefined: leave it out where everybody's sessions are meant",
      );
    }
    const user = userId === undefined ? undefined : this.#userText(userId);
    let left = limit;
    if (left === 0) return;
    for await (const row of this.#pages(user, undefined, limit)) {
      const data = this.#loader.sessionOf(row);
      if (data === undefined) continue;
      yield {
        id: row.id,
        userId: row.userId,
        data,
        createdAt: new Date(Math.round(row.createdAt / 1000)),
        lastSeenAt: new Date(row.lastSeenAt),
        expiresAt: new Date(this.#loader.endOf(row)),
      };
      left -= 1;
      if (left <= 0) return;
    }
  }

  /** Ends the session of an id; gives how many live ones that were (0 or 1). What is no id, a sid too, is none's. */
  revoke(id: string): Promise<number> {
    return this.#call(undefined, () => async (opened) => (isId(id) ? this.#end(id, opened) : 0));
  }

  /** Ends a user's sessions, all or all but one's own (`except`: its sid); gives how many live ones that were. */
  revokeUser(userId: UserId, { except }: { except?: string } = {}): Promise<number> {
    return this.#call(undefined, () => {
      const user = this.#userText(userId);
      if (except !== undefined && !isSid(except)) throw wrong('except', 'a sid', except);
      const exceptId = except === undefined ? '' : idOf(except);
      return (opened) => this.#endWhile(opened, () => opened.statements.endUser(user, exceptId));
    });
  }

  /**
   * Makes the session table, or brings it up to date, under the store's own `tableName` and `schemaName`, however
   * long that takes.
   *
   * @throws {MigrationError} for an app's own `table`, which drizzle-kit migrates, and for another package's
   */
  migrate(): Promise<void> {
    return this.#call(undefined, () => {
      if (this.#settings.table !== undefined) {
        throw new MigrationError(
          "The table is the app's own: make it with drizzle-kit (`drizzle-kit generate`, `drizzle-kit migrate`)",
        );
      }
      return async ({ connection }) => this.#engine.migrate(connection);
    });
  }

  /**
   * Opens the source, and resolves when the table is there.
   *
   * @throws {TableMissingError}
   * @throws {ConnectionError}
   * @throws {StoreTimeoutError}
   * @throws {FolderInUseError} of an embedded database
   * @throws {DriverMissingError} where the package of the source's driver is not installed
   */
  ready(): Promise<void> {
    return this.#call(
      undefined,
      () =>
        ({ statements }) =>
          statements.probe(),
    );
  }

  /** Counts since the store was made. */
  stats(): StoreStats {
    const { batcher, cache } = this.#engine.opened ?? {};
    return {
      hits: cache?.stats.hits ?? 0,
      misses: cache?.stats.misses ?? 0,
      statements: batcher?.stats.statements ?? 0,
      rows: batcher?.stats.rows ?? 0,
      largestBatch: batcher?.stats.largestBatch ?? 0,
      retries: batcher?.stats.retries ?? 0,
      merges: this.#saver.stats.merges,
      dropped: this.#saver.stats.dropped,
      unreadable: this.#loader.unreadableRows,
      pruned: this.#engine.pruned,
      sync: this.#engine.realtime?.state ?? 'off',
      cached: cache?.size ?? 0,
    };
  }

  /**
   * Ends pruning and listening at once, waits for the calls that are under way, and closes what the
   * store itself has opened. Every later call fails with a {@link StoreClosedError}; another `close` does not.
   */
  close(callback: Callback<void>): void;
  close(): Promise<void>;
  close(callback?: Callback<void>) {
    const closing = this.#engine.close();
    if (typeof callback !== 'function') return this.#promised(closing);
    closing.then(
      () => process.nextTick(callback, null),
      (error) => process.nextTick(callback, error),
    );
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** express-session puts what `get` gave into a `Session` of its own. */
  override createSession(request: Request, data: SessionData): Session & SessionData {
    const created = super.createSession(request, data) as Session & SessionData;
    this.#saver.inflated(data, created);
    return created;
  }

  /** Runs a call (see {@link Engine.perform}), and answers its callback or gives a promise. */
  #call<T>(
    callback: Callback<T> | undefined,
    begin: () => (opened: Opened) => Promise<T>,
  ): Promise<T>;
  #call<T, Result>(
    callback: Callback<Result> | undefined,
    begin: () => (opened: Opened) => Promise<T>,
    give: (value: T) => Result,
    recover?: (error: unknown) => Result,
  ): Promise<Result>;
  #call(
    callback: Callback<unknown> | undefined,
    begin: () => (opened: Opened) => Promise<unknown>,
    give: (value: unknown) => unknown = itself,
    recover: (error: unknown) => unknown = rethrow,
  ): Promise<unknown> {
    if (typeof callback !== 'function')
      return this.#promised(this.#engine.perform(begin, give, recover));
    // The sessions of a batch are made one by one, each when its caller takes it: many at once would
    // outlive a run of the garbage collector.
    void this.#engine.perform(
      begin,
      (value) => process.nextTick(answer, callback, give, value),
      (error) => process.nextTick(answer, callback, recover, error),
    );
    return undefined as never;
  }

  /**
   * Nobody need await a promise: a failure is then not an unhandled rejection, which would end the process, but
   * goes to `errorLog`. As with MemoryStore, anything but a function is no callback.
   */
  #promised<T>(promise: Promise<T>): Promise<T> {
    promise.catch((error) => this.#engine.log('A session store call failed', error));
    return promise;
  }

  /**
   * The session that the cache has of an id, `null` where that is none: without a promise, since nothing is waited
   * for. `undefined`: the database has to be asked.
   */
  #hit(id: string, isForRequest: boolean): SessionData | null | undefined {
    if (this.#engine.isClosed || tracing.get.hasSubscribers) return undefined;
    const row = this.#engine.opened?.rows.peek(id);
    try {
      return row && (this.#loader.loaded(row, isForRequest) ?? null);
    } catch {
      // The same again, where there is somebody to tell.
      return undefined;
    }
  }

  /** Runs a call that saves. What is stored and cannot be read stays as it is. */
  #save(
    callback: Callback<void> | undefined,
    operation: 'set' | 'touch',
    id: string,
    begin: () => (opened: Opened) => Promise<SaveResult>,
  ): Promise<void> {
    const isLimited = this.#settings.maxSessionsPerUser !== undefined;
    return this.#call(
      callback,
      () => {
        const save = begin();
        return (opened) =>
          traced<SaveResult | undefined>({ operation, id }, () => {
            const saving = save(opened);
            return isLimited ? saving.then((result) => this.#limit(id, result, opened)) : saving;
          });
      },
      (result) => {
        if (result?.changed) this.#announce('change', id, true);
      },
      (error) => this.#loader.unreadable(id, error),
    );
  }

  /** After a save has committed, and before it answers: ends the sessions that its user has too many of. */
  async #limit(
    id: string,
    { changed, gainedUser }: SaveResult,
    opened: Opened,
  ): Promise<undefined> {
    if (changed) this.#announce('change', id, true);
    const { maxSessionsPerUser: most } = this.#settings;
    if (gainedUser === null || most === undefined) return;
    await this.#endWhile(opened, () =>
      opened.statements.endBeyond(gainedUser, id, most, Date.now()),
    );
  }

  async #end(id: string, { rows }: Opened): Promise<number> {
    const outcome = await rows.write(id, (writes) => writes.end(id));
    if (outcome === 'gone') return 0;
    this.#announce('destroy', id, true);
    return 1;
  }

  /** Ends sessions as long as a statement leaves some; gives how many. */
  async #endWhile(
    { rows, batcher }: Pick<Opened, 'rows' | 'batcher'>,
    statement: () => Promise<{ ended: string[]; busy: boolean }>,
  ): Promise<number> {
    let count = 0;
    for (;;) {
      const { ended, busy } = await batcher.untilFree(
        statement,
        (result) => result.ended.length > 0 || !result.busy,
      );
      rows.ended(ended);
      for (const id of ended) this.#announce('destroy', id, true);
      count += ended.length;
      if (!busy) return count;
    }
  }

  async #update(id: string, fn: Updater, opened: Opened): Promise<SessionData | undefined> {
    let row = await this.#loader.readable(id, opened.rows.read(id));
    for (let tries = 0; tries < UPDATE_TRIES; tries += 1) {
      if (row === undefined || this.#loader.endOf(row) <= Date.now()) return undefined;
      const { version, createdAt, expiresAt: seenExpiresAt } = row;
      const session = this.#loader.sessionOf(row);
      if (session === undefined) return undefined;
      const returned = (await fn(session)) ?? session;
      const changed = isUsableCookie(returned.cookie)
        ? returned
        : // The row is read again: `fn` may have changed the cookie that it got.
          { ...returned, cookie: (this.#loader.sessionOf(row) ?? session).cookie };
      const { text: data, expiresAt, userId } = this.#saver.draft(changed);
      const saved = { id, data, expiresAt, userId, version, createdAt, seenExpiresAt };
      const written = await this.#loader.readable(
        id,
        opened.rows.write(id, (writes) => writes.save(saved)),
      );
      if (written === undefined || written.outcome === 'gone') return undefined;
      if (written.outcome === 'done') {
        const gainedUser = userId === row.userId ? null : userId;
        await this.#limit(id, { changed: true, gainedUser }, opened);
        this.#saver.loaded(changed, { ...saved, version: written.version });
        return changed;
      }
      if (written.stored.createdAt !== createdAt) return undefined;
      row = written.stored;
    }
    throw new ConflictError(UPDATE_TRIES);
  }

  async *#pages(
    userId: string | undefined,
    opened: Opened | undefined,
    most = PAGE_ROWS,
  ): AsyncGenerator<ListedRow, void, undefined> {
    const limit = Math.min(Math.ceil(most), PAGE_ROWS);
    let after = '';
    for (;;) {
      const page = { userId, after, limit, now: Date.now() };
      const rows = await (opened === undefined
        ? this.#engine.perform(
            () =>
              ({ statements }) =>
                statements.list(page),
            itself,
            rethrow,
          )
        : opened.statements.list(page));
      for (const row of rows) {
        const readable = this.#loader.unsealed(row);
        if (readable !== undefined) yield readable;
      }
      const last = rows.at(-1);
      if (last === undefined || rows.length < limit) return;
      after = last.id;
    }
  }

  #userText(userId: UserId): string {
    if (this.#settings.userId === undefined) {
      throw new InvalidArgumentError('To find sessions by user, the store needs the option userId');
    }
    const text = userIdText(userId);
    if (text === null)
      throw new InvalidArgumentError(`userId must be a user's id, but got ${describe(userId)}`);
    return text;
  }

  /** Tells the app; what its listeners throw is not this store's. */
  #announce(event: 'change' | 'destroy', id: string, local: boolean): void {
    if (this.listenerCount(event) === 0) return;
    process.nextTick(() => this.emit(event, { id, local } satisfies SessionEvent));
  }
}

/** What is known of a row, or what the database says. */
function rowOf(id: string, rows: Rows): Promise<StoredRow | undefined> {
  const known = rows.peek(id);
  return known === undefined ? rows.read(id) : Promise.resolve(known);
}

/** Makes a result and hands it over. */
function answer<T>(callback: Callback<unknown>, make: (from: T) => unknown, from: T): void {
  let result: unknown;
  try {
    result = make(from);
  } catch (error) {
    callback(error);
    return;
  }
  callback(null, result);
}

function itself<T>(value: T): T {
  return value;
}

function rethrow(error: unknown): never {
  throw error;
}

function isSid(sid: unknown): sid is string {
  return typeof sid === 'string' && sid !== '';
}
