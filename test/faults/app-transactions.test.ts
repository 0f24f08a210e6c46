import type { PGlite } from '@electric-sql/pglite';
import { DrizzleStore, StatementError } from 'connect-drizzle';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { freshPglite } from '../support/pglite.js';
import { type ReusedDatabase, reusedDatabase } from '../support/reused-database.js';
import { contentOf, sessionWith } from '../support/sessions.js';
import { causeCode } from '../support/statements.js';

let database: ReusedDatabase;

beforeAll(async () => {
  database = await reusedDatabase();
});

afterEach(() => database.clear());

afterAll(() => database.drop());

/** A client as in pg before 8.21, without `getTransactionStatus()`. */
class OldClient extends pg.Client {}
Object.defineProperty(OldClient.prototype, 'getTransactionStatus', { value: undefined });

const clients: [string, object][] = [
  ['pg', {}],
  ['pg before 8.21', { Client: OldClient }],
];

describe.each(clients)(
  'a connection of %s that the app released inside a transaction',
  (_, Client) => {
    /** A store on a pool of one connection, which the app released after these statements. */
    async function leftAfter(statements: readonly string[], isAwaited: boolean) {
      const pool = database.pool({ max: 1, ...Client });
      const store = await database.store({}, pool);
      await store.set('known', sessionWith({ n: 0 }));
      const client = await pool.connect();
      for (const statement of statements) {
        const done = client.query(statement).catch(() => {});
        if (isAwaited) await done;
      }
      client.release();
      return store;
    }

    const stored = () => database.query('select id from sessions where data is not null');

    const left: [string, string[], boolean][] = [
      ['an open transaction', ['begin'], true],
      ['a failed transaction', ['begin', 'select 1/0'], true],
      ['an open transaction, not awaited', ['begin'], false],
      ['a failed transaction, not awaited', ['begin', 'select 1/0'], false],
    ];

    test.each(left)('acknowledges no write that is not committed: %s', async (_name, ...args) => {
      const store = await leftAfter(...args);
      await Promise.all(['a', 'b', 'c'].map((sid) => store.set(sid, sessionWith())));
      expect(await stored()).toHaveLength(4);
    });

    test.each(left)('fails no update, log-out or migration: %s', async (_name, ...args) => {
      const store = await leftAfter(...args);
      await store.migrate();
      const again = await leftAfter(...args);
      await again.update('known', (session) => {
        Object.assign(session, { n: 1 });
      });
      expect(contentOf(await again.get('known'))).toEqual({ n: 1 });
      const third = await leftAfter(...args);
      await third.destroy('known');
      expect(await stored()).toHaveLength(0);
    });

    test('does not commit the statements of the app when the store migrates', async () => {
      const store = await leftAfter(['begin', 'create table own ()'], false);
      await store.migrate();
      expect(await database.query(`select to_regclass('own') as own`)).toEqual([{ own: null }]);
    });
  },
);

test('on postgres-js, no store uses a connection on which the app has a transaction', async () => {
  await database.store();
  const sql = postgres(database.url, { max: 1, onnotice: () => {} });
  await sql.unsafe('begin');
  const store = new DrizzleStore(sql, { pruneSessionInterval: false });
  await store.set('a', sessionWith());
  await sql.unsafe('rollback');
  expect(contentOf(await store.get('a'))).toEqual({});
  await store.close();
  await sql.end();
});

describe('on PGlite,', () => {
  let pglite: PGlite;

  beforeAll(async () => {
    pglite = await freshPglite();
  });

  afterAll(() => pglite.close());

  test('a write fails inside a transaction that the app began without transaction()', async () => {
    const client = pglite;
    const store = new DrizzleStore(client, { pruneSessionInterval: false, errorLog: () => {} });
    await store.ready();
    await client.exec('begin');
    const error: unknown = await store.set('a', sessionWith()).catch((reason) => reason);
    expect(error).toBeInstanceOf(StatementError);
    expect(String(error)).toContain('in a transaction of the app');
    await client.exec('rollback');
    await store.set('b', sessionWith());
    expect(await store.length()).toBe(1);
    await client.exec('begin');
    await client.exec('select 1/0').catch(() => {});
    const refused: unknown = await store.set('a', sessionWith()).catch((reason) => reason);
    expect(causeCode(refused)).toBe('25P02');
    expect(String(refused)).toContain('in a failed transaction of the app');
    await client.exec('rollback');
    await store.close();
  });

  test('calls of the store and transactions of the app take turns', async () => {
    const client = pglite;
    const store = new DrizzleStore(client, { pruneSessionInterval: false });
    await store.clear();
    for (let round = 0; round < 30; round += 1) {
      await Promise.all([
        store.set(`sid ${round}`, sessionWith()),
        client.transaction((tx) => tx.query('select 1')),
        store.get('sid 0'),
        client.transaction((tx) => tx.query('select 1')),
        store.touch('sid 0', sessionWith()),
      ]);
    }
    expect(await store.length()).toBe(30);
    await store.close();
  });
});
