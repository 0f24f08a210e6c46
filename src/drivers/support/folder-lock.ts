/**
 * Locks the folder of an embedded database: two PGlites on one folder overwrite each other's writes
 * without an error. The lock is inside the folder, because containers that share a folder may not share
 * its parent folder.
 *
 * @module
 */
import { mkdir, readFile, realpath, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FolderError, FolderInUseError, SessionStoreError } from '../../errors.js';
import { claimsOfOthers, codeOf, isAlive, OwnClaim, remove, sleep } from './folder-claims.js';

/** The directory inside the folder that holds the claims. */
const CLAIMS = 'connect-drizzle.lock';
const POLL_MS = 25;
/** How often to poll while another opener is still deciding whether it may have the folder. */
const MAX_POLLS = 400;
/** How long to wait for the pid in an empty lock file of version 1.0.0, which may still be written. */
const WRITING_MS = 5000;

/**
 * Returns the real path of a folder, which may not exist yet. PGlite does not follow symbolic links.
 * Creates the parent folders.
 *
 * @throws {FolderError} if they cannot be created
 */
export async function realFolder(folder: string): Promise<string> {
  try {
    await mkdir(dirname(folder), { recursive: true });
    return await realpath(folder).catch(async () =>
      join(await realpath(dirname(folder)), basename(folder)),
    );
  } catch (error) {
    throw folderError(folder, error);
  }
}

/**
 * Locks a folder, which it creates if it is missing, and returns a function that unlocks it.
 *
 * @throws {FolderInUseError} if another process, worker thread or store has it
 * @throws {FolderError} if nothing can be written there
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const directory = join(folder, CLAIMS);
  try {
    const claim = await OwnClaim.create(directory);
    try {
      await outlastOthers(claim, directory, folder);
      await refuseOldHolder(folder);
      await claim.hold();
    } catch (error) {
      await claim.withdraw();
      throw error;
    }
    return () => claim.withdraw();
  } catch (error) {
    throw folderError(folder, error);
  }
}

/**
 * Waits until no other opener can have the folder. Each opener creates its claim first and looks at the
 * others' afterwards, so of two openers at least one sees the other. The lower token goes first: the
 * higher one gives up, unless it had looked before the lower one came; then it has the folder soon.
 */
async function outlastOthers(own: OwnClaim, directory: string, folder: string): Promise<void> {
  for (let polls = 0; ; polls += 1) {
    const others = await claimsOfOthers(directory, own);
    const alive = await Promise.all(others.map((other) => isAlive(directory, other)));
    for (const [at, other] of others.entries()) {
      if (!alive[at]) await remove(directory, other);
    }
    const living = others.filter((_, at) => alive[at]);
    const winner = living.find(({ holds, token }) => holds || token < own.token);
    const [first] = living;
    if (winner !== undefined) throw new FolderInUseError(folder, winner.pid);
    if (first === undefined) return;
    if (polls === MAX_POLLS) throw new FolderInUseError(folder, first.pid);
    await sleep(POLL_MS);
  }
}

/** Refuses if version 1.0.0 has the folder: it wrote its pid into a file beside it. */
async function refuseOldHolder(folder: string): Promise<void> {
  for (const file of [`${folder}.lock`, `${folder}.lock.clearing`]) {
    if (!(await stat(file).catch(() => undefined))?.isFile()) continue;
    let pid = await pidIn(file);
    for (let waited = 0; pid === 0 && waited < WRITING_MS; waited += POLL_MS) {
      await sleep(POLL_MS);
      pid = await pidIn(file);
    }
    // This process has the pid of an earlier one that left the file.
    if (pid !== undefined && pid !== 0 && pid !== process.pid && isRunning(pid)) {
      throw new FolderInUseError(folder, pid);
    }
    await rm(file, { force: true }).catch(() => {});
  }
}

/** Reads the pid in a file: 0 if there is none, `undefined` if there is no file. */
async function pidIn(file: string): Promise<number | undefined> {
  const text = await readFile(file, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const pid = Number.parseInt(text, 10);
  return Number.isSafeInteger(pid) && pid > 0 ? pid : 0;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === 'EPERM';
  }
}

function folderError(folder: string, error: unknown): unknown {
  if (error instanceof SessionStoreError) return error;
  const code = codeOf(error);
  return code === undefined ? error : new FolderError(folder, code);
}
