import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { getTableConfig } from 'drizzle-orm/pg-core';
import { type BuildOptions, build } from 'esbuild';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { sessionTable } from '../src/schema.js';
import { findChromium, launchChromium } from './support/chromium.js';
import {
  type DrizzleVersion,
  linkedApp,
  type Package,
  packagesOf,
  packPackage,
  type ScratchApp,
} from './support/package.js';

// Apps that share one schema file between server and browser.

const chromium = findChromium();
if (!chromium) {
  console.log('Bundles are built but not run: no Chromium is installed, and CHROMIUM names none.');
}

let packed: Package;
let links: Map<string, string>;
let browser: Browser | undefined;
const apps: ScratchApp[] = [];
beforeAll(async () => {
  links = await packagesOf('test/apps/browser');
  packed = await packPackage();
  if (chromium) browser = await launchChromium(chromium);
});
afterAll(async () => {
  await browser?.close();
  for (const app of apps) await app[Symbol.asyncDispose]();
});

const schema = `
  import { integer, pgTable, text } from 'drizzle-orm/pg-core';
  export { sessions } from 'connect-drizzle/schema';
  export const users = pgTable('users', { id: integer('id').primaryKey(), name: text('name') });`;

/** A page that validates forms with the schema and shows the results. */
const page = (zod: string) => `
  import { getTableConfig } from 'drizzle-orm/pg-core';
  import { sessionTable } from 'connect-drizzle/schema';
  import { createInsertSchema } from '${zod}';
  import { sessions, users } from './schema.js';

  const form = createInsertSchema(sessions);
  const long = sessionTable({ tableName: 's'.repeat(63), schemaName: 'auth' });
  document.body.textContent = JSON.stringify({
    complete: form.safeParse({ id: 'an id', expiresAt: new Date() }).success,
    incomplete: form.safeParse({ id: 'an id' }).success,
    user: createInsertSchema(users).safeParse({ id: 1, name: 'Ada' }).success,
    indexes: getTableConfig(long).indexes.map(({ config }) => config.name),
    buffer: typeof Buffer,
  });`;

const shown = {
  complete: true,
  incomplete: false,
  user: true,
  indexes: getTableConfig(sessionTable({ tableName: 's'.repeat(63) })).indexes.map(
    ({ config }) => config.name,
  ),
  buffer: 'undefined',
};

const html = (script: string) =>
  `<!doctype html><title>An app</title><body><script type="module" src="${script}"></script></body>`;

async function browserApp(drizzle: DrizzleVersion = '0.45'): Promise<ScratchApp> {
  const own = new Map(links);
  if (drizzle === '1.0') own.delete('drizzle-orm');
  const app = await linkedApp(packed, drizzle, { links: own });
  apps.push(app);
  await app.write('schema.js', schema);
  await app.write('main.js', page(drizzle === '1.0' ? 'drizzle-orm/zod' : 'drizzle-zod'));
  return app;
}

const esbuild = (app: ScratchApp, options: BuildOptions) =>
  build({
    absWorkingDir: app.folder,
    bundle: true,
    minify: true,
    platform: 'browser',
    format: 'esm',
    logLevel: 'silent',
    // Drizzle 1.0 is linked from a folder without zod.
    nodePaths: [join(app.folder, 'node_modules')],
    ...options,
  });

async function buildWithEsbuild(app: ScratchApp): Promise<void> {
  await app.write('site/index.html', html('./main.js'));
  await esbuild(app, { entryPoints: ['main.js'], outdir: 'site' });
}

/** Runs webpack in the app's folder. A warning is an error. */
async function buildWithWebpack(app: ScratchApp, config: object): Promise<void> {
  // The minifier would take most of webpack's time, and the size does not matter here.
  const options = {
    mode: 'production',
    optimization: { minimize: false },
    performance: false,
    ...config,
  };
  await app.write(
    'build.js',
    `import webpack from 'webpack';
     webpack(${JSON.stringify(options)}, (error, stats) => {
       if (!error && !stats.hasErrors() && !stats.hasWarnings()) return;
       console.error(error ?? stats.toString('errors-warnings'));
       process.exitCode = 1;
     });`,
  );
  await app.node(['build.js']);
}

/** Each builds the app into the folder `site`. */
const bundlers: Record<
  string,
  { drizzle?: DrizzleVersion; build(app: ScratchApp): Promise<void> }
> = {
  Vite: {
    async build(app) {
      await app.write('index.html', html('/main.js'));
      await app.node(['node_modules/vite/bin/vite.js', 'build', '--outDir', 'site']);
    },
  },
  webpack: {
    async build(app) {
      await app.write('site/index.html', html('./main.js'));
      await buildWithWebpack(app, {
        target: 'web',
        entry: './main.js',
        output: { path: join(app.folder, 'site') },
      });
    },
  },
  esbuild: { build: buildWithEsbuild },
  'esbuild with Drizzle 1.0': { drizzle: '1.0', build: buildWithEsbuild },
};

test.each(Object.entries(bundlers))(
  'a page that shares the schema with the server runs when built with %s',
  async (_, { drizzle, build: buildSite }) => {
    const app = await browserApp(drizzle);
    await buildSite(app);
    await access(join(app.folder, 'site/index.html'));
    if (browser) expect(await textOf(browser, join(app.folder, 'site'))).toEqual(shown);
  },
  240_000,
);

/** Returns what the page shows after its script has run. */
async function textOf(browser: Browser, site: string): Promise<unknown> {
  const tab = await browser.newPage();
  try {
    const errors: string[] = [];
    tab.on('pageerror', (error) => errors.push(String(error)));
    await tab.route('**/*', (route) => {
      const { pathname } = new URL(route.request().url());
      return route.fulfill({ path: join(site, pathname === '/' ? 'index.html' : pathname) });
    });
    await tab.goto('http://app.test/');
    expect(errors).toEqual([]);
    return JSON.parse((await tab.textContent('body')) ?? '');
  } finally {
    await tab.close();
  }
}

test.each([
  ['imports', 'server.mjs', `import { DrizzleStore } from 'connect-drizzle';`],
  ['requires', 'server.cjs', `const { DrizzleStore } = require('connect-drizzle');`],
])(
  'webpack bundles a server that %s the package, but not the drivers, without a warning',
  async (_, entry, load) => {
    const app = await browserApp();
    await app.write(
      entry,
      `${load}
       const store = new DrizzleStore('postgres://nobody@127.0.0.1:1/none', { errorLog() {} });
       store.get('a sid').catch((error) => console.log(error.code)).then(() => store.close());`,
    );
    const drivers = ['pg', 'postgres', '@electric-sql/pglite'];
    await buildWithWebpack(app, {
      target: 'node',
      entry: `./${entry}`,
      output: { path: join(app.folder, 'built'), filename: 'server.cjs' },
      // Drizzle imports them, too.
      externals: Object.fromEntries(drivers.map((name) => [name, `commonjs ${name}`])),
      // Webpack's default conditions for a server would resolve to the ES module.
      resolve: {
        conditionNames: [entry.endsWith('.mjs') ? 'import' : 'require', 'node', 'default'],
      },
    });
    expect(await app.node(['built/server.cjs'])).toBe('ERR_CONNECTION\n');
  },
  240_000,
);

test('the schema imports nothing but drizzle-orm', async () => {
  const app = await browserApp();
  const { metafile } = await esbuild(app, {
    stdin: { contents: `export * from 'connect-drizzle/schema';`, resolveDir: app.folder },
    external: ['drizzle-orm'],
    metafile: true,
    write: false,
  });
  const external = Object.values(metafile?.inputs ?? {}).flatMap(({ imports }) =>
    imports.filter((each) => each.external).map(({ path }) => path),
  );
  expect(new Set(external)).toEqual(new Set(['drizzle-orm', 'drizzle-orm/pg-core']));
});

test('sessions adds less than 1 kB to a bundle compared with a hand-written table, and nothing if unused', async () => {
  const app = await browserApp();
  /** The size in bytes of the minified bundle of an app with a table of its own and this code. */
  async function sizeWith(code: string): Promise<number> {
    const contents = `
      import { getTableColumns, sql } from 'drizzle-orm';
      import { index, integer, json, pgTable, text, timestamp } from 'drizzle-orm/pg-core';
      const names = (table) => console.log(Object.keys(getTableColumns(table)));
      names(pgTable('users', { id: integer('id').primaryKey(), name: text('name') }));
      ${code}`;
    const { outputFiles } = await esbuild(app, {
      stdin: { contents, resolveDir: app.folder },
      write: false,
    });
    return outputFiles?.[0]?.contents.length ?? 0;
  }

  const without = await sizeWith('');
  const unused = await sizeWith(`import { sessions } from 'connect-drizzle/schema';`);
  const columns = await sizeWith(`import { sessionColumns } from 'connect-drizzle/schema';
    globalThis.columns = sessionColumns;`);
  const both = await sizeWith(`import { sessionColumns, sessions } from 'connect-drizzle/schema';
    globalThis.columns = sessionColumns;
    names(sessions);`);
  const used = await sizeWith(`import { sessions } from 'connect-drizzle/schema';
    names(sessions);`);
  const byHand = await sizeWith(`
    const time = (name) => timestamp(name, { withTimezone: true });
    names(pgTable('sessions', {
      id: text('id').primaryKey(),
      data: json('data'),
      userId: text('user_id'),
      version: integer('version').notNull().default(1),
      createdAt: time('created_at').notNull().defaultNow(),
      lastSeenAt: time('last_seen_at').notNull().defaultNow(),
      expiresAt: time('expires_at').notNull(),
      revokedAt: time('revoked_at'),
      expiresHour: time('expires_hour').generatedAlwaysAs(
        sql\`date_bin('1 hour', "expires_at", timestamptz '2000-01-01 00:00:00+00')\`,
      ),
    }, (table) => [
      index('sessions_user_id_index').on(table.userId).where(sql\`\${table.userId} is not null\`),
      index('sessions_expires_hour_index').on(table.expiresHour),
    ]));`);
  console.log(
    `browser bundle: ${without} bytes without sessions, ${byHand} with the table by hand, ${used} with connect-drizzle/schema`,
  );
  expect(used - byHand).toBeLessThan(1000);
  expect(unused).toBe(without);
  // A bundle that uses only another export of the module does not contain the table.
  expect(both - columns).toBeGreaterThan(500);
});
