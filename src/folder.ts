/**
 * The lock on an embedded database's folder. Two processes on one PGlite folder overwrite each other's
 * writes without an error, so a file beside the folder names the process that has it open.
 *
 * @module
 */
import { rmSync } from 'node:fs';
import { mkdir, open, readFile, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { FolderInUseError } from './errors.js';

/** The lock files of this process: one that names its pid but is not among them is left from an earlier process. */
const held = new Set<string>();

/**
 * Takes the lock of a folder, which need not exist, and gives a function that gives it back.
 *
 * @throws {FolderInUseError} where a living process, this one included, has it
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const file = `${folder.replace(/[\\/]+$/, '')}.lock`;
  await mkdir(dirname(file), { recursive: true });
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
  if (!(await create(clearing))) throw new FolderInUseError(folder, await holder(clearing));
  try {
    const pid = await holder(file);
    if (pid !== process.pid && isAlive(pid)) throw new FolderInUseError(folder, pid);
    await rm(file, { force: true });
    if (!(await create(file))) throw new FolderInUseError(folder, await holder(file));
  } finally {
    await rm(clearing, { force: true });
  }
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

async function holder(file: string): Promise<number> {
  const text = await readFile(file, 'utf8').catch(() => '');
  const pid = Number.parseInt(text, 10);
  return Number.isSafeInteger(pid) && pid > 0 ? pid : 0;
}

/** A file without a pid is being written at this moment. */
function isAlive(pid: number): boolean {
  if (pid === 0) return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
