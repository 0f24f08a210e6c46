/**
 * Statements for one row, the common case: no CTE, no joined parameters, a third to a half of the server's
 * time. None waits for a row that another transaction has locked: `ctid = (select ctid … for update skip locked)`
 * finds nothing then. Only two waits remain, an id that is just being inserted and an app's foreign key;
 * `lock_timeout` limits them.
 *
 * @module
 */
import { and, eq, gt, not, type SQL, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { command, db, statement } from './compile.js';
import { type Fragments, LOCK_TIMEOUT, type StatementSettings, skipLocked } from './fragments.js';
import {
  afterSetting,
  bigint,
  integer,
  json,
  microseconds,
  none,
  now,
  parameter,
  scalar,
  setLocally,
  text,
  timestamp,
} from './sql.js';
import { type SaveRow, type StoredRow, storedRow, type TouchRow, type WriteRow } from './wire.js';

/** What a write of a new version returns; `undefined` if it wrote nothing. */
export type Versioned = { readonly version: number; readonly createdAt: number } | undefined;

export interface OneRow {
  read(on: Connection, id: string): Promise<StoredRow | undefined>;
  touch(on: Connection, row: TouchRow): Promise<boolean>;
  /** `step`: see `versionStep`. */
  save(on: Connection, row: SaveRow, step: number): Promise<boolean>;
  /** Inserts a row unless the id exists. */
  insert(on: Connection, row: WriteRow): Promise<Versioned>;
  /** Replaces whatever has the id, a tombstone too. */
  replace(on: Connection, row: WriteRow): Promise<Versioned>;
  /** Overwrites a session, but no tombstone. */
  overwrite(on: Connection, row: WriteRow): Promise<Versioned>;
  isTombstone(on: Connection, id: string): Promise<boolean>;
  endLive(on: Connection, id: string): Promise<boolean>;
  /** Ends a session that has expired: a request that is still running could save it. */
  endExpired(on: Connection, id: string): Promise<boolean>;
}

export function oneRow(settings: StatementSettings, f: Fragments): OneRow {
  const { rows: t, insertable, withUser, prepared } = settings;
  const announces = settings.announce !== undefined;

  const byId = eq(t.id, parameter('id'));
  /**
   * The row of the id if the conditions hold, locked. The id is compared again, since each partition of a
   * partitioned table has a row at the same `ctid`.
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

  // A touch and a save return nothing: returning a row costs the server a tenth of its time.
  const touchLoaded = command('touch', prepared, ['id', 'created', 'expiry', 'alive'], (p) =>
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
        ),
      ),
  );

  const touchAny = command('touch_any', prepared, ['id', 'expiry', 'alive'], (p) =>
    db
      .update(t)
      .set({ lastSeenAt: seenNow, expiresAt: f.capped(timestamp(p.expiry), t.createdAt) })
      .where(lockedRow(f.isNotEnded, gt(t.expiresAt, timestamp(p.alive)))),
  );

  const save = command(
    'save',
    prepared,
    ['id', 'version', 'step', 'created', 'seen', 'expiry', 'data', 'owner'],
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
            withUser ? waitsBriefly : undefined,
          ),
        );
      return announces ? update.returning({ announced: f.announcedId('c') }) : update;
    },
  );

  const insert = statement('insert', prepared, ['id', 'expiry', 'data', 'owner'], (p) =>
    db
      .insert(insertable)
      .values({
        id: p.id,
        data: json(p.data),
        userId: f.ownerOf(p.owner),
        expiresAt: f.afterLockTimeout(f.capped(timestamp(p.expiry), now)),
      })
      .onConflictDoNothing({ target: t.id })
      .returning({ ...f.writtenFields, isOurs: text(f.isOurs), announced: f.announcedId('c') }),
  );

  const replace = statement('create', prepared, ['id', 'expiry', 'data', 'owner'], (p) =>
    db
      .update(t)
      .set({
        ...f.written(p.data, p.owner),
        createdAt: now,
        revokedAt: none,
        expiresAt: f.capped(timestamp(p.expiry), now),
      })
      .where(lockedRow(f.isOurs, withUser ? waitsBriefly : undefined))
      .returning({ ...f.writtenFields, announced: f.announcedId('c') }),
  );

  const overwrite = statement('put', prepared, ['id', 'expiry', 'data', 'owner'], (p) =>
    db
      .update(t)
      .set({ ...f.written(p.data, p.owner), expiresAt: f.capped(timestamp(p.expiry), t.createdAt) })
      .where(lockedRow(f.isNotEnded, withUser ? waitsBriefly : undefined))
      .returning({ ...f.writtenFields, announced: f.announcedId('c') }),
  );

  const tombstoneOf = statement('tombstone', prepared, ['id'], () =>
    db
      .select({ revoked: text(sql`${t.revokedAt} is not null`) })
      .from(t)
      .where(and(byId, f.isOurs)),
  );

  const ending = (kind: string, condition: SQL | undefined) =>
    command(kind, prepared, ['id', 'now'], () => {
      const update = db.update(t).set(f.tombstone).where(lockedRow(f.isNotEnded, condition));
      return announces ? update.returning({ announced: f.announcedId('d') }) : update;
    });
  const endLive = ending('end', f.isLive);
  const endExpired = ending('end_expired', f.isLive && not(f.isLive));

  const valuesOf = (row: WriteRow) => ({
    id: row.id,
    expiry: String(row.expiresAt),
    data: row.data,
    owner: row.userId,
  });
  const versioned = ([row]: readonly { version: string; createdAt: string }[]): Versioned =>
    row && { version: Number(row.version), createdAt: Number(row.createdAt) };
  const isWritten = (count: number) => count > 0;

  return {
    read: (on, id) => read(on, { id }).then(([row]) => row && storedRow(row)),
    touch: (on, { id, createdAt, expiresAt, aliveAt }) => {
      const values = { id, expiry: String(expiresAt), alive: String(aliveAt) };
      return (
        createdAt === 0
          ? touchAny(on, values)
          : touchLoaded(on, { ...values, created: String(createdAt) })
      ).then(isWritten);
    },
    save: (on, row, step) =>
      save(on, {
        ...valuesOf(row),
        version: String(row.version),
        step: String(step),
        created: String(row.createdAt),
        seen: String(row.seenExpiresAt),
      }).then(isWritten),
    insert: (on, row) => insert(on, valuesOf(row)).then(versioned),
    replace: (on, row) => replace(on, valuesOf(row)).then(versioned),
    overwrite: (on, row) => overwrite(on, valuesOf(row)).then(versioned),
    isTombstone: (on, id) => tombstoneOf(on, { id }).then(([row]) => row?.revoked === 'true'),
    endLive: (on, id) => endLive(on, { id, now: String(Date.now()) }).then(isWritten),
    endExpired: (on, id) => endExpired(on, { id, now: String(Date.now()) }).then(isWritten),
  };
}
