/**
 * Recognises the source that an app passes to a store, and opens it as a {@link Driver}. Loads the package of a driver
 * only when a store needs it.
 *
 * @module
 */
import { isAbsolute, resolve } from 'node:path';
import type { AnyPgColumn } from 'drizzle-orm/pg-core';
import { InvalidArgumentError } from '../errors.js';
import { describe } from '../util/describe.js';
import { isObject, property } from '../util/guards.js';
import { adapterOf, type BunSql, bunSql, isBunSql } from './bun-sql.js';
import type { Driver } from './driver.js';
import { loadDriver } from './load.js';
import { isNeonHttp, NEON_HTTP_LACKS, neonHttp } from './neon-http.js';
import { isPool, nodePostgres, type PgPool } from './node-postgres.js';
import { callbackOf, PG_PROXY_LACKS, pgProxy } from './pg-proxy.js';
import { isPglite, type Pglite, pglite } from './pglite.js';
import { isPostgresJs, type PostgresJs, postgresJs } from './postgres-js.js';
import { slipIn } from './slips.js';
import type { Lacks } from './support/connectionless.js';
import { lockFolder, realFolder } from './support/folder-lock.js';
import { createInFolder } from './support/pglite-folder.js';
import { guardPool } from './support/pool-errors.js';
import {
  serverOfBunSql,
  serverOfPool,
  serverOfPostgresJs,
  serverOfUrl,
} from './support/server-name.js';

/** @internal Settings for a pool that the store itself opens. */
export interface OwnPool {
  /** Maximum time for connecting, in seconds. */
  readonly timeout: number;
  /** Called when an idle connection fails. */
  readonly onIdleError: (error: unknown) => void;
}

/** @internal A recognised source. */
export interface Opener {
  /** Whether its sessions end with the process. */
  readonly inMemory: boolean;
  /** Whether it is an embedded database, which creates its own table. */
  readonly embedded: boolean;
  /** The app's Drizzle database, for its `casing`. */
  readonly drizzle: object | undefined;
  /** The host and port, for error messages; `undefined` for an embedded database. */
  readonly server: string | undefined;
  /** What the source cannot do. */
  readonly lacks?: Partial<Lacks>;
  /** Keeps a broken connection of the app's pool from ending the process, until the returned function is called. */
  readonly guard?: (report: (error: unknown) => void) => () => void;
  open(settings: OwnPool): Promise<Driver>;
}

const ACCEPTED =
  'a Drizzle database of Postgres, a pg.Pool, a PGlite, a postgres-js sql, an SQL of Bun, ' +
  "a 'postgres://…' URL, a folder ('./data'), or nothing or 'memory://' for an in-memory store";

/**
 * @internal Recognises a source without opening it.
 *
 * @throws {InvalidArgumentError}
 */
export function openerFor(source: unknown): Opener {
  if (typeof source === 'string') return openerForText(source);
  if (source === undefined || source === null) {
    throw refused(
      `${source} (an unset variable?); for an in-memory store pass nothing or 'memory://'`,
    );
  }
  if (typeof source !== 'object' && typeof source !== 'function') throw refused(describe(source));
  if ('$client' in source || '$primary' in source || isPgProxy(source)) {
    return openerForDrizzle(source);
  }
  const opener = openerForClient(source, undefined);
  if (opener !== undefined) return opener;
  throw refused(slipIn(source) ?? describe(source));
}

function refused(got: string): InvalidArgumentError {
  return new InvalidArgumentError(
    `The source of a session store must be ${ACCEPTED}, but got ${got}`,
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
    throw refused(`the string '${text}' (an unset variable?)`);
  if (!isPath && !/^[\w-]+$/.test(text)) {
    throw refused("a string that is neither a URL nor a folder; write a relative folder as './…'");
  }
  if (text.includes('\0')) throw refused('a folder with a NUL in it');
  return pgliteOpener(resolve(text));
}

/** A Drizzle database. The store uses only its client, so the app's logger, cache and replicas do not apply. */
function openerForDrizzle(source: object): Opener {
  const database = property(source, '$primary') ?? source;
  if (typeof database !== 'object') throw refused(describe(source));
  const kinds = entityKinds(database);
  if (kinds.some((kind) => kind.includes('Transaction'))) {
    throw refused(
      'a transaction; pass the database itself, because a ROLLBACK would also undo saved sessions',
    );
  }
  const callback = isPgProxy(database) ? callbackOf(database) : undefined;
  if (callback !== undefined) {
    return connectionlessOpener(() => pgProxy(callback), database, PG_PROXY_LACKS);
  }
  const client = property(database, '$client');
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

/** Recognises a client by its shape, not by `instanceof`: the app may load another copy of the driver. */
function openerForClient(client: object, drizzle: object | undefined): Opener | undefined {
  if (typeof client === 'function') {
    if (isNeonHttp(client)) {
      return connectionlessOpener(() => neonHttp(client), drizzle, NEON_HTTP_LACKS);
    }
    if (!('unsafe' in client)) {
      const pool = poolBehind(client);
      return pool === undefined ? undefined : poolOpener(pool, drizzle);
    }
    if ('savepoint' in client || 'release' in client) {
      throw refused(
        `a transaction or a reserved connection of ${isBunSql(client) ? 'Bun' : 'postgres-js'}; pass sql itself`,
      );
    }
    if (isBunSql(client)) return bunSqlOpener(client, drizzle);
    return isPostgresJs(client) ? postgresJsOpener(client, drizzle) : undefined;
  }
  if (isPglite(client)) return pgliteOpener(client, drizzle);
  if ('rollback' in client) {
    throw refused(
      'a transaction; pass the database itself, because a ROLLBACK would also undo saved sessions',
    );
  }
  if (isPool(client)) return poolOpener(client, drizzle);
  if ('connect' in client && 'query' in client) {
    throw refused(
      "a single pg client; pass a pg.Pool, because the app's ROLLBACK would also undo saved sessions",
    );
  }
  return undefined;
}

/**
 * Returns the pool behind the `sql` of @vercel/postgres. This `sql` is a function that forwards only reads of properties.
 * The pool returns itself when a listener is removed, as every emitter does.
 */
function poolBehind(client: object): PgPool | undefined {
  const off = property(client, 'off');
  const emitter: unknown =
    typeof off === 'function' ? Reflect.apply(off, client, ['error', () => {}]) : undefined;
  return isObject(emitter) && isPool(emitter) ? emitter : undefined;
}

function poolOpener(pool: PgPool, drizzle: object | undefined): Opener {
  return {
    inMemory: false,
    embedded: false,
    drizzle,
    server: serverOfPool(pool.options),
    guard: (report) => guardPool(pool, report),
    open: async () => nodePostgres(pool, async () => {}),
  };
}

function urlOpener(url: string): Opener {
  if (!URL.canParse(url)) {
    throw refused('an invalid postgres URL; encode a password in it with encodeURIComponent()');
  }
  return {
    inMemory: false,
    embedded: false,
    drizzle: undefined,
    server: serverOfUrl(url),
    open: async ({ timeout, onIdleError }) => {
      const pg = await loadDriver('pg');
      const pool = new pg.Pool({
        connectionString: url,
        allowExitOnIdle: true,
        keepAlive: true,
        connectionTimeoutMillis: timeout * 1000 + 100,
      });
      pool.on('error', onIdleError);
      return nodePostgres(pool, () => pool.end());
    },
  };
}

function postgresJsOpener(client: PostgresJs, drizzle: object | undefined): Opener {
  return {
    inMemory: false,
    embedded: false,
    drizzle,
    server: serverOfPostgresJs(client.options),
    open: async () =>
      postgresJs(client, async () => {
        const make = await loadDriver('postgres');
        return (...args) => Reflect.apply(make, undefined, args);
      }),
  };
}

function bunSqlOpener(client: BunSql, drizzle: object | undefined): Opener {
  const adapter = adapterOf(client);
  if (adapter !== 'postgres') throw refused(`an SQL of Bun for ${adapter}`);
  // Bun lets the app send a plain BEGIN through the pool only if the pool has one connection.
  if (property(client.options, 'max') === 1) {
    throw refused(
      'an SQL of Bun with max: 1, on which a ROLLBACK of the app could undo saved sessions; pass one with more',
    );
  }
  return {
    inMemory: false,
    embedded: false,
    drizzle,
    server: serverOfBunSql(client.options),
    ...(client.listen === undefined
      ? { lacks: { listening: 'a newer version of Bun: the SQL of this one cannot listen' } }
      : {}),
    open: async () => bunSql(client),
  };
}

function connectionlessOpener(
  make: () => Driver,
  drizzle: object | undefined,
  lacks: Lacks,
): Opener {
  return {
    inMemory: false,
    embedded: false,
    drizzle,
    server: undefined,
    lacks,
    open: async () => make(),
  };
}

function pgliteOpener(target: string | Pglite | undefined, drizzle?: object): Opener {
  return {
    inMemory: target === undefined,
    embedded: true,
    drizzle,
    server: undefined,
    open: async () => {
      if (typeof target === 'object') return pglite(target, async () => {});
      const folder = target === undefined ? undefined : await realFolder(target);
      const unlock = folder === undefined ? undefined : await lockFolder(folder);
      try {
        const { PGlite } = await loadDriver('@electric-sql/pglite');
        const client = await (folder === undefined
          ? PGlite.create({})
          : createInFolder(folder, (options) => PGlite.create(options)));
        return pglite(client, async () => {
          await client.close();
          await unlock?.();
        });
      } catch (error) {
        await unlock?.();
        throw error;
      }
    },
  };
}

/** Returns a function that names columns as a Drizzle database does: `casing` decides if a column has no name. */
export function nameIn(database: object | undefined): (column: AnyPgColumn) => string {
  const casing = property(property(database, 'dialect'), 'casing');
  const byCasing = property(casing, 'getColumnCasing');
  return (column) => {
    const name: unknown =
      typeof byCasing === 'function' ? byCasing.call(casing, column) : column.name;
    return typeof name === 'string' ? name : column.name;
  };
}

function isPgProxy(source: object): boolean {
  return entityKinds(source).includes('PgRemoteDatabase');
}

/** Returns Drizzle's names for the classes of an object (`entityKind`), its own class first. */
function entityKinds(value: object): string[] {
  const kinds: string[] = [];
  for (
    let at: unknown = Object.getPrototypeOf(value);
    isObject(at);
    at = Object.getPrototypeOf(at)
  ) {
    const kind = property(property(at, 'constructor'), Symbol.for('drizzle:entityKind'));
    if (typeof kind === 'string') kinds.push(kind);
  }
  return kinds;
}
