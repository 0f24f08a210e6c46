/**
 * The chaos test: two processes under load, random faults, and a ledger that checks acknowledged writes.
 *
 * `npm run test:chaos -- --minutes 2 --seed 1`
 *
 * A round is a few seconds of load, with a new fault each second. Then all faults end, both processes must work
 * again, and the ledger is compared with what they read and with the table. The exit code is 1 if there is a
 * violation. The seed determines the faults and the calls, but not their timing.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { DrizzleStore, idOf } from 'connect-drizzle';
import pg from 'pg';
import { makeServerReachable, startPostgres } from '../support/postgres.js';
import { startProxy } from '../support/proxy.js';
import { useRunFolder } from '../support/run-folder.js';
import { endStranded, FAULTS, type Victims } from './faults.js';
import { Ledger, type Row } from './ledger.js';
import { startProcesses } from './processes.js';
import { type Content, nowMs, pick, type Report, randomFrom } from './protocol.js';

const { values: args } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    verbose: { type: 'boolean', default: false },
  },
});
const minutes = Number(args.minutes);
const seed = Number(args.seed);
if (!(minutes > 0) || !Number.isInteger(seed)) {
  console.error('usage: npm run test:chaos -- --minutes N [--seed N] [--verbose]');
  process.exit(2);
}
useRunFolder();
const random = randomFrom(seed);

const TIMEOUT_SECONDS = 2;
const HEARTBEAT_SECONDS = 1;
const CALLS_PER_SECOND = 150;
const ROUND_SECONDS = { least: 2, most: 5 };
const LONGEST_FAULT_MS = 4000;
/** Both processes must work again within this time after the faults have ended. */
const RECOVERY_LIMIT_MS = 10_000;
/** The most connections a process may have: the app's pool and a listener. */
const MOST_CONNECTIONS = 12;
const SHOWN = 10;

/** Starts a fault each second and ends each after a random time. Returns their names. */
async function faultsFor(seconds: number, victims: Victims): Promise<string[]> {
  const names: string[] = [];
  const going: Promise<unknown>[] = [];
  for (let second = 0; second < seconds; second += 1) {
    const fault = pick(FAULTS, random);
    const forMs = random() * LONGEST_FAULT_MS;
    const nextSecond = pause(1000);
    if (fault !== undefined) {
      if (fault.isKill) await Promise.all(going);
      const end = await fault.begin(victims).catch((error) => {
        if (args.verbose) console.log(`${fault.name}: ${error}`);
      });
      if (end !== undefined) {
        names.push(fault.name);
        const ending = pause(forMs).then(end).catch(noServer);
        going.push(ending);
        if (fault.isKill) await ending;
      }
    }
    await nextSecond;
  }
  await Promise.all(going);
  return names;
}

/** If the server was killed, the fault has ended with it. */
function noServer(error: unknown): void {
  if (args.verbose) console.log(String(error));
}

const forgetServer = makeServerReachable();
const server = await startPostgres({
  settings: { synchronous_commit: 'remote_apply', max_connections: 200, restart_after_crash: 'on' },
});
const standby = await server.standby();
const admin = new pg.Pool({
  connectionString: server.url,
  max: 20,
  options: '-c default_transaction_read_only=off -c synchronous_commit=local',
});
admin.on('error', () => {});
await new DrizzleStore(admin, { createTableIfMissing: true }).ready();
await admin.query(`alter system set synchronous_standby_names = 'standby'`);
await admin.query('select pg_reload_conf()');

const ledger = new Ledger(HEARTBEAT_SECONDS * 1000);
const proxies = [await startProxy(server.url), await startProxy(server.url)] as const;
const workers = startProcesses(
  { a: proxies[0].url, b: proxies[1].url },
  {
    timeoutSeconds: TIMEOUT_SECONDS,
    heartbeatSeconds: HEARTBEAT_SECONDS,
    callsPerSecond: CALLS_PER_SECOND,
    seed,
  },
);
const both = [workers.a, workers.b];

/** The live sessions in the table, by sid. */
async function liveSessions(sidOf: ReadonlyMap<string, string>): Promise<Row[]> {
  const { rows } = await admin.query<{ id: string; data: Content }>(
    'select id, data from sessions where data is not null',
  );
  return rows.flatMap(({ id, data }) => {
    const sid = sidOf.get(id);
    return sid === undefined ? [] : [{ sid, content: data }];
  });
}

/** How many connections the larger process has above `most`, after the server had time to notice closed ones. */
async function connectionsBeyond(most: number): Promise<number> {
  const startedAt = nowMs();
  for (;;) {
    const { rows } = await admin.query<{ process: string; connections: string[] }>(
      `select application_name as process,
         array_agg(format('%s %s since %s: %s', state, wait_event, backend_start, query)) as connections
       from pg_stat_activity where application_name in ('a', 'b') group by application_name`,
    );
    const largest = Math.max(0, ...rows.map(({ connections }) => connections.length));
    const beyond = largest - most;
    if (beyond <= 0) return 0;
    if (nowMs() - startedAt > 5000) {
      for (const { process, connections } of rows) {
        print(`connections of ${process} at ${new Date().toISOString()}`, connections);
      }
      return beyond;
    }
    await pause(50);
  }
}

/** Waits for a server that may have just been started. */
async function untilServerAnswers(): Promise<void> {
  for (;;) {
    try {
      await admin.query('select from sessions limit 1');
      return;
    } catch {
      await pause(50);
    }
  }
}

const counts = { faults: 0, kills: 0, leaked: 0, slowestMs: 0, syncDownMs: 0 };
const lateCalls: string[] = [];
const notRecovered: string[] = [];
const unexpected = new Map<string, number>();
let slowestRecoveryMs = 0;
let cacheHits = 0;
const sidOf = new Map<string, string>();

async function round(): Promise<void> {
  const seconds =
    ROUND_SECONDS.least + Math.floor(random() * (1 + ROUND_SECONDS.most - ROUND_SECONDS.least));
  const names = await faultsFor(seconds, {
    server,
    admin,
    proxies,
    standbyPort: Number(new URL(standby.url).port),
    discard: () => Promise.all(both.map((worker) => worker.discard())),
    random,
  });
  counts.faults += names.length;
  counts.kills += FAULTS.filter(({ isKill }) => isKill).reduce(
    (sum, { name }) => sum + names.filter((each) => each === name).length,
    0,
  );
  await untilServerAnswers();
  for (const [at, tookMs] of (
    await Promise.all(both.map((worker) => worker.recover(RECOVERY_LIMIT_MS)))
  ).entries()) {
    slowestRecoveryMs = Math.max(slowestRecoveryMs, tookMs);
    if (tookMs > RECOVERY_LIMIT_MS) {
      notRecovered.push(
        `${'ab'[at]} did not work ${Math.round(tookMs)} ms after: ${names.join('; ')}`,
      );
    }
  }
  // Load without faults, so that reads are cached.
  await pause(500 + random() * 1500);
  for (const worker of both) await worker.load(false);
  const [a, b] = await Promise.all([workers.a.report(), workers.b.report()]);
  endStranded();
  for (const report of [a, b]) take(report, names);
  cacheHits = a.cacheHits + b.cacheHits;
  for (const { sid } of [...a.entries, ...b.entries]) sidOf.set(idOf(sid), sid);
  const before = problems();
  ledger.add({ a: a.entries, b: b.entries });
  ledger.judgeTable(await liveSessions(sidOf));
  counts.leaked += await connectionsBeyond(MOST_CONNECTIONS);
  if (args.verbose || problems() > before) {
    console.log(`${Math.round(performance.now() / 1000)} s: ${names.join('; ')}`);
    if (problems() > before) console.log('  THE LEDGER OBJECTS');
  }
  for (const worker of both) await worker.load(true);
}

function take(report: Report, names: readonly string[]): void {
  counts.slowestMs = Math.max(counts.slowestMs, report.slowestMs);
  counts.syncDownMs = Math.max(counts.syncDownMs, report.syncDownMs);
  counts.leaked += report.leaked;
  lateCalls.push(...report.lateCalls.map((late) => `${late}, after: ${names.join('; ')}`));
  for (const message of report.unexpected) {
    unexpected.set(message, (unexpected.get(message) ?? 0) + 1);
  }
}

function problems(): number {
  const { lost, revived, stale } = ledger.violations;
  return (
    lost.length +
    revived.length +
    stale.length +
    lateCalls.length +
    notRecovered.length +
    counts.leaked
  );
}

function print(title: string, list: readonly string[]): void {
  if (list.length === 0) return;
  console.log(`${title}:`);
  for (const line of list.slice(0, SHOWN)) console.log(`  ${line}`);
  if (list.length > SHOWN) console.log(`  and ${list.length - SHOWN} more`);
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
const endsAt = nowMs() + minutes * 60_000;
console.log(`chaos: seed ${seed}`);
let isFailed = false;
try {
  await Promise.all(both.map(({ ready }) => ready));
  for (const worker of both) await worker.load(true);
  while (nowMs() < endsAt) await round();
  for (const worker of both) await worker.load(false);
  await Promise.all(both.map((worker) => worker.close()));
  counts.leaked += await connectionsBeyond(0);
  const { lost, revived, stale } = ledger.violations;
  print('lost', lost);
  print('revived', revived);
  print('stale', stale);
  print('calls over their deadline', lateCalls);
  print('not recovered', notRecovered);
  const others = [...unexpected].map(([message, count]) => `${count} × ${message}`);
  print('errors beside lost connections and time-outs, which are no failure', others);
  console.log(
    `chaos: ${minutes} min, seed ${seed}: ${counts.faults} faults, ${counts.kills} kills, ` +
      `${ledger.acknowledgedWrites} acknowledged writes, ${ledger.reads} reads (${cacheHits} cached): ` +
      `${lost.length} lost, ${revived.length} revived, ${stale.length} stale beyond ${HEARTBEAT_SECONDS} s, ` +
      `${lateCalls.length} calls over their deadline, ${counts.leaked} leaked connections, ` +
      `${notRecovered.length} not recovered; slowest call ${seconds(counts.slowestMs)}, slowest recovery ` +
      `${seconds(slowestRecoveryMs)}, longest without sync ${seconds(counts.syncDownMs)}`,
  );
  isFailed = problems() > 0;
} catch (error) {
  console.error(error);
  isFailed = true;
} finally {
  for (const worker of both) worker.kill();
  await Promise.all(proxies.map((proxy) => proxy.close()));
  await admin.end();
  await standby.stop();
  await server.stop();
  forgetServer();
}
process.exit(isFailed ? 1 : 0);
