import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { useRunFolder } from '../run-folder.js';

useRunFolder();

/** A small test run for `temporary-files.test.ts` to interrupt. */
export default defineConfig({
  test: {
    globalSetup: [fileURLToPath(new URL('../global-setup.ts', import.meta.url))],
    projects: [{ test: { name: 'waits', include: ['waits.ts'], testTimeout: 300_000 } }],
  },
});
