/**
 * The command watch: prints changes and log-outs.
 *
 * @module
 */

import { Deadlines } from '../batching/deadlines.js';
import { runDirect } from '../batching/direct.js';
import { isId } from '../session/id.js';
import { Realtime } from '../sync/realtime.js';
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS } from './arguments.js';
import type { Command, CommandContext } from './command.js';
import { type SessionDatabase, withSessions } from './database.js';

export const watch: Command = {
  name: 'watch',
  summary: 'Prints changes and log-outs as they happen',
  usage: [''],
  details:
    'Prints changes by stores with `sync` or `cache`, and by this program, but no touches.\n' +
    'Stop it with Ctrl-C. With --json, each line is an object.',
  options: { ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS },
  examples: ['connect-drizzle watch', 'connect-drizzle watch --jsonl | grep \'"destroy"\''],
  run: (context) => {
    context.args.noPositionals();
    return withSessions(context, { reads: true }, async (database) => {
      await follow(context, database);
      return undefined;
    });
  },
};

const HEARTBEAT_SECONDS = 5;

/** Prints until the signal is aborted, or the process is ended. */
async function follow(
  { out, io }: CommandContext,
  { driver, statements, channel, name, errorOf }: SessionDatabase,
): Promise<void> {
  const print = (event: string, id: string) => {
    const at = new Date();
    if (out.format === 'text') out.text(`${at.toISOString()}  ${event.padEnd(7)}  ${id}`);
    else out.lines([{ at, event, id }]);
  };
  const realtime = new Realtime({
    heartbeat: HEARTBEAT_SECONDS,
    connectionString: undefined,
    onMessage: ({ kind, body }) => {
      for (const id of body.split(',').filter(isId)) print(kind, id);
    },
    onState: (state) =>
      out.note(
        state === 'up'
          ? `Watching ${name}.`
          : 'The connection was lost. Events are missing until it is back.',
      ),
    onError: (message, error) => {
      const reason = error === undefined ? '' : `: ${errorOf(error).message}`;
      out.note(`${message}${reason}. Trying again.`);
    },
  });
  // Each heartbeat uses a new connection, because the command's connection may have been lost, too.
  const deadlines = new Deadlines(HEARTBEAT_SECONDS);
  realtime.start(async () => ({
    channel,
    listen: driver.listen,
    announce: (payload, onSend) =>
      deadlines.within((deadline) =>
        runDirect(driver, deadline, (on) => {
          onSend();
          return statements.notify(on, channel, payload);
        }),
      ),
  }));
  await stopped(io.signal);
  await realtime.close();
}

/** Waits for the signal. Keeps the process alive, because a listening connection does not. */
function stopped(signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const alive = setInterval(() => {}, 2 ** 30);
    const stop = () => {
      clearInterval(alive);
      resolve();
    };
    if (signal?.aborted) stop();
    signal?.addEventListener('abort', stop, { once: true });
  });
}
