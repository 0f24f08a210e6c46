#!/usr/bin/env node
/**
 * The program `connect-drizzle`.
 *
 * @module
 */
import { setImmediate } from 'node:timers/promises';
import { EXIT } from './exit.js';
import { main } from './main.js';

const { stdin, stdout, stderr, env } = process;

stdout.on('error', ({ code, message }: NodeJS.ErrnoException) => {
  // `connect-drizzle list | head` closes the pipe.
  if (code === 'EPIPE') process.exit(EXIT.ok);
  stderr.write(`connect-drizzle: the output cannot be written: ${message}\n`, () => {
    process.exit(EXIT.failed);
  });
});
// Notes are lost if nobody reads them, but the work and its exit code are not.
stderr.on('error', () => {});

const code = await main(process.argv.slice(2), { stdin, stdout, stderr, env });
// The error of a write to a file, such as that of a full disk, is emitted later.
await setImmediate();
// Waits for pipes, which are written in the background. Exits, because a --config module may keep the process alive.
stdout.write('', () => stderr.write('', () => process.exit(code)));
