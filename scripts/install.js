// Some folders have their own packages. These conflict with the packages of the repository, or are rarely needed.
// They are installed when they are first needed: node scripts/install.js FOLDER
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));

/** Runs `npm ci` in a folder of the repository, if it has not run yet. Returns the path of the folder. */
export function installIn(folder) {
  const path = join(root, folder);
  // npm writes this file last.
  if (!existsSync(join(path, 'node_modules/.package-lock.json'))) {
    execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: path,
      stdio: ['ignore', 'ignore', 'inherit'],
      shell: process.platform === 'win32',
    });
  }
  return path;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const folder of process.argv.slice(2)) installIn(folder);
}
