/**
 * Statements for one row, for any engine. A write waits for a row that another transaction has locked. If the engine can
 * limit that wait, the write fails soon and is sent again.
 *
 * @module
 */
import { and, eq, gt, gte, not, type SQL, sql } from 'drizzle-orm';
import type { Connection } from '../../drivers/driver.js';
import { sqlState } from '../../errors.js';
import { isRecord } from '../../util/guards.js';
import { command, db, statement } from '../compile.js';
import type { StatementSettings } from '../fragments.js';
import type { OneRow, Versioned } from '../one-row.js';
import { beganOf } from '../server-time.js';
import { integer, none, parameter, text, timestamp } from '../sql.js';
import { type CallTimes, storedRow, type WriteRow } from '../wire.js';
import { announcer, type PortableFragments, timeOfMicroseconds, writeValues } from './fragments.js';

export function portableRow(settings: StatementSettings, f: PortableFragments): OneRow {
  const { rows: t, insertable, tombstones, prepared } = settings;
  const announce = announcer(settings);
  const byId = eq(t.id, parameter('id'));

  const read = statement('read_any_engine', prepared, ['id'], () =>
    db.select(f.readFields()).from(t).where(and(byId, f.isNotEnded)),
  );

  const touchLoaded = command(
    'touch_any_engine',
    prepared,
    ['id', 'created', 'expiry', 'alive', 'at', 'until'],
    (p) =>
      db
        .update(t)
        .set({
          lastSeenAt: f.seenAt(p.at),
          expiresAt: f.capped(sql`greatest(${t.expiresAt}, ${timestamp(p.expiry)})`, t.createdAt),
        })
        .where(
          f.rowInTime(
            p.until,
            f.isNotEnded,
            eq(t.createdAt, timeOfMicroseconds(p.created)),
            gt(t.expiresAt, timestamp(p.alive)),
          ),
        ),
  );

  const touchAny = command(
    'touch_unread_any_engine',
    prepared,
    ['id', 'expiry', 'alive', 'at', 'until'],
    (p) =>
      db
        .update(t)
        .set({
          lastSeenAt: f.seenAt(p.at),
          expiresAt: f.capped(timestamp(p.expiry), t.createdAt),
        })
        .where(f.rowInTime(p.until, f.isNotEnded, gt(t.expiresAt, timestamp(p.alive)))),
  );

  const save = command(
    'save_any_engine',
    prepared,
    ['id', 'version', 'step', 'created', 'seen', 'expiry', 'data', 'owner', 'at', 'until'],
    (p) =>
      db
        .update(t)
        .set({ ...f.savedColumns(p), expiresAt: f.savedExpiry(p.seen, p.expiry) })
        .where(
          f.rowInTime(
            p.until,
            f.isNotEnded,
            eq(t.version, integer(p.version)),
            eq(t.createdAt, timeOfMicroseconds(p.created)),
          ),
        ),
  );

  const insert = statement(
    'insert_any_engine',
    prepared,
    ['id', 'expiry', 'data', 'owner', 'until'],
    (p) => {
      const owner = f.ownerOf(p.owner);
      return db
        .insert(insertable)
        .values({
          id: p.id,
          data: f.stored(p.data),
          ...(owner ? { userId: owner } : {}),
          expiresAt: f.insertedExpiry(f.firstExpiry(p.expiry), p.until),
        })
        .onConflictDoNothing({ target: t.id })
        .returning({ ...f.writtenFields, isOurs: text(f.isOurs) });
    },
  );

  const replace = statement(
    'replace_any_engine',
    prepared,
    ['id', 'expiry', 'data', 'owner', 'step', 'at', 'began', 'until'],
    (p) =>
      db
        .update(t)
        .set({
          ...f.savedColumns(p),
          createdAt: timestamp(p.at),
          revokedAt: none,
          expiresAt: f.capped(timestamp(p.expiry), timestamp(p.at)),
        })
        .where(f.rowInTime(p.until, f.isOurs, f.isNotEndedSince(t.revokedAt, p.began)))
        .returning(f.writtenFields),
  );

  const overwrite = statement(
    'put_any_engine',
    prepared,
    ['id', 'expiry', 'data', 'owner', 'step', 'at', 'until'],
    (p) =>
      db
        .update(t)
        .set({ ...f.savedColumns(p), expiresAt: f.capped(timestamp(p.expiry), t.createdAt) })
        .where(f.rowInTime(p.until, f.isNotEnded))
        .returning(f.writtenFields),
  );

  const tombstoneOf = statement('tombstone_any_engine', prepared, ['id', 'began'], (p) =>
    db
      .select({ revoked: text(sql`(${gte(t.revokedAt, timestamp(p.began))})`) })
      .from(t)
      .where(and(byId, f.isOurs)),
  );

  const ending = (kind: string, condition: SQL | undefined) =>
    command(kind, prepared, ['id', 'now', 'step', 'at', 'until'], (p) =>
      db
        .update(t)
        .set(f.tombstoneColumns(p))
        .where(f.rowInTime(p.until, f.isNotEnded, condition)),
    );
  const endLive = ending('end_any_engine', f.isLive);
  const endExpired = ending('end_expired_any_engine', f.isLive && not(f.isLive));

  const bury = command('bury_any_engine', prepared, ['id', 'at', 'until'], (p) =>
    db
      .insert(tombstones)
      .values({
        id: p.id,
        expiresAt: f.insertedExpiry(f.tombstoneExpiry(p.at), p.until),
        revokedAt: timestamp(p.at),
      })
      .onConflictDoNothing({ target: t.id })
      .returning({ isOurs: text(f.isOurs) }),
  );

  const valuesOf = (row: WriteRow) => ({
    id: row.id,
    expiry: String(row.expiresAt),
    data: row.data,
    owner: row.userId,
  });

  /** Announces a row that a write has changed. */
  const told = async <T>(on: Connection, kind: 'c' | 'd', id: string, result: T): Promise<T> => {
    await announce(on, kind, [id]);
    return result;
  };

  const versioned = async (
    on: Connection,
    id: string,
    sent: Promise<readonly { version: string; createdAt: string }[]>,
  ): Promise<Versioned> => {
    const [row] = await sent;
    if (row === undefined) return undefined;
    const written = { version: Number(row.version), createdAt: Number(row.createdAt) };
    return told(on, 'c', id, written);
  };

  /** The table refused a new row because its caller has given up. */
  const unlessLate = <T>(sent: Promise<T>, late: T): Promise<T> =>
    sent.catch((error) => {
      if (isWithoutExpiry(error, t.expiresAt.name)) return late;
      throw error;
    });

  const end = async (on: Connection, id: string, times: CallTimes, send: typeof endLive) => {
    const values = { id, now: String(Date.now()), ...writeValues(on, times) };
    return (await send(on, values)) > 0 && told(on, 'd', id, true);
  };

  return {
    read: async (on, id) => {
      const [found] = await read(on, { id });
      return found && storedRow(found);
    },
    touch: async (on, { id, createdAt, expiresAt, aliveAt }, times) => {
      const values = {
        id,
        expiry: String(expiresAt),
        alive: String(aliveAt),
        ...writeValues(on, times),
      };
      const touched =
        createdAt === 0
          ? touchAny(on, values)
          : touchLoaded(on, { ...values, created: String(createdAt) });
      return (await touched) > 0;
    },
    save: async (on, row, step, times) => {
      const saved = await save(on, {
        ...valuesOf(row),
        ...writeValues(on, times),
        version: String(row.version),
        step: String(step),
        created: String(row.createdAt),
        seen: String(row.seenExpiresAt),
      });
      return saved > 0 && told(on, 'c', row.id, true);
    },
    insert: (on, row, times) => {
      const sent = insert(on, { ...valuesOf(row), ...writeValues(on, times) });
      return versioned(on, row.id, unlessLate(sent, []));
    },
    replace: (on, row, times) => {
      const values = { ...valuesOf(row), began: beganOf(on, times), ...writeValues(on, times) };
      return versioned(on, row.id, replace(on, values));
    },
    overwrite: (on, row, times) =>
      versioned(on, row.id, overwrite(on, { ...valuesOf(row), ...writeValues(on, times) })),
    isTombstone: async (on, id, times) => {
      const began = times === undefined ? '0' : beganOf(on, times);
      const [row] = await tombstoneOf(on, { id, began });
      return row?.revoked === 'true';
    },
    endLive: (on, id, times) => end(on, id, times, endLive),
    endExpired: (on, id, times) => end(on, id, times, endExpired),
    bury: async (on, id, times) =>
      (await unlessLate(bury(on, { id, ...writeValues(on, times) }), 0)) > 0,
  };
}

/** Not null violation. */
const IS_NULL = '23502';

/**
 * Whether a row was refused because it has no expiry. Not every engine names the column.
 */
function isWithoutExpiry(error: unknown, column: string): boolean {
  if (sqlState(error) !== IS_NULL || !isRecord(error)) return false;
  const named = error.column ?? error.column_name;
  return named === undefined || named === column;
}
