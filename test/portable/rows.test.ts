import { DrizzleStore, idOf } from 'connect-drizzle';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { holding } from '../support/obstacles.js';
import { type ReusedDatabase, reusedDatabase } from '../support/reused-database.js';
import { asSession, contentOf, sessionWith } from '../support/sessions.js';

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(() => database.clear());

afterAll(() => database.drop());

const portable = { engine: 'portable' } as const;

async function loaded(store: DrizzleStore, sid: string) {
  const session = await store.get(sid);
  if (session === undefined) throw new Error(`There is no session ${sid}`);
  return session;
}

describe('a row that another transaction has locked', () => {
  type Call = (store: DrizzleStore, sid: string) => Promise<unknown>;
  const calls: readonly [name: string, expected: object | undefined, call: Call][] = [
    ['set', { n: 2 }, (store, sid) => store.set(sid, sessionWith({ n: 2 }))],
    ['touch', { n: 1 }, (store, sid) => store.touch(sid, sessionWith({}, 7200))],
    ['destroy', undefined, (store, sid) => store.destroy(sid)],
    ['update', { n: 2 }, (store, sid) => store.update(sid, (s) => Object.assign(s, { n: 2 }))],
  ];

  test.each(calls)(
    'delays only its own %s, which is sent again until the row is free',
    async (_, expected, call) => {
      const store = await database.store({ ...portable, touchAfter: 0 });
      await store.set('held', sessionWith({ n: 1 }));
      await using held = await holding(database, {
        text: 'select from sessions where id = $1 for update',
        values: [idOf('held')],
      });
      let isOver = false;
      const waiting = call(store, 'held').finally(() => {
        isOver = true;
      });
      await expect.poll(() => store.stats().retries).toBeGreaterThan(2);
      const others = Array.from({ length: 40 }, (_, at) => `other ${at}`);
      await Promise.all(others.map((sid) => store.set(sid, sessionWith({ n: 1 }))));
      await Promise.all(others.map((sid) => store.destroy(sid)));
      expect(isOver).toBe(false);
      await held.release();
      await waiting;
      expect(contentOf(await store.get('held'))).toEqual(expected);
    },
  );

  test('is skipped by pruning, and delays revokeUser() until it is free', async () => {
    const store = await database.store({
      ...portable,
      userId: (session) => Reflect.get(session, 'user'),
    });
    for (const sid of ['held', 'free']) await store.set(sid, sessionWith({ user: 'ada' }));
    await database.query("update sessions set expires_at = now() - interval '2 hours'");
    await using held = await holding(database, {
      text: 'select from sessions where id = $1 for update',
      values: [idOf('held')],
    });
    expect(await store.pruneSessions()).toBe(1);
    const ending = store.revokeUser('ada');
    await expect.poll(() => store.stats().retries).toBeGreaterThan(1);
    await held.release();
    expect(await ending).toBe(0);
    await store.clear();
    expect(await database.query('select from sessions')).toHaveLength(0);
  });
});

test('a statement that fails with SQLSTATE 40001 is sent again', async () => {
  const store = await database.store(portable);
  await database.query(`
    create sequence tries;
    create function refuse() returns trigger language plpgsql as $$ begin
      if nextval('tries') <= 3 then
        raise sqlstate '40001';
      end if;
      return new;
    end $$;
    create trigger refuse before insert on sessions for each row execute function refuse()`);
  await store.set('sid', sessionWith({ n: 1 }));
  expect(contentOf(await store.get('sid'))).toEqual({ n: 1 });
});

test('a change that was saved but could not be announced is not saved again', async () => {
  const store = await database.store({ ...portable, sync: true });
  await store.set('sid', sessionWith({ list: [] }));
  const first = Object.assign(await loaded(store, 'sid'), { list: ['a'] });
  // This schema replaces `pg_notify` with a function that fails.
  await database.query(`
    create schema pretended;
    create function pretended.pg_notify(text, text) returns void language plpgsql as
      $$ begin raise sqlstate '40001'; end $$`);
  const pool = database.pool({ max: 5, options: '-c search_path=pretended,pg_catalog,public' });
  const other = new DrizzleStore(pool, {
    ...portable,
    sync: true,
    pruneSessionInterval: false,
    errorLog: () => {},
  });
  const second = Object.assign(await loaded(other, 'sid'), { list: ['b'] });
  await expect(other.set('sid', second)).rejects.toMatchObject({ code: 'ERR_CONNECTION' });
  await store.set('sid', first);
  expect(contentOf(await store.get('sid'))).toEqual({ list: ['b', 'a'] });
  await other.close();
  await database.query('drop schema pretended cascade');
});

describe('maxSessionsPerUser', () => {
  const options = {
    ...portable,
    userId: (session: object) => Reflect.get(session, 'user'),
    maxSessionsPerUser: 2,
  };

  test('makes a log-in end sessions that seem newer, but never itself', async () => {
    const store = await database.store(options);
    for (const sid of ['one', 'two']) await store.set(sid, sessionWith({ user: 'ada' }));
    // As by a server whose clock is ahead.
    await database.query("update sessions set last_seen_at = now() + interval '1 hour'");
    await store.set('own', sessionWith({ user: 'ada' }));
    expect(await store.get('own')).toBeDefined();
    expect(await store.length()).toBe(2);
  });

  test('leaves exactly as many sessions as it allows after concurrent log-ins', async () => {
    const stores = await Promise.all([1, 2, 3].map(() => database.store(options)));
    for (let round = 0; round < 5; round += 1) {
      await Promise.all(
        stores.flatMap((store, at) =>
          ['a', 'b', 'c'].map((name) =>
            store.set(`${name} ${at} ${round}`, sessionWith({ user: 'ada' })),
          ),
        ),
      );
      expect(await stores[0]?.length()).toBe(2);
    }
  });

  test('does not keep twenty concurrent log-ins from finishing', async () => {
    const store = await database.store({ ...options, maxSessionsPerUser: 3 });
    for (let round = 0; round < 2; round += 1) {
      const sids = Array.from({ length: 20 }, (_, at) => `sid ${round} ${at}`);
      await Promise.all(sids.map((sid) => store.set(sid, sessionWith({ user: 'ada' }))));
      expect(await store.length()).toBe(3);
    }
  });

  test('does not see a session as older after a write from a server whose clock is behind', async () => {
    const store = await database.store({ ...options, touchAfter: 0 });
    await store.set('sid', sessionWith({ user: 'ada' }));
    await database.query("update sessions set last_seen_at = now() + interval '1 hour'");
    const before = await database.query('select last_seen_at from sessions');
    await store.touch('sid', asSession({ ...(await loaded(store, 'sid')) }));
    await store.set('sid', sessionWith({ user: 'ada', n: 1 }));
    expect(await database.query('select last_seen_at from sessions')).toEqual(before);
  });
});

test('on Citus, where a statement cannot limit its wait, spare lanes replace those that wait', async () => {
  const creating = await database.store();
  await creating.close();
  // Makes the store believe that Citus has distributed the table.
  await database.query(
    `create table pg_dist_partition (logicalrelid regclass);
     insert into pg_dist_partition values ('sessions')`,
  );
  const store = await database.store();
  const sids = ['one', 'two'];
  for (const sid of sids) await store.set(sid, sessionWith({ n: 1 }));
  await using held = await holding(database, {
    text: 'select from sessions where id = any($1) for update',
    values: [sids.map(idOf)],
  });
  const waiting = Promise.all(sids.map((sid) => store.set(sid, sessionWith({ n: 2 }))));
  // All lanes for writes wait.
  await held.waiting(2);
  await Promise.all(
    Array.from({ length: 20 }, (_, at) => store.set(`other ${at}`, sessionWith({ n: 1 }))),
  );
  await held.release();
  await waiting;
  for (const sid of sids) expect(contentOf(await store.get(sid))).toEqual({ n: 2 });
});
