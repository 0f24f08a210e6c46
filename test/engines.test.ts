import { DrizzleStore } from 'connect-drizzle';
import { test } from 'vitest';
import { cycle, tableWith, userOf } from './engines/cycle.js';
import { withDatabase } from './support/database.js';

// What `npm run test:engines` does on other engines, on Postgres.

test('the cycle for other engines works on Postgres', async () => {
  await withDatabase(async (database) => {
    for (const statement of tableWith('json')) await database.query(statement);
    await using store = new DrizzleStore(database.pool(), {
      pruneSessionInterval: false,
      userId: userOf,
    });
    await cycle(store);
  });
});
