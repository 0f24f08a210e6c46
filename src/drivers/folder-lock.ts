/**
 * The lock on an embedded database's folder. Two processes on one PGlite folder overwrite each other's
 * writes without an error, so a file beside the folder names the process that has it open.
 *
 * @module
 */
import { rmSync } from 'node:fs';
import { mkdir, open, readFile, realpath, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FolderInUseError } from '../errors.js';

/** The lock files of this process: one that names its pid but is not among them is left from an earlier process. */
const held = new Set<string>();

/** How long a lock without a pid in it may be one that is just being written. */
const WRITING_MS = 5000;

/**
 * The folder that a path leads to: one name for it, whatever symbolic links there are (which PGlite does not
 * follow). Makes the folders above it.
 */
export async function realFolder(folder: string): Promise<string> {
  await mkdir(dirname(folder), { recursive: true });
  return realpath(folder).catch(async () =>
    join(await realpath(dirname(folder)), basename(folder)),
  );
}

/**
 * Takes the lock of a folder, which need not exist, and gives a function that gives it back.
 *
 * @throws {FolderInUseError} where a living process, this one included, has it
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const file = `${folder}.lock`;
  if (held.has(file)) throw new FolderInUseError(folder, process.pid);
  held.add(file);
  try {
    await write(file, folder);
  } catch (error) {
    held.delete(file);
    throw error;
  }
  const onExit = () => rmSync(file, { force: true });
  process.once('exit', onExit);
  return async () => {
    process.off('exit', onExit);
    held.delete(file);
    await rm(file, { force: true });
  };
}

async function write(file: string, folder: string): Promise<void> {
  if (await create(file)) return;
  // Only one process at a time may clear a lock away, lest it clear away another's new one.
  const clearing = `${file}.clearing`;
  if (!(await create(clearing))) {
    await refuseWhereAlive(clearing, folder);
    // Its process ended while it was clearing.
    await rm(clearing, { force: true });
    if (!(await create(clearing))) throw new FolderInUseError(folder, await holder(clearing));
  }
  try {
    await refuseWhereAlive(file, folder);
    await rm(file, { force: true });
    if (!(await create(file))) throw new FolderInUseError(folder, await holder(file));
  } finally {
    await rm(clearing, { force: true });
  }
}

async function refuseWhereAlive(file: string, folder: string): Promise<void> {
  const pid = await holder(file);
  const alive = pid === 0 ? await isYoung(file) : pid !== process.pid && isAlive(pid);
  if (alive) throw new FolderInUseError(folder, pid);
}

/** Makes a file with this process's pid in it, unless it is there. */
async function create(file: string): Promise<boolean> {
  try {
    const handle = await open(file, 'wx');
    try {
      await handle.writeFile(String(process.pid));
    } finally {
      await handle.close();
    }
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

/** The pid in a file; 0 where there is none. */
async function holder(file: string): Promise<number> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const pid = Number.parseInt(text, 10);
  return Number.isSafeInteger(pid) && pid > 0 ? pid : 0;
}

async function isYoung(file: string): Promise<boolean> {
  const written = await stat(file).catch(() => undefined);
  return written !== undefined && Date.now() - written.mtimeMs < WRITING_MS;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
