import { neon, neonConfig } from '@neondatabase/serverless';
import {
  type ConnectionlessSource,
  DrizzleStore,
  InvalidArgumentError,
  MigrationError,
  StatementError,
  StoreTimeoutError,
} from 'connect-drizzle';
import { drizzle as drizzleNeonHttp } from 'drizzle-orm/neon-http';
import { drizzle as drizzlePgProxy } from 'drizzle-orm/pg-proxy';
import { afterEach, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { startNeonEndpoint } from './support/neon-http.js';
import { holdingTable, until } from './support/obstacles.js';
import { contentOf, endOf, sessionUntil, sessionWith } from './support/sessions.js';
import { causeCode } from './support/statements.js';

// Sources that run each statement by itself: Neon over HTTP, and drizzle-orm/pg-proxy.

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function neonHttp(database: TestDatabase) {
  const endpoint = await startNeonEndpoint(database.url);
  ends.push(endpoint.close);
  neonConfig.fetchEndpoint = endpoint.url;
  return { client: neon(database.url), endpoint };
}

/** The callback of pg-proxy as in Drizzle's documentation. Rows pass through JSON, as over HTTP. */
function proxyTo(database: TestDatabase) {
  const pool = database.pool();
  return drizzlePgProxy(async (text, values, method) => {
    const rowMode = method === 'all' ? { rowMode: 'array' } : {};
    const { rows } = await pool.query({ text, values, ...rowMode });
    return { rows: JSON.parse(JSON.stringify(rows)) };
  });
}

const sources: Record<string, (database: TestDatabase) => Promise<ConnectionlessSource>> = {
  'Drizzle on neon-http': async (database) =>
    drizzleNeonHttp({ client: (await neonHttp(database)).client }),
  'neon()': async (database) => (await neonHttp(database)).client,
  'Drizzle on pg-proxy': async (database) => proxyTo(database),
};

async function databaseWithTable(): Promise<TestDatabase> {
  const database = await freshDatabase();
  ends.push(database.drop);
  const store = new DrizzleStore(database.pool());
  await store.migrate();
  await store.close();
  return database;
}

type Options = ConstructorParameters<typeof DrizzleStore>[1];

function storeOn(source: ConnectionlessSource, options?: Options): DrizzleStore {
  const settings = { pruneSessionInterval: false, errorLog: () => {}, ...options };
  const store: unknown = Reflect.construct(DrizzleStore, [source, settings]);
  if (!(store instanceof DrizzleStore)) throw new Error('no store');
  ends.push(() => store.close());
  return store;
}

async function loaded(store: DrizzleStore, sid: string) {
  const found = await store.get(sid);
  if (found === undefined) throw new Error(`There is no session ${sid}`);
  return found;
}

describe.each(Object.entries(sources))('a store on %s', (_, open) => {
  test('saves, merges, touches, updates, lists, revokes and prunes', async () => {
    const database = await databaseWithTable();
    const userId = (session: object) => ('user' in session ? String(session.user) : undefined);
    const store = storeOn(await open(database), { userId });
    await Promise.all(
      Array.from({ length: 50 }, (_none, at) =>
        store.set(`sid ${at}`, sessionWith({ at, user: 'ada' })),
      ),
    );
    const [one, other] = [await loaded(store, 'sid 3'), await loaded(store, 'sid 3')];
    await store.set('sid 3', Object.assign(one, { one: 'ü \u2028' }));
    await store.set('sid 3', Object.assign(other, { other: 2 }));
    const merged = { at: 3, user: 'ada', one: 'ü \u2028', other: 2 };
    expect(contentOf(await store.get('sid 3'))).toEqual(merged);

    const found = await loaded(store, 'sid 4');
    const later = Date.now() + 7_200_000;
    found.cookie.expires = new Date(later);
    await store.touch('sid 4', found);
    expect(endOf(await store.get('sid 4'))).toBe(later);

    await store.update('sid 5', (session) => void Object.assign(session, { at: 55 }));
    expect(contentOf(await store.get('sid 5'))).toMatchObject({ at: 55 });
    await Promise.all(['sid 6', 'sid 7'].map((sid) => store.destroy(sid)));
    expect(await store.get('sid 6')).toBeUndefined();
    await store.set('sid 6', found);
    expect(await store.get('sid 6')).toBeUndefined();
    const listed: string[] = [];
    for await (const { id } of store.sessions({ userId: 'ada' })) listed.push(id);
    expect(listed).toHaveLength(48);
    await store.set('expired', sessionUntil(new Date(0)));
    expect(await store.pruneSessions()).toBe(1);
    expect(await store.length()).toBe(48);
    expect(await store.revokeUser('ada', { except: 'sid 1' })).toBe(47);
    expect(await store.length()).toBe(1);
  });

  test('needs no retry or merge for a touch, a save or a destroy of one session', async () => {
    const database = await databaseWithTable();
    const store = storeOn(await open(database), { touchAfter: 0 });
    await store.set('sid', sessionWith({ n: 1 }));
    const found = await loaded(store, 'sid');
    await store.set('sid', Object.assign(found, { n: 2 }));
    await store.touch('sid', found);
    await store.destroy('sid');
    // Each took effect at the first try.
    expect(store.stats()).toMatchObject({ merges: 0, retries: 0 });
    await store.set('sid', Object.assign(found, { n: 3 }));
    expect(await store.get('sid')).toBeUndefined();
  });

  test.each([{ sync: true }, { cache: true }, { createTableIfMissing: true }])(
    'refuses %o',
    async (options) => {
      const source = await open(await databaseWithTable());
      expect(() => storeOn(source, options)).toThrow(InvalidArgumentError);
      const [name = ''] = Object.keys(options);
      expect(() => storeOn(source, options)).toThrow(
        new RegExp(
          `^The option ${name} needs a (connection|transaction).*, which .* does not have`,
        ),
      );
    },
  );

  test('refuses migrate()', async () => {
    const database = await databaseWithTable();
    const migrating = storeOn(await open(database)).migrate();
    await expect(migrating).rejects.toThrow(MigrationError);
    await expect(migrating).rejects.toThrow(/needs a transaction.*drizzle-kit/);
  });

  test('reports an error of the database with its code', async () => {
    const database = await databaseWithTable();
    const store = storeOn(await open(database));
    await store.ready();
    await database.query(`alter table sessions add check (data->>'refuse' is null)`);
    const error: unknown = await store
      .set('sid', sessionWith({ refuse: 'me' }))
      .catch((reason) => reason);
    expect(error).toBeInstanceOf(StatementError);
    expect(causeCode(error)).toBe('23514');
  });

  test('gives up a write at its deadline, and the write never happens', async () => {
    const database = await databaseWithTable();
    const source = await open(database);
    const store = storeOn(source);
    await store.ready();
    const table = await holdingTable(database);
    const late = storeOn(source, { timeout: 1 }).set('late', sessionWith());
    await expect(late).rejects.toThrow(StoreTimeoutError);
    await table.release();
    await until(async () => {
      const running = await database.query(
        `select from pg_stat_activity
         where datname = current_database() and state = 'active' and pid <> pg_backend_pid()`,
      );
      return running.length === 0;
    });
    expect(await store.get('late')).toBeUndefined();
  });
});

test('on neon-http, the HTTP request of a statement that was given up is aborted', async () => {
  const database = await databaseWithTable();
  const { client, endpoint } = await neonHttp(database);
  const store = storeOn(client, { timeout: 1 });
  await using _ = await holdingTable(database);
  // On a busy machine, a call may time out before it is sent.
  await until(async () => {
    await expect(store.set('late', sessionWith())).rejects.toThrow(StoreTimeoutError);
    return endpoint.abandoned > 0;
  });
});

test.each<[string, () => Promise<{ rows: unknown[] }>]>([
  ['rows as objects', async () => ({ rows: [{ id: 1 }] })],
  ['no rows', async () => Object.create(null)],
])(
  'on pg-proxy, a callback that returns %s fails with an error that says what to return',
  async (_, callback) => {
    const store = storeOn(drizzlePgProxy(callback));
    await expect(store.get('sid')).rejects.toThrow(
      /must return \{ rows \}, with each row as an array/,
    );
  },
);
