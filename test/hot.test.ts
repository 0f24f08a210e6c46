import { createRequire } from 'node:module';
import { DrizzleStore } from 'connect-drizzle';
import session, { type SessionData } from 'express-session';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { until } from './support/obstacles.js';
import { promised, sessionUntil } from './support/sessions.js';

/** It has no types of its own. */
const connectPgSimple: (sessions: typeof session) => new (options: {
  pool: pg.Pool;
  createTableIfMissing: true;
  pruneSessionInterval: false;
}) => session.Store & {
  touch(sid: string, of: SessionData, done: (error?: unknown) => void): void;
} = createRequire(import.meta.url)('connect-pg-simple');

const sessionCount = 2_000;
const touchCount = 20_000;
const concurrency = 64;
/** Without a common divisor, so that it leads to every session before it comes to one again. */
const stride = 1_009;

let database: TestDatabase;

beforeAll(async () => {
  database = await freshDatabase();
});

afterAll(() => database.drop());

interface Measured {
  readonly hot: number;
  readonly indexGrowth: number;
}

/** Touches sessions all over the table, and says what the table and its indexes made of it. */
async function measure(
  table: string,
  pool: pg.Pool,
  touch: (sid: string, session: SessionData) => Promise<void>,
): Promise<Measured> {
  const indexBytes = async () => {
    const [row] = await database.query<{ bytes: string }>(
      'select pg_indexes_size($1::regclass) as bytes',
      [table],
    );
    return Number(row?.bytes);
  };
  const updates = async () => {
    const [row] = await database.query<{ all: string; hot: string }>(
      `select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_user_tables
       where relid = $1::regclass`,
      [table],
    );
    return { all: Number(row?.all), hot: Number(row?.hot) };
  };
  // What is measured is the work of the touches, not of a vacuum that happens to come by.
  await database.query(`alter table ${table} set (autovacuum_enabled = false)`);
  const before = await indexBytes();
  // As over a few minutes of a day's sessions: within an hour, each later than the one before.
  const hour = Math.ceil(Date.now() / 3_600_000) * 3_600_000 + 86_400_000;
  let touched = 0;
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (touched < touchCount) {
        touched += 1;
        const expires = new Date(hour + touched * 150);
        await touch(`sid ${(touched * stride) % sessionCount}`, sessionUntil(expires));
      }
    }),
  );
  // A connection reports its counts by the time it has ended.
  await pool.end();
  await until(async () => (await updates()).all >= touchCount * 0.9);
  const { all, hot } = await updates();
  return { hot: hot / all, indexGrowth: (await indexBytes()) / before - 1 };
}

test('touches are HOT updates that leave the indexes as they are, unlike those of connect-pg-simple', async () => {
  const sids = Array.from({ length: sessionCount }, (_, n) => `sid ${n}`);
  const filler = { user: 'x'.repeat(100) };
  const expires = new Date(Math.ceil(Date.now() / 3_600_000) * 3_600_000 + 86_400_000);

  const pool = database.pool();
  const store = new DrizzleStore(pool, { createTableIfMissing: true, pruneSessionInterval: false });
  await Promise.all(sids.map((sid) => store.set(sid, sessionUntil(expires, filler))));
  const own = await measure('sessions', pool, (sid, of) => store.touch(sid, of));
  await store.close();

  const theirPool = database.pool();
  const theirs = new (connectPgSimple(session))({
    pool: theirPool,
    createTableIfMissing: true,
    pruneSessionInterval: false,
  });
  for (const sid of sids) {
    await promised<void>((done) => theirs.set(sid, sessionUntil(expires, filler), done));
  }
  const other = await measure('session', theirPool, (sid, of) =>
    promised<void>((done) => theirs.touch(sid, of, done)),
  );

  const percent = (part: number) => `${Math.round(part * 1000) / 10} %`;
  console.log(
    `${touchCount} touches over ${sessionCount} sessions: ` +
      `${percent(own.hot)} HOT, indexes ${percent(own.indexGrowth)} larger; ` +
      `connect-pg-simple: ${percent(other.hot)} HOT, indexes ${percent(other.indexGrowth)} larger`,
  );
  expect(own.hot).toBeGreaterThanOrEqual(0.9);
  expect(own.indexGrowth).toBeLessThan(0.1);
  expect(other.hot).toBe(0);
});
