#!/usr/bin/env node
/**
 * The server's CPU time per row, for the store's statements for one row and for 32 rows, compared with the plain statement
 * that a person would write by hand for the same effect. `node bench/server-cpu.js --help`.
 *
 * The statements are the store's own: a store runs on a pool, and the client of the pool records them. They are then sent again, with the
 * same values, on a single connection. The time is what the backend used: the nanoseconds on a CPU in
 * `/proc/<pid>/schedstat` (Linux only).
 *
 * - Before each round, the table is restored from a copy, vacuumed and analyzed. After the round, the changed rows are
 *   counted: a statement that changed nothing is an error.
 * - The statements take turns after a few rows, each on its own rows.
 * - `synchronous_commit` is off for all of them, so that the disk has no effect. The fill factor is 50, so that updates are
 *   HOT, as in a table in use.
 *
 * @module
 */
import { readFileSync } from 'node:fs';
import { resolve as resolvePath } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import session from 'express-session';
import pg from 'pg';
import { isPostgres } from './machine.js';
import { startPostgres } from './servers.js';
import { contents, MAX_AGE_SECONDS, NUMBER_PLACEHOLDER, numberText, sidOf } from './sessions.js';
import { median } from './stats.js';

const HELP = `node bench/server-cpu.js [options]: server CPU of the store's statements, compared with plain SQL

  --before folder    the dist folder of another version of connect-drizzle, to compare with
  --only a,b         operations: get, touch, save, create, put, end (all)
  --payload a,b      bytes of a session (200,2048)
  --rows n           rows of each statement in a round (512)
  --rounds n         number of interleaved rounds; the result is their median (7)
  --url url          a Postgres on this machine; its user must be allowed to create databases
  --help             print this text

Build first (npm run build) and install the packages (node scripts/install.js bench).
`;

const OPERATIONS = ['get', 'touch', 'save', 'create', 'put', 'end'];

/** Variants: plain, one row and many, and these two of another version. */
const MOST_VARIANTS = 5;

/** Rows in a batch. */
const MANY = 32;

/** Rows at the start of each run that are not measured, because the server plans again after the table is restored. */
const WARM_UP_ROWS = 2 * MANY;

/** Number of rows after which another variant has its turn. */
const ROWS_IN_TURN = 2 * MANY;

/** After its response, a backend still reports statistics before it sleeps. */
const SETTLE_MS = 2;

/** Numbers of sessions that do not exist before `create`. */
const NEW_FROM = 1_000_000;

/** Statements that a person would write by hand. Parameters: id, data, expiry, version; unused ones are omitted. */
const PLAIN = {
  get: {
    text: `select data::text, version, created_at, expires_at, user_id from sessions
           where id = $1 and revoked_at is null`,
    values: ({ id }) => [id],
  },
  touch: {
    text: `update sessions set last_seen_at = now(), expires_at = $2
           where id = $1 and revoked_at is null`,
    values: ({ id, expiry }) => [id, expiry],
  },
  save: {
    text: `update sessions set data = $2, version = version + 1, last_seen_at = now(), expires_at = $3
           where id = $1 and version = $4 and revoked_at is null returning version`,
    values: ({ id, data, expiry }) => [id, data, expiry, '1'],
  },
  create: {
    text: `insert into sessions (id, data, expires_at) values ($1, $2, $3) on conflict (id) do nothing`,
    values: ({ id, data, expiry }) => [id, data, expiry],
  },
  put: {
    text: `update sessions set data = $2, version = version + 1, last_seen_at = now(), expires_at = $3
           where id = $1 and revoked_at is null returning version`,
    values: ({ id, data, expiry }) => [id, data, expiry],
  },
  end: {
    text: `update sessions set data = null, user_id = null, version = version + 1, revoked_at = now(),
             expires_at = now() + interval '1 hour'
           where id = $1 and revoked_at is null`,
    values: ({ id }) => [id],
  },
};

/** All columns that are not generated. */
const COLUMNS = 'id, data, user_id, version, created_at, last_seen_at, expires_at, revoked_at';

/** @typedef {{ name: string, text: string, values: unknown[] }} Sent */

/**
 * @typedef {object} Variant
 * @property {string} name
 * @property {number} batch rows in a statement
 * @property {Sent[]} sent
 */

const log = (/** @type {string} */ line) => process.stderr.write(`${line}\n`);

const options = parseOptions(process.argv.slice(2));
if (options.help) process.stdout.write(HELP);
else await main();

async function main() {
  if (process.platform !== 'linux') throw new Error('This needs /proc, so it runs on Linux only');
  const postgres = await startPostgres({ url: options.url, cores: undefined });
  const open = [];
  try {
    const url = await postgres.createDatabase('server_cpu');
    const now = await openStore(url, new URL('../dist/index.js', import.meta.url));
    open.push(now);
    const before = options.before && (await openStore(url, options.before));
    if (before) open.push(before);
    const connection = await connect(url);
    open.push(connection);
    const rows = [];
    for (const bytes of options.payload) {
      await fill(connection.client, bytes);
      for (const operation of options.operations) {
        log(`${operation}, ${bytes} bytes`);
        const figures = await measure({ connection, now, before, operation, bytes });
        rows.push({ operation, bytes, ...figures });
      }
    }
    process.stdout.write(table(rows, postgres.version));
  } finally {
    for (const each of open.reverse()) await each.close();
    await postgres.stop();
  }
}

/** The rounds of all variants of one operation, in microseconds a row. */
async function measure({ connection, now, before, operation, bytes }) {
  const { client } = connection;
  /** @type {Variant[]} */
  const variants = [
    {
      name: 'plain',
      batch: 1,
      sent: plainStatements(now, operation, bytes, numbersOf(operation, 0)),
    },
  ];
  for (const [store, suffix] of [
    [now, ''],
    [before, ' before'],
  ]) {
    if (!store) continue;
    for (const batch of [1, MANY]) {
      const numbers = numbersOf(operation, variants.length);
      await restore(client);
      const sent = await record(store, operation, bytes, numbers, batch);
      variants.push({ name: `${batch === 1 ? 'one' : 'many'}${suffix}`, batch, sent });
    }
  }
  const results = new Map(variants.map(({ name }) => [name, /** @type {number[]} */ ([])]));
  // The first round is a warm-up.
  for (let round = 0; round <= options.rounds; round += 1) {
    await restore(client);
    const spent = await runInTurns(connection, variants, round);
    await checkEffect(client, operation, variants);
    if (round === 0) continue;
    for (const { name } of variants) {
      results.get(name)?.push((spent.get(name) ?? Number.NaN) / 1000 / options.rows);
    }
  }
  return Object.fromEntries(results);
}

/**
 * Sends the statements of all variants, some rows of each in turn. So if the machine is slow for some time, all variants
 * are slower.
 *
 * @param {{ client: pg.Client, pid: number }} connection
 * @param {readonly Variant[]} variants
 * @param {number} round
 * @returns {Promise<Map<string, number>>} nanoseconds of the backend's CPU time, by variant
 */
async function runInTurns({ client, pid }, variants, round) {
  const spent = new Map(variants.map(({ name }) => [name, 0]));
  for (let at = 0; at < WARM_UP_ROWS + options.rows; at += ROWS_IN_TURN) {
    for (let i = 0; i < variants.length; i += 1) {
      const { name, batch, sent } = variants[(i + round) % variants.length];
      const before = await cpuNanoseconds(pid);
      for (const statement of sent.slice(at / batch, (at + ROWS_IN_TURN) / batch)) {
        await client.query(statement);
      }
      const nanoseconds = (await cpuNanoseconds(pid)) - before;
      if (at >= WARM_UP_ROWS) spent.set(name, (spent.get(name) ?? 0) + nanoseconds);
    }
  }
  return spent;
}

/** @param {number} pid */
async function cpuNanoseconds(pid) {
  await wait(SETTLE_MS);
  return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]);
}

/** @param {string} url */
async function connect(url) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query('set synchronous_commit = off');
  const { rows } = await client.query('select pg_backend_pid() as pid');
  const { pid } = rows[0];
  if (!isPostgres(pid)) {
    throw new Error('The server has to run on this machine, and not in another PID namespace');
  }
  return { client, pid, close: () => client.end() };
}

/**
 * Opens a store on a single connection that records the statements.
 *
 * @param {string} url
 * @param {URL} module
 */
async function openStore(url, module) {
  const { DrizzleStore, idOf } = await import(module.href);
  /** @type {Sent[]} */
  const sent = [];
  class RecordingClient extends pg.Client {
    query(config, ...rest) {
      const { name, text, values } = config;
      // Drizzle passes the values separately from the statement.
      if (name !== undefined && !name.includes('_clock_'))
        sent.push({ name, text, values: values ?? rest[0] });
      return super.query(config, ...rest);
    }
  }
  const pool = new pg.Pool({ connectionString: url, max: 1, Client: RecordingClient });
  pool.on('error', () => {});
  const store = new DrizzleStore(pool, {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    touchAfter: 0,
    // A long time limit, because the statements contain their deadline and are sent again during the whole measurement.
    timeout: 3600,
  });
  await store.ready();
  const cookie = { maxAge: MAX_AGE_SECONDS * 1000 };
  // Gives the store its `generate`, as in an app.
  session({ store, secret: 'benchmark', resave: false, saveUninitialized: false, cookie });
  return {
    store,
    idOf,
    sent,
    get: promisify(store.get.bind(store)),
    async close() {
      await store.close();
      await pool.end();
    },
  };
}

/**
 * Runs an operation of a store for each session, and returns the statements that it sent.
 *
 * @param {Awaited<ReturnType<typeof openStore>>} opened
 * @param {string} operation
 * @param {number} bytes
 * @param {readonly number[]} numbers of the sessions
 * @param {number} batch calls at once
 * @returns {Promise<Sent[]>}
 */
async function record({ store, sent, get }, operation, bytes, numbers, batch) {
  const loaded = new Map();
  if (operation === 'touch' || operation === 'save') {
    const load = async (number) => loaded.set(number, await get(sidOf(number)));
    await Promise.all(numbers.map(load));
  }
  const call = {
    get: (sid, _, done) => store.get(sid, done),
    touch(sid, number, done) {
      const object = loaded.get(number);
      object.cookie.expires = new Date(Date.now() + MAX_AGE_SECONDS * 1000);
      store.touch(sid, object, done);
    },
    save(sid, number, done) {
      const object = loaded.get(number);
      object.cookie.expires = new Date(Date.now() + MAX_AGE_SECONDS * 1000);
      object.views += 1;
      store.set(sid, object, done);
    },
    create(_, number, done) {
      const request = {};
      store.generate(request);
      const { cookie } = request.session;
      store.set(
        request.sessionID,
        Object.assign(request.session, { ...objectOf(number, bytes), cookie }),
        done,
      );
    },
    put: (sid, number, done) => store.set(sid, objectOf(number, bytes), done),
    end: (sid, _, done) => store.destroy(sid, done),
  }[operation];
  const doing = promisify(call);
  sent.length = 0;
  for (let at = 0; at < numbers.length; at += batch) {
    const some = numbers.slice(at, at + batch);
    await Promise.all(some.map((number) => doing(sidOf(number), number)));
  }
  const statements = sent.splice(0).map((statement) => ({ ...statement, rowMode: 'array' }));
  const expected = numbers.length / batch;
  const texts = new Set(statements.map(({ text }) => text));
  if (statements.length !== expected || texts.size !== 1) {
    throw new Error(
      `${operation}: the store sent ${statements.length} statements with ${texts.size} texts instead of ${expected} with one`,
    );
  }
  return statements;
}

/** @returns {Sent[]} */
function plainStatements({ idOf }, operation, bytes, numbers) {
  const { text, values } = PLAIN[operation];
  return numbers.map((number) => {
    const object = objectOf(number, bytes);
    const row = {
      id: idOf(sidOf(number)),
      data: JSON.stringify(object),
      expiry: object.cookie.expires,
    };
    return { name: `plain_${operation}`, text, values: values(row), rowMode: 'array' };
  });
}

/**
 * Each variant has its own sessions.
 *
 * @param {string} operation
 * @param {number} variant
 */
function numbersOf(operation, variant) {
  const length = WARM_UP_ROWS + options.rows;
  const first = (operation === 'create' ? NEW_FROM : 1) + variant * length;
  return Array.from({ length }, (_, i) => first + i);
}

/**
 * A session as a plain object.
 *
 * @param {number} number
 * @param {number} bytes
 */
function objectOf(number, bytes) {
  const content = JSON.stringify(contents(bytes)).replace(NUMBER_PLACEHOLDER, numberText(number));
  const cookie = {
    originalMaxAge: MAX_AGE_SECONDS * 1000,
    expires: new Date(Date.now() + MAX_AGE_SECONDS * 1000).toISOString(),
    httpOnly: true,
    path: '/',
  };
  return { cookie, ...JSON.parse(content) };
}

/** Fills the table, and creates the copy for restoring it. */
async function fill(client, bytes) {
  const { idOf } = await import(new URL('../dist/index.js', import.meta.url).href);
  await client.query('alter table sessions set (fillfactor = 50, autovacuum_enabled = false)');
  if (options.compression !== undefined) {
    await client.query(`alter table sessions alter data set compression ${options.compression}`);
  }
  await client.query('truncate sessions');
  const numbers = Array.from({ length: MOST_VARIANTS }, (_, at) => numbersOf('get', at)).flat();
  const rows = numbers.map((number) => {
    const object = objectOf(number, bytes);
    return { id: idOf(sidOf(number)), data: JSON.stringify(object), expiry: object.cookie.expires };
  });
  await client.query(
    `insert into sessions (id, data, version, expires_at)
     select id, data::json, 1, expiry from json_to_recordset($1) as x (id text, data text, expiry timestamptz)`,
    [JSON.stringify(rows)],
  );
  await client.query('drop table if exists sessions_copy');
  await client.query('create table sessions_copy as select * from sessions');
}

async function restore(client) {
  await client.query('truncate sessions');
  await client.query(`insert into sessions (${COLUMNS}) select ${COLUMNS} from sessions_copy`);
  await client.query('vacuum (analyze) sessions');
}

/** Throws unless a round changed as many rows as it should. */
async function checkEffect(client, operation, variants) {
  const { rows } = await client.query(
    `select count(*)::int as changed from sessions left join sessions_copy as copy using (id)
     where (sessions.last_seen_at, sessions.version, sessions.revoked_at)
       is distinct from (copy.last_seen_at, copy.version, copy.revoked_at)`,
  );
  const [{ changed }] = rows;
  const expected = operation === 'get' ? 0 : variants.length * (WARM_UP_ROWS + options.rows);
  if (changed !== expected) {
    throw new Error(`${operation}: ${changed} rows were changed instead of ${expected}`);
  }
}

/**
 * @param {readonly Record<string, any>[]} rows
 * @param {string} version
 */
function table(rows, version) {
  const time = (/** @type {number[] | undefined} */ of) => (of ? median(of).toFixed(1) : '');
  // Within a round, so that a slow round counts for both.
  const ratio = (/** @type {number[]} */ of, /** @type {number[] | undefined} */ to) =>
    to ? median(of.map((value, round) => value / to[round])).toFixed(2) : '';
  const lines = [
    [
      'operation',
      'bytes',
      'plain',
      'one row',
      'before',
      '/ plain',
      '/ before',
      `${MANY} rows`,
      'before',
      '/ plain',
      '/ before',
    ],
    ...rows.map((row) => [
      row.operation,
      String(row.bytes),
      time(row.plain),
      time(row.one),
      time(row['one before']),
      ratio(row.one, row.plain),
      ratio(row.one, row['one before']),
      time(row.many),
      time(row['many before']),
      ratio(row.many, row.plain),
      ratio(row.many, row['many before']),
    ]),
  ];
  const widths = lines[0].map((_, at) => Math.max(...lines.map((line) => line[at].length)));
  const text = lines.map((line) =>
    line
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at])))
      .join('  '),
  );
  return `Postgres ${version}, server CPU in microseconds per row, median of ${options.rounds} rounds of ${options.rows} rows,
synchronous_commit = off; plain: the statement for one row, written by hand

${text.join('\n')}
`;
}

/** @param {string[]} args */
function parseOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      before: { type: 'string' },
      only: { type: 'string', default: OPERATIONS.join() },
      payload: { type: 'string', default: '200,2048' },
      rows: { type: 'string', default: '512' },
      rounds: { type: 'string', default: '7' },
      compression: { type: 'string' },
      url: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const operations = values.only.split(',');
  for (const operation of operations) {
    if (!OPERATIONS.includes(operation)) throw new Error(`--only: there is no ${operation}`);
  }
  if (values.compression !== undefined && !['lz4', 'pglz'].includes(values.compression)) {
    throw new Error(`--compression takes lz4 or pglz, not ${values.compression}`);
  }
  const rows = whole('rows', values.rows);
  if (rows % ROWS_IN_TURN !== 0) throw new Error(`--rows takes a multiple of ${ROWS_IN_TURN}`);
  return {
    before: values.before && pathToFileURL(resolvePath(values.before, 'index.js')),
    operations,
    payload: values.payload.split(',').map((bytes) => whole('payload', bytes)),
    rows,
    rounds: whole('rounds', values.rounds),
    compression: values.compression,
    url: values.url,
    help: values.help,
  };
}

/**
 * @param {string} name
 * @param {string} value
 */
function whole(name, value) {
  if (!/^[1-9]\d*$/.test(value)) throw new Error(`--${name} takes whole numbers, not ${value}`);
  return Number(value);
}
