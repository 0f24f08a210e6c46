/**
 * The parts of the portable statements, which any engine with Postgres' protocol can run. test/portable/refusals.ts lists
 * each restriction with its engine and its source, and checks the compiled statements.
 *
 * A statement names one row by its primary key, so that a sharding engine sends it to one shard. Nothing in SET depends on
 * the server's clock: times are parameters, converted to the server's clock. A write uses only immutable functions of
 * columns.
 *
 * @module
 */
import { and, eq, type SQL, sql } from 'drizzle-orm';
import type { AnyPgColumn } from 'drizzle-orm/pg-core';
import type { Connection } from '../../drivers/driver.js';
import { sqlState } from '../../errors.js';
import { isTransient } from '../../util/sql-states.js';
import { command, db, type Parameters } from '../compile.js';
import { type Fragments, fragmentsOf, type StatementSettings } from '../fragments.js';
import {
  afterSetting,
  integer,
  LAST_TIME,
  none,
  notify,
  now,
  parameter,
  setLocally,
  text,
  timestamp,
  unread,
  xor,
} from '../sql.js';
import { type CallTimes, versionStep } from '../wire.js';

type Value = SQL | AnyPgColumn;

/**
 * How long a write waits for a row that another transaction has locked, if the engine can limit the wait. Without SKIP
 * LOCKED, other calls of the lane wait that long, too. A write of this store locks a row for a few milliseconds.
 */
const LOCK_WAIT_MS = 50;

/** The lifetime of a tombstone. */
const TOMBSTONE_MS = sql.raw('3600000');

const EPOCH = sql.raw(`timestamptz '1970-01-01 00:00:00+00'`);

/** Seconds since 1970. On the server, `date_part` of a time depends on the time zone; `date_part` of an interval does not. */
const seconds = (time: Value) => sql<number>`date_part('epoch', ${time} - ${EPOCH})`;

/** A time as microseconds since 1970. */
const microseconds = (time: Value) => sql<number>`(${seconds(time)} * 1000000)::bigint`;

/** A time from microseconds since 1970. */
export const timeOfMicroseconds = (us: Value) => sql<Date>`to_timestamp(${us}::float8 / 1000000)`;

/** A time as milliseconds since 1970, clamped to the range of `Date`. */
const milliseconds = (time: Value) =>
  sql<number>`round(${seconds(sql`least(greatest(${time}, ${EPOCH}), ${LAST_TIME})`)} * 1000)::bigint`;

export type PortableFragments = ReturnType<typeof portableFragments>;

export function portableFragments(settings: StatementSettings) {
  const { rows: t, maxLifetime, engine, userIdNullable } = settings;
  const f = fragmentsOf(settings);
  const lifetime = maxLifetime === undefined ? undefined : sql.raw(String(maxLifetime));

  const capped = (expiry: SQL, createdAt: Value): SQL =>
    lifetime === undefined
      ? expiry
      : sql`least(${expiry}, to_timestamp(${seconds(createdAt)} + ${lifetime}))`;

  /** Never earlier than before, because another process's clock may be ahead. `maxSessionsPerUser` relies on this. */
  const seenAt = (at: Value) => sql`greatest(${t.lastSeenAt}, ${timestamp(at)})`;

  const own = {
    capped,
    readFields: (isListing = false) => ({
      head: sql<string>`${t.version}::text || ',' || ${microseconds(t.createdAt)}::text || ',' || ${milliseconds(t.expiresAt)}::text
        || ',' || ${isListing || lifetime ? milliseconds(t.lastSeenAt) : unread}::text || ',' || ${unread} || ',' || ${t.id}`.as(
        'head',
      ),
      data: sql<string | null>`${t.data}::text`.as('data'),
      userId: f.readFields().userId,
    }),
    writtenFields: {
      version: text(t.version).as('written_version'),
      createdAt: text(microseconds(t.createdAt)).as('created_us'),
    },
    savedExpiry: (seen: Value, expiry: Value) =>
      capped(
        sql`case when ${expiry} = ${seen} then ${t.expiresAt}
          when ${milliseconds(t.expiresAt)} = ${seen}::bigint then ${timestamp(expiry)}
          else greatest(${t.expiresAt}, ${timestamp(expiry)}) end`,
        t.createdAt,
      ),
  } satisfies Partial<Fragments>;

  const lockTimeout = `${LOCK_WAIT_MS}ms`;
  /** Limits the wait for a row, if the engine allows that in a condition. */
  const waitsBriefly = engine.limitsLockWaits ? setLocally('lock_timeout', lockTimeout) : undefined;
  /** Not `now()`, because a driver may have begun the implicit transaction a round trip earlier, to prepare the statement. */
  const isInTime = (until: SQL) => sql`statement_timestamp() < ${timestamp(until)}`;

  return {
    ...f,
    ...own,
    microsecondsOf: microseconds,
    seenAt,
    waitsBriefly,
    /** The row of the id, if it meets the conditions and the caller has not given up. */
    rowInTime: (until: SQL, ...conditions: (SQL | undefined)[]) =>
      and(eq(t.id, parameter('id')), ...conditions, isInTime(until), waitsBriefly),
    /**
     * The expiry of a new row. It is null if the caller has given up, and the column then refuses it. With a condition, the
     * statement would be an INSERT … SELECT, which an engine cannot send to one shard.
     */
    insertedExpiry: (expiry: SQL, until: SQL): SQL => {
      const inTime = sql`case when ${isInTime(until)} then ${expiry} end`;
      return engine.limitsLockWaits ? afterSetting('lock_timeout', lockTimeout, inTime) : inTime;
    },
    /** The expiry of a row that is created now. */
    firstExpiry: (expiry: SQL): SQL =>
      lifetime === undefined
        ? timestamp(expiry)
        : sql`least(${timestamp(expiry)}, ${now} + ${lifetime} * interval '1 second')`,
    /** The columns that every write of data changes, except the expiry. */
    savedColumns: (p: Parameters<'data' | 'owner' | 'step' | 'at'>) => ({
      data: f.stored(p.data),
      userId: f.ownerOf(p.owner),
      version: xor(t.version, integer(p.step)),
      lastSeenAt: seenAt(p.at),
    }),
    /** The columns of a tombstone. */
    tombstoneColumns: (p: Parameters<'step' | 'at'>) => ({
      data: none,
      userId: userIdNullable ? none : undefined,
      version: xor(t.version, integer(p.step)),
      revokedAt: timestamp(p.at),
      expiresAt: tombstoneExpiry(p.at),
    }),
    tombstoneExpiry,
  };
}

const tombstoneExpiry = (at: SQL) =>
  sql<Date>`to_timestamp((${at}::float8 + ${TOMBSTONE_MS}) / 1000)`;

/** The times of a write, on the server's clock, and its step to the next version. */
export function writeValues(on: Connection, { atMs }: CallTimes) {
  return {
    step: String(versionStep()),
    at: String(on.clock.now()),
    // A write may wait for its row before it takes effect.
    until: String(on.clock.earliest(atMs - LOCK_WAIT_MS)),
  };
}

/** A write has committed, but was not announced. For the caller, its outcome counts as unknown. */
class NotAnnounced extends Error {
  readonly code = '08000';

  constructor(options: ErrorOptions) {
    super('The change was saved, but not announced', options);
  }
}

/**
 * Announces ids in a separate statement, after their change has committed. In the statement of the change, the
 * notification would come from the shard of the row, and no store listens there.
 */
export function announcer({ announce, prepared }: StatementSettings) {
  const send = command('announce', prepared, ['channel', 'payload'], (p) =>
    db.select({ sent: notify(p.channel, p.payload).as('sent') }).from(sql`(values (1)) as once`),
  );
  return async (on: Connection, kind: 'c' | 'd', ids: readonly string[]): Promise<void> => {
    if (announce === undefined || ids.length === 0) return;
    try {
      await send(on, {
        channel: announce.channel,
        payload: kind + announce.sender + ids.join(','),
      });
    } catch (error) {
      throw new NotAnnounced({ cause: error });
    }
  };
}

/** Returns `undefined` if another transaction kept a statement from taking effect. */
export function unlessBusy<T>(sent: Promise<T>): Promise<T | undefined> {
  return sent.catch((error) => {
    if (isTransient(sqlState(error))) return undefined;
    throw error;
  });
}
