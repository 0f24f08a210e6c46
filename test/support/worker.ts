/**
 * A process with a store of its own, which does what the test tells it to.
 */
import { once } from 'node:events';
import { DrizzleStore, type DrizzleStoreOptions, idOf } from 'connect-drizzle';
import pg from 'pg';
import postgres from 'postgres';
import { contentOf, sessionWith } from './sessions.js';
import type { Reply, Request } from './workers.js';

export type Driver = 'node-postgres' | 'postgres-js' | 'PGlite';

export interface StoreAt {
  readonly driver?: Driver;
  readonly url?: string;
  readonly options?: DrizzleStoreOptions;
}

let opened: DrizzleStore | undefined;
const logged: string[] = [];

function store(): DrizzleStore {
  if (opened === undefined) throw new Error('The store is not open');
  return opened;
}

/** On the monotonic clock, which all processes of a machine share. */
function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** When a `change` or `destroy` of an id was heard. */
const heardAt = new Map<string, number>();

const commands = {
  async open({ driver = 'node-postgres', url = '', options = {} }: StoreAt) {
    opened = new DrizzleStore(sourceOf(driver, url), {
      createTableIfMissing: true,
      pruneSessionInterval: false,
      errorLog: (message) => logged.push(message),
      ...options,
    });
    for (const name of ['change', 'destroy']) {
      opened.on(name, ({ id }: { id: string }) => heardAt.set(`${name} ${id}`, nowMs()));
    }
    await opened.ready();
  },
  async untilSync(state: 'up' | 'down') {
    while (store().stats().sync !== state) await once(store(), 'sync');
  },
  async untilHeard(name: 'change' | 'destroy', sid: string) {
    const event = `${name} ${idOf(sid)}`;
    while (!heardAt.has(event)) await once(store(), name);
    return heardAt.get(event) ?? Number.NaN;
  },
  async get(sid: string) {
    return contentOf(await store().get(sid));
  },
  /** Gives the times of the call and of the answer. */
  async set(sid: string, data: object) {
    const calledAt = nowMs();
    await store().set(sid, sessionWith(data));
    return { calledAt, answeredAt: nowMs() };
  },
  async destroy(sid: string) {
    const calledAt = nowMs();
    await store().destroy(sid);
    return { calledAt, answeredAt: nowMs() };
  },
  async stats() {
    return store().stats();
  },
  async logged() {
    return logged;
  },
};

export type Commands = typeof commands;

function sourceOf(driver: Driver, url: string) {
  if (driver === 'PGlite') return 'memory://';
  if (driver === 'postgres-js') return postgres(url, { idle_timeout: 1, onnotice: () => {} });
  const pool = new pg.Pool({ connectionString: url, allowExitOnIdle: true });
  pool.on('error', () => {});
  return pool;
}

process.on('message', async ({ number, name, args }: Request) => {
  const reply = (answer: Omit<Reply, 'number'>) => process.send?.({ number, ...answer });
  try {
    const command: (...args: never[]) => Promise<unknown> = commands[name];
    reply({ result: await command(...(args as never[])) });
  } catch (error) {
    reply({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  }
});
