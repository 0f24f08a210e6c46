/** The faults. Each function starts a fault and returns a function that ends it. */
import type pg from 'pg';
import type { PostgresServer } from '../support/postgres.js';
import type { Proxy as TcpProxy } from '../support/proxy.js';
import { pick } from './protocol.js';

export interface Victims {
  readonly server: PostgresServer;
  /** Connects directly, and may write even while the server is read-only. */
  readonly admin: pg.Pool;
  readonly standbyPort: number;
  /** One between each process and the server. */
  readonly proxies: readonly TcpProxy[];
  /** Runs DISCARD ALL on the connections of the apps. */
  readonly discard: () => Promise<unknown>;
  readonly random: () => number;
}

type End = () => unknown;
type Fault = (victims: Victims) => Promise<End>;

interface NamedFault {
  readonly name: string;
  /** It stops the server. Then no other fault may be active, because some need the server to end. */
  readonly isKill: boolean;
  readonly begin: Fault;
}

/** The proxies of one of the processes, or of both. */
function proxiesOf({ proxies, random }: Victims): readonly TcpProxy[] {
  return random() < 0.3 ? proxies : proxies.slice(...(random() < 0.5 ? [0, 1] : [1, 2]));
}

const onProxies =
  (begin: (proxy: TcpProxy, victims: Victims) => End): Fault =>
  async (victims) => {
    const ends = proxiesOf(victims).map((proxy) => begin(proxy, victims));
    return () => Promise.all(ends.map((end) => end()));
  };

const direction = ({ random }: Victims) =>
  pick(['toServer', 'toClient', undefined] as const, random);

const killed =
  (signal: 'SIGKILL' | 'SIGQUIT'): Fault =>
  async ({ server }) => {
    await server.kill(signal);
    return () => server.start();
  };

/** The pids of the server processes of the apps' connections. */
async function backends({ admin }: Victims): Promise<number[]> {
  const { rows } = await admin.query<{ pid: number }>(
    `select pid from pg_stat_activity where application_name in ('a', 'b')`,
  );
  return rows.map(({ pid }) => pid);
}

/** An open transaction of another client. */
const holding =
  (statement: string): Fault =>
  async ({ admin }) => {
    const client = await admin.connect();
    client.on('error', () => {});
    try {
      await client.query(`begin; set local lock_timeout = '3s'; ${statement}`);
    } catch (error) {
      client.release(true);
      throw error;
    }
    return async () => {
      await client.query('rollback').finally(() => client.release());
    };
  };

export const FAULTS: readonly NamedFault[] = [
  { name: 'kill -9 of the server', isKill: true, begin: killed('SIGKILL') },
  { name: 'immediate shutdown of the server', isKill: true, begin: killed('SIGQUIT') },
  ...Object.entries<Fault>({
    'the network swallows everything, and its connections stay dead': onProxies((proxy) => {
      const end = proxy.strand();
      proxy.swallow();
      return () => {
        // Connections that were opened meanwhile have lost some of their bytes.
        const endOthers = proxy.strand();
        proxy.lose();
        stranded.push(end, endOthers);
      };
    }),
    'the network swallows one direction or both, then breaks': onProxies((proxy, victims) => {
      proxy.swallow(direction(victims));
      return () => {
        proxy.cut();
        proxy.lose();
      };
    }),
    'the network is slow': onProxies((proxy, victims) => {
      void proxy.hold(direction(victims) ?? 'toClient');
      return () => {
        proxy.release();
        stranded.push(() => proxy.endAbandoned());
      };
    }),
    'the network breaks': onProxies((proxy) => {
      proxy.cut();
      return () => {};
    }),
    'the network refuses connections': onProxies((proxy) => {
      proxy.refuse();
      return () => proxy.accept();
    }),
    'the connections lead to the standby': onProxies((proxy, { standbyPort, random }) => {
      proxy.pointTo(standbyPort);
      // Without this, a process keeps its connections to the old server beside those to the new one.
      if (random() < 0.7) proxy.cut();
      return () => {
        proxy.pointTo();
        if (random() < 0.5) proxy.cut();
      };
    }),
    'SIGSTOP of some connections of the server': async (victims) => {
      const stopped = (await backends(victims)).filter(() => victims.random() < 0.3);
      for (const pid of stopped) signal(pid, 'SIGSTOP');
      return () => {
        for (const pid of stopped) signal(pid, 'SIGCONT');
      };
    },
    "SIGSTOP of the server's main process": async ({ server }) => {
      await server.suspend();
      return () => server.resume();
    },
    'an administrator ends connections': async (victims) => {
      const { random, admin } = victims;
      const ending = (await backends(victims)).filter(() => random() < 0.5);
      await admin.query('select pg_terminate_backend(pid) from unnest($1::int[]) as pid', [ending]);
      return () => {};
    },
    'somebody locks the table': holding('lock table sessions in access exclusive mode'),
    'somebody locks sessions': holding(
      'select from sessions where data is not null order by random() limit 40 for update',
    ),
    'the app discards what its connections have prepared': async ({ discard }) => {
      await discard();
      return () => {};
    },
    'the server is read-only': async ({ admin }) => {
      await admin.query('alter system set default_transaction_read_only = on');
      await admin.query('select pg_reload_conf()');
      return async () => {
        await admin.query('alter system reset default_transaction_read_only');
        await admin.query('select pg_reload_conf()');
      };
    },
  }).map(([name, begin]) => ({ name, isKill: false, begin })),
];

const stranded: (() => void)[] = [];

/** Ends server connections whose clients have gone without closing them. */
export function endStranded(): void {
  for (const end of stranded.splice(0)) end();
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended meanwhile.
  }
}
