/**
 * The types of all sources of a store. Their properties distinguish a usable source from one that only looks similar.
 *
 * @module
 */
import type { ConnectionlessOptions, DrizzleStoreOptions } from '../options.js';

/** A pool of `pg`, or one with the same interface: `pg.native`, Neon's, Vercel's. */
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

/** A client of a Drizzle database. A store also accepts it directly. */
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
  /** The type of the result depends on the driver. */
  refreshMaterializedView(view: never): PromiseLike<ResultWithFields | ResultWithColumns>;
}

/** The result of node-postgres, Neon and PGlite; pg-proxy returns only rows. */
interface ResultWithFields {
  readonly fields: unknown;
}

/** The result of postgres-js. */
interface ResultWithColumns {
  readonly columns: unknown;
}

/** A Drizzle database on one of these clients. */
export type DrizzleSource = DatabaseWithClient | DatabaseOfClass;

/** The source of a store: see docs/sources.md. */
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
 * A source without connections. It sends each statement alone, so a store on it can neither listen (`sync`, `cache`) nor
 * create its table (`migrate()`, `createTableIfMissing`).
 */
export type ConnectionlessSource = NeonHttpDatabase | NeonQuery | PgProxyDatabase;

/** The arguments of `new DrizzleStore()`. */
export type StoreArguments =
  | []
  | [source: ConnectionlessSource, options?: ConnectionlessOptions]
  // The last one, because the compiler's error message describes the last overload.
  | [source: Source, options?: DrizzleStoreOptions];
