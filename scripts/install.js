// Some folders have packages of their own, which cannot stand in the repository's node_modules, or which
// few need. They are installed where something asks for them first: node scripts/install.js FOLDER
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));

/** Runs `npm ci` in a folder of the repository unless it has been run, and gives the folder's path. */
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
