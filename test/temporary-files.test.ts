/** Test runs leave nothing in the temporary folder. */
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { launch } from './support/example.js';
import { hasSpaceInMemory, memoryFolder, processesIn } from './support/run-folder.js';

const root = fileURLToPath(new URL('../', import.meta.url));

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'connect-drizzle-interrupted-'));
  // If the tests run as root, the servers run as another user.
  await chmod(folder, 0o711);
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Starts a test run with its temporary files in a folder. Resolves when it has servers, files and a waiting test. */
async function startRun(parent = folder) {
  const vitest = join(root, 'node_modules/vitest/vitest.mjs');
  const run = launch(process.execPath, [vitest, 'run', '--root', 'test/support/interrupted'], {
    env: { TMPDIR: parent, TEST_DATABASE_URL: '' },
  });
  await run.until(/It waits now/);
  return run;
}

test.each(['SIGINT', 'SIGTERM'] as const)(
  'a run that is interrupted by %s leaves no file and no process',
  async (signal) => {
    const run = await startRun();
    expect(await readdir(folder)).toHaveLength(1);
    expect(await run.stop(signal)).not.toBe(0);
    expect(await readdir(folder)).toEqual([]);
    expect(processesIn(folder)).toEqual([]);
  },
);

test('a run without TMPDIR has its files in memory if there is space, and leaves none', async () => {
  const run = await startRun('');
  const parent = hasSpaceInMemory() ? memoryFolder : '/tmp';
  const files = async () => (await readdir(parent)).filter((name) => name.includes(`-${run.pid}-`));
  expect(await files()).toHaveLength(1);
  await run.stop();
  expect(await files()).toEqual([]);
});

test.runIf(process.platform === 'linux')(
  'a run removes the files and processes of a run that was killed, and nothing else',
  async () => {
    const killed = await startRun();
    const [left = ''] = await readdir(folder);
    await killed.stop('SIGKILL');
    expect(await readdir(folder)).toEqual([left]);
    expect(processesIn(join(folder, left))).not.toEqual([]);

    const others = ['connect-drizzle-run-', 'connect-drizzle-run-notes', 'something-else'];
    for (const name of others) await mkdir(join(folder, name));
    await writeFile(join(folder, 'something-else', 'file'), 'text');
    // The folder of a run that is still running.
    const running = `connect-drizzle-run-${process.pid}-abcdef`;
    await mkdir(join(folder, running));

    const next = await startRun();
    expect(await readdir(folder)).not.toContain(left);
    expect(processesIn(join(folder, left))).toEqual([]);
    await next.stop();
    expect((await readdir(folder)).sort()).toEqual([...others, running].sort());
  },
);
