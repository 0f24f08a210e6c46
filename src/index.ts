/**
 * A session store for express-session on PostgreSQL through Drizzle.
 *
 * @module connect-drizzle
 */
import { InvalidArgumentError } from './errors.js';
import { DrizzleStore as Store } from './store.js';
import { withCallError } from './util/call-error.js';

export type { ConnectionlessSource, Source } from './drivers/sources.js';
export {
  ConflictError,
  ConnectionError,
  DriverMissingError,
  FolderError,
  FolderInUseError,
  InvalidArgumentError,
  InvalidSidError,
  InvalidUserIdError,
  MigrationError,
  type MismatchReason,
  NotSerializableError,
  type SafeCause,
  SessionStoreError,
  StatementError,
  StoreClosedError,
  StoreTimeoutError,
  TableMismatchError,
  TableMissingError,
} from './errors.js';
export type { StoreStats } from './lifecycle/stats.js';
export type {
  CacheOptions,
  ConnectionlessOptions,
  DrizzleStoreOptions,
  EncryptionKey,
  EngineChoice,
  Serializer,
  SyncOptions,
  UserId,
} from './options.js';
export {
  type SessionTable,
  sessionColumns,
  sessionIndexes,
  sessions,
  sessionTable,
  type TableName,
} from './schema.js';
export type { SessionEvent, StoreEvents } from './session/events.js';
export { idOf } from './session/id.js';
export type { StoredSession } from './session/listing.js';
export type { RekeyResult } from './session/rekey.js';
export type { Updater } from './session/update.js';
export type { TraceContext } from './util/tracing.js';

/**
 * A session store for express-session on PostgreSQL.
 *
 * Methods return a promise. express-session's own methods, `ids`, `pruneSessions` and `close` also take a Node callback,
 * which is never called synchronously. A sid that is unknown, expired, revoked or malformed means "no session" and is
 * never an error. Any call may fail with a {@link StoreClosedError}, {@link ConnectionError}, {@link StoreTimeoutError},
 * {@link TableMissingError}, {@link TableMismatchError} or {@link StatementError}. Calls about many sessions, such as
 * `length`, run after all earlier writes of the same process.
 */
// An interface, not an alias, so that an app with `declaration: true` can name the type of its store.
export interface DrizzleStore extends Store {}

type StoreClass = Omit<typeof Store, never> &
  (new (
    ...args: ConstructorParameters<typeof Store>
  ) => DrizzleStore);

/**
 * Creates a session store: `new DrizzleStore(source, options)`. The source is a Drizzle database, its client, a URL, a
 * folder, or nothing for an in-memory store.
 *
 * Throws an {@link InvalidArgumentError} for an invalid argument. Connects at the first call, or at once with `sync`.
 */
export const DrizzleStore: StoreClass = /* @__PURE__ */ withCallError(
  Store,
  () =>
    new InvalidArgumentError(
      'DrizzleStore is a class, not a factory: write new DrizzleStore(pool, options), without express-session',
    ),
);
