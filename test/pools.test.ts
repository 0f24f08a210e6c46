import { createRequire } from 'node:module';
import { join } from 'node:path';
import * as neon from '@neondatabase/serverless';
import { DrizzleStore, InvalidArgumentError, type Source } from 'connect-drizzle';
import { drizzle as drizzleNeon } from 'drizzle-orm/neon-serverless';
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres';
import { drizzle as drizzleVercel } from 'drizzle-orm/vercel-postgres';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installIn } from '../scripts/install.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { neonPool, vercelPostgres } from './support/neon.js';
import { until } from './support/obstacles.js';
import { caughtUp, heardOf, up } from './support/realtime.js';
import { contentOf, sessionWith } from './support/sessions.js';

// Pools of other packages with the interface of a pg.Pool. The store uses their own clients to listen.

interface OpenPool {
  readonly source: Source;
  close(): Promise<unknown>;
}

/** Ignores the errors of a pool: the server may end what it is just ending. */
function ignoringErrors<Pool extends NodeJS.EventEmitter>(pool: Pool): Pool {
  pool.on('error', () => {});
  return pool;
}

const pools: Record<string, (url: string) => Promise<OpenPool>> = {
  'a Neon Pool': async (url) => {
    const { pool, close } = await neonPool(url);
    return { source: pool, close };
  },
  'Drizzle on Neon': async (url) => {
    const { pool, close } = await neonPool(url);
    return { source: drizzleNeon({ client: pool }), close };
  },
  'a Vercel pool': async (url) => {
    const { vercel, connectionString, proxy } = await vercelPostgres(url);
    const pool = ignoringErrors(vercel.createPool({ connectionString }));
    return { source: pool, close: () => pool.end().then(proxy.close) };
  },
  'Vercel’s sql': async (url) => {
    const { vercel, proxy } = await vercelPostgres(url);
    ignoringErrors(vercel.sql);
    return { source: vercel.sql, close: () => vercel.sql.end().then(proxy.close) };
  },
  'Drizzle on Vercel’s sql': async (url) => {
    const { vercel, proxy } = await vercelPostgres(url);
    ignoringErrors(vercel.sql);
    const source = drizzleVercel({ client: vercel.sql });
    return { source, close: () => vercel.sql.end().then(proxy.close) };
  },
};

let native: typeof pg | null = null;
try {
  const require = createRequire(join(installIn('test/apps/pg-native'), 'package.json'));
  const loaded: typeof pg = require('pg');
  native = loaded.native;
  if (native === null) throw new Error('pg-native cannot be loaded');
} catch (error) {
  console.warn(`pg-native is not tested, because it cannot be installed here: ${error}`);
}

if (native !== null) {
  const { Pool } = native;
  const nativePool = async (url: string, sourceOf: (pool: pg.Pool) => Source) => {
    const pool = ignoringErrors(new Pool({ connectionString: url }));
    return { source: sourceOf(pool), close: () => pool.end() };
  };
  pools['a pg.native.Pool'] = (url) => nativePool(url, (pool) => pool);
  pools['Drizzle on pg.native'] = (url) =>
    nativePool(url, (client) => drizzleNodePostgres({ client }));
}

describe.each(Object.entries(pools))('a store on %s', (_, open) => {
  let database: TestDatabase;
  let pool: OpenPool;
  const stores: DrizzleStore[] = [];

  function storeOn(source: Source): DrizzleStore {
    const store = new DrizzleStore(source, {
      sync: true,
      pruneSessionInterval: false,
      errorLog: () => {},
    });
    stores.push(store);
    return store;
  }

  beforeAll(async () => {
    database = await freshDatabase();
    pool = await open(database.url);
    const store = new DrizzleStore(pool.source);
    await store.migrate();
    await store.close();
  });
  afterAll(async () => {
    for (const store of stores) await store.close();
    await pool.close();
    await database.drop();
  });

  test('saves, reads, touches, updates and destroys sessions', async () => {
    const store = storeOn(pool.source);
    await Promise.all(
      Array.from({ length: 50 }, (_none, at) => store.set(`sid ${at}`, sessionWith({ at }))),
    );
    expect(contentOf(await store.get('sid 7'))).toEqual({ at: 7 });
    await store.touch('sid 7', sessionWith({ at: 7 }, 7200));
    await store.update('sid 7', (session) => void Object.assign(session, { at: 8 }));
    expect(contentOf(await store.get('sid 7'))).toEqual({ at: 8 });
    await store.destroy('sid 7');
    expect(await store.get('sid 7')).toBeUndefined();
    expect(await store.length()).toBe(49);
  });

  test('hears other processes, and announces its own changes', async () => {
    const store = storeOn(pool.source);
    const other = storeOn(database.url);
    await Promise.all([store.ready(), other.ready()]);
    await up(store, other);
    await caughtUp(store, other);
    await caughtUp(other, store);
    await other.set('sid', sessionWith());
    const heard = heardOf(store, 'destroy', 'sid');
    await other.destroy('sid');
    expect(await heard).toMatchObject({ local: false });
  });

  test('works again after the server has ended all its connections', async () => {
    const store = storeOn(pool.source);
    await store.ready();
    await up(store);
    await store.set('kept', sessionWith({ kept: true }));
    const lost = new Promise((resolve) => store.once('sync', resolve));
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid()`,
    );
    expect(await lost).toBe('down');
    await up(store);
    expect(contentOf(await store.get('kept'))).toEqual({ kept: true });
  });

  test('closes the connection of its listener', async () => {
    for (const each of stores.splice(0)) await each.close();
    const listening = async () =>
      (
        await database.query(
          `select from pg_stat_activity
           where datname = current_database() and query like 'listen %'`,
        )
      ).length;
    const store = storeOn(pool.source);
    await store.ready();
    await up(store);
    expect(await listening()).toBeGreaterThan(0);
    await store.close();
    await until(async () => (await listening()) === 0);
  });
});

test('a single Neon client is refused', () => {
  const create = () => Reflect.construct(DrizzleStore, [new neon.Client()]);
  expect(create).toThrow(InvalidArgumentError);
  expect(create).toThrow('a single pg client');
});
