import { access, chmod, mkdir, readdir, readFile, rm, stat, symlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freshDatabase } from './support/database.js';
import {
  type DrizzleVersion,
  emptyApp,
  linkedApp,
  type Package,
  packPackage,
  type ScratchApp,
} from './support/package.js';
import { pages } from './support/snippets.js';
import { startWebSocketProxy } from './support/websocket-proxy.js';

// The package as users install it.

let packed: Package;
beforeAll(async () => {
  packed = await packPackage();
});

test('the tarball contains what a user needs and nothing else', () => {
  const expected = [
    /^(README|CHANGELOG)\.md$/,
    /^LICENSE$/,
    /^package\.json$/,
    /^dist\/[\w-]+(\/[\w-]+){0,2}\.(js|d\.c?ts)(\.map)?$/,
    /^dist\/(index|schema|admin)\.cjs(\.map)?$/,
    // The sources for the source maps.
    /^src\/[\w-]+(\/[\w-]+){0,2}\.c?ts$/,
    /^drizzle\/\d+_\w+\.sql$/,
    /^drizzle\/meta\/_journal\.json$/,
    /^drizzle\/v1\/\d+_\w+\/migration\.sql$/,
  ];
  const unexpected = packed.files.filter((path) => !expected.some((pattern) => pattern.test(path)));
  expect(unexpected).toEqual([]);
  const missing = expected.filter((pattern) => !packed.files.some((path) => pattern.test(path)));
  expect(missing).toEqual([]);
  console.log(`tarball: ${kilobytes(packed.size)}, unpacked ${kilobytes(packed.unpackedSize)}`);
});

const repository = 'https://github.com/connect-drizzle/connect-drizzle';
const root = fileURLToPath(new URL('../', import.meta.url));

/** Returns the text of a page without its code blocks. */
async function proseOf(page: string): Promise<string> {
  return (await readFile(join(root, page), 'utf8')).replaceAll(/^```[\s\S]*?^```/gm, '');
}

/** Returns the targets of the links and images of a page, without those to other sites. */
async function linksOf(page: string): Promise<string[]> {
  const text = await proseOf(page);
  const found = text.matchAll(/\]\(([^)\s]+)\)|\b(?:src|href)="([^"]+)"/g);
  return Array.from(found, ([, link, source]) => link ?? source ?? '').filter(
    (link) => !/^\w+:/.test(link) || link.startsWith(repository),
  );
}

/** Returns the anchors that GitHub makes of a page's headings. */
async function anchorsOf(page: string): Promise<string[]> {
  const text = await proseOf(page);
  return Array.from(text.matchAll(/^#+ (.+)$/gm), ([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

test('every link of the README and the docs leads to an existing file and heading', async () => {
  const others = ['CHANGELOG.md', 'CONTRIBUTING.md', 'test/faults/README.md', 'examples/README.md'];
  const broken: string[] = [];
  let links = 0;
  for (const page of [...others, ...(await pages())]) {
    for (const link of await linksOf(page)) {
      links++;
      const [path = '', anchor] = link.replace(/^https:.*?\/(blob|tree)\/main\//, '/').split('#');
      const file = path.startsWith('/') ? path.slice(1) : join(dirname(page), path);
      const target = path === '' ? page : file;
      const isThere = await access(join(root, target)).then(
        () => anchor === undefined || anchorsOf(target).then((all) => all.includes(anchor)),
        () => false,
      );
      if (!isThere) broken.push(`${page}: ${link}`);
    }
  }
  expect(broken).toEqual([]);
  expect(links).toBeGreaterThan(40);
});

test('README and CHANGELOG have no relative links, because the package does not contain docs', async () => {
  const manifest: { repository: { url: string }; homepage: string; bugs: string } = JSON.parse(
    await readFile(join(root, 'package.json'), 'utf8'),
  );
  expect(manifest).toMatchObject({
    repository: { url: `git+${repository}.git` },
    homepage: `${repository}#readme`,
    bugs: `${repository}/issues`,
  });
  // Registries and GitHub resolve images through `repository`.
  for (const page of ['README.md', 'CHANGELOG.md']) {
    const relative = (await linksOf(page)).filter(
      (link) => !/^(https:|#|docs\/images\/)/.test(link),
    );
    expect(relative, page).toEqual([]);
  }
});

test('every source map leads to files in the tarball', async () => {
  await using app = await linkedApp(packed, '0.45');
  const own = join(app.folder, 'node_modules/connect-drizzle');
  const mapped = packed.files.filter((path) => /^dist\/.*\.(c?js|d\.c?ts)$/.test(path));
  expect(mapped.length).toBeGreaterThan(50);
  for (const path of mapped) {
    const file = join(own, path);
    const [, name] = /^\/\/# sourceMappingURL=(.+)$/m.exec(await readFile(file, 'utf8')) ?? [];
    expect(name, path).toBe(`${basename(path)}.map`);
    const map: { file?: string; sources: string[] } = JSON.parse(
      await readFile(`${file}.map`, 'utf8'),
    );
    // esbuild omits `file`.
    if (map.file !== undefined) expect(map.file).toBe(basename(path));
    expect(map.sources.length).toBeGreaterThan(0);
    for (const source of map.sources) await access(join(dirname(file), source));
  }
});

test.each([
  ['import', `import { DrizzleStore } from 'connect-drizzle';`, []],
  [
    'require',
    `import { createRequire } from 'node:module';
     const { DrizzleStore } = createRequire(import.meta.url)('connect-drizzle');`,
    ['--no-experimental-require-module'],
  ],
])('a stack trace names the TypeScript sources after %s', async (_, load, flags) => {
  await using app = await linkedApp(packed, '0.45');
  await app.write(
    'app.mjs',
    `${load}\ntry { new DrizzleStore(7); } catch (error) { console.log(error.stack); }`,
  );
  const stack = await app.node(['--enable-source-maps', ...flags, 'app.mjs']);
  expect(stack).toMatch(/connect-drizzle\/src\/drivers\/\w+\.ts:\d+:\d+/);
  expect(stack).not.toMatch(/connect-drizzle\/dist\//);
});

const useStore = `
  async function use(url) {
    const store = new DrizzleStore(url, { createTableIfMissing: true });
    await store.set('a sid', { cookie: { originalMaxAge: null }, views: 1 });
    const { views } = await store.get('a sid');
    await store.close();
    return views;
  }
  use(process.argv[2]).then((views) => console.log('views', views, typeof idOf, typeof sessions));`;

describe('installed by npm into an empty app, the package', () => {
  let app: ScratchApp;
  beforeAll(async () => {
    app = await emptyApp();
    const peers = ['express-session', 'drizzle-orm@0.45', 'pg'];
    await app.run('npm', [
      'install',
      packed.tarball,
      ...peers,
      '--prefer-offline',
      '--no-audit',
      '--no-fund',
    ]);
  });
  afterAll(async () => {
    await app[Symbol.asyncDispose]();
  });

  test('works as CommonJS build', async () => {
    await using db = await freshDatabase();
    await app.write(
      'commonjs.cjs',
      `const { DrizzleStore, idOf } = require('connect-drizzle');
       const { sessions } = require('connect-drizzle/schema');\n${useStore}`,
    );
    expect(await app.node(['--no-experimental-require-module', 'commonjs.cjs', db.url])).toBe(
      'views 1 function object\n',
    );
  });

  test('can be imported by an ES module', async () => {
    await using db = await freshDatabase();
    await app.write(
      'app.mjs',
      `import { DrizzleStore, idOf, sessions } from 'connect-drizzle';\n${useStore}`,
    );
    expect(await app.node(['app.mjs', db.url])).toBe('views 1 function object\n');
  });

  test('can be required by a CommonJS module without a warning', async () => {
    await using db = await freshDatabase();
    await app.write(
      'app.cjs',
      `process.on('warning', (warning) => console.log(String(warning)));
       const { DrizzleStore, idOf } = require('connect-drizzle');
       const { sessions } = require('connect-drizzle/schema');\n${useStore}`,
    );
    expect(await app.node(['app.cjs', db.url])).toBe('views 1 function object\n');
  });

  test('has one dependency', async () => {
    const own: { dependencies: object } = JSON.parse(
      await readFile(join(app.folder, 'node_modules/connect-drizzle/package.json'), 'utf8'),
    );
    expect(Object.keys(own.dependencies)).toEqual(['lru-cache']);
    console.log(
      `node_modules with its peers and pg: ${kilobytes(await sizeOf(join(app.folder, 'node_modules')))}`,
    );
    const alone = await Promise.all(
      ['connect-drizzle', 'lru-cache'].map((name) =>
        sizeOf(join(app.folder, 'node_modules', name)),
      ),
    );
    console.log(
      `of that connect-drizzle and lru-cache: ${kilobytes(alone[0] ?? 0)} and ${kilobytes(alone[1] ?? 0)}`,
    );
  });

  test.each([
    ['the ES module', []],
    ['the CommonJS build', ['--no-experimental-require-module']],
  ])('names the missing package of an embedded database, with %s', async (_, flags) => {
    await app.write(
      'embedded.cjs',
      `const { DrizzleStore } = require('connect-drizzle');
       const store = new DrizzleStore('memory://');
       store.get('a sid')
         .then(() => console.log('works'), (error) => console.log(error.code, error.message))
         .then(() => store.close());`,
    );
    expect(await app.node([...flags, 'embedded.cjs'])).toBe(
      'ERR_DRIVER_MISSING This source needs the package @electric-sql/pglite, which is not installed: ' +
        'npm install @electric-sql/pglite (a bundled app needs it in node_modules as well)\n',
    );
  });
});

test('a Neon pool works and listens without pg', async () => {
  await using db = await freshDatabase();
  await using proxy = await startWebSocketProxy(db.url);
  await using app = await linkedApp(packed, '0.45', { links: ['@neondatabase/serverless', 'ws'] });
  await rm(join(app.folder, 'node_modules/pg'));
  await app.write(
    'app.mjs',
    `import { once } from 'node:events';
     import { neonConfig, Pool } from '@neondatabase/serverless';
     import { DrizzleStore } from 'connect-drizzle';
     import { WebSocket } from 'ws';
     neonConfig.webSocketConstructor = WebSocket;
     neonConfig.wsProxy = () => process.argv[3];
     neonConfig.useSecureWebSocket = false;
     neonConfig.pipelineConnect = false;
     const pool = new Pool({ connectionString: process.argv[2] });
     const store = new DrizzleStore(pool, { createTableIfMissing: true, sync: true });
     const up = once(store, 'sync');
     await store.set('a sid', { cookie: { originalMaxAge: null }, views: 1 });
     console.log((await store.get('a sid')).views, ...(await up));
     await store.close();
     await pool.end();
     console.log(await import('pg').then(() => 'pg', (error) => error.code));`,
  );
  expect(await app.node(['app.mjs', db.url, proxy.address])).toBe('1 up\nERR_MODULE_NOT_FOUND\n');
});

describe('the command line', () => {
  test.each(['0.45', '1.0'] as const)(
    'runs by its name in an app with Drizzle %s',
    async (drizzle) => {
      await using db = await freshDatabase();
      await using app = await linkedApp(packed, drizzle);
      // npm links the program like this.
      const bin = join(app.folder, 'node_modules/.bin/connect-drizzle');
      await mkdir(dirname(bin));
      await chmod(join(app.folder, 'node_modules/connect-drizzle/dist/cli/bin.js'), 0o755);
      await symlink('../connect-drizzle/dist/cli/bin.js', bin);
      const run = (...args: string[]) =>
        app.node(['node_modules/.bin/connect-drizzle', ...args], { DATABASE_URL: db.url });
      const { version }: { version: string } = JSON.parse(
        await readFile(new URL('../package.json', import.meta.url), 'utf8'),
      );
      expect(await app.run('npx', ['connect-drizzle', '--version'])).toBe(`${version}\n`);
      expect(await run('migrate')).toContain('Created the table sessions');
      await db.query(
        `create table session (sid varchar primary key, sess json, expire timestamp(6))`,
      );
      await db.query(`insert into session values
      ('a', '{"cookie":{"originalMaxAge":1},"user":"ada"}', now() + interval '1 day'),
      ('b', '{"cookie":{"originalMaxAge":1},"user":"ada"}', now() + interval '1 day')`);
      const from = ['import', '--from', 'connect-pg-simple', '--user-path', 'user', '--yes'];
      expect(await run(...from)).toContain('Copied 2 sessions');
      await db.query(
        `update session set sess = '{"cookie":{},"user":"ada","n":1}' where sid = 'a'`,
      );
      await db.query(`delete from session where sid = 'b'`);
      expect(await run(...from, '--final', '--json')).toContain('"updated": 1,\n  "revoked": 1');
      expect(JSON.parse(await run('status', '--json'))).toMatchObject({ live: 1, revoked: 1 });
      expect(await run('list', '--user', 'ada', '--jsonl')).toContain('"userId":"ada"');
      expect(await run('export', '--user', 'ada')).toContain('"n": 1');
      expect(await run('users')).toMatch(/ada +1/);
      await app.write(
        'keys.mjs',
        `export default { encryptionKeys: ['${'1'.repeat(64)}', 'plaintext'] };`,
      );
      expect(await run('rekey', '--config', 'keys.mjs', '--yes')).toBe('Encrypted 1 session.\n');
      expect(await run('revoke', '--user', 'ada', '--yes')).toBe('Revoked 1 session of ada.\n');
      expect(await run('prune')).toBe('Deleted 0 rows.\n');
    },
  );

  test('uses postgres if pg is not installed, and asks for pg if neither is', async () => {
    await using db = await freshDatabase();
    await using app = await linkedApp(packed, '0.45');
    const run = (...args: string[]) =>
      app.node(['node_modules/connect-drizzle/dist/cli/bin.js', ...args, '--url', db.url]);
    await rm(join(app.folder, 'node_modules/pg'));
    expect(await run('migrate')).toContain('Created the table sessions');
    expect(await run('list', '--json')).toContain('"sessions": []');
    await rm(join(app.folder, 'node_modules/postgres'));
    await expect(run('list')).rejects.toThrow('A driver for Postgres is missing: npm install pg');
  });
});

describe('the CommonJS build', () => {
  test('has no import(), which fails under Jest', async () => {
    await using app = await linkedApp(packed, '0.45');
    for (const name of ['index', 'schema', 'admin']) {
      const file = join(app.folder, `node_modules/connect-drizzle/dist/${name}.cjs`);
      expect(await readFile(file, 'utf8')).not.toMatch(/\bimport\s*\(/);
    }
  });

  test('has the exports of the ES module, and the same table in all modules', async () => {
    await using app = await linkedApp(packed, '0.45');
    await app.write(
      'app.mjs',
      `import assert from 'node:assert/strict';
       import { createRequire } from 'node:module';
       import * as esm from 'connect-drizzle';
       import * as esmAdmin from 'connect-drizzle/admin';
       import * as esmSchema from 'connect-drizzle/schema';
       const require = createRequire(import.meta.url);
       const cjs = require('connect-drizzle');
       const cjsAdmin = require('connect-drizzle/admin');
       const cjsSchema = require('connect-drizzle/schema');
       assert.notEqual(cjs.DrizzleStore, esm.DrizzleStore);
       assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
       assert.deepEqual(Object.keys(cjsSchema).sort(), Object.keys(esmSchema).sort());
       assert.deepEqual(Object.keys(cjsAdmin), Object.keys(esmAdmin));
       for (const [name, value] of Object.entries(esm)) {
         if (typeof value === 'function') assert.equal(cjs[name].name, value.name);
       }
       assert.equal(cjs.sessions, cjsSchema.sessions);
       console.log('the same');`,
    );
    expect(await app.node(['--no-experimental-require-module', 'app.mjs'])).toBe('the same\n');
  });
});

test.each([
  ['an ES module', 'app.mjs', 'import', []],
  ['a CommonJS module', 'app.cjs', 'require', []],
  ['the CommonJS build', 'app.cjs', 'require', ['--no-experimental-require-module']],
])('%s can serve the admin page', async (_, file, kind, flags) => {
  await using db = await freshDatabase();
  await using app = await linkedApp(packed, '0.45', { links: ['express'] });
  const load = (names: string, from: string) =>
    kind === 'import' ? `import ${names} from '${from}';` : `const ${names} = require('${from}');`;
  await app.write(
    file,
    `${load('{ DrizzleStore }', 'connect-drizzle')}
     ${load('{ sessionAdmin }', 'connect-drizzle/admin')}
     ${load('express', 'express')}
     const store = new DrizzleStore(process.argv[2], { createTableIfMissing: true });
     const server = express().use('/admin', sessionAdmin({ store, authorize: () => true })).listen(0, async () => {
       await store.set('a sid', { cookie: { originalMaxAge: null } });
       const { port } = server.address();
       const headers = { accept: 'application/json' };
       const answer = await fetch('http://127.0.0.1:' + port + '/admin/', { headers });
       const { sessions } = await answer.json();
       console.log(answer.status, sessions.length);
       server.close();
       server.closeAllConnections();
       await store.close();
     });`,
  );
  expect(await app.node([...flags, file, db.url])).toBe('200 1\n');
});

const tsc = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));

describe('the types of the package', () => {
  const source = `
    import express from 'express';
    import session from 'express-session';
    import { DrizzleStore, idOf, type SessionTable, sessions } from 'connect-drizzle';
    import { sessionAdmin } from 'connect-drizzle/admin';
    import { sessionTable } from 'connect-drizzle/schema';

    declare module 'express-session' {
      interface SessionData { views: number }
    }

    export const store = new DrizzleStore('postgres://localhost/app', {
      tableName: 'web_sessions',
      ttl: (data) => data.views * 60,
      userId: (data) => data.views,
    });
    export const middleware: unknown = session({ store, secret: 'secret' });
    export const admin = sessionAdmin({
      store,
      authorize: async (request) => request.session.views === 7,
      describe: ({ views }) => ({ Views: views }),
      audit: ({ action, userId, request }) => console.log(action, userId, request.ip),
    });
    express().use('/admin/sessions', admin);
    // @ts-expect-error authorize is required
    export const open = () => sessionAdmin({ store });
    export const table: SessionTable = sessionTable({ tableName: 'web_sessions' });
    export const id: string = idOf('a sid');

    export function columns(row: typeof sessions.$inferSelect) {
      const user: string | null = row.userId;
      const expires: Date = row.expiresAt;
      // @ts-expect-error a number is no string
      const version: string = row.version;
      // @ts-expect-error it may be null
      const revoked: Date = row.revokedAt;
      return [user, expires, version, revoked];
    }
    export const values: typeof sessions.$inferInsert = { id, expiresAt: new Date() };
    // @ts-expect-error the expiry has no default
    export const tooFew: typeof sessions.$inferInsert = { id };

    export async function use(): Promise<number | undefined> {
      const read = await store.get('a sid');
      const views: number | undefined = read?.views;
      store.get('a sid', (error, data) => console.log(error, data?.views));
      await store.update('a sid', (data) => { data.views += 1; });
      store.on('destroy', ({ id, local }) => console.log(id.length, local === true));
      // @ts-expect-error the event is an object
      store.on('destroy', (id: string) => console.log(id));
      for await (const { data, expiresAt } of store.sessions({ userId: 1 })) {
        console.log(data.views, expiresAt.getTime());
      }
      // @ts-expect-error a number is no string
      const wrong: string | undefined = read?.views;
      return views ?? Number(wrong);
    }`;

  // Drizzle has other declarations for CommonJS modules than for ES modules.
  const ownTable = `
    import { sessionColumns, sessionIndexes } from 'connect-drizzle/schema';
    import { eq } from 'drizzle-orm';
    import { drizzle } from 'drizzle-orm/node-postgres';
    import { integer, pgTable } from 'drizzle-orm/pg-core';

    const users = pgTable('users', { id: integer('id').primaryKey() });
    const appSessions = pgTable(
      'app_sessions',
      { ...sessionColumns(), userId: integer('user_id').references(() => users.id) },
      sessionIndexes,
    );
    export const appStore = new DrizzleStore('postgres://localhost/app', { table: appSessions });
    export const owner = (row: typeof appSessions.$inferSelect): number | null => row.userId;

    const db = drizzle('postgres://localhost/app');
    export const dbStore = new DrizzleStore(db);
    export const ofUser = (id: string) => db.select().from(sessions).where(eq(sessions.userId, id));`;

  const links = ['@types/express-session', '@types/express', '@types/node', '@types/pg'];

  async function typed(
    drizzle: DrizzleVersion,
    type: string,
    options: object,
  ): Promise<ScratchApp> {
    const app = await linkedApp(packed, drizzle, { manifest: { type }, links });
    await app.write('app.ts', `${source}\n${ownTable}`);
    const compilerOptions = {
      target: 'ES2023',
      strict: true,
      noEmit: true,
      // The declarations must be able to name the type of the exported store.
      declaration: true,
      types: ['node'],
      ...options,
    };
    await app.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['app.ts'] }));
    return app;
  }

  test.each([
    ['an ES module', '0.45', 'module', { module: 'NodeNext' }],
    ['an ES module with Drizzle 1.0', '1.0', 'module', { module: 'NodeNext' }],
    ['a CommonJS module', '0.45', 'commonjs', { module: 'NodeNext' }],
    ['a CommonJS module with Drizzle 1.0', '1.0', 'commonjs', { module: 'NodeNext' }],
    ['a bundled app', '0.45', 'module', { module: 'ESNext', moduleResolution: 'Bundler' }],
  ] as const)('know the SessionData of the app in %s', async (_, drizzle, type, options) => {
    await using app = await typed(drizzle, type, { ...options, skipLibCheck: true });
    expect(await app.node([tsc, '-p', '.'])).toBe('');
  });

  test.each([
    ['0.45', 'module'],
    ['0.45', 'commonjs'],
    ['1.0', 'module'],
    ['1.0', 'commonjs'],
  ] as const)(
    'have no errors of their own with Drizzle %s in a package of type %s, without skipLibCheck',
    async (drizzle, type) => {
      await using app = await typed(drizzle, type, { module: 'NodeNext' });
      // Drizzle's declarations have errors, so only those of this package count.
      const said = await app.node([tsc, '-p', '.']).catch((error: Error) => error.message);
      const own = said.split('\n').filter((line) => /connect-drizzle\/dist|^app\.ts/.test(line));
      expect(own).toEqual([]);
    },
  );
});

test('the types of the schema do not need the types of Node', async () => {
  await using app = await linkedApp(packed, '0.45');
  await app.write(
    'app.ts',
    `import { sessions } from 'connect-drizzle/schema';
     export const id: string = (document.title as typeof sessions.$inferSelect.id);`,
  );
  const compilerOptions = {
    target: 'ES2023',
    lib: ['ES2023', 'DOM'],
    module: 'ESNext',
    moduleResolution: 'Bundler',
    strict: true,
    noEmit: true,
    types: [],
  };
  await app.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['app.ts'] }));
  // Drizzle's declarations have errors, which do not count.
  const output = await app.node([tsc, '-p', '.']).catch((error: Error) => error.message);
  expect(output.split('\n').filter((line) => /connect-drizzle\/dist|^app\.ts/.test(line))).toEqual(
    [],
  );
});

describe('an import', () => {
  /** The paths of all scripts that Node loaded while the app ran. */
  async function loadedBy(app: ScratchApp, code: string, ...args: string[]): Promise<string[]> {
    await app.write('loads.mjs', code);
    const coverage = join(app.folder, 'coverage');
    await app.node(['loads.mjs', ...args], { NODE_V8_COVERAGE: coverage });
    const loaded = new Set<string>();
    for (const file of await readdir(coverage)) {
      const report: { result: { url: string }[] } = JSON.parse(
        await readFile(join(coverage, file), 'utf8'),
      );
      for (const { url } of report.result)
        if (url.startsWith('file:')) loaded.add(fileURLToPath(url));
    }
    return [...loaded];
  }

  const drivers = (files: string[]) =>
    ['/pg/', '/postgres/', '/@electric-sql/pglite/'].filter((driver) =>
      files.some((file) => file.includes(`/node_modules${driver}`)),
    );

  test('of connect-drizzle loads no driver', async () => {
    await using app = await linkedApp(packed, '0.45');
    const loaded = await loadedBy(app, `import 'connect-drizzle';`);
    expect(drivers(loaded)).toEqual([]);
    expect(loaded.some((file) => file.endsWith('/connect-drizzle/dist/store.js'))).toBe(true);
    const sizes = await Promise.all(loaded.map(async (file) => (await stat(file)).size));
    const own = await Promise.all(
      loaded
        .filter((file) => file.includes('/connect-drizzle/'))
        .map(async (file) => (await stat(file)).size),
    );
    console.log(
      `import 'connect-drizzle' loads ${loaded.length} files, ${kilobytes(sum(sizes))}; its own are ${own.length}, ${kilobytes(sum(own))}`,
    );
  });

  test('of connect-drizzle/schema loads neither the store nor a driver', async () => {
    await using app = await linkedApp(packed, '0.45');
    const loaded = await loadedBy(app, `import 'connect-drizzle/schema';`);
    expect(drivers(loaded)).toEqual([]);
    expect(loaded.filter((file) => /\/dist\/(store|queries\/|batching\/)/.test(file))).toEqual([]);
  });

  test('of a driver happens when it is needed: node-postgres for a URL, PGlite for an embedded database', async () => {
    await using db = await freshDatabase();
    await using app = await linkedApp(packed, '0.45');
    const open = `
      import { DrizzleStore } from 'connect-drizzle';
      const store = new DrizzleStore(process.argv[2], { createTableIfMissing: true });
      await store.get('a sid');
      await store.close();`;
    expect(drivers(await loadedBy(app, open, db.url))).toEqual(['/pg/']);
    await using embedded = await linkedApp(packed, '0.45');
    expect(drivers(await loadedBy(embedded, open, 'memory://'))).toEqual([
      '/@electric-sql/pglite/',
    ]);
  });
});

test.each([
  [
    'an ES module',
    'esm',
    `import { DrizzleStore, idOf } from 'connect-drizzle';
     import { sessions } from 'connect-drizzle/schema';`,
  ],
  [
    'a CommonJS module',
    'cjs',
    `const { DrizzleStore, idOf } = require('connect-drizzle');
     const { sessions } = require('connect-drizzle/schema');`,
  ],
] as const)('an app bundled into one file, %s, can create its table', async (_, format, load) => {
  await using db = await freshDatabase();
  await using app = await linkedApp(packed, '0.45');
  const [entry, output] = format === 'esm' ? ['app.mjs', 'bundle.mjs'] : ['app.cjs', 'bundle.cjs'];
  await app.write(entry, `${load}\n${useStore}`);
  await build({
    absWorkingDir: app.folder,
    entryPoints: [entry],
    bundle: true,
    platform: 'node',
    format,
    outfile: join(app.folder, output),
    external: ['pg', 'postgres', '@electric-sql/pglite'],
    banner:
      format === 'esm'
        ? {
            js: `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`,
          }
        : {},
    logLevel: 'error',
  });
  await app.run('rm', ['-r', 'node_modules/connect-drizzle', 'node_modules/drizzle-orm']);
  expect(await app.node([output, db.url])).toBe('views 1 function object\n');
});

async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return sum(
    await Promise.all(
      files.map(async ({ parentPath, name }) => (await stat(join(parentPath, name))).size),
    ),
  );
}

function sum(numbers: number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

function kilobytes(bytes: number): string {
  return `${(bytes / 1000).toFixed(1)} kB`;
}
