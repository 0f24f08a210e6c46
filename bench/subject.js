/**
 * A contender for run.js: a separate process that runs commands.
 *
 * @module
 */
import { fileURLToPath } from 'node:url';
import { contender } from './contenders/index.js';
import { serverCpuMilliseconds, startNode } from './machine.js';
import { medians } from './stats.js';

const WORKER = fileURLToPath(new URL('./worker.js', import.meta.url));

/** Options of a store that writes every touch, as the other stores do. */
export const EVERY_TOUCH = Object.freeze({ touchAfter: 0 });

/** @typedef {import('./bench.js').Bench} Bench */

/** Calls to a child process over IPC, with one response each. */
export class Remote {
  #waiting = new Map();
  #id = 0;

  /** @param {import('node:child_process').ChildProcess} child */
  constructor(child) {
    this.child = child;
    child.on('message', ({ id, value, error, stack }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(value);
      else reject(Object.assign(new Error(error), { stack }));
    });
    child.on('exit', (code, signal) => {
      for (const { reject } of this.#waiting.values()) {
        reject(new Error(`a benchmark process ended (${signal ?? code})`));
      }
      this.#waiting.clear();
    });
  }

  /**
   * @param {string} command
   * @param {object} [argument]
   * @returns {Promise<any>}
   */
  call(command, argument = {}) {
    return new Promise((resolve, reject) => {
      this.#id += 1;
      this.#waiting.set(this.#id, { resolve, reject });
      this.child.send({ id: this.#id, command, argument }, (error) => error && reject(error));
    });
  }
}

export class Subject {
  /** Unsupported operations, with the reasons. */
  unsupported = /** @type {Record<string, string>} */ ({});
  /** @type {string | undefined} its table in Postgres */
  table;
  #held = false;

  /**
   * @param {string} name of the contender
   * @param {string} label in the report
   * @param {import('./contenders/index.js').Contender} kind
   * @param {Remote} remote
   * @param {number | undefined} serverPid
   */
  constructor(name, label, kind, remote, serverPid) {
    this.name = name;
    this.label = label;
    this.kind = kind;
    this.remote = remote;
    this.serverPid = serverPid;
  }

  /**
   * @param {Bench} bench
   * @param {object} wanted
   * @param {string} wanted.name of the contender
   * @param {string} [wanted.label] in the report
   * @param {string} wanted.url of a database
   * @param {number} [wanted.redisDatabase]
   * @param {object} [wanted.options] of the store
   * @param {boolean} [wanted.timeStatements]
   * @param {string} [wanted.cores]
   * @returns {Promise<Subject>} rejected where it cannot run here
   */
  static async start(
    bench,
    { name, label = name, url, redisDatabase = 0, options = {}, ...wanted },
  ) {
    const kind = await contender(name);
    const serverPid = {
      postgres: bench.postgres.pid,
      redis: bench.redis?.pid,
      memory: undefined,
    }[kind.server];
    // A MemoryStore with many large sessions needs more than Node's default heap.
    const flags = ['--max-old-space-size=8192'];
    const { profile } = bench.options;
    if (profile) {
      const file = `${label.replaceAll(/\W+/g, '-')}-${process.pid}.cpuprofile`;
      flags.push('--cpu-prof', `--cpu-prof-dir=${profile}`, `--cpu-prof-name=${file}`);
    }
    const child = startNode(WORKER, wanted.cores ?? bench.cores.app, flags);
    const subject = new Subject(name, label, kind, new Remote(child), serverPid);
    try {
      const { versions, table } = await subject.call('open', {
        name,
        context: {
          url,
          redisUrl: bench.redis && `${bench.redis.url}/${redisDatabase}`,
          options,
          timeStatements: wanted.timeStatements ?? false,
        },
      });
      Object.assign(bench.versions, versions);
      subject.table = table;
    } catch (error) {
      await subject.close();
      throw error;
    }
    return subject;
  }

  /**
   * @param {string} command one of worker.js
   * @param {object} [argument]
   */
  async call(command, argument) {
    if (this.#held) this.#signal('SIGCONT', false);
    const answer = await this.remote.call(command, argument);
    if (this.kind.background && process.platform !== 'win32') this.#signal('SIGSTOP', true);
    return answer;
  }

  /**
   * A measured window, with its cost for the server.
   *
   * @param {Parameters<import('./load.js').Load['measure']>[0]} window
   * @returns {Promise<import('./load.js').Measured & { serverCpu: number }>}
   */
  async measure(window) {
    const before = serverCpuMilliseconds(this.serverPid);
    const measured = await this.call('measure', window);
    const milliseconds = serverCpuMilliseconds(this.serverPid) - before;
    const { operations, ...rest } = measured;
    return { ...rest, serverCpu: (milliseconds * 1000) / operations };
  }

  async close() {
    const { child } = this.remote;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    if (this.#held) this.#signal('SIGCONT', false);
    await this.remote.call('close').catch(() => child.kill());
    await ended;
  }

  /**
   * @param {'SIGSTOP' | 'SIGCONT'} signal
   * @param {boolean} held
   */
  #signal(signal, held) {
    this.remote.child.kill(signal);
    this.#held = held;
  }
}

/**
 * Interleaved rounds: each subject in turn, in another order each time, so that slow and fast minutes of the machine
 * affect all of them.
 *
 * @template S
 * @template T
 * @param {number} rounds
 * @param {readonly S[]} subjects
 * @param {(subject: S, round: number) => Promise<T>} measure
 * @returns {Promise<Map<S, T[]>>}
 */
export async function interleaved(rounds, subjects, measure) {
  const results = new Map(subjects.map((subject) => [subject, /** @type {T[]} */ ([])]));
  for (let round = 0; round < rounds; round += 1) {
    for (let i = 0; i < subjects.length; i += 1) {
      const subject = subjects[(i + round) % subjects.length];
      results.get(subject)?.push(await measure(subject, round));
    }
  }
  return results;
}

/** Number of warm-up windows for a lone caller. It makes so few calls that V8 is still compiling after one window. */
const LONE_WARM_UP = 12;

/** Factor for the length of a lone caller's window. */
const LONE_WINDOW = 4;

/**
 * Interleaved windows of one kind, after a warm-up.
 *
 * @param {Bench} bench
 * @param {readonly Subject[]} subjects
 * @param {Parameters<import('./load.js').Load['measure']>[0]} window
 * @returns {Promise<object[]>} a row for each subject: medians
 */
export async function compare(bench, subjects, window) {
  const isLone = window.callers === 1 && !bench.options.quick;
  const lasting = (windows) => ({ ...window, milliseconds: window.milliseconds * windows });
  for (const subject of subjects) await subject.call('measure', lasting(isLone ? LONE_WARM_UP : 1));
  const measured = lasting(isLone ? LONE_WINDOW : 1);
  const results = await interleaved(bench.options.rounds, subjects, (subject) =>
    subject.measure(measured),
  );
  return [...results].map(([subject, rounds]) => ({
    contender: subject.label,
    ...medians(rounds),
    rates: rounds.map(({ rate }) => Math.round(rate)),
  }));
}

/**
 * Starts the contenders that can run here. Records the reason for the others.
 *
 * @param {Bench} bench
 * @param {readonly Parameters<typeof Subject.start>[1][]} wanted
 * @returns {Promise<Subject[]>}
 */
export async function startAll(bench, wanted) {
  const subjects = [];
  for (const one of wanted) {
    try {
      subjects.push(await Subject.start(bench, one));
    } catch (error) {
      if (!(one.name in bench.missing))
        bench.log(`${one.name} does not take part: ${error.message}`);
      bench.missing[one.name] = error.message;
    }
  }
  return subjects;
}
