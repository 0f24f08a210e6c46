import { DrizzleStore, idOf, StoreTimeoutError } from 'connect-drizzle';
import postgres from 'postgres';
import { describe, expect } from 'vitest';
import { noConnectionWithin } from '../src/drivers/support/no-connection.js';
import { eventually, untilSent } from './support/eventually.js';
import { holding, until } from './support/obstacles.js';
import { type OwnDatabase, test } from './support/own-database.js';
import { startProxy, type Proxy as TcpProxy } from './support/proxy.js';
import { contentOf, endOf, sessionUntil, sessionWith } from './support/sessions.js';
import { onPortable } from './support/statement-set.js';

const silent = { pruneSessionInterval: false, errorLog: () => {} } as const;

function times<T>(count: number, make: (at: number) => T): T[] {
  return Array.from({ length: count }, (_, at) => make(at));
}

/** Resolves when a condition of this process is true. */
async function soon(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise(setImmediate);
}

const inBatches = onPortable('a portable statement has one row: there are no batches');

// First, because it takes longest of those that run at the same time.
test.skipIf(inBatches)(
  "the connection of a batch outlives an impatient caller's deadline",
  { concurrent: true },
  async ({ database, expect }) => {
    const store = await database.store({ timeout: 20, touchAfter: 0 }, database.pool({ max: 2 }));
    const locks = { before: 1, impatient: 2, patient: 2 };
    for (const [sid, lock] of Object.entries(locks)) await store.set(sid, sessionWith({ lock }));
    await database.query(`
    create function hold() returns trigger language plpgsql as $$ begin
      perform pg_advisory_xact_lock_shared((new.data ->> 'lock')::int);
      return new;
    end $$;
    create trigger hold before update on sessions for each row execute function hold();
  `);
    const until = new Date('2100-01-01');
    const touch = (sid: string) => store.touch(sid, sessionUntil(until));
    const waiting = () =>
      database.query(
        `select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      );
    const first = await holding(database, 'select pg_advisory_xact_lock(1)');
    const second = await holding(database, 'select pg_advisory_xact_lock(2)');
    const before = touch('before');
    await first.waiting(1);
    const impatient = touch('impatient');
    // Half of its time passes before it is sent together with one that has all of its time left.
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    const patient = touch('patient');
    await first.release();
    await before;
    await second.waiting(1);
    const connection = await waiting();
    await expect(impatient).rejects.toThrow(StoreTimeoutError);
    expect(await waiting()).toEqual(connection);
    await second.release();
    await patient;
    expect(endOf(await store.get('impatient'))).toBe(until.getTime());
    expect(endOf(await store.get('patient'))).toBe(until.getTime());
  },
);

/** The number of rows that a store has sent, each counted once. */
function rowsSent(store: DrizzleStore): number {
  const { rows, retries } = store.stats();
  return rows - retries;
}

describe.concurrent('a call that gives up before it was sent', () => {
  /** A store whose pool has one connection, which the app holds. */
  async function heldPool(database: OwnDatabase, timeout: number) {
    const pool = database.pool({ max: 1 });
    const store = await database.store({ timeout, touchAfter: 0 }, pool);
    const app = await pool.connect();
    app.on('error', () => {});
    return { pool, store, app };
  }

  test('is never sent if it waited for a connection', async ({ database, expect }) => {
    const { pool, store, app } = await heldPool(database, 0.3);
    const calls = [store.set('a', sessionWith()), store.set('b', sessionWith())];
    for (const call of calls) await expect(call).rejects.toThrow(StoreTimeoutError);
    app.release();
    await soon(() => pool.waitingCount === 0 && pool.idleCount === 1);
    let tries = 0;
    await eventually(() => {
      tries += 1;
      return store.set('c', sessionWith());
    });
    await store.close();
    expect(rowsSent(store)).toBeLessThanOrEqual(tries);
    expect(await database.query('select id from sessions')).toEqual([{ id: idOf('c') }]);
  });

  test('is never sent if it waited for its turn', async ({ database, expect }) => {
    const store = await database.store({ timeout: 0.5 });
    await eventually(() => store.set('a', sessionWith({ n: 0 })));
    const table = await holding(database, 'lock table sessions in access exclusive mode');
    const before = rowsSent(store);
    let tries = 0;
    const calls = await untilSent(table.waiting(1), () => {
      tries += 1;
      return [...times(3, (n) => store.set('a', sessionWith({ n: n + 1 }))), store.destroy('a')];
    });
    for (const call of calls) await expect(call).rejects.toThrow(StoreTimeoutError);
    await table.release();
    // It does not keep later calls for its id waiting.
    await eventually(() => {
      tries += 1;
      return store.get('a');
    });
    await store.close();
    expect(rowsSent(store) - before).toBeLessThanOrEqual(tries);
    const [row] = await database.query<{ data: object | null }>('select data from sessions');
    // The first was sent: it may have taken effect.
    expect([{ n: 0 }, { n: 1 }]).toContainEqual(contentOf(row?.data));
  });

  const waitsBriefly = onPortable('a write waits for a lock for 50 ms, and is sent again');
  test.skipIf(waitsBriefly)(
    'is never sent if an earlier one still waits',
    async ({ database, expect }) => {
      const store = await database.store({ timeout: 20, touchAfter: 0 }, database.pool({ max: 2 }));
      for (const sid of ['a', 'b']) await store.set(sid, sessionWith());
      await database.query(`
        create function hold() returns trigger language plpgsql as $$ begin
          perform pg_advisory_xact_lock_shared(1);
          return new;
        end $$;
        create trigger hold before update on sessions for each row execute function hold();
      `);
      const dates = ['2090-01-01', '2100-01-01'].map((text) => new Date(text));
      const [earlier, later] = dates.map((date) => sessionUntil(date));
      if (earlier === undefined || later === undefined) throw new Error('no dates');
      const row = await holding(database, 'select pg_advisory_xact_lock(1)');
      const table = await holding(database, 'select');
      const before = rowsSent(store);
      const first = store.touch('a', earlier);
      await row.waiting(1);
      const impatient = store.touch('a', later);
      await new Promise((resolve) => setTimeout(resolve, 10_000));
      // They come after the second touch, but its turn comes only when the first has ended.
      const read = store.get('other');
      const patient = store.touch('b', later);
      const locked = table.client.query('lock table sessions in access exclusive mode');
      await row.waiting(2);
      await row.release();
      await Promise.all([first, locked]);
      await table.waiting(1);
      await expect(impatient).rejects.toThrow(StoreTimeoutError);
      await table.release();
      await Promise.all([read, patient]);
      // Those of the first touch, of the patient one, and of the read.
      expect(rowsSent(store) - before).toBe(3);
      expect(endOf(await store.get('a'))).toBe(dates[0]?.getTime());
      expect(endOf(await store.get('b'))).toBe(dates[1]?.getTime());
    },
  );

  test('fails with `sent: false`, even if it has joined others and its turn has come', async ({
    database,
    expect,
  }) => {
    const { pool, store, app } = await heldPool(database, 3);
    // A touch that waits for the connection, and two that wait for their turn together.
    const calls = times(3, () => store.touch('a', sessionWith()));
    await soon(() => pool.waitingCount === 1);
    // After the first one was answered, there is no connection for the others.
    const next = pool.connect();
    app.release();
    await Promise.allSettled(calls.slice(0, 1));
    const held = await next;
    held.on('error', () => {});
    for (const call of calls.slice(1)) await expect(call).rejects.toMatchObject({ sent: false });
    held.release();
  });

  test('does not shorten the wait of a call that comes after it', async ({ database, expect }) => {
    const { store, app } = await heldPool(database, 1);
    await expect(store.get('a')).rejects.toThrow(StoreTimeoutError);
    // The lane's own wait for a connection ends a tenth of a second after the first call's.
    const startedAt = performance.now();
    await expect(store.get('b')).rejects.toThrow(StoreTimeoutError);
    expect(performance.now() - startedAt).toBeGreaterThan(900);
    app.release();
    expect(await eventually(() => store.get('c'))).toBeUndefined();
  });
});

describe.concurrent('calls on a network that swallows everything', () => {
  const options = { ...silent, timeout: 0.5 } as const;

  /** Fails 60 calls of all kinds, and shows that each kind works when the network is back. */
  async function silence(database: OwnDatabase, proxy: TcpProxy, store: DrizzleStore) {
    await eventually(() => store.set('sid', sessionWith({ n: 1 })));
    proxy.swallow();
    const outcomes = await Promise.allSettled([
      ...times(20, (n) => store.get(`sid ${n}`)),
      ...times(15, (n) => store.set(`sid ${n}`, sessionWith())),
      ...times(10, (n) => store.touch(`other ${n}`, sessionWith())),
      ...times(5, (n) => store.destroy(`gone ${n}`)),
      ...times(2, () => store.ready()),
      store.update('sid', () => {}),
      store.length(),
      store.ids(),
      store.all(),
      store.clear(),
      store.pruneSessions(),
      store.revoke(idOf('sid')),
      store.get('sid'),
    ]);
    expect(outcomes).toHaveLength(60);
    expect(
      outcomes.map(
        (each) => each.status === 'rejected' && each.reason instanceof StoreTimeoutError,
      ),
    ).toEqual(outcomes.map(() => true));
    const [clock] = await database.query<{ now: string }>('select now()::text as now');
    proxy.release();
    expect(contentOf(await eventually(() => store.get('sid')))).toEqual({ n: 1 });
    await eventually(() => store.set('sid', sessionWith({ n: 2 })));
    await eventually(() => store.touch('sid', sessionWith()));
    expect(await eventually(() => store.length())).toBe(1);
    expect(await eventually(() => store.pruneSessions())).toBe(0);
    await eventually(() => store.ready());
    await eventually(() => store.revoke(idOf('sid')));
    expect(await eventually(() => store.get('sid'))).toBeUndefined();
    return clock?.now;
  }

  /** Only the newer connections: the server does not notice that the older ones are gone. */
  const connectionsSince = async (database: OwnDatabase, time: string | undefined) => {
    const [row] = await database.query<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity
       where datname = current_database() and application_name = 'silent' and backend_start > $1`,
      [time],
    );
    return row?.count;
  };

  const urlOf = ({ url }: { url: string }) => `${url}?application_name=silent`;

  test.for([undefined, 0])(
    "cost an app's pool with connectionTimeoutMillis: %s no connection",
    async (connectionTimeoutMillis, { database, expect }) => {
      await database.store();
      await using proxy = await startProxy(database.url);
      const pool = database.pool({ connectionString: proxy.url, connectionTimeoutMillis });
      const store = new DrizzleStore(pool, options);
      await silence(database, proxy, store);
      await store.close();
      await soon(() => pool.totalCount === pool.idleCount && pool.waitingCount === 0);
      expect(pool.options.connectionTimeoutMillis).toBe(connectionTimeoutMillis);
      await pool.end();
      expect(pool.totalCount).toBe(0);
    },
  );

  test('cost the pool of a URL no connection', async ({ database, expect }) => {
    await database.store();
    await using proxy = await startProxy(database.url);
    const store = new DrizzleStore(urlOf(proxy), options);
    const since = await silence(database, proxy, store);
    expect(await connectionsSince(database, since)).toBeGreaterThan(0);
    await store.close();
    await until(async () => (await connectionsSince(database, since)) === 0);
  });

  test('leave no connection of the store beside those of postgres-js', async ({
    database,
    expect,
  }) => {
    await database.store();
    await using proxy = await startProxy(database.url);
    const sql = postgres(urlOf(proxy), { onnotice: () => {} });
    database.atEnd(() => sql.end({ timeout: 0 }));
    const store = new DrizzleStore(sql, options);
    const since = await silence(database, proxy, store);
    expect(await connectionsSince(database, since)).toBeGreaterThan(0);
    await store.close();
    await until(async () => (await connectionsSince(database, since)) === 0);
  });
});

test.concurrent('a statement that cannot be cancelled, because pg cannot create a client, still loses its connection', async ({
  database,
  expect,
}) => {
  const pool = database.pool({ max: 1 });
  const store = await database.store({ timeout: 1 }, pool);
  await eventually(() => store.ready());
  const table = await holding(database, 'lock table sessions in access exclusive mode');
  const [late] = await untilSent(table.waiting(1), () => [store.get('a')]);
  // As if a certificate file were missing.
  Reflect.set(pool, 'Client', function refuse() {
    throw new Error('ENOENT: no such file or directory');
  });
  await expect(late).rejects.toThrow(StoreTimeoutError);
  await soon(() => pool.totalCount === 0);
  await table.release();
});

test.concurrent('an update whose function never settles gives up, writes nothing later, and does not keep the store from closing', async ({
  database,
  expect,
}) => {
  const store = await database.store({ timeout: 0.3 });
  await eventually(() => store.set('a', sessionWith({ n: 1 })));
  let settle = (_: ReturnType<typeof sessionWith>) => {};
  const never = new Promise<ReturnType<typeof sessionWith>>((resolve) => {
    settle = resolve;
  });
  let wasCalled = false;
  const update = () => {
    wasCalled = true;
    return never;
  };
  // On a busy machine, the time may be over before the session is loaded.
  while (!wasCalled) await expect(store.update('a', update)).rejects.toThrow(StoreTimeoutError);
  settle(sessionWith({ n: 2 }));
  expect(contentOf(await eventually(() => store.get('a')))).toEqual({ n: 1 });
  await store.close();
});

test.concurrent("an app's own query may wait for the pool longer than a call of the store", async ({
  database,
  expect,
}) => {
  const pool = database.pool({ max: 1 });
  const store = await database.store({ timeout: 1 }, pool);
  const held = await pool.connect();
  held.on('error', () => {});
  const calls = [store.get('a'), store.get('b')];
  await soon(() => pool.waitingCount > 0);
  const own = pool.query('select 1 as one');
  for (const call of calls) await expect(call).rejects.toThrow(StoreTimeoutError);
  // The limit of the store's own wait is a tenth of a second later.
  await new Promise((resolve) => setTimeout(resolve, 300));
  held.release();
  expect((await own).rows).toEqual([{ one: 1 }]);
});

test.skipIf(inBatches)(
  'a row that is sent again keeps its place before calls that came later',
  async ({ database, expect }) => {
    const store = await database.store({ timeout: 30, touchAfter: 0 }, database.pool({ max: 2 }));
    // The fourth statement of 256 rows is the first in which all of the held ones fit behind the others.
    const ids = [...times(3, (n) => `held ${n}`), ...times(900, (n) => `later ${n}`)];
    await database.query(
      `insert into sessions (id, data, expires_at) select id, '{}', now() + interval '1 hour'
     from unnest($1::text[]) id`,
      [ids.map(idOf)],
    );
    await database.query(`
    create table sent (id text, transaction xid8);
    create function log() returns trigger language plpgsql as $$ begin
      if new.id = '${idOf('later 300')}' then perform pg_advisory_xact_lock(1); end if;
      insert into sent values (new.id, pg_current_xact_id());
      return new;
    end $$;
    create trigger log before update on sessions for each row execute function log();
  `);
    const rows = await holding(database, {
      text: 'select from sessions where id = any($1) for update',
      values: [ids.slice(0, 3).map(idOf)],
    });
    const second = await holding(database, 'select pg_advisory_xact_lock(1)');
    const calls = ids.map((id) => store.touch(id, sessionWith()));
    await second.waiting(1);
    // The pauses before the held rows are sent again are shorter, and began earlier.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await rows.release();
    await second.release();
    await Promise.all(calls);
    const sent = await database.query<{ id: string; at: number }>(
      'select id, dense_rank() over (order by transaction)::int as at from sent',
    );
    const statementOf = new Map(sent.map(({ id, at }) => [id, at]));
    const at = (id: string) => statementOf.get(idOf(id));
    expect([at('later 0'), at('later 300'), at('later 600'), at('later 899')]).toEqual([
      1, 2, 3, 4,
    ]);
    expect(times(3, (n) => at(`held ${n}`))).toEqual([3, 3, 3]);
  },
);

test.each([
  [29_999.8, 'within 30 s'],
  [299.9, 'within 0.3 s'],
  [12_500, 'within 12.5 s'],
])('a wait of %d ms for a connection is reported in round seconds', (waitedMs, text) => {
  expect(noConnectionWithin(waitedMs).message).toContain(text);
});
