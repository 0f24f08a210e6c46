import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DrizzleStore, type DrizzleStoreOptions, idOf, StoreClosedError } from 'connect-drizzle';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { buildCli, type CliProgram, runHere } from '../support/cli.js';
import { freshDatabase, type TestDatabase } from '../support/database.js';
import { contentOf, sessionWith } from '../support/sessions.js';

const [older, newer] = ['11'.repeat(32), '22'.repeat(32)] as const;
type Keys = DrizzleStoreOptions['encryptionKeys'];

let program: CliProgram;
let folder: string;
let database: TestDatabase;
let logged: string[];
const undo: (() => unknown)[] = [];

beforeAll(async () => {
  [program, folder] = await Promise.all([
    buildCli(),
    mkdtemp(join(tmpdir(), 'connect-drizzle-rekey-')),
  ]);
});
afterAll(async () => {
  await program[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});
beforeEach(async () => {
  logged = [];
  database = await freshDatabase();
  undo.push(() => database.drop());
});
afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
});

async function open(
  encryptionKeys: Keys,
  options: DrizzleStoreOptions = {},
): Promise<DrizzleStore> {
  const store = new DrizzleStore(database.pool({ max: 4 }), {
    pruneSessionInterval: false,
    createTableIfMissing: true,
    errorLog: (message) => logged.push(message),
    ...(encryptionKeys && { encryptionKeys }),
    ...options,
  });
  undo.push(() => store.close());
  await store.ready();
  return store;
}

async function fill(store: DrizzleStore, count: number): Promise<void> {
  const sids = Array.from({ length: count }, (_, at) => `s${at}`);
  await Promise.all(sids.map((sid) => store.set(sid, sessionWith({ sid, count: 0 }))));
}

/** The number of sessions in each stored form: by the name of the key, or plain. */
async function forms(): Promise<Record<string, number>> {
  const rows = await database.query<{ form: string; count: number }>(
    `select case when data::text like '"1%' then left(data::text, 10) else 'plain' end as form,
       count(*)::int as count from sessions where revoked_at is null group by 1`,
  );
  return Object.fromEntries(rows.map(({ form, count }) => [form, count]));
}

async function config(keys: readonly string[]): Promise<string> {
  const file = join(folder, `${randomBytes(4).toString('hex')}.mjs`);
  await writeFile(file, `export default { encryptionKeys: ${JSON.stringify(keys)} };`);
  return file;
}

test('encrypts a table while two stores use it, although it is killed and resumed', async () => {
  const rows = 2000;
  await fill(await open(undefined), rows);
  const ours = await Promise.all([open([newer, 'plaintext']), open([newer, 'plaintext'])]);

  // The run waits at a row in the middle until this test releases the lock.
  const held = await database.pool({ max: 1 }).connect();
  await held.query('select pg_advisory_lock(42)');
  const [middle] = await database.query<{ id: string }>(
    `select id from sessions order by id offset ${rows / 2} limit 1`,
  );
  const middleId = middle?.id ?? '';
  await database.query(`create function stop() returns trigger language plpgsql as
    $$ begin perform pg_advisory_xact_lock(42); return new; end $$`);
  await database.query(`create trigger stop before update of data on sessions for each row
    when (old.id = '${middleId}') execute function stop()`);

  let isOver = false;
  const uses = new Map<string, number>();
  const use = async (store: DrizzleStore, offset: number) => {
    for (let at = offset; !isOver; at = (at + 7) % rows) {
      const sid = `s${at}`;
      if (idOf(sid) === middleId) continue;
      const saved = await store.update(sid, (data) => {
        Object.assign(data, { count: Number(Reflect.get(data, 'count')) + 1 });
      });
      if (saved === undefined) throw new Error(`${sid} is logged out`);
      uses.set(sid, (uses.get(sid) ?? 0) + 1);
    }
  };
  const using = Promise.all(ours.map((store, at) => use(store, at * 3)));

  const args = ['rekey', '--config', await config([newer, 'plaintext']), '--yes', '--json'];
  const env = { DATABASE_URL: database.url };
  const run = program.start(args, env);
  const blocked = `select from pg_stat_activity where wait_event = 'advisory' and datname = current_database()`;
  while ((await database.query(blocked)).length === 0);
  run.kill('SIGKILL');
  expect((await run.ended).code).toBe(null);
  const { plain = 0 } = await forms();
  expect(plain).toBeGreaterThan(0);
  expect(plain).toBeLessThan(rows);
  await held.query('select pg_advisory_unlock(42)');
  held.release();
  while ((await database.query(blocked)).length > 0);

  const resumed = await program.run(args, env);
  expect(resumed.stderr).toBe('');
  expect(JSON.parse(resumed.stdout)).toMatchObject({ unreadable: 0 });
  isOver = true;
  await using;
  expect(Object.values(await forms())).toEqual([rows]);
  expect(await forms()).not.toHaveProperty('plain');

  // Nobody is logged out and no change is lost, also for a store that reads only the new form.
  const strict = await open([newer]);
  for (let at = 0; at < rows; at += 1) {
    const sid = `s${at}`;
    expect(contentOf(await strict.get(sid))).toEqual({ sid, count: uses.get(sid) ?? 0 });
  }
  expect(logged).toEqual([]);
});

test('`store.rekey()` re-encrypts a table with the newest key, and decrypts it', async () => {
  await fill(await open([older]), 600);
  const expired = `update sessions set expires_at = now() - interval '1 hour' where id = $1`;
  await database.query(expired, [idOf('s1')]);
  const store = await open([newer, older]);
  const before = await forms();
  expect(await store.rekey()).toEqual({ rekeyed: 600, unreadable: 0 });
  expect(Object.keys(await forms())).not.toEqual(Object.keys(before));
  expect(Object.values(await forms())).toEqual([600]);
  expect(await store.rekey()).toEqual({ rekeyed: 0, unreadable: 0 });
  expect(contentOf(await (await open([newer])).get('s7'))).toEqual({ sid: 's7', count: 0 });

  expect(await (await open(['plaintext', newer])).rekey()).toEqual({ rekeyed: 600, unreadable: 0 });
  expect(await forms()).toEqual({ plain: 600 });
  expect(contentOf(await (await open(undefined)).get('s7'))).toEqual({ sid: 's7', count: 0 });
});

test('a request that loaded a session before can save it afterwards', async () => {
  await fill(await open([older]), 3);
  const store = await open([newer, older]);
  const session = await store.get('s1');
  await store.rekey();
  const version = `select version, xmin::text from sessions where id = '${idOf('s2')}'`;
  const [before] = await database.query(version);
  if (session === undefined) throw new Error('no session');
  await store.set('s1', Object.assign(session, { count: 9 }));
  expect(contentOf(await store.get('s1'))).toEqual({ sid: 's1', count: 9 });
  expect(await database.query(version)).toEqual([before]);
});

test('keeps a change that is made between its read and its write', async () => {
  await fill(await open(undefined), 2);
  const store = await open([newer, 'plaintext']);
  // This lock lets the run read, but not write.
  const holder = await database.pool({ max: 1 }).connect();
  await holder.query('begin');
  await holder.query('lock table sessions in share mode');
  const rekeying = store.rekey();
  const isWaiting = `select from pg_locks where relation = 'sessions'::regclass and database = (select oid from pg_database where datname = current_database()) and not granted`;
  while ((await database.query(isWaiting)).length === 0);
  await holder.query(
    `update sessions set version = version + 1, data = replace(data::text, '"count":0', '"count":5')::json
     where id = $1`,
    [idOf('s1')],
  );
  await holder.query('commit');
  holder.release();
  expect(await rekeying).toEqual({ rekeyed: 2, unreadable: 0 });
  expect(contentOf(await (await open([newer])).get('s1'))).toEqual({ sid: 's1', count: 5 });
});

test('encrypts a locked session in a later pass', async () => {
  await fill(await open(undefined), 2);
  const store = await open([newer, 'plaintext']);
  const holder = await database.pool({ max: 1 }).connect();
  await holder.query('begin');
  await holder.query('select from sessions where id = $1 for update', [idOf('s1')]);
  const rekeying = store.rekey();
  while ((await forms()).plain !== 1);
  await holder.query('commit');
  holder.release();
  expect(await rekeying).toEqual({ rekeyed: 2, unreadable: 0 });
  expect(await forms()).not.toHaveProperty('plain');
});

test('reports sessions that cannot be read and does not change them', async () => {
  await fill(await open(['33'.repeat(32)]), 2);
  await fill(await open([older]), 0);
  const store = await open([newer, older]);
  await store.set('fine', sessionWith());
  expect(await store.rekey()).toEqual({ rekeyed: 0, unreadable: 2 });
  expect(logged).toHaveLength(2);
  const run = await runHere(['rekey', '--yes', '--config', await config([newer, older])], {
    DATABASE_URL: database.url,
  });
  expect(run).toMatchObject({ code: 1, stdout: 'Encrypted 0 sessions. 2 cannot be read.\n' });
  for (const sid of ['s0', 's1'])
    expect(run.stderr).toContain(`Cannot read the session ${idOf(sid)}`);
});

test('a store without plaintext among its keys reads no plain session', async () => {
  await fill(await open(undefined), 1);
  const strict = await open([newer]);
  expect(await strict.get('s0')).toBeUndefined();
  expect(await strict.rekey()).toEqual({ rekeyed: 0, unreadable: 1 });
  expect(await forms()).toEqual({ plain: 1 });
  const store = await open(['plaintext', newer]);
  expect(contentOf(await store.get('s0'))).toEqual({ sid: 's0', count: 0 });
  await store.set('new', sessionWith());
  expect(await forms()).toEqual({ plain: 2 });
});

test('encrypts and decrypts sessions of a custom serializer', async () => {
  const serializer = {
    stringify: (value: object) => `1${JSON.stringify(value)}`,
    parse: (text: string): unknown => JSON.parse(text.slice(1)),
  };
  await fill(await open(undefined, { serializer }), 3);
  const store = await open([newer, 'plaintext'], { serializer });
  expect(contentOf(await store.get('s1'))).toEqual({ sid: 's1', count: 0 });
  expect(await store.rekey()).toEqual({ rekeyed: 3, unreadable: 0 });
  const strict = await open([newer], { serializer });
  expect(contentOf(await strict.get('s1'))).toEqual({ sid: 's1', count: 0 });
});

test('needs encryption keys, and ends when the store is closed', async () => {
  await fill(await open([older]), 1000);
  await expect((await open(undefined)).rekey()).rejects.toThrow('needs the option encryptionKeys');
  const store = await open([newer, older]);
  const rekeying = store.rekey();
  await store.close();
  await expect(rekeying).rejects.toThrow(StoreClosedError);
  const env = { DATABASE_URL: database.url };
  expect((await runHere(['rekey', '--yes'], env)).code).toBe(2);
  const file = await config([newer, older]);
  const dry = await runHere(['rekey', '--dry-run', '--json', '--config', file], env);
  const { found } = JSON.parse(dry.stdout);
  const run = await runHere(['rekey', '--yes', '--json', '--config', file], env);
  expect(JSON.parse(run.stdout)).toEqual({ dryRun: false, rekeyed: found, unreadable: 0 });
});
