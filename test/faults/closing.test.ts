import type { PGlite } from '@electric-sql/pglite';
import { DrizzleStore, type Source, StoreClosedError } from 'connect-drizzle';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually, untilSent } from '../support/eventually.js';
import { database, networkSources, useDatabase } from '../support/fault-database.js';
import { holding, until } from '../support/obstacles.js';
import { freshPglite } from '../support/pglite.js';
import { startProxy } from '../support/proxy.js';

useDatabase();

const clients = networkSources();

const options = { pruneSessionInterval: false, errorLog: () => {}, timeout: 0.5 } as const;

describe.each(clients)('close() of a store on %s', (_, source) => {
  test('ends a migrate() that waits for the lock of another process, so that it migrates nothing later', async () => {
    const store = new DrizzleStore(source(database.url), options);
    const other = await holding(
      database,
      `select pg_advisory_xact_lock(hashtextextended('connect-drizzle migrate', 0))`,
    );
    const [migrating] = await untilSent(other.waiting(1), () => [store.migrate()]);
    await store.close();
    await expect(migrating).rejects.toThrow(StoreClosedError);
    await other.release();
    await until(
      async () =>
        (
          await database.query(
            `select from pg_stat_activity
             where datname = current_database() and query like '%advisory%' and pid <> pg_backend_pid()`,
          )
        ).length === 0,
    );
    expect(await database.query(`select to_regclass('sessions') as table`)).toEqual([
      { table: null },
    ]);
  });

  test('ends a migrate() on a network that swallows everything', async () => {
    await using proxy = await startProxy(database.url);
    const pool = source(proxy.url);
    const store = new DrizzleStore(pool, options);
    const held = proxy.hold('toServer', (piece) => piece.includes('advisory'));
    const [migrating] = await untilSent(held, () => [store.migrate()]);
    await store.close();
    await expect(migrating).rejects.toThrow(StoreClosedError);
    // The app's pool has the connection back.
    if (isPool(pool))
      await until(
        async () => (await database.query('select')).length === 1 && pool.totalCount === 0,
      );
  });

  test('does not wait for a heartbeat without an answer, nor leave its connection in the pool', async () => {
    await using proxy = await startProxy(database.url);
    const pool = source(proxy.url);
    const store = new DrizzleStore(pool, {
      ...options,
      timeout: 300,
      createTableIfMissing: true,
      sync: { heartbeat: 1, connectionString: database.url },
    });
    await store.ready();
    // Held from the heartbeat on. A client that is still logging in stays in the pool until the server gives up.
    await proxy.hold('toServer', (piece) => piece.includes('notify'));
    await store.close();
    if (isPool(pool)) await pool.end();
  });
});

test('creating the table on a network that swallows everything loses no connection of the pool', async () => {
  await using proxy = await startProxy(database.url);
  const pool = database.pool({ connectionString: proxy.url });
  const store = new DrizzleStore(pool, { ...options, createTableIfMissing: true });
  let isHeld = false;
  void proxy
    .hold('toServer', (piece) => piece.includes('advisory'))
    .then(() => {
      isHeld = true;
    });
  // On a busy machine, the call may time out before its statement is sent.
  while (!isHeld) {
    await expect(store.ready()).rejects.toMatchObject({ code: 'ERR_STORE_TIMEOUT' });
  }
  proxy.lose();
  await until(async () => {
    await store.ready().catch(() => {});
    return pool.totalCount > 0 && pool.totalCount === pool.idleCount;
  });
  await eventually(() => store.ready());
  await store.close();
});

describe('on PGlite,', () => {
  let client: PGlite;

  beforeAll(async () => {
    client = await freshPglite();
  });

  afterAll(() => client.close());

  test('close() ends a migrate() that waits for a transaction of the app', async () => {
    const store = new DrizzleStore(client, options);
    await client.transaction(async () => {
      const migrating = store.migrate();
      migrating.catch(() => {});
      await store.close();
      await expect(migrating).rejects.toThrow(StoreClosedError);
    });
    const { rows } = await client.query(`select to_regclass('sessions') as table`);
    expect(rows).toEqual([{ table: null }]);
  });
});

function isPool(source: Source): source is pg.Pool {
  return typeof source === 'object' && 'totalCount' in source;
}
