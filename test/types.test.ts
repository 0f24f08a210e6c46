import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  linkedApp,
  type Package,
  packagesOf,
  packPackage,
  type ScratchApp,
} from './support/package.js';

// Sources that the constructor accepts and refuses at compile time, with each version of TypeScript and Drizzle.
// The files contain lines that must compile, and lines that must not (`@ts-expect-error`).

const folder = fileURLToPath(new URL('./apps/types/', import.meta.url));

const links = [
  '@neondatabase/serverless',
  '@types/express',
  '@types/express-session',
  '@types/node',
  '@types/pg',
  '@vercel/postgres',
];

const newest = fileURLToPath(new URL('../node_modules/typescript', import.meta.url));

const compilerOptions = {
  target: 'ES2022',
  module: 'NodeNext',
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  types: ['node'],
};

let packed: Package;
beforeAll(async () => {
  packed = await packPackage();
});

describe.each(['0.45', '1.0'] as const)('with Drizzle %s', (drizzle) => {
  const files = ['app.ts', `drizzle-${drizzle}.ts`];
  let app: ScratchApp;
  beforeAll(async () => {
    app = await linkedApp(packed, drizzle, { links });
    for (const name of [...files, 'bun.ts'])
      await copyFile(join(folder, name), join(app.folder, name));
  });
  afterAll(() => app[Symbol.asyncDispose]());

  test.each(['typescript-5.0', 'typescript-5.9', 'typescript-6', 'typescript'])(
    'the constructor accepts databases of the supported drivers and refuses others, with %s',
    async (version) => {
      const installed = (await packagesOf('test/apps/types')).get(version);
      const compiler = installed ?? newest;
      await app.write('tsconfig.json', JSON.stringify({ compilerOptions, files }));
      expect(await app.node([join(compiler, 'bin/tsc'), '-p', '.'])).toBe('');
    },
  );

  test('the constructor accepts databases on an SQL of Bun and refuses its transactions', async () => {
    const bunTypes = (await packagesOf('test/apps/types')).get('bun-types') ?? '';
    const options = { ...compilerOptions, types: ['node', bunTypes] };
    await app.write(
      'tsconfig.json',
      JSON.stringify({ compilerOptions: options, files: ['bun.ts'] }),
    );
    expect(await app.node([join(newest, 'bin/tsc'), '-p', '.'])).toBe('');
  });
});
