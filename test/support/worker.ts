/**
 * A process with a store, which runs the commands that the test sends.
 */
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { DrizzleStore, type DrizzleStoreOptions, idOf } from 'connect-drizzle';
import pg from 'pg';
import postgres from 'postgres';
import { contentOf, sessionWith } from './sessions.js';
import type { Observation } from './staleness.js';
import type { Reply, Request } from './workers.js';

export type Driver = 'node-postgres' | 'postgres-js';

export interface StoreAt {
  readonly driver?: Driver;
  readonly url: string;
  readonly options?: DrizzleStoreOptions;
}

/** Milliseconds on the monotonic clock, which all processes of a machine share. */
export interface Took {
  readonly calledAt: number;
  readonly answeredAt: number;
}

let opened: DrizzleStore | undefined;
const logged: string[] = [];

function store(): DrizzleStore {
  if (opened === undefined) throw new Error('The store is not open');
  return opened;
}

function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

async function timed(work: () => Promise<unknown>): Promise<Took> {
  const calledAt = nowMs();
  await work();
  return { calledAt, answeredAt: nowMs() };
}

/** When the first `change` or `destroy` of each id was heard. */
const heardAt = new Map<string, number>();

const commands = {
  async open({ driver = 'node-postgres', url, options = {} }: StoreAt) {
    opened = new DrizzleStore(sourceOf(driver, url), {
      createTableIfMissing: true,
      pruneSessionInterval: false,
      errorLog: (message) => logged.push(message),
      ...options,
    });
    for (const name of ['change', 'destroy']) {
      opened.on(name, ({ id }: { id: string }) => {
        const event = `${name} ${id}`;
        if (!heardAt.has(event)) heardAt.set(event, nowMs());
      });
    }
    await opened.ready();
  },
  async untilSync(state: 'up' | 'down') {
    while (store().stats().sync !== state) await once(store(), 'sync');
  },
  /** Waits for the events of these sessions and returns when they were heard. */
  async untilHeard(name: 'change' | 'destroy', sids: readonly string[]): Promise<number[]> {
    const events = sids.map((sid) => `${name} ${idOf(sid)}`);
    while (!events.every((event) => heardAt.has(event))) await once(store(), name);
    return events.map((event) => heardAt.get(event) ?? Number.NaN);
  },
  async get(sid: string) {
    return contentOf(await store().get(sid));
  },
  async set(sid: string, data: object) {
    return timed(() => store().set(sid, sessionWith(data)));
  },
  /** Saves the sessions one after the other, with a pause after each. */
  async setEach(sids: readonly string[]): Promise<Took[]> {
    const took: Took[] = [];
    for (const sid of sids) {
      took.push(await timed(() => store().set(sid, sessionWith())));
      await pause(2);
    }
    return took;
  },
  async destroy(sid: string) {
    return timed(() => store().destroy(sid));
  },
  /** Reads until the session is as expected. Returns when the last read started that found another one. */
  async readUntil(sid: string, data: object | undefined): Promise<number> {
    for (let staleAt = Number.NEGATIVE_INFINITY; ; ) {
      const calledAt = nowMs();
      const found = await store().get(sid);
      if (JSON.stringify(contentOf(found)) === JSON.stringify(data)) return staleAt;
      staleAt = calledAt;
      await pause(1);
    }
  },
  /** Reads until the cache answers. */
  async untilHit(sid: string) {
    const { hits } = store().stats();
    while (store().stats().hits === hits) {
      await store().get(sid);
      await pause(1);
    }
  },
  /** Reads, writes and ends sessions at random. Returns what it has observed. */
  async live({ sids, callers, ms }: { sids: readonly string[]; callers: number; ms: number }) {
    const observed: Observation[] = [];
    const until = nowMs() + ms;
    const live = async () => {
      while (nowMs() < until) {
        const sid = sids[Math.floor(Math.random() * sids.length)] ?? '';
        const calledAt = nowMs();
        // A call that failed is no observation.
        const version = await act(sid).catch(() => undefined);
        if (version !== undefined) observed.push({ sid, version, calledAt, answeredAt: nowMs() });
        await pause(1);
      }
    };
    await Promise.all(Array.from({ length: callers }, live));
    return observed;
  },
  async stats() {
    return store().stats();
  },
  async logged() {
    return logged;
  },
};

export type Commands = typeof commands;

/** Returns the version that was read or written; infinity if the session has ended. */
async function act(sid: string): Promise<number | undefined> {
  const chance = Math.random();
  if (chance < 0.003) {
    await store().destroy(sid);
    return Number.POSITIVE_INFINITY;
  }
  const session =
    chance < 0.2
      ? await store().update(sid, (found) =>
          Object.assign(found, { version: versionOf(found) + 1 }),
        )
      : await store().get(sid);
  return session === undefined ? Number.POSITIVE_INFINITY : versionOf(session);
}

function versionOf(session: object): number {
  return Number(Reflect.get(session, 'version'));
}

function sourceOf(driver: Driver, url: string) {
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
