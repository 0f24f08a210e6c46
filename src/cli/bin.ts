#!/usr/bin/env node
/**
 * The program `connect-drizzle`.
 *
 * @module
 */
import { main } from './main.js';

const { stdin, stdout, stderr, env } = process;

// `connect-drizzle list | head` closes the pipe.
stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : 1);
});

const code = await main(process.argv.slice(2), { stdin, stdout, stderr, env });
// Waits for pipes, which are written in the background. Exits, because a --config module may keep the process alive.
stdout.write('', () => stderr.write('', () => process.exit(code)));
