import { createRequire } from 'node:module';
import { DrizzleStore, idOf } from 'connect-drizzle';
import session, { type SessionData, type Store } from 'express-session';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { buildCli, type CliProgram, runHere } from '../support/cli.js';
import { freshDatabase, type TestDatabase } from '../support/database.js';
import { contentOf, endOf, sessionWith } from '../support/sessions.js';

/** connect-pg-simple has no types of its own. */
const connectPgSimple: (
  library: typeof session,
) => new (
  options: object,
) => Store & { close(): Promise<void> } = createRequire(import.meta.url)('connect-pg-simple');

const hour = 3600;
let program: CliProgram;
let database: TestDatabase;
let store: DrizzleStore;
const undo: (() => unknown)[] = [];

beforeAll(async () => {
  program = await buildCli();
});
afterAll(() => program[Symbol.asyncDispose]());

/** Not `sessions`, which is a table of connect-pg-simple in some of the tests. */
const ourTable = 'web_sessions';

beforeEach(async () => {
  database = await freshDatabase({ settings: { TimeZone: 'America/St_Johns' } });
  undo.push(() => database.drop());
  store = new DrizzleStore(database.pool({ max: 4 }), {
    tableName: ourTable,
    pruneSessionInterval: false,
    userId: (data: Owned) => data.passport?.user,
  });
  undo.push(() => store.close());
  await store.migrate();
});

afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
});

type Owned = SessionData & { passport?: { user?: string | number } };

/** A store of connect-pg-simple with promises. */
async function peer({ table = 'session', json = 'json', timeZone }: PeerOptions = {}) {
  await database.query(`create table ${table} (sid varchar not null primary key, sess ${json} not null,
    expire timestamp(6) not null)`);
  const PgStore = connectPgSimple(session);
  const options = timeZone === undefined ? {} : { options: `-c TimeZone=${timeZone}` };
  const pool = database.pool(options);
  const old = new PgStore({ pool, tableName: table, pruneSessionInterval: false });
  undo.push(() => old.close());
  return {
    set: (sid: string, data: SessionData) =>
      new Promise<void>((resolve, reject) => {
        old.set(sid, data, (error) => (error ? reject(error) : resolve()));
      }),
    destroy: (sid: string) => new Promise<void>((resolve) => old.destroy(sid, () => resolve())),
  };
}

interface PeerOptions {
  readonly table?: string;
  readonly json?: 'json' | 'jsonb';
  readonly timeZone?: string;
}

const always = ['--from', 'connect-pg-simple', '--table', ourTable, '--json'];

async function importing(...args: string[]) {
  const { code, stdout, stderr } = await runHere(['import', ...always, ...args], {
    DATABASE_URL: database.url,
  });
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

const withUser = ['--user-path', 'passport.user', '--yes'];

async function contents(...sids: string[]) {
  const found = await Promise.all(sids.map((sid) => store.get(sid)));
  return found.map(contentOf);
}

describe.each<[string, PeerOptions & { zone?: string }]>([
  ['json in session', {}],
  ['jsonb in sessions', { table: 'sessions', json: 'jsonb' }],
  ['another time zone', { timeZone: 'Asia/Kathmandu', zone: 'Asia/Kathmandu' }],
  ['jsonb and UTC', { json: 'jsonb', timeZone: 'UTC', zone: 'UTC' }],
])('%s', (_, { zone, ...options }) => {
  test('keeps content, expiry, log-in time and owner of each session', async () => {
    const old = await peer(options);
    const data = sessionWith(
      { passport: { user: 'ada' }, cart: [1, null, 'é🙈', { a: '"\\' }] },
      hour,
    );
    await old.set('sid', data);
    await old.set('number', sessionWith({ passport: { user: 7 } }, hour));
    await old.set('anonymous', sessionWith({ visits: 1 }, hour));
    const source = options.table === undefined ? [] : ['--source-table', options.table];
    const zones = zone === undefined ? [] : ['--source-timezone', zone];
    const result = await importing(...withUser, ...source, ...zones);
    expect(result).toMatchObject({ inserted: 3, updated: 0, revoked: 0 });
    expect(await contents('sid', 'anonymous')).toEqual([contentOf(data), { visits: 1 }]);
    // connect-pg-simple rounds up to a second.
    const late = (endOf(await store.get('sid')) ?? 0) - (endOf(data) ?? 0);
    expect(late).toBeGreaterThanOrEqual(0);
    expect(late).toBeLessThan(1000);
    for await (const { createdAt } of store.sessions({ userId: 'ada' })) {
      expect(Math.abs(createdAt.getTime() - Date.now())).toBeLessThan(120_000);
    }
    expect(await store.revokeUser('ada')).toBe(1);
    expect(await store.revokeUser(7)).toBe(1);
  });
});

test('sets `created_at` to the expiry minus the lifetime, and never to the future', async () => {
  const old = await peer();
  await old.set('day', sessionWith({}, 24 * hour));
  await old.set('browser', sessionWith({}, null));
  await database.query(`update session set expire = expire - interval '5 hours' where sid = 'day'`);
  await database.query(`insert into session values
    ('odd age', '{"cookie":{"originalMaxAge":"x"}}', now() + interval '1 hour'),
    ('huge age', '{"cookie":{"originalMaxAge":1e300}}', now() + interval '1 hour'),
    ('negative', '{"cookie":{"originalMaxAge":-5}}', now() + interval '1 hour'),
    ('no object', '[1]', now() + interval '1 hour')`);
  expect(await importing(...withUser)).toMatchObject({ inserted: 6 });
  const rows = await database.query<{ id: string; hours: number; future: boolean }>(
    `select id, round(extract(epoch from now() - created_at) / 3600)::int as hours, created_at > now() as future
     from ${ourTable}`,
  );
  const hours = new Map(rows.map((row) => [row.id, row.hours]));
  expect(hours.get(idOf('day'))).toBe(5);
  expect(hours.get(idOf('browser'))).toBe(0);
  expect(hours.get(idOf('odd age'))).toBe(0);
  expect(hours.get(idOf('negative'))).toBe(0);
  expect(rows.filter(({ future }) => future)).toEqual([]);
});

test.each(['on', 'off'])(
  'finds the owner also in content that Postgres cannot parse, with standard_conforming_strings %s',
  async (setting) => {
    await database.query(
      `alter database ${database.name} set standard_conforming_strings = ${setting}`,
    );
    const old = await peer();
    const texts = ['a\0b', 'lone \ud800', 'an escaped \\u0000'];
    for (const [at, text] of texts.entries()) {
      await old.set(`${at}`, sessionWith({ passport: { user: `user ${at}` }, text }, hour));
    }
    await old.set('bad user', sessionWith({ passport: { user: 'a\0b' } }, hour));
    expect(await importing(...withUser)).toMatchObject({ inserted: 4 });
    for (const [at, text] of texts.entries()) {
      expect(await contents(`${at}`)).toEqual([{ passport: { user: `user ${at}` }, text }]);
      expect(await store.revokeUser(`user ${at}`)).toBe(1);
    }
    expect(await store.length()).toBe(1);
  },
);

test('a second run copies the changes of the old app and keeps those of the new one', async () => {
  const old = await peer();
  const names = ['there', 'here', 'both', 'ended here', 'longer', 'same'];
  for (const name of names) await old.set(name, sessionWith({ at: 0 }, hour));
  await database.query(`insert into session values ('expired', '{}', now() - interval '1 minute')`);
  expect(await importing(...withUser)).toMatchObject({ inserted: 6 });
  for (const name of ['there', 'both']) await old.set(name, sessionWith({ at: 'there' }, hour));
  for (const name of ['here', 'both']) {
    await store.update(name, (data) => void Object.assign(data, { at: 'here' }));
  }
  await store.destroy('ended here');
  await database.query(
    `update session set expire = expire + interval '1 hour' where sid = 'longer'`,
  );
  await old.set('late', sessionWith({ at: 'late' }, hour));
  expect(await importing(...withUser)).toMatchObject({ inserted: 1, updated: 1 });
  expect(await contents('there', 'here', 'both', 'ended here', 'late')).toEqual([
    { at: 'there' },
    { at: 'here' },
    { at: 'here' },
    undefined,
    { at: 'late' },
  ]);
  const left = ((endOf(await store.get('longer')) ?? 0) - Date.now()) / 1000;
  expect(left).toBeGreaterThan(1.5 * hour);
  // It stays ended after its tombstone was deleted, also if the old app writes to it once more.
  await old.set('ended here', sessionWith({ at: 'there' }, hour));
  await database.query(`delete from ${ourTable} where id = $1`, [idOf('ended here')]);
  expect(await importing(...withUser)).toMatchObject({ inserted: 0, updated: 0 });
  expect(await store.get('ended here')).toBeUndefined();
});

test('copies a session again if its copy has expired and the old app has used it since', async () => {
  const old = await peer();
  for (const name of ['pruned', 'there']) await old.set(name, sessionWith({ name }, hour));
  await importing(...withUser);
  const record = `${ourTable}_connect_drizzle_import`;
  for (const table of [ourTable, record]) {
    await database.query(`update ${table} set expires_at = now() - interval '1 hour'`);
  }
  await database.query(`delete from ${ourTable} where id = $1`, [idOf('pruned')]);
  expect(await importing(...withUser)).toMatchObject({ inserted: 1 });
  expect(await contents('pruned', 'there')).toEqual([{ name: 'pruned' }, { name: 'there' }]);
});

test('--final revokes the sessions that were logged out in the old app, and no others', async () => {
  const old = await peer();
  const names = ['stays', 'logged out', 'changed here, logged out there', 'expired there'];
  for (const name of names) await old.set(name, sessionWith({}, hour));
  await store.set('native', sessionWith({}, hour));
  await importing(...withUser);
  await store.update(names[2] ?? '', (data) => void Object.assign(data, { page: 2 }));
  for (const name of names.slice(1, 3)) await old.destroy(name);
  // The old app has pruned a session that is still live in the new one.
  const record = `${ourTable}_connect_drizzle_import`;
  await database.query(
    `update ${record} set expires_at = now() - interval '1 minute' where id = $1`,
    [idOf('expired there')],
  );
  await old.destroy('expired there');
  await old.set('new', sessionWith({}, hour));
  expect(await importing(...withUser, '--final')).toMatchObject({ inserted: 1, revoked: 2 });
  const live = ['stays', 'expired there', 'native', 'new'].map(idOf).sort();
  expect((await store.ids()).sort()).toEqual(live);
  expect(await database.query('select to_regclass($1) as name', [record])).toEqual([
    { name: null },
  ]);
});

test('--final locks the source while it copies the rest', async () => {
  const old = await peer();
  await old.set('a', sessionWith({ at: 0 }, hour));
  // The run cannot lock the source before this transaction has ended.
  const writer = await database.pool({ max: 1 }).connect();
  await writer.query('begin');
  await writer.query(`delete from session where sid = 'a'`);
  const final = importing(...withUser, '--final');
  const isWaiting = `select from pg_locks where relation = 'session'::regclass and database = (select oid from pg_database where datname = current_database()) and not granted`;
  while ((await database.query(isWaiting)).length === 0);
  const set = old.set('b', sessionWith({ at: 1 }, hour));
  await writer.query('commit');
  writer.release();
  expect(await final).toMatchObject({ inserted: 1, revoked: 1 });
  await set;
  // The write of the old app was too late: nobody reads its table any more.
  expect(await store.get('a')).toBeUndefined();
});

test('--dry-run changes nothing', async () => {
  const old = await peer();
  await old.set('a', sessionWith({}, hour));
  await old.set('b', sessionWith({}, hour));
  expect(await importing('--dry-run')).toMatchObject({ live: 2, copied: 0 });
  expect(await store.length()).toBe(0);
  await importing('--yes');
  await old.set('c', sessionWith({}, hour));
  expect(await importing('--dry-run')).toMatchObject({ live: 3, copied: 2 });
});

test('refuses an unusable source or time zone, or to run without consent, in one line', async () => {
  await database.query('create view seen as select 1 as sid, 2 as sess, 3 as expire');
  await database.query('create table other (sid text, expire int)');
  const refused: [string[], RegExp][] = [
    [['--source-table', 'none'], /The table none cannot be copied: it does not exist/],
    [['--source-table', 'seen'], /it is not an ordinary table/],
    [
      ['--source-table', 'other'],
      /it is not a table of connect-pg-simple, because it lacks sess$/m,
    ],
    [['--source-table', ourTable], /because it lacks sid, sess, expire/],
  ];
  for (const [args, message] of refused) {
    await expect(importing(...withUser, ...args)).rejects.toThrow(message);
  }
  await peer();
  const zone = importing(...withUser, '--source-timezone', 'Mars/Base');
  await expect(zone).rejects.toThrow('does not know the time zone Mars/Base');
  await expect(importing()).rejects.toThrow('Pass --yes to agree');
});

test('copies 20,000 sessions, although it is killed and resumed while the old app saves and ends some', async () => {
  const old = await peer();
  await database.query(`insert into session
    select 's' || n, json_build_object('cookie', json_build_object('originalMaxAge', 3600000, 'path', '/'),
      'passport', json_build_object('user', 'u' || n % 100), 'n', n, 'text', repeat('x', 1500)),
      now() + interval '1 hour' from generate_series(1, 20000) n`);
  // The run waits in the middle for a row that this transaction holds.
  const holder = await database.pool({ max: 1 }).connect();
  await holder.query('begin');
  await holder.query(
    `insert into ${ourTable} (id, data, expires_at) values ($1, '{}', now() + interval '1 day')`,
    [idOf('s15000')],
  );
  const args = ['import', ...always, ...withUser];
  const run = program.start(args, { DATABASE_URL: database.url });
  const blocked = `select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`;
  while ((await database.query(blocked)).length === 0);
  const copied = await store.length();
  expect(copied).toBeGreaterThan(5000);
  expect(copied).toBeLessThan(15_000);
  run.kill('SIGKILL');
  expect((await run.ended).code).toBe(null);
  await holder.query('rollback');
  holder.release();
  while ((await database.query(blocked)).length > 0);

  await old.set('s1', sessionWith({ n: 'changed there' }, hour));
  await old.set('s19999', sessionWith({ n: 'changed there' }, hour));
  await store.update('s2', (data) => void Object.assign(data, { n: 'changed here' }));
  await old.set('s2', sessionWith({ n: 'changed there' }, hour));
  await old.destroy('s3');
  await old.destroy('s20000');
  await store.destroy('s4');
  await old.set('new', sessionWith({ n: 'new' }, hour));
  const resumed = await program.run(args, { DATABASE_URL: database.url });
  expect(resumed.stderr).toBe('');
  const { inserted, updated } = JSON.parse(resumed.stdout);
  expect(updated).toBe(1);
  // s3 was copied before the old app deleted it; only s20000 is missing, and "new" was added.
  expect(copied + inserted).toBe(20_000);

  await old.destroy('s5');
  const final = await program.run([...args, '--final'], { DATABASE_URL: database.url });
  expect(JSON.parse(final.stdout)).toMatchObject({ inserted: 0, revoked: 2 });
  expect(await store.length()).toBe(20_000 - 4 + 1);
  const ns = await contents('s1', 's2', 's3', 's4', 's5', 's6', 's19999', 's20000', 'new');
  expect(ns.map((each) => each && Reflect.get(each, 'n'))).toEqual([
    'changed there',
    'changed here',
    undefined,
    undefined,
    undefined,
    6,
    'changed there',
    undefined,
    'new',
  ]);
  expect(await store.revokeUser('u6')).toBe(200);
});
