// The migration of a table of version 1.0.0 with a million rows, while both versions use it.
import { EventEmitter } from 'node:events';
import { readFile } from 'node:fs/promises';
import { DrizzleStore, idOf } from 'connect-drizzle';
import type pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { contentOf, sessionWith } from './support/sessions.js';
import { version1 } from './support/version-1.js';

const ROWS = 1_000_000;
const SESSIONS = 40;
const WORKERS = 4;
/** The number of changes by each version before the migration, and after it. */
const CHANGES = 400;

let database: TestDatabase;

beforeAll(async () => {
  database = await freshDatabase();
});

afterAll(() => database.drop());

interface StatementTime {
  readonly text: string;
  readonly sentMs: number;
  answeredMs: number;
}

/** Records when each statement of a pool is sent and answered. Only one is in flight at a time. */
function timed(pool: pg.Pool): StatementTime[] {
  const times: StatementTime[] = [];
  pool.on('connect', (client) => {
    const connection: unknown = Reflect.get(client, 'connection');
    if (!(connection instanceof EventEmitter)) throw new Error('no connection');
    let current: StatementTime | undefined;
    connection.on('readyForQuery', () => {
      if (current !== undefined) current.answeredMs = performance.now();
    });
    const query = client.query.bind(client) as (...args: unknown[]) => unknown;
    const value = (...args: unknown[]) => {
      const text = String(Reflect.get(Object(args[0]), 'text'));
      current = { text, sentMs: performance.now(), answeredMs: Number.NaN };
      times.push(current);
      return query(...args);
    };
    Object.defineProperty(client, 'query', { value });
  });
  return times;
}

function timeOf(times: readonly StatementTime[], pattern: RegExp): StatementTime {
  const found = times.find(({ text }) => pattern.test(text));
  if (found === undefined) throw new Error(`no statement like ${pattern}`);
  return found;
}

/** The name of the table's file, which changes if the table is rewritten. */
async function fileOfTable(): Promise<string | undefined> {
  const [row] = await database.query<{ file: string }>(
    `select relfilenode::text as file from pg_class where oid = 'sessions'::regclass`,
  );
  return row?.file;
}

test('a table of version 1.0.0 with a million sessions is migrated under load without a lost change or a revived session', async () => {
  const sql = await readFile(new URL('../drizzle/0000_sessions.sql', import.meta.url), 'utf8');
  for (const statement of sql.split('--> statement-breakpoint')) await database.query(statement);
  await database.query(
    `insert into sessions (id, data, version, expires_at)
     select lpad(n::text, 43, '0'), '{"cookie":{"originalMaxAge":86400000},"user":"ada"}', 1 + n % 9,
       now() + interval '1 day' + n * interval '50 ms'
     from generate_series(1, $1) as n`,
    [ROWS],
  );

  const old = version1(database.pool());
  const options = { pruneSessionInterval: false, errorLog: () => {} } as const;
  await using store = new DrizzleStore(database.pool(), options);
  const sids = Array.from({ length: SESSIONS }, (_, n) => `sid ${n}`);
  const tomorrow = Date.now() + 86_400_000;
  for (const sid of sids) await old.put(sid, sessionWith({ by: 'old' }, 86_400), tomorrow);

  // Each worker counts in a key of its own in every session. `acknowledged` has the counts that must be there.
  const acknowledged = new Map<string, number>();
  const ended: string[] = [];
  const counts = { old: 0, new: 0 };
  let slowestMs = 0;
  let isOver = false;
  const work = async (version: 'old' | 'new', worker: number) => {
    const key = `${version}${worker}`;
    for (let n = 1; !isOver; n += 1) {
      const sid = sids[(n * 7 + worker) % SESSIONS] ?? '';
      const own = `${key} ${n}`;
      const startedAt = performance.now();
      if (version === 'old') {
        const read = await old.read(sid);
        if (read === undefined) throw new Error(`${sid} was logged out`);
        await old.save(sid, read, { [key]: n });
      } else {
        const read = await store.get(sid);
        if (read === undefined) throw new Error(`${sid} was logged out`);
        await store.set(sid, Object.assign(read, { [key]: n }));
      }
      slowestMs = Math.max(slowestMs, performance.now() - startedAt);
      acknowledged.set(`${sid} ${key}`, n);
      // One version logs in, and the other logs out.
      if (n % 10 === 0) {
        if (version === 'old') await old.put(own, sessionWith(), tomorrow);
        else await store.set(own, sessionWith());
        if (version === 'old') await store.destroy(own);
        else await old.end(own);
        ended.push(own);
      }
      counts[version] += 1;
    }
  };
  const workers = Array.from({ length: WORKERS }, (_, n) => [
    work('old', n),
    work('new', n),
  ]).flat();
  const failed = Promise.all(workers).then(() => undefined);
  const changed = async (more: number) => {
    const [before, now] = [counts.old, counts.new];
    while (counts.old < before + more || counts.new < now + more) {
      await Promise.race([new Promise(setImmediate), failed]);
    }
  };

  await changed(CHANGES);
  const file = await fileOfTable();
  slowestMs = 0;
  const migrating = database.pool();
  const times = timed(migrating);
  await using migrator = new DrizzleStore(migrating, options);
  await migrator.migrate();
  const slowestMeanwhileMs = slowestMs;
  await changed(CHANGES);
  isOver = true;
  await failed;

  expect(await fileOfTable()).toBe(file);
  const missing: string[] = [];
  for (const sid of sids) {
    const content = contentOf(await store.get(sid)) ?? {};
    for (const [state, n] of acknowledged) {
      if (!state.startsWith(`${sid} `)) continue;
      if (Reflect.get(content, state.slice(sid.length + 1)) !== n) missing.push(state);
    }
  }
  expect(missing).toEqual([]);
  for (const sid of ended) expect(await store.get(sid), sid).toBeUndefined();
  const [rows] = await database.query<{ live: number }>(
    `select count(*)::int as live from sessions where revoked_at is null and expires_at > now()`,
  );
  expect(rows?.live).toBe(ROWS + SESSIONS);
  const [fresh] = await database.query<{ version: number }>(
    `insert into sessions (id, data, expires_at) values ($1, '{}', now()) returning version`,
    [idOf('fresh')],
  );
  expect(fresh?.version).toBeGreaterThan(1);

  const alter = timeOf(times, /alter column/i);
  const commit = timeOf(times, /^commit/i);
  const ms = (time: number) => `${time.toFixed(1)} ms`;
  console.log(
    `${ROWS.toLocaleString('en')} rows migrated: the lock on the table took ${ms(alter.answeredMs - alter.sentMs)} ` +
      `to get and was held for ${ms(commit.answeredMs - alter.answeredMs)}; the slowest of the requests meanwhile took ` +
      `${ms(slowestMeanwhileMs)}; ${counts.old} changes by version 1.0.0 and ${counts.new} by this one, ` +
      `${missing.length} lost; ${ended.length} log-outs, 0 undone; ${store.stats().merges} merges`,
  );
});
