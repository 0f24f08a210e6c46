import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { freshDatabase } from './support/database.js';
import {
  linkedApp,
  type Package,
  packagesOf,
  packPackage,
  type ScratchApp,
} from './support/package.js';

// An app whose tests run under Jest, which has no import() and resolves the `require` condition.

let packed: Package;
let links: Map<string, string>;
const apps: ScratchApp[] = [];
beforeAll(async () => {
  links = await packagesOf('test/apps/jest');
  packed = await packPackage();
});
afterAll(async () => {
  for (const app of apps) await app[Symbol.asyncDispose]();
});

/** The body of the app's test file; except for `roundTrip`, it is valid JavaScript and TypeScript. */
const appTests = `
  const url = process.env.DATABASE_URL ?? '';
  const options = { createTableIfMissing: true };

  async function roundTrip(store: Store, sid: string) {
    const app = session({ store, secret: 'a secret', resave: false, saveUninitialized: false });
    expect(app).toBeInstanceOf(Function);
    const cookie = Object.assign(new session.Cookie(), { originalMaxAge: 60_000 });
    await store.set(sid, { cookie, views: 1 });
    await store.update(sid, (data) => { data.views += 1; });
    const data = await store.get(sid);
    expect(data?.views).toBe(2);
    await store.destroy(sid);
    expect(await store.get(sid)).toBeFalsy();
    await store.close();
  }

  test('works on the app’s own pool', async () => {
    const pool = new Pool({ connectionString: url });
    await roundTrip(new DrizzleStore(pool, options), 'through a pool');
    await pool.end();
  });

  test('works on a Drizzle database, beside queries of the app', async () => {
    const pool = new Pool({ connectionString: url });
    const db = drizzle({ client: pool });
    await roundTrip(new DrizzleStore(db, options), 'through a database');
    const rows = await db.select().from(sessions).where(eq(sessions.id, idOf('through a database')));
    expect(rows).toHaveLength(1);
    await pool.end();
  });

  test('works on a URL', async () => {
    await roundTrip(new DrizzleStore(url, options), 'through a URL');
  });

  test('works with sync', async () => {
    const store = new DrizzleStore(url, { ...options, sync: true });
    await store.ready();
    await roundTrip(store, 'in realtime');
  });

  test('names a driver that is not installed', async () => {
    const store = new DrizzleStore('memory://');
    await expect(store.get('a sid')).rejects.toThrow(
      'This source needs the package @electric-sql/pglite, which is not installed',
    );
    await store.close();
  });

  test('reports that it cannot connect', async () => {
    const store = new DrizzleStore('postgres://nobody@127.0.0.1:1/none');
    await expect(store.get('a sid')).rejects.toMatchObject({ code: 'ERR_CONNECTION' });
    await store.close();
  });

  test('exports the same table from the package and its schema', () => {
    expect(sessions).toBe(tableOfTheSchema);
  });`;

const inJavaScript = `
  const session = require('express-session');
  const { Pool } = require('pg');
  const { eq } = require('drizzle-orm');
  const { drizzle } = require('drizzle-orm/node-postgres');
  const { DrizzleStore, idOf, sessions } = require('connect-drizzle');
  const { sessions: tableOfTheSchema } = require('connect-drizzle/schema');
  ${appTests.replace('(store: Store, sid: string)', '(store, sid)')}`;

const inTypeScript = `
  import session from 'express-session';
  import { Pool } from 'pg';
  import { eq } from 'drizzle-orm';
  import { drizzle } from 'drizzle-orm/node-postgres';
  import { DrizzleStore, idOf, sessions } from 'connect-drizzle';
  import { sessions as tableOfTheSchema } from 'connect-drizzle/schema';
  declare module 'express-session' {
    interface SessionData { views: number }
  }
  type Store = DrizzleStore;
  ${appTests}`;

/** An app on the packed package with Jest, without PGlite. */
async function jestApp(manifest: object): Promise<ScratchApp> {
  const app = await linkedApp(packed, '0.45', {
    manifest: { type: 'commonjs', ...manifest },
    links,
  });
  apps.push(app);
  await app.run('rm', ['-r', 'node_modules/@electric-sql']);
  return app;
}

interface Report {
  readonly numPassedTests: number;
  readonly testResults: {
    readonly message: string;
    readonly assertionResults: { readonly title: string; readonly status: string }[];
  }[];
}

/** Runs the app's Jest and returns its report. Throws if a test fails. */
async function runJest(app: ScratchApp): Promise<Report> {
  await using db = await freshDatabase();
  const jest = join(links.get('jest') ?? '', 'bin/jest.js');
  const output = await app.node([jest, '--json', '--runInBand'], { DATABASE_URL: db.url, CI: '1' });
  return JSON.parse(output);
}

test('the tests of an app pass under Jest with its defaults', async () => {
  const app = await jestApp({});
  await app.write('app.test.js', inJavaScript);
  const report = await runJest(app);
  expect(report.numPassedTests).toBe(7);
});

test.each([
  ['CommonJS modules', { module: 'CommonJS' }],
  ['Node modules', { module: 'NodeNext', isolatedModules: true }],
  ['Node modules, with type checks', { module: 'NodeNext' }],
])('the tests of an app pass under ts-jest that compiles to %s', async (_, options) => {
  const app = await jestApp({ jest: { preset: 'ts-jest' } });
  const compilerOptions = {
    target: 'ES2023',
    strict: true,
    esModuleInterop: true,
    skipLibCheck: true,
    types: ['node', 'jest'],
    ...options,
  };
  await app.write('tsconfig.json', JSON.stringify({ compilerOptions }));
  await app.write('app.test.ts', inTypeScript);
  const report = await runJest(app);
  expect(report.numPassedTests).toBe(7);
});
