/**
 * Commands that read sessions: list, show, users, export.
 *
 * @module
 */
import type { SessionFacts } from '../queries/operations.js';
import { Codec, Unreadable } from '../session/codec.js';
import { type Arguments, CONNECTION_OPTIONS, OUTPUT_OPTIONS } from './arguments.js';
import type { Command } from './command.js';
import { type SessionDatabase, withSessions } from './database.js';
import { CliError, EXIT, usageError } from './exit.js';
import type { Column } from './output.js';

export const list: Command = {
  name: 'list',
  summary: 'Lists live sessions, newest log-in first',
  usage: ['[--user U] [--limit 50] [--after CURSOR]'],
  options: {
    user: { value: 'U', help: 'only sessions of this user' },
    limit: { value: 'N', help: 'maximum number of sessions (default: 50)' },
    after: {
      value: 'CURSOR',
      help: 'continue a list after this cursor, which the last list printed',
    },
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    'connect-drizzle list',
    'connect-drizzle list --user ada',
    'connect-drizzle list --limit 1000 --jsonl',
  ],
  run: (context) => {
    const { args, out } = context;
    args.noPositionals();
    const user = args.text('user');
    const limit = args.integer('limit', 50, 10_000);
    const before = cursorIn(args);
    return withSessions(context, { reads: true }, async ({ on, operations }) => {
      // One more than the limit, to know whether there are more.
      const found = await operations.newest(on, user, before, limit + 1);
      const sessions = found.slice(0, limit);
      const last = found.length > limit ? sessions.at(-1) : undefined;
      const next = last === undefined ? null : `${last.createdUs}.${last.id}`;
      out.list('sessions', sessions.map(publicFacts), COLUMNS, { next });
      if (next !== null && out.format !== 'json') out.note(`More: --after ${next}`);
      return undefined;
    });
  },
};

const COLUMNS: readonly Column<PublicFacts>[] = [
  { title: 'id', text: ({ id }) => id },
  { title: 'user', text: ({ userId }) => userId },
  { title: 'created', text: ({ createdAt }) => createdAt },
  { title: 'last seen', text: ({ lastSeenAt }) => lastSeenAt },
  { title: 'expires', text: ({ expiresAt }) => expiresAt },
];

/** A cursor is the position of the last session that was shown. */
function cursorIn(args: Arguments): { createdUs: string; id: string } | undefined {
  const text = args.text('after');
  if (text === undefined) return undefined;
  const [, createdUs, id] = /^(-?\d{1,18})\.(.+)$/s.exec(text) ?? [];
  if (createdUs === undefined || id === undefined) {
    throw usageError('--after must be a cursor that a list has printed');
  }
  return { createdUs, id };
}

export const show: Command = {
  name: 'show',
  summary: 'Shows one session',
  usage: ['ID [--data]'],
  details: 'Prints the content of the session only with --data. If it is encrypted, add --config.',
  options: {
    data: { help: 'print the content of the session' },
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    'connect-drizzle show -Nq0vsrQiK2ubcvG2yTB3ahWGbRC1ukQbqhaqZSI1kk',
    'connect-drizzle show -Nq0vsrQiK2ubcvG2yTB3ahWGbRC1ukQbqhaqZSI1kk --data --config session-options.js',
  ],
  run: (context) => {
    const { args, out } = context;
    const [id, ...others] = args.ids();
    if (id === undefined || others.length > 0) throw usageError('show takes one id');
    return withSessions(context, { reads: true }, async (database) => {
      const { on, operations } = database;
      const facts = await operations.one(on, id);
      if (facts === undefined) throw new CliError(EXIT.failed, `There is no session ${id}`);
      const state = stateOf(facts);
      const shown = publicFacts(facts);
      const data =
        args.flag('data') && state !== 'revoked' ? await dataOf(database, id) : undefined;
      out.record({ ...shown, state, ...(data === undefined ? {} : { data }) }, [
        ['id', id],
        ['state', state],
        ['user', shown.userId],
        ['created', shown.createdAt],
        ['last seen', shown.lastSeenAt],
        [state === 'revoked' ? 'kept until' : 'expires', shown.expiresAt],
        ...(shown.revokedAt === null ? [] : [['revoked', shown.revokedAt] as const]),
        ...(shown.bytes === null ? [] : [['bytes', shown.bytes] as const]),
      ]);
      if (data !== undefined && out.format === 'text') out.value(data);
      return undefined;
    });
  },
};

async function dataOf({ on, operations, settings }: SessionDatabase, id: string) {
  const stored = await operations.dataOf(on, id);
  if (stored === undefined) throw new CliError(EXIT.failed, `The session ${id} has ended`);
  try {
    return readerOf(settings)(id, stored);
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    throw new CliError(EXIT.failed, `The session ${id} cannot be read: ${error.message}`);
  }
}

/** Returns a function that reads the stored form of sessions, with the keys and the serializer of --config. */
function readerOf({ serializer, encryptionKeys }: SessionDatabase['settings']) {
  const codec = new Codec(serializer, encryptionKeys);
  return (id: string, stored: string) => ({ ...codec.parse(codec.unseal(id, stored)) });
}

export const users: Command = {
  name: 'users',
  summary: 'Lists the users with the most live sessions',
  usage: ['[--top 20]'],
  options: {
    top: { value: 'N', help: 'how many users (default: 20)', fallback: '20' },
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: ['connect-drizzle users --top', 'connect-drizzle users --top 100 --jsonl'],
  run: (context) => {
    const { args, out } = context;
    args.noPositionals();
    const limit = args.integer('top', 20, 10_000);
    return withSessions(context, { reads: true }, async ({ on, operations }) => {
      const found = await operations.topUsers(on, limit);
      const items = found.map((each) => ({ ...each, lastSeenAt: new Date(each.lastSeenAt) }));
      out.list('users', items, [
        { title: 'user', text: ({ userId }) => userId },
        { title: 'sessions', text: ({ sessions }) => sessions, isNumber: true },
        { title: 'last seen', text: ({ lastSeenAt }) => lastSeenAt },
      ]);
      return undefined;
    });
  },
};

/** Few, because a session may have many megabytes. */
const EXPORT_PAGE = 10;

export const exportUser: Command = {
  name: 'export',
  summary: 'Prints everything stored about a user, as JSON',
  usage: ['--user U'],
  details:
    'Prints every session of the user with its data, including expired ones that are not deleted yet.\n' +
    'If sessions are encrypted, add --config. If a session cannot be read, the exit code is 1.',
  options: {
    user: { value: 'U', help: 'the user' },
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    'connect-drizzle export --user ada > ada.json',
    'connect-drizzle export --user ada --jsonl --config session-options.js',
  ],
  run: (context) => {
    const { args, out } = context;
    args.noPositionals();
    const user = args.text('user');
    if (user === undefined) throw usageError('export needs --user');
    return withSessions(context, { reads: true }, async (database) => {
      let unreadable = 0;
      const sessions = storedOf(database, user, (id, { message }) => {
        unreadable += 1;
        out.note(`The session ${id} cannot be read: ${message}`);
      });
      await out.longList({ user, exportedAt: new Date() }, 'sessions', sessions);
      return unreadable > 0 ? EXIT.failed : undefined;
    });
  },
};

/** Yields every stored session of a user, also expired ones. */
async function* storedOf(
  { on, operations, settings }: SessionDatabase,
  user: string,
  onUnreadable: (id: string, error: Unreadable) => void,
) {
  const read = readerOf(settings);
  for (let after = ''; ; ) {
    const page = await operations.ofUser(on, user, after, EXPORT_PAGE);
    for (const { data: stored, ...facts } of page) {
      let data: object | null = null;
      try {
        data = read(facts.id, stored);
      } catch (error) {
        if (!(error instanceof Unreadable)) throw error;
        onUnreadable(facts.id, error);
      }
      yield { ...publicFacts(facts), state: stateOf(facts), data };
    }
    const last = page.at(-1);
    if (last === undefined || page.length < EXPORT_PAGE) return;
    after = last.id;
  }
}

type State = 'live' | 'expired' | 'revoked';

export function stateOf({ revokedAt, expiresAt }: SessionFacts): State {
  if (revokedAt !== null) return 'revoked';
  return expiresAt > Date.now() ? 'live' : 'expired';
}

type PublicFacts = ReturnType<typeof publicFacts>;

/** Returns the printed fields of a session, with the names of `store.sessions()`. */
function publicFacts({
  id,
  userId,
  createdAt,
  lastSeenAt,
  expiresAt,
  revokedAt,
  bytes,
}: SessionFacts) {
  return {
    id,
    userId,
    createdAt: new Date(createdAt),
    lastSeenAt: new Date(lastSeenAt),
    expiresAt: new Date(expiresAt),
    revokedAt: revokedAt === null ? null : new Date(revokedAt),
    bytes,
  };
}
