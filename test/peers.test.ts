import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withDatabase } from './support/database.js';
import {
  emptyApp,
  linkedApp,
  type Package,
  packPackage,
  type ScratchApp,
} from './support/package.js';

// The lowest and highest versions in `peerDependencies`, installed by npm into an empty folder.

const folder = fileURLToPath(new URL('./apps/peers/', import.meta.url));
const tsc = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));

const lowest = [
  'drizzle-orm@0.40.0',
  'express-session@1.17.0',
  'pg@8.7.0',
  'postgres@3.2.2',
  '@electric-sql/pglite@0.2.17',
  '@types/express@4.17.13',
  '@types/express-session@1.17.0',
  '@types/node@20.19.43',
  '@types/pg@8.6.0',
];
const highestOf = (drizzle: string) => [
  `drizzle-orm@${drizzle}`,
  'express-session@1.19.0',
  'pg@8.23.1',
  'postgres@3.4.9',
  '@electric-sql/pglite@0.5.16',
];

let packed: Package;
beforeAll(async () => {
  packed = await packPackage();
});

async function cycle(app: ScratchApp, driver: string): Promise<unknown> {
  return withDatabase(async ({ url }) => JSON.parse(await app.node(['cycle.mjs', driver, url])));
}

const outcome = {
  merged: [3, 1, 2],
  isTouched: true,
  updated: 55,
  destroyed: true,
  listed: 18,
  pruned: 1,
  revoked: 17,
  left: 1,
};

describe.each([
  ['the lowest versions', lowest],
  ['the highest versions', highestOf('0.45.4')],
  ['the lowest Drizzle 1.0 and the highest versions', highestOf('1.0.0-rc.5')],
])('with %s of its peers', (name, versions) => {
  let app: ScratchApp;
  beforeAll(async () => {
    app = await emptyApp({ manifest: { type: 'module' } });
    const options = ['--prefer-offline', '--no-audit', '--no-fund'];
    // Fails with ERESOLVE if a peer is out of range.
    await app.run('npm', ['install', packed.tarball, ...versions, ...options]);
    await copyFile(join(folder, 'cycle.mjs'), join(app.folder, 'cycle.mjs'));
  }, 300_000);
  afterAll(() => app?.[Symbol.asyncDispose]());

  test.each(['pg', 'postgres', 'pglite'])('a store works on %s', async (driver) => {
    expect(await cycle(app, driver)).toEqual(outcome);
  });

  test('express-session saves and loads through a store', async () => {
    await app.write('http.mjs', overHttp);
    await withDatabase(async ({ url }) => {
      expect(await app.node(['http.mjs', url])).toBe('1 2 3\n');
    });
  });

  // test/types.test.ts tests the newest versions.
  if (name === 'the lowest versions') {
    test('the types accept the databases', async () => {
      await copyFile(join(folder, 'app.ts'), join(app.folder, 'app.ts'));
      const compilerOptions = {
        target: 'ES2022',
        module: 'NodeNext',
        strict: true,
        noEmit: true,
        skipLibCheck: true,
        types: ['node'],
      };
      await app.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['app.ts'] }));
      expect(await app.node([tsc, '-p', '.'])).toBe('');
    });
  }
});

/** A program with express-session on Node's HTTP server, and three requests of a visitor. */
const overHttp = `
  import { once } from 'node:events';
  import { createServer } from 'node:http';
  import { DrizzleStore } from 'connect-drizzle';
  import session from 'express-session';
  const store = new DrizzleStore(process.argv[2], { createTableIfMissing: true });
  const load = session({ store, secret: 'a secret', resave: false, saveUninitialized: false });
  const server = createServer((request, response) => {
    request.originalUrl = request.url;
    load(request, response, () => {
      request.session.views = (request.session.views ?? 0) + 1;
      response.end(String(request.session.views));
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const seen = [];
  let cookie = '';
  for (let visit = 0; visit < 3; visit += 1) {
    const response = await fetch('http://127.0.0.1:' + server.address().port, { headers: { cookie } });
    cookie = response.headers.get('set-cookie')?.split(';')[0] ?? cookie;
    seen.push(await response.text());
  }
  console.log(...seen);
  server.close();
  server.closeAllConnections();
  await store.close();`;

test('a store works on a database of another copy of Drizzle', async () => {
  await using app = await linkedApp(packed, '0.45');
  await using other = await linkedApp(packed, '1.0');
  await app.run('mkdir', ['-p', 'workspace/node_modules']);
  await app.run('cp', [
    '-P',
    `${other.folder}/node_modules/drizzle-orm`,
    'workspace/node_modules/',
  ]);
  for (const name of ['cycle.mjs', 'workspace/cycle.mjs']) {
    await copyFile(join(folder, 'cycle.mjs'), join(app.folder, name));
    await withDatabase(async ({ url }) => {
      expect(JSON.parse(await app.node([name, 'pg', url]))).toEqual(outcome);
    });
  }
});
