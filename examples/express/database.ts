import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, isAbsolute, resolve } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import { type SQL, sql } from 'drizzle-orm';
import { drizzle as drizzlePool } from 'drizzle-orm/node-postgres';
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core';
import { drizzle as drizzlePGlite } from 'drizzle-orm/pglite';
import pg from 'pg';

/** The Drizzle database that accounts and sessions share, with any driver. */
export type Db = PgDatabase<PgQueryResultHKT>;

/** A mistake in the command line or the environment. Printed without a stack. */
export class StartError extends Error {}

/** Opens the database of the command line: a Postgres URL, a folder, or memory. */
export async function openDatabase(source: string | undefined) {
  if (source === undefined || source === 'memory://') return inMemory();
  if (/^postgres(ql)?:\/\//.test(source)) return onServer(source);
  if (isAbsolute(source) || /^\.{1,2}([\\/]|$)/.test(source) || /^[\w-]+$/.test(source)) {
    return inFolder(resolve(source));
  }
  throw new StartError(
    `${JSON.stringify(withoutPassword(source))} is neither a Postgres URL ` +
      '(postgres://user:password@host/database) nor a folder (./data).',
  );
}

async function inMemory() {
  const client = await PGlite.create();
  return {
    db: drizzlePGlite({ client }),
    kind: 'an embedded database in memory, until the server stops',
    name: 'an embedded database in memory, which is gone when the server stops',
    close: () => client.close(),
  };
}

async function onServer(url: string) {
  const name = withoutPassword(url);
  if (!URL.canParse(url)) throw new StartError(`${name} is not a URL.`);
  const pool = new pg.Pool({ connectionString: url, connectionTimeoutMillis: 10_000 });
  // The pool replaces a broken idle connection. Without a listener, it would end the process.
  pool.on('error', (error) => console.error('An idle connection broke:', error.message));
  try {
    await pool.query('select 1');
  } catch (error) {
    await pool.end();
    throw new StartError(`${name} does not answer: ${reasonOf(error)}`);
  }
  return {
    db: drizzlePool({ client: pool }),
    kind: 'PostgreSQL',
    name,
    close: () => pool.end(),
  };
}

async function inFolder(folder: string) {
  const unlock = lock(folder);
  try {
    const client = await PGlite.create(folder);
    return {
      db: drizzlePGlite({ client }),
      kind: 'an embedded database in a folder',
      name: `an embedded database in ${folder}`,
      close: async () => {
        await client.close();
        unlock();
      },
    };
  } catch (error) {
    unlock();
    throw new StartError(`${folder} cannot be opened as a database: ${reasonOf(error)}`);
  }
}

/**
 * Only one process may open an embedded database: two would destroy each other's data. Here the app
 * opens the folder, because it also keeps the accounts there, so the app must lock it. This lock is
 * simple and works for processes of one machine. If a store opens the folder itself,
 * `new DrizzleStore('./data')`, its lock also works for containers and worker threads.
 */
function lock(folder: string): () => void {
  const file = `${folder}.lock`;
  try {
    mkdirSync(dirname(folder), { recursive: true });
    writeFileSync(file, String(process.pid), { flag: 'wx' });
  } catch (error) {
    if (!isTaken(error)) throw new StartError(`${folder} cannot be used: ${reasonOf(error)}`);
    const holder = Number(readFileSync(file, 'utf8'));
    if (holder !== process.pid && isRunning(holder)) {
      throw new StartError(`${folder} is in use by process ${holder}.`);
    }
    // The process was killed and could not remove its lock.
    rmSync(file);
    return lock(folder);
  }
  return () => rmSync(file, { force: true });
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EEXIST';
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    // EPERM: it is running, but belongs to another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/**
 * Runs statements that create tables, in one process at a time. Otherwise two servers that start at
 * once could fail, because CREATE TABLE IF NOT EXISTS does not wait for another one.
 */
export async function createTables(db: Db, statements: SQL[]): Promise<void> {
  await db.transaction(async (tx) => {
    await tx.execute(sql`select pg_advisory_xact_lock(hashtext('connect-drizzle example'))`);
    for (const statement of statements) await tx.execute(statement);
  });
}

/** Returns a URL that is safe to show. */
export function withoutPassword(url: string): string {
  return url
    .replace(/^([\w+.-]+:\/\/[^:@/]*):.*@/, '$1:***@')
    .replace(/([?&][^=&]*password=)[^&]*/gi, '$1***');
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // If a host has two addresses that both fail, the error contains both reasons.
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  return error.message;
}
