/**
 * Commands that end sessions: revoke, prune.
 *
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Criteria, SessionFacts } from '../queries/operations.js';
import { type Backoff, backoffMs } from '../util/backoff.js';
import { monotonicMs } from '../util/clock.js';
import {
  type Arguments,
  BULK_OPTIONS,
  CONNECTION_OPTIONS,
  OUTPUT_OPTIONS,
  WRITE_OPTIONS,
} from './arguments.js';
import type { Command, CommandContext } from './command.js';
import { requirePostgres, type SessionDatabase, withSessions } from './database.js';
import { CliError, EXIT, type ExitCode, usageError } from './exit.js';
import { stateOf } from './session-commands.js';

/** Number of sessions that one statement ends. */
const ROWS_PER_STATEMENT = 2000;

/** Time limit for a statement to reach the server. */
const STATEMENT_MS = 30_000;

/** Maximum number of consecutive statements that find only sessions locked by other transactions. */
const MAX_RETRIES = 20;
const BACKOFF: Backoff = { firstMs: 50, longestMs: 2000 };

export const revoke: Command = {
  name: 'revoke',
  summary: 'Logs sessions out',
  usage: [
    'ID…',
    '--user U [--keep ID | --except-newest]',
    '--all [--created-before T] [--created-since T] [--seen-since T]',
  ],
  details:
    'T is a time, such as 2026-05-04T14:00:00Z, or 14:00 for today. Without Z, it is local.\n' +
    'It does not end sessions that are created while it runs.\n' +
    'Stores with `sync` or `cache` are notified at once.',
  options: {
    user: { value: 'U', help: 'the sessions of this user' },
    keep: { value: 'ID', help: 'with --user: except this session' },
    'except-newest': { help: 'with --user: except the newest one' },
    all: { help: 'the sessions of all users, and anonymous ones' },
    'created-before': { value: 'T', help: 'only sessions created before this time' },
    'created-since': { value: 'T', help: 'only sessions created at or after this time' },
    'seen-since': { value: 'T', help: 'only sessions that were used at or after this time' },
    ...BULK_OPTIONS,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  examples: [
    'connect-drizzle revoke -Nq0vsrQiK2ubcvG2yTB3ahWGbRC1ukQbqhaqZSI1kk',
    'connect-drizzle revoke --user ada --except-newest',
    'connect-drizzle revoke --all --created-before 14:00 --dry-run',
    'connect-drizzle revoke --all --yes',
  ],
  run: (context) => {
    const { args } = context;
    const ids = args.ids();
    const target = targetOf(args, ids);
    return withSessions(context, { reads: false }, (database) =>
      target === 'ids'
        ? revokeIds(context, database, ids)
        : revokeMatching(context, database, target),
    );
  },
};

/** Returns what to revoke. @throws {CliError} unless the arguments are exactly one of ids, --user and --all */
function targetOf(args: Arguments, ids: readonly string[]): 'ids' | Criteria {
  const userId = args.text('user');
  const isAll = args.flag('all');
  const forms = [ids.length > 0, userId !== undefined, isAll].filter(Boolean).length;
  if (forms !== 1) throw usageError('revoke takes either ids, --user or --all');
  const exceptId = args.id('keep');
  const exceptNewest = args.flag('except-newest');
  if (userId === undefined && (exceptId !== undefined || exceptNewest)) {
    throw usageError('--keep and --except-newest need --user');
  }
  if (exceptId !== undefined && exceptNewest) {
    throw usageError('--keep and --except-newest exclude each other');
  }
  const times = {
    createdBefore: args.time('created-before'),
    createdSince: args.time('created-since'),
    seenSince: args.time('seen-since'),
  };
  if (ids.length === 0) return { userId, exceptId, ...times };
  if (Object.values(times).some((time) => time !== undefined)) {
    throw usageError('--created-before, --created-since and --seen-since need --user or --all');
  }
  return 'ids';
}

async function revokeIds(
  { args, out }: CommandContext,
  { on, operations, statements }: SessionDatabase,
  ids: readonly string[],
): Promise<ExitCode | undefined> {
  const isDry = args.flag('dry-run');
  const revoked: string[] = [];
  const notLive: string[] = [];
  for (const id of ids) {
    const isLive = isDry
      ? (await stateIn(operations.one(on, id))) === 'live'
      : (await untilFree(async () => {
          const beganMs = monotonicMs();
          const times = { beganMs, atMs: beganMs + STATEMENT_MS };
          const [outcome] = await statements.end(on, [id], [times]);
          return outcome === 'busy' ? undefined : outcome;
        })) === 'done';
    (isLive ? revoked : notLive).push(id);
  }
  const text = [
    `${isDry ? 'Would revoke' : 'Revoked'} ${sessionsText(revoked.length)}.`,
    ...notLive.map((id) => `There is no live session ${id}.`),
  ].join('\n');
  out.result({ dryRun: isDry, revoked: revoked.length, notLive }, text);
  return revoked.length === 0 ? EXIT.failed : undefined;
}

async function stateIn(reading: Promise<SessionFacts | undefined>) {
  const facts = await reading;
  return facts && stateOf(facts);
}

async function revokeMatching(
  context: CommandContext,
  database: SessionDatabase,
  wanted: Criteria,
): Promise<ExitCode | undefined> {
  const { args, out } = context;
  const { on, operations, name } = database;
  const isDry = args.flag('dry-run');
  if (!isDry) {
    requirePostgres(database, 'revoking many sessions at once (a store has revokeUser())');
  }
  // Before the question, which may wait for its answer for a long time.
  const existing = isDry ? wanted : await untilNow(database, wanted);
  const criteria = args.flag('except-newest') ? await exceptNewest(database, existing) : existing;
  const found = await operations.countMatching(on, criteria);
  const ofUser = criteria.userId === undefined ? '' : ` of ${criteria.userId}`;
  if (isDry) {
    out.result({ dryRun: true, revoked: found }, `Would revoke ${sessionsText(found)}${ofUser}.`);
    return undefined;
  }
  await agreed(context, `Revoke ${sessionsText(found)}${ofUser} in ${name}?`);
  const progress = out.progress('Revoking', found);
  let revoked = 0;
  try {
    revoked = await endAll(database, criteria, (count) => progress.add(count));
  } finally {
    progress.end();
  }
  out.result({ dryRun: false, revoked }, `Revoked ${sessionsText(revoked)}${ofUser}.`);
  return undefined;
}

/**
 * Excludes sessions that are created from now on. On a busy site there are always some, so the command would never end,
 * and would log users out again who have just logged in.
 */
async function untilNow(
  { on, operations }: SessionDatabase,
  criteria: Criteria,
): Promise<Criteria> {
  const end = await operations.endOfCreation(on, criteria);
  return { ...criteria, createdBefore: Math.min(criteria.createdBefore ?? end, end) };
}

/** Excludes the user's newest session, and any that is created later, because it would then be the newest. */
async function exceptNewest(
  { on, operations }: SessionDatabase,
  criteria: Criteria,
): Promise<Criteria> {
  const [newest] = await operations.newest(on, criteria.userId, undefined, 1);
  if (newest === undefined) return criteria;
  const createdBefore = Math.min(
    criteria.createdBefore ?? Number.POSITIVE_INFINITY,
    newest.createdAt + 1,
  );
  return { ...criteria, exceptId: newest.id, createdBefore };
}

/** Ends all sessions that match. Returns how many live ones there were. */
async function endAll(
  { on, operations }: SessionDatabase,
  criteria: Criteria,
  onEnded: (count: number) => void,
): Promise<number> {
  let total = 0;
  await untilFree(async () => {
    for (let after = ''; ; ) {
      const { ended, last } = await operations.endMatching(on, criteria, after, ROWS_PER_STATEMENT);
      total += ended.length;
      onEnded(ended.length);
      if (last === null) break;
      after = last;
    }
    // Other transactions have locked the remaining ones.
    return (await operations.countMatching(on, criteria)) === 0 ? true : undefined;
  });
  return total;
}

/** Tries again while others have locked the rows. @throws {CliError} if they lock them for too long */
export async function untilFree<T>(attempt: () => Promise<T | undefined>): Promise<T> {
  for (let tries = 0; tries < MAX_RETRIES; tries += 1) {
    const result = await attempt();
    if (result !== undefined) return result;
    await delay(backoffMs(tries, BACKOFF));
  }
  throw new CliError(
    EXIT.failed,
    'Other transactions have locked some of the sessions. Run the command again when they have ended',
  );
}

export const prune: Command = {
  name: 'prune',
  summary: 'Deletes expired sessions',
  usage: ['[--dry-run]'],
  details:
    'A store does this by itself every 15 minutes (`pruneSessionInterval`). With\n' +
    '`pruneSessionInterval: false` in the apps, run this from cron.',
  options: { ...WRITE_OPTIONS, ...CONNECTION_OPTIONS, ...OUTPUT_OPTIONS },
  examples: ['connect-drizzle prune', 'connect-drizzle prune --dry-run --json'],
  run: (context) => {
    const { args, out } = context;
    args.noPositionals();
    return withSessions(context, { reads: false }, async ({ on, operations, statements }) => {
      const due = await operations.countDue(on);
      if (args.flag('dry-run')) {
        out.result({ dryRun: true, deleted: due }, `Would delete ${rows(due)}.`);
        return undefined;
      }
      const progress = out.progress('Deleting', due);
      let deleted = 0;
      for (let count = 1; count > 0; ) {
        count = await statements.prune(on, PRUNED_PER_STATEMENT);
        deleted += count;
        progress.add(count);
      }
      progress.end();
      out.result({ dryRun: false, deleted }, `Deleted ${rows(deleted)}.`);
      return undefined;
    });
  },
};

const PRUNED_PER_STATEMENT = 5000;

/** Asks before a bulk write. @throws {CliError} unless the user agrees, with --yes or on the terminal */
export async function agreed({ args, out }: CommandContext, question: string): Promise<void> {
  if (args.flag('yes')) return;
  if (!out.isInteractive) {
    throw usageError(`${question} Pass --yes to agree, or --dry-run to see what would be done`);
  }
  if (!(await out.confirm(question))) throw new CliError(EXIT.failed, 'Nothing was changed');
}

export function sessionsText(count: number): string {
  return `${count.toLocaleString('en-US')} session${count === 1 ? '' : 's'}`;
}

function rows(count: number): string {
  return `${count.toLocaleString('en-US')} row${count === 1 ? '' : 's'}`;
}
