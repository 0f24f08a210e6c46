import { execFileSync } from 'node:child_process';
import { Socket } from 'node:net';
import { DrizzleStore } from 'connect-drizzle';
import { describe, expect, test } from 'vitest';
import { channelOf } from '../../src/sync/channel.js';
import { socketsRead } from '../../src/util/clock.js';
import { database, ends, networkSources, useDatabase } from '../support/fault-database.js';
import { gate } from '../support/gate.js';
import { holding } from '../support/obstacles.js';
import { untilSync, up } from '../support/realtime.js';
import { contentOf, sessionWith } from '../support/sessions.js';

useDatabase();

const clients = networkSources({}, { max: 1 });

/**
 * Blocks the event loop of this process. Meanwhile, another process ends all idle transactions, waits until the
 * server has answered everything, and then for so many seconds more.
 */
function blockUntilAnswered(seconds: number): void {
  const program = `
    import pg from 'pg';
    const client = new pg.Client({ connectionString: process.env.URL });
    await client.connect();
    await client.query(\`select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and state = 'idle in transaction'\`);
    const busy = \`select from pg_stat_activity
      where datname = current_database() and state = 'active' and wait_event is distinct from 'ClientRead' and pid <> pg_backend_pid()\`;
    while ((await client.query(busy)).rowCount > 0);
    await client.end();
    await new Promise((resolve) => setTimeout(resolve, ${seconds * 1000}));
  `;
  execFileSync(process.execPath, ['--input-type=module', '--eval', program], {
    env: { ...process.env, URL: database.url },
  });
}

/** Opens a store on each source. All of them use one event loop, which is blocked once for all. */
async function openStores(
  options: ConstructorParameters<typeof DrizzleStore>[1],
): Promise<{ driver: string; store: DrizzleStore }[]> {
  // Creates the table.
  await database.store();
  return clients.map(([driver, source]) => {
    const store = new DrizzleStore(source(database.url), {
      pruneSessionInterval: false,
      ...options,
    });
    ends.push(() => store.close());
    return { driver, store };
  });
}

/** Runs `work` just after the first heartbeat of each store was written to a socket. */
async function afterHeartbeats(stores: number, work: () => void): Promise<void> {
  const senders = new Set<string>();
  const channel = channelOf('public', 'sessions');
  const { write } = Socket.prototype;
  const all = gate();
  Socket.prototype.write = new Proxy(write, {
    apply(_, socket: Socket, args: Parameters<typeof write>) {
      const piece = Buffer.from(args[0]).toString('latin1');
      const sender = piece.includes(channel) ? /h([\w-]{8})\d/.exec(piece)?.[1] : undefined;
      if (sender !== undefined && !senders.has(sender)) {
        senders.add(sender);
        process.nextTick(() => {
          work();
          if (senders.size === stores) all.open();
        });
      }
      return Reflect.apply(write, socket, args);
    },
  });
  try {
    await all.opened;
  } finally {
    Socket.prototype.write = write;
  }
}

describe('an event loop that was blocked for longer than timeout', () => {
  test('fails no call whose answer has arrived', async () => {
    // Long enough for a busy machine to send a statement.
    const timeout = 10;
    const stores = await openStores({ timeout });
    const save = (n: number) =>
      stores.map(({ driver, store }) => store.set(driver, sessionWith({ n })));
    // postgres-js needs two round trips for the first use of a statement, one for later uses.
    for (const n of [0, 1]) await Promise.all(save(n));
    const table = await holding(database, 'lock table sessions in access exclusive mode');
    const saves = Promise.allSettled(save(2));
    await table.waiting(stores.length);
    blockUntilAnswered(timeout);
    table.client.release(true);
    const outcomes = await saves;
    for (const [at, { driver, store }] of stores.entries()) {
      expect(outcomes[at], driver).toEqual({ status: 'fulfilled', value: undefined });
      expect(contentOf(await store.get(driver)), driver).toEqual({ n: 2 });
    }
  });

  test('keeps a listener whose heartbeats have arrived', async () => {
    const stores = await openStores({ sync: { heartbeat: 2 } });
    await up(...stores.map(({ store }) => store));
    const wereDown: string[] = [];
    for (const { driver, store } of stores) {
      void untilSync(store, 'down').then(() => wereDown.push(driver));
    }
    await afterHeartbeats(stores.length, () => blockUntilAnswered(2.4));
    // The timer that was late has checked the heartbeat by then.
    await socketsRead();
    await socketsRead();
    expect(wereDown).toEqual([]);
  });
});
