import { DrizzleStore, type Source } from 'connect-drizzle';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { eventually } from '../support/eventually.js';
import { startProxy } from '../support/proxy.js';
import { type ReusedDatabase, reusedDatabase } from '../support/reused-database.js';
import { sessionWith } from '../support/sessions.js';

let database: ReusedDatabase;
const ends: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await database.clear();
});

afterAll(() => database.drop());

function sqlOn(url: string): postgres.Sql {
  const sql = postgres(url, { onnotice: () => {} });
  ends.push(() => sql.end());
  return sql;
}

const drivers: readonly (readonly [string, (url: string) => Source])[] = [
  ['node-postgres', (url) => database.pool({ connectionString: url })],
  ['postgres-js', sqlOn],
];

function storeOn(source: Source, timeout: number): DrizzleStore {
  const store = new DrizzleStore(source, {
    timeout,
    pruneSessionInterval: false,
    errorLog: () => {},
  });
  ends.push(() => store.close());
  return store;
}

test.each(drivers)(
  'over a slow network, concurrent changes of one session end within their timeout, on %s',
  async (_driver, connect) => {
    const setUp = await database.store();
    await setUp.set('sid', sessionWith({ n: 0 }));
    const proxy = await startProxy(database.url);
    ends.push(() => proxy.close());
    const stores = [1, 2].map(() => storeOn(connect(proxy.url), 5));
    await Promise.all(stores.map((store) => eventually(() => store.ready())));
    proxy.delay(300);
    let tries = 0;
    const increment = (store: DrizzleStore) => {
      tries += 1;
      return store.update('sid', (session) => {
        Object.assign(session, { n: Number(Reflect.get(session, 'n')) + 1 });
      });
    };
    const startedAt = performance.now();
    const calls = stores.flatMap((store) => [
      ...Array.from({ length: 20 }, () => increment(store)),
      ...Array.from({ length: 20 }, async (_, at) => {
        const session = await store.get('sid');
        if (session !== undefined) {
          await store.set('sid', Object.assign(session, { [`key ${at}`]: true }));
        }
      }),
    ]);
    const outcomes = await Promise.allSettled(calls);
    const tookMs = performance.now() - startedAt;
    const updates = outcomes.filter(({ status }, at) => at % 40 < 20 && status === 'fulfilled');
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected') {
        expect(outcome.reason).toMatchObject({ code: 'ERR_STORE_TIMEOUT' });
      }
    }
    // A load and a save, each with `timeout` and one statement more.
    expect(tookMs).toBeLessThan(20_000);
    // A call without a rival succeeds.
    for (const store of stores) await eventually(() => increment(store));
    proxy.delay(0);
    const n = Number(Reflect.get((await setUp.get('sid')) ?? {}, 'n'));
    expect(n).toBeGreaterThanOrEqual(updates.length + stores.length);
    expect(n).toBeLessThanOrEqual(tries);
  },
);
