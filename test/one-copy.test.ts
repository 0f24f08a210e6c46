import { beforeAll, expect, test } from 'vitest';
import { linkedApp, type Package, packPackage } from './support/package.js';

// A process that imports the package in one place and requires it in another.

let packed: Package;
beforeAll(async () => {
  packed = await packPackage();
});

const compare = `
  assert.equal(required.DrizzleStore, imported.DrizzleStore);
  assert.equal(required.sessions, imported.sessions);
  assert.equal(requiredSchema.sessions, importedSchema.sessions);
  assert.equal(requiredSchema.sessions, required.sessions);
  console.log('one copy');`;

const requires = `
  const required = require('connect-drizzle');
  const requiredSchema = require('connect-drizzle/schema');`;

test('require() returns the copy that was imported before', async () => {
  await using app = await linkedApp(packed, '0.45');
  await app.write(
    'app.mjs',
    `import assert from 'node:assert/strict';
     import { createRequire } from 'node:module';
     import * as imported from 'connect-drizzle';
     import * as importedSchema from 'connect-drizzle/schema';
     const require = createRequire(import.meta.url);
     ${requires}
     ${compare}`,
  );
  expect(await app.node(['app.mjs'])).toBe('one copy\n');
});

test('import() returns the copy that was required before', async () => {
  await using app = await linkedApp(packed, '0.45');
  await app.write(
    'app.cjs',
    `const assert = require('node:assert/strict');
     ${requires}
     async function main() {
       const imported = await import('connect-drizzle');
       const importedSchema = await import('connect-drizzle/schema');
       ${compare}
     }
     main();`,
  );
  expect(await app.node(['app.cjs'])).toBe('one copy\n');
});
