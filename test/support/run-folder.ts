import {
  accessSync,
  chmodSync,
  constants,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statfsSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';

const prefix = 'connect-drizzle-run-';
const variable = process.platform === 'win32' ? 'TEMP' : 'TMPDIR';
const endLimitMs = 10_000;

/** Linux keeps the files of this folder in memory. */
export const memoryFolder = '/dev/shm';
/** The tests take less than 1 GiB of it. */
const minFreeBytes = 4 * 2 ** 30;

/**
 * Creates a temporary folder for this test run, and removes it when the run ends or is interrupted. The temporary
 * files of the tests, their servers and vitest itself are in it. First removes the folders of runs that were killed.
 */
export function useRunFolder(): void {
  const parent = temporaryFolder();
  const ownPrefix = `${prefix}${process.pid}-`;
  // The configuration is loaded a second time.
  if (basename(parent).startsWith(ownPrefix)) return;
  for (const name of readdirSync(parent)) {
    if (isAbandoned(name)) removeRunFolder(join(parent, name));
  }
  const folder = mkdtempSync(join(parent, ownPrefix));
  // If the tests run as root, the servers run as another user.
  chmodSync(folder, 0o711);
  process.env[variable] = folder;
  process.once('exit', () => removeRunFolder(folder));
  for (const [signal, code] of [
    ['SIGHUP', 129],
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    process.once(signal, () => process.exit(code));
  }
}

/**
 * Returns the folder that the environment sets, or else one in memory if there is space. Postgres creates a few hundred
 * files for each database. On ext4, that takes a tenth of the CPU time of all tests.
 */
function temporaryFolder(): string {
  return !process.env[variable] && hasSpaceInMemory() ? memoryFolder : tmpdir();
}

/** Whether there is a folder in memory that has enough space and from which programs can run. */
export function hasSpaceInMemory(): boolean {
  if (process.platform !== 'linux' || process.availableMemory() < 2 * minFreeBytes) return false;
  try {
    accessSync(memoryFolder, constants.W_OK);
    const { bavail, bsize } = statfsSync(memoryFolder);
    const mounts = readFileSync('/proc/mounts', 'utf8').split('\n');
    const [, , type, options = ''] =
      mounts.find((line) => line.split(' ')[1] === memoryFolder)?.split(' ') ?? [];
    return (
      type === 'tmpfs' && !options.split(',').includes('noexec') && bavail * bsize >= minFreeBytes
    );
  } catch {
    return false;
  }
}

/** Whether this is the name of the folder of a run that has ended. */
function isAbandoned(name: string): boolean {
  const pid = Number(/^(\d+)-/.exec(name.startsWith(prefix) ? name.slice(prefix.length) : '')?.[1]);
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ESRCH';
  }
}

function removeRunFolder(folder: string): void {
  endProcessesIn(folder);
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  } catch (error) {
    console.warn(`The temporary folder ${folder} remains: ${String(error)}`);
  }
}

/** Ends the processes that a run has left, such as servers, because they would write into the folder. */
function endProcessesIn(folder: string): void {
  const startedAt = performance.now();
  for (;;) {
    const pids = processesIn(folder);
    if (pids.length === 0 || performance.now() - startedAt > endLimitMs) return;
    for (const pid of pids) end(pid);
    // Exit handlers cannot wait in any other way.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
  }
}

/**
 * Returns the processes whose working or temporary folder is in this folder. Works only on Linux; returns none
 * elsewhere.
 */
export function processesIn(folder: string): number[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0 && pid !== process.pid && isIn(folder, pid));
}

function isIn(folder: string, pid: number): boolean {
  const isInside = (path: string) => path === folder || path.startsWith(`${folder}/`);
  try {
    if (isInside(readlinkSync(`/proc/${pid}/cwd`))) return true;
    const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
    return environment.some((entry) => entry.startsWith('TMPDIR=') && isInside(entry.slice(7)));
  } catch {
    // It has ended, or belongs to another user.
    return false;
  }
}

function end(pid: number): void {
  try {
    const program = readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
    // On SIGQUIT, Postgres ends at once and releases its shared memory.
    process.kill(pid, program === 'postgres' ? 'SIGQUIT' : 'SIGKILL');
  } catch {
    // It has ended.
  }
}
