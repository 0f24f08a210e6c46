import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Browser } from './http.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const startLimitMs = 120_000;
const stopLimitMs = 60_000;

/** An example app in a process of its own. */
export interface Example {
  readonly url: string;
  /** Its output so far, stdout and stderr. */
  readonly output: string;
  /** A new client without cookies. */
  browser(): Browser;
  /** Sends a signal and returns the exit code. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ExampleOptions {
  args?: string[];
  env?: Record<string, string>;
}

/** Starts an example on a free port. Resolves when it has printed its address. */
export async function startExample(file: string, options: ExampleOptions = {}): Promise<Example> {
  const run = launch(process.execPath, ['--import', 'tsx', file, ...(options.args ?? [])], options);
  const url = await run.until(/https?:\/\/[^\s/]+:\d+/);
  return {
    url,
    get output() {
      return run.output;
    },
    browser: () => new Browser(url),
    stop: run.stop,
    async [Symbol.asyncDispose]() {
      await run.stop();
    },
  };
}

/** Runs an example that cannot start. Returns its exit code and output. */
export async function failExample(file: string, options: ExampleOptions = {}) {
  const run = launch(process.execPath, ['--import', 'tsx', file, ...(options.args ?? [])], options);
  const code = await run.ended;
  return { code, output: run.output };
}

/** Starts a program in the folder of the repository, by default with PORT=0. */
export function launch(program: string, args: string[], options: ExampleOptions = {}) {
  const { NODE_ENV, DATABASE_URL, SESSION_SECRET, ...inherited } = process.env;
  const child = spawn(program, args, {
    cwd: root,
    env: { ...inherited, PORT: '0', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const ended = endOf(child);
  // Leaves no process behind if a test fails.
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  child.once('close', () => process.off('exit', kill));
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8');
    stream.on('data', (text: string) => {
      output += text;
    });
  }
  return {
    pid: child.pid,
    ended,
    get output() {
      return output;
    },
    /** Resolves with the first match of a pattern in its output. */
    until: (pattern: RegExp) => matchIn(child, pattern, () => output),
    async stop(signal: NodeJS.Signals = 'SIGTERM') {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      const limit = setTimeout(kill, stopLimitMs);
      const code = await ended;
      clearTimeout(limit);
      return code;
    },
  };
}

async function endOf(child: ChildProcess): Promise<number | null> {
  const [code] = await once(child, 'close');
  return typeof code === 'number' ? code : null;
}

function matchIn(child: ChildProcess, pattern: RegExp, output: () => string): Promise<string> {
  return new Promise((resolve, reject) => {
    const settle = () => {
      clearTimeout(limit);
      child.stdout?.off('data', look);
      child.stderr?.off('data', look);
      child.off('close', give);
    };
    const fail = (reason: string) => {
      settle();
      reject(new Error(`${reason} without ${pattern}. It said:\n${output()}`));
    };
    const look = () => {
      const found = pattern.exec(output());
      if (!found) return;
      settle();
      resolve(found[0]);
    };
    const give = () => fail('It ended');
    const limit = setTimeout(() => fail(`${startLimitMs / 1000} s went by`), startLimitMs);
    child.stdout?.on('data', look);
    child.stderr?.on('data', look);
    child.on('close', give);
    look();
  });
}
