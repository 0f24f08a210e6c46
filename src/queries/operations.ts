/**
 * Statements for operators: totals, listings without session data, and ending or counting sessions that meet conditions. No
 * request waits for them.
 *
 * @module
 */
import { and, count, desc, eq, gt, isNotNull, isNull, max, type SQL, sql } from 'drizzle-orm';
import type { Connection, Value } from '../drivers/driver.js';
import { db, type Parameters, statement } from './compile.js';
import { type FragmentSettings, fragmentsOf, skipLocked } from './fragments.js';
import { microseconds, milliseconds, now, scalar, text, timestamp } from './sql.js';
import { isDue, millisecondsText, numberOrNull, sizeStatements } from './table-sizes.js';
import { split } from './wire.js';

/** All facts about a session except its data, for operators. Times are milliseconds since 1970. */
export interface SessionFacts {
  readonly id: string;
  readonly userId: string | null;
  readonly createdAt: number;
  readonly lastSeenAt: number;
  readonly expiresAt: number;
  readonly revokedAt: number | null;
  /** Bytes of the stored data; null in a tombstone. */
  readonly bytes: number | null;
  /** Microseconds since 1970. Also the position in a listing. */
  readonly createdUs: string;
}

/** The conditions for sessions to end or count. A session must meet all of them. Times are milliseconds since 1970. */
export interface Criteria {
  readonly userId?: string | undefined;
  /** Excludes this session. */
  readonly exceptId?: string | undefined;
  readonly createdBefore?: number | undefined;
  readonly createdSince?: number | undefined;
  readonly seenSince?: number | undefined;
}

export interface Totals {
  readonly live: number;
  readonly expired: number;
  readonly revoked: number;
  /** When the oldest live session was created. */
  readonly oldestAt: number | null;
}

const CRITERIA = ['user', 'except', 'before', 'since', 'seen', 'now'] as const;
type CriteriaName = (typeof CRITERIA)[number];

export type OperationStatements = ReturnType<typeof operationStatements>;

export function operationStatements(settings: FragmentSettings) {
  const f = fragmentsOf(settings);
  const { rows: t } = settings;
  const userType = sql.raw(settings.userIdType);

  /** A condition that is true if its parameter is null. The planner then removes it, because these statements are not prepared. */
  const unlessNull = (value: SQL, condition: SQL) => sql`(${value} is null or ${condition})`;
  const matching = (p: Parameters<CriteriaName>) =>
    and(
      f.isNotEnded,
      unlessNull(p.user, eq(t.userId, sql`${p.user}::${userType}`)),
      unlessNull(p.except, sql`${t.id} <> ${p.except}`),
      unlessNull(p.before, sql`${t.createdAt} < ${timestamp(p.before)}`),
      unlessNull(p.since, sql`${t.createdAt} >= ${timestamp(p.since)}`),
      unlessNull(p.seen, sql`${t.lastSeenAt} >= ${timestamp(p.seen)}`),
    );
  const valuesOf = (criteria: Criteria): Record<CriteriaName, Value> => ({
    user: criteria.userId ?? null,
    except: criteria.exceptId ?? null,
    before: numberText(criteria.createdBefore),
    since: numberText(criteria.createdSince),
    seen: numberText(criteria.seenSince),
    now: String(Date.now()),
  });

  const totals = statement('totals', false, ['percent', 'now'], (p) =>
    db
      .select({
        live: text(sql`count(*) filter (where ${f.isLive})`),
        expired: text(sql`count(*) filter (where ${isNull(t.revokedAt)} and not ${f.isLive})`),
        revoked: text(sql`count(*) filter (where ${isNotNull(t.revokedAt)})`),
        oldest: millisecondsText(sql`min(${t.createdAt}) filter (where ${f.isLive})`),
      })
      .from(sql`${t} tablesample system (${p.percent}::float4)`)
      .where(f.isOurs),
  );

  const fields = {
    id: t.id,
    userId: sql<string | null>`${t.userId}::text`.as('owner'),
    createdUs: text(microseconds(t.createdAt)).as('created_us'),
    createdAt: text(milliseconds(t.createdAt)).as('created_ms'),
    lastSeenAt: text(milliseconds(t.lastSeenAt)).as('seen_ms'),
    expiresAt: text(milliseconds(t.expiresAt)).as('expires_ms'),
    revokedAt: millisecondsText(sql`${t.revokedAt}`).as('revoked_ms'),
    bytes: sql<string | null>`octet_length(${t.data}::text)::text`.as('bytes'),
  };

  const newest = statement('newest', false, ['user', 'created', 'id', 'limit', 'now'], (p) =>
    db
      .select(fields)
      .from(t)
      .where(
        and(
          f.isLive,
          unlessNull(p.user, eq(t.userId, sql`${p.user}::${userType}`)),
          unlessNull(
            p.created,
            sql`(${t.createdAt}, ${t.id}) < (timestamptz 'epoch' + ${p.created}::bigint * interval '1 microsecond', ${p.id})`,
          ),
        ),
      )
      .orderBy(desc(t.createdAt), desc(t.id))
      .limit(sql.placeholder('limit')),
  );

  const one = statement('facts', false, ['id'], (p) =>
    db
      .select(fields)
      .from(t)
      .where(and(eq(t.id, p.id), f.isOurs)),
  );

  const data = {
    data: f.storedText.as('stored'),
  };
  const dataOf = statement('data', false, ['id'], (p) =>
    db
      .select(data)
      .from(t)
      .where(and(eq(t.id, p.id), f.isNotEnded)),
  );

  const topUsers = statement('top_users', false, ['limit', 'now'], () => {
    const sessions = count();
    return db
      .select({
        userId: sql<string>`${t.userId}::text`.as('owner'),
        sessions: text(sessions).as('sessions'),
        lastSeenAt: text(milliseconds(sql`${max(t.lastSeenAt)}`)).as('seen_ms'),
      })
      .from(t)
      .where(and(f.isLive, isNotNull(t.userId)))
      .groupBy(t.userId)
      .orderBy(desc(sessions), t.userId)
      .limit(sql.placeholder('limit'));
  });

  const ofUser = statement('of_user', false, ['user', 'after', 'limit'], (p) =>
    db
      .select({ ...fields, ...data })
      .from(t)
      .where(and(eq(t.userId, sql`${p.user}::${userType}`), f.isNotEnded, gt(t.id, p.after)))
      .orderBy(t.id)
      .limit(sql.placeholder('limit')),
  );

  const countMatching = statement('count_matching', false, CRITERIA, (p) =>
    db
      .select({ count: text(count()) })
      .from(t)
      .where(and(matching(p), f.isLive)),
  );

  // A session may have been created in the future, by a server with another clock.
  const endOfCreation = statement('end_of_creation', false, CRITERIA, (p) =>
    db
      .select({ end: text(milliseconds(sql`greatest(${max(t.createdAt)}, ${now})`)).as('end_ms') })
      .from(t)
      .where(matching(p)),
  );

  const countDue = statement('count_due', false, [], () =>
    db
      .select({ count: text(count()) })
      .from(t)
      .where(isDue(t)),
  );

  // In the order of the primary key, so that each statement continues after the last one. Otherwise it would first read
  // all rows that have ended already.
  const endMatching = statement('end_matching', false, [...CRITERIA, 'after', 'limit'], (p) => {
    const locked = db.$with('locked').as(
      db
        .select({
          id: t.id,
          ...f.place,
          live: sql<boolean>`${f.isLive}`.as('live'),
          lastSeenAt: t.lastSeenAt,
        })
        .from(t)
        .where(and(matching(p), gt(t.id, p.after)))
        .orderBy(t.id)
        .limit(sql.placeholder('limit'))
        .for('update', skipLocked),
    );
    const { ended, done, announced, isAnnounced } = f.ending(locked);
    return db
      .with(locked, ended, ...announced)
      .select({
        done,
        last: scalar<string | null>(db.select({ last: max(locked.id) }).from(locked)),
      })
      .from(ended)
      .where(isAnnounced);
  });

  return {
    ...sizeStatements(settings),
    /** Counts rows in about `percent` of the table's pages, and extrapolates. */
    totals: async (on: Connection, percent: number): Promise<Totals> => {
      const [row] = await totals(on, { percent: String(percent), now: String(Date.now()) });
      const scaled = (counted = '0') => Math.round((Number(counted) * 100) / percent);
      return {
        live: scaled(row?.live),
        expired: scaled(row?.expired),
        revoked: scaled(row?.revoked),
        oldestAt: numberOrNull(row?.oldest),
      };
    },
    /** Returns live sessions, newest log-in first, after the position `before`. */
    newest: async (
      on: Connection,
      userId: string | undefined,
      before: { readonly createdUs: string; readonly id: string } | undefined,
      limit: number,
    ): Promise<readonly SessionFacts[]> => {
      const rows = await newest(on, {
        user: userId ?? null,
        created: before?.createdUs ?? null,
        id: before?.id ?? null,
        limit: String(limit),
        now: String(Date.now()),
      });
      return rows.map(factsOf);
    },
    /** Returns a row in any state. */
    one: async (on: Connection, id: string): Promise<SessionFacts | undefined> =>
      (await one(on, { id })).map(factsOf)[0],
    /** Returns the stored form of a session that was not revoked. */
    dataOf: async (on: Connection, id: string): Promise<string | undefined> =>
      (await dataOf(on, { id }))[0]?.data ?? undefined,
    topUsers: async (on: Connection, limit: number) =>
      (await topUsers(on, { limit: String(limit), now: String(Date.now()) })).map((row) => ({
        userId: row.userId,
        sessions: Number(row.sessions),
        lastSeenAt: Number(row.lastSeenAt),
      })),
    /** Returns a page of all stored sessions of a user, including expired ones. */
    ofUser: async (on: Connection, user: string, after: string, limit: number) =>
      (await ofUser(on, { user, after, limit: String(limit) })).map((row) => ({
        ...factsOf(row),
        data: row.data ?? 'null',
      })),
    /** Returns how many live sessions match. */
    countMatching: async (on: Connection, criteria: Criteria): Promise<number> =>
      Number((await countMatching(on, valuesOf(criteria)))[0]?.count ?? 0),
    /** Returns a time in milliseconds since 1970: the sessions that match now were created before it, later ones after it. */
    endOfCreation: async (on: Connection, criteria: Criteria): Promise<number> =>
      Number((await endOfCreation(on, valuesOf(criteria)))[0]?.end) + 1,
    countDue: async (on: Connection): Promise<number> =>
      Number((await countDue(on, {}))[0]?.count ?? 0),
    /**
     * Ends up to `limit` matching sessions that no other transaction has locked, in the order of ids. Returns the live
     * ones among them, and the last id (null if there was none).
     */
    endMatching: async (on: Connection, criteria: Criteria, after: string, limit: number) => {
      const values = { ...valuesOf(criteria), after, limit: String(limit) };
      const [row] = await endMatching(on, values);
      return { ended: split(row?.done ?? null), last: row?.last ?? null };
    },
  };
}

function factsOf(row: {
  id: string;
  userId: string | null;
  createdUs: string;
  createdAt: string;
  lastSeenAt: string;
  expiresAt: string;
  revokedAt: string | null;
  bytes: string | null;
}): SessionFacts {
  return {
    id: row.id,
    userId: row.userId,
    createdUs: row.createdUs,
    createdAt: Number(row.createdAt),
    lastSeenAt: Number(row.lastSeenAt),
    expiresAt: Number(row.expiresAt),
    revokedAt: numberOrNull(row.revokedAt),
    bytes: numberOrNull(row.bytes),
  };
}

function numberText(value: number | undefined): string | null {
  return value === undefined ? null : String(value);
}
