import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { beforeAll, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import {
  type DrizzleVersion,
  linkedApp,
  type Package,
  packPackage,
  type ScratchApp,
} from './support/package.js';

// All ways to create the table, from the packed tarball, in an app with migrations of its own.

let packed: Package;
beforeAll(async () => {
  packed = await packPackage();
});

const versions: DrizzleVersion[] = ['0.45', '1.0'];

/** A program that uses a store on the table. Arguments: the URL of the database, the options as JSON. */
const useStore = `
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { DrizzleStore } from 'connect-drizzle';

const [url, options = '{}'] = process.argv.slice(2);
const store = new DrizzleStore(url, { pruneSessionInterval: false, ...JSON.parse(options) });
const expires = new Date(Date.now() + 3_600_000);
const sid = randomUUID();
await store.set(sid, { cookie: { originalMaxAge: 3_600_000, expires }, views: 1 });
assert.equal((await store.get(sid)).views, 1);
await store.touch(sid, { cookie: { originalMaxAge: 3_600_000, expires } });
await store.destroy(sid);
assert.ok(!(await store.get(sid)));
await store.close();
console.log('works');
`;

async function app(drizzle: DrizzleVersion, db: TestDatabase): Promise<ScratchApp> {
  const made = await linkedApp(packed, drizzle);
  await made.write('use-store.js', useStore);
  await made.write(
    'drizzle.config.ts',
    `export default {
      dialect: 'postgresql', schema: './schema.ts', out: './migrations',
      dbCredentials: { url: '${db.url}' },
    };`,
  );
  return made;
}

/** Writes the app's schema, and generates and applies its migrations. */
async function migrateApp(made: ScratchApp, ...schema: string[]): Promise<void> {
  await made.write(
    'schema.ts',
    `import { integer, pgSchema, pgTable, serial, text, uuid } from 'drizzle-orm/pg-core';\n${schema.join('\n')}`,
  );
  await made.drizzleKit('generate');
  await made.drizzleKit('migrate');
}

const before = `export const before = pgTable('before', { id: serial('id').primaryKey() });`;
const after = `export const after = pgTable('after', { id: serial('id').primaryKey() });`;

/** The columns and indexes of a session table. */
async function describeTable(db: TestDatabase, table = 'sessions', schema = 'public') {
  const columns = await db.query(
    `select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as required,
       attgenerated as generated, pg_get_expr(adbin, adrelid) as expression
     from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
     where attrelid = format('%I.%I', $1::text, $2::text)::regclass and attnum > 0 and not attisdropped
     order by attname`,
    [schema, table],
  );
  const indexes = await db.query(
    `select indexdef from pg_indexes where schemaname = $1 and tablename = $2 order by indexname`,
    [schema, table],
  );
  return { columns, indexes: indexes.map(({ indexdef }) => indexdef) };
}

async function tableNames(db: TestDatabase, schema = 'public'): Promise<string[]> {
  const rows = await db.query<{ tablename: string }>(
    'select tablename from pg_tables where schemaname = $1 order by tablename',
    [schema],
  );
  return rows.map(({ tablename }) => tablename);
}

describe.each(versions)('with Drizzle %s', (drizzle) => {
  test('an app that re-exports the schema generates and applies the migration among its own', async () => {
    await using db = await freshDatabase();
    await using made = await app(drizzle, db);
    const sessions = `export * from 'connect-drizzle/schema';`;
    await migrateApp(made, before);
    await migrateApp(made, before, sessions);
    await migrateApp(made, before, sessions, after);

    expect(await tableNames(db)).toEqual(['after', 'before', 'sessions']);
    expect(await made.node(['use-store.js', db.url])).toBe('works\n');
    // There is nothing left to generate.
    expect(await made.drizzleKit('generate')).toMatch(/No schema changes/);
  });

  test('drizzle-kit applies the bundled migrations between those of the app, and before them', async () => {
    await using db = await freshDatabase();
    await using made = await app(drizzle, db);
    const out = `./node_modules/connect-drizzle/drizzle${drizzle === '1.0' ? '/v1' : ''}`;
    await made.write(
      'drizzle.sessions.config.ts',
      `export default {
        dialect: 'postgresql', out: '${out}',
        dbCredentials: { url: '${db.url}' }, migrations: { table: '__connect_drizzle' },
      };`,
    );
    await migrateApp(made, before);
    await made.drizzleKit('migrate', '--config=drizzle.sessions.config.ts');
    await migrateApp(made, before, after);
    await made.drizzleKit('migrate', '--config=drizzle.sessions.config.ts');

    expect(await tableNames(db)).toEqual(['after', 'before', 'sessions']);
    expect(await made.node(['use-store.js', db.url])).toBe('works\n');

    // In a second environment, both are applied from the start, the sessions first.
    await using other = await freshDatabase();
    for (const config of ['drizzle.sessions.config.ts', 'drizzle.config.ts']) {
      const text = await readFile(`${made.folder}/${config}`, 'utf8');
      await made.write(config, text.replace(db.url, other.url));
      await made.drizzleKit('migrate', `--config=${config}`);
    }
    expect(await tableNames(other)).toEqual(['after', 'before', 'sessions']);
  });

  test('store.migrate() works between the migrations of the app, and does nothing the second time', async () => {
    await using db = await freshDatabase();
    await using made = await app(drizzle, db);
    await made.write(
      'migrate.js',
      `import { DrizzleStore } from 'connect-drizzle';
       const store = new DrizzleStore(process.argv[2], { pruneSessionInterval: false });
       await store.migrate();
       await store.close();`,
    );
    await migrateApp(made, before);
    await made.node(['migrate.js', db.url]);
    await migrateApp(made, before, after);
    await made.node(['migrate.js', db.url]);

    expect(await tableNames(db)).toEqual(expect.arrayContaining(['after', 'before', 'sessions']));
    expect(await made.node(['use-store.js', db.url])).toBe('works\n');
  });

  test('createTableIfMissing creates the table under the given names', async () => {
    await using db = await freshDatabase();
    await using made = await app(drizzle, db);
    const options = { createTableIfMissing: true, tableName: 'web "sessions"', schemaName: 'Auth' };
    await migrateApp(made, before);
    for (const _ of [1, 2]) {
      expect(await made.node(['use-store.js', db.url, JSON.stringify(options)])).toBe('works\n');
    }
    await migrateApp(made, before, after);

    expect(await tableNames(db, 'Auth')).toContain('web "sessions"');
    expect(await tableNames(db)).toEqual(expect.arrayContaining(['after', 'before']));
    expect(await tableNames(db)).not.toContain('sessions');
    const { indexes } = await describeTable(db, 'web "sessions"', 'Auth');
    expect(indexes).toHaveLength(3);
  });

  test('two stores can have separate tables in one database', async () => {
    await using db = await freshDatabase();
    await using made = await app(drizzle, db);
    for (const tableName of ['one', 'two']) {
      const options = { createTableIfMissing: true, tableName };
      expect(await made.node(['use-store.js', db.url, JSON.stringify(options)])).toBe('works\n');
    }
    expect(await tableNames(db)).toEqual(expect.arrayContaining(['one', 'two']));
  });

  test('sessionTable() adds the table to the migrations of the app, under the given names', async () => {
    await using db = await freshDatabase();
    await using made = await app(drizzle, db);
    const sessions = `
      import { sessionTable } from 'connect-drizzle/schema';
      export const auth = pgSchema('auth');
      export const webSessions = sessionTable({ tableName: 'web_sessions', schemaName: 'auth' });`;
    await migrateApp(made, before);
    await migrateApp(made, before, sessions);
    await migrateApp(made, before, sessions, after);

    expect(await tableNames(db, 'auth')).toEqual(['web_sessions']);
    expect(await tableNames(db)).toEqual(['after', 'before']);
    const options = { tableName: 'web_sessions', schemaName: 'auth' };
    expect(await made.node(['use-store.js', db.url, JSON.stringify(options)])).toBe('works\n');
  });

  test.each([
    ['integer', `serial('id').primaryKey()`, `integer('user_id')`, '1', '1'],
    [
      'uuid',
      `uuid('id').primaryKey()`,
      `uuid('user_id')`,
      `'0b4d6c1e-8f0a-4c52-9a39-6f6f0f3f8a11'`,
      `'0b4d6c1e-8f0a-4c52-9a39-6f6f0f3f8a11'`,
    ],
  ])(
    'a table of the app with an extra column and a foreign key of type %s works',
    async (_, key, userId, user, userInSql) => {
      await using db = await freshDatabase();
      await using made = await app(drizzle, db);
      const users = `export const users = pgTable('users', { id: ${key} });`;
      const sessions = `
      import { sessionColumns, sessionIndexes } from 'connect-drizzle/schema';
      export const appSessions = pgTable('app_sessions', {
        ...sessionColumns(),
        userId: ${userId}.references(() => users.id, { onDelete: 'cascade' }),
        note: text('note').notNull().default('none'),
      }, sessionIndexes);`;
      await migrateApp(made, before, users);
      await migrateApp(made, before, users, sessions);
      await migrateApp(made, before, users, sessions, after);
      await db.query(`insert into users values (${userInSql})`);
      await made.write(
        'extended.ts',
        `import assert from 'node:assert/strict';
       import { drizzle } from 'drizzle-orm/node-postgres';
       import pg from 'pg';
       import { DrizzleStore, idOf } from 'connect-drizzle';
       import { appSessions, users } from './schema.js';

       const client = new pg.Pool({ connectionString: process.argv[2] });
       const db = drizzle({ client });
       const store = new DrizzleStore(db, {
         table: appSessions, userId: (session: any) => session.user, pruneSessionInterval: false,
       });
       const cookie = { originalMaxAge: 3_600_000, expires: new Date(Date.now() + 3_600_000) };
       const user = ${user};
       await store.set('a sid', { cookie, user });
       await store.set('another', { cookie });
       assert.equal((await store.get('a sid')).user, user);
       const rows = await db.select().from(appSessions);
       assert.equal(rows.find(({ id }) => id === idOf('a sid')).userId, user);
       assert.equal(rows.find(({ id }) => id === idOf('another')).userId, null);
       assert.ok(rows.every(({ note }) => note === 'none'));
       const ids = [];
       for await (const { id } of store.sessions({ userId: user })) ids.push(id);
       assert.deepEqual(ids, [idOf('a sid')]);
       // Deleting the users deletes their sessions.
       await db.delete(users);
       assert.ok(!(await store.get('a sid')));
       assert.ok(await store.get('another'));
       await store.close();
       await client.end();
       console.log('works');`,
      );
      expect(await made.node(['--import', 'tsx', 'extended.ts', db.url])).toBe('works\n');
      expect(await tableNames(db)).toEqual(['after', 'app_sessions', 'before', 'users']);
    },
  );
});

test('every way creates the same table', async () => {
  const described: Record<string, unknown> = {};
  for (const drizzle of versions) {
    await using exported = await freshDatabase();
    await using made = await app(drizzle, exported);
    await migrateApp(made, `export * from 'connect-drizzle/schema';`);
    described[`schema, ${drizzle}`] = await describeTable(exported);

    await using bundled = await freshDatabase();
    await made.write(
      'drizzle.sessions.config.ts',
      `export default {
        dialect: 'postgresql',
        out: './node_modules/connect-drizzle/drizzle${drizzle === '1.0' ? '/v1' : ''}',
        dbCredentials: { url: '${bundled.url}' }, migrations: { table: '__connect_drizzle' },
      };`,
    );
    await made.drizzleKit('migrate', '--config=drizzle.sessions.config.ts');
    described[`bundled, ${drizzle}`] = await describeTable(bundled);

    await using migrated = await freshDatabase();
    const options = JSON.stringify({ createTableIfMissing: true });
    expect(await made.node(['use-store.js', migrated.url, options])).toBe('works\n');
    described[`createTableIfMissing, ${drizzle}`] = await describeTable(migrated);
  }
  const [[, first] = [], ...others] = Object.entries(described);
  expect(others).toHaveLength(5);
  for (const [way, table] of others) expect(table, way).toEqual(first);
});

test.each([
  ['0.45', /^drizzle\/\d+_\w+\.sql$/],
  ['1.0', /^drizzle\/v1\/\w+\/migration\.sql$/],
] as const)(
  'psql creates the table from the SQL files in the format of Drizzle %s',
  async (drizzle, sqlFile) => {
    await using db = await freshDatabase();
    await using made = await app(drizzle, db);
    const files = packed.files.filter((path) => sqlFile.test(path)).sort();
    expect(files.length).toBeGreaterThan(0);
    for (const file of files) await psql(db, made, `node_modules/connect-drizzle/${file}`);
    expect(await made.node(['use-store.js', db.url])).toBe('works\n');
  },
);

/** Runs `psql -f`; without psql, sends the file as one simple query. */
async function psql(db: TestDatabase, made: ScratchApp, file: string): Promise<void> {
  try {
    await made.run('psql', ['-X', '-v', 'ON_ERROR_STOP=1', '-f', file, db.url]);
  } catch (error) {
    if (!(error instanceof Error && /ENOENT/.test(String(error.cause)))) throw error;
    console.warn('psql is not installed: its file is sent as one query instead');
    await db.query(await readFile(`${made.folder}/${file}`, 'utf8'));
  }
}

test('twenty processes can start at once on an empty database', async () => {
  await using db = await freshDatabase();
  await using made = await app('0.45', db);
  await made.write(
    'start.js',
    `import { once } from 'node:events';
     import { DrizzleStore } from 'connect-drizzle';
     import 'pg';
     const [url, name, how] = process.argv.slice(2);
     console.log('loaded');
     await once(process.stdin, 'data');
     const options = { pruneSessionInterval: false, createTableIfMissing: how === 'option' };
     const store = new DrizzleStore(url, options);
     if (how === 'method') await store.migrate();
     await store.set(name, { cookie: { originalMaxAge: null }, name });
     const { name: read } = await store.get(name);
     await store.close();
     console.log(read);
     process.stdin.destroy();`,
  );
  const processes = Array.from({ length: 20 }, (_, index) => {
    const how = index % 2 === 0 ? 'option' : 'method';
    const child = made.spawn(['start.js', db.url, `process ${index}`, how]);
    if (!child.stdout || !child.stdin) throw new Error('no pipes');
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return {
      child,
      stdin: child.stdin,
      exit: once(child, 'exit'),
      next: async () => (await lines.next()).value,
    };
  });
  // All processes have loaded the package before the first may start.
  expect(await Promise.all(processes.map(({ next }) => next()))).toEqual(Array(20).fill('loaded'));
  for (const { stdin } of processes) stdin.write('go\n');
  const said = await Promise.all(processes.map(({ next }) => next()));
  expect(said).toEqual(processes.map((_, index) => `process ${index}`));
  for (const { exit } of processes) expect((await exit)[0]).toBe(0);
});
