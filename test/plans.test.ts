// Postgres keeps the plan of a prepared statement. One that it made for a small table has to suit a large one.
import type { DrizzleStore } from 'connect-drizzle';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { ending, generated, loaded } from './support/requests.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { sessionWith } from './support/sessions.js';

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(() => database.clear());
afterAll(() => database.drop());

/** Postgres plans a statement five times before it may keep a plan. */
const CALLS_UNTIL_A_PLAN_IS_KEPT = 6;

/** The statements that look for rows by id or by user. */
const STATEMENTS = [
  ...['create', 'end', 'put', 'read', 'save', 'tombstone', 'touch', 'touch_any'],
  ...['create_many', 'end_many', 'put_many', 'read_many', 'save_many', 'touch_many'],
  ...['end_beyond', 'end_user', 'list', 'list_ids', 'list_user'],
].sort();

/** Sends each of these statements, those for one row or those for many. */
async function sendAll(store: DrizzleStore, sids: readonly string[]): Promise<void> {
  const each = <T>(call: (sid: string) => Promise<T>) => Promise.all(sids.map(call));
  const setForeign = (sid: string) => store.set(sid, sessionWith({ user: 'ada' }));
  const setGenerated = (sid: string) =>
    store.set(sid, Object.assign(generated(store, sid), { user: 'ada' }));

  await each(setGenerated);
  // Now each has a row to overwrite.
  await each(setGenerated);
  await each(setForeign);
  const requests = await each((sid) => loaded(store, sid));
  await Promise.all(requests.map((session) => store.touch(session.id, ending(session))));
  await Promise.all(
    requests.map((session) => store.set(session.id, Object.assign(session, { n: 1 }))),
  );
  await each((sid) => store.touch(sid, sessionWith()));
  await each((sid) => store.destroy(sid));
  // Now each is a tombstone.
  await each(setForeign);
  await store.revokeUser('ada');
  await store.ids();
  for await (const _ of store.sessions()) break;
  for await (const _ of store.sessions({ userId: 'ada' })) break;
}

function insertSessions(prefix: string, count: number): Promise<unknown> {
  return database.query(
    `insert into sessions (id, user_id, data, expires_at)
     select md5($1 || n) || md5($1 || n), 'user ' || n,
       json_build_object('cookie', '{}'::json, 'text', repeat(md5($1 || n), 6)),
       now() + interval '1 day'
     from generate_series(1, $2::int) as n`,
    [prefix, count],
  );
}

test.each([
  ['an empty table', 0, false],
  ['a small table that was never analysed', 250, false],
  ['a small table that was analysed', 250, true],
])('a plan made for %s does not read all of a large one', async (_, rows, isAnalysed) => {
  const pool = database.pool({ max: 1 });
  const store = await database.store(
    { userId: (of) => Reflect.get(of, 'user'), maxSessionsPerUser: 5, touchAfter: 0 },
    pool,
  );
  await database.query('alter table sessions set (autovacuum_enabled = false)');
  await insertSessions('first', rows);
  if (isAnalysed) await database.query('analyze sessions');
  // Twice as often as needed: on a busy machine, a batch may be split into single calls.
  for (let call = 0; call < 2 * CALLS_UNTIL_A_PLAN_IS_KEPT; call += 1) {
    await sendAll(store, [`alone ${call}`]);
    await sendAll(store, [`a ${call}`, `b ${call}`, `c ${call}`]);
  }
  await insertSessions('then', 5_000);

  const { rows: prepared } = await pool.query<{ name: string; kind: string; parameters: number }>(
    `select name, substring(name from '^connect_drizzle_(.*)_.{16}$') as kind,
       cardinality(parameter_types) as parameters
     from pg_prepared_statements where generic_plans + custom_plans >= $1 order by kind`,
    [CALLS_UNTIL_A_PLAN_IS_KEPT],
  );
  const looking = prepared.filter(({ kind }) => STATEMENTS.includes(kind));
  expect(looking.map(({ kind }) => kind)).toEqual(STATEMENTS);
  for (const { name, kind, parameters } of looking) {
    const values = Array.from({ length: parameters }, () => `'0'`).join();
    const { rows: plan } = await pool.query<{ 'QUERY PLAN': string }>(
      `explain execute "${name}"(${values})`,
    );
    const lines = plan.map((row) => row['QUERY PLAN']).join('\n');
    expect(lines, kind).not.toMatch(/Seq Scan on sessions/);
    expect(lines, kind).toMatch(/Index|Tid Scan/);
  }
});
