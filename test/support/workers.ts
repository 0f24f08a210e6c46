import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { bundleProgram } from './bundle.js';
import type { Commands } from './worker.js';

type Name = keyof Commands;
type Result<N extends Name> = Awaited<ReturnType<Commands[N]>>;

/** A process with a store. */
export interface Worker {
  /** Runs a command in the process. */
  call<N extends Name>(name: N, ...args: Parameters<Commands[N]>): Promise<Result<N>>;
  /** Disconnects, so that only its store keeps the process busy. */
  leave(): void;
  /** Its exit code. */
  readonly ended: Promise<number | null>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface Request {
  readonly number: number;
  readonly name: Name;
  readonly args: unknown[];
}

export interface Reply {
  readonly number: number;
  readonly result?: unknown;
  readonly error?: string;
}

interface Pending {
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

export async function startWorker(): Promise<Worker> {
  const program = await bundleProgram({ file: 'worker.ts' });
  const child = fork(program, { execArgv: [], serialization: 'advanced' });
  const pending = new Map<number, Pending>();
  let calls = 0;
  child.on('message', (message) => {
    if (!isReply(message)) return;
    const call = pending.get(message.number);
    pending.delete(message.number);
    if (message.error === undefined) call?.resolve(message.result);
    else call?.reject(new Error(message.error));
  });
  const ended = endOf(child);
  void ended.then((code) => {
    for (const call of pending.values()) call.reject(new Error(`The worker ended with ${code}`));
  });
  // Leaves no process behind if a test fails.
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  void ended.then(() => process.off('exit', kill));
  return {
    ended,
    call: <N extends Name>(name: N, ...args: Parameters<Commands[N]>) =>
      new Promise<Result<N>>((resolve, reject) => {
        calls += 1;
        pending.set(calls, { resolve: (result) => resolve(result as Result<N>), reject });
        child.send({ number: calls, name, args } satisfies Request);
      }),
    leave: () => child.disconnect(),
    async [Symbol.asyncDispose]() {
      if (child.exitCode === null && child.signalCode === null) kill();
      await ended;
    },
  };
}

async function endOf(child: ChildProcess): Promise<number | null> {
  // After this side has disconnected, there is no 'close' event.
  const [code] = await once(child, 'exit');
  return typeof code === 'number' ? code : null;
}

function isReply(message: unknown): message is Reply {
  return typeof message === 'object' && message !== null && 'number' in message;
}
