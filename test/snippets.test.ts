import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { installIn } from '../scripts/install.js';
import { buildCli, type CliProgram } from './support/cli.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { pages, type Snippet, snippetsOf } from './support/snippets.js';

// The code in README.md and docs/ compiles, and runs if it can.

const execute = promisify(execFile);
const root = fileURLToPath(new URL('../', import.meta.url));
const runner = join(root, 'test/apps/docs/runner.js');
const files = await pages();
const all = (await Promise.all(files.map(snippetsOf))).flat();

let folder: string;
let database: TestDatabase;
let cli: CliProgram;
beforeAll(async () => {
  // In a folder below the packages that only the documentation uses.
  folder = await mkdtemp(join(installIn('test/apps/docs'), '.tmp-'));
  for (const { file, code, language, plan } of all) {
    if (plan.kind === 'neither' || !isScript(language)) continue;
    await mkdir(dirname(join(folder, file)), { recursive: true });
    await writeFile(join(folder, file), code);
  }
  [database, cli] = await Promise.all([freshDatabase(), buildCli()]);
}, 300_000);
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await database?.drop();
  await rm(folder, { recursive: true, force: true });
});

const isScript = (language: Snippet['language']) => language === 'ts' || language === 'js';
const planned = (kind: Snippet['plan']['kind'], ...languages: Snippet['language'][]) =>
  all.filter(({ plan, language }) => plan.kind === kind && languages.includes(language));

test('every snippet is run or compiled, or gives a reason why not', () => {
  const count = (kind: Snippet['plan']['kind']) => all.filter(({ plan }) => plan.kind === kind);
  const neither = count('neither');
  console.log(
    `snippets: ${all.length} on ${files.length} pages: ${count('run').length} run, ` +
      `${count('compile').length} compiled, ${neither.length} neither`,
  );
  for (const { place, plan } of neither) {
    if (plan.kind !== 'run') console.log(`neither: ${place}: ${plan.reason}`);
  }
  expect(all.length).toBeGreaterThan(80);
  expect(neither.length).toBeLessThan(15);
  expect(new Set(all.map(({ file }) => file)).size).toBe(all.length);
});

/** Compiles the snippets with an extension. Returns what tsc prints. */
async function compile(extension: 'ts' | 'js', options: object, more: string[] = []) {
  const config = join(folder, `tsconfig.${extension}.json`);
  const paths = {
    'connect-drizzle': [join(root, 'src/index.ts')],
    'connect-drizzle/admin': [join(root, 'src/admin/index.ts')],
    'connect-drizzle/schema': [join(root, 'src/schema.ts')],
  };
  await writeFile(
    config,
    JSON.stringify({
      extends: join(root, 'tsconfig.json'),
      compilerOptions: { moduleDetection: 'force', paths, ...options },
      include: [`**/*.${extension}`, ...(extension === 'js' ? ['**/*.mjs'] : []), ...more],
      exclude: [],
    }),
  );
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const failure = await execute(process.execPath, [tsc, '-p', config]).then(
    () => ({ stdout: '' }),
    (error: { stdout: string }) => error,
  );
  return failure.stdout;
}

test('the TypeScript snippets compile under the strict settings of the repository', async () => {
  expect(await compile('ts', {}, [join(root, 'test/apps/docs/globals.d.ts')])).toBe('');
});

test('the JavaScript snippets use functions and options that exist', async () => {
  // Each page has other fields in its sessions and users.
  await writeFile(
    join(folder, 'any.d.ts'),
    `import 'express-session';
     declare module 'express-session' { interface SessionData { [key: string]: any } }
     declare global {
       namespace Express { interface User { [key: string]: any } }
       const old: any, pouch: any, client: any, collection: any;
     }
     declare module 'http' { interface IncomingMessage { session?: any; sessionID?: any } }`,
  );
  const output = await compile(
    'js',
    { allowJs: true, checkJs: true, strict: false, noUncheckedIndexedAccess: false },
    ['any.d.ts', join(root, 'test/apps/docs/globals.d.ts')],
  );
  // Plain JavaScript cannot state some types.
  const unclear = /: error TS(2339|2345|2740|2810):/;
  const errors = output.split('\n').filter((line) => /^test\/.*: error TS/.test(line));
  expect(errors.filter((line) => !unclear.test(line))).toEqual([]);
});

test('the shell commands are well-formed', async () => {
  for (const { place, code } of all.filter(({ language }) => language === 'sh')) {
    await execute('bash', ['-n', '-c', code]).catch((error: Error) => {
      throw new Error(`${place}: ${error.message}`);
    });
  }
});

/** What the runner prints for a snippet. */
interface Result {
  readonly place: string;
  readonly error?: string;
  readonly body?: string;
}

/** The responses of the snippets' servers, by place. */
const answers = new Map<string, string>();

test('the TypeScript and JavaScript snippets run', async () => {
  const runnable = planned('run', 'ts', 'js');
  const entry = (name: string) => name.replace(/\.\w+$/, '');
  await build({
    absWorkingDir: root,
    entryPoints: [
      { in: runner, out: 'runner' },
      ...runnable.map(({ file }) => ({ in: join(folder, file), out: entry(file) })),
    ],
    outdir: join(folder, 'out'),
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    packages: 'external',
    alias: {
      'connect-drizzle/admin': join(root, 'src/admin/index.ts'),
      'connect-drizzle/schema': join(root, 'src/schema.ts'),
      'connect-drizzle': join(root, 'src/index.ts'),
    },
    logLevel: 'error',
  });
  // One process runs all snippets, because starting a process takes most of the time.
  const list = runnable.map(({ place, file, plan }) => ({
    ...plan,
    place,
    file: join(folder, 'out', `${entry(file)}.js`),
  }));
  const env = {
    ...process.env,
    SNIPPETS: JSON.stringify(list),
    DATABASE_URL: database.url,
    DIRECT_DATABASE_URL: database.url,
    SESSION_SECRET: 'a long random text, of more than thirty-two characters',
    SESSION_KEY: '00'.repeat(32),
  };
  const { stdout } = await execute(process.execPath, [join(folder, 'out/runner.js')], {
    cwd: folder,
    env,
    maxBuffer: 64 * 1024 * 1024,
  });
  const failed: string[] = [];
  let results = 0;
  for (const [, line] of stdout.matchAll(/^@(.+)$/gm)) {
    const { place, error, body }: Result = JSON.parse(line ?? '');
    if (error !== undefined) failed.push(`${place}: ${error}`);
    if (body !== undefined) answers.set(place, body);
    results += 1;
  }
  expect(failed).toEqual([]);
  expect(results).toBe(list.length);
}, 300_000);

test('the shell commands run', async () => {
  for (const { place, code } of planned('run', 'sh')) {
    const script = `npx() { shift; "$NODE" "$CLI" "$@"; }\n${code}`;
    const env = {
      ...process.env,
      NODE: process.execPath,
      CLI: cli.file,
      DATABASE_URL: database.url,
    };
    await execute('bash', ['-e', '-c', script], { cwd: folder, env }).catch((error: Error) => {
      throw new Error(`${place}: ${error.message}`);
    });
  }
});

test('the SQL snippets run', async () => {
  for (const { place, code } of planned('run', 'sql')) {
    await database.query(`begin; ${code}; rollback`).catch((error: Error) => {
      throw new Error(`${place}: ${error.message}`);
    });
  }
});

test('the dashboard and the alerts use only metrics that the guide exports', async () => {
  const [, exported = ''] =
    [...answers].find(([place]) => place.startsWith('docs/guides/metrics.md')) ?? [];
  const types = Array.from(exported.matchAll(/^# TYPE (\w+) (\w+)$/gm), ([, name, type]) =>
    type === 'histogram' ? [`${name}_bucket`, `${name}_count`, `${name}_sum`] : [name],
  );
  const names = new Set(types.flat());
  for (const file of ['connect-drizzle.json', 'alerts.yml']) {
    const text = await readFile(join(root, 'docs/grafana', file), 'utf8');
    const used = new Set(Array.from(text.matchAll(/connect_drizzle_\w+/g), ([name]) => name));
    expect(used.size).toBeGreaterThan(3);
    expect([...used].filter((name) => !names.has(name))).toEqual([]);
  }
});

test('the reference lists every option, method and error code', async () => {
  const page = async (name: string) => readFile(join(root, 'docs', name), 'utf8');
  const { OPTIONS } = await import('../src/options.js');
  const options = await page('options.md');
  expect(OPTIONS.filter((name) => !options.includes(`### \`${name}\``))).toEqual([]);
  const { DrizzleStore } = await import('../src/store.js');
  const methods = await page('methods.md');
  const names = Object.getOwnPropertyNames(DrizzleStore.prototype).filter(
    (name) => !['constructor', 'createSession', 'generate'].includes(name),
  );
  expect(names.filter((name) => !methods.includes(`\`${name}(`))).toEqual([]);
  const errors = await readFile(join(root, 'src/errors.ts'), 'utf8');
  const codes = Array.from(errors.matchAll(/code = '(ERR_\w+)'/g), ([, code]) => code ?? '');
  const troubleshooting = await page('troubleshooting.md');
  expect(codes.length).toBeGreaterThan(10);
  expect(codes.filter((code) => !troubleshooting.includes(`### \`${code}\``))).toEqual([]);
});
