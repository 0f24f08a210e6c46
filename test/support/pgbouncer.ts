import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { freePort } from './postgres.js';

/** The path of pgbouncer, if it is installed. */
export const pgbouncer = [
  '/usr/sbin/pgbouncer',
  '/usr/bin/pgbouncer',
  '/usr/local/bin/pgbouncer',
].find((path) => existsSync(path));

export interface Bouncer {
  /** The URL of the same database through the pooler. */
  readonly url: string;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts pgbouncer in front of a database. */
export async function startPgbouncer(
  databaseUrl: string,
  settings: Record<string, string | number> = {},
): Promise<Bouncer> {
  if (pgbouncer === undefined) throw new Error('pgbouncer is not installed');
  const { hostname, port: serverPort, username, password, pathname } = new URL(databaseUrl);
  const name = pathname.slice(1);
  const folder = await mkdtemp(join(tmpdir(), 'connect-drizzle-pgbouncer-'));
  const port = await freePort();
  const users = join(folder, 'users.txt');
  const config = join(folder, 'pgbouncer.ini');
  const lines = Object.entries({
    listen_addr: '127.0.0.1',
    listen_port: port,
    unix_socket_dir: '',
    auth_type: 'scram-sha-256',
    auth_file: users,
    pool_mode: 'transaction',
    ...settings,
  }).map(([key, value]) => `${key} = ${value}`);
  const target = {
    host: hostname,
    port: serverPort || 5432,
    dbname: name,
    user: username,
    password,
  };
  const database = Object.entries(target).map(([key, value]) => `${key}=${value}`);
  await writeFile(users, `"${username}" "${password}"\n`);
  await writeFile(
    config,
    `[databases]\n${name} = ${database.join(' ')}\n[pgbouncer]\n${lines.join('\n')}\n`,
  );
  // pgbouncer refuses to run as root.
  const isRoot = userInfo().uid === 0;
  if (isRoot)
    for (const [path, mode] of [
      [folder, 0o755],
      [users, 0o644],
      [config, 0o644],
    ] as const)
      await chmod(path, mode);
  const child = spawn(pgbouncer, [...(isRoot ? ['-u', 'nobody'] : []), config], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => {
      process.off('exit', kill);
      resolve();
    });
  });
  let output = '';
  await new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.includes('process up')) resolve();
    });
    void ended.then(() => reject(new Error(`pgbouncer ended:\n${output}`)));
  });
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  return {
    url: url.href,
    async [Symbol.asyncDispose]() {
      kill();
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
