/**
 * Every statement of the store, typed and prepared. Each takes many rows at once and is sent as one
 * implicit transaction, so it commits before it answers.
 *
 * All parameters are texts. A column of a batch is one text joined by a separator and taken apart by
 * `string_to_array`: ids and numbers by a comma, which they cannot contain, data by U+001F, which JSON
 * text cannot contain. Arrays of texts would cost the driver an escape per element, and postgres-js
 * cannot send them where it may not look types up.
 *
 * Rows are reached through `id = any(…)`: a plan that joined instead, made while the table was empty,
 * would go on reading the whole table once it is large.
 *
 * Rows to be updated are locked by a CTE with FOR UPDATE SKIP LOCKED and updated through their `ctid`.
 * No statement waits for a row, so no two can wait for each other. What another transaction holds, or
 * changed after this statement's snapshot (then the `ctid` is not visible to it), is answered as
 * `busy`, and the caller's row is sent again. Postgres never inlines a CTE with a row lock, so
 * MATERIALIZED need not be written. (https://www.postgresql.org/docs/current/sql-select.html#SQL-FOR-UPDATE-SHARE)
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { getTableColumns, is, type SQL, sql } from 'drizzle-orm';
import {
  type AnyPgColumn,
  getTableConfig,
  type PgDatabase,
  type PgQueryResultHKT,
  PgTable,
  type SelectedFields,
} from 'drizzle-orm/pg-core';
import { InvalidArgumentError, storeError } from './errors.js';
import { COLUMN_NAMES } from './names.js';
import { type SessionTable, sessions, sessionTable } from './schema.js';

/** The app's own table: anything that has the session columns, whatever else it has. */
export type AppTable = PgTable &
  Readonly<Record<'id' | 'data' | 'userId' | 'expiresAt', AnyPgColumn>>;

/** @internal The Drizzle database that statements run on. */
export type Database = PgDatabase<PgQueryResultHKT>;

/** How long a tombstone stays, for late writers to run into. */
const TOMBSTONE = sql.raw(`interval '1 hour'`);

/** Ids in one notification: 44 bytes each, of the 8,000 that Postgres takes. */
const IDS_PER_NOTIFICATION = 150;

/** How long an insert waits for another transaction that is inserting the same id. */
const INSERT_LOCK_TIMEOUT = '100ms';

/** A session's row as a read gives it. Times are milliseconds since 1970. */
export interface StoredRow {
  readonly id: string;
  readonly data: string;
  readonly version: number;
  /** In microseconds: with the version, it tells this session from a later one of the same id. */
  readonly createdAt: number;
  readonly expiresAt: number;
  readonly userId: string | null;
}

/** `done`; `gone`: no row, or a tombstone; `busy`: held by another transaction, to be sent again. */
export type Outcome = 'done' | 'gone' | 'busy';

export interface TouchRow {
  readonly id: string;
  readonly expiresAt: number;
  /** A session that had expired by then is not touched. */
  readonly aliveAt: number;
}

/** What a save writes. */
export interface WriteRow {
  readonly id: string;
  readonly data: string;
  readonly expiresAt: number;
  readonly userId: string | null;
}

/** A write that holds only if the stored session is the one that was read. */
export interface SaveRow extends WriteRow {
  readonly version: number;
  readonly createdAt: number;
}

/** What became of a write. */
export type Written =
  | { readonly outcome: 'done'; readonly version: number; readonly createdAt: number }
  | { readonly outcome: 'gone' }
  | { readonly outcome: 'busy' }
  | { readonly outcome: 'conflict'; readonly stored: StoredRow };

/** A row of `sessions()`. Times are milliseconds since 1970. */
export interface ListedRow extends StoredRow {
  readonly lastSeenAt: number;
}

/** The store's own view of an app's table: its columns alone. */
export interface SessionView {
  readonly view: SessionTable;
  readonly tableName: string;
  readonly schemaName: string | undefined;
  /** What error messages call it. */
  readonly label: string;
  readonly userIdType: string;
  /** Whether `user_id` may be emptied in a tombstone. */
  readonly userIdNullable: boolean;
}

/** What makes one store's statements differ from another's. */
export interface StatementSettings extends SessionView {
  readonly withUser: boolean;
  readonly maxLifetime: number | undefined;
  readonly prepared: boolean;
  /** Where and as whom changes are announced. */
  readonly announce: { readonly channel: string; readonly sender: string } | undefined;
}

/** One statement over many rows; the results are in the order of the rows. */
export type Statement<Row, Result> = (rows: readonly Row[]) => Promise<readonly Result[]>;

export interface Statements {
  /** Live or expired, never tombstones; `undefined` where there is none. Locks nothing. */
  readonly read: Statement<string, StoredRow | undefined>;
  /** Moves expiries. Its commit does not wait for the disk. */
  readonly touch: Statement<TouchRow, Outcome>;
  /** Compare-and-set on version and `created_at`. */
  readonly save: Statement<SaveRow, Written>;
  /** Inserts, or overwrites whatever has the id, a tombstone too. */
  readonly create: Statement<WriteRow, Written>;
  /** Inserts or overwrites, but never a tombstone. */
  readonly put: Statement<WriteRow, Written>;
  /** Leaves tombstones. */
  readonly end: Statement<string, Outcome>;
  /** Deletes rows, tombstones too, up to 1,000 a call. `busy`: there are more, or some are held. */
  readonly clear: () => Promise<{ ended: string[]; busy: boolean }>;
  /** Leaves tombstones of one user's sessions, up to 1,000 a call. `busy`: there are more, or some are held. */
  readonly endUser: (
    userId: string,
    exceptId: string,
  ) => Promise<{ ended: string[]; busy: boolean }>;
  /** Leaves tombstones of a user's sessions beyond the `keep` last seen, never of `id`. */
  readonly endBeyond: (
    userId: string,
    id: string,
    keep: number,
    now: number,
  ) => Promise<{ ended: string[]; busy: boolean }>;
  /** A page of live sessions in the order of their ids. */
  readonly list: (page: ListPage) => Promise<readonly ListedRow[]>;
  /** A page of ids of live sessions, in their order. */
  readonly listIds: (page: Omit<ListPage, 'userId'>) => Promise<readonly string[]>;
  readonly count: (now: number) => Promise<number>;
  /** Deletes what has expired by the database's clock, `limit` rows at most, and gives their number. */
  readonly prune: (limit: number) => Promise<number>;
  /** Nothing but a statement on the table, which fails where there is none. */
  readonly probe: () => Promise<void>;
}

export interface ListPage {
  readonly userId: string | undefined;
  readonly after: string;
  readonly limit: number;
  readonly now: number;
}

/** Makes the view of a table, with the names and `user_id`'s SQL type taken from it. */
export function viewOf(table: AppTable, nameOf: (column: AnyPgColumn) => string): SessionView {
  if (!is(table, PgTable)) {
    throw new InvalidArgumentError(
      'table must be a Drizzle Postgres table (sessionTable(), or a pgTable with sessionColumns())',
    );
  }
  const columns: Record<string, AnyPgColumn | undefined> = getTableColumns(table);
  const { name: tableName, schema: schemaName } = getTableConfig(table);
  const names: Record<string, string> = {};
  for (const [key, own] of Object.entries(getTableColumns(sessions))) {
    const theirs = columns[key];
    if (theirs === undefined) {
      throw new InvalidArgumentError(
        `table ${tableName} lacks the column ${key}: spread sessionColumns() into it`,
      );
    }
    if (key !== 'userId' && theirs.getSQLType() !== own.getSQLType()) {
      throw new InvalidArgumentError(
        `column ${key} of table ${tableName} must be ${own.getSQLType()}, but is ${theirs.getSQLType()}`,
      );
    }
    names[key] = nameOf(theirs);
  }
  const view = sessionTable({ tableName, schemaName, columnNames: { ...COLUMN_NAMES, ...names } });
  const { userId } = columns;
  return {
    view,
    tableName,
    schemaName,
    label: [schemaName, tableName].filter((part) => part !== undefined).join('.'),
    userIdType: userId?.getSQLType() ?? 'text',
    userIdNullable: userId?.notNull !== true,
  };
}

/** Builds the statements of a store; nothing is sent. */
export function buildStatements(db: Database, settings: StatementSettings): Statements {
  const { view: t, withUser, maxLifetime, announce } = settings;

  const microseconds = (time: SQL | AnyPgColumn) =>
    sql`(date_part('epoch', ${time}) * 1000000)::bigint`;
  const milliseconds = (time: SQL | AnyPgColumn) =>
    sql`round(date_part('epoch', ${time}) * 1000)::bigint`;
  const timestamp = (ms: SQL) => sql`to_timestamp(${ms}::float8 / 1000)`;
  const column = (of: AnyPgColumn) => sql.identifier(of.name);
  const placeholder = (name: string) => sql.placeholder(name);
  const list = (name: string) => sql`string_to_array(${placeholder(name)}, ',')`;
  const number = (name: string) => sql`${placeholder(name)}::text::float8`;
  const ids = list('ids');
  const userIdText = withUser ? sql`${t.userId}::text` : sql`null::text`;
  /** An expiry that no touch or set moves beyond the absolute end of the session. */
  const capped = (expiry: SQL, createdAt: SQL | AnyPgColumn) =>
    maxLifetime === undefined
      ? expiry
      : sql`least(${expiry}, ${createdAt} + ${sql.raw(`interval '${maxLifetime * 1000} milliseconds'`)})`;

  /** The input of a write: one row a session, its columns by their positions. */
  const written = (columns: readonly string[]) => sql`
    select * from rows from (
      unnest(${sql.join([...columns.map(list), sql`string_to_array(${placeholder('data')}, chr(31))`], sql`, `)})
      ${withUser ? sql`, json_array_elements_text(${placeholder('users')}::json)` : sql``}
    ) as i (${sql.raw([...columns, 'data', ...(withUser ? ['user_id'] : [])].join(', '))})`;
  const inputUserId = sql.raw(`i.user_id::${settings.userIdType}`);
  const setUserId = withUser ? sql`${column(t.userId)} = ${inputUserId},` : sql``;

  /** Announces what `changed` holds, in as few notifications as fit, in the same transaction. */
  const announcement = (kind: 'c' | 'd', changed: string) =>
    announce === undefined
      ? undefined
      : cte(
          'announced',
          sql`
          select pg_notify(${sql.raw(literal(announce.channel))},
            ${sql.raw(literal(`${kind}${announce.sender}`))} || string_agg(id, ','))
          from (select id, (row_number() over () - 1) / ${sql.raw(String(IDS_PER_NOTIFICATION))} as page
            from ${sql.raw(changed)}) as pages
          group by page`,
        );
  /** A CTE that nothing refers to is never run. */
  const announced = announce === undefined ? sql`true` : sql`(select count(*) from announced) >= 0`;

  const cte = (name: string, query: SQL) => db.$with(name, {}).as(query);
  type Cte = ReturnType<typeof cte>;

  /** The tombstones that `ended` leaves of the rows that `locked` holds. */
  const tombstones = (condition: SQL = sql`true`) =>
    cte(
      'ended',
      sql`
    update ${t} set ${column(t.data)} = null,
      ${settings.userIdNullable ? sql`${column(t.userId)} = null,` : sql``}
      ${column(t.version)} = ${t.version} + 1, ${column(t.revokedAt)} = now(),
      ${column(t.expiresAt)} = now() + ${TOMBSTONE}
    from locked where ${t}.ctid = locked.at and ${condition}
    returning ${t.id} as id`,
    );

  /** Prepares a statement; its name carries a hash of its text, so that two stores can share a pool. */
  function prepare<F extends Record<string, SQL.Aliased>>(
    kind: string,
    ctes: readonly (Cte | undefined)[],
    fields: F,
    result: SQL,
  ): (values: Record<string, unknown>) => Promise<{ [K in keyof F]: F[K]['_']['type'] }[]> {
    const query = db
      .with(...ctes.filter((one) => one !== undefined), cte('result', result))
      .select<SelectedFields>(fields)
      .from(sql`result`);
    type Rows = Promise<{ [K in keyof F]: F[K]['_']['type'] }[]>;
    const hash = createHash('sha256').update(query.toSQL().sql).digest('base64url').slice(0, 16);
    const statement = settings.prepared ? query.prepare(`connect_drizzle_${kind}_${hash}`) : query;
    return async (values) => {
      try {
        return await (statement.execute(values) as Rows);
      } catch (error) {
        throw storeError(error, settings.label);
      }
    };
  }

  const idField = { id: sql<string>`id`.as('id') };
  const outcomeFields = { ...idField, outcome: sql<Outcome>`outcome`.as('outcome') };
  const storedFields = {
    ...idField,
    data: sql<string | null>`data`.as('data'),
    version: sql<number | string>`version`.as('version'),
    createdAt: sql<number | string>`created_us`.as('created_us'),
    expiresAt: sql<number | string>`expires_ms`.as('expires_ms'),
    userId: sql<string | null>`owner`.as('owner'),
  };
  const writtenFields = {
    ...storedFields,
    outcome: sql<Outcome | 'conflict'>`outcome`.as('outcome'),
  };
  const listedFields = { ...storedFields, lastSeenAt: sql<number | string>`seen_ms`.as('seen_ms') };
  const storedColumns = sql`${t.id} as id, ${t.data}::text as data, ${t.version} as version,
    ${microseconds(t.createdAt)} as created_us, ${milliseconds(t.expiresAt)} as expires_ms, ${userIdText} as owner`;

  const readRows = prepare(
    'read',
    [],
    storedFields,
    sql`
    select ${storedColumns} from ${t} where ${t.id} = any(${ids}) and ${t.revokedAt} is null`,
  );

  const touchRows = prepare(
    'touch',
    [
      // The scalar subselect is evaluated once, before a row is locked, and holds for this transaction.
      cte(
        'locked',
        sql`
      select ${t.id} as id, ${t}.ctid as at from ${t}
      where ${t.id} = any(${ids}) and ${t.revokedAt} is null
        and (select set_config('synchronous_commit', 'off', true)) is not null
      for update skip locked`,
      ),
      cte(
        'input',
        sql`
      select * from unnest(${ids}, ${list('expiries')}, ${list('alive')}) as i (id, expiry, alive)`,
      ),
      cte(
        'moved',
        sql`
      update ${t} set ${column(t.expiresAt)} = ${capped(timestamp(sql`i.expiry`), t.createdAt)},
        ${column(t.lastSeenAt)} = now()
      from locked join input i on i.id = locked.id
      where ${t}.ctid = locked.at and ${t.expiresAt} > ${timestamp(sql`i.alive`)}
      returning ${t.id} as id`,
      ),
    ],
    outcomeFields,
    sql`
    select id, 'done' as outcome from moved
    union all
    select ${t.id}, 'busy' from ${t} join input i on i.id = ${t.id}
    where (select count(*) from moved) < cardinality(${ids})
      and ${t.id} = any(${ids}) and ${t.revokedAt} is null
      and ${t.expiresAt} > ${timestamp(sql`i.alive`)}
      and ${t.id} not in (select id from moved)`,
  );

  const unchanged = sql`locked.version = i.version::integer and locked.created_us = i.created::bigint`;
  const saveRows = prepare(
    'save',
    [
      cte(
        'locked',
        sql`
      select ${storedColumns}, ${t.revokedAt} as revoked_at, ${t}.ctid as at from ${t}
      where ${t.id} = any(${ids}) for update skip locked`,
      ),
      cte('input', written(['ids', 'version', 'created', 'expiry'])),
      cte(
        'saved',
        sql`
      update ${t} set ${column(t.data)} = i.data::json, ${setUserId}
        ${column(t.version)} = ${t.version} + 1, ${column(t.lastSeenAt)} = now(),
        ${column(t.expiresAt)} = ${capped(timestamp(sql`i.expiry`), t.createdAt)}
      from locked join input i on i.ids = locked.id
      where ${t}.ctid = locked.at and locked.revoked_at is null and ${unchanged}
      returning ${t.id} as id`,
      ),
      announcement('c', 'saved'),
    ],
    writtenFields,
    sql`
    select judged.id, case outcome when 'conflict' then data end as data,
      case outcome when 'done' then version + 1 else version end as version, created_us, expires_ms,
      owner, outcome
    from (
      select locked.*, case
        when saved.id is not null then 'done'
        when locked.revoked_at is not null then 'gone'
        when ${unchanged} then 'busy'
        else 'conflict' end as outcome
      from locked join input i on i.ids = locked.id left join saved on saved.id = locked.id
    ) as judged
    where ${announced}
    union all
    select ${t.id}, null, 0, 0, 0, null, 'busy' from ${t}
    where (select count(*) from locked) < cardinality(${ids})
      and ${t.id} = any(${ids}) and ${t.revokedAt} is null
      and ${t.id} not in (select id from locked)`,
  );

  const insertRows = (kind: 'create' | 'put') =>
    prepare(
      kind,
      [
        cte(
          'locked',
          sql`
      select ${t.id} as id from ${t}
      where ${t.id} = any(${ids})
        and (select set_config('lock_timeout', ${sql.raw(literal(INSERT_LOCK_TIMEOUT))}, true)) is not null
      for update skip locked`,
        ),
        cte(
          'held',
          sql`
      select ${t.id} as id from ${t}
      where ${t.id} = any(${ids}) and ${t.id} not in (select id from locked)`,
        ),
        cte(
          'written',
          sql`
      insert into ${t} (${sql.join(
        [t.id, t.data, ...(withUser ? [t.userId] : []), t.expiresAt].map(column),
        sql`, `,
      )})
      select i.ids, i.data::json, ${withUser ? sql`${inputUserId},` : sql``}
        ${capped(timestamp(sql`i.expiry`), sql`now()`)}
      from (${written(['ids', 'expiry'])}) as i
      where i.ids not in (select id from held)
      order by i.ids collate "C"
      on conflict (${column(t.id)}) do update set ${column(t.data)} = excluded.${column(t.data)},
        ${withUser ? sql`${column(t.userId)} = excluded.${column(t.userId)},` : sql``}
        ${column(t.version)} = ${t.version} + 1, ${column(t.lastSeenAt)} = now(),
        ${
          kind === 'create'
            ? sql`${column(t.createdAt)} = now(), ${column(t.revokedAt)} = null,
                ${column(t.expiresAt)} = excluded.${column(t.expiresAt)}`
            : sql`${column(t.expiresAt)} = ${capped(sql`excluded.${column(t.expiresAt)}`, t.createdAt)}`
        }
      ${kind === 'create' ? sql`` : sql`where ${t.revokedAt} is null`}
      returning ${t.id} as id, ${t.version} as version, ${microseconds(t.createdAt)} as created_us`,
        ),
        announcement('c', 'written'),
      ],
      writtenFields,
      sql`
    select id, null as data, version, created_us, 0 as expires_ms, null as owner, 'done' as outcome
    from written where ${announced}
    union all
    select id, null, 0, 0, 0, null, 'busy' from held`,
    );
  const createRows = insertRows('create');
  const putRows = insertRows('put');

  const endRows = prepare(
    'end',
    [
      cte(
        'locked',
        sql`
      select ${t.id} as id, ${t}.ctid as at from ${t}
      where ${t.id} = any(${ids}) and ${t.revokedAt} is null
      for update skip locked`,
      ),
      tombstones(),
      announcement('d', 'ended'),
    ],
    outcomeFields,
    sql`
    select id, 'done' as outcome from ended where ${announced}
    union all
    select ${t.id}, 'busy' from ${t}
    where (select count(*) from ended) < cardinality(${ids})
      and ${t.id} = any(${ids}) and ${t.revokedAt} is null
      and ${t.id} not in (select id from ended)`,
  );

  const ofUser = sql`${t.userId} = ${sql`${placeholder('user')}::text`}::${sql.raw(settings.userIdType)}
    and ${t.revokedAt} is null`;
  const endUserRows = prepare(
    'end_user',
    [
      cte(
        'locked',
        sql`
      select ${t.id} as id, ${t}.ctid as at from ${t}
      where ${ofUser} and ${t.id} <> ${placeholder('except')}
      limit 1000 for update skip locked`,
      ),
      tombstones(),
      announcement('d', 'ended'),
    ],
    outcomeFields,
    sql`
    select id, 'done' as outcome from ended where ${announced}
    union all
    (select ${t.id}, 'busy' from ${t}
      where ${ofUser} and ${t.id} <> ${placeholder('except')} and ${t.id} not in (select id from ended)
      limit 1)`,
  );

  // The user's sessions are all locked before any is judged. Two log-ins at once cannot each end the
  // other: one of them finds rows that it cannot lock, or that the other has ended.
  const liveOfUser = sql`${ofUser} and ${t.expiresAt} > ${timestamp(number('now'))}`;
  const endBeyondRows = prepare(
    'end_beyond',
    [
      cte(
        'locked',
        sql`
      select ${t.id} as id, ${t}.ctid as at, ${t.lastSeenAt} as seen from ${t}
      where ${liveOfUser} for update skip locked`,
      ),
      cte(
        'surplus',
        sql`
      select id from locked where id <> ${placeholder('id')}
        and (select count(*) from locked) = (select count(*) from ${t} where ${liveOfUser})
      order by seen desc, id
      offset ${number('keep')}::integer
        - (select count(*) from locked where id = ${placeholder('id')})`,
      ),
      tombstones(sql`locked.id in (select id from surplus)`),
      announcement('d', 'ended'),
    ],
    outcomeFields,
    sql`
    select id, 'done' as outcome from ended where ${announced}
    union all
    select '', 'busy'
    where (select count(*) from locked) <> (select count(*) from ${t} where ${liveOfUser})
      or (select count(*) from ended) <> (select count(*) from surplus)`,
  );

  const clearRows = prepare(
    'clear',
    [
      cte(
        'cleared',
        sql`
      delete from ${t} where ctid = any(array(select ctid from ${t} limit 1000 for update skip locked))
      returning ${t.id} as id`,
      ),
      announcement('d', 'cleared'),
    ],
    outcomeFields,
    sql`
    select id, 'done' as outcome from cleared where ${announced}
    union all
    (select ${t.id}, 'busy' from ${t} where ${t.id} not in (select id from cleared) limit 1)`,
  );

  const isLive = sql`${t.revokedAt} is null and ${t.expiresAt} > ${timestamp(number('now'))}
    ${
      maxLifetime === undefined
        ? sql``
        : sql`and ${t.createdAt} > ${timestamp(number('now'))} - ${sql.raw(`interval '${maxLifetime * 1000} milliseconds'`)}`
    }`;
  const nextPage = sql`${t.id} > ${placeholder('after')} order by ${t.id} limit ${number('limit')}::integer`;
  const listed = sql`select ${storedColumns}, ${milliseconds(t.lastSeenAt)} as seen_ms from ${t} where ${isLive}`;
  const listAll = prepare('list', [], listedFields, sql`${listed} and ${nextPage}`);
  const listOfUser = prepare(
    'list_user',
    [],
    listedFields,
    sql`${listed} and ${ofUser} and ${nextPage}`,
  );
  const listIdRows = prepare(
    'list_ids',
    [],
    idField,
    sql`
    select ${t.id} as id from ${t} where ${isLive} and ${nextPage}`,
  );
  const countRows = prepare(
    'count',
    [],
    { count: sql<number | string>`count`.as('count') },
    sql`
    select count(*) as count from ${t} where ${isLive}`,
  );

  // `expires_hour <= now()` finds the rows by the index; the second condition is exact.
  const pruneRows = prepare(
    'prune',
    [
      cte(
        'pruned',
        sql`
      delete from ${t} where ctid = any(array(
        select ctid from ${t} where ${t.expiresHour} <= now() and ${t.expiresAt} <= now()
        limit ${number('limit')}::integer for update skip locked))
      returning 1`,
      ),
    ],
    { count: sql<number | string>`count`.as('count') },
    sql`select count(*) as count from pruned`,
  );
  const probeRows = prepare('probe', [], idField, sql`select ${t.id} as id from ${t} limit 0`);

  const userColumn = (rows: readonly WriteRow[]) =>
    withUser ? { users: JSON.stringify(rows.map((row) => row.userId)) } : {};
  const insert =
    (run: typeof createRows): Statement<WriteRow, Written> =>
    async (rows) =>
      inOrder(
        rows,
        (row) => row.id,
        GONE,
        toWritten,
        await run({
          ids: rows.map((row) => row.id).join(','),
          expiry: rows.map((row) => row.expiresAt).join(','),
          data: rows.map((row) => row.data).join(SEPARATOR),
          ...userColumn(rows),
        }),
      );
  const outcomes = (rows: { id: string; outcome: Outcome }[]) => ({
    ended: rows.filter((row) => row.outcome === 'done').map((row) => row.id),
    busy: rows.some((row) => row.outcome === 'busy'),
  });

  return {
    read: async (rows) =>
      inOrder(rows, (id) => id, undefined, toStored, await readRows({ ids: rows.join(',') })),
    touch: async (rows) =>
      inOrder(
        rows,
        (row) => row.id,
        'gone',
        (row) => row.outcome,
        await touchRows({
          ids: rows.map((row) => row.id).join(','),
          expiries: rows.map((row) => row.expiresAt).join(','),
          alive: rows.map((row) => row.aliveAt).join(','),
        }),
      ),
    save: async (rows) =>
      inOrder(
        rows,
        (row) => row.id,
        GONE,
        toWritten,
        await saveRows({
          ids: rows.map((row) => row.id).join(','),
          version: rows.map((row) => row.version).join(','),
          created: rows.map((row) => row.createdAt).join(','),
          expiry: rows.map((row) => row.expiresAt).join(','),
          data: rows.map((row) => row.data).join(SEPARATOR),
          ...userColumn(rows),
        }),
      ),
    create: insert(createRows),
    put: insert(putRows),
    end: async (rows) =>
      inOrder(
        rows,
        (id) => id,
        'gone',
        (row) => row.outcome,
        await endRows({ ids: rows.join(',') }),
      ),
    clear: async () => outcomes(await clearRows({})),
    endUser: async (user, except) => outcomes(await endUserRows({ user, except })),
    endBeyond: async (user, id, keep, now) =>
      outcomes(await endBeyondRows({ user, id, keep: String(keep), now: String(now) })),
    list: async ({ userId, after, limit, now }) => {
      const page = { after, limit: String(limit), now: String(now) };
      const rows = await (userId === undefined
        ? listAll(page)
        : listOfUser({ ...page, user: userId }));
      return rows.map((row) => ({ ...toStored(row), lastSeenAt: Number(row.lastSeenAt) }));
    },
    listIds: async ({ after, limit, now }) =>
      (await listIdRows({ after, limit: String(limit), now: String(now) })).map((row) => row.id),
    count: async (now) => Number((await countRows({ now: String(now) }))[0]?.count),
    prune: async (limit) => Number((await pruneRows({ limit: String(limit) }))[0]?.count),
    probe: async () => void (await probeRows({})),
  };
}

/** U+001F: JSON text escapes it, so it separates JSON texts. */
const SEPARATOR = '\u001f';

const GONE: Written = { outcome: 'gone' };

interface StoredFields {
  readonly id: string;
  readonly data: string | null;
  readonly version: number | string;
  readonly createdAt: number | string;
  readonly expiresAt: number | string;
  readonly userId: string | null;
}

function toStored(row: StoredFields): StoredRow {
  return {
    id: row.id,
    data: row.data ?? 'null',
    version: Number(row.version),
    createdAt: Number(row.createdAt),
    expiresAt: Number(row.expiresAt),
    userId: row.userId,
  };
}

function toWritten(row: StoredFields & { readonly outcome: Outcome | 'conflict' }): Written {
  if (row.outcome === 'conflict') return { outcome: 'conflict', stored: toStored(row) };
  if (row.outcome !== 'done') return { outcome: row.outcome };
  return { outcome: 'done', version: Number(row.version), createdAt: Number(row.createdAt) };
}

/** Brings results, which come in the database's order, into that of the input; `absent` where there is none. */
function inOrder<Row, Found extends { readonly id: string }, Result>(
  rows: readonly Row[],
  idOf: (row: Row) => string,
  absent: Result,
  convert: (found: Found) => Result,
  found: readonly Found[],
): Result[] {
  const byId = new Map(found.map((one) => [one.id, one]));
  return rows.map((row) => {
    const one = byId.get(idOf(row));
    return one === undefined ? absent : convert(one);
  });
}

/** A text as an SQL literal, for the few that are made by this package itself. */
function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
