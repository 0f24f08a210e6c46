/**
 * Where a store's data is: from what an app passes to a connection that the store's statements run on.
 * All that differs between the drivers, and is not Drizzle's, stands behind {@link Connection}. No
 * driver is loaded before a store needs it.
 *
 * @module
 */
import { isAbsolute, resolve } from 'node:path';
import type { AnyPgColumn } from 'drizzle-orm/pg-core';
import type { Pool } from 'pg';
import { InvalidArgumentError } from '../errors.js';
import type { Database } from '../queries/fragments.js';
import type { Listen } from '../sync/channel.js';
import { describe } from '../util/describe.js';
import { lockFolder, realFolder } from './folder-lock.js';
import { listenNodePostgres } from './node-postgres.js';
import { listenPglite } from './pglite.js';
import { listenPostgresJs } from './postgres-js.js';

/** A Drizzle database on node-postgres, postgres-js or PGlite, of Drizzle 0.45 or 1.0. */
export interface DrizzleSource {
  readonly $client: unknown;
}

/** A `pg.Pool`. */
export interface PoolSource {
  readonly options: object;
  readonly totalCount: number;
  connect(): Promise<object>;
}

/** A `PGlite`. */
export interface PGliteSource {
  readonly waitReady: Promise<void>;
  readonly dumpDataDir: unknown;
}

/** What `postgres()` of postgres-js gives. */
export interface PostgresJsSource {
  readonly options: object;
  readonly unsafe: unknown;
  readonly listen: unknown;
}

/** What a store can be opened on: see the README's table of sources. */
export type Source = DrizzleSource | PoolSource | PGliteSource | PostgresJsSource | string;

/** @internal An open source. */
export interface Connection {
  readonly db: Database;
  /** Runs what is more than a statement on a connection of its own, where the driver has several. */
  readonly alone: <T>(work: (db: Database) => Promise<T>) => Promise<T>;
  /** How many statements it can run at once. */
  readonly connections: number;
  readonly listen: Listen;
  /** Closes what the store itself opened. */
  close(): Promise<void>;
}

/** @internal What concerns a pool of the store's own. */
export interface OwnPool {
  /** Seconds after which a connection that does not answer is given up. */
  readonly timeout: number;
  /** Gets the failures of idle connections. */
  readonly onIdleError: (error: unknown) => void;
}

/** @internal A checked source: what it is, and how it is opened. */
export interface Opener {
  /** Whether its sessions end with the process. */
  readonly inMemory: boolean;
  /** An embedded database makes its own table. */
  readonly embedded: boolean;
  /** The app's Drizzle database, which knows how it cases names. */
  readonly drizzle: object | undefined;
  open(settings: OwnPool): Promise<Connection>;
}

const TAKEN =
  'a Drizzle database (node-postgres, postgres-js or PGlite), a pg.Pool, a PGlite, a postgres-js sql, ' +
  "a 'postgres://…' URL, a folder ('./data'), or nothing or 'memory://' for an in-memory store";

/** @internal Tells what a source is, or throws a TypeError; nothing is opened. */
export function openerFor(source: unknown): Opener {
  if (typeof source === 'string') return openerForText(source);
  if (source === undefined || source === null) {
    throw refused(
      `${source} (an unset variable?); for an in-memory store pass nothing or 'memory://'`,
    );
  }
  if (typeof source !== 'object' && typeof source !== 'function') throw refused(describe(source));
  if (has(source, '$client')) return openerForDrizzle(source);
  const opener = openerForClient(source, undefined);
  if (opener !== undefined) return opener;
  throw refused(describe(source));
}

function refused(came: string): InvalidArgumentError {
  return new InvalidArgumentError(
    `The source of a session store must be ${TAKEN}, but got ${came}`,
  );
}

function openerForText(text: string): Opener {
  if (text === '') throw refused('an empty string');
  if (text === 'memory://') return pgliteOpener(undefined);
  if (/^postgres(ql)?:\/\//.test(text)) return urlOpener(text);
  const scheme = /^["']?([a-z][a-z0-9+.-]*):/i.exec(text)?.[1];
  if (/^["']/.test(text)) throw refused('a URL or a path with quotation marks around it');
  if (/^\s*(host|hostaddr|dbname|user|port)\s*=/.test(text)) {
    throw refused("a 'host=…' connection string; write it as a URL");
  }
  const isPath = text.startsWith('.') || isAbsolute(text) || /^[A-Za-z]:[\\/]/.test(text);
  if (!isPath && scheme !== undefined) throw refused(`the scheme '${scheme}:'`);
  if (text === 'undefined' || text === 'null')
    throw refused(`the text '${text}' (an unset variable?)`);
  if (!isPath && !/^[\w-]+$/.test(text)) {
    throw refused("a text that is neither a URL nor a folder; write a relative folder as './…'");
  }
  if (text.includes('\0')) throw refused('a folder with a NUL in it');
  return pgliteOpener(resolve(text));
}

/** A Drizzle database: the store builds its own on the client, so that the app's logger, cache, casing and replicas do not apply. */
function openerForDrizzle(source: object): Opener {
  const database = prop(source, '$primary') ?? source;
  if (typeof database !== 'object') throw refused(describe(source));
  const kinds = entityKinds(database);
  if (kinds.some((kind) => kind.includes('Transaction'))) {
    throw refused(
      'a transaction: its ROLLBACK would undo what the store has acknowledged; pass the database itself',
    );
  }
  const client = prop(database, '$client');
  const opener =
    (typeof client === 'object' && client !== null) || typeof client === 'function'
      ? openerForClient(client, database)
      : undefined;
  if (opener === undefined) {
    throw refused(
      `a Drizzle database of another driver or dialect (${kinds[0] ?? describe(source)})`,
    );
  }
  return opener;
}

/** Drivers are told by their shape: an app's copy of a driver need not be the store's. */
function openerForClient(client: object, drizzle: object | undefined): Opener | undefined {
  if (typeof client === 'function') {
    if (!has(client, 'unsafe')) return undefined;
    if (has(client, 'savepoint') || has(client, 'release')) {
      throw refused('a transaction or a reserved connection of postgres-js; pass sql itself');
    }
    return has(client, 'options') ? postgresJsOpener(client, drizzle) : undefined;
  }
  if (has(client, 'dumpDataDir') && has(client, 'waitReady')) {
    return pgliteOpener(client, drizzle);
  }
  if (has(client, 'rollback')) {
    throw refused(
      'a transaction: its ROLLBACK would undo what the store has acknowledged; pass the database itself',
    );
  }
  if (has(client, 'connect') && has(client, 'query')) {
    if (has(client, 'totalCount') && has(client, 'idleCount')) return poolOpener(client, drizzle);
    throw refused(
      "a single pg client: the app's ROLLBACK would undo what the store has acknowledged; pass a pg.Pool",
    );
  }
  return undefined;
}

function poolOpener(pool: object, drizzle: object | undefined): Opener {
  return {
    inMemory: false,
    embedded: false,
    drizzle,
    open: () => nodePostgres(pool, async () => {}),
  };
}

function urlOpener(url: string): Opener {
  if (!URL.canParse(url)) throw refused('a postgres URL that cannot be read');
  return {
    inMemory: false,
    embedded: false,
    drizzle: undefined,
    open: async ({ timeout, onIdleError }) => {
      const { default: pg } = await import('pg');
      // What hangs is closed, so that it does not fill the pool: soon after its callers have had their errors.
      const limitMs = timeout * 1000 + 100;
      const pool = new pg.Pool({
        connectionString: url,
        allowExitOnIdle: true,
        keepAlive: true,
        connectionTimeoutMillis: limitMs,
        query_timeout: limitMs,
      });
      pool.on('error', onIdleError);
      return nodePostgres(pool, () => pool.end());
    },
  };
}

async function nodePostgres(pool: object, close: () => Promise<void>): Promise<Connection> {
  const { drizzle } = await import('drizzle-orm/node-postgres');
  const options = prop(pool, 'options');
  const on = (client: object) => drizzle({ client: client as never }) as unknown as Database;
  return {
    db: on(pool),
    alone: async (work) => {
      const client = await (pool as Pool).connect();
      // The statement fails, too. Without a listener, a connection that breaks would end the process.
      const ignore = () => {};
      client.on('error', ignore);
      try {
        return await work(on(client));
      } finally {
        client.off('error', ignore);
        client.release();
      }
    },
    connections: maxOf(options),
    listen: listenNodePostgres(isObject(options) ? options : {}),
    close,
  };
}

function postgresJsOpener(client: object, drizzle: object | undefined): Opener {
  return {
    inMemory: false,
    embedded: false,
    drizzle,
    open: async () => {
      const { drizzle: build } = await import('drizzle-orm/postgres-js');
      const options = prop(client, 'options');
      const db = keepingParsers(options, () => build({ client: client as never }));
      const database = db as unknown as Database;
      return {
        db: database,
        alone: (work) => work(database),
        connections: maxOf(options),
        listen: listenPostgresJs(isObject(options) ? options : {}),
        close: async () => {},
      };
    },
  };
}

/** Drizzle turns a postgres-js client's parsing of dates off when it is put upon it: the app's own queries keep theirs. */
function keepingParsers<T>(options: unknown, build: () => T): T {
  const tables = [prop(options, 'parsers'), prop(options, 'serializers')].filter(isObject);
  const before = tables.map((table) => ({ ...table }));
  const built = build();
  for (const [at, table] of tables.entries()) {
    for (const key of Object.keys(table))
      if (!(key in (before[at] ?? {}))) Reflect.deleteProperty(table, key);
    Object.assign(table, before[at]);
  }
  return built;
}

function pgliteOpener(target: string | object | undefined, drizzle?: object): Opener {
  const given = typeof target === 'object';
  return {
    inMemory: target === undefined,
    embedded: true,
    drizzle,
    open: async () => {
      const folder = typeof target === 'string' ? await realFolder(target) : undefined;
      const unlock = folder === undefined ? undefined : await lockFolder(folder);
      try {
        const [{ PGlite }, { drizzle: build }] = await Promise.all([
          import('@electric-sql/pglite'),
          import('drizzle-orm/pglite'),
        ]);
        const client = given
          ? target
          : await PGlite.create(folder === undefined ? {} : { dataDir: folder });
        const database = build({ client: client as never }) as unknown as Database;
        return {
          db: database,
          alone: (work) => work(database),
          connections: 1,
          listen: listenPglite(client),
          close: async () => {
            if (client instanceof PGlite && !given) await client.close();
            await unlock?.();
          },
        };
      } catch (error) {
        await unlock?.();
        throw error;
      }
    },
  };
}

/** How a Drizzle database names a column: as it is named, or by its `casing` where it has no name. */
export function nameIn(database: object | undefined): (column: AnyPgColumn) => string {
  const casing = prop(prop(database, 'dialect'), 'casing');
  const byCasing = prop(casing, 'getColumnCasing');
  return (column) => {
    const name: unknown =
      typeof byCasing === 'function' ? byCasing.call(casing, column) : column.name;
    return typeof name === 'string' ? name : column.name;
  };
}

function maxOf(options: unknown): number {
  const max = prop(options, 'max');
  return typeof max === 'number' && max >= 1 ? max : 10;
}

/** The names by which Drizzle tells its classes apart, of the object's own class first. */
function entityKinds(value: object): string[] {
  const kinds: string[] = [];
  for (
    let at: unknown = Object.getPrototypeOf(value);
    isObject(at);
    at = Object.getPrototypeOf(at)
  ) {
    const kind = prop(prop(at, 'constructor'), Symbol.for('drizzle:entityKind'));
    if (typeof kind === 'string') kinds.push(kind);
  }
  return kinds;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function has(value: object, key: string): boolean {
  return key in value;
}

function prop(value: unknown, key: string | symbol): unknown {
  return isObject(value) || typeof value === 'function' ? Reflect.get(value, key) : undefined;
}
