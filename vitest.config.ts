import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/**
 * Left out of `SUITE=core`, which runs once more for each version of Postgres, Node and Drizzle: what
 * does not depend on them, and what looks for rare races for a long time.
 */
const onceOnly = [
  'package',
  'types',
  'peers',
  'runtimes',
  'pools',
  'bundles',
  'server-bundles',
  'jest',
  'migrations',
  'template',
  'examples',
  'examples-browser',
  'histories',
  'batching-model',
  'processes',
  'pooler',
  'hot',
  'unavailable',
  'faults/*',
  'upgrade',
  'compression',
  'cli/*',
].map((name) => `test/${name}.test.ts`);

export default defineConfig({
  resolve: {
    // The examples and the type augmentation of the tests name the package as its users do.
    alias: [
      { find: /^connect-drizzle$/, replacement: source('./src/index.ts') },
      { find: /^connect-drizzle\/schema$/, replacement: source('./src/schema.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['**/node_modules/**', ...(process.env.SUITE === 'core' ? onceOnly : [])],
    globalSetup: ['test/support/global-setup.ts'],
    pool: 'forks',
    maxWorkers: 2,
    // On a machine that CI shares with others, a test may come too late; one with a fault fails each time.
    retry: process.env.CI ? 2 : 0,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // The default of one second is too short for a busy machine.
    expect: { poll: { timeout: 30_000, interval: 20 } },
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      reporter: ['text', 'json-summary'],
      thresholds: { lines: 95, branches: 90 },
    },
  },
});
