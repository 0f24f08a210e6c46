/**
 * The store: express-session's contract first, then the methods that go beyond it.
 *
 * @module
 */
import type { Request } from 'express';
import type { Session, SessionData } from 'express-session';
import { nameIn, openerFor } from './drivers/detect.js';
import type { StoreArguments } from './drivers/sources.js';
import { InvalidSidError, invalidValue } from './errors.js';
import { grantAccess } from './lifecycle/access.js';
import { afterWrites, type Callback, Replies, type Run } from './lifecycle/replies.js';
import { Runtime } from './lifecycle/runtime.js';
import { type StoreStats, statsOf } from './lifecycle/stats.js';
import { type Settings, settingsFrom, type UserId } from './options.js';
import { viewOf } from './queries/view.js';
import type { StoredRow } from './queries/wire.js';
import { sessionTable } from './schema.js';
import { Codec } from './session/codec.js';
import { TypedStore } from './session/events.js';
import { idOfAny, isId } from './session/id.js';
import {
  allIds,
  allSessions,
  type ListOptions,
  listSessions,
  type StoredSession,
} from './session/listing.js';
import { rowOf } from './session/load.js';
import type { RekeyResult } from './session/rekey.js';
import type { SaveResult } from './session/save.js';
import { createSessions, type Sessions } from './session/sessions.js';
import { type Updater, updateSession } from './session/update.js';
import { userIdToFind } from './session/user.js';
import { nextTick } from './util/clock.js';
import { traced } from './util/tracing.js';

/** A session store for express-session on PostgreSQL. `index.ts` exports it under an interface that describes it. */
export class DrizzleStore extends TypedStore {
  readonly #settings: Settings;
  readonly #runtime: Runtime;
  readonly #replies: Replies;
  readonly #sessions: Sessions;
  #generate: ((request: Request) => void) | undefined;

  /**
   * Checks the arguments. Opens the source at the first call, or at once with `sync`.
   * @param source a Drizzle database, its client, a URL, a folder, or nothing for an in-memory store
   * @throws {InvalidArgumentError} (`ERR_INVALID_ARGUMENT`), a `TypeError` naming the value it got and the values it accepts
   */
  constructor(...args: StoreArguments) {
    super();
    // An explicit `undefined` is an error: it probably is an unset variable.
    const opener = openerFor(args.length === 0 ? 'memory://' : args[0]);
    const settings = settingsFrom(args[1] === undefined ? {} : args[1]);
    const { tableName, schemaName, table = sessionTable({ tableName, schemaName }) } = settings;
    const codec = new Codec(settings.serializer, settings.encryptionKeys);
    const view = viewOf(table, nameIn(opener.drizzle), settings.userId !== undefined);
    this.#settings = settings;
    this.#runtime = new Runtime({
      opener,
      settings,
      table: view,
      sealing: codec,
      onForeign: (event, id) => this.#announce(event, id, false),
      onState: (state) => nextTick(() => this.emit('sync', state)),
      onAvailability: (event) => nextTick(() => this.emit(event)),
    });
    this.#replies = new Replies(this.#runtime);
    const own = (event: 'change' | 'destroy', id: string) => this.#announce(event, id, true);
    const log = (message: string) => this.#runtime.log(message);
    this.#sessions = createSessions(codec, settings, own, log);
    grantAccess(this, view, settings, this.#runtime, this.#sessions);
  }

  /**
   * Returns a session, or `undefined` if there is no session. If a row cannot be read, reports it and returns `undefined`.
   *
   * With a callback, a row without a usable cookie counts as no session, too, and is reported: frameworks pass a callback
   * and create a request's session from the result, which would fail. Without a callback, returns the row as stored.
   */
  override get(sid: string, callback: (error: unknown, session?: SessionData | null) => void): void;
  override get(sid: string): Promise<SessionData | undefined>;
  override get(sid: string, callback?: Callback<SessionData | undefined>) {
    const id = idOfAny(sid);
    const isForRequest = typeof callback === 'function';
    const load = (row?: StoredRow) => row && this.#sessions.loader.loaded(row, isForRequest);
    const cached = this.#replies.cached(id, load);
    if (cached !== undefined) return this.#replies.now(callback, cached ?? undefined);
    return this.#replies.run(
      callback,
      () => {
        if (id === '') return async () => undefined;
        return ({ rows }, deadline) =>
          traced({ operation: 'get', id }, () => rowOf(id, rows, deadline));
      },
      load,
      (error) => this.#sessions.loader.unreadable(id, error),
    );
  }

  /**
   * Saves a session. Inserts a new one. Saves a loaded one with compare-and-set, and merges it if another request has
   * changed it. Does nothing if it has ended. The session expires with its cookie, or after `ttl` if the cookie has no
   * expiry.
   *
   * @throws {InvalidSidError} (`ERR_INVALID_SID`) if the sid is empty, or neither a string nor a number
   * @throws {NotSerializableError} (`ERR_NOT_SERIALIZABLE`) if the session cannot be serialized
   * @throws {InvalidUserIdError} (`ERR_INVALID_USER_ID`) if the option `userId` returns an invalid user id
   * @throws {ConflictError} (`ERR_CONFLICT`) if another writer was faster a thousand times
   */
  override set(sid: string, session: SessionData, callback: Callback<void>): void;
  override set(sid: string, session: SessionData): Promise<void>;
  override set(sid: string, session: SessionData, callback?: Callback<void>) {
    const id = idOfAny(sid);
    return this.#save(callback, 'set', id, () => {
      if (id === '') throw new InvalidSidError(sid);
      const draft = this.#sessions.saver.draft(session);
      return ({ rows }, deadline) =>
        rows.write(id, deadline, (writes) => this.#sessions.saver.save(id, session, draft, writes));
    });
  }

  /** Sets a session's expiry: the expiry of its cookie, or `ttl` from now. Does nothing if there is no live session. */
  override touch(sid: string, session: SessionData, callback: Callback<void>): void;
  override touch(sid: string, session: SessionData): Promise<void>;
  override touch(sid: string, session: SessionData, callback?: Callback<void>) {
    const id = idOfAny(sid);
    if (id === '' || this.#settings.disableTouch) {
      return this.#replies.query(callback, async () => {});
    }
    return this.#save(callback, 'touch', id, () => {
      return ({ rows }, deadline) => this.#sessions.saver.touch(id, session, rows, deadline);
    });
  }

  /** Ends a session by its sid, or by an id from `all()` or `ids()`. Does nothing if there is no such session. */
  override destroy(sid: string): Promise<void>;
  override destroy(sid: string, callback?: Callback<void>): void;
  override destroy(sid: string, callback?: Callback<void>) {
    return this.#replies.run(callback, () => {
      const id = idOfAny(sid);
      if (id === '') return async () => {};
      return (opened, deadline) =>
        traced({ operation: 'destroy', id }, async () => {
          await this.#sessions.revoker.end(id, opened, deadline);
          if (isId(sid)) await this.#sessions.revoker.end(sid, opened, deadline);
        });
    });
  }

  /** Returns all live sessions by id. Prefer `sessions()` for a large table. */
  override all(
    callback: (error: unknown, sessions?: Record<string, SessionData> | null) => void,
  ): void;
  override all(): Promise<Record<string, SessionData>>;
  override all(callback?: Callback<Record<string, SessionData>>) {
    const list = afterWrites((...call) => allSessions(...call, this.#sessions.loader));
    return this.#replies.query(callback, list);
  }

  /** Returns the number of live sessions. */
  override length(callback: (error: unknown, length?: number) => void): void;
  override length(): Promise<number>;
  override length(callback?: Callback<number>) {
    const count = afterWrites(({ statements }, deadline) => statements.count(deadline));
    return this.#replies.query(callback, count);
  }

  /** Deletes all sessions and tombstones. A request in flight cannot bring back a session that it has read. */
  override clear(callback: Callback<void>): void;
  override clear(): Promise<void>;
  override clear(callback?: Callback<void>) {
    const clear = afterWrites((...call) => this.#sessions.revoker.clear(...call));
    return this.#replies.query(callback, clear);
  }

  /** express-session calls this to create a request's `Session` from the result of `get`. */
  override createSession(request: Request, data: SessionData): Session & SessionData {
    const created = super.createSession(request, data);
    this.#sessions.saver.inflated(data, created);
    return created;
  }

  static {
    // express-session assigns `store.generate`, which creates the session of a request. The setter remembers these sessions.
    // biome-ignore lint/complexity/noThisInStatic: esbuild renames a class that refers to itself by its name.
    Object.defineProperty(this.prototype, 'generate', {
      configurable: true,
      get(this: DrizzleStore) {
        return this.#generate;
      },
      set(this: DrizzleStore, generate: (request: Request) => void) {
        this.#generate = (request) => {
          generate(request);
          this.#sessions.saver.generated(request.session, request.sessionID);
        };
      },
    });
  }

  /**
   * Iterates over live sessions and reads them page by page. Omits and reports sessions that cannot be read. Invalid
   * options throw at the first step of the iteration.
   *
   * @throws {InvalidArgumentError} (`ERR_INVALID_ARGUMENT`) for an invalid option, and for `userId: undefined`, because a
   *   visitor who is not logged in must not see the sessions of all users
   */
  sessions(options: ListOptions = {}): AsyncGenerator<StoredSession, void, undefined> {
    return listSessions(this.#replies.list, this.#sessions.loader, this.#settings, options);
  }

  /** Returns the ids of all live sessions. `destroy` and `revoke` accept them. */
  ids(callback: (error: unknown, ids?: string[]) => void): void;
  ids(): Promise<string[]>;
  ids(callback?: Callback<string[]>) {
    return this.#replies.query(callback, afterWrites(allIds));
  }

  /**
   * Changes the stored session atomically: two concurrent increments add two. `fn` changes the session that it gets, or
   * returns another one. It runs again if another writer was faster, and its time counts towards `timeout`. If the result
   * has no usable cookie, the session keeps the stored one.
   *
   * @returns the saved session, or `undefined` if there is no live session
   * @throws the errors of `fn` and of `set`, and an {@link InvalidArgumentError} if `fn` returns neither a session nor nothing
   */
  update(sid: string, fn: Updater): Promise<SessionData | undefined> {
    return this.#replies.run(undefined, () => {
      const id = idOfAny(sid);
      if (id === '') return async () => undefined;
      return (opened, deadline) =>
        traced({ operation: 'update', id }, () =>
          updateSession(id, fn, opened, deadline, this.#sessions),
        );
    });
  }

  /** Ends the session with this id (not its sid). Returns the number of live sessions ended, 0 or 1. */
  revoke(id: string): Promise<number> {
    return this.#replies.query(undefined, async (opened, deadline) =>
      isId(id) ? this.#sessions.revoker.end(id, opened, deadline) : 0,
    );
  }

  /**
   * Ends a user's sessions. Returns the number of live sessions ended.
   *
   * @param options.except the sid of a session to keep, usually the user's current one
   * @throws {InvalidArgumentError} (`ERR_INVALID_ARGUMENT`) without the option `userId`, or for an invalid argument
   */
  revokeUser(userId: UserId, { except }: { except?: string } = {}): Promise<number> {
    return this.#replies.run(undefined, () => {
      const user = userIdToFind(this.#settings, userId);
      const exceptId = except === undefined ? undefined : idOfAny(except);
      if (exceptId === '') throw invalidValue('except', 'a sid', except);
      return afterWrites((opened, deadline) =>
        this.#sessions.revoker.endUser(user, exceptId, opened, deadline),
      );
    });
  }

  /** Deletes expired sessions and tombstones. Returns the number of rows deleted. */
  pruneSessions(callback: Callback<number>): void;
  pruneSessions(): Promise<number>;
  pruneSessions(callback?: Callback<number>) {
    return this.#replies.query(callback, () => this.#runtime.prune());
  }

  /** Encrypts all sessions with the first of the `encryptionKeys` while apps use the table. No user is logged out. */
  rekey(): Promise<RekeyResult> {
    return this.#replies.query(undefined, () => this.#runtime.rekey(this.#sessions.rekeying));
  }

  /**
   * Creates the session table or updates it to the current version. `timeout` limits only the wait for a connection.
   *
   * @throws {MigrationError} (`ERR_MIGRATION`) for an app's own `table` (use drizzle-kit), or for another package's table
   */
  migrate(): Promise<void> {
    return this.#replies.startup(this.#runtime.migrate());
  }

  /**
   * Opens the source and checks the table. Await it to fail at startup if the database is unreachable.
   *
   * @throws {FolderInUseError} (`ERR_FOLDER_IN_USE`) for an embedded database
   * @throws {DriverMissingError} (`ERR_DRIVER_MISSING`) if the package of the source's driver is not installed
   */
  ready(): Promise<void> {
    const probe = this.#replies.perform(({ statements }, deadline) => statements.probe(deadline));
    return this.#replies.startup(probe);
  }

  /** Returns counts since the store was created. */
  stats(): StoreStats {
    return statsOf(this.#runtime, this.#sessions);
  }

  /**
   * Stops pruning and listening at once, waits for calls in flight, and closes the connections that the store itself
   * opened. Later calls fail with a {@link StoreClosedError} (`ERR_STORE_CLOSED`). Closing it again is not an error.
   */
  close(callback: Callback<void>): void;
  close(): Promise<void>;
  close(callback?: Callback<void>) {
    return this.#replies.settle(callback, this.#runtime.close());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Runs a `set` or `touch`. If the stored session cannot be read, reports it and does not change it. */
  #save(
    callback: Callback<void> | undefined,
    operation: 'set' | 'touch',
    id: string,
    prepare: () => Run<SaveResult>,
  ): Promise<void> {
    return this.#replies.run(
      callback,
      () => {
        const save = prepare();
        return (opened, deadline) =>
          traced<SaveResult | undefined>({ operation, id }, () =>
            this.#sessions.revoker.afterSave(id, save(opened, deadline), opened, deadline),
          );
      },
      (result) => {
        if (result?.changed) this.#announce('change', id, true);
      },
      (error) => this.#sessions.loader.unreadable(id, error),
    );
  }

  /** Emits an event in the next tick, so that an error of a listener does not fail the call. */
  #announce(event: 'change' | 'destroy', id: string, local: boolean): void {
    if (this.listenerCount(event) === 0) return;
    nextTick(() => this.emit(event, { id, local }));
  }
}
