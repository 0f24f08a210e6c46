import { idOf } from 'connect-drizzle';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Bouncer, pgbouncer, startPgbouncer } from './support/pgbouncer.js';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, endOf, sessionUntil, sessionWith } from './support/sessions.js';

if (pgbouncer === undefined) {
  console.warn("pgbouncer is not installed (Debian's package pgbouncer): no test goes through it.");
}

function times<T>(count: number, make: (at: number) => T): T[] {
  return Array.from({ length: count }, (_, at) => make(at));
}

describe.skipIf(pgbouncer === undefined)('through pgbouncer in transaction mode', () => {
  let database: ReusedDatabase;
  let bouncer: Bouncer;

  beforeAll(async () => {
    database = await reusedDatabase();
  });

  beforeEach(async () => {
    // Fewer connections to the server than clients, so that clients share them.
    bouncer = await startPgbouncer(database.url, { default_pool_size: 2 });
  });

  afterEach(async () => {
    // `clear` ends the connections to the server, which this pgbouncer might still give to a client.
    await bouncer[Symbol.asyncDispose]();
    await database.clear();
  });

  afterAll(() => database.drop());

  const pooled = () => database.pool({ connectionString: bouncer.url, max: 8 });

  test('all calls of two stores without prepared statements work', async () => {
    const options = {
      preparedStatements: false,
      userId: (of: object): string => Reflect.get(of, 'user'),
      maxSessionsPerUser: 30,
    };
    const [one, other] = [
      await database.store(options, pooled()),
      await database.store(options, pooled()),
    ];
    const sids = times(100, (n) => `sid ${n}`);
    const end = Date.UTC(2100, 0, 1);

    await Promise.all(
      sids.map((sid, n) => one.set(sid, sessionWith({ n, count: 0, user: `user ${n % 10}` }))),
    );
    await Promise.all(
      sids.flatMap((sid) => [
        ...times(3, () =>
          other.update(sid, (found) => {
            Object.assign(found, { count: Number(Reflect.get(found, 'count')) + 1 });
          }),
        ),
        one.touch(sid, sessionUntil(new Date(end))),
      ]),
    );
    const found = await Promise.all(sids.map((sid) => one.get(sid)));
    expect(found.map(contentOf)).toEqual(
      sids.map((_, n) => ({ n, count: 3, user: `user ${n % 10}` })),
    );
    expect(await other.revokeUser('user 3')).toBe(10);
    await Promise.all(sids.slice(0, 3).map((sid) => one.destroy(sid)));
    const saved = await one.get('sid 5');
    await one.touch('sid 5', sessionUntil(new Date(end + 1)));
    await other.set(
      'sid 5',
      Object.assign(saved ?? {}, sessionUntil(new Date(end + 2), { n: -5 })),
    );
    expect(contentOf(await one.get('sid 5'))).toMatchObject({ n: -5 });
    expect(endOf(await one.get('sid 5'))).toBe(end + 2);
    expect(await other.length()).toBe(87);
    expect(await one.ids()).toHaveLength(87);
    expect(Object.keys(await other.all())).toContain(idOf('sid 50'));
    expect(await one.pruneSessions()).toBe(0);
    await one.clear();
    expect(await other.length()).toBe(0);
  });

  test('twenty stores that start at once on an empty database create the table once', async () => {
    const stores = await Promise.all(
      times(20, () => database.store({ preparedStatements: false }, pooled())),
    );
    await Promise.all(stores.map((store, n) => store.set(`sid ${n}`, sessionWith({ n }))));
    const found = await Promise.all(stores.map((store, n) => store.get(`sid ${19 - n}`)));
    expect(found.map(contentOf)).toEqual(times(20, (n) => ({ n: 19 - n })));
  });

  test('a store leaves no setting and no prepared statement on a connection', async () => {
    const store = await database.store({ preparedStatements: false }, pooled());
    for (const n of times(10, (at) => at)) {
      await Promise.all([
        store.set(`sid ${n}`, sessionWith({ n })),
        store.touch(`sid ${n - 1}`, sessionWith()),
        store.get(`sid ${n - 2}`),
        store.destroy(`sid ${n - 3}`),
      ]);
    }
    const seen = new Set<number>();
    const clients = await Promise.all(
      times(2, async () => {
        const client = new pg.Client({ connectionString: bouncer.url });
        await client.connect();
        // Both clients are in a transaction at the same time, so they hold both connections.
        await client.query('begin');
        return client;
      }),
    );
    for (const client of clients) {
      const { rows } = await client.query<{ pid: number; settings: string; prepared: number }>(
        `select pg_backend_pid() as pid,
           current_setting('synchronous_commit') || ' ' || current_setting('lock_timeout') as settings,
           (select count(*)::int from pg_prepared_statements) as prepared`,
      );
      const [row] = rows;
      seen.add(row?.pid ?? 0);
      expect(row).toMatchObject({ settings: 'on 0', prepared: 0 });
    }
    expect(seen.size).toBe(2);
    await Promise.all(clients.map((client) => client.end()));
  });
});
