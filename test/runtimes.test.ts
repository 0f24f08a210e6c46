import { copyFile, readFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installIn } from '../scripts/install.js';
import { withDatabase } from './support/database.js';
import {
  emptyApp,
  linkedApp,
  type Package,
  packPackage,
  type ScratchApp,
} from './support/package.js';

// The packed package in each runtime, as an ES module and as a CommonJS module.

const cycleFile = fileURLToPath(new URL('./apps/peers/cycle.mjs', import.meta.url));
const bin = join(installIn('test/apps/runtimes'), 'node_modules/.bin');
const PATH = [bin, dirname(process.execPath), process.env.PATH].join(delimiter);

const runtimes: [name: string, command: string, args: string[]][] = [
  ['Node', process.execPath, []],
  ['Bun', 'bun', ['--no-install']],
  ['Deno', 'deno', ['run', '-A', '--node-modules-dir=manual']],
];

let packed: Package;
beforeAll(async () => {
  packed = await packPackage();
});

/** Says what happens without the packages of the drivers. */
const withoutDrivers = `
  for (const source of ['postgres://localhost/app', 'memory://']) {
    const store = new DrizzleStore(source, { errorLog() {} });
    await store.get('a sid').catch(({ code, message }) => console.log(code, /npm install [^ ]+/.exec(message)?.[0]));
    await store.close();
  }`;
const missing =
  'ERR_DRIVER_MISSING npm install pg\nERR_DRIVER_MISSING npm install @electric-sql/pglite\n';

const esModule = (body: string) => `import { DrizzleStore } from 'connect-drizzle';\n${body}`;
const commonJs = (body: string) =>
  `const { DrizzleStore } = require('connect-drizzle');\n(async () => {${body}})();`;

describe.each(runtimes)('in %s', (_, command, args) => {
  const run = (app: ScratchApp, ...more: string[]) =>
    app.run(command, [...args, ...more], { PATH });
  let app: ScratchApp;
  beforeAll(async () => {
    app = await linkedApp(packed, '0.45');
    await copyFile(cycleFile, join(app.folder, 'cycle.mjs'));
    const body = (await readFile(cycleFile, 'utf8')).replace(/^import .*$/m, '');
    await app.write('cycle.cjs', commonJs(body));
  });
  afterAll(() => app[Symbol.asyncDispose]());

  test.each(['pg', 'postgres', 'pglite'])(
    'a store works on %s, from an ES module and from a CommonJS module',
    async (driver) => {
      for (const file of ['cycle.mjs', 'cycle.cjs']) {
        await withDatabase(async ({ url }) => {
          expect(JSON.parse(await run(app, file, driver, url))).toEqual({
            merged: [3, 1, 2],
            isTouched: true,
            updated: 55,
            destroyed: true,
            listed: 18,
            revoked: 17,
            left: 1,
          });
        });
      }
    },
    180_000,
  );

  test('the error of a missing driver names its package', async () => {
    await using bare = await linkedApp(packed, '0.45');
    await bare.run('rm', ['-r', 'node_modules/pg', 'node_modules/@electric-sql']);
    await bare.write('app.mjs', esModule(withoutDrivers));
    await bare.write('app.cjs', commonJs(withoutDrivers));
    expect(await run(bare, 'app.mjs')).toBe(missing);
    expect(await run(bare, 'app.cjs')).toBe(missing);
  });
});

test('under Yarn Plug’n’Play, the error of a missing driver names its package', async () => {
  await using app = await emptyApp({
    manifest: {
      type: 'module',
      dependencies: {
        'connect-drizzle': `file:${packed.tarball}`,
        'drizzle-orm': '0.45.4',
        'express-session': '1.19.0',
      },
    },
  });
  const registry = (await app.run('npm', ['config', 'get', 'registry'])).trim();
  const env = {
    PATH,
    YARN_NPM_REGISTRY_SERVER: registry,
    YARN_UNSAFE_HTTP_WHITELIST: new URL(registry).hostname,
    YARN_ENABLE_TELEMETRY: '0',
    YARN_ENABLE_IMMUTABLE_INSTALLS: '0',
  };
  await app.write('yarn.lock', '');
  await app.write('app.mjs', esModule(withoutDrivers));
  await app.write('app.cjs', commonJs(withoutDrivers));
  await app.run('yarn', ['install'], env);
  expect(await app.run('yarn', ['node', 'app.mjs'], env)).toBe(missing);
  expect(await app.run('yarn', ['node', 'app.cjs'], env)).toBe(missing);
}, 180_000);
