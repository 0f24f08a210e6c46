import { DrizzleStore, type Source, StatementError } from 'connect-drizzle';
import { describe, expect, test } from 'vitest';
import { database, ends, networkSources, useDatabase } from '../support/fault-database.js';
import { pgbouncer, startPgbouncer } from '../support/pgbouncer.js';
import { contentOf, sessionWith } from '../support/sessions.js';
import { causeCode } from '../support/statements.js';

useDatabase();

const drivers = networkSources({ max: 1 }, { max: 1 });

function storeOn(source: Source): DrizzleStore {
  const store = new DrizzleStore(source, { pruneSessionInterval: false, errorLog: () => {} });
  ends.push(() => store.close());
  return store;
}

/** Makes a call of each kind. */
async function useAll(store: DrizzleStore, n: number): Promise<void> {
  await store.set('a', sessionWith({ n }));
  expect(contentOf(await store.get('a'))).toEqual({ n });
  await store.touch('a', sessionWith({ n }));
  expect(await store.length()).toBe(1);
  expect(await store.ids()).toHaveLength(1);
  await store.ready();
}

describe('prepared statements', () => {
  test.each(['discard all', 'deallocate all'])(
    'that the app deallocates on its pool by %s are prepared again',
    async (statement) => {
      const pool = database.pool({ max: 1 });
      const store = await database.store({}, pool);
      await useAll(store, 1);
      await pool.query(statement);
      await useAll(store, 2);
      const { rows } = await pool.query('select count(*)::int from pg_prepared_statements');
      expect(rows[0].count).toBeGreaterThan(3);
    },
  );

  test.each(drivers)('that a trigger deallocates are prepared again on %s', async (_, source) => {
    await database.store();
    const store = storeOn(source(database.url));
    await useAll(store, 1);
    await database.query(`
      create function forget() returns trigger language plpgsql as $$ begin
        deallocate all;
        return null;
      end $$;
      create trigger forget after insert or update on sessions execute function forget();
    `);
    for (const n of [2, 3, 4]) await useAll(store, n);
  });

  test('that already exist on a connection are used', async () => {
    const store = await database.store({}, database.pool({ max: 1 }));
    await useAll(store, 1);
    const pool = database.pool({ max: 1 });
    const other = await database.store({}, pool);
    await other.set('b', sessionWith());
    const { rows } = await pool.query<{ statement: string; name: string }>(
      `select name, statement from pg_prepared_statements where name like 'connect_drizzle_put%'`,
    );
    expect(rows.length).toBeGreaterThan(0);
    await other.close();
    const fresh = database.pool({ max: 1 });
    const third = await database.store({}, fresh);
    for (const { name, statement } of rows) {
      await fresh.query(`prepare ${name} as ${statement}`);
    }
    await third.set('c', sessionWith({ n: 3 }));
    expect(contentOf(await third.get('c'))).toEqual({ n: 3 });
  });
});

describe('a statement that the server always reports as not prepared', () => {
  test.each(drivers.slice(0, 2))(
    'fails with an error that names the option preparedStatements, on %s',
    async (_, source) => {
      await database.store();
      await database.query(`
        create sequence tries;
        create function refuse() returns trigger language plpgsql as $$ begin
          perform nextval('tries');
          raise exception using errcode = '26000', message = 'secret';
        end $$;
        create trigger refuse before insert on sessions execute function refuse();
      `);
      const store = storeOn(source(database.url));
      const error: unknown = await store.set('a', sessionWith()).catch((reason) => reason);
      expect(error).toBeInstanceOf(StatementError);
      expect(causeCode(error)).toMatch(/^(26000|42P05)$/);
      expect(String(error)).toContain('preparedStatements: false');
      expect(String(error)).not.toContain('secret');
      const [row] = await database.query('select last_value::int as tries from tries');
      expect(row?.tries).toBeLessThanOrEqual(2);
      const both = [store.set('b', sessionWith()), store.set('c', sessionWith())];
      for (const each of both) await expect(each).rejects.toThrow(StatementError);
    },
  );
});

describe.skipIf(pgbouncer === undefined)(
  'behind a transaction pooler without prepared statements,',
  () => {
    test('all failures name the option preparedStatements', async () => {
      await database.store();
      await using bouncer = await startPgbouncer(database.url, { default_pool_size: 2 });
      const store = storeOn(database.pool({ connectionString: bouncer.url, max: 4 }));
      const outcomes = await Promise.allSettled(
        Array.from({ length: 200 }, (_, n) =>
          n % 3 === 0 ? store.length() : store.update(`sid ${n}`, () => {}),
        ),
      );
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') {
          expect(String(outcome.reason)).toContain('preparedStatements: false');
        }
      }
      await store.close();
    });
  },
);
