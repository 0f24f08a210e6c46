import type { Source } from 'connect-drizzle';
import type pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll } from 'vitest';
import { type ReusedDatabase, reusedDatabase } from './reused-database.js';

/** The database of a file that called {@link useDatabase}. */
export let database: ReusedDatabase;

/** Functions to call after each test, the newest first. */
export const ends: (() => Promise<unknown>)[] = [];

/** Creates a database for the tests of a file, which is empty before each test. */
export function useDatabase(): void {
  beforeAll(async () => {
    database = await reusedDatabase();
  });

  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    await database.clear();
  });

  afterAll(() => database.drop());
}

/** Sources that connect over the network, each as a function of the URL. */
export function networkSources(
  poolConfig: pg.PoolConfig = {},
  postgresOptions: { max?: number } = {},
): [driver: string, source: (url: string) => Source][] {
  return [
    ['node-postgres', (url) => database.pool({ connectionString: url, ...poolConfig })],
    [
      'postgres-js',
      (url) => {
        const sql = postgres(url, { onnotice: () => {}, ...postgresOptions });
        ends.push(() => sql.end({ timeout: 0 }));
        return sql;
      },
    ],
    ['a URL', (url) => url],
  ];
}
