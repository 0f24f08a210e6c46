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
// If notes cannot be written, the work goes on and the exit code stays.
stderr.on('error', () => {});

const code = await main(process.argv.slice(2), { stdin, stdout, stderr, env });
// If a file cannot be written, for example because the disk is full, the error is emitted later.
await setImmediate();
// Waits for pipes, which are written in the background. Exits, because a --config module may keep the process alive.
stdout.write('', () => stderr.write('', () => process.exit(code)));
