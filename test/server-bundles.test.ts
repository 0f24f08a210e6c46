import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type BuildOptions, build } from 'esbuild';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { installIn } from '../scripts/install.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { emptyApp, packPackage, type ScratchApp } from './support/package.js';

// Servers bundled into one file, in an app with pg and no other driver.

let app: ScratchApp;
let database: TestDatabase;
beforeAll(async () => {
  const packed = await packPackage();
  database = await freshDatabase();
  app = await emptyApp();
  const packages = [packed.tarball, 'express-session@1.19', 'drizzle-orm@0.45', 'pg@8'];
  const quietly = ['--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error'];
  await app.run('npm', ['install', ...packages, ...quietly]);
  await app.write('server.mjs', serverWith(moduleImports));
  await app.write('server.cjs', serverWith(moduleRequires));
});
afterAll(async () => {
  await app?.[Symbol.asyncDispose]();
  await database?.drop();
});

const moduleImports = `
  import { createServer } from 'node:http';
  import session from 'express-session';
  import pg from 'pg';
  import { DrizzleStore } from 'connect-drizzle';`;

const moduleRequires = `
  const { createServer } = require('node:http');
  const session = require('express-session');
  const pg = require('pg');
  const { DrizzleStore } = require('connect-drizzle');`;

/** Serves two requests of one visitor on each source, and prints the response to the second one. */
const serverWith = (modules: string) => `${modules}
  const url = process.argv[2];
  async function serveOn(source) {
    const store = new DrizzleStore(source, { createTableIfMissing: true, errorLog() {} });
    const load = session({ store, secret: 'a secret', resave: false, saveUninitialized: false });
    const server = createServer((request, response) => load(request, response, () => {
      request.session.views = (request.session.views ?? 0) + 1;
      response.end(String(request.session.views));
    }));
    try {
      await store.ready();
      await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
      const at = 'http://127.0.0.1:' + server.address().port;
      const first = await fetch(at);
      const cookie = first.headers.get('set-cookie').split(';')[0];
      return 'views ' + await (await fetch(at, { headers: { cookie } })).text();
    } catch (error) {
      return error.code + ' ' + error.message.split(':')[0];
    } finally {
      server.close();
      await store.close();
    }
  }
  const pool = new pg.Pool({ connectionString: url });
  serveOn(pool)
    .then(async (onPool) => [onPool, await serveOn(url), await serveOn('memory://')])
    .then((results) => console.log(results.join('\\n')))
    .then(() => pool.end());`;

const bundlers = installIn('test/apps/browser');

/** Runs a script with the bundlers' modules in scope, in the app's folder. */
async function runBundler(name: string, script: string): Promise<void> {
  const file = join('bundlers', `${name}.mjs`);
  await app.write(file, script);
  await mkdir(join(app.folder, 'bundlers'), { recursive: true });
  await symlink(join(bundlers, 'node_modules'), join(app.folder, 'bundlers/node_modules')).catch(
    (error) => {
      if (error.code !== 'EEXIST') throw error;
    },
  );
  await app.node([file]);
}

type Bundler = (entry: string, file: string) => Promise<unknown>;

const esbuild =
  (options: BuildOptions): Bundler =>
  (entry, file) =>
    build({
      absWorkingDir: app.folder,
      entryPoints: [entry],
      outfile: file,
      bundle: true,
      platform: 'node',
      logLevel: 'silent',
      ...options,
    });

/** The banner of the guide, which defines `require` in an ES module. */
const banner = `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`;

const rollup: Bundler = (entry, file) =>
  runBundler(
    `rollup-${entry}`,
    `import commonjs from '@rollup/plugin-commonjs';
     import { nodeResolve } from '@rollup/plugin-node-resolve';
     import { rollup } from 'rollup';
     const bundle = await rollup({
       input: ${JSON.stringify(entry)},
       plugins: [nodeResolve({ preferBuiltins: true, exportConditions: ['node'] }), commonjs()],
       onwarn(warning) {
         if (warning.code !== 'CIRCULAR_DEPENDENCY') throw new Error(warning.message);
       },
     });
     await bundle.write({ file: ${JSON.stringify(file)}, format: 'es', inlineDynamicImports: true });`,
  );

const vite: Bundler = (entry, file) =>
  runBundler(
    `vite-${entry}`,
    `import { build } from 'vite';
     await build({
       logLevel: 'warn',
       ssr: { noExternal: true },
       build: {
         ssr: ${JSON.stringify(entry)},
         outDir: '.',
         emptyOutDir: false,
         rollupOptions: { output: { entryFileNames: ${JSON.stringify(file)} } },
       },
     });`,
  );

const webpack: Bundler = (entry, file) =>
  runBundler(
    `webpack-${entry}`,
    `import webpack from 'webpack';
     webpack({
       mode: 'production',
       target: 'node',
       entry: './' + ${JSON.stringify(entry)},
       output: { path: process.cwd(), filename: ${JSON.stringify(file)} },
       optimization: { minimize: false },
       externals: { 'pg-native': 'commonjs pg-native' },
     }, (error, stats) => {
       if (!error && !stats.hasErrors() && !stats.hasWarnings()) return;
       console.error(error ?? stats.toString('errors-warnings'));
       process.exitCode = 1;
     });`,
  );

const ncc: Bundler = (entry, file) =>
  runBundler(
    `ncc-${entry}`,
    `import ncc from '@vercel/ncc';
     import { writeFileSync } from 'node:fs';
     const { code } = await ncc(process.cwd() + '/' + ${JSON.stringify(entry)}, { quiet: true, cache: false });
     writeFileSync(${JSON.stringify(file)}, code);`,
  );

/** Each bundles an entry into one file with this extension. */
const builds: [string, string, string, Bundler][] = [
  [
    'esbuild, --format=esm --packages=external',
    'server.mjs',
    'mjs',
    esbuild({ format: 'esm', packages: 'external' }),
  ],
  [
    'esbuild, --format=esm',
    'server.mjs',
    'mjs',
    esbuild({ format: 'esm', banner: { js: banner } }),
  ],
  [
    'esbuild, --format=esm',
    'server.cjs',
    'mjs',
    esbuild({ format: 'esm', banner: { js: banner } }),
  ],
  ['esbuild, --format=cjs', 'server.mjs', 'cjs', esbuild({ format: 'cjs' })],
  ['esbuild, --format=cjs', 'server.cjs', 'cjs', esbuild({ format: 'cjs' })],
  ['rollup', 'server.mjs', 'mjs', rollup],
  ['rollup', 'server.cjs', 'mjs', rollup],
  ['Vite SSR with noExternal', 'server.mjs', 'mjs', vite],
  ['Vite SSR with noExternal', 'server.cjs', 'mjs', vite],
  ['webpack', 'server.mjs', 'cjs', webpack],
  ['ncc', 'server.mjs', 'mjs', ncc],
];

test.each(builds.map(([name, ...rest], at) => [name, ...rest, at] as const))(
  '%s bundles %s, and the server works on a pool and on a URL, and names a missing driver',
  async (_, entry, extension, bundle, at) => {
    const file = `bundle-${at}.${extension}`;
    await bundle(entry, file);
    expect(await app.node([file, database.url])).toBe(
      'views 2\nviews 2\n' +
        'ERR_DRIVER_MISSING This source needs the package @electric-sql/pglite, which is not installed\n',
    );
  },
);
