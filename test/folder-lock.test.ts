/** The lock on the folder of an embedded database. */
import { existsSync, utimesSync } from 'node:fs';
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { FolderError, FolderInUseError } from 'connect-drizzle';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { codeOf, isAlive, OwnClaim, sleep } from '../src/drivers/support/folder-claims.js';
import { lockFolder, realFolder } from '../src/drivers/support/folder-lock.js';
import { type Lockers, makeLockers, whyNoNamespaces } from './support/folder-lockers.js';
import { runProgram, startProgram } from './support/program.js';

let lockers: Lockers;

beforeAll(async () => {
  lockers = await makeLockers();
});
afterAll(() => lockers[Symbol.asyncDispose]());

/** The path of a folder that does not exist yet, and of the claims in it. */
async function newFolder() {
  const parent = await realpath(await mkdtemp(join(tmpdir(), 'connect-drizzle-')));
  const folder = join(parent, 'data');
  return {
    folder,
    claims: join(folder, 'connect-drizzle.lock'),
    [Symbol.asyncDispose]: () => rm(parent, { recursive: true, force: true }),
  };
}

/** The folder of the test that runs. Concurrent tests have a folder of their own instead. */
let folder: string;
let claims: string;

/** Makes a new folder for each test of a describe block. */
function useFolder(): void {
  beforeEach(async () => {
    const made = await newFolder();
    ({ folder, claims } = made);
    return () => made[Symbol.asyncDispose]();
  });
}

/** Returns the pid of the process that holds the lock, by trying to lock the folder. */
async function holder(path = folder): Promise<number | undefined> {
  try {
    const unlock = await lockFolder(path);
    await unlock();
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(FolderInUseError);
    expect(error).toMatchObject({ code: 'ERR_FOLDER_IN_USE' });
    return error instanceof FolderInUseError ? error.pid : Number.NaN;
  }
}

async function startHolder(env: Record<string, string> = {}, by?: string[]) {
  const other = lockers.start({ FOLDER: folder, ...env }, by);
  const pid = Number((await other.until(/locked by \d+/)).slice('locked by '.length));
  return { ...other, pid };
}

/** Leaves the claim of a dead process in a folder. */
async function leaveClaim(path: string): Promise<void> {
  const dead = await startHolder({ FOLDER: path });
  await dead.stop('SIGKILL');
  expect((await readdir(join(path, 'connect-drizzle.lock'))).length).toBeGreaterThan(0);
}

describe('a locked folder is refused to', () => {
  useFolder();

  test('another store of the same process until the first one unlocks it', async () => {
    const [first, second] = await Promise.allSettled([lockFolder(folder), lockFolder(folder)]);
    const locked = [first, second].filter(({ status }) => status === 'fulfilled');
    const refused = [first, second].filter(({ status }) => status === 'rejected');
    expect([locked.length, refused.length]).toEqual([1, 1]);
    expect(refused[0]).toMatchObject({ reason: { code: 'ERR_FOLDER_IN_USE', pid: process.pid } });
    for (const result of locked) if (result.status === 'fulfilled') await result.value();
    expect(await readdir(folder)).toEqual([]);
    await (await lockFolder(folder))();
  });

  test('another worker thread until the first one ends or is terminated', async () => {
    const env = { ...process.env, FOLDER: folder };
    const startWorker = async () => {
      const worker = new Worker(lockers.program, { env, stdout: true, execArgv: [] });
      for await (const text of worker.stdout) return { worker, said: String(text) };
      throw new Error('The worker said nothing');
    };
    const first = await startWorker();
    expect(first.said).toBe(`locked by ${process.pid}\n`);
    expect(await holder()).toBe(process.pid);
    const second = await startWorker();
    expect(second.said).toContain(`refused ERR_FOLDER_IN_USE ${process.pid}`);
    await second.worker.terminate();
    await first.worker.terminate();
    const third = await startWorker();
    expect(third.said).toContain('locked');
    await third.worker.terminate();
    expect(await holder()).toBeUndefined();
    expect(await readdir(folder)).toEqual([]);
  });

  test('another copy of the package in the same process', async () => {
    const copies: { lockFolder: typeof lockFolder }[] = [
      await import(pathToFileURL(lockers.esm).href),
      createRequire(import.meta.url)(lockers.cjs),
    ];
    for (const copy of copies) {
      const unlock = await copy.lockFolder(folder);
      expect(await holder()).toBe(process.pid);
      for (const other of copies) {
        await expect(other.lockFolder(folder)).rejects.toMatchObject({ code: 'ERR_FOLDER_IN_USE' });
      }
      await unlock();
      expect(await holder()).toBeUndefined();
    }
  });

  test('another process until the first one is killed', async () => {
    const other = await startHolder();
    expect(await holder()).toBe(other.pid);
    await other.stop('SIGKILL');
    expect(await readdir(folder)).toEqual(['connect-drizzle.lock']);
    expect(await holder()).toBeUndefined();
    expect(await readdir(folder)).toEqual([]);
  });

  test('another container whose process has the same pid, until the first one is killed', async () => {
    const reason = whyNoNamespaces();
    if (reason !== undefined) {
      console.warn(`Two containers were not tested: no namespaces here (${reason.trim()})`);
      return;
    }
    // Like containers: each has its own pids, network and mounts, and the folder in another place.
    await mkdir(folder);
    const container = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--net'];
    const mounted = async (name: string) => {
      const place = join(dirname(folder), name);
      await mkdir(place);
      const script = `mount --bind '${folder}' '${place}' && exec "$@"`;
      return { place, by: [...container, '--mount', 'sh', '-c', script, 'sh'] };
    };
    const [one, two] = [await mounted('one'), await mounted('two')];
    const first = await startHolder({ FOLDER: one.place }, one.by);
    expect(first.pid).toBe(1);
    expect(await holder()).toBe(1);

    const second = lockers.start({ FOLDER: two.place }, two.by);
    expect(await second.until(/locked|refused.*/)).toContain('refused ERR_FOLDER_IN_USE 1 ');
    await second.stop('SIGKILL');
    await first.stop('SIGKILL');
    const third = await startHolder({ FOLDER: two.place }, two.by);
    expect(third.pid).toBe(1);
    await third.stop('SIGKILL');
  });

  test('others while its process is stopped or blocks its event loop', async () => {
    const blocked = await startHolder({ THEN: 'block' });
    expect(await holder()).toBe(blocked.pid);
    await blocked.stop('SIGKILL');
    const stopped = await startHolder();
    process.kill(stopped.pid, 'SIGSTOP');
    // The kernel answers at once, so nothing waits for the stopped process.
    expect(await holder()).toBe(stopped.pid);
    process.kill(stopped.pid, 'SIGCONT');
    expect(await holder()).toBe(stopped.pid);
    await stopped.stop('SIGKILL');
  });

  test.each([
    ['odd characters', `it's "50%" #1\n👻 日本 `],
    ['a path that is too long for a socket', 'x'.repeat(200)],
  ])('others if it has %s', async (_what, name) => {
    folder = join(dirname(folder), name);
    claims = join(folder, 'connect-drizzle.lock');
    const other = await startHolder();
    expect((await readdir(claims)).filter((file) => file.endsWith('.socket'))).toHaveLength(1);
    expect(await holder()).toBe(other.pid);
    await other.stop('SIGKILL');
    expect(await holder()).toBeUndefined();
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('a lock', () => {
  useFolder();

  test('leaves no file behind when its process exits without unlocking', async () => {
    const other = lockers.start({ FOLDER: folder, THEN: 'exit' });
    expect(await other.ended).toBe(3);
    expect(other.output).toContain('locked');
    expect(await readdir(folder)).toEqual([]);
  });

  test('keeps no process alive', async () => {
    const other = lockers.start({ FOLDER: folder, THEN: 'end' });
    expect(await other.ended).toBe(0);
    expect(other.output).toContain('locked');
    expect(await readdir(folder)).toEqual([]);
  });

  test('adds one listener to the process for any number of folders', async () => {
    const before = process.listenerCount('exit');
    const unlocks = [];
    for (let at = 0; at < 12; at += 1) unlocks.push(await lockFolder(`${folder}/${at}`));
    expect(process.listenerCount('exit')).toBe(before + 1);
    for (const unlock of unlocks) await unlock();
    expect(process.listenerCount('exit')).toBe(before);
  });

  test('applies to the folder that symbolic links lead to', async () => {
    await mkdir(folder);
    await symlink(folder, `${folder} link`);
    await symlink(dirname(folder), join(folder, 'up'));
    for (const path of [folder, `${folder} link`, join(folder, 'up', 'data')]) {
      expect(await realFolder(path)).toBe(folder);
    }
    const anew = join(folder, 'up', 'not', 'yet');
    expect(await realFolder(anew)).toBe(join(dirname(folder), 'not', 'yet'));
  });

  test('fails with a reason if a file is in the way or the folder is read-only', async () => {
    await writeFile(folder, 'a file, not a folder');
    const inTheWay = `The folder ${folder} cannot be used: a file is in the way`;
    await expect(lockFolder(folder)).rejects.toThrow(inTheWay);
    await expect(lockFolder(folder)).rejects.toThrow(FolderError);
    await expect(realFolder(join(folder, 'data'))).rejects.toMatchObject({ code: 'ERR_FOLDER' });
    await rm(folder);
    await chmod(dirname(folder), 0o555);
    // As another user, the program must still be able to read its modules.
    await chmod(dirname(lockers.program), 0o755);
    const other = lockers.start({ FOLDER: folder, THEN: 'not root' });
    const said = await other.until(/locked|refused.*/);
    expect(said).toContain('refused ERR_FOLDER');
    expect(said).toContain(`The folder ${folder} cannot be used: permission denied (EACCES)`);
    await chmod(dirname(folder), 0o755);
  });
});

describe('of several openers of a folder whose owner died,', () => {
  useFolder();

  beforeEach(() => leaveClaim(folder));

  const lowest = '0'.repeat(16);
  const highest = 'f'.repeat(16);

  test('the one with the lower token goes first', async () => {
    const other = await OwnClaim.create(claims, lowest);
    expect(await holder()).toBe(process.pid);
    await other.withdraw();
    expect(await holder()).toBeUndefined();
  });

  test('the one with the lower token waits for one that may have looked before it, and may then lock the folder', async () => {
    const other = await OwnClaim.create(claims, highest);
    const locking = lockFolder(folder);
    await untilClaims(2);
    expect(await Promise.race([locking, sleep(200, 'waits')])).toBe('waits');
    await other.withdraw();
    await (await locking)();
  });

  test('the one with the lower token is refused if the other had looked before it', async () => {
    const other = await OwnClaim.create(claims, highest);
    const locking = holder();
    await untilClaims(2);
    await other.hold();
    expect(await locking).toBe(process.pid);
    await other.withdraw();
  });

  test('exactly one locks it', async () => {
    for (let round = 0; round < 3; round += 1) {
      const go = join(dirname(folder), `go ${round}`);
      const others = Array.from({ length: 8 }, () => lockers.start({ FOLDER: folder, GO: go }));
      await writeFile(go, '');
      const said = await Promise.all(others.map(({ until }) => until(/locked|refused \w+/)));
      expect(said.sort()).toEqual(['locked', ...Array(7).fill('refused ERR_FOLDER_IN_USE')]);
      // The next round again finds the lock of a dead process.
      await Promise.all(others.map(({ stop }) => stop('SIGKILL')));
    }
  });

  const newSocket = `${lowest}.new`;

  test('the first one deletes the sockets of dead processes that have no claim', async () => {
    const dead = await startListener();
    await dead.stop('SIGKILL');
    expect(await readdir(claims)).toContain(newSocket);
    const unlock = await lockFolder(folder);
    expect(await readdir(claims)).not.toContain(newSocket);
    await unlock();
    expect(await readdir(folder)).toEqual([]);
  });

  test('none deletes a socket that a process listens on', async () => {
    const listener = await startListener();
    await (await lockFolder(folder))();
    expect(await readdir(claims)).toEqual([newSocket]);
    await listener.stop('SIGKILL');
  });

  /** Starts a process that listens on a socket without having a claim. */
  async function startListener() {
    await mkdir(claims, { recursive: true });
    // A relative name, because the whole path may be too long for a socket.
    const listener = await startProgram(
      `import { createServer } from 'node:net';
       process.chdir(process.env.CLAIMS);
       createServer().listen('${newSocket}', () => console.log('listening'));`,
      { CLAIMS: claims },
    );
    await listener.until(/listening/);
    return listener;
  }

  async function untilClaims(count: number): Promise<void> {
    const files = async () => (await readdir(claims)).filter((name) => /\.\d+\./.test(name));
    while ((await files()).length !== count) await sleep(5);
  }
});

test("a claim changes its time even under the fake timers of an app's test", async () => {
  await using own = await newFolder();
  vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval', 'setImmediate', 'Date'] });
  try {
    const unlock = await lockFolder(own.folder);
    const [name = ''] = (await readdir(own.claims)).filter((each) => /\.\d+\./.test(each));
    const timeOf = async () => (await stat(join(own.claims, name))).mtimeMs;
    const before = await timeOf();
    while ((await timeOf()) === before) await sleep(100);
    await unlock();
  } finally {
    vi.useRealTimers();
  }
});

// These tests mostly wait, so they run side by side, each with a folder of its own.
describe.concurrent('a claim whose socket is unreachable', () => {
  /** As another host leaves it on a network file system, or a file system without sockets. */
  const foreign = { token: 'a'.repeat(16), pid: 4711, kernel: '0123456789ab' };

  /** A folder with this claim. */
  async function claimedFolder() {
    const made = await newFolder();
    const file = join(made.claims, `${foreign.token}.${foreign.pid}.${foreign.kernel}`);
    await mkdir(made.claims, { recursive: true });
    await writeFile(file, 'held');
    return { ...made, file };
  }

  test('is deleted when its time does not change', async () => {
    await using own = await claimedFolder();
    expect(await holder(own.folder)).toBeUndefined();
    expect(await readdir(own.folder)).toEqual([]);
  });

  test('counts as alive while its time changes', async () => {
    await using own = await claimedFolder();
    let seconds = 0;
    const beats = setInterval(() => {
      seconds += 1;
      utimesSync(own.file, seconds, seconds);
    }, 600);
    try {
      expect(await holder(own.folder)).toBe(foreign.pid);
    } finally {
      clearInterval(beats);
    }
  });

  test('is dead when it disappears', async () => {
    await using own = await claimedFolder();
    const asking = isAlive(own.claims, foreign);
    await sleep(600);
    await rm(own.file);
    expect(await asking).toBe(false);
    expect(await isAlive(own.claims, foreign)).toBe(false);
  });

  test('causes a warning when its owner finds that it was deleted', async () => {
    await using own = await newFolder();
    const warning = vi.spyOn(process, 'emitWarning').mockReturnValue();
    const text = `the lock in ${own.claims} was deleted`;
    const unlock = await lockFolder(own.folder);
    for (const name of await readdir(own.claims)) await rm(join(own.claims, name));
    while (!warning.mock.calls.some(([said]) => String(said).includes(text))) await sleep(100);
    await unlock();
    warning.mockRestore();
    const claim = await OwnClaim.create(own.claims);
    for (const name of await readdir(own.claims)) await rm(join(own.claims, name));
    await expect(claim.hold()).rejects.toMatchObject({ code: 'ENOENT' });
    await claim.withdraw();
  });

  test('counts as alive by its time if there is no socket', async () => {
    await using own = await newFolder();
    const claim = await OwnClaim.create(own.claims, foreign.token);
    await rm(join(own.claims, `${foreign.token}.socket`));
    expect(await isAlive(own.claims, claim)).toBe(true);
    await claim.withdraw();
  });
});

test.concurrent('of several openers of a folder whose owner died, no two hold the lock at once, whichever is killed', async () => {
  await using own = await newFolder();
  await leaveClaim(own.folder);
  const inside = join(dirname(own.folder), 'inside');
  const env = { FOLDER: own.folder, THEN: 'churn', INSIDE: inside };
  const others = Array.from({ length: 6 }, () => lockers.start(env));
  // Each kills itself while it holds the lock; one that finds another inside reports it.
  expect(await Promise.all(others.map(({ ended }) => ended))).toEqual(Array(6).fill(null));
  expect(others.map(({ output }) => output).join('')).toBe('');
  expect(await holder(own.folder)).toBeUndefined();
  expect(await readdir(own.folder)).toEqual([]);
});

test.concurrent('the lock file of version 1.0.0 is deleted when its process is dead', async () => {
  const gone = (await runProgram('console.log(process.pid)')).output.trim();
  // An earlier process may have had this one's pid.
  await Promise.all(
    [gone, String(process.pid), '', 'no pid'].map(async (text) => {
      await using own = await newFolder();
      await writeFile(`${own.folder}.lock`, text);
      const unlock = await lockFolder(own.folder);
      expect(existsSync(`${own.folder}.lock`)).toBe(false);
      await unlock();
    }),
  );
});

describe('the lock file of version 1.0.0', () => {
  useFolder();

  const lockFile = () => `${folder}.lock`;

  test.each(['', '.clearing'])('is respected while its process lives (%s)', async (suffix) => {
    await writeFile(`${lockFile()}${suffix}`, String(process.ppid));
    expect(await holder()).toBe(process.ppid);
    await writeFile(`${lockFile()}${suffix}`, '');
    const locking = holder();
    await sleep(100);
    await writeFile(`${lockFile()}${suffix}`, '1');
    expect(await locking).toBe(1);
  });

  test('is not confused with a directory of the same name', async () => {
    await mkdir(lockFile());
    expect(await holder()).toBeUndefined();
    expect(existsSync(lockFile())).toBe(true);
  });
});

test('a Node error is recognised by its code, even under Jest, where it is not an instance of Error', () => {
  expect(codeOf(runInNewContext(`Object.assign(new Error(), { code: 'ENOENT' })`))).toBe('ENOENT');
  expect([codeOf(new Error('none')), codeOf(undefined)]).toEqual([undefined, undefined]);
});
