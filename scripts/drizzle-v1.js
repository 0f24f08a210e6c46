// The 1.0 candidate of Drizzle lives in a folder of its own, since it cannot stand beside 0.45 in one
// node_modules. It is installed where something asks for it first.
import { execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const drizzleV1 = fileURLToPath(new URL('../test/drizzle-v1/', import.meta.url));

/** Installs it where it is missing, and gives the folder's path. */
export function installDrizzleV1() {
  const done = `${drizzleV1}node_modules/.package-lock.json`;
  if (!existsSync(done)) {
    rmSync(`${drizzleV1}node_modules`, { recursive: true, force: true });
    execFileSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: drizzleV1,
      stdio: ['ignore', 'ignore', 'inherit'],
      shell: process.platform === 'win32',
    });
  }
  return drizzleV1;
}
