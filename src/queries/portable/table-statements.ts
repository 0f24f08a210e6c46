/**
 * The statements for any engine that end or delete many rows. They read ids, and then write one row at a time by its
 * primary key. Rows that another transaction has locked are busy.
 *
 * @module
 */
import { and, asc, desc, eq, lte, ne, type SQL, sql } from 'drizzle-orm';
import type { Connection } from '../../drivers/driver.js';
import { command, db, statement } from '../compile.js';
import type { Ended, TableStatements } from '../contract.js';
import type { StatementSettings } from '../fragments.js';
import type { OneRow } from '../one-row.js';
import type { RekeyStatements } from '../rekeying.js';
import type { ReadClock } from '../server-time.js';
import { integer, now, text } from '../sql.js';
import {
  announcer,
  type PortableFragments,
  timeOfMicroseconds,
  unlessBusy,
  writeValues,
} from './fragments.js';

/** How often a log-in raises `last_seen_at` of its session before it leaves its lane to others. */
const MAX_MOVES = 3;

/** Rows that one call of a statement changes, one by one. The call holds its lane during that time. */
const ROWS_PER_CALL = 100;

type PortableTableStatements = Pick<TableStatements, 'clear' | 'endUser' | 'endBeyond' | 'prune'> &
  Pick<RekeyStatements, 'reseal'>;

export function portableTableStatements(
  settings: StatementSettings,
  f: PortableFragments,
  one: OneRow,
  readClock: ReadClock,
): PortableTableStatements {
  const { rows: t, prepared } = settings;
  const announce = announcer(settings);

  const anyIds = statement('any_ids_any_engine', prepared, ['limit'], () =>
    db.select({ id: t.id }).from(t).where(f.isOurs).limit(sql.placeholder('limit')),
  );

  const remove = command('clear_any_engine', prepared, ['id', 'until'], (p) =>
    db.delete(t).where(f.rowInTime(p.until, f.isOurs)),
  );

  // The owner is last: a table of another package may have another type for it, which would then be the reported error.
  const ofUser = and(f.isNotEnded, eq(t.userId, f.userParameter));

  const idsOfUser = statement('user_ids_any_engine', prepared, ['user', 'except', 'limit'], (p) =>
    db
      .select({ id: t.id })
      .from(t)
      .where(and(ofUser, ne(t.id, p.except)))
      .limit(sql.placeholder('limit')),
  );

  const rankedOfUser = statement('ranked_any_engine', prepared, ['user', 'now'], () =>
    db
      .select({ id: t.id, seen: text(f.microsecondsOf(t.lastSeenAt)).as('seen_us') })
      .from(t)
      .where(and(f.isLive, ofUser))
      .orderBy(desc(t.lastSeenAt), asc(t.id)),
  );

  const moveUp = command('move_up_any_engine', prepared, ['id', 'seen', 'until'], (p) =>
    db
      .update(t)
      .set({ lastSeenAt: timeOfMicroseconds(p.seen) })
      .where(f.rowInTime(p.until, f.isNotEnded)),
  );

  const endRanked = command(
    'end_ranked_any_engine',
    prepared,
    ['id', 'seen', 'now', 'step', 'at', 'until'],
    (p) =>
      db
        .update(t)
        .set(f.tombstoneColumns(p))
        .where(f.rowInTime(p.until, f.isLive, eq(t.lastSeenAt, timeOfMicroseconds(p.seen)))),
  );

  const isDue = (...others: SQL[]) => and(...others, lte(t.expiresAt, now), f.isOurs);
  const expiredIds = statement('expired_ids_any_engine', false, ['limit'], () =>
    db
      .select({ id: t.id })
      .from(t)
      .where(isDue(lte(t.expiresHour, now)))
      .limit(sql.placeholder('limit')),
  );
  const prune = command('prune_any_engine', prepared, ['id'], (p) =>
    db.delete(t).where(and(isDue(eq(t.id, p.id)), f.waitsBriefly)),
  );

  const reseal = command('reseal_any_engine', prepared, ['id', 'version', 'created', 'data'], (p) =>
    db
      .update(t)
      .set({ data: f.stored(p.data) })
      .where(
        and(
          eq(t.id, p.id),
          f.isNotEnded,
          eq(t.version, integer(p.version)),
          eq(t.createdAt, timeOfMicroseconds(p.created)),
          f.waitsBriefly,
        ),
      ),
  );

  /**
   * Ends or deletes rows one by one. `endOne` returns whether it ended a live session; `undefined` if the row is busy, or
   * if the deadline seemed to have passed because the server's clock was set.
   */
  const endEach = async (
    on: Connection,
    ids: readonly string[],
    endOne: (id: string) => Promise<boolean | undefined>,
  ): Promise<Ended> => {
    const ended: string[] = [];
    let busy = ids.length >= ROWS_PER_CALL;
    for (const id of ids) {
      const isEnded = await endOne(id);
      if (isEnded === undefined) {
        busy = true;
        on.clock.forget();
      } else if (isEnded) ended.push(id);
    }
    return { ended, busy };
  };

  const limit = String(ROWS_PER_CALL);

  return {
    clear: async (on, times) => {
      await readClock(on);
      const ids = (await anyIds(on, { limit })).map(({ id }) => id);
      return endEach(on, ids, async (id) => {
        const removed = await unlessBusy(remove(on, { id, ...writeValues(on, times) }));
        if (removed !== 1) return undefined;
        await announce(on, 'd', [id]);
        return true;
      });
    },
    endUser: async (on, times, user, except) => {
      await readClock(on);
      const ids = (await idsOfUser(on, { user, except, limit })).map(({ id }) => id);
      return endEach(on, ids, async (id) => {
        if (await unlessBusy(one.endLive(on, id, times))) return true;
        return (await unlessBusy(one.endExpired(on, id, times))) ? false : undefined;
      });
    },
    /**
     * No statement can lock all sessions of a user here. Instead, a session must be among the newest `keep` when its log-in
     * ends others. If it is not, because others have been used since, the log-in raises its `last_seen_at` first. It ends
     * only sessions that were not used since it read them. So two log-ins at once cannot end each other: the one that read
     * last has raised its `last_seen_at` since the other one read.
     */
    endBeyond: async (on, times, user, id, keep, at) => {
      const atNow = String(at);
      for (let moves = 0; ; moves += 1) {
        await readClock(on);
        const ranked = await rankedOfUser(on, { user, now: atNow });
        const rank = ranked.findIndex((row) => row.id === id);
        // Ended by another log-in, or by the user.
        if (rank === -1 || ranked.length <= keep) return { ended: [], busy: false };
        if (rank < keep) {
          const surplus = ranked.slice(keep);
          const seenOf = new Map(surplus.map((row) => [row.id, row.seen]));
          return endEach(on, [...seenOf.keys()], async (other) => {
            const seen = seenOf.get(other) ?? null;
            const values = { id: other, seen, now: atNow, ...writeValues(on, times) };
            if ((await unlessBusy(endRanked(on, values))) !== 1) return undefined;
            await announce(on, 'd', [other]);
            return true;
          });
        }
        if (moves === MAX_MOVES) return { ended: [], busy: true };
        const seen = String(Number(ranked[0]?.seen) + 1);
        const moved = await unlessBusy(moveUp(on, { id, seen, ...writeValues(on, times) }));
        if (moved !== 1) on.clock.forget();
      }
    },
    prune: async (on, most) => {
      const pageRows = String(Math.min(most, 5 * ROWS_PER_CALL));
      let pruned = 0;
      for (const { id } of await expiredIds(on, { limit: pageRows })) {
        pruned += (await unlessBusy(prune(on, { id }))) ?? 0;
      }
      return pruned;
    },
    reseal: async (on, rows) => {
      const done = new Set<string>();
      for (const { id, version, createdAt, data } of rows) {
        const values = { id, version: String(version), created: String(createdAt), data };
        if ((await unlessBusy(reseal(on, values))) === 1) done.add(id);
      }
      return done;
    },
  };
}
