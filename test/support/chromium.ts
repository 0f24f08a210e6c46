import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { type Browser, chromium } from 'playwright-core';

const commands = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];
const folders = [
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
];

/** The path of Chromium: the one in `CHROMIUM`, or else one that is installed. */
export function findChromium(): string | undefined {
  const given = process.env.CHROMIUM;
  if (given) return given;
  for (const command of commands) {
    try {
      return execFileSync('which', [command], { encoding: 'utf8' }).trim();
    } catch {
      // Not installed under this name.
    }
  }
  return folders.find((path) => existsSync(path));
}

export function launchChromium(executablePath: string, args: string[] = []): Promise<Browser> {
  // The sandbox refuses to run as root, and containers often run as root.
  const sandbox = userInfo().uid === 0 ? ['--no-sandbox'] : [];
  return chromium.launch({ executablePath, args: [...sandbox, ...args] });
}
