import { execFileSync, spawn } from 'node:child_process';
import { copyFile, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { main } from '../../src/cli/main.js';
import { bundleForNode } from './bundle.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** What a run of the command line printed. */
export interface CliRun {
  /** The exit code; null if a signal ended the program. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. */
export type RunCli = (args: readonly string[], env?: Record<string, string>) => Promise<CliRun>;

/** The program, bundled from the sources. */
export interface CliProgram {
  readonly file: string;
  /** Runs it in a process of its own, with pipes. */
  readonly run: RunCli;
  start(args: readonly string[], env?: Record<string, string>): StartedCli;
  /** Starts it on a terminal. */
  startOnTerminal(args: readonly string[], env?: Record<string, string>): StartedCli;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A run that may not have ended yet. */
export interface StartedCli {
  readonly ended: Promise<CliRun>;
  /** Resolves when its output matches. */
  prints(pattern: RegExp): Promise<void>;
  type(text: string): void;
  kill(signal: NodeJS.Signals): void;
}

/** Bundles the program, which is much faster than a build. */
export async function buildCli(): Promise<CliProgram> {
  const folder = await mkdtemp(join(tmpdir(), 'connect-drizzle-cli-'));
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'), 'dir');
  const file = join(folder, 'dist/cli/bin.mjs');
  await copyFile(join(root, 'package.json'), join(folder, 'package.json'));
  await bundleForNode(file, { entryPoints: ['src/cli/bin.ts'] });
  const start = (args: readonly string[], env?: Record<string, string>) =>
    startProcess(process.execPath, [file, ...args], env);
  return {
    file,
    start,
    run: (args, env) => start(args, env).ended,
    startOnTerminal: (args, env) => {
      const command = [process.execPath, file, ...args].map(quotedForShell).join(' ');
      return startProcess('script', ['-qefc', command, '/dev/null'], { TERM: 'xterm', ...env });
    },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Why tests cannot use a terminal on this machine; `undefined` if they can. */
export function noTerminal(): string | undefined {
  try {
    const version = execFileSync('script', ['--version'], { encoding: 'utf8', stdio: 'pipe' });
    return version.includes('util-linux') ? undefined : 'script is not that of util-linux';
  } catch {
    return 'util-linux script is not installed';
  }
}

/** Runs a command in this process, so that coverage counts it. */
export const runHere: RunCli = async (args, env = {}) => {
  let stdout = '';
  let stderr = '';
  const code = await main(args, {
    stdin: new PassThrough(),
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    env,
  });
  return { code, stdout, stderr };
};

function startProcess(
  program: string,
  args: readonly string[],
  env: Record<string, string> = {},
): StartedCli {
  const {
    DATABASE_URL: _,
    NODE_OPTIONS: __,
    FORCE_COLOR: ___,
    NO_COLOR: ____,
    // With `CI`, Node disables colors.
    CI: _____,
    ...inherited
  } = process.env;
  const child = spawn(program, args, { cwd: root, env: { ...inherited, ...env } });
  // Leaves no process behind if a test fails.
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  let stdout = '';
  let stderr = '';
  const watchers = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    for (const watch of watchers) watch();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const watch of watchers) watch();
  });
  child.stdin.on('error', () => {});
  const ended = new Promise<CliRun>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      process.off('exit', kill);
      resolve({ code, stdout, stderr });
    });
  });
  return {
    ended,
    prints: (pattern) =>
      new Promise((resolve, reject) => {
        const watch = () => {
          if (!pattern.test(stdout + stderr)) return;
          watchers.delete(watch);
          resolve();
        };
        watchers.add(watch);
        watch();
        ended.then(
          () => reject(new Error(`It ended without ${pattern}: ${stdout}${stderr}`)),
          reject,
        );
      }),
    type: (text) => child.stdin.write(text),
    kill: (signal) => void child.kill(signal),
  };
}

function quotedForShell(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
