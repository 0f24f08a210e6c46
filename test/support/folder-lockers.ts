import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { launch } from './example.js';

const source = fileURLToPath(new URL('../../src/drivers/support/folder-lock.ts', import.meta.url));

/** The module of the folder lock as plain JavaScript, which starts quickly. */
export interface Lockers {
  /** Two copies of the module. */
  readonly esm: string;
  readonly cjs: string;
  /** A program that locks `FOLDER`, prints `locked` or `refused CODE PID`, and then does what `THEN` says. */
  readonly program: string;
  /** Starts the program, optionally through a command such as `unshare`. */
  start(env: Record<string, string>, by?: string[]): ReturnType<typeof launch>;
  [Symbol.asyncDispose](): Promise<void>;
}

const program = `
import { existsSync, openSync, closeSync, rmSync } from 'node:fs';
import { lockFolder } from './lock.mjs';
const { FOLDER, THEN = '', GO, INSIDE } = process.env;
const tell = (error) => console.log('refused', error.code, error.pid, error.message);
// Root may write anywhere.
if (THEN === 'not root' && process.getuid?.() === 0) process.setuid?.(65534);
while (GO && !existsSync(GO)) await new Promise(setImmediate);
if (THEN === 'churn') {
  for (let held = 0; held < 10; ) {
    const unlock = await lockFolder(FOLDER).catch(() => undefined);
    if (unlock === undefined) {
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
      continue;
    }
    held += 1;
    closeSync(openSync(INSIDE, 'wx'));
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
    rmSync(INSIDE);
    if (held === 10) process.kill(process.pid, 'SIGKILL');
    await unlock();
  }
}
const unlock = await lockFolder(FOLDER).catch(tell);
if (unlock) console.log('locked by', process.pid);
if (THEN === 'exit') process.exit(3);
if (unlock && THEN === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
if (THEN === '') setInterval(() => {}, 1000);
`;

export async function makeLockers(): Promise<Lockers> {
  const folder = await mkdtemp(join(tmpdir(), 'connect-drizzle-lockers-'));
  const bundle = async (name: string, format: 'esm' | 'cjs') => {
    const outfile = join(folder, name);
    await build({ entryPoints: [source], bundle: true, platform: 'node', format, outfile });
    return outfile;
  };
  const path = join(folder, 'program.mjs');
  await writeFile(path, program);
  return {
    esm: await bundle('lock.mjs', 'esm'),
    cjs: await bundle('lock.cjs', 'cjs'),
    program: path,
    start: (env, by = []) => {
      const [command = '', ...args] = [...by, process.execPath, path];
      return launch(command, args, { env });
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Why tests cannot create namespaces for processes on this machine; `undefined` if they can. */
export function whyNoNamespaces(): string | undefined {
  const args = ['--pid', '--fork', '--mount-proc', '--net', '--mount', 'true'];
  const { status, stderr, error } = spawnSync('unshare', args, { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr);
}
