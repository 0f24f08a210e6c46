import { DrizzleStore } from 'connect-drizzle';
import { test } from 'vitest';
import { cycle, schemaWith, tableWith, userOf } from './engines/cycle.js';
import { withDatabase } from './support/database.js';

// Runs on Postgres what `npm run test:engines` runs on other engines.

test.each([
  ['auto', 'json'],
  ['portable', 'json'],
  ['portable', 'text'],
] as const)(
  'the cycle for other engines works on Postgres: engine %s, data as %s',
  async (engine, data) => {
    await withDatabase(async (database) => {
      for (const statement of tableWith(data)) await database.query(statement);
      await using store = new DrizzleStore(database.pool(), {
        engine,
        table: schemaWith(data),
        pruneSessionInterval: false,
        userId: userOf,
      });
      await cycle(store);
    });
  },
);
