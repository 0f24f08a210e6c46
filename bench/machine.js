/**
 * The machine: its cores, the assignment of processes to cores, and the CPU time of a server's processes.
 *
 * @module
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { cpus, release, tmpdir, totalmem, type } from 'node:os';
import { join } from 'node:path';
import { median } from './stats.js';

/**
 * @typedef {object} Cores
 * @property {string | undefined} app   the contender's process, in taskset's notation
 * @property {string | undefined} load  the HTTP load generator
 * @property {string | undefined} server  the database server
 */

/**
 * The contender gets a separate core. With four cores, the HTTP load generator gets one, too; otherwise it shares the core
 * of the database server. With one core or without `taskset`, nothing is pinned.
 *
 * @param {boolean} wanted
 * @returns {Cores}
 */
export function assignCores(wanted) {
  const available = wanted ? availableCores() : [];
  if (available.length < 2) return { app: undefined, load: undefined, server: undefined };
  const rest = [...available];
  const app = String(rest.pop());
  const load = rest.length > 2 ? String(rest.pop()) : rest.join(',');
  return { app, load, server: rest.join(',') };
}

/** @returns {number[]} the cores that this process may use; none if that is unknown */
function availableCores() {
  try {
    const answer = execFileSync('taskset', ['-cp', String(process.pid)], { encoding: 'utf8' });
    return (answer.split(':').pop() ?? '')
      .trim()
      .split(',')
      .flatMap((range) => {
        const [first, last = first] = range.split('-').map(Number);
        return Array.from({ length: last - first + 1 }, (_, i) => first + i);
      });
  } catch {
    return [];
  }
}

/**
 * Pins a running process. Its new child processes inherit this.
 *
 * @param {number} pid
 * @param {string | undefined} cores
 */
export function pin(pid, cores) {
  if (cores !== undefined)
    execFileSync('taskset', ['-acp', cores, String(pid)], { stdio: 'ignore' });
}

/**
 * Starts a Node process with an IPC channel, pinned before its first thread.
 *
 * @param {string} file
 * @param {string | undefined} cores
 * @param {readonly string[]} [flags] Node's own
 */
export function startNode(file, cores, flags = []) {
  const command =
    cores === undefined ? [process.execPath] : ['taskset', '-c', cores, process.execPath];
  const child = spawn(command[0], [...command.slice(1), ...flags, file], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    serialization: 'advanced',
  });
  if (children.size === 0) process.once('exit', killChildren);
  children.add(child);
  child.once('exit', () => {
    children.delete(child);
    if (children.size === 0) process.off('exit', killChildren);
  });
  return child;
}

/** @type {Set<import('node:child_process').ChildProcess>} */
const children = new Set();

/** SIGKILL also ends a stopped process. */
function killChildren() {
  for (const child of children) child.kill('SIGKILL');
}

/**
 * CPU time that a server and its child processes have used so far. Linux only.
 *
 * @param {number | undefined} pid
 * @returns {number} milliseconds; NaN if that is unknown
 */
export function serverCpuMilliseconds(pid) {
  if (pid === undefined || process.platform !== 'linux') return Number.NaN;
  let nanoseconds = 0;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      if (Number(entry) !== pid && parentOf(entry) !== pid) continue;
      for (const task of readdirSync(`/proc/${entry}/task`)) {
        nanoseconds += Number(
          readFileSync(`/proc/${entry}/task/${task}/schedstat`, 'utf8').split(' ')[0],
        );
      }
    } catch {
      // The process has ended.
    }
  }
  return nanoseconds / 1e6;
}

/**
 * Whether a process of this machine belongs to Postgres. Linux only.
 *
 * @param {number} pid as reported by the server
 */
export function isPostgres(pid) {
  const file = `/proc/${pid}/cmdline`;
  return existsSync(file) && readFileSync(file, 'utf8').startsWith('postgres');
}

/** @param {string | number} pid */
export function parentOf(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
}

/** The facts about the machine that a reader needs to judge the figures. */
export function describeMachine() {
  return {
    system: `${type()} ${release().split('-')[0]}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    fsyncMilliseconds: fsyncMilliseconds(),
  };
}

/** How long one page takes to reach the disk under the temporary folder, where Postgres is put too. */
function fsyncMilliseconds() {
  const path = join(tmpdir(), `connect-drizzle-bench-fsync-${process.pid}`);
  const file = openSync(path, 'w');
  try {
    const page = Buffer.alloc(8192);
    const durations = Array.from({ length: 50 }, () => {
      writeSync(file, page);
      const started = performance.now();
      fsyncSync(file);
      return performance.now() - started;
    });
    return median(durations);
  } finally {
    closeSync(file);
    unlinkSync(path);
  }
}
