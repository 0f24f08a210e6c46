import { DrizzleStore, type DrizzleStoreOptions, type Source } from 'connect-drizzle';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../support/obstacles.js';
import { type PostgresServer, startPostgres } from '../support/postgres.js';
import { startProxy, type Proxy as TcpProxy } from '../support/proxy.js';
import { heardOf, untilSync, up } from '../support/realtime.js';
import { type ReusedDatabase, reusedDatabase } from '../support/reused-database.js';
import { contentOf, sessionWith } from '../support/sessions.js';

/** The first primary, and the one that replaces it. The old one stays up and becomes read-only. */
let [old, next]: PostgresServer[] = [];
const ends: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  old = await startPostgres({ durable: false });
  next = await startPostgres({ durable: false });
});

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

afterAll(async () => {
  await old?.stop();
  await next?.stop();
});

const options = { cache: true, createTableIfMissing: true, pruneSessionInterval: false } as const;

function storeOn(source: Source, more: DrizzleStoreOptions = {}): DrizzleStore {
  const store = new DrizzleStore(source, { ...options, errorLog: () => {}, ...more });
  ends.push(() => store.close());
  return store;
}

function poolOn(url: string, config: pg.PoolConfig = {}): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 6, ...config });
  pool.on('error', () => {});
  ends.push(() => pool.end());
  return pool;
}

async function query(server: PostgresServer, text: string) {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

/** The number of connections that the stores under test have to this server. */
const left = async (server: PostgresServer) =>
  (
    await query(
      server,
      `select pid from pg_stat_activity where application_name = 'moving' and state is not null`,
    )
  ).length;

/** Both servers with a live session, and a proxy to the old one. */
async function setUp() {
  if (old === undefined || next === undefined) throw new Error('no servers');
  const servers = { old, next };
  for (const server of [old, next]) {
    await query(server, 'alter system reset default_transaction_read_only');
    await query(server, 'select pg_reload_conf()');
    await until(async () => {
      const [row] = await query(server, 'show default_transaction_read_only');
      return row.default_transaction_read_only === 'off';
    });
    await query(server, 'drop table if exists sessions, __connect_drizzle_store');
    const store = storeOn(poolOn(server.url), { cache: false });
    await store.set('a', sessionWith());
  }
  const proxy = await startProxy(old.url);
  ends.push(() => proxy.close());
  const url = `${proxy.url}?application_name=moving`;
  return { ...servers, proxy, url };
}

/** Moves the primary. Open connections stay on the old server, which becomes read-only. */
async function failOver(proxy: TcpProxy): Promise<void> {
  if (old === undefined || next === undefined) throw new Error('no servers');
  proxy.pointTo(Number(new URL(next.url).port));
  const server = old;
  await query(server, 'alter system set default_transaction_read_only = on');
  await query(server, 'select pg_reload_conf()');
  await until(async () => {
    const [row] = await query(server, 'show default_transaction_read_only');
    return row.default_transaction_read_only === 'on';
  });
}

const sources: [string, (url: string) => Source][] = [
  ['node-postgres', (url) => poolOn(url)],
  ['a URL', (url) => url],
  [
    'postgres-js',
    (url) => {
      const sql = postgres(url, { onnotice: () => {} });
      ends.push(() => sql.end({ timeout: 0 }));
      return sql;
    },
  ],
];

describe.each(sources)('when the primary moves, a store on %s', (_, source) => {
  test('that only reads moves its pool and its listener, although the old server stays up', async () => {
    const { old, next, proxy, url } = await setUp();
    const store = storeOn(source(url), { sync: { heartbeat: 1 } });
    await up(store);
    // Opens several connections of its pool.
    await Promise.all(Array.from({ length: 4 }, () => store.ready()));
    expect(contentOf(await store.get('a'))).toEqual({});
    const down = untilSync(store, 'down');
    await failOver(proxy);
    // From now on, no heartbeat to the old server comes back.
    const movedAt = performance.now();
    const other = storeOn(poolOn(next.url), { cache: false, sync: true });
    await other.destroy('a');
    let lastHitAt = 0;
    while (store.stats().sync === 'up') {
      const { hits } = store.stats();
      const calledAt = performance.now();
      store.get('a').catch(() => {});
      if (store.stats().hits > hits) lastHitAt = calledAt;
      await new Promise(setImmediate);
    }
    expect(lastHitAt - movedAt).toBeLessThanOrEqual(1000);
    await down;
    await up(store);
    expect(await store.get('a')).toBeUndefined();
    const heard = heardOf(store, 'change', 'b');
    await other.set('b', sessionWith());
    await heard;
    await until(async () => {
      await store.ready();
      return (await left(old)) === 0;
    });
  });

  test('whose pool has moved moves its listener, too', async () => {
    const { next, proxy, url } = await setUp();
    // Only the listener stays on the old server.
    const pooled = await startProxy(url);
    ends.push(() => pooled.close());
    const store = storeOn(source(pooled.url), { sync: { connectionString: url, heartbeat: 1 } });
    await up(store);
    expect(contentOf(await store.get('a'))).toEqual({});
    const down = untilSync(store, 'down');
    pooled.pointTo(Number(new URL(next.url).port));
    pooled.cut();
    await failOver(proxy);
    const other = storeOn(poolOn(next.url), { cache: false, sync: true });
    await other.destroy('a');
    await down;
    await up(store);
    expect(await store.get('a')).toBeUndefined();
    const heard = heardOf(store, 'change', 'b');
    await other.set('b', sessionWith());
    await heard;
  });
});

describe('while the app holds all connections of its pool,', () => {
  let database: ReusedDatabase;

  beforeAll(async () => {
    database = await reusedDatabase();
  });

  afterAll(async () => {
    await database.clear();
    await database.drop();
  });

  test('the cache stops answering until the app releases them, and the listener stays', async () => {
    const pool = database.pool({ max: 2 });
    const store = await database.store({ cache: true, sync: { heartbeat: 0.5 } }, pool);
    const other = await database.store({ sync: true });
    await up(store, other);
    await store.set('a', sessionWith());
    /** Whether the cache answers. If not, the call waits for a connection. */
    const isHit = () => {
      const { hits } = store.stats();
      store.get('a').catch(() => {});
      return store.stats().hits > hits;
    };
    await until(async () => {
      await store.get('a');
      return isHit();
    });
    const states: string[] = [];
    store.on('sync', (state: string) => states.push(state));
    const clients = [await pool.connect(), await pool.connect()];
    for (const client of clients) client.on('error', () => {});
    await until(async () => {
      await new Promise(setImmediate);
      return !isHit();
    });
    // Longer than a lease.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(isHit()).toBe(false);
    const heard = heardOf(store, 'change', 'b');
    await other.set('b', sessionWith());
    await heard;
    for (const client of clients) client.release();
    await until(async () => {
      await store.get('a');
      return isHit();
    });
    expect(states).toEqual([]);
  });

  test('only one heartbeat waits for a connection', async () => {
    const pool = database.pool({ max: 1 });
    const store = await database.store({ sync: { heartbeat: 0.3 } }, pool);
    await up(store);
    const client = await pool.connect();
    client.on('error', () => {});
    await until(async () => (await database.query('select')).length === 1 && pool.waitingCount > 0);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect(pool.waitingCount).toBe(1);
    client.release();
    await store.close();
  });
});
