#!/usr/bin/env node
/**
 * Measures what a session costs the server, for `sizing.js`: bytes, CPU and WAL, in a table of a given size.
 *
 *     npm run build && node scripts/install.js bench
 *     node bench/sizing-measure.js 20000 10000000 > bench/sizing.json
 *
 * Linux only: it measures the CPU time of all processes of the server, which must run on this machine. Ten million
 * sessions need about 6 GB of disk in the temporary folder, until the end.
 *
 * @module
 */
import pg from 'pg';
import { describeMachine, serverCpuMilliseconds } from './machine.js';
import { startPostgres } from './servers.js';
import { MAX_AGE_SECONDS, NUMBER_PLACEHOLDER, sidOf, template } from './sessions.js';

const BYTES = 200;

/** Number of sessions for each kind of call. */
const CALLS = 1_000;

const CALLERS = 64;

/** Room for updates in each page, as vacuum leaves it in a table in use. */
const FILL_FACTOR = 80;

const ROWS_PER_INSERT = 500_000;

const log = (line) => process.stderr.write(`${line}\n`);

const sizes = process.argv.slice(2).map(Number);
if (sizes.length === 0 || !sizes.every((rows) => Number.isInteger(rows) && rows >= 4 * CALLS)) {
  log(`usage: node bench/sizing-measure.js SESSIONS [SESSIONS], each at least ${4 * CALLS}`);
  process.exit(2);
}

/**
 * @param {number} sessions
 * @returns {Promise<import('./sizing.js').Costs>}
 */
async function measure(sessions) {
  const { DrizzleStore } = await import('../dist/index.js');
  // The CPU time of a connection is lost when it ends.
  const pool = new pg.Pool({
    connectionString: await postgres.createDatabase(`s${sessions}`),
    idleTimeoutMillis: 0,
  });
  pool.on('error', () => {});
  const store = new DrizzleStore(pool, {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    touchAfter: 0,
    timeout: 600,
    userId: ({ user }) => user?.id,
  });
  try {
    await store.ready();
    await fill(pool, sessions);
    const [space] = await rows(
      pool,
      `select pg_table_size('sessions')::float8 as heap, pg_indexes_size('sessions')::float8 as indexes`,
    );
    const operations = await measureOperations(pool, store, sessions);
    const prune = await measurePruning(pool, store, sessions);
    return {
      sessions,
      bytes: BYTES,
      heapBytes: Math.round(space.heap / sessions),
      indexBytes: Math.round(space.indexes / sessions),
      operations,
      prune,
      environment: environment(),
    };
  } finally {
    await store.close();
    await pool.end();
  }
}

/** Fills the table without its indexes, which are built afterwards. */
async function fill(pool, sessions) {
  log(`${sessions} sessions`);
  const indexes = await rows(
    pool,
    `select indexdef from pg_indexes where tablename = 'sessions' and indexname <> 'sessions_pkey'`,
  );
  const names = await rows(
    pool,
    `select indexname from pg_indexes where tablename = 'sessions' and indexname <> 'sessions_pkey'`,
  );
  await pool.query(
    `alter table sessions set (fillfactor = ${FILL_FACTOR}, autovacuum_enabled = false)`,
  );
  await pool.query('alter table sessions drop constraint sessions_pkey');
  for (const { indexname } of names) await pool.query(`drop index "${indexname}"`);
  for (let first = 1; first <= sessions; first += ROWS_PER_INSERT) {
    await pool.query(
      `insert into sessions (id, data, user_id, expires_at)
       select translate(encode(sha256(convert_to(md5('s' || n), 'UTF8')), 'base64'), '+/=', '-_'),
              replace($1::text, $2::text, lpad(n::text, ${NUMBER_PLACEHOLDER.length}, '0'))::json,
              lpad(n::text, ${NUMBER_PLACEHOLDER.length}, '0'),
              now() + n * interval '1 second' / $4::float8 * ${MAX_AGE_SECONDS} + interval '1 hour'
       from generate_series($3::int, least($3::int + ${ROWS_PER_INSERT} - 1, $4::int)) n`,
      [template(BYTES), NUMBER_PLACEHOLDER, first, sessions],
    );
  }
  log('indexes');
  await pool.query('alter table sessions add constraint sessions_pkey primary key (id)');
  for (const { indexdef } of indexes) await pool.query(indexdef);
  await pool.query('vacuum analyze sessions');
}

async function measureOperations(pool, store, sessions) {
  const random = randomNumbers(sessions);
  const operations = {};
  for (const name of ['get', 'touch', 'set', 'create', 'destroy']) {
    log(name);
    const prepare = PREPARE[name];
    const cost = {};
    for (const callers of [1, CALLERS]) {
      // Changes the same pages twice: the first time, each page is written to the WAL as a whole.
      const calls = await prepare(store, random, callers);
      await pool.query('checkpoint');
      const first = await run(pool, calls, callers);
      const again = await run(pool, calls, callers);
      cost[callers] = { cpu: again.cpu, wal: again.wal, walAfterCheckpoint: first.wal };
    }
    operations[name] = {
      alone: cost[1].cpu,
      batched: cost[CALLERS].cpu,
      wal: cost[1].wal,
      walAfterCheckpoint: cost[1].walAfterCheckpoint,
    };
  }
  return operations;
}

/**
 * Each returns a function that returns the calls of a run. The calls of the second run use the same sessions, or new ones.
 */
const PREPARE = {
  get: async (store, random) => {
    const sids = chosen(random);
    return () => sids.map((sid) => () => store.get(sid));
  },
  touch: async (store, random) => {
    const loaded = await loadedSessions(store, random);
    let seconds = MAX_AGE_SECONDS * 2;
    return () => {
      seconds += 1;
      const expires = new Date(Date.now() + seconds * 1000);
      return loaded.map(([sid, session]) => () => {
        session.cookie.expires = expires;
        return store.touch(sid, session);
      });
    };
  },
  set: async (store, random) => {
    const loaded = await loadedSessions(store, random);
    return () =>
      loaded.map(([sid, session]) => () => {
        session.views += 1;
        return store.set(sid, session);
      });
  },
  create: async (store, _random, callers) => {
    const data = template(BYTES);
    let run = 0;
    return () => {
      run += 1;
      return Array.from({ length: CALLS }, (_, at) => () => {
        const sid = `new ${callers} ${run} ${at}`;
        return store.set(sid, generated(store, sid, data.replace(NUMBER_PLACEHOLDER, sid)));
      });
    };
  },
  destroy: async (store, random) => {
    const runs = [chosen(random), chosen(random)];
    return () => (runs.shift() ?? []).map((sid) => () => store.destroy(sid));
  },
};

async function loadedSessions(store, random) {
  const sids = chosen(random);
  return Promise.all(sids.map(async (sid) => [sid, await store.get(sid)]));
}

/** A new session, as express-session creates it. */
function generated(store, sessionID, text) {
  const request = { sessionID };
  store.generate = (to) => {
    to.session = JSON.parse(text);
  };
  store.generate(request);
  request.session.cookie.expires = new Date(request.session.cookie.expires);
  return request.session;
}

/** Runs calls concurrently. Returns per call: microseconds of the server's CPU time, bytes of WAL. */
async function run(pool, calls, callers) {
  const waiting = calls();
  const { length } = waiting;
  const lsn = await insertLsn(pool);
  const cpu = serverCpuMilliseconds(postgres.pid);
  await Promise.all(
    Array.from({ length: callers }, async () => {
      for (let call = waiting.pop(); call !== undefined; call = waiting.pop()) await call();
    }),
  );
  const used = serverCpuMilliseconds(postgres.pid) - cpu;
  return {
    cpu: rounded((used * 1000) / length),
    wal: Math.round(((await insertLsn(pool)) - lsn) / length),
  };
}

async function measurePruning(pool, store, sessions) {
  const expired = Math.min(Math.round(sessions / 4), 100_000);
  log(`prune ${expired}`);
  // The sessions that were created first, which are adjacent in the table.
  await pool.query(
    `update sessions set expires_at = now() - interval '2 hours'
     where ctid in (select ctid from sessions where revoked_at is null limit ${expired})`,
  );
  const lsn = await insertLsn(pool);
  const cpu = serverCpuMilliseconds(postgres.pid);
  const started = performance.now();
  const pruned = await store.pruneSessions();
  const seconds = (performance.now() - started) / 1000;
  const used = serverCpuMilliseconds(postgres.pid) - cpu;
  return {
    rowsPerSecond: Math.round(pruned / seconds),
    cpu: rounded((used * 1000) / pruned),
    wal: Math.round(((await insertLsn(pool)) - lsn) / pruned),
  };
}

async function insertLsn(pool) {
  const [row] = await rows(pool, `select (pg_current_wal_insert_lsn() - '0/0')::float8 as lsn`);
  return row.lsn;
}

async function rows(pool, text) {
  return (await pool.query(text)).rows;
}

/** Yields different numbers of sessions, in random order, without an end. */
function* randomNumbers(sessions) {
  // A step that has no divisor in common with the number of sessions visits each once.
  let step = Math.floor(sessions * 0.6180339887);
  while (divisor(step, sessions) !== 1) step += 1;
  for (let at = step; ; at = (at + step) % sessions) yield at + 1;
}

function divisor(a, b) {
  return b === 0 ? a : divisor(b, a % b);
}

function chosen(random) {
  return Array.from({ length: CALLS }, () => sidOf(random.next().value));
}

function rounded(value) {
  return Number(value.toPrecision(3));
}

function environment() {
  const { cpu, cores, memoryGb, system, fsyncMilliseconds } = describeMachine();
  const { shared_buffers: buffers } = postgres.settings;
  return (
    `${cpu}, ${cores} cores, ${memoryGb} GB, ${system}, fsync ${rounded(fsyncMilliseconds)} ms, ` +
    `Postgres ${postgres.version}, shared_buffers ${buffers}`
  );
}

const postgres = await startPostgres({ url: undefined, cores: undefined });
try {
  const measured = [];
  for (const sessions of sizes) measured.push(await measure(sessions));
  process.stdout.write(`${JSON.stringify(measured, null, 2)}\n`);
} finally {
  await postgres.stop();
}
