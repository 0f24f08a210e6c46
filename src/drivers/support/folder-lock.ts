/**
 * Locks the folder of an embedded database, because two PGlites on one folder overwrite each other's writes without an
 * error. The lock is inside the folder, because containers that share a folder may not share its parent folder.
 *
 * @module
 */
import { mkdir, readFile, realpath, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FolderError, FolderInUseError, SessionStoreError } from '../../errors.js';
import { claimsOfOthers, codeOf, isAlive, OwnClaim, remove, sleep } from './folder-claims.js';

/** The directory inside the folder that contains the claims. */
const CLAIMS = 'connect-drizzle.lock';
const POLL_MS = 25;
/** Maximum number of polls while another opener is still deciding whether it may lock the folder. */
const MAX_POLLS = 400;
/** How long to wait for the pid in an empty lock file of version 1.0.0. Its owner may still be writing it. */
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
 * Locks a folder and returns a function that unlocks it. Creates the folder if it is missing.
 *
 * @throws {FolderInUseError} if another process, worker thread or store has locked it
 * @throws {FolderError} if the folder cannot be created or written to
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
 * Waits until no other opener can lock the folder. Each opener first creates its claim and then reads the claims of the
 * others, so of two openers at least one sees the other. The lower token has priority: the higher one gives up, unless it
 * had read the claims before the lower one existed; then it locks the folder soon.
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

/** Throws if version 1.0.0 has locked the folder: it wrote its pid into a file beside the folder. */
async function refuseOldHolder(folder: string): Promise<void> {
  for (const file of [`${folder}.lock`, `${folder}.lock.clearing`]) {
    if (!(await stat(file).catch(() => undefined))?.isFile()) continue;
    let pid = await pidIn(file);
    for (let waited = 0; pid === 0 && waited < WRITING_MS; waited += POLL_MS) {
      await sleep(POLL_MS);
      pid = await pidIn(file);
    }
    // An earlier process with the same pid left the file.
    if (pid !== undefined && pid !== 0 && pid !== process.pid && isRunning(pid)) {
      throw new FolderInUseError(folder, pid);
    }
    await rm(file, { force: true }).catch(() => {});
  }
}

/** Returns the pid in a file; 0 if the file has none, `undefined` if the file does not exist. */
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
