import { copyFile, readFile } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installIn } from '../scripts/install.js';
import { type TestDatabase, withDatabase } from './support/database.js';
import { startNeonEndpoint } from './support/neon-http.js';
import {
  emptyApp,
  linkedApp,
  type Package,
  packPackage,
  type ScratchApp,
} from './support/package.js';
import { startWebSocketProxy } from './support/websocket-proxy.js';

// The packed package in each runtime, from an ES module and from a CommonJS module.

const cycleFile = fileURLToPath(new URL('./apps/peers/cycle.mjs', import.meta.url));
const programs = fileURLToPath(new URL('./apps/runtimes/', import.meta.url));
const bin = join(installIn('test/apps/runtimes'), 'node_modules/.bin');
const PATH = [bin, dirname(process.execPath), process.env.PATH].join(delimiter);

/** From Node 25 on, network access needs a flag of its own. */
const flags = process.allowedNodeEnvironmentFlags;
const permissions = [
  flags.has('--permission') ? '--permission' : '--experimental-permission',
  '--allow-fs-read=*',
  ...(flags.has('--allow-net') ? ['--allow-net'] : []),
];

const runtimes: [name: string, command: string, args: string[]][] = [
  ['Node', process.execPath, []],
  ['Bun', 'bun', ['--no-install']],
  ['Deno', 'deno', ['run', '-A', '--node-modules-dir=manual']],
];

let packed: Package;
beforeAll(async () => {
  packed = await packPackage();
});

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

/** Starts stand-ins for Neon. `env` tells `cycle.mjs` their addresses. */
async function neonAt({ url }: TestDatabase) {
  const [sockets, http] = await Promise.all([startWebSocketProxy(url), startNeonEndpoint(url)]);
  return {
    env: { NEON_WEBSOCKET: sockets.address, NEON_HTTP: http.url },
    async [Symbol.asyncDispose]() {
      await Promise.all([sockets.close(), http.close()]);
    },
  };
}

/** A URL with a role of its own, because Bun refuses the cheap password hashes of the test server. */
async function withBunUrl(use: (url: string) => Promise<void>): Promise<void> {
  await withDatabase(async (database) => {
    const { name } = database;
    // One connection runs both statements.
    await database.query(
      `select set_config(name, '4096', false) from pg_settings where name = 'scram_iterations';
       create role ${name} superuser login password 'bun'`,
    );
    const url = Object.assign(new URL(database.url), { username: name, password: 'bun' });
    try {
      await use(url.href);
    } finally {
      await database.query(`reassign owned by ${name} to current_user`);
      await database.query(`drop role ${name}`);
    }
  });
}

/** Prints the errors of sources whose driver is missing. */
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

describe.each(runtimes)('in %s', (name, command, args) => {
  const run = (app: ScratchApp, ...more: string[]) =>
    app.run(command, [...args, ...more], { PATH });
  let app: ScratchApp;
  beforeAll(async () => {
    app = await linkedApp(packed, '0.45', { links: ['@neondatabase/serverless', 'ws'] });
    for (const program of ['parallel.mjs', 'bun-sql.mjs']) {
      await copyFile(join(programs, program), join(app.folder, program));
    }
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
          expect(JSON.parse(await run(app, file, driver, url))).toEqual(outcome);
        });
      }
    },
  );

  test.each(['neon-serverless', 'neon-http', 'pg-proxy'])('a store works on %s', async (driver) => {
    await withDatabase(async (database) => {
      await using neon = await neonAt(database);
      const env = { PATH, ...neon.env };
      const output = await app.run(command, [...args, 'cycle.mjs', driver, database.url], env);
      expect(JSON.parse(output)).toEqual(outcome);
    });
  });

  test.each([
    'threads',
    // Deno has no `cluster.fork()`.
    ...(name === 'Deno' ? [] : ['processes of a cluster']),
  ])('stores in two %s share their sessions', async (kind) => {
    await withDatabase(async ({ url }) => {
      const output = await run(app, 'parallel.mjs', kind, url);
      expect(JSON.parse(output)).toEqual({ codes: [0, 0], count: 40 });
    });
  });

  if (name === 'Bun') {
    test.each(['bun-sql', 'an SQL of Bun'])('a store works on %s', async (driver) => {
      await withBunUrl(async (url) => {
        expect(JSON.parse(await run(app, 'cycle.mjs', driver, url))).toEqual(outcome);
      });
    });

    test('a store on an SQL of Bun refuses transactions, hears changes and reconnects', async () => {
      await withBunUrl(async (url) => {
        expect(JSON.parse(await run(app, 'bun-sql.mjs', url))).toEqual({
          refused: [
            'an SQL of Bun with max: 1, on which a ROLLBACK of the app could undo saved sessions; pass one with more',
            'an SQL of Bun for sqlite',
            'an SQL of Bun for mysql',
            'a transaction or a reserved connection of Bun; pass sql itself',
            'a transaction or a reserved connection of Bun; pass sql itself',
          ],
          events: [false, false],
          late: 'ERR_STORE_TIMEOUT',
          isLateThere: false,
          cause: '23514',
          kept: 1,
          state: 'down',
        });
      });
    });
  }

  test('the error of a missing driver names its package', async () => {
    await using bare = await linkedApp(packed, '0.45');
    await bare.run('rm', ['-r', 'node_modules/pg', 'node_modules/@electric-sql']);
    await bare.write('app.mjs', esModule(withoutDrivers));
    await bare.write('app.cjs', commonJs(withoutDrivers));
    expect(await run(bare, 'app.mjs')).toBe(missing);
    expect(await run(bare, 'app.cjs')).toBe(missing);
  });
});

test.each(['pg', 'pglite'])(
  'under the permission model of Node, a store on %s needs no permission except to read its packages',
  async (driver) => {
    await using app = await linkedApp(packed, '0.45');
    await copyFile(cycleFile, join(app.folder, 'cycle.mjs'));
    await withDatabase(async ({ url }) => {
      const output = await app.node([...permissions, 'cycle.mjs', driver, url]);
      expect(JSON.parse(output)).toEqual(outcome);
    });
  },
);

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
});
