import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { DrizzleStore, type DrizzleStoreOptions, idOf } from 'connect-drizzle';
import type { SessionData } from 'express-session';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { main } from '../../src/cli/main.js';
import { buildCli, type CliProgram, type CliRun, runHere } from '../support/cli.js';
import { freshDatabase, type TestDatabase } from '../support/database.js';
import { sessionWith } from '../support/sessions.js';
import { otherTables } from '../support/tables.js';

type Owned = SessionData & { user?: string };

let database: TestDatabase;
let program: CliProgram;
let folder: string;
const undo: (() => unknown)[] = [];
let tables = 0;

beforeAll(async () => {
  [database, program, folder] = await Promise.all([
    freshDatabase(),
    buildCli(),
    mkdtemp(join(tmpdir(), 'connect-drizzle-cli-')),
  ]);
});

afterAll(async () => {
  for (const each of undo.splice(0).reverse()) await each();
  await database.drop();
  await program[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Creates a store on its own table, and functions that run commands on that table. */
async function setUp(run: CliProgram['run'], options: DrizzleStoreOptions = {}) {
  tables += 1;
  const table = `sessions_${tables}`;
  const store = new DrizzleStore(database.pool({ max: 4 }), {
    tableName: table,
    pruneSessionInterval: false,
    userId: (session: Owned) => session.user,
    errorLog: () => {},
    ...options,
  });
  undo.push(() => store.close());
  const isListening = new Promise((resolve) => store.once('sync', resolve));
  await store.migrate();
  const cli = (...args: string[]) =>
    run([...args, '--table', table], { DATABASE_URL: database.url });
  /** The JSON that a command prints. */
  const json = async (...args: string[]) => {
    const { code, stdout, stderr } = await cli(...args, '--json');
    expect(stderr).toBe('');
    expect(code).toBe(0);
    return JSON.parse(stdout);
  };
  const live = async () => (await store.ids()).sort();
  return { table, store, cli, json, live, isListening };
}

const ids = (...sids: string[]) => sids.map(idOf).sort();

/** A sid whose id begins with `-`. */
const dashed = Array.from({ length: 1000 }, (_, at) => `sid ${at}`).find((sid) =>
  idOf(sid).startsWith('-'),
);
const dashedSid = dashed ?? '';

/** Everything that a terminal could act on, apart from line breaks. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for
const controls = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

const evil = 'eve\u001b[2J\u009b31m\u202e\u0007\r\nroot';

function failed(run: CliRun, code: number, message: RegExp | string): void {
  expect(run.stderr).toMatch(message);
  expect(run.stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(run.stdout).toBe('');
  expect(run.code).toBe(code);
}

const runners: [string, CliProgram['run']][] = [
  ['the program', (args, env) => program.run(args, env)],
  ['main()', runHere],
];

describe.each(runners)('%s', (_, run) => {
  test('prints help with examples for each command, without a database', async () => {
    const overview = await run(['--help']);
    expect(overview).toMatchObject({ code: 0, stderr: '' });
    const names = [...overview.stdout.matchAll(/^ {2}(\w+) {2,}/gm)].map(([, name = '']) => name);
    expect(names).toEqual([
      'status',
      'migrate',
      'sql',
      'list',
      'show',
      'users',
      'revoke',
      'prune',
      'export',
      'watch',
      'import',
      'rekey',
    ]);
    const helps = await Promise.all(names.slice(0, 4).map((name) => run([name, '--help'])));
    for (const [at, help] of helps.entries()) {
      expect(help).toMatchObject({ code: 0, stderr: '' });
      expect(help.stdout).toContain(`Examples:\n  connect-drizzle ${names[at]}`);
      for (const line of help.stdout.split('\n')) expect(line.length).toBeLessThan(120);
    }
    expect((await run(['help', 'revoke'])).stdout).toContain('--except-newest');
  });

  test('refuses wrong arguments with exit code 2 before it connects', async () => {
    const env = { DATABASE_URL: 'postgres://nobody:secret@127.0.0.1:1/none' };
    const [id = ''] = ids('any');
    const wrong: [string[], RegExp][] = [
      [['lits'], /there is no such command; the commands are status, /],
      [['--url', 'x', 'list'], /the command must be first/],
      [['list', '--limt', '3'], /Unknown option '--limt'/],
      [['list', '--limit', '0'], /--limit must be a whole number from 1 to/],
      [['list', '--after', 'x'], /--after must be a cursor/],
      [['list', 'extra'], /unexpected argument 'extra'/],
      [['list', '--user', ''], /--user is empty/],
      [['revoke', '--user='], /--user is empty/],
      [['revoke', '--user', '', '--yes'], /--user is empty/],
      [['export', '--user', ''], /--user is empty/],
      [['revoke'], /either ids, --user or --all/],
      [['revoke', '--all', '--user', 'ada', '--yes'], /either ids, --user or --all/],
      [['revoke', id, '--all', '--yes'], /either ids, --user or --all/],
      [['revoke', '--all', '--keep', id], /need --user/],
      [['revoke', '--user', 'a', '--keep', id, '--except-newest'], /exclude each other/],
      [['revoke', '--user', 'a', '--keep', 'x'], /--keep must be a session id/],
      [['revoke', 's3cret-sid'], /an argument is not a session id/],
      ...['noon', '24:00', '14:60', '2026-02-30', '2026-02-29T14:00Z', '2026-05-04 (x)'].map(
        (time): [string[], RegExp] => [
          ['revoke', '--all', '--created-before', time, '--yes'],
          /--created-before must be a time/,
        ],
      ),
      [['show'], /show takes one id/],
      [['import', '--from', 'redis'], /--from must be connect-pg-simple or connect-pg-pool/],
      [['import', '--from', 'connect-pg-simple', '--user-path', 'a..b'], /--user-path must be/],
    ];
    for (const [args, message] of run === runHere ? wrong : wrong.slice(0, 8)) {
      const result = await run(args, env);
      failed(result, 2, message);
      expect(result.stderr).not.toContain('s3cret-sid');
    }
    failed(await run(['list']), 2, /Pass --url or set DATABASE_URL/);
    failed(await run(['list', '--url', 'mysql://x']), 2, /must be a Drizzle database/);
  });

  test('prints one line with host and port, without password and stack, if there is no server', async () => {
    const url = 'postgres://ada:s3cret%21@127.0.0.1:1/shop';
    const result = await run(['status'], { DATABASE_URL: url });
    failed(
      result,
      5,
      /^connect-drizzle: The connection to the database at 127\.0\.0\.1:1 failed: .* \(ECONNREFUSED\)\n$/,
    );
    expect(result.stderr).not.toContain('s3cret');
    const wrongUser = new URL(database.url);
    wrongUser.password = 'wrong-password';
    const refused = await run(['status', '--url', wrongUser.href]);
    failed(refused, 5, /the user or the password was refused \(28P01\)/);
    const noPassword = new URL(database.url);
    noPassword.password = '';
    // Not in this process: node-postgres leaves the connection open until the server closes it.
    const asked = await program.run(['status', '--url', noPassword.href]);
    failed(asked, 5, /The connection .* failed: the server requires a password, but there is none/);
    expect(refused.stderr).not.toContain('wrong-password');
    const noDatabase = new URL(database.url);
    noDatabase.pathname = '/nowhere';
    failed(await run(['list', '--url', noDatabase.href]), 5, /the database does not exist/);
  });

  test('exits with code 3 if there is no table, which `migrate` creates once', async () => {
    const env = { DATABASE_URL: database.url };
    tables += 1;
    const table = ['--table', `new_${tables}`, '--schema', `schema_${tables}`];
    expect(await run(['status', ...table], env)).toMatchObject({
      code: 3,
      stdout: expect.stringMatching(/state +missing: create it with `connect-drizzle migrate`/),
    });
    for (const name of ['list', 'prune']) {
      failed(await run([name, ...table], env), 3, /does not exist\. Create it with/);
    }
    const dry = await run(['migrate', '--dry-run', ...table], env);
    expect(dry.stdout).toContain('CREATE TABLE "schema_');
    expect((await run(['status', ...table], env)).code).toBe(3);
    expect(await run(['migrate', ...table], env)).toMatchObject({
      code: 0,
      stderr: '',
      stdout: expect.stringContaining('Created the table'),
    });
    expect((await run(['migrate', ...table], env)).stdout).toContain('is up to date');
    expect(await run(['status', ...table], env)).toMatchObject({ code: 0 });
  });

  test('`list` shows the newest first, page by page, and never session data', async () => {
    const { store, table, cli, json } = await setUp(run);
    const sids = ['a', 'b', 'c', 'd', 'e'];
    for (const sid of sids)
      await store.set(sid, sessionWith({ user: sid < 'c' ? 'ada' : 'bob', token: 't0ken' }));
    // Two were created at one time.
    await database.query(
      `update ${table} set created_at = (select min(created_at) from ${table})
      where id = any($1)`,
      [ids('a', 'b')],
    );
    const all = await json('list');
    expect(all.next).toBe(null);
    const listed = all.sessions.map(({ id }: { id: string }) => id);
    expect(listed.slice(0, 3)).toEqual(['e', 'd', 'c'].map(idOf));
    expect(listed.slice(3).sort()).toEqual(ids('a', 'b'));
    const paged: string[] = [];
    for (let after: string | null = null; ; ) {
      const page: { sessions: { id: string }[]; next: string | null } = await json(
        'list',
        '--limit=2',
        ...(after === null ? [] : [`--after=${after}`]),
      );
      paged.push(...page.sessions.map(({ id }) => id));
      after = page.next;
      if (after === null) break;
    }
    expect(paged).toEqual(listed);
    const text = await cli('list', '--user', 'ada', '--limit', '1');
    expect(text.stdout.trimEnd().split('\n')).toHaveLength(2);
    expect(text.stderr).toMatch(/^More: --after \d+\.\S{43}\n$/);
    const lines = (await cli('list', '--jsonl')).stdout.trimEnd().split('\n');
    expect(lines.map((line) => JSON.parse(line).id)).toEqual(listed);
    expect(JSON.stringify(all) + text.stdout).not.toContain('t0ken');
  });

  test('`export` prints all that is stored of a user, and what it cannot read', async () => {
    const key = '6'.repeat(64);
    const { store, json, cli, table } = await setUp(run, { encryptionKeys: [key] });
    for (const sid of ['a', 'b']) await store.set(sid, sessionWith({ user: 'ada', sid }));
    await store.set('c', sessionWith({ user: 'bob' }));
    await database.query(
      `update ${table} set expires_at = now() - interval '1 hour' where id = $1`,
      ids('b'),
    );
    const config = join(folder, `config-${tables}.mjs`);
    await writeFile(config, `export default { encryptionKeys: ['${key}'] };`);
    const { user, sessions } = await json('export', '--user', 'ada', '--config', config);
    expect(user).toBe('ada');
    const found = sessions.map(({ state, data }: { state: string; data: { sid: string } }) => [
      data.sid,
      state,
    ]);
    expect(found.sort()).toEqual([
      ['a', 'live'],
      ['b', 'expired'],
    ]);
    const blind = await cli('export', '--user', 'ada', '--jsonl');
    expect(blind.code).toBe(1);
    expect(blind.stderr).toContain('cannot be read');
    expect(blind.stdout.trimEnd().split('\n')).toHaveLength(2);
    failed(await cli('show', ...ids('a'), '--data'), 1, /cannot be read: .*encrypted/);
  });

  test('refuses a --config that it cannot use', async () => {
    const { cli } = await setUp(run);
    const wrong = join(folder, `wrong-${tables}.mjs`);
    await writeFile(wrong, 'export default 7;');
    failed(await cli('list', '--config', wrong), 2, /must export the store's options/);
    failed(await cli('list', '--config', './none.js'), 2, /cannot be loaded/);
    await writeFile(`${wrong}.json`, '{ "tablName": "x" }');
    failed(await cli('list', '--config', `${wrong}.json`), 2, /unknown option tablName/);
  });

  test('reads a --config that TypeScript has compiled to CommonJS', async () => {
    const { table } = await setUp(run);
    const file = join(folder, `compiled-${tables}.cjs`);
    await writeFile(
      file,
      `Object.defineProperty(exports, '__esModule', { value: true });
      exports.default = { tableName: '${table}' };`,
    );
    const env = { DATABASE_URL: database.url };
    expect((await run(['status', '--config', file], env)).stdout).toContain(`public.${table}`);
  });
});

// The tests above cover what a process adds: exit codes, both outputs, a configuration file.
describe('the command line:', () => {
  const run = runHere;

  test('exits with code 3 if the table is of an older version', async () => {
    const { table, cli } = await setUp(run);
    await database.query(`alter table ${table} drop column expires_hour`);
    failed(await cli('list'), 3, /older or incomplete version/);
    expect((await cli('status')).code).toBe(3);
    expect((await cli('status')).stdout).toMatch(/state +outdated/);
  });

  test('`status` shows a migration that has not run', async () => {
    const { cli, json } = await setUp(run);
    const { version } = await json('status');
    expect(version).toMatch(/^\d{4}_/);
    await database.query(
      `update __connect_drizzle_store set migration = 'x' where migration = $1
      and table_name = $2`,
      [version, `sessions_${tables}`],
    );
    const result = await cli('status');
    expect(result.code).toBe(3);
    expect(result.stdout).toContain(`the migration ${version} has not run`);
  });

  test('exits with code 4 and changes nothing if the table belongs to another package', async () => {
    tables += 1;
    const table = `foreign_${tables}`;
    const { owner, sql } = otherTables['connect-pg-simple'] ?? { owner: '', sql: '' };
    await database.query(
      sql.replaceAll('sessions', table).replace('session_pkey', `${table}_pkey`),
    );
    const env = { DATABASE_URL: database.url };
    const rows = () => database.query(`select * from ${table} order by 1`);
    const before = await rows();
    const status = await run(['status', '--table', table], env);
    expect(status.code).toBe(4);
    expect(status.stdout).toMatch(new RegExp(`owner +${owner}`));
    for (const args of [['list'], ['migrate'], ['prune'], ['revoke', '--all', '--yes']]) {
      failed(await run([...args, '--table', table], env), 4, `belongs to ${owner}`);
    }
    expect(await rows()).toEqual(before);
    await database.query(`drop table ${table}`);
  });

  test('exits with code 1 and prints the missing grant if there is no permission; a reader may list', async () => {
    const { table, store } = await setUp(run);
    await store.set('sid', sessionWith({ user: 'ada' }));
    const role = `reader_${database.name}_${tables}`;
    await database.query(`create role ${role} login password 'reader'`);
    undo.push(() => database.query(`drop owned by ${role}; drop role ${role}`));
    const url = new URL(database.url);
    url.username = role;
    url.password = 'reader';
    const as = (...args: string[]) => run([...args, '--table', table, '--url', url.href]);
    failed(await as('list'), 1, /.+/);
    failed(await as('prune'), 1, new RegExp(`grant select, insert, update, delete on ${table}`));
    await database.query(`grant select on ${table} to ${role}`);
    expect((await as('list')).stdout).toContain(idOf('sid'));
    failed(await as('revoke', '--user', 'ada', '--yes'), 1, /no permission to INSERT, UPDATE and/);
    expect(await store.length()).toBe(1);
  });

  test('`sql` prints statements that create a usable table, without a database', async () => {
    tables += 1;
    const name = `Plain "SQL" ${tables}`;
    const { stdout, code } = await run(['sql', '--table', name]);
    expect(code).toBe(0);
    await database.query(stdout);
    expect(await run(['status', '--table', name], { DATABASE_URL: database.url })).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('not recorded'),
    });
    expect((await run(['migrate', '--table', name], { DATABASE_URL: database.url })).code).toBe(0);
  });

  test('`status` counts sessions exactly or from a sample', async () => {
    const { store, table, json, cli } = await setUp(run);
    for (const sid of ['a', 'b', 'c']) await store.set(sid, sessionWith());
    await store.destroy('c');
    await database.query(
      `insert into ${table} (id, data, expires_at) values ('old', '{}', now() - interval '1 day')`,
    );
    const exact = await json('status', '--exact');
    expect(exact).toMatchObject({ live: 2, expired: 1, revoked: 1, estimated: false, drift: [] });
    expect(exact.bytes).toBeGreaterThan(8192);
    expect(Date.now() - Date.parse(exact.oldestAt)).toBeLessThan(600_000);
    expect(Date.now() - Date.parse(exact.expiredSince)).toBeGreaterThan(86_000_000);
    // So wide that the table has more pages than a sample reads.
    await database.query(`insert into ${table} (id, data, expires_at)
      select 'w' || n, to_json(repeat('x', 1500)), now() + interval '1 day' from generate_series(1, 8000) n`);
    const estimate = await json('status');
    expect(estimate.estimated).toBe(true);
    expect(estimate.live).toBeGreaterThan(4000);
    expect(estimate.live).toBeLessThan(12_000);
    expect((await cli('status')).stdout).toMatch(/^live +~\d/m);
    await database.query(`drop index ${table}_user_id_index`);
    expect((await cli('status')).stdout).toContain('the index on user_id is missing');
  });

  test('`show` prints a session in any state, and its data only with --data', async () => {
    const { store, cli, json } = await setUp(run);
    await store.set(dashedSid, sessionWith({ user: 'ada', token: 't0ken' }));
    const id = idOf(dashedSid);
    expect(id).toMatch(/^-/);
    expect((await cli('show', id)).stdout).not.toContain('t0ken');
    expect(await json('show', id)).toMatchObject({ id, state: 'live', userId: 'ada' });
    expect(await json('show', '--data', id)).toMatchObject({ data: { token: 't0ken' } });
    expect((await cli('show', id, '--data')).stdout).toContain('"token": "t0ken"');
    await store.revoke(id);
    expect(await json('show', id, '--data')).toMatchObject({ state: 'revoked', userId: null });
    failed(await cli('show', ...ids('nobody')), 1, /There is no session/);
  });

  test('prints the control characters of a session as escapes', async () => {
    const { store, cli, json } = await setUp(run);
    await store.set('sid', sessionWith({ user: evil, [evil]: evil }));
    const [id = ''] = ids('sid');
    const outputs = [
      await cli('list'),
      await cli('users'),
      await cli('show', id, '--data'),
      await cli('revoke', '--user', evil, '--dry-run'),
      await cli('export', '--user', evil),
      await cli('list', '--jsonl'),
    ];
    for (const { code, stdout, stderr } of outputs) {
      expect(code).toBe(0);
      expect(stdout + stderr).not.toMatch(controls);
      expect(stdout).toContain('eve\\u001b[2J');
    }
    expect((await json('show', id, '--data')).data[evil]).toBe(evil);
    expect((await json('list', '--user', evil)).sessions).toHaveLength(1);
  });

  test('`users` lists the users with the most live sessions', async () => {
    const { store, json, cli } = await setUp(run);
    const owners = ['ada', 'ada', 'ada', 'bob', 'bob', 'eve', undefined];
    await Promise.all(owners.map((user, at) => store.set(`${at}`, sessionWith({ user }))));
    await store.destroy('3');
    const { users } = await json('users', '--top');
    expect(users.map((each: object) => Object.values(each).slice(0, 2))).toEqual([
      ['ada', 3],
      ['bob', 1],
      ['eve', 1],
    ]);
    expect((await json('users', '--top', '1')).users).toHaveLength(1);
    expect((await cli('users')).stdout).toMatch(/^ada +3 /m);
  });

  test('`revoke` ends sessions by id, also ids that begin with a dash', async () => {
    const { store, cli, json, live } = await setUp(run);
    for (const sid of ['a', 'b', dashedSid]) await store.set(sid, sessionWith());
    const id = idOf(dashedSid);
    expect(await json('revoke', id, idOf('a'), '--dry-run')).toMatchObject({ revoked: 2 });
    expect(await live()).toHaveLength(3);
    expect(await json('revoke', id, idOf('a'), idOf('none'))).toEqual({
      dryRun: false,
      revoked: 2,
      notLive: ids('none'),
    });
    expect(await live()).toEqual(ids('b'));
    const again = await cli('revoke', id);
    expect(again.code).toBe(1);
    expect(again.stdout).toContain(`There is no live session ${id}`);
  });

  test.each([['--all'], ['--user', 'ada']])(
    '`revoke %s` does not end sessions that are created while it runs, so it ends on a busy site',
    async (...which) => {
      const { table, store, json, live } = await setUp(run);
      await store.set('a', sessionWith({ user: 'ada' }));
      await store.set('b', sessionWith({ user: 'ada' }));
      // Each log-out is followed by a log-in.
      await database.query(`
        create function log_in_${table}() returns trigger language plpgsql as $$ begin
          insert into ${table} (id, data, user_id, created_at, expires_at)
          values ('again ' || new.id, '{}', 'ada', now() + interval '1 s', now() + interval '1 h');
          return null;
        end $$;
        create trigger log_in after update on ${table} for each row
          when (old.revoked_at is null and new.revoked_at is not null)
          execute function log_in_${table}()`);
      expect(await json('revoke', ...which, '--yes')).toEqual({ dryRun: false, revoked: 2 });
      expect(await live()).toEqual(ids('a', 'b').map((id) => `again ${id}`));
    },
  );

  test('`revoke --user` can keep one session or the newest', async () => {
    const { store, cli, json, live, table } = await setUp(run);
    for (const sid of ['a', 'b', dashedSid]) await store.set(sid, sessionWith({ user: 'ada' }));
    await store.set('other', sessionWith({ user: 'bob' }));
    await database.query(
      `update ${table} set created_at = now() + interval '1 s' where id = $1`,
      ids('b'),
    );
    const kept = idOf(dashedSid);
    expect(await json('revoke', '--user', 'ada', '--keep', kept, '--dry-run')).toMatchObject({
      revoked: 2,
    });
    failed(await cli('revoke', '--user', 'ada'), 2, /Pass --yes to agree, or --dry-run/);
    expect(await live()).toHaveLength(4);
    await json('revoke', '--user', 'ada', '--except-newest', '--yes');
    expect(await live()).toEqual(ids('b', 'other'));
    await store.set('c', sessionWith({ user: 'ada' }));
    await json('revoke', '--user', 'ada', '--keep', idOf('c'), '--yes');
    expect(await live()).toEqual(ids('c', 'other'));
    expect(await json('revoke', '--user', 'nobody', '--yes')).toMatchObject({ revoked: 0 });
    const [row] = await database.query(
      `select data, user_id from ${table} where id = $1`,
      ids('a'),
    );
    expect(row).toEqual({ data: null, user_id: null });
  });

  test('`revoke --all` accepts times', async () => {
    const { store, json, live, table } = await setUp(run);
    const sids = ['old', 'middle', 'new'];
    for (const sid of sids) await store.set(sid, sessionWith());
    for (const [at, sid] of sids.entries()) {
      await database.query(`update ${table} set created_at = $1, last_seen_at = $1 where id = $2`, [
        `2026-01-0${at + 1}T12:00:00Z`,
        idOf(sid),
      ]);
    }
    const count = async (...args: string[]) =>
      (await json('revoke', '--all', '--dry-run', ...args)).revoked;
    expect(await count('--created-before', '2026-01-02T12:00:00Z')).toBe(1);
    expect(await count('--created-since', '2026-01-02T12:00:00Z')).toBe(2);
    expect(await count('--seen-since', '2026-01-03T13:00:00+01:00')).toBe(1);
    expect(await count('--created-before', '00:00')).toBe(3);
    expect(await count('--created-before', '9:05')).toBe(3);
    expect(await count('--created-before', '2026-01-03 00:00')).toBe(2);
    expect(await count()).toBe(3);
    const east = await program.run(
      ['revoke', '--all', '--dry-run', '--created-before', '2026-01-02', '--table', table],
      { DATABASE_URL: database.url, TZ: 'Pacific/Kiritimati' },
    );
    expect(east.stdout).toBe('Would revoke 0 sessions.\n');
    await json('revoke', '--all', '--created-since', '2026-01-02T12:00:00Z', '--yes');
    expect(await live()).toEqual(ids('old'));
    await json('revoke', '--all', '--yes');
    expect(await live()).toEqual([]);
  });

  test('`prune` deletes what has expired', async () => {
    const { store, json, live, table } = await setUp(run);
    await store.set('sid', sessionWith());
    await database.query(
      `insert into ${table} (id, data, expires_at)
       select n::text, '{}', now() - interval '2 hours' from generate_series(1, 6000) n`,
    );
    expect(await json('prune', '--dry-run')).toEqual({ dryRun: true, deleted: 6000 });
    expect(await json('prune')).toEqual({ dryRun: false, deleted: 6000 });
    expect(await live()).toEqual(ids('sid'));
    expect(await database.query(`select id from ${table}`)).toHaveLength(1);
  });
});

test('a store with `sync` gets events of the sessions that the command line ends', async () => {
  const { store, json, isListening } = await setUp(runHere, { sync: true });
  await isListening;
  for (const sid of ['a', 'b', 'c']) await store.set(sid, sessionWith({ user: 'ada' }));
  const heard: string[] = [];
  const all = new Promise<void>((resolve) => {
    store.on('destroy', ({ id, local }) => {
      expect(local).toBe(false);
      heard.push(id);
      if (heard.length === 3) resolve();
    });
  });
  await json('revoke', idOf('a'));
  await json('revoke', '--all', '--yes');
  await all;
  expect(heard.sort()).toEqual(ids('a', 'b', 'c'));
});

test('sessions that another transaction has locked are ended when it ends', async () => {
  const { store, table, json, live } = await setUp(runHere);
  for (const sid of ['a', 'b', 'c']) await store.set(sid, sessionWith({ user: 'ada' }));
  const holder = await database.pool({ max: 1 }).connect();
  await holder.query('begin');
  await holder.query(`select from ${table} where id = $1 for update`, ids('b'));
  const revoking = json('revoke', '--user', 'ada', '--yes');
  while ((await live()).length > 1) await new Promise((resolve) => setImmediate(resolve));
  await holder.query('commit');
  holder.release();
  expect(await revoking).toEqual({ dryRun: false, revoked: 3 });
  expect(await live()).toEqual([]);
});

test('`revoke --user` reads only the sessions of the user, through the index', async () => {
  await using fresh = await freshDatabase();
  const run = (...args: string[]) => runHere([...args, '--json'], { DATABASE_URL: fresh.url });
  /** How often the whole table was read. A connection publishes its counts when it ends. */
  const scans = async () => {
    const others = () =>
      fresh.query(`select from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()`);
    await expect.poll(others).toEqual([]);
    return fresh.query(`select seq_scan from pg_stat_user_tables where relname = 'sessions'`);
  };
  await run('migrate');
  await fresh.query(`insert into sessions (id, data, user_id, expires_at)
    select 'session ' || n, '{}', 'user ' || n, now() + interval '1 day' from generate_series(1, 20000) as n`);
  await fresh.query('analyze sessions');
  const before = await scans();
  expect(JSON.parse((await run('revoke', '--user', 'user 7', '--yes')).stdout).revoked).toBe(1);
  expect(await scans()).toEqual(before);
});

test('user ids of another SQL type work', async () => {
  const table = `accounts_${tables}`;
  await database.query((await runHere(['sql', '--table', table])).stdout);
  await database.query(`alter table ${table} alter user_id type integer using null`);
  await database.query(
    `insert into ${table} (id, data, user_id, expires_at)
    values ($1, '{}', 42, now() + interval '1 day')`,
    ids('sid'),
  );
  const run = (...args: string[]) =>
    runHere([...args, '--table', table, '--json'], { DATABASE_URL: database.url });
  expect(JSON.parse((await run('list', '--user', '42')).stdout).sessions).toHaveLength(1);
  expect(JSON.parse((await run('revoke', '--user', '42', '--yes')).stdout).revoked).toBe(1);
  for (const args of [['list'], ['export'], ['revoke', '--dry-run']]) {
    for (const user of ['ada', '99999999999']) {
      failed(await run(...args, '--user', user), 2, /--user must be a user id .* of type integer/);
    }
  }
});

test('user ids of a type with a name that SQL must quote work', async () => {
  const table = `members_${tables}`;
  await database.query((await runHere(['sql', '--table', table])).stdout);
  await database.query(`create type "Member" as enum ('ada', 'bob')`);
  await database.query(`alter table ${table} alter user_id type "Member" using null`);
  await database.query(
    `insert into ${table} (id, data, user_id, expires_at)
    values ($1, '{}', 'ada', now() + interval '1 day')`,
    ids('sid'),
  );
  const run = (...args: string[]) =>
    runHere([...args, '--table', table, '--json'], { DATABASE_URL: database.url });
  expect(JSON.parse((await run('list', '--user', 'ada')).stdout).sessions).toHaveLength(1);
  failed(await run('list', '--user', 'eve'), 2, /--user must be a user id .* of type "Member"/);
  expect(JSON.parse((await run('revoke', '--user', 'ada', '--yes')).stdout).revoked).toBe(1);
});

test('`export` prints one session at a time, because all of them may be too long for a string', async () => {
  const { store, table } = await setUp(runHere);
  const sids = Array.from({ length: 25 }, (_, at) => `sid ${at}`);
  for (const sid of sids) await store.set(sid, sessionWith({ user: 'ada', sid }));
  const printed = async (...args: string[]) => {
    const texts: string[] = [];
    await main(['export', '--table', table, ...args], {
      stdin: new PassThrough(),
      stdout: { write: (text) => texts.push(text) },
      stderr: { write: () => true },
      env: { DATABASE_URL: database.url },
    });
    for (const text of texts) expect(text.split('"sid":').length).toBeLessThan(3);
    return texts.join('');
  };
  const text = await printed('--user', 'ada');
  const exported = JSON.parse(text);
  const found: string[] = exported.sessions.map(({ id }: { id: string }) => id);
  expect(found.sort()).toEqual(ids(...sids));
  expect(text).toBe(`${JSON.stringify(exported, undefined, 2)}\n`);
  const lines = (await printed('--user', 'ada', '--jsonl')).trimEnd().split('\n');
  expect(lines.map((line) => JSON.parse(line))).toEqual(exported.sessions);
  const none = await printed('--user', 'nobody');
  expect(none).toBe(`${JSON.stringify(JSON.parse(none), undefined, 2)}\n`);
  expect(JSON.parse(none).sessions).toEqual([]);
});

test('only `migrate` creates an embedded database', async () => {
  const url = join(folder, 'typo');
  const project = join(folder, 'project');
  await mkdir(project);
  for (const command of [['list'], ['status'], ['prune'], ['migrate', '--dry-run']]) {
    failed(await runHere([...command, '--url', url]), 3, /The folder .*typo does not exist/);
    expect(existsSync(url)).toBe(false);
    failed(await runHere([...command, '--url', project]), 3, /project contains no database/);
    expect(await readdir(project)).toEqual([]);
  }
  expect((await runHere(['migrate', '--url', url])).stdout).toMatch(/^Created the table/);
});

test('a folder can be managed like a server', async () => {
  const url = join(folder, 'embedded');
  const run = (...args: string[]) => runHere([...args, '--url', url]);
  const store = new DrizzleStore(url, { pruneSessionInterval: false, timeout: 300 });
  await store.set('sid', sessionWith());
  failed(await run('list'), 1, /in use by process/);
  await store.close();
  expect((await run('revoke', idOf('sid'))).stdout).toBe('Revoked 1 session.\n');
});
