// A version never repeats, even if a failover or a restore returns a row to an older state.
import { type DrizzleStore, idOf } from 'connect-drizzle';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type ReusedDatabase, reusedDatabase } from './support/reused-database.js';
import { contentOf, sessionWith } from './support/sessions.js';

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(() => database.clear());
afterAll(() => database.drop());

async function versions(): Promise<number[]> {
  const rows = await database.query<{ version: number }>(
    'select version from sessions order by id',
  );
  return rows.map(({ version }) => version);
}

/** Changes a session in a request of its own. */
async function change(store: DrizzleStore, sid: string, content: object): Promise<void> {
  const session = await store.get(sid);
  if (session === undefined) throw new Error(`no session ${sid}`);
  await store.set(sid, Object.assign(session, content));
}

describe('after an asynchronous failover that lost changes of a session,', () => {
  // There are other statements for a batch than for one row.
  test.each([
    ['one session', ['a']],
    ['several sessions', ['a', 'b', 'c']],
  ])('a late request is merged with new changes, as many as were lost, of %s', async (_, sids) => {
    const [slow, other] = [await database.store(), await database.store()];
    await Promise.all(sids.map((sid) => other.set(sid, sessionWith({ n: 0 }))));
    await database.query('create table standby as select * from sessions');

    // These changes are acknowledged and then lost. A slow request has read the last of them.
    for (const n of [1, 2]) await Promise.all(sids.map((sid) => change(other, sid, { n })));
    const read = await Promise.all(sids.map((sid) => slow.get(sid)));
    await database.query(`
      update sessions set data = standby.data, version = standby.version, expires_at = standby.expires_at,
        last_seen_at = standby.last_seen_at
      from standby where standby.id = sessions.id`);

    for (const key of ['x', 'y'])
      await Promise.all(sids.map((sid) => change(other, sid, { [key]: 1 })));
    await Promise.all(
      sids.map((sid, at) => slow.set(sid, Object.assign(read[at] ?? sessionWith(), { late: 1 }))),
    );
    for (const sid of sids) {
      expect(contentOf(await other.get(sid))).toEqual({ n: 0, x: 1, y: 1, late: 1 });
    }
    expect(slow.stats().merges).toBe(sids.length);
  });
});

test('every change of the data changes the version, and a touch does not', async () => {
  const store = await database.store();
  const sids = ['a', 'b'];
  const seen = new Set<number>();
  const isNew = async () => {
    for (const version of await versions()) {
      expect(seen).not.toContain(version);
      seen.add(version);
      expect(version).toBeGreaterThanOrEqual(0);
      expect(version).toBeLessThan(2 ** 30);
    }
  };
  for (const some of [sids.slice(0, 1), sids]) {
    await Promise.all(some.map((sid) => store.set(sid, sessionWith({ n: 1 }))));
    await Promise.all(some.map((sid) => store.set(sid, sessionWith({ n: 2 }))));
    await isNew();
    const before = await versions();
    await Promise.all(some.map((sid) => store.touch(sid, sessionWith({}, 9_000))));
    expect(await versions()).toEqual(before);
    for (const n of [3, 4]) {
      await Promise.all(some.map((sid) => change(store, sid, { n })));
      await isNew();
    }
    await Promise.all(some.map((sid) => store.destroy(sid)));
    await isNew();
    await database.query('delete from sessions');
  }
});

test.each([0, 1, -1, 2 ** 30, 2 ** 31 - 1, -(2 ** 31)])(
  'a session with the version %s can be saved, merged and ended',
  async (version) => {
    const [store, other] = [await database.store(), await database.store()];
    await store.set('a', sessionWith({ n: 1 }));
    await database.query('update sessions set version = $1', [version]);
    const read = await other.get('a');
    await change(store, 'a', { x: 1 });
    await change(store, 'a', { y: 1 });
    await other.set('a', Object.assign(read ?? sessionWith(), { n: 2 }));
    expect(contentOf(await store.get('a'))).toEqual({ n: 2, x: 1, y: 1 });
    await store.destroy('a');
    expect(await store.get('a')).toBeUndefined();
  },
);

test('a store works on a table with only the first migration', async () => {
  const [store, other] = [await database.store(), await database.store()];
  await database.query('alter table sessions alter column version set default 1');
  await store.set('a', sessionWith({ n: 1 }));
  expect(await versions()).toEqual([1]);
  const read = await other.get('a');
  await change(store, 'a', { x: 1 });
  await other.set('a', Object.assign(read ?? sessionWith(), { n: 2 }));
  expect(contentOf(await store.get('a'))).toEqual({ n: 2, x: 1 });
  // migrate() applies the second migration.
  await database.query(`delete from __connect_drizzle_store where migration <> '0000_sessions'`);
  await store.migrate();
  await store.set('b', sessionWith());
  const [row] = await database.query<{ version: number }>(
    'select version from sessions where id = $1',
    [idOf('b')],
  );
  expect(row?.version).not.toBe(1);
});
