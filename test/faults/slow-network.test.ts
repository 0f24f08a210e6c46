import { DrizzleStore, type Source } from 'connect-drizzle';
import postgres from 'postgres';
import { type TestContext, test } from 'vitest';
import { freshDatabase, type TestDatabase } from '../support/database.js';
import { eventually } from '../support/eventually.js';
import { startProxy } from '../support/proxy.js';
import { BUSY_TIMEOUT_S, sessionWith } from '../support/sessions.js';

type Ends = Pick<TestContext, 'onTestFinished'>;

function sqlOn(url: string, { onTestFinished }: Ends): postgres.Sql {
  const sql = postgres(url, { onnotice: () => {} });
  onTestFinished(() => sql.end());
  return sql;
}

const drivers: [string, (url: string, ends: Ends, database: TestDatabase) => Source][] = [
  ['node-postgres', (url, _ends, database) => database.pool({ connectionString: url })],
  ['postgres-js', sqlOn],
];

function storeOn(source: Source, timeout: number, { onTestFinished }: Ends): DrizzleStore {
  const store = new DrizzleStore(source, {
    timeout,
    pruneSessionInterval: false,
    errorLog: () => {},
  });
  onTestFinished(() => store.close());
  return store;
}

// The tests mostly wait for the network, so they run side by side, each with a database of its own.
test.concurrent.for(drivers)(
  'over a slow network, concurrent changes of one session end within their timeout, on %s',
  async ([, connect], { expect, onTestFinished }) => {
    const ends = { onTestFinished };
    const database = await freshDatabase();
    onTestFinished(() => database.drop());
    const setUp = storeOn(database.pool(), BUSY_TIMEOUT_S, ends);
    await setUp.migrate();
    await setUp.set('sid', sessionWith({ n: 0 }));
    const proxy = await startProxy(database.url);
    onTestFinished(() => proxy.close());
    const stores = [1, 2].map(() => storeOn(connect(proxy.url, ends, database), 5, ends));
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
