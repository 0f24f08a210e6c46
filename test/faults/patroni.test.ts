import { randomInt } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { DrizzleStore, idOf } from 'connect-drizzle';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Ledger } from '../chaos/ledger.js';
import { type LoadProcess, startProcesses } from '../chaos/processes.js';
import { type Content, type Name, nowMs, type Report } from '../chaos/protocol.js';
import { type Cluster, missingForPatroni, startPatroni } from '../support/patroni.js';

const isInstalled = missingForPatroni.length === 0;
if (!isInstalled) {
  console.warn(
    `Skipping the Patroni tests; not installed: ${missingForPatroni.join(', ')} ` +
      "(Debian's packages patroni, etcd-server, haproxy, postgresql).",
  );
}

const HEARTBEAT_SECONDS = 5;
const TIMEOUT_SECONDS = 5;

describe.skipIf(!isInstalled)('with three Patroni nodes behind HAProxy, under load,', () => {
  let cluster: Cluster;
  let processes: Readonly<Record<Name, LoadProcess>>;
  const ledger = new Ledger(HEARTBEAT_SECONDS * 1000);
  const sidOf = new Map<string, string>();

  beforeAll(async () => {
    cluster = await startPatroni();
    const pool = new pg.Pool({ connectionString: cluster.url, max: 1 });
    const store = new DrizzleStore(pool);
    await store.migrate();
    await store.close();
    await pool.end();
    processes = startProcesses(
      { a: cluster.url, b: cluster.url },
      {
        timeoutSeconds: TIMEOUT_SECONDS,
        heartbeatSeconds: HEARTBEAT_SECONDS,
        callsPerSecond: 100,
        seed: randomInt(1_000_000),
      },
    );
    for (const process of both()) {
      await process.ready;
      await process.load(true);
    }
  });

  afterAll(async () => {
    for (const process of both()) process.kill();
    await cluster?.[Symbol.asyncDispose]();
  });

  afterEach(async () => {
    for (const process of both()) await process.load(true);
  });

  const both = () => (processes === undefined ? [] : [processes.a, processes.b]);

  /** Makes another node the primary, and checks what the processes saw. */
  async function movePrimary(move: (leader: string) => Promise<void>) {
    // Gives the processes time to fill their caches.
    await pause(2000);
    const leader = await cluster.leader();
    const movedAt = nowMs();
    await move(leader);
    await cluster.primaryOtherThan(leader);
    const reachableAt = nowMs();
    const recoveredMs = Math.max(
      ...(await Promise.all(both().map((process) => process.recover(30_000)))),
    );
    // Within two heartbeats, the processes must hear each other again.
    await pause(Math.max(reachableAt + 2 * HEARTBEAT_SECONDS * 1000 - nowMs(), 0));
    for (const process of both()) await process.load(false);
    const [a, b] = await Promise.all([processes.a.report(), processes.b.report()]);
    for (const { sid } of [...a.entries, ...b.entries]) sidOf.set(idOf(sid), sid);
    ledger.add({ a: a.entries, b: b.entries });
    ledger.judgeTable(await liveSessions());
    const syncMs = [a, b].map(({ syncUpAt }) => upAfter(syncUpAt, movedAt) - reachableAt);
    console.log(
      `primary moved after ${Math.round(reachableAt - movedAt)} ms; calls worked ${Math.round(recoveredMs)} ms ` +
        `and sync ${syncMs.map(Math.round).join(' and ')} ms after that; ${ledger.acknowledgedWrites} acknowledged ` +
        `writes, ${ledger.violations.lost.length} lost, ${ledger.violations.revived.length} revived, ` +
        `${ledger.violations.stale.length} stale`,
    );
    return { reports: [a, b] satisfies Report[], recoveredMs, syncMs };
  }

  /** The last time `sync` came up after `since`; infinity if it did not. */
  function upAfter(times: readonly number[], since: number): number {
    return times.findLast((at) => at > since) ?? Number.POSITIVE_INFINITY;
  }

  async function liveSessions() {
    const client = new pg.Client({ connectionString: cluster.url });
    await client.connect();
    const { rows } = await client.query<{ id: string; data: Content }>(
      'select id, data from sessions where data is not null',
    );
    await client.end();
    return rows.flatMap(({ id, data }) => {
      const sid = sidOf.get(id);
      return sid === undefined ? [] : [{ sid, content: data }];
    });
  }

  test.each<[string, (leader: string) => Promise<void>]>([
    ['a switchover', () => cluster.switchover()],
    ['kill -9 of the primary and its Patroni', (leader) => cluster.kill(leader)],
  ])('%s loses no acknowledged write', async (_how, move) => {
    const { reports, recoveredMs, syncMs } = await movePrimary(move);
    expect(ledger.violations).toEqual({ lost: [], revived: [], stale: [] });
    expect(ledger.acknowledgedWrites).toBeGreaterThan(100);
    expect(reports.flatMap(({ lateCalls }) => lateCalls)).toEqual([]);
    expect(reports.map(({ leaked }) => leaked)).toEqual([0, 0]);
    expect(recoveredMs).toBeLessThan(30_000);
    expect(Math.max(...syncMs)).toBeLessThan(2 * HEARTBEAT_SECONDS * 1000);
  });
});
