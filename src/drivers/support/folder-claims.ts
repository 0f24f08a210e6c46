/**
 * Claims on a folder. Every opener creates its own claim: a file that names the opener, and a socket that the kernel
 * closes when the process or worker thread ends for any reason. The owner also changes the file's time again and again,
 * for processes that cannot check the socket. No name is used twice, so any process may delete the claim of a dead owner.
 *
 * @module
 */
import { createHash, randomBytes } from 'node:crypto';
import { constants, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm, rmdir, stat, utimes } from 'node:fs/promises';
import { connect, createServer, type Server } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import timers from 'node:timers';
import timersPromises from 'node:timers/promises';

// Taken at import, so that fake timers of an app's test stop neither a lock nor a wait.
const { setInterval, clearInterval } = timers;
/** @internal */
export const sleep = timersPromises.setTimeout;

const BEAT_MS = 2000;
const POLL_MS = 500;
/** If the socket of an owner cannot be checked, it counts as dead after this time without a beat. */
const PATIENCE_MS = 8000;

const isWindows = process.platform === 'win32';
/** The limit on macOS, the shortest: 104 bytes including the final NUL. Longer paths are bound through /proc. */
const MAX_SOCKET_PATH_BYTES = 103;
const MAX_TRIES = 100;

/** @internal The parts of the name of a claim's file. */
export interface Claim {
  readonly token: string;
  /** The pid of the owner in its own namespace. */
  readonly pid: number;
  /** Identifies the running kernel (one boot of one machine). Only the same kernel can check the socket. */
  readonly kernel: string;
}

/** @internal A claim of another owner. */
export interface FoundClaim extends Claim {
  /** Whether the owner has locked the folder. Otherwise it is still checking the claims of others. */
  readonly holds: boolean;
}

/** The claims of this copy of the module, to delete at exit. */
const owned = new Set<OwnClaim>();

function withdrawAll(): void {
  for (const claim of owned) claim.withdrawAtExit();
}

/** @internal This opener's own claim. */
export class OwnClaim implements Claim {
  readonly token: string;
  readonly pid = process.pid;
  readonly kernel = thisKernel();
  readonly #directory: string;
  readonly #server: Server | undefined;
  readonly #beats: NodeJS.Timeout;

  private constructor(directory: string, token: string, server: Server | undefined) {
    this.token = token;
    this.#directory = directory;
    this.#server = server;
    this.#beats = setInterval(() => void this.#beat(), BEAT_MS);
    this.#beats.unref?.();
    if (owned.size === 0) process.on('exit', withdrawAll);
    owned.add(this);
  }

  /** Creates a claim, and the directory for it if necessary. */
  static async create(directory: string, firstToken = newToken()): Promise<OwnClaim> {
    let token = firstToken;
    for (let tries = 1; ; tries += 1) {
      await mkdir(directory, { recursive: true });
      const claim = new OwnClaim(directory, token, await listen(directory, token));
      try {
        await claim.#publish();
        return claim;
      } catch (error) {
        await claim.withdraw();
        // The last other owner has just removed the directory.
        if (codeOf(error) !== 'ENOENT' || tries === MAX_TRIES) throw error;
        token = newToken();
      }
    }
  }

  /** Names the socket only after it listens. So if a named socket refuses a connection, its owner is dead. */
  async #publish(): Promise<void> {
    if (this.#server !== undefined && !isWindows) {
      await rename(newSocketOf(this.#directory, this), socketOf(this.#directory, this));
    }
    const file = await open(fileOf(this.#directory, this), 'wx');
    await file.close();
  }

  /** Marks the claim as the one that has locked the folder. Throws ENOENT if the claim was deleted. */
  async hold(): Promise<void> {
    const file = await open(fileOf(this.#directory, this), 'r+');
    try {
      await file.writeFile(`Process ${this.pid} on ${hostname()} has this folder open.\n`);
    } finally {
      await file.close();
    }
  }

  async withdraw(): Promise<void> {
    this.#stop();
    await remove(this.#directory, this);
    this.#server?.close();
    // Fails if others have claims.
    await rmdir(this.#directory).catch(() => {});
  }

  withdrawAtExit(): void {
    this.#stop();
    try {
      for (const path of pathsOf(this.#directory, this)) rmSync(path, { force: true });
      rmdirSync(this.#directory);
    } catch {
      // The next opener deletes the rest.
    }
  }

  #stop(): void {
    clearInterval(this.#beats);
    owned.delete(this);
    if (owned.size === 0) process.off('exit', withdrawAll);
  }

  /** Increases the file's time without reading a clock, because an app's test may have replaced the clock. */
  async #beat(): Promise<void> {
    const file = fileOf(this.#directory, this);
    try {
      const next = ((await stat(file)).mtimeMs + BEAT_MS) / 1000;
      await utimes(file, next, next);
    } catch (error) {
      if (codeOf(error) !== 'ENOENT' || !owned.has(this)) return;
      clearInterval(this.#beats);
      process.emitWarning(
        `connect-drizzle: the lock in ${this.#directory} was deleted; another process may have the folder open, too`,
      );
    }
  }
}

/** @internal Returns the claims of others. Deletes the sockets of dead owners that have no claim. */
export async function claimsOfOthers(directory: string, own: Claim): Promise<FoundClaim[]> {
  const names = await readdir(directory);
  const claims = names.map(parse).filter((claim) => claim !== undefined);
  const tokens = new Set(claims.map(({ token }) => token));
  for (const name of names) {
    const isOrphan = /\.(new|socket)$/.test(name) && !tokens.has(name.replace(/\..*/, ''));
    if (isOrphan && (await ask(directory, name)) === 'dead') {
      await rm(join(directory, name), { force: true });
    }
  }
  const found = claims.map(async (claim) => {
    const file = await stat(fileOf(directory, claim)).catch(() => undefined);
    return file && { ...claim, holds: file.size > 0 };
  });
  return (await Promise.all(found))
    .filter((claim) => claim !== undefined)
    .filter(({ token }) => token !== own.token);
}

/**
 * @internal Returns whether the owner of a claim is alive. If the socket can be checked, it decides at once; an owner that
 * is blocked or stopped still counts as alive. If it cannot (another host, a file system without sockets), the owner
 * counts as alive while its file's time changes. Such an owner loses the folder if it blocks for longer than
 * `PATIENCE_MS`. Without that limit, a crashed host would keep the folder until the lock is deleted by hand.
 */
export async function isAlive(directory: string, claim: Claim): Promise<boolean> {
  const answer =
    claim.kernel === thisKernel() ? await ask(directory, `${claim.token}.socket`) : 'unknown';
  return answer === 'unknown' ? hasBeats(fileOf(directory, claim)) : answer === 'alive';
}

/** @internal Deletes a claim. */
export async function remove(directory: string, claim: Claim): Promise<void> {
  for (const path of pathsOf(directory, claim)) await rm(path, { force: true });
}

function newToken(): string {
  return randomBytes(8).toString('hex');
}

function fileOf(directory: string, { token, pid, kernel }: Claim): string {
  return join(directory, `${token}.${pid}.${kernel}`);
}

function parse(name: string): Claim | undefined {
  const [, token, pid, kernel] = /^([0-9a-f]{16})\.(\d+)\.([0-9a-f]{12})$/.exec(name) ?? [];
  if (token === undefined || pid === undefined || kernel === undefined) return undefined;
  return { token, pid: Number(pid), kernel };
}

function newSocketOf(directory: string, { token }: Claim): string {
  return join(directory, `${token}.new`);
}

function socketOf(directory: string, { token }: Claim): string {
  return join(directory, `${token}.socket`);
}

/** The file is first: if only the socket were deleted, others would have to wait for beats of the file. */
function pathsOf(directory: string, claim: Claim): string[] {
  return [fileOf(directory, claim), socketOf(directory, claim), newSocketOf(directory, claim)];
}

/** Listens until the process or worker thread ends. Returns `undefined` if the file system has no sockets. */
async function listen(directory: string, token: string): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  try {
    await withAddress(directory, `${token}.new`, (path) => {
      return new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        // Exclusive: in a cluster, the primary would listen instead of the worker.
        server.listen({ path, exclusive: true }, resolve);
      });
    });
  } catch (error) {
    // On Windows, a missing pipe means a dead owner.
    if (isWindows) throw error;
    return undefined;
  }
  server.on('error', () => {});
  server.unref();
  return server;
}

/** Checks whether a socket has an owner. The kernel accepts connections even if the owner's event loop is blocked. */
async function ask(directory: string, name: string): Promise<'alive' | 'dead' | 'unknown'> {
  const failure = await withAddress(directory, name, (path) => {
    return new Promise<unknown>((resolve) => {
      const socket = connect({ path });
      socket.once('error', resolve);
      socket.once('connect', () => {
        socket.destroy();
        resolve(undefined);
      });
    });
  }).catch((error: unknown) => error);
  // EAGAIN: the socket's queue of connections is full.
  if (failure === undefined || codeOf(failure) === 'EAGAIN') return 'alive';
  return codeOf(failure) === (isWindows ? 'ENOENT' : 'ECONNREFUSED') ? 'dead' : 'unknown';
}

/** Calls `use` with the address of a socket: a pipe on Windows, otherwise a path that is short enough. */
async function withAddress<T>(
  directory: string,
  name: string,
  use: (address: string) => Promise<T>,
): Promise<T> {
  if (isWindows) return use(`\\\\.\\pipe\\connect-drizzle-${name.replace(/\..*/, '')}`);
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) return use(path);
  if (process.platform !== 'linux') throw new Error('The path is too long for a socket');
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(`/proc/self/fd/${handle.fd}/${name}`);
  } finally {
    await handle.close();
  }
}

/** Watches a file until its time changes or `PATIENCE_MS` has passed. Counts polls instead of reading a clock. */
async function hasBeats(file: string): Promise<boolean> {
  const timeOf = () =>
    stat(file).then(
      ({ mtimeMs }) => mtimeMs,
      () => undefined,
    );
  const before = await timeOf();
  if (before === undefined) return false;
  for (let waited = 0; waited < PATIENCE_MS; waited += POLL_MS) {
    await sleep(POLL_MS);
    const now = await timeOf();
    if (now !== before) return now !== undefined;
  }
  return false;
}

let kernel: string | undefined;

/** Returns a name for the running kernel, which the containers of a machine share. */
function thisKernel(): string {
  kernel ??= createHash('sha256').update(bootId()).digest('hex').slice(0, 12);
  return kernel;
}

function bootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8');
  } catch {
    return `${process.platform} ${hostname()}`;
  }
}

/** @internal Returns the `code` of a Node error. In Jest, such errors are not instances of `Error`. */
export function codeOf(error: unknown): string | undefined {
  return typeof error === 'object' && error !== null && 'code' in error
    ? String(error.code)
    : undefined;
}
