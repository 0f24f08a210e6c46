/**
 * What a store can be opened on, as types. The properties tell what works from what looks like it.
 *
 * @module
 */
import type { ConnectionlessOptions, DrizzleStoreOptions } from '../options.js';

/** A pool of `pg`, or one with its interface: `pg.native`, Neon's, Vercel's. */
export interface PoolSource {
  readonly totalCount: number;
  readonly idleCount: number;
  connect(): Promise<object>;
}

/** A `PGlite`. */
export interface PGliteSource {
  readonly waitReady: Promise<void>;
  readonly dumpDataDir: unknown;
}

/** The `sql` that `postgres()` of postgres-js returns. */
export interface PostgresJsSource {
  readonly options: object;
  readonly unsafe: unknown;
  readonly listen: unknown;
  /** A reserved connection has it. */
  readonly release?: never;
  /** A transaction has it. */
  readonly savepoint?: never;
}

/** An `SQL` of Bun, on Postgres. */
export interface BunSqlSource {
  readonly options: object;
  readonly unsafe: unknown;
  readonly reserve: unknown;
  readonly beginDistributed: unknown;
  /** A reserved connection has it. */
  readonly release?: never;
  /** A transaction has it. */
  readonly savepoint?: never;
}

/** A client that Drizzle databases use, and that a store accepts by itself. */
type ClientSource = PoolSource | PGliteSource | PostgresJsSource | BunSqlSource;

interface DrizzleDatabase {
  /** Only databases of Postgres have it. */
  refreshMaterializedView(view: never): PromiseLike<unknown>;
  /** Only a transaction has it. */
  readonly rollback?: never;
}

/** A database with connections: only neon-http has these two. */
interface ConnectedDatabase extends DrizzleDatabase {
  readonly batch?: never;
  readonly $withAuth?: never;
}

/** A database as `drizzle()` returns it. */
interface DatabaseWithClient extends ConnectedDatabase {
  readonly $client: ClientSource;
}

/** A database by the type of its class (`NodePgDatabase`, …), which does not declare `$client`. */
interface DatabaseOfClass extends ConnectedDatabase {
  readonly $client?: ClientSource;
  /** The result tells which driver runs it. */
  refreshMaterializedView(view: never): PromiseLike<ResultWithFields | ResultWithColumns>;
}

/** What node-postgres, Neon and PGlite return; pg-proxy returns bare rows. */
interface ResultWithFields {
  readonly fields: unknown;
}

/** What postgres-js returns. */
interface ResultWithColumns {
  readonly columns: unknown;
}

/** A Drizzle database on one of these clients. */
export type DrizzleSource = DatabaseWithClient | DatabaseOfClass;

/** What a store can be opened on: see docs/sources.md. */
export type Source = DrizzleSource | ClientSource | string;

/** A database of `drizzle-orm/neon-http`. */
interface NeonHttpDatabase extends DrizzleDatabase {
  readonly batch: unknown;
  readonly $withAuth: unknown;
  readonly $client?: (...args: never[]) => unknown;
}

/** Neon's `neon()`. */
interface NeonQuery {
  readonly query: unknown;
  readonly unsafe: unknown;
  readonly transaction: unknown;
  /** Clients with connections have it. */
  readonly options?: never;
}

/** A database of `drizzle-orm/pg-proxy`. */
interface PgProxyDatabase extends ConnectedDatabase {
  readonly $client?: never;
  refreshMaterializedView(view: never): PromiseLike<readonly unknown[]>;
}

/**
 * A source without connections: it runs each statement by itself, so a store on it can neither listen (`sync`, `cache`)
 * nor create its table (`migrate()`, `createTableIfMissing`).
 */
export type ConnectionlessSource = NeonHttpDatabase | NeonQuery | PgProxyDatabase;

/** The arguments of `new DrizzleStore()`. */
export type StoreArguments =
  | []
  | [source: ConnectionlessSource, options?: ConnectionlessOptions]
  // Last: the compiler explains its errors by the last one.
  | [source: Source, options?: DrizzleStoreOptions];
