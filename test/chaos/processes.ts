/** The two processes under load, as the main process controls them. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Gate, gate } from '../support/gate.js';
import type { Answer, Name, Order, Report, WorkerSettings } from './protocol.js';

interface News {
  readonly created: string[];
  readonly ended: string[];
}

export class LoadProcess {
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Gate<Answer>>();
  #calls = 0;
  readonly ready: Promise<unknown>;

  constructor(settings: WorkerSettings, onNews: (news: News) => void) {
    const program = fileURLToPath(new URL('./worker.ts', import.meta.url));
    this.#child = fork(program, [JSON.stringify(settings)], { execArgv: ['--import', 'tsx'] });
    this.ready = this.#answer(0);
    this.#child.on('message', (message: Answer | { news: News }) => {
      if ('news' in message) onNews(message.news);
      else this.#pending.get(message.call)?.open(message);
    });
    this.#child.once('exit', (code) => {
      const error = new Error(`The process ${settings.name} ended with ${code}`);
      for (const pending of this.#pending.values()) pending.fail(error);
    });
  }

  /** Starts or stops the load on the store. */
  async load(isOn: boolean): Promise<void> {
    await this.#ask({ do: 'load', isOn });
  }

  /** Tells of sessions that the other process has created or ended. */
  async learn(news: News): Promise<void> {
    await this.#ask({ do: 'learn', ...news });
  }

  /** Calls the store until it works or the limit has passed. Returns how many milliseconds that took. */
  async recover(limitMs: number): Promise<number> {
    return Number(await this.#ask({ do: 'recover', limitMs }));
  }

  /** Runs DISCARD ALL on the idle connections of the app's pool. */
  async discard(): Promise<void> {
    await this.#ask({ do: 'discard' });
  }

  /** Waits until no call is in flight. Returns what has happened since the last report. */
  async report(): Promise<Report> {
    const report = await this.#ask({ do: 'report' });
    if (typeof report !== 'object') throw new Error('no report');
    return report;
  }

  /** Closes the store and the app's pool. */
  async close(): Promise<void> {
    await this.#ask({ do: 'close' });
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async #ask(order: Order): Promise<Report | number | undefined> {
    this.#calls += 1;
    const call = this.#calls;
    const answer = this.#answer(call);
    this.#child.send({ call, order });
    const result = await answer;
    if ('error' in result) throw new Error(result.error);
    return result.result;
  }

  async #answer(call: number): Promise<Answer> {
    const pending = gate<Answer>();
    this.#pending.set(call, pending);
    try {
      return await pending.opened;
    } finally {
      this.#pending.delete(call);
    }
  }
}

type Settings = Omit<WorkerSettings, 'name' | 'driver' | 'url'>;

/** A process on node-postgres and one on postgres-js, which use the same sessions. */
export function startProcesses(
  urls: Readonly<Record<Name, string>>,
  settings: Settings,
): Readonly<Record<Name, LoadProcess>> {
  const start = (name: Name, driver: WorkerSettings['driver'], other: () => LoadProcess) =>
    new LoadProcess(
      { ...settings, name, driver, url: urls[name], seed: settings.seed + (name === 'a' ? 1 : 2) },
      (news) => other().learn(news).catch(ignore),
    );
  const processes: Record<Name, LoadProcess> = {
    a: start('a', 'node-postgres', () => processes.b),
    b: start('b', 'postgres-js', () => processes.a),
  };
  return processes;
}

/** Used if the other process has ended, which is reported elsewhere. */
function ignore(): void {}
