/**
 * Statements for one row, the common case. They have no CTE and no joined parameters, and take the server a third to a half
 * of the time. None waits for a row that another transaction has locked: `ctid = (select ctid … for update skip locked)`
 * then finds nothing. Only two waits remain, for an id that is just being inserted and for an app's foreign key;
 * `lock_timeout` limits them.
 *
 * @module
 */
import { and, eq, gt, gte, not, type SQL, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { monotonicMs } from '../util/clock.js';
import { command, db, statement } from './compile.js';
import { type FragmentSettings, type Fragments, LOCK_TIMEOUT, skipLocked } from './fragments.js';
import { beganOf, untilOf } from './server-time.js';
import {
  afterSetting,
  bigint,
  clockMs,
  integer,
  isBefore,
  microseconds,
  none,
  now,
  parameter,
  scalar,
  setLocally,
  text,
  timestamp,
} from './sql.js';
import {
  type CallTimes,
  type SaveRow,
  type StoredRow,
  storedRow,
  type TouchRow,
  type WriteRow,
} from './wire.js';

/** The result of a write of a new version; `undefined` if it wrote nothing. */
export type Versioned = { readonly version: number; readonly createdAt: number } | undefined;

/** A table of one row, for an insert with a condition. */
const ONCE = sql`(select) as once`;

export interface OneRow {
  read(on: Connection, id: string): Promise<StoredRow | undefined>;
  touch(on: Connection, row: TouchRow, times: CallTimes): Promise<boolean>;
  /** `step`: see `versionStep`. */
  save(on: Connection, row: SaveRow, step: number, times: CallTimes): Promise<boolean>;
  /** Inserts a row unless the id exists. */
  insert(on: Connection, row: WriteRow, times: CallTimes): Promise<Versioned>;
  /** Replaces the row with the id, except a tombstone that was created after the call began. */
  replace(on: Connection, row: WriteRow, times: CallTimes): Promise<Versioned>;
  /** Overwrites a session, but not a tombstone. */
  overwrite(on: Connection, row: WriteRow, times: CallTimes): Promise<Versioned>;
  /** Whether there is a tombstone; with `times`, one that was created after the call began. */
  isTombstone(on: Connection, id: string, times?: CallTimes): Promise<boolean>;
  endLive(on: Connection, id: string, times: CallTimes): Promise<boolean>;
  /** Ends a session that has expired, because a request that is still running could save it. */
  endExpired(on: Connection, id: string, times: CallTimes): Promise<boolean>;
  /** Inserts a tombstone unless the id exists. */
  bury(on: Connection, id: string, times: CallTimes): Promise<boolean>;
}

export function oneRow(settings: FragmentSettings, f: Fragments): OneRow {
  const { rows: t, insertable, tombstones, withUser, prepared } = settings;
  const announces = settings.announce !== undefined;

  const byId = eq(t.id, parameter('id'));
  /**
   * Locks the row of the id if it meets the conditions. Compares the id again, because each partition of a partitioned
   * table has a row at the same `ctid`.
   */
  const lockedRow = (...conditions: (SQL | undefined)[]) =>
    and(
      eq(
        t.ctid,
        scalar(
          db
            .select({ ctid: t.ctid })
            .from(t)
            .where(and(byId, ...conditions))
            .for('update', skipLocked),
        ),
      ),
      byId,
    );
  const waitsBriefly = setLocally('lock_timeout', LOCK_TIMEOUT);

  const read = statement('read', prepared, ['id'], () =>
    db.select(f.readFields()).from(t).where(and(byId, f.isNotEnded)),
  );

  /** The setting matters at the commit. Here it costs less than as a condition. */
  const seenNow = afterSetting('synchronous_commit', 'off', now);

  // A touch and a save return no row: returning one costs the server a tenth more time.
  const touchLoaded = command(
    'touch',
    prepared,
    ['id', 'created', 'expiry', 'alive', 'until'],
    (p) =>
      db
        .update(t)
        .set({
          lastSeenAt: seenNow,
          expiresAt: f.capped(sql`greatest(${t.expiresAt}, ${timestamp(p.expiry)})`, t.createdAt),
        })
        .where(
          lockedRow(
            f.isNotEnded,
            eq(microseconds(t.createdAt), bigint(p.created)),
            gt(t.expiresAt, timestamp(p.alive)),
            isBefore(p.until),
          ),
        ),
  );

  const touchAny = command('touch_any', prepared, ['id', 'expiry', 'alive', 'until'], (p) =>
    db
      .update(t)
      .set({ lastSeenAt: seenNow, expiresAt: f.capped(timestamp(p.expiry), t.createdAt) })
      .where(lockedRow(f.isNotEnded, gt(t.expiresAt, timestamp(p.alive)), isBefore(p.until))),
  );

  const save = command(
    'save',
    prepared,
    ['id', 'version', 'step', 'created', 'seen', 'expiry', 'data', 'owner', 'until'],
    (p) => {
      const update = db
        .update(t)
        .set({
          ...f.written(p.data, p.owner, integer(p.step)),
          expiresAt: f.savedExpiry(p.seen, p.expiry),
        })
        .where(
          lockedRow(
            f.isNotEnded,
            eq(t.version, integer(p.version)),
            eq(microseconds(t.createdAt), bigint(p.created)),
            isBefore(p.until),
            withUser ? waitsBriefly : undefined,
          ),
        );
      return announces ? update.returning({ announced: f.announcedId('c') }) : update;
    },
  );

  const insert = statement('insert', prepared, ['id', 'expiry', 'data', 'owner', 'until'], (p) => {
    const owner = f.ownerOf(p.owner);
    const row = {
      id: p.id.as('id'),
      data: f.stored(p.data).as('data'),
      ...(owner ? { userId: owner.as('owner') } : {}),
      expiresAt: f.afterLockTimeout(f.capped(timestamp(p.expiry), now)).as('expiry'),
    };
    return db
      .insert(insertable)
      .select(db.select(row).from(ONCE).where(isBefore(p.until)))
      .onConflictDoNothing({ target: t.id })
      .returning({ ...f.writtenFields, isOurs: text(f.isOurs), announced: f.announcedId('c') });
  });

  const replace = statement(
    'create',
    prepared,
    ['id', 'expiry', 'data', 'owner', 'began', 'until'],
    (p) =>
      db
        .update(t)
        .set({
          ...f.written(p.data, p.owner),
          createdAt: now,
          revokedAt: none,
          expiresAt: f.capped(timestamp(p.expiry), now),
        })
        .where(
          lockedRow(
            f.isOurs,
            f.isNotEndedSince(t.revokedAt, p.began),
            isBefore(p.until),
            withUser ? waitsBriefly : undefined,
          ),
        )
        .returning({ ...f.writtenFields, announced: f.announcedId('c') }),
  );

  const overwrite = statement('put', prepared, ['id', 'expiry', 'data', 'owner', 'until'], (p) =>
    db
      .update(t)
      .set({ ...f.written(p.data, p.owner), expiresAt: f.capped(timestamp(p.expiry), t.createdAt) })
      .where(lockedRow(f.isNotEnded, isBefore(p.until), withUser ? waitsBriefly : undefined))
      .returning({ ...f.writtenFields, announced: f.announcedId('c') }),
  );

  const tombstoneOf = statement('tombstone', prepared, ['id', 'began'], (p) =>
    db
      .select({
        revoked: text(sql`(${gte(t.revokedAt, timestamp(p.began))})`),
        clock: text(clockMs),
      })
      .from(t)
      .where(and(byId, f.isOurs)),
  );

  const ending = (kind: string, condition: SQL | undefined) =>
    command(kind, prepared, ['id', 'now', 'until'], (p) => {
      const update = db
        .update(t)
        .set(f.tombstone)
        .where(lockedRow(f.isNotEnded, condition, isBefore(p.until)));
      return announces ? update.returning({ announced: f.announcedId('d') }) : update;
    });
  const endLive = ending('end', f.isLive);
  const endExpired = ending('end_expired', f.isLive && not(f.isLive));

  const bury = command('bury', prepared, ['id', 'until'], (p) =>
    db
      .insert(tombstones)
      .select(
        db
          .select({
            id: p.id.as('id'),
            expiresAt: f.afterLockTimeout(f.tombstone.expiresAt).as('expiry'),
            revokedAt: sql<Date>`now()`.as('revoked'),
          })
          .from(ONCE)
          .where(isBefore(p.until)),
      )
      .onConflictDoNothing({ target: t.id })
      .returning({ isOurs: text(f.isOurs) }),
  );

  const versioned = ([row]: readonly { version: string; createdAt: string }[]): Versioned =>
    row && { version: Number(row.version), createdAt: Number(row.createdAt) };
  const isWritten = (count: number) => count > 0;

  // Each call writes out its values. In Node 20, each property that follows a spread in a literal costs 0.8 µs (measured),
  // which made a lone save a tenth slower.
  return {
    read: (on, id) => {
      const sentMs = monotonicMs();
      return read(on, { id }).then(([found]) => {
        if (found === undefined) return undefined;
        const row = storedRow(found);
        on.clock.read(row.timeMs, sentMs);
        return row;
      });
    },
    touch: (on, { id, createdAt, expiresAt, aliveAt }, times) => {
      const [expiry, alive] = [String(expiresAt), String(aliveAt)];
      const until = untilOf(on, times);
      return (
        createdAt === 0
          ? touchAny(on, { id, expiry, alive, until })
          : touchLoaded(on, { id, created: String(createdAt), expiry, alive, until })
      ).then(isWritten);
    },
    save: (on, row, step, times) =>
      save(on, {
        id: row.id,
        version: String(row.version),
        step: String(step),
        created: String(row.createdAt),
        seen: String(row.seenExpiresAt),
        expiry: String(row.expiresAt),
        data: row.data,
        owner: row.userId,
        until: untilOf(on, times),
      }).then(isWritten),
    insert: (on, row, times) => insert(on, writeOf(on, row, times)).then(versioned),
    replace: (on, { id, data, expiresAt, userId }, times) => {
      const [began, until] = [beganOf(on, times), untilOf(on, times)];
      const values = { id, expiry: String(expiresAt), data, owner: userId, began, until };
      return replace(on, values).then(versioned);
    },
    overwrite: (on, row, times) => overwrite(on, writeOf(on, row, times)).then(versioned),
    isTombstone: (on, id, times) => {
      const began = times === undefined ? '0' : beganOf(on, times);
      const sentMs = monotonicMs();
      return tombstoneOf(on, { id, began }).then(([row]) => {
        if (row === undefined) return false;
        on.clock.read(Number(row.clock), sentMs);
        return row.revoked === 'true';
      });
    },
    endLive: (on, id, times) => endLive(on, endingOf(on, id, times)).then(isWritten),
    endExpired: (on, id, times) => endExpired(on, endingOf(on, id, times)).then(isWritten),
    bury: (on, id, times) => bury(on, { id, until: untilOf(on, times) }).then(isWritten),
  };
}

function writeOf(on: Connection, { id, data, expiresAt, userId }: WriteRow, times: CallTimes) {
  const until = untilOf(on, times);
  return { id, expiry: String(expiresAt), data, owner: userId, until };
}

function endingOf(on: Connection, id: string, times: CallTimes) {
  return { id, now: String(Date.now()), until: untilOf(on, times) };
}
