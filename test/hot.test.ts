import { createRequire } from 'node:module';
import { DrizzleStore } from 'connect-drizzle';
import session, { type SessionData } from 'express-session';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from './support/obstacles.js';
import { type PostgresServer, startPostgres } from './support/postgres.js';
import { BUSY_TIMEOUT_S, promised, sessionUntil, sessionWith } from './support/sessions.js';

/** connect-pg-simple has no types of its own. */
const connectPgSimple: (sessions: typeof session) => new (options: {
  pool: pg.Pool;
  createTableIfMissing: true;
  pruneSessionInterval: false;
}) => session.Store & {
  touch(sid: string, of: SessionData, done: (error?: unknown) => void): void;
} = createRequire(import.meta.url)('connect-pg-simple');

const sessionCount = 5_000;
const touchCount = 50_000;
/** Fewer, because they run one by one; the result is the same. */
const theirTouchCount = 10_000;
const concurrency = 64;
/** Coprime with the number of sessions, so that each session is touched once before any is touched again. */
const stride = 1_009;

let server: PostgresServer;

// A server of its own: a transaction in another database would keep this one from pruning dead rows.
beforeAll(async () => {
  server = await startPostgres({
    durable: true,
    settings: { wal_writer_delay: '10s', autovacuum: 'off', checkpoint_timeout: '1h' },
  });
});

afterAll(() => server.stop());

async function query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]) {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}

/** A pool that ignores errors of idle connections: the server may stop before they are closed. */
function openPool(config: pg.PoolConfig = {}): pg.Pool {
  const pool = new pg.Pool({ connectionString: server.url, ...config });
  pool.on('error', () => {});
  return pool;
}

function openStore(pool: pg.Pool): DrizzleStore {
  return new DrizzleStore(pool, {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    timeout: BUSY_TIMEOUT_S,
    touchAfter: 0,
  });
}

interface Measured {
  readonly hot: number;
  readonly indexGrowth: number;
}

/** Touches sessions all over the table. Returns the share of HOT updates, and how much the indexes have grown. */
async function measure(
  table: string,
  pool: pg.Pool,
  count: number,
  touch: (sid: string, session: SessionData) => Promise<void>,
): Promise<Measured> {
  const indexBytes = async () => {
    const [row] = await query<{ bytes: string }>('select pg_indexes_size($1::regclass) as bytes', [
      table,
    ]);
    return Number(row?.bytes);
  };
  const updates = async () => {
    const [row] = await query<{ all: string; hot: string }>(
      `select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_user_tables
       where relid = $1::regclass`,
      [table],
    );
    return { all: Number(row?.all), hot: Number(row?.hot) };
  };
  const before = await indexBytes();
  // Expiries within one hour, each later than the one before, as touches set them within a few minutes.
  const hour = Math.ceil(Date.now() / 3_600_000) * 3_600_000 + 86_400_000;
  let touched = 0;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (touched < count) {
        touched += 1;
        const expires = new Date(hour + touched * 60);
        await touch(`sid ${(touched * stride) % sessionCount}`, sessionUntil(expires));
      }
    }),
  );
  // A connection reports its counts when it ends.
  await pool.end();
  await until(async () => (await updates()).all === count);
  const { all, hot } = await updates();
  return { hot: hot / all, indexGrowth: (await indexBytes()) / before - 1 };
}

test('touches are HOT updates that do not grow the indexes, unlike those of connect-pg-simple', async () => {
  const sids = Array.from({ length: sessionCount }, (_, n) => `sid ${n}`);
  const filler = { user: 'x'.repeat(100) };
  const expires = new Date(Math.ceil(Date.now() / 3_600_000) * 3_600_000 + 86_400_000);

  // One connection: while a statement of another is delayed, Postgres keeps all rows that died since it began.
  const pool = openPool({ max: 1 });
  const store = openStore(pool);
  await store.ready();
  // The optional index of the admin page.
  await query('create index sessions_created_at_index on sessions (created_at, id)');
  await Promise.all(sids.map((sid) => store.set(sid, sessionUntil(expires, filler))));
  const own = await measure('sessions', pool, touchCount, (sid, of) => store.touch(sid, of));
  await store.close();

  // Without this, each of its statements would wait for the disk, which does not matter here.
  const theirPool = openPool({ options: '-c synchronous_commit=off' });
  const theirs = new (connectPgSimple(session))({
    pool: theirPool,
    createTableIfMissing: true,
    pruneSessionInterval: false,
  });
  for (const sid of sids) {
    await promised<void>((done) => theirs.set(sid, sessionUntil(expires, filler), done));
  }
  const other = await measure('session', theirPool, theirTouchCount, (sid, of) =>
    promised<void>((done) => theirs.touch(sid, of, done)),
  );

  const percent = (part: number) => `${Math.round(part * 1000) / 10} %`;
  console.log(
    `${touchCount} touches over ${sessionCount} sessions: ` +
      `${percent(own.hot)} HOT, indexes ${percent(own.indexGrowth)} larger; ` +
      `connect-pg-simple after ${theirTouchCount}: ${percent(other.hot)} HOT, indexes ${percent(other.indexGrowth)} larger`,
  );
  expect(own.hot).toBeGreaterThanOrEqual(0.9);
  expect(own.indexGrowth).toBeLessThan(0.1);
  expect(other.hot).toBe(0);
});

test('a touch does not wait for the disk; a set and a log-out do', async () => {
  const pool = openPool({ max: 1 });
  const store = openStore(pool);
  const position = async () => {
    const { rows } = await pool.query<{ written: string; flushed: string }>(
      `select pg_current_wal_insert_lsn() - '0/0' as written,
         pg_current_wal_flush_lsn() - '0/0' as flushed`,
    );
    return { written: Number(rows[0]?.written), flushed: Number(rows[0]?.flushed) };
  };
  /** How many of 20 calls had flushed what they wrote when they resolved. */
  const flushes = async (call: (n: number) => Promise<void>) => {
    let count = 0;
    for (let n = 0; n < 20; n += 1) {
      const before = await position();
      await call(n);
      const after = await position();
      expect(after.written).toBeGreaterThan(before.written);
      if (after.flushed > before.written) count += 1;
    }
    return count;
  };
  expect(await flushes((n) => store.set(`flushed ${n}`, sessionWith({ n })))).toBe(20);
  // The WAL writer may flush now and then.
  expect(await flushes((n) => store.touch(`flushed ${n}`, sessionWith()))).toBeLessThan(10);
  expect(
    await flushes(async (n) => {
      const loaded = await store.get(`flushed ${n}`);
      await store.set(`flushed ${n}`, Object.assign(loaded ?? {}, sessionWith({ n: n + 1 })));
    }),
  ).toBe(20);
  expect(await flushes((n) => store.destroy(`flushed ${n}`))).toBe(20);
  // A touch turns it off for itself only.
  const { rows } = await pool.query('show synchronous_commit');
  expect(rows).toEqual([{ synchronous_commit: 'on' }]);
  await store.close();
  await pool.end();
});
