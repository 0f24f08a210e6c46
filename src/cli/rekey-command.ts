/**
 * The command rekey: encrypts the table, or moves it to the newest key.
 *
 * @module
 */
import { Codec } from '../session/codec.js';
import { rekeyAll } from '../session/rekey.js';
import { BULK_OPTIONS, CONNECTION_OPTIONS, OUTPUT_OPTIONS } from './arguments.js';
import type { Command } from './command.js';
import { withSessions } from './database.js';
import { EXIT, usageError } from './exit.js';
import { agreed, sessionsText } from './revoke-commands.js';

/** Maximum number of unreadable sessions to print; the others are only counted. */
const MAX_NAMED = 20;

export const rekeyTable: Command = {
  name: 'rekey',
  summary: 'Encrypts all sessions with the first key of --config',
  usage: ['--config FILE'],
  details:
    "FILE exports the store's options with `encryptionKeys`: the new key first, then the older ones, and\n" +
    "'plaintext' instead of a key if there are sessions that are not encrypted. Every app that uses the\n" +
    'table must already have the new key. No user is logged out. If you stop it, run it again.',
  options: { ...BULK_OPTIONS, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS },
  examples: [
    'connect-drizzle rekey --config session-options.js --dry-run',
    'connect-drizzle rekey --config session-options.js --yes',
  ],
  run: (context) => {
    const { args, out, io } = context;
    args.noPositionals();
    return withSessions(context, { reads: false }, async (database) => {
      const { on, statements, settings, name } = database;
      const { serializer, encryptionKeys } = settings;
      if (encryptionKeys.length === 0) {
        throw usageError('rekey needs --config with encryptionKeys');
      }
      const codec = new Codec(serializer, encryptionKeys);
      const found = await statements.countStored(on, codec.currentPrefix);
      const sessions = sessionsText(found);
      if (args.flag('dry-run')) {
        const text = `${sessions} ${found === 1 ? 'is' : 'are'} not encrypted with the first key.`;
        out.result({ dryRun: true, found }, text);
        return undefined;
      }
      await agreed(context, `Encrypt ${sessions} in ${name} with the first key?`);
      const progress = out.progress('Encrypting', found);
      const unreadable: string[] = [];
      const result = await rekeyAll({
        codec,
        list: (prefix, after, limit) => statements.listStored(on, prefix, after, limit),
        reseal: (rows) => statements.reseal(on, rows),
        onUnreadable: (id, { message }) => {
          if (unreadable.length < MAX_NAMED) unreadable.push(`${id}: ${message}`);
        },
        onProgress: (count) => progress.add(count),
        signal: io.signal ?? new AbortController().signal,
      }).finally(() => progress.end());
      for (const each of unreadable) out.note(`Cannot read the session ${each}`);
      const rest = result.unreadable === 0 ? '' : ` ${result.unreadable} cannot be read.`;
      const text = `Encrypted ${sessionsText(result.rekeyed)}.${rest}`;
      out.result({ dryRun: false, ...result }, text);
      return result.unreadable > 0 ? EXIT.failed : undefined;
    });
  },
};
