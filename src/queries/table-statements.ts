/**
 * Statements about more than one session: listing, counting, ending many sessions, pruning, notifications.
 *
 * @module
 */
import {
  and,
  asc,
  count,
  desc,
  eq,
  gt,
  inArray,
  lte,
  ne,
  not,
  notInArray,
  type Placeholder,
  type SQL,
  sql,
} from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { monotonicMs } from '../util/clock.js';
import { READ_ONLY } from '../util/sql-states.js';
import { db, statement } from './compile.js';
import type { Ended, TableStatements } from './contract.js';
import { type FragmentSettings, type Fragments, skipLocked } from './fragments.js';
import { type ReadClock, untilOf } from './server-time.js';
import {
  anyOf,
  clockMs,
  costly,
  integer,
  isBefore,
  joinedText,
  notify,
  now,
  parameter,
  scalar,
  text,
} from './sql.js';
import { type CallTimes, split, storedRow } from './wire.js';

/** A scalar subquery, so that it runs once and the planner ignores it. */
const isInTime = (until: SQL) => sql`(select ${isBefore(until)})`;

const clock = text(clockMs);

/** Rows that one statement ends or deletes. It then takes much less than a second. */
const ROWS_PER_STATEMENT = 1000;

export function tableStatements(
  settings: FragmentSettings,
  f: Fragments,
  readClock: ReadClock,
): TableStatements {
  const { rows: t, prepared } = settings;

  /** Deletes rows that are not locked. Compares `tableoid`, because each partition of a table has a row at the same `ctid`. */
  const deletion = (condition: SQL | undefined, limit: number | Placeholder) => {
    const locked = db
      .$with('locked')
      .as(db.select(f.place).from(t).where(condition).limit(limit).for('update', skipLocked));
    const places = db.select({ tableoid: locked.tableoid, ctid: locked.ctid }).from(locked);
    const deleted = db.$with('deleted').as(
      db
        .delete(t)
        .where(
          and(
            eq(t.ctid, anyOf(db.select({ ctid: locked.ctid }).from(locked))),
            sql`(${t.tableoid}, ${t.ctid}) in ${places}`,
          ),
        )
        .returning({ id: t.id }),
    );
    return { locked, deleted };
  };

  const clear = statement('clear', prepared, ['until'], (p) => {
    const { locked, deleted: cleared } = deletion(
      and(f.isOurs, isInTime(p.until)),
      ROWS_PER_STATEMENT,
    );
    const { announced, isAnnounced } = f.announcement('d', cleared);
    const left = db
      .select({ id: t.id })
      .from(t)
      .where(notInArray(t.id, db.select({ id: cleared.id }).from(cleared)))
      .limit(1);
    return db
      .with(locked, cleared, ...announced)
      .select({ done: joinedText(cleared.id), busy: scalar<string | null>(left), clock })
      .from(cleared)
      .where(isAnnounced);
  });

  const ofUser = and(eq(t.userId, f.userParameter), costly(t.id), f.isNotEnded);

  const endUser = statement('end_user', prepared, ['user', 'except', 'now', 'until'], (p) => {
    const others = and(ofUser, ne(t.id, p.except));
    const locked = f.lockEnding(and(others, isInTime(p.until)), ROWS_PER_STATEMENT);
    const { ended, done, announced, isAnnounced } = f.ending(locked);
    const left = db
      .select({ id: t.id })
      .from(t)
      .where(and(others, notInArray(t.id, db.select({ id: ended.id }).from(ended))))
      .limit(1);
    return db
      .with(locked, ended, ...announced)
      .select({ done, busy: scalar<string | null>(left), clock })
      .from(ended)
      .where(isAnnounced);
  });

  // Locks all sessions of the user before it decides. So two log-ins at once cannot end each other: one of them finds rows
  // that it cannot lock, or that the other has ended.
  const endBeyond = statement(
    'end_beyond',
    prepared,
    ['user', 'id', 'keep', 'now', 'until'],
    (p) => {
      const isLiveOfUser = and(ofUser, f.isLive);
      const locked = f.lockEnding(and(isLiveOfUser, isInTime(p.until)));
      const all = db.select({ count: count() }).from(t).where(isLiveOfUser);
      const isIncomplete = sql`${scalar(db.select({ count: count() }).from(locked))} <> ${scalar(all)}`;
      const ranked = db.$with('ranked').as(
        db
          .select({
            id: locked.id,
            // The caller's own session is first, so that it never ends.
            rank: sql<number>`row_number() over (order by ${desc(eq(locked.id, p.id))}, ${desc(locked.lastSeenAt)}, ${asc(locked.id)})`.as(
              'rank',
            ),
          })
          .from(locked),
      );
      const surplus = db.$with('surplus').as(
        db
          .select({ id: ranked.id })
          .from(ranked)
          .where(
            and(sql`${ranked}.rank > ${integer(p.keep)}`, ne(ranked.id, p.id), not(isIncomplete)),
          ),
      );
      const { ended, done, announced, isAnnounced } = f.ending(
        locked,
        inArray(locked.id, db.select({ id: surplus.id }).from(surplus)),
      );
      const wanted = scalar(db.select({ count: count() }).from(surplus));
      return db
        .with(locked, ranked, surplus, ended, ...announced)
        .select({
          done,
          busy: sql<
            string | null
          >`case when ${isIncomplete} or count(*) <> ${wanted} then 'some' end`,
          clock,
        })
        .from(ended)
        .where(isAnnounced);
    },
  );

  const isAfter = and(gt(t.id, parameter('after')), costly(t.id));
  const page = (condition?: typeof ofUser) =>
    db
      .select(f.readFields(true))
      .from(t)
      .where(and(f.isLive, condition, isAfter))
      .orderBy(t.id)
      .limit(sql.placeholder('limit'));
  const listAll = statement('list', prepared, ['after', 'limit', 'now'], () => page());
  const listUser = statement('list_user', prepared, ['after', 'limit', 'now', 'user'], () =>
    page(ofUser),
  );
  const listIds = statement('list_ids', prepared, ['after', 'limit', 'now'], () =>
    db
      .select({ id: t.id })
      .from(t)
      .where(and(f.isLive, isAfter))
      .orderBy(t.id)
      .limit(sql.placeholder('limit')),
  );

  const countLive = statement('count', prepared, ['now'], () =>
    db
      .select({ count: text(count()) })
      .from(t)
      .where(f.isLive),
  );

  // The index on `expires_hour` finds the rows; the second condition is exact. Never prepared, because a plan for a small
  // table reads a large one completely, twice.
  const prune = statement('prune', false, ['limit'], () => {
    const isDue = and(lte(t.expiresHour, now), lte(t.expiresAt, now));
    const { locked, deleted: pruned } = deletion(isDue, sql.placeholder('limit'));
    return db
      .with(locked, pruned)
      .select({ count: text(count()) })
      .from(pruned);
  });

  const probe = statement('probe', prepared, [], () =>
    db.select({ id: t.id }).from(t).where(f.isOurs).limit(0),
  );

  // After the notification queue was full, Postgres refuses every notification until `pg_notification_queue_usage()` is
  // called, even if all listeners have caught up. A read-only server may be a former primary, which sends notifications
  // but does not get the changes of the new one.
  const send = statement('notify', prepared, ['channel', 'payload'], (p) =>
    db
      .select({ sent: notify(p.channel, p.payload).as('sent') })
      .from(sql`(values (pg_notification_queue_usage())) as queue (usage)`)
      .where(sql`usage >= 0 and current_setting('transaction_read_only') = 'off'`),
  );

  /** Sends a statement with its deadline. Its result contains a reading of the clock. */
  const inTime = async (
    on: Connection,
    times: CallTimes,
    send: (until: string) => Promise<readonly (EndedRow & { readonly clock: string })[]>,
  ): Promise<Ended> => {
    await readClock(on);
    const sentMs = monotonicMs();
    const [row] = await send(untilOf(on, times));
    on.clock.read(Number(row?.clock), sentMs);
    return { ended: split(row?.done ?? null), busy: (row?.busy ?? null) !== null };
  };

  return {
    clear: (on, times) => inTime(on, times, (until) => clear(on, { until })),
    endUser: (on, times, user, except) =>
      inTime(on, times, (until) => endUser(on, { user, except, now: String(Date.now()), until })),
    endBeyond: (on, times, user, id, keep, at) =>
      inTime(on, times, (until) =>
        endBeyond(on, { user, id, keep: String(keep), now: String(at), until }),
      ),
    list: async (on, { userId, after, limit, now: at }) => {
      const values = { after, limit: String(limit), now: String(at) };
      const rows = await (userId === undefined
        ? listAll(on, values)
        : listUser(on, { ...values, user: userId }));
      return rows.map(storedRow);
    },
    listIds: async (on, { after, limit, now: at }) =>
      (await listIds(on, { after, limit: String(limit), now: String(at) })).map(({ id }) => id),
    count: async (on) => numberIn(await countLive(on, { now: String(Date.now()) })),
    prune: async (on, limit) => numberIn(await prune(on, { limit: String(limit) })),
    probe: async (on) => {
      await probe(on, {});
    },
    notify: async (on, channel, payload) => {
      const [sent] = await send(on, { channel, payload });
      if (sent === undefined) throw new ServerReadOnly();
    },
  };
}

/** The error of a write on a read-only server. */
class ServerReadOnly extends Error {
  readonly code = READ_ONLY;
  constructor() {
    super('The server is read-only');
  }
}

function numberIn([row]: readonly { readonly count: string }[]): number {
  return Number(row?.count ?? 0);
}

interface EndedRow {
  readonly done: string | null;
  readonly busy: string | null;
}
