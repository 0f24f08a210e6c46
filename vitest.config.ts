import { fileURLToPath } from 'node:url';
import { configDefaults, defineConfig } from 'vitest/config';
import { useRunFolder } from './test/support/run-folder.js';
import { isPortable, postgresOnly } from './test/support/statement-set.js';

useRunFolder();

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const testFiles = (names: string[]) => names.map((name) => `test/${name}.test.ts`);

/** Tests of the package and its environment: bundlers, test runners, runtimes, peers, high availability, interrupted tests. */
const packaging = testFiles([
  'package',
  'snippets',
  'types',
  'peers',
  'runtimes',
  'bundles',
  'server-bundles',
  'jest',
  'migrations',
  'template',
  'examples',
  'examples-browser',
  'admin/browser',
  'examples-races',
  'examples-admin',
  'upgrade',
  'faults/patroni',
  'temporary-files',
]);

/** Tests that do not depend on the versions of Postgres, Node and Drizzle, and long searches for rare races. */
const onceOnly = testFiles([
  'pools',
  'engines',
  'sizing',
  'histories',
  'batching-model',
  'processes',
  'pooler',
  'hot',
  'unavailable',
  'faults/*',
  'compression',
  'cli/*',
  'admin/*',
]);

/** With `STATEMENTS=portable`, the core runs on the statements for any engine. */
const entry = isPortable ? './test/support/portable-store.ts' : './src/index.ts';
const excluded = isPortable ? testFiles(Object.keys(postgresOnly)) : [];

function project(name: string, include: string[], exclude: string[] = []) {
  return {
    resolve: {
      // The examples and the type augmentation of the tests import the package by its name.
      alias: [
        { find: /^connect-drizzle$/, replacement: source(entry) },
        { find: /^connect-drizzle\/admin$/, replacement: source('./src/admin/index.ts') },
        { find: /^connect-drizzle\/schema$/, replacement: source('./src/schema.ts') },
      ],
    },
    test: {
      name,
      include,
      exclude: [...configDefaults.exclude, ...exclude],
      pool: 'forks' as const,
      // V8's WebAssembly optimiser would double the CPU time of a PGlite start. The tests do not need its speed.
      execArgv: ['--liftoff-only'],
      // Long enough for a machine with twenty other busy processes.
      testTimeout: 300_000,
      hookTimeout: 300_000,
      expect: { poll: { timeout: 30_000, interval: 20 } },
    },
  };
}

export default defineConfig({
  test: {
    globalSetup: ['test/support/global-setup.ts'],
    maxWorkers: 4,
    projects: [
      // Runs once more for each version of Postgres, Node and Drizzle.
      project('core', ['test/**/*.test.ts'], [...packaging, ...onceOnly, ...excluded]),
      project('once', onceOnly, packaging),
      project('package', packaging),
    ],
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      // Runs only in Bun, which test/runtimes.test.ts starts.
      exclude: ['src/drivers/bun-sql.ts'],
      reporter: ['text', 'json-summary'],
      thresholds: { lines: 95, branches: 90 },
    },
  },
});
