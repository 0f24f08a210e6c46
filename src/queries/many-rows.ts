/**
 * Statements for a batch of rows. Each is one implicit transaction, so it has committed when its result arrives.
 *
 * A CTE with FOR UPDATE SKIP LOCKED locks the rows, and the update finds them by their `ctid`. No statement waits for a
 * row, so no two can deadlock. A row is busy and is sent again if another transaction has locked it, or has changed it
 * after this statement's snapshot (its `ctid` is then not visible).
 * Postgres never inlines a CTE with a row lock, so MATERIALIZED is not needed.
 * (https://www.postgresql.org/docs/current/sql-select.html#SQL-FOR-UPDATE-SHARE)
 *
 * A write returns only the rows it changed; the rest are read afterwards. Returning them in the same statement would double
 * the server's time for every call.
 *
 * @module
 */
import { and, eq, gt, gte, isNotNull, isNull, notInArray, or, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { monotonicMs } from '../util/clock.js';
import { db, statement } from './compile.js';
import {
  type FragmentSettings,
  type Fragments,
  inputOf,
  LOCK_TIMEOUT,
  skipLocked,
} from './fragments.js';
import { beganOf, untilOf } from './server-time.js';
import {
  bigint,
  clockMs,
  inByteOrder,
  integer,
  isBefore,
  joinedText,
  microseconds,
  none,
  now,
  scalar,
  setLocally,
  text,
  timestamp,
} from './sql.js';
import {
  type CallTimes,
  DATA_SEPARATOR,
  joined,
  type SaveRow,
  type StoredRow,
  split,
  storedRow,
  type TouchRow,
  type WriteRow,
} from './wire.js';

/** The rows that an insert wrote, by id, and the ids of tombstones. The others are busy. */
export interface Inserted {
  readonly written: ReadonlyMap<string, { readonly version: number; readonly createdAt: number }>;
  readonly gone: ReadonlySet<string>;
}

type Times = readonly CallTimes[];

export interface ManyRows {
  read(on: Connection, ids: readonly string[]): Promise<ReadonlyMap<string, StoredRow>>;
  /** These three return the ids of the rows that they changed. `end` returns the ids of the sessions that it ended. */
  touch(on: Connection, rows: readonly TouchRow[], times: Times): Promise<ReadonlySet<string>>;
  /** `step`: see `versionStep`. One step is enough for all rows, because a version must only differ from other versions of its row. */
  save(
    on: Connection,
    rows: readonly SaveRow[],
    step: number,
    times: Times,
  ): Promise<ReadonlySet<string>>;
  end(on: Connection, ids: readonly string[], times: Times): Promise<ReadonlySet<string>>;
  create(on: Connection, rows: readonly WriteRow[], times: Times): Promise<Inserted>;
  put(on: Connection, rows: readonly WriteRow[], times: Times): Promise<Inserted>;
}

export function manyRows(settings: FragmentSettings, f: Fragments): ManyRows {
  const { rows: t, insertable, withUser, prepared } = settings;
  const owner: 'owner'[] = withUser ? ['owner'] : [];
  const waitsBriefly = setLocally('lock_timeout', LOCK_TIMEOUT);

  const read = statement('read_many', prepared, ['id'], () => {
    const { given, includes } = inputOf();
    return db
      .with(given)
      .select(f.readFields())
      .from(t)
      .where(and(includes(t.id), f.isNotEnded));
  });

  const touch = statement(
    'touch_many',
    prepared,
    ['id', 'created', 'expiry', 'alive', 'until'],
    () => {
      const { given, input, includes } = inputOf('created', 'expiry', 'alive', 'until');
      const locked = f.lock(
        and(includes(t.id), f.isNotEnded, setLocally('synchronous_commit', 'off')),
      );
      const touched = db.$with('touched').as(
        db
          .update(t)
          .set({ lastSeenAt: now, expiresAt: f.touchedExpiry(input.created, input.expiry) })
          .from(locked)
          .innerJoin(input, eq(input.id, locked.id))
          .where(
            and(
              f.isLocked(locked),
              or(eq(input.created, sql`'0'`), eq(input.created, text(microseconds(t.createdAt)))),
              gt(t.expiresAt, timestamp(input.alive)),
            ),
          )
          .returning({ id: t.id }),
      );
      return db
        .with(given, input, locked, touched)
        .select({ done: joinedText(touched.id) })
        .from(touched);
    },
  );

  const save = statement(
    'save_many',
    prepared,
    ['id', 'version', 'step', 'created', 'seen', 'expiry', 'data', 'owner', 'until'],
    (p) => {
      const { given, input, includes } = inputOf(
        'version',
        'created',
        'seen',
        'expiry',
        'data',
        'until',
        ...owner,
      );
      const locked = f.lock(and(includes(t.id), f.isNotEnded, withUser ? waitsBriefly : undefined));
      const saved = db.$with('saved').as(
        db
          .update(t)
          .set({
            ...f.written(input.data, input.owner, integer(p.step)),
            expiresAt: f.savedExpiry(input.seen, input.expiry),
          })
          .from(locked)
          .innerJoin(input, eq(input.id, locked.id))
          .where(
            and(
              f.isLocked(locked),
              eq(t.version, integer(input.version)),
              eq(microseconds(t.createdAt), bigint(input.created)),
            ),
          )
          .returning({ id: t.id }),
      );
      const { announced, isAnnounced } = f.announcement('c', saved);
      return db
        .with(given, input, locked, saved, ...announced)
        .select({ done: joinedText(saved.id) })
        .from(saved)
        .where(isAnnounced);
    },
  );

  /** Overwrites the rows that exist, and inserts the others; `create` overwrites tombstones made before it began. */
  const insertMany = (kind: 'create' | 'put') =>
    statement(`${kind}_many`, prepared, ['id', 'expiry', 'data', 'owner', 'began', 'until'], () => {
      const columns = ['expiry', 'data', 'began', 'until', ...owner] as const;
      const { given, input, includes, isGiven } = inputOf(...columns);
      const locked = db.$with('locked').as(
        db
          .select({ id: t.id, ...f.place, revokedAt: t.revokedAt })
          .from(t)
          .where(and(includes(t.id), f.isOurs, waitsBriefly))
          .for('update', skipLocked),
      );
      // Joined before the update: the ORDER BY keeps the planner from joining the table first, which it expects
      // to have few matching rows, and then comparing each row with each.
      const existing = db
        .select({
          ctid: locked.ctid,
          tableoid: locked.tableoid,
          revokedAt: locked.revokedAt,
          data: input.data,
          expiry: input.expiry,
          began: input.began,
          owner: withUser ? input.owner : sql<string | null>`null`.as('owner'),
        })
        .from(locked)
        .innerJoin(input, eq(input.id, locked.id))
        .orderBy(locked.ctid)
        .as('existing');
      const expiry = timestamp(existing.expiry);
      const written = f.written(existing.data, existing.owner);
      const updated = db.$with('updated').as(
        db
          .update(t)
          .set(
            kind === 'create'
              ? { ...written, createdAt: now, revokedAt: none, expiresAt: f.capped(expiry, now) }
              : { ...written, expiresAt: f.capped(expiry, t.createdAt) },
          )
          .from(existing)
          .where(
            and(
              f.isLocked(existing),
              kind === 'put'
                ? isNull(existing.revokedAt)
                : f.isNotEndedSince(existing.revokedAt, existing.began),
            ),
          )
          .returning({ id: t.id, ...f.writtenFields }),
      );
      const ownerOfRow = f.ownerOf(input.owner);
      const present = db.select({ id: t.id }).from(t).where(isGiven(t.id));
      const inserted = db.$with('inserted').as(
        db
          .insert(insertable)
          .select(
            db
              .select({
                id: input.id,
                data: f.stored(input.data).as('data'),
                ...(ownerOfRow ? { userId: ownerOfRow.as('owner') } : {}),
                expiresAt: f.capped(timestamp(input.expiry), now).as('expiry'),
              })
              .from(input)
              .where(and(waitsBriefly, isBefore(input.until), notInArray(input.id, present)))
              .orderBy(inByteOrder(input.id)),
          )
          .onConflictDoNothing({ target: t.id })
          .returning({ id: t.id, ...f.writtenFields }),
      );
      const done = db
        .$with('done')
        .as(db.select().from(updated).unionAll(db.select().from(inserted)));
      const { announced, isAnnounced } = f.announcement('c', done);
      const tombstones = db
        .select({ ids: joinedText(locked.id) })
        .from(locked)
        .$dynamic();
      const gone =
        kind === 'put'
          ? tombstones.where(isNotNull(locked.revokedAt))
          : tombstones
              .innerJoin(input, eq(input.id, locked.id))
              .where(gte(locked.revokedAt, timestamp(input.began)));
      return db
        .with(given, input, locked, updated, inserted, done, ...announced)
        .select({
          id: joinedText(done.id),
          version: joinedText(done.version),
          createdAt: joinedText(done.createdAt),
          gone: scalar<string | null>(gone),
          clock: text(clockMs),
        })
        .from(done)
        .where(isAnnounced);
    });
  const create = insertMany('create');
  const put = insertMany('put');

  const end = statement('end_many', prepared, ['id', 'now', 'until'], () => {
    const { given, includes } = inputOf('until');
    const locked = f.lockEnding(and(includes(t.id), f.isNotEnded));
    const { ended, done, announced, isAnnounced } = f.ending(locked);
    return db
      .with(given, locked, ended, ...announced)
      .select({ done })
      .from(ended)
      .where(isAnnounced);
  });

  const idsIn = ([result]: readonly { done: string | null }[]) =>
    new Set(split(result?.done ?? null));

  const untilAll = (on: Connection, times: Times) => joined(times, (each) => untilOf(on, each));

  const valuesOf = (on: Connection, rows: readonly WriteRow[], times: Times) => ({
    id: joined(rows, (row) => row.id),
    until: untilAll(on, times),
    expiry: joined(rows, (row) => row.expiresAt),
    data: joined(rows, (row) => row.data, DATA_SEPARATOR),
    owner: withUser ? JSON.stringify(rows.map((row) => row.userId)) : null,
  });

  const inserting =
    (send: typeof create) =>
    async (on: Connection, rows: readonly WriteRow[], times: Times): Promise<Inserted> => {
      const began = joined(times, (each) => beganOf(on, each));
      const sentMs = monotonicMs();
      const [result] = await send(on, { ...valuesOf(on, rows, times), began });
      on.clock.read(Number(result?.clock), sentMs);
      const versions = split(result?.version ?? null);
      const createdAt = split(result?.createdAt ?? null);
      const written = split(result?.id ?? null).map(
        (id, at) =>
          [id, { version: Number(versions[at]), createdAt: Number(createdAt[at]) }] as const,
      );
      return { written: new Map(written), gone: new Set(split(result?.gone ?? null)) };
    };

  return {
    read: async (on, ids) => {
      const sentMs = monotonicMs();
      const found = (await read(on, { id: ids.join(',') })).map(storedRow);
      if (found[0] !== undefined) on.clock.read(found[0].timeMs, sentMs);
      return new Map(found.map((row) => [row.id, row]));
    },
    touch: async (on, rows, times) =>
      idsIn(
        await touch(on, {
          until: untilAll(on, times),
          id: joined(rows, (row) => row.id),
          created: joined(rows, (row) => row.createdAt),
          expiry: joined(rows, (row) => row.expiresAt),
          alive: joined(rows, (row) => row.aliveAt),
        }),
      ),
    save: async (on, rows, step, times) =>
      idsIn(
        await save(on, {
          ...valuesOf(on, rows, times),
          step: String(step),
          version: joined(rows, (row) => row.version),
          created: joined(rows, (row) => row.createdAt),
          seen: joined(rows, (row) => row.seenExpiresAt),
        }),
      ),
    create: inserting(create),
    put: inserting(put),
    end: async (on, ids, times) => {
      const values = { id: ids.join(','), now: String(Date.now()), until: untilAll(on, times) };
      return idsIn(await end(on, values));
    },
  };
}
