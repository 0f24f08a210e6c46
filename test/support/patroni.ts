import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import { freePort } from './postgres.js';

const PROGRAMS = ['/usr/bin/patroni', '/usr/bin/etcd', '/usr/sbin/haproxy'];
const SERVERS = [18, 17, 16, 15, 14].map((version) => `/usr/lib/postgresql/${version}/bin`);
const bin = SERVERS.find((folder) => existsSync(join(folder, 'postgres')));

/** Programs that a cluster needs and that are not installed (Debian's patroni, etcd-server, haproxy, postgresql). */
export const missingForPatroni: readonly string[] = [
  ...PROGRAMS.filter((path) => !existsSync(path)),
  ...(bin === undefined ? ['/usr/lib/postgresql/*/bin/postgres'] : []),
];

/** Seconds after which a lost leader is replaced. Patroni's default is 30. */
const TTL = 8;
const PASSWORD = 'secret';
const START_LIMIT_MS = 90_000;

interface Node {
  readonly name: string;
  readonly folder: string;
  readonly config: string;
  readonly port: number;
  readonly apiPort: number;
}

/** Three Postgres servers managed by Patroni, behind HAProxy. */
export interface Cluster {
  /** The URL of the primary, through HAProxy, as a superuser. */
  readonly url: string;
  /** The name of the primary. */
  leader(): Promise<string>;
  /** Asks Patroni to make another node the primary. Resolves when it has started. */
  switchover(): Promise<void>;
  /** Ends a node's Patroni and its Postgres with SIGKILL. */
  kill(name: string): Promise<void>;
  /** Resolves when another node is the primary and accepts writes. */
  primaryOtherThan(name: string): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts a cluster on the loopback interface, in a temporary folder. */
export async function startPatroni(): Promise<Cluster> {
  if (missingForPatroni.length > 0) throw new Error(`not installed: ${missingForPatroni}`);
  const owner = serverUser();
  const folder = await mkdtemp(join(tmpdir(), 'connect-drizzle-patroni-'));
  await own(folder, owner);
  const children = new Map<string, ChildProcess>();
  const logs = new Map<string, string>();
  const killAll = () => {
    for (const child of children.values()) child.kill('SIGKILL');
  };
  process.once('exit', killAll);

  const run = (name: string, program: string, args: string[], as?: User) => {
    const child = spawn(program, args, {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(as && { uid: as.uid, gid: as.gid }),
      env: { PATH: '/usr/bin:/bin', LANG: 'C.UTF-8', HOME: folder },
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        logs.set(name, ((logs.get(name) ?? '') + text).slice(-20_000));
      });
    }
    child.once('error', (error) => logs.set(name, String(error)));
    children.set(name, child);
  };

  const [clientPort, peerPort, frontPort] = [await freePort(), await freePort(), await freePort()];
  const nodes: Node[] = [];
  for (const name of ['node1', 'node2', 'node3']) {
    const home = join(folder, name);
    nodes.push({
      name,
      folder: home,
      config: `${home}.yml`,
      port: await freePort(),
      apiPort: await freePort(),
    });
  }
  const [first] = nodes;
  if (first === undefined) throw new Error('no nodes');
  for (const node of nodes) {
    await mkdir(node.folder, { mode: 0o700 });
    await writeFile(node.config, patroniConfiguration(node, clientPort));
    for (const path of [node.folder, node.config]) await own(path, owner, 0o700);
  }
  await writeFile(join(folder, 'haproxy.cfg'), haproxyConfiguration(frontPort, nodes));

  const apiOf = async (node: Node, path: string, init?: RequestInit) => {
    const url = `http://127.0.0.1:${node.apiPort}${path}`;
    return fetch(url, { ...init, signal: AbortSignal.timeout(2000) }).catch(() => undefined);
  };
  const waitFor = async <T>(what: string, find: () => Promise<T | undefined>): Promise<T> => {
    const startedAt = Date.now();
    for (;;) {
      const found = await find();
      if (found !== undefined) return found;
      if (Date.now() - startedAt > START_LIMIT_MS) {
        const last = [...logs].map(([name, log]) => `${name}:\n${log.slice(-1500)}`);
        throw new Error(`${what}: timed out\n${last.join('\n')}`);
      }
      await pause(50);
    }
  };
  const startNode = (node: Node) => run(node.name, '/usr/bin/patroni', [node.config], owner);
  const nodeNamed = (name: string) => {
    const node = nodes.find((each) => each.name === name);
    if (node === undefined) throw new Error(`no node ${name}`);
    return node;
  };
  const findLeader = async () => {
    for (const node of nodes) {
      const answer = await apiOf(node, '/primary');
      if (answer?.status === 200) return node;
    }
    return undefined;
  };
  /** Returns the node if it follows the primary, synchronously or not. */
  const follows = async (node: Node) =>
    (await apiOf(node, '/replica'))?.status === 200 ? node : undefined;
  const synchronousStandby = async () => {
    for (const node of nodes) {
      if ((await apiOf(node, '/synchronous'))?.status === 200) return node;
    }
    return undefined;
  };

  const url = `postgres://postgres:${PASSWORD}@127.0.0.1:${frontPort}/postgres`;
  /** Returns the port of the primary to which HAProxy leads. */
  const writable = async () => {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
    client.on('error', () => {});
    try {
      await client.connect();
      const { rows } = await client.query<{ port: number }>(
        'select inet_server_port() as port where not pg_is_in_recovery()',
      );
      return rows[0]?.port;
    } catch {
      return undefined;
    } finally {
      await client.end().catch(() => {});
    }
  };

  const dispose = async () => {
    process.off('exit', killAll);
    // Patroni stops its Postgres.
    for (const node of nodes) children.get(node.name)?.kill('SIGTERM');
    await Promise.all(nodes.map((node) => ended(children.get(node.name))));
    for (const name of ['haproxy', 'etcd']) children.get(name)?.kill('SIGKILL');
    await Promise.all(['haproxy', 'etcd'].map((name) => ended(children.get(name))));
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  };

  try {
    const etcd = (port: number) => `http://127.0.0.1:${port}`;
    run('etcd', '/usr/bin/etcd', [
      ...['--name', 'etcd', '--data-dir', join(folder, 'etcd'), '--log-level', 'error'],
      ...['--listen-client-urls', etcd(clientPort), '--advertise-client-urls', etcd(clientPort)],
      ...['--listen-peer-urls', etcd(peerPort), '--initial-advertise-peer-urls', etcd(peerPort)],
      ...['--initial-cluster', `etcd=${etcd(peerPort)}`],
    ]);
    run('haproxy', '/usr/sbin/haproxy', ['-db', '-f', join(folder, 'haproxy.cfg')]);
    startNode(first);
    await waitFor('the first node is the primary', findLeader);
    for (const node of nodes.slice(1)) startNode(node);
    for (const node of nodes.slice(1)) await waitFor(`${node.name} follows`, () => follows(node));
    await waitFor('a standby is synchronous', synchronousStandby);
    await waitFor('HAProxy leads to the primary', writable);
  } catch (error) {
    await dispose();
    throw error;
  }

  return {
    url,
    leader: async () => (await waitFor('there is a primary', findLeader)).name,
    async switchover() {
      const leader = await waitFor('there is a primary', findLeader);
      const candidate = await waitFor('a standby is synchronous', synchronousStandby);
      const body = JSON.stringify({ leader: leader.name, candidate: candidate.name });
      const answer = await fetch(`http://127.0.0.1:${leader.apiPort}/switchover`, {
        method: 'POST',
        body,
      });
      if (answer.status !== 200) throw new Error(`${answer.status}: ${await answer.text()}`);
    },
    async kill(name) {
      const node = nodeNamed(name);
      const patroni = children.get(name);
      const pidFile = await readFile(join(node.folder, 'data', 'postmaster.pid'), 'utf8');
      patroni?.kill('SIGKILL');
      process.kill(Number(pidFile.split('\n')[0]), 'SIGKILL');
      await ended(patroni);
    },
    async primaryOtherThan(name) {
      const { port } = nodeNamed(name);
      await waitFor('there is another primary', async () => {
        const at = await writable();
        return at === undefined || at === port ? undefined : at;
      });
    },
    [Symbol.asyncDispose]: dispose,
  };
}

function patroniConfiguration({ name, folder, port, apiPort }: Node, etcdPort: number): string {
  return `scope: shop
name: ${name}
restapi:
  listen: 127.0.0.1:${apiPort}
  connect_address: 127.0.0.1:${apiPort}
etcd3:
  hosts: 127.0.0.1:${etcdPort}
bootstrap:
  dcs:
    ttl: ${TTL}
    loop_wait: 1
    retry_timeout: 3
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters:
        wal_log_hints: 'on'
  initdb:
    - encoding: UTF8
    - locale: C.UTF-8
  pg_hba:
    - host all all 127.0.0.1/32 scram-sha-256
    - host replication replicator 127.0.0.1/32 scram-sha-256
postgresql:
  listen: 127.0.0.1:${port}
  connect_address: 127.0.0.1:${port}
  data_dir: ${join(folder, 'data')}
  bin_dir: ${bin}
  pgpass: ${join(folder, 'pgpass')}
  parameters:
    unix_socket_directories: ${folder}
  authentication:
    superuser: { username: postgres, password: ${PASSWORD} }
    replication: { username: replicator, password: ${PASSWORD} }
    rewind: { username: rewinder, password: ${PASSWORD} }
`;
}

function haproxyConfiguration(frontPort: number, nodes: readonly Node[]): string {
  const servers = nodes.map(
    ({ name, port, apiPort }) => `  server ${name} 127.0.0.1:${port} check port ${apiPort}`,
  );
  return `global
  maxconn 1000
defaults
  mode tcp
  retries 2
  timeout connect 2s
  timeout client 30m
  timeout server 30m
  timeout check 2s
listen primary
  bind 127.0.0.1:${frontPort}
  option httpchk GET /primary
  http-check expect status 200
  default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
${servers.join('\n')}
`;
}

interface User {
  readonly uid: number;
  readonly gid: number;
}

/** The user to run Postgres as, because it refuses to run as root. Debian's package creates it. */
export function serverUser(): User | undefined {
  if (userInfo().uid !== 0) return undefined;
  const [uid, gid] = ['-u', '-g'].map((flag) =>
    Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' })),
  );
  if (uid === undefined || gid === undefined) throw new Error('no user postgres');
  return { uid, gid };
}

async function own(path: string, user: User | undefined, mode = 0o755): Promise<void> {
  await chmod(path, mode);
  if (user !== undefined) await chown(path, user.uid, user.gid);
}

async function ended(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  await once(child, 'exit');
}
