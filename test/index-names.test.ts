import { getTableConfig, pgTable } from 'drizzle-orm/pg-core';
import { expect, test } from 'vitest';
import { sessionColumns, sessionIndexes, sessionTable } from '../src/schema.js';

/** The index names of a session table. */
function indexNames(tableName: string): (string | undefined)[] {
  return getTableConfig(sessionTable({ tableName })).indexes.map((index) => index.config.name);
}

test('indexes are named after their table and column', () => {
  expect(indexNames('sessions')).toEqual(['sessions_user_id_index', 'sessions_expires_hour_index']);
  const longest = 's'.repeat(44);
  expect(indexNames(longest)[1]).toBe(`${longest}_expires_hour_index`);
});

test('createdAtIndex adds the index of the admin page', () => {
  const names = (config: ReturnType<typeof getTableConfig>) =>
    config.indexes.map((index) => index.config.name);
  const own = ['web_user_id_index', 'web_expires_hour_index', 'web_created_at_index'];
  for (const schemaName of [undefined, 'auth']) {
    const table = sessionTable({ tableName: 'web', schemaName, createdAtIndex: true });
    expect(names(getTableConfig(table))).toEqual(own);
  }
  const table = pgTable('web', sessionColumns(), (t) =>
    sessionIndexes(t, { createdAtIndex: true }),
  );
  const columns = getTableConfig(table).indexes.at(-1)?.config.columns;
  expect(columns?.map((column) => ('name' in column ? column.name : ''))).toEqual([
    'created_at',
    'id',
  ]);
});

test('the index names of a long table name stay the same from release to release', () => {
  expect(indexNames('s'.repeat(50))).toEqual([
    `${'s'.repeat(30)}_a0493773_user_id_index`,
    `${'s'.repeat(30)}_a0493773_expires_hour_index`,
  ]);
  expect(indexNames('é'.repeat(31))[0]).toBe(`${'é'.repeat(15)}_fe591359_user_id_index`);
});

test('long table names with the same start have different index names', () => {
  const tables = Array.from({ length: 1000 }, (_, number) => `${'s'.repeat(50)}_${number}`);
  expect(new Set(tables.flatMap(indexNames)).size).toBe(2000);
});

test.each([
  ['one-byte characters', 's'],
  ['two-byte characters', 'é'],
  ['three-byte characters', '表'],
  ['four-byte characters', '😀'],
])('an index name has at most 63 bytes and splits no character, with %s', (_, character) => {
  for (let start = 0; start < 4; start += 1) {
    const tableName = `${'_'.repeat(start)}${character.repeat(63)}`;
    for (const name of indexNames(tableName)) {
      expect(name?.isWellFormed()).toBe(true);
      expect(Buffer.byteLength(name ?? '')).toBeLessThanOrEqual(63);
    }
  }
});
