import { test as base } from 'vitest';
import { type ReusedDatabase, reusedDatabase } from './reused-database.js';

/** The database of one test. */
export interface OwnDatabase extends ReusedDatabase {
  /** Runs this when the test ends, before the database is cleared. The function that was added last runs first. */
  atEnd(end: () => Promise<unknown>): void;
}

/**
 * A test with a database of its own, so that it can run at the same time as others of its file. Later tests reuse the
 * databases: clearing one takes less time than creating one.
 */
export const test = base
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads from the pattern what a fixture uses.
  .extend('idleDatabases', { scope: 'file' }, ({}, { onCleanup }) => {
    const databases: ReusedDatabase[] = [];
    onCleanup(async () => {
      for (const database of databases) await database.drop();
    });
    return databases;
  })
  .extend('database', async ({ idleDatabases }, { onCleanup }): Promise<OwnDatabase> => {
    const database = idleDatabases.pop() ?? (await reusedDatabase());
    const ends: (() => Promise<unknown>)[] = [];
    onCleanup(async () => {
      try {
        for (const end of ends.reverse()) await end();
        await database.clear();
        idleDatabases.push(database);
      } catch (error) {
        await database.drop();
        throw error;
      }
    });
    return { ...database, atEnd: (end) => void ends.push(end) };
  });
