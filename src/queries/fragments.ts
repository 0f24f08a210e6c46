/**
 * The parts that several statements share.
 *
 * @module
 */
import { and, eq, gt, isNull, lt, or, type SQL, sql, type WithSubquery } from 'drizzle-orm';
import {
  type AnyPgColumn,
  type PgUpdateSetSource,
  pgTable,
  text as textColumn,
} from 'drizzle-orm/pg-core';
import { db } from './compile.js';
import type { Engine } from './engines.js';
import {
  afterSetting,
  clockMs,
  costly,
  isBefore,
  joinedText,
  literal,
  microseconds,
  milliseconds,
  nearlyAlways,
  none,
  notify,
  now,
  parameter,
  text,
  timestamp,
  unread,
  xor,
} from './sql.js';
import type { RowTable, SessionView } from './view.js';

/** The settings that change the statements of a store. */
export interface FragmentSettings extends SessionView {
  /** Whether the store fills `user_id`. */
  readonly withUser: boolean;
  /** Seconds. */
  readonly maxLifetime: number | undefined;
  readonly prepared: boolean;
  /** The channel on which changes are announced, and this store's name there. */
  readonly announce: { readonly channel: string; readonly sender: string } | undefined;
}

/** The same, with the engine that runs them. */
export interface StatementSettings extends FragmentSettings {
  readonly engine: Pick<Engine, 'isPortable' | 'limitsLockWaits'>;
}

/** The lifetime of a tombstone. */
const TOMBSTONE = sql.raw(`interval '1 hour'`);

/** A {@link versionStep} that the server chooses, for statements that return the version, or do not need it. */
const ANY_STEP = sql.raw('(1 + random() * 1073741822)::integer');

/**
 * How long a write waits for another transaction in cases that SKIP LOCKED does not cover: an id that is being inserted, or
 * the row that an app's foreign key refers to.
 */
export const LOCK_TIMEOUT = '100ms';

/** An id is base64url of 32 bytes. A row inserted by hand can have a longer one, which stores ignore. */
const ID_BYTES = 43;

/** Number of ids, each with a comma, that fit into the 8,000 bytes of a notification. */
const IDS_PER_NOTIFICATION = 150;

/** Needed because otherwise the compiler accepts an unknown column in an object that is spread into `set()`. */
type Changes = PgUpdateSetSource<RowTable>;

export interface Place {
  readonly ctid: AnyPgColumn;
  readonly tableoid: AnyPgColumn;
}

export const skipLocked = { skipLocked: true } as const;

/**
 * The rows of a batch as the CTE `input`. It is declared as a table so that Drizzle qualifies its columns:
 * 0.45 leaves aliased expressions unqualified.
 */
const inputTable = /* @__PURE__ */ pgTable('input', {
  id: textColumn('id').notNull(),
  version: textColumn('version').notNull(),
  created: textColumn('created').notNull(),
  seen: textColumn('seen').notNull(),
  expiry: textColumn('expiry').notNull(),
  alive: textColumn('alive').notNull(),
  data: textColumn('data').notNull(),
  owner: textColumn('owner'),
  until: textColumn('until').notNull(),
  began: textColumn('began').notNull(),
});
type InputTable = typeof inputTable;
export type InputColumn = Exclude<keyof InputTable['_']['columns'], 'id'>;

/**
 * Splits the parameters of a batch, one string per column, into rows. CTEs hide them from the planner. If the planner knew
 * the length of a list, it would estimate the custom plan of each call a little cheaper than the generic plan, and plan
 * every call again.
 */
export function inputOf<const Name extends InputColumn>(...names: readonly Name[]) {
  const all: readonly (Name | 'id' | 'until')[] = ['id', ...names];
  const columns = { id: inputTable.id } as Pick<InputTable, Name | 'id'>;
  for (const name of names) Object.assign(columns, { [name]: inputTable[name] });
  const lists = all.map((name) => {
    const column = sql.identifier(name);
    if (name === 'owner') {
      return sql`array(select json_array_elements_text(${parameter(name)}::json)) as ${column}`;
    }
    const separator = name === 'data' ? sql`chr(31)` : sql`','`;
    return sql`string_to_array(${sql.placeholder(name)}, ${separator}) as ${column}`;
  });
  const given = db.$with('given', {}).as(sql`select ${sql.join(lists, sql`, `)}`);
  const arrays = sql.join(
    all.map((name) => sql`given.${sql.identifier(name)}`),
    sql`, `,
  );
  const aliases = sql.join(
    all.map((name) => sql.identifier(name)),
    sql`, `,
  );
  const rows = db
    .$with('input', columns)
    .as(sql`select i.* from given, unnest(${arrays}) as i (${aliases})`);
  // Not a join: the planner may read the whole table for one.
  const isAny = (column: AnyPgColumn, ids: SQL) =>
    and(eq(column, sql`any(${ids})`), costly(column));
  const inTime = sql`array(select u.id from given, unnest(given.id, given.until) as u (id, until)
    where ${isBefore(sql`u.until`)})`;
  /** Whether the row's id was given. */
  const isGiven = (column: AnyPgColumn) => isAny(column, sql`(select id from given)::text[]`);
  /** The same, and its call has not timed out. */
  const includes = all.includes('until') ? (column: AnyPgColumn) => isAny(column, inTime) : isGiven;
  return { given, input: rows, includes, isGiven };
}

/** The parts that depend on the table and the store's settings. */
export function fragmentsOf(settings: FragmentSettings) {
  const { rows: t, withUser, announce, maxLifetime } = settings;
  const lifetime =
    maxLifetime === undefined
      ? undefined
      : sql.raw(`interval '${maxLifetime * 1000} milliseconds'`);

  /**
   * Always true, and removed by the planner. Every statement has this condition. It names a column that no other package's
   * table has, so that a statement fails on such a table instead of changing it.
   */
  const isOurs = sql`(${t.expiresHour} is not null or true)`;
  /** The stored form of a session, cast to the column's type. */
  const stored = (data: SQL | AnyPgColumn) => sql`${data}::${sql.raw(settings.dataType)}`;
  /** The stored form as text. `data::text` would copy a `json` twice more and take 50 % more time (at 20 KB). */
  const storedText =
    settings.dataType === 'json'
      ? sql<string | null>`convert_from(json_send(${t.data}), pg_client_encoding())`
      : sql<string | null>`${t.data}`;
  /** The position of a row. */
  const place = { ctid: t.ctid, tableoid: t.tableoid };
  const isNotEnded = and(isNull(t.revokedAt), isOurs);
  const clientNow = timestamp(parameter('now'));
  const isLive = and(
    isNotEnded,
    gt(t.expiresAt, clientNow),
    lifetime && gt(t.createdAt, sql`${clientNow} - ${lifetime}`),
  );

  /** An expiry, at most the end of the session's absolute lifetime. */
  const capped = (expiry: SQL, createdAt: SQL | AnyPgColumn): SQL =>
    lifetime === undefined ? expiry : sql`least(${expiry}, ${createdAt} + ${lifetime})`;

  /** An owner, cast to the column's type; `undefined` omits the column. */
  const ownerOf = (owner: SQL | AnyPgColumn | undefined) =>
    withUser && owner !== undefined
      ? sql<string>`${owner}::${sql.raw(settings.userIdType)}`
      : undefined;

  /** The owner of the sessions that a statement lists or ends. */
  const userParameter = sql<string>`${parameter('user')}::${sql.raw(settings.userIdType)}`;

  /** The columns that every write of data changes, except the expiry. */
  const written = (
    data: SQL | AnyPgColumn,
    owner: SQL | AnyPgColumn | undefined,
    step: SQL = ANY_STEP,
  ) =>
    ({
      data: stored(data),
      userId: ownerOf(owner),
      version: xor(t.version, step),
      lastSeenAt: now,
    }) satisfies Changes;

  /** The columns of a tombstone. */
  const tombstone = {
    data: none,
    userId: settings.userIdNullable ? none : undefined,
    version: xor(t.version, ANY_STEP),
    revokedAt: now,
    expiresAt: sql`now() + ${TOMBSTONE}`,
  } satisfies Changes;

  /** Whether a call that began at `began` may overwrite the row: always, except a tombstone that was created later. */
  const isNotEndedSince = (revokedAt: AnyPgColumn, began: SQL | AnyPgColumn) =>
    or(isNull(revokedAt), lt(revokedAt, timestamp(began)));

  /** The expiry of a touch: never earlier for a session that was read. `created` is '0' if none was read. */
  const touchedExpiry = (created: SQL | AnyPgColumn, expiry: SQL | AnyPgColumn) =>
    capped(
      sql`case ${created} when '0' then ${timestamp(expiry)} else greatest(${t.expiresAt}, ${timestamp(expiry)}) end`,
      t.createdAt,
    );

  /** The expiry of a save: the later one if this request and another one have changed it. */
  const savedExpiry = (seen: SQL | AnyPgColumn, expiry: SQL | AnyPgColumn) =>
    capped(
      sql`case when ${expiry} = ${seen} then ${t.expiresAt}
        when ${milliseconds(t.expiresAt)} = ${seen}::bigint then ${timestamp(expiry)}
        else greatest(${t.expiresAt}, ${timestamp(expiry)}) end`,
      t.createdAt,
    );

  /** The result of a read, with the server's clock. `isListing`: always reads `last_seen_at`, see `StoredRow`. */
  const readFields = (isListing = false) => ({
    head: sql<string>`${t.version} || ',' || ${microseconds(t.createdAt)} || ',' || ${milliseconds(t.expiresAt)} || ','
      || ${isListing || lifetime ? milliseconds(t.lastSeenAt) : unread} || ',' || ${clockMs} || ',' || ${t.id}`.as(
      'head',
    ),
    data: storedText.as('data'),
    userId: (withUser ? sql<string | null>`${t.userId}::text` : sql<string | null>`null::text`).as(
      'owner',
    ),
  });

  /** The result of an insert or an overwrite: the values that a later compare-and-set needs. */
  const writtenFields = {
    version: text(t.version).as('written_version'),
    createdAt: text(microseconds(t.createdAt)).as('created_us'),
  };

  /** Announces one id in the statement that changes it. */
  const announcedId = (kind: 'c' | 'd') =>
    announce === undefined
      ? sql<string>`''`
      : notify(literal(announce.channel), sql`${literal(kind + announce.sender)} || ${t.id}`);

  /** Announces the ids of `changed` in the same transaction, in as few notifications as fit. */
  function announcement(kind: 'c' | 'd', changed: WithSubquery & { id: AnyPgColumn }) {
    if (announce === undefined) return { announced: [], isAnnounced: undefined };
    const page = sql`(row_number() over () - 1) / ${sql.raw(String(IDS_PER_NOTIFICATION))}`;
    const pages = db
      .select({ id: changed.id, page: page.as('page') })
      .from(changed)
      .where(eq(sql`octet_length(${changed.id})`, sql.raw(String(ID_BYTES))))
      .as('pages');
    const payload = sql`${literal(kind + announce.sender)} || ${joinedText(pages.id)}`;
    const announced = db.$with('announced').as(
      db
        .select({ sent: notify(literal(announce.channel), payload).as('sent') })
        .from(pages)
        .groupBy(pages.page),
    );
    // Postgres never runs a CTE that nothing refers to.
    return { announced: [announced], isAnnounced: sql`(select count(*) from ${announced}) >= 0` };
  }

  /**
   * The rows that were locked. Compares `tableoid`, because each partition of a table has a row at the same `ctid`. (With a
   * comparison of ids, the planner could join by id, and read the whole table with a plan for an empty one.)
   */
  const isLocked = (locked: Place) =>
    and(eq(t.ctid, locked.ctid), nearlyAlways(eq(t.tableoid, locked.tableoid)), costly(t.id));

  /** Locks the rows that no other transaction has locked. */
  const lock = (condition: SQL | undefined) =>
    db.$with('locked').as(
      db
        .select({ id: t.id, ...place })
        .from(t)
        .where(condition)
        .for('update', skipLocked),
    );

  /** The same for rows to end. `live`: whether they were live before. */
  const lockEnding = (condition: SQL | undefined, limit?: number) => {
    const query = db
      .select({
        id: t.id,
        ...place,
        live: sql<boolean>`${isLive}`.as('live'),
        lastSeenAt: t.lastSeenAt,
      })
      .from(t)
      .where(condition)
      .$dynamic();
    return db
      .$with('locked')
      .as((limit === undefined ? query : query.limit(limit)).for('update', skipLocked));
  };

  /** Ends the locked rows, also expired ones, because a request that is still running could save them. */
  function ending(locked: ReturnType<typeof lockEnding>, condition?: SQL) {
    const ended = db.$with('ended').as(
      db
        .update(t)
        .set(tombstone)
        .from(locked)
        .where(and(isLocked(locked), condition))
        // Qualified by hand, because Drizzle 0.45 does not do it, and an app's column could be called `live`.
        .returning({ id: t.id, live: sql<boolean>`${locked}.live`.as('live') }),
    );
    const done = sql<string | null>`string_agg(${ended.id}, ',') filter (where ${ended.live})`;
    return { ended, done, ...announcement('d', ended) };
  }

  return {
    afterLockTimeout: (value: SQL) => afterSetting('lock_timeout', LOCK_TIMEOUT, value),
    announcedId,
    announcement,
    capped,
    ending,
    isLive,
    isLocked,
    isNotEnded,
    isNotEndedSince,
    isOurs,
    lock,
    lockEnding,
    ownerOf,
    place,
    readFields,
    savedExpiry,
    stored,
    storedText,
    tombstone,
    touchedExpiry,
    userParameter,
    written,
    writtenFields,
  };
}

export type Fragments = ReturnType<typeof fragmentsOf>;
