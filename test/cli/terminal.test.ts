import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { DrizzleStore, idOf } from 'connect-drizzle';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { buildCli, type CliProgram, noTerminal } from '../support/cli.js';
import { freshDatabase, type TestDatabase } from '../support/database.js';
import { sessionWith } from '../support/sessions.js';

// Pipes, terminals and signals.

let database: TestDatabase;
let program: CliProgram;
let store: DrizzleStore;
let env: Record<string, string>;

beforeAll(async () => {
  [database, program] = await Promise.all([freshDatabase(), buildCli()]);
  env = { DATABASE_URL: database.url };
  store = new DrizzleStore(database.pool({ max: 4 }), {
    pruneSessionInterval: false,
    createTableIfMissing: true,
  });
  await store.ready();
});

beforeEach(async () => {
  await store.clear();
  for (const sid of ['a', 'b', 'c']) await store.set(sid, sessionWith());
});

afterAll(async () => {
  await store.close();
  await database.drop();
  await program[Symbol.asyncDispose]();
});

const reason = noTerminal();
if (reason !== undefined) console.log(`The tests on a terminal are skipped: ${reason}`);

describe.skipIf(reason !== undefined)('on a terminal,', () => {
  test('a bulk write asks for consent, and does nothing without a yes', async () => {
    for (const answer of ['n', '', 'Y E S']) {
      const run = program.startOnTerminal(['revoke', '--all'], env);
      await run.prints(/Revoke 3 sessions in public\.sessions\? \[y\/N\] /);
      run.type(`${answer}\n`);
      const { code, stdout } = await run.ended;
      expect(stdout).toContain('Nothing was changed');
      expect(code).toBe(1);
    }
    expect(await store.length()).toBe(3);
  });

  test('a bulk write runs after a yes', async () => {
    const run = program.startOnTerminal(['revoke', '--all'], env);
    await run.prints(/\[y\/N\] /);
    run.type('yes\n');
    const { code, stdout } = await run.ended;
    expect(stdout).toContain('Revoked 3 sessions.');
    expect(code).toBe(0);
    expect(await store.length()).toBe(0);
  });

  test('a bulk write does not end sessions that are created while it asks', async () => {
    const alone = ['--user', 'ada', '--except-newest'];
    for (const args of [['--all'], alone]) {
      const run = program.startOnTerminal(['revoke', ...args], env);
      await run.prints(/\[y\/N\] /);
      await database.query(`insert into sessions (id, user_id, data, expires_at)
        values ('${idOf(args.join())}', 'ada', '{}', now() + interval '1 day')`);
      run.type('y\n');
      const { stdout } = await run.ended;
      expect(stdout).toContain(args === alone ? 'Revoked 0 sessions' : 'Revoked 3 sessions');
      expect(await store.ids()).toEqual([idOf(args.join())]);
      await store.clear();
    }
  });

  test('a bulk write with --yes does not ask, and shows a progress bar', async () => {
    const { code, stdout } = await program.startOnTerminal(['revoke', '--all', '--yes'], env).ended;
    expect(stdout).not.toContain('[y/N]');
    expect(stdout).toMatch(/Revoking \[=+\] 100 %, 3\/3 sessions, /);
    expect(code).toBe(0);
  });

  test('titles are bold unless NO_COLOR is set', async () => {
    const bold = '\u001b[1m';
    expect((await program.startOnTerminal(['list'], env).ended).stdout).toContain(bold);
    const plain = await program.startOnTerminal(['list'], { ...env, NO_COLOR: '1' }).ended;
    expect(plain.stdout).not.toContain('\u001b');
    expect(plain.stdout).toContain(idOf('a'));
  });
});

test('in a pipe, there is no question, no progress bar and no color', async () => {
  const refused = await program.run(['revoke', '--all'], env);
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain('Pass --yes to agree');
  expect(await store.length()).toBe(3);
  const { code, stdout, stderr } = await program.run(['revoke', '--all', '--yes'], env);
  expect({ code, stdout, stderr }).toEqual({
    code: 0,
    stdout: 'Revoked 3 sessions.\n',
    stderr: '',
  });
});

/** Runs the program in a shell, with redirections, and prints its exit code. */
function inShell(args: string, rest: string) {
  const command = `"${process.execPath}" "${program.file}" ${args} ${rest}; echo "code \${PIPESTATUS[0]}"`;
  return promisify(execFile)('bash', ['-c', command], { env: { ...process.env, ...env } });
}

test('in a pipe, a reader that closes it early is no error', async () => {
  await database.query(`insert into sessions (id, data, expires_at)
    select 'many ' || n, '{}', now() + interval '1 day' from generate_series(1, 5000) n`);
  const { stdout, stderr } = await inShell('list --limit 9000', '| head -n 1');
  expect(stdout).toMatch(/^id .*\ncode 0\n$/);
  expect(stderr).toBe('');
});

// A file that is open only for reading stands for a full disk.
test.each(['sql', 'list'])('a file that `%s` cannot write to is an error', async (name) => {
  const { stdout, stderr } = await inShell(name, `1< "${program.file}"`);
  expect(stdout).toBe('code 1\n');
  expect(stderr).toMatch(/^connect-drizzle: the output cannot be written: EBADF.*\n$/);
});

test('notes that cannot be written do not change the exit code', async () => {
  const { stdout } = await inShell('list --config missing.js', `2< "${program.file}"`);
  expect(stdout).toBe('code 2\n');
});

test('`watch` prints changes and log-outs of other processes until it is stopped', async () => {
  const announcing = new DrizzleStore(database.pool({ max: 2 }), {
    pruneSessionInterval: false,
    sync: true,
  });
  const run = program.start(['watch', '--jsonl'], env);
  await run.prints(/Watching public\.sessions/);
  await announcing.set('new', sessionWith());
  await announcing.destroy('new');
  await program.run(['revoke', idOf('a')], env);
  await run.prints(new RegExp(`"destroy","id":"${idOf('a')}"`));
  run.kill('SIGTERM');
  const { stdout } = await run.ended;
  const events = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(events.map(({ event, id }) => [event, id])).toEqual([
    ['change', idOf('new')],
    ['destroy', idOf('new')],
    ['destroy', idOf('a')],
  ]);
  await announcing.close();
});

test('`watch` reconnects after its connections were lost', async () => {
  const run = program.start(['watch'], env);
  await run.prints(/Watching public\.sessions/);
  await database.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid()`,
  );
  await run.prints(/Watching [\s\S]*connection was lost[\s\S]*Watching /);
  await program.run(['revoke', idOf('b')], env);
  await run.prints(new RegExp(`destroy +${idOf('b')}`));
  run.kill('SIGINT');
  await run.ended;
});

test('`watch` says why it cannot listen', async () => {
  const role = `watcher_${database.name}`;
  await database.query(`create role ${role} login password 'watcher' connection limit 1;
    grant select on sessions to ${role}`);
  const url = new URL(database.url);
  url.username = role;
  url.password = 'watcher';
  const run = program.start(['watch', '--url', url.href]);
  await run.prints(
    /Listening for session changes failed: .*too many connections.*\. Trying again\./,
  );
  run.kill('SIGKILL');
  await run.ended;
  await database.query(`drop owned by ${role} cascade; drop role ${role}`);
});
