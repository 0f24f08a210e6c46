#!/usr/bin/env node
/**
 * The benchmark that compares stores: `node bench/run.js --help`.
 *
 * Imports only modules of Node until it knows that the packages are installed.
 *
 * @module
 */
import { execSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { HELP, parseOptions } from './options.js';

const BENCH = fileURLToPath(new URL('.', import.meta.url));
const ROOT = fileURLToPath(new URL('..', import.meta.url));

const log = (/** @type {string} */ line) => process.stderr.write(`${line}\n`);

try {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) process.stdout.write(HELP);
  else await main(options);
} catch (error) {
  log(error.code?.startsWith('ERR_PARSE_ARGS') ? error.message : (error.stack ?? String(error)));
  process.exitCode = 1;
}

/** @param {ReturnType<typeof parseOptions>} options */
async function main(options) {
  install();
  const { runSections } = await import('./bench.js');
  const { readResult, writeResult } = await import('./result.js');
  const { describeResult } = await import('./report.js');

  const result = options.from ? await readResult(options.from) : await runSections(options, log);
  const json = `${JSON.stringify(result, null, 2)}\n`;
  process.stdout.write(options.json ? json : describeResult(result));
  if (options.writeDocs) {
    const { writeDocs } = await import('./docs.js');
    const kept = options.from ? result : await writeResult(result);
    for (const path of await writeDocs(kept)) log(`wrote ${path}`);
  }
}

/** Installs missing packages, and builds the store if necessary. */
function install() {
  const lock = `${BENCH}package-lock.json`;
  const installed = `${BENCH}node_modules/.package-lock.json`;
  if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs) {
    log('installing the contenders (npm ci)');
    execSync('npm ci --no-audit --no-fund', { cwd: BENCH, stdio: ['ignore', 2, 2] });
  }
  if (!existsSync(`${ROOT}dist/index.js`)) {
    log('building (npm run build)');
    try {
      execSync('npm run build', { cwd: ROOT, stdio: ['ignore', 2, 2] });
    } catch {
      log('the build failed: the peers run without connect-drizzle');
    }
  }
}
