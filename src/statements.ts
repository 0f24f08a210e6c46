/**
 * Every statement of the store, typed and prepared. Each takes many rows at once and is sent as one
 * implicit transaction, so it commits before it answers.
 *
 * All parameters are texts, a column of the batch each (see `columns.ts`). They are taken apart in a
 * subselect or a CTE, out of the planner's sight: if it could see how long a list is, it would find
 * each call's own plan a little cheaper than the general one, and make a new plan for every call.
 *
 * Each is there twice, over many rows and for a row alone: joining texts and taking them apart is for many.
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
 * The answer of a write is what was done, and no more: what became of the others is read afterwards,
 * where there are any. To have the statement itself tell it costs every caller more than the few who
 * meet another writer save (measured: twice the server's time for a statement of one row).
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { getTableColumns, type SQL, sql } from 'drizzle-orm';
import type { AnyPgColumn, PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core';
import {
  type Answer,
  countAnswer,
  doneAnswer,
  endedAnswer,
  endedIn,
  idAnswer,
  type ListedRow,
  type StoredRow,
  storedAnswer,
  storedOf,
  writtenAnswer,
} from './answers.js';
import { DATA_SEPARATOR, joined, numbers, split } from './columns.js';
import { storeError } from './errors.js';
import { Patience } from './timeout.js';
import type { SessionView } from './view.js';

/** What a statement is for: any number of rows, or one alone. */
type Shape = 'one' | 'many';

/** @internal The Drizzle database that statements run on. */
export type Database = PgDatabase<PgQueryResultHKT>;

/** How long a tombstone stays, for late writers to run into. */
const TOMBSTONE = sql.raw(`interval '1 hour'`);

/** Ids in one notification: 44 bytes each, of the 8,000 that Postgres takes. */
const IDS_PER_NOTIFICATION = 150;

/**
 * How long a write waits for another transaction, where it cannot skip what that one holds: an id that is
 * being inserted, or the user's row that an app's foreign key leads to.
 */
const LOCK_TIMEOUT = '100ms';

/** `done`; `gone`: no row, or a tombstone; `busy`: held by another transaction, to be sent again. */
export type Outcome = 'done' | 'gone' | 'busy';

export interface TouchRow {
  readonly id: string;
  /** Of a session that was read, and only of that one; 0: of whatever session has the id. */
  readonly createdAt: number;
  /** Where a session was read, another request may have moved it further: it is never moved back. */
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
  /** When it was to expire. A touch does not raise the version: of two expiries that both moved, the later holds. */
  readonly seenExpiresAt: number;
}

/** What became of a write. */
export type Written =
  | { readonly outcome: 'done'; readonly version: number; readonly createdAt: number }
  | { readonly outcome: 'gone' }
  | { readonly outcome: 'busy' }
  | { readonly outcome: 'conflict'; readonly stored: StoredRow };

/** What makes one store's statements differ from another's. */
export interface StatementSettings extends SessionView {
  readonly withUser: boolean;
  readonly maxLifetime: number | undefined;
  readonly prepared: boolean;
  /** Seconds for which a statement is waited for. */
  readonly timeout: number;
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
  /** Leaves tombstones; `gone` where the session was not live. */
  readonly end: Statement<string, Outcome>;
  /** Deletes rows, tombstones too, up to 1,000 a call. `busy`: there are more, or some are held. */
  readonly clear: () => Promise<{ ended: string[]; busy: boolean }>;
  /** Leaves tombstones of one user's sessions, up to 1,000 a call; gives the live ones. `busy`: there are more, or some are held. */
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
  /** Sends a message on a channel. */
  readonly notify: (channel: string, payload: string) => Promise<void>;
}

export interface ListPage {
  readonly userId: string | undefined;
  readonly after: string;
  readonly limit: number;
  readonly now: number;
}

/** Builds the statements of a store; nothing is sent. */
export function buildStatements(db: Database, settings: StatementSettings): Statements {
  const { view: t, withUser, announce } = settings;
  const patience = new Patience(settings.timeout);
  const lifetime =
    settings.maxLifetime === undefined
      ? undefined
      : sql.raw(`interval '${settings.maxLifetime * 1000} milliseconds'`);

  const column = (of: AnyPgColumn) => sql.identifier(of.name);
  const text = (name: string) => sql`${sql.placeholder(name)}::text`;
  const number = (name: string) => sql`${text(name)}::float8`;
  const timestamp = (ms: SQL) => sql`to_timestamp(${ms}::float8 / 1000)`;
  const microseconds = (time: SQL | AnyPgColumn) =>
    sql`(date_part('epoch', ${time}) * 1000000)::bigint`;
  const milliseconds = (time: SQL | AnyPgColumn) =>
    sql`round(date_part('epoch', ${time}) * 1000)::bigint`;
  /** An expiry that no touch or set moves beyond the absolute end of the session. */
  const capped = (expiry: SQL, createdAt: SQL | AnyPgColumn) =>
    lifetime === undefined ? expiry : sql`least(${expiry}, ${createdAt} + ${lifetime})`;
  const cte = (name: string, query: SQL) => db.$with(name, {}).as(query);
  type Cte = ReturnType<typeof cte>;

  /** The columns of the input, `ids` and others, taken apart once; those of one row are its values. */
  const given = (shape: Shape, ...names: string[]) => {
    if (shape === 'one') return undefined;
    const lists = names.map((name) => {
      const separator = name === 'data' ? sql`chr(31)` : sql`','`;
      return sql`string_to_array(${sql.placeholder(name)}, ${separator}) as ${sql.identifier(name)}`;
    });
    return cte('given', sql`select ${sql.join(lists, sql`, `)}`);
  };
  const isGiven = (shape: Shape) =>
    shape === 'one'
      ? sql`${t.id} = ${text('ids')}`
      : sql`${t.id} = any((select ids from given)::text[])`;
  const isNotEnded = sql`${t.revokedAt} is null`;

  /** The input as rows, with its columns by their names, and whose they are. */
  const input = (shape: Shape, withOwner: boolean, ...columns: string[]) => {
    if (shape === 'one') {
      const values = columns.map((name) => sql`, ${text(name)} as ${sql.identifier(name)}`);
      const owner = withOwner ? sql`, ${text('users')}::json ->> 0 as owner` : sql``;
      return cte('input', sql`select ${text('ids')} as id${sql.join(values)}${owner}`);
    }
    const lists = sql.raw(['ids', ...columns].map((name) => `given.${name}`).join(', '));
    const users = withOwner ? sql`, json_array_elements_text(${text('users')}::json)` : sql``;
    const names = ['id', ...columns, ...(withOwner ? ['owner'] : [])].join(', ');
    return cte(
      'input',
      sql`select i.* from given, rows from (unnest(${lists})${users}) as i (${sql.raw(names)})`,
    );
  };
  const inputOwner = sql.raw(`input.owner::${settings.userIdType}`);

  /** Locks the rows of the input that nobody else has locked. */
  const locked = (shape: Shape, columns: SQL, condition: SQL) =>
    cte(
      'locked',
      sql`select ${columns} from ${t} where ${isGiven(shape)} and ${condition} for update skip locked`,
    );
  const lockedAt = sql`${t.id} as id, ${t}.ctid as at`;
  const isNotIn = (done: string) => sql`${t.id} not in (select id from ${sql.raw(done)})`;

  /** Sets a server's setting for this transaction; a scalar subselect is run once, before the rows are looked for. */
  const withSetting = (name: string, value: string) =>
    sql`(select set_config(${sql.raw(literal(name))}, ${sql.raw(literal(value))}, true)) is not null`;

  /** Announces what `changed` holds, in as few notifications as fit, in the same transaction. */
  const announcement = (kind: 'c' | 'd', changed: string) =>
    announce &&
    cte(
      'announced',
      sql`select pg_notify(${sql.raw(literal(announce.channel))},
          ${sql.raw(literal(kind + announce.sender))} || string_agg(id, ','))
        from (select id, (row_number() over () - 1) / ${sql.raw(String(IDS_PER_NOTIFICATION))} as page
          from ${sql.raw(changed)}) as pages
        group by page`,
    );
  /** A CTE that nothing refers to is never run. */
  const announced = announce === undefined ? sql`true` : sql`(select count(*) from announced) >= 0`;

  const isLive = sql`${isNotEnded} and ${t.expiresAt} > ${timestamp(number('now'))} ${
    lifetime === undefined
      ? sql``
      : sql`and ${t.createdAt} > ${timestamp(number('now'))} - ${lifetime}`
  }`;

  /**
   * The tombstones that `ended` leaves of the rows that `locked` holds, of expired ones too, which a request that
   * still runs could save.
   */
  const tombstones = (condition: SQL = sql`true`) =>
    cte(
      'ended',
      sql`update ${t} set ${column(t.data)} = null,
          ${settings.userIdNullable ? sql`${column(t.userId)} = null,` : sql``}
          ${column(t.version)} = ${t.version} + 1, ${column(t.revokedAt)} = now(),
          ${column(t.expiresAt)} = now() + ${TOMBSTONE}
        from locked where ${t}.ctid = locked.at and ${condition}
        returning ${t.id} as id, locked.live as live`,
    );
  const endingAt = sql`${lockedAt}, ${isLive} as live`;
  const endedIds = sql`(select string_agg(id, ',') filter (where live) from ended where ${announced})`;

  /** Prepares a statement; its name carries a hash of its text, so that two stores can share a pool. */
  function prepare<A extends Answer>(
    kind: string,
    ctes: readonly (Cte | undefined)[],
    answer: A,
    result: SQL,
    prepared = settings.prepared,
  ): (values: Record<string, unknown>) => Promise<A['$inferSelect'][]> {
    const query = db
      .with(...ctes.filter((one) => one !== undefined), cte('result', result))
      .select(getTableColumns<Answer>(answer))
      .from(answer as Answer);
    const hash = createHash('sha256').update(query.toSQL().sql).digest('base64url').slice(0, 16);
    const statement = prepared ? query.prepare(`connect_drizzle_${kind}_${hash}`) : query;
    return async (values) => {
      try {
        return await patience.waitFor(statement.execute(values));
      } catch (error) {
        throw storeError(error, settings.label);
      }
    };
  }

  /** Prepares a statement over many rows, and one for a row alone, which takes the server a quarter less time. */
  function prepareBoth<A extends Answer>(
    kind: string,
    answer: A,
    make: (shape: Shape) => { ctes: readonly (Cte | undefined)[]; result: SQL },
  ): (rows: number, values: Record<string, unknown>) => Promise<A['$inferSelect'][]> {
    const over = (shape: Shape) => {
      const { ctes, result } = make(shape);
      return prepare(kind, ctes, answer, result);
    };
    const [one, many] = [over('one'), over('many')];
    return (rows, values) => (rows === 1 ? one(values) : many(values));
  }

  // Everything but the text in one column: for a driver, a row costs by its columns.
  // `data::text` says the same in half as much time again: it copies the text two times more (measured at 20 KB).
  const storedData = sql`convert_from(json_send(${t.data}), pg_client_encoding()) as data`;
  const storedOwner = withUser ? sql`${t.userId}::text as owner` : sql`null as owner`;
  const stored = (seen: SQL) =>
    sql`select ${t.version} || ',' || ${microseconds(t.createdAt)} || ',' || ${milliseconds(t.expiresAt)} || ','
        || ${seen} || ',' || ${t.id} as head, ${storedData}, ${storedOwner} from ${t}`;
  const readRows = prepareBoth('read', storedAnswer, (shape) => ({
    ctes: [given(shape, 'ids')],
    result: sql`${stored(sql`''`)} where ${isGiven(shape)} and ${isNotEnded}`,
  }));

  const touchRows = prepareBoth('touch', doneAnswer, (shape) => ({
    ctes: [
      given(shape, 'ids', 'created', 'expiry', 'alive'),
      input(shape, false, 'created', 'expiry', 'alive'),
      locked(shape, lockedAt, sql`${isNotEnded} and ${withSetting('synchronous_commit', 'off')}`),
      cte(
        'moved',
        sql`update ${t} set ${column(t.lastSeenAt)} = now(), ${column(t.expiresAt)} = ${capped(
          sql`case input.created when '0' then ${timestamp(sql`input.expiry`)}
              else greatest(${t.expiresAt}, ${timestamp(sql`input.expiry`)}) end`,
          t.createdAt,
        )}
          from locked join input on input.id = locked.id
          where ${t}.ctid = locked.at and input.created in ('0', ${microseconds(t.createdAt)}::text)
            and ${t.expiresAt} > ${timestamp(sql`input.alive`)}
          returning ${t.id} as id`,
      ),
    ],
    result: sql`select string_agg(id, ',') as done from moved`,
  }));

  const saveRows = prepareBoth('save', doneAnswer, (shape) => ({
    ctes: [
      given(shape, 'ids', 'version', 'created', 'seen', 'expiry', 'data'),
      input(shape, withUser, 'version', 'created', 'seen', 'expiry', 'data'),
      locked(
        shape,
        lockedAt,
        withUser ? sql`${isNotEnded} and ${withSetting('lock_timeout', LOCK_TIMEOUT)}` : isNotEnded,
      ),
      cte(
        'saved',
        sql`update ${t} set ${column(t.data)} = input.data::json,
            ${withUser ? sql`${column(t.userId)} = ${inputOwner},` : sql``}
            ${column(t.version)} = ${t.version} + 1, ${column(t.lastSeenAt)} = now(),
            ${column(t.expiresAt)} = ${capped(
              sql`case when input.expiry = input.seen then ${t.expiresAt}
                when ${milliseconds(t.expiresAt)} = input.seen::bigint then ${timestamp(sql`input.expiry`)}
                else greatest(${t.expiresAt}, ${timestamp(sql`input.expiry`)}) end`,
              t.createdAt,
            )}
          from locked join input on input.id = locked.id
          where ${t}.ctid = locked.at and ${t.version} = input.version::integer
            and ${microseconds(t.createdAt)} = input.created::bigint
          returning ${t.id} as id`,
      ),
      announcement('c', 'saved'),
    ],
    result: sql`select string_agg(id, ',') as done from saved where ${announced}`,
  }));

  const insertRows = (kind: 'create' | 'put') =>
    prepareBoth(kind, writtenAnswer, (shape) => ({
      ctes: [
        given(shape, 'ids', 'expiry', 'data'),
        input(shape, withUser, 'expiry', 'data'),
        locked(shape, sql`${t.id} as id`, sql`true`),
        cte(
          'held',
          sql`select ${t.id} as id from ${t} where ${isGiven(shape)} and ${isNotIn('locked')}`,
        ),
        cte(
          'written',
          sql`insert into ${t} (${sql.join(
            [t.id, t.data, ...(withUser ? [t.userId] : []), t.expiresAt].map(column),
            sql`, `,
          )})
            select input.id, input.data::json, ${withUser ? sql`${inputOwner},` : sql``}
              ${capped(timestamp(sql`input.expiry`), sql`now()`)}
            from input where ${withSetting('lock_timeout', LOCK_TIMEOUT)} and input.id not in (select id from held)
            order by input.id collate "C"
            on conflict (${column(t.id)}) do update set ${column(t.data)} = excluded.${column(t.data)},
              ${withUser ? sql`${column(t.userId)} = excluded.${column(t.userId)},` : sql``}
              ${column(t.version)} = ${t.version} + 1, ${column(t.lastSeenAt)} = now(),
              ${
                kind === 'create'
                  ? sql`${column(t.createdAt)} = now(), ${column(t.revokedAt)} = null,
                      ${column(t.expiresAt)} = excluded.${column(t.expiresAt)}`
                  : sql`${column(t.expiresAt)} =
                      ${capped(sql`excluded.${column(t.expiresAt)}`, t.createdAt)} where ${isNotEnded}`
              }
            returning ${t.id} as id, ${t.version} as version, ${microseconds(t.createdAt)} as created_us`,
        ),
        announcement('c', 'written'),
      ],
      result: sql`select string_agg(id, ',') as id, string_agg(version::text, ',') as version,
          string_agg(created_us::text, ',') as created_us, (select string_agg(id, ',') from held) as busy
        from written where ${announced}`,
    }));
  const createRows = insertRows('create');
  const putRows = insertRows('put');

  const endRows = prepareBoth('end', doneAnswer, (shape) => ({
    ctes: [
      given(shape, 'ids'),
      locked(shape, endingAt, isNotEnded),
      tombstones(),
      announcement('d', 'ended'),
    ],
    result: sql`select ${endedIds} as done`,
  }));

  const clearRows = prepare(
    'clear',
    [
      cte(
        'cleared',
        sql`delete from ${t} where ctid = any(array(select ctid from ${t} limit 1000 for update skip locked))
          returning ${t.id} as id`,
      ),
      announcement('d', 'cleared'),
    ],
    endedAnswer,
    sql`select (select string_agg(id, ',') from cleared where ${announced}) as done,
        (select ${t.id} from ${t} where ${isNotIn('cleared')} limit 1) as busy`,
  );

  const ofUser = sql`${t.userId} = ${text('user')}::${sql.raw(settings.userIdType)} and ${isNotEnded}`;
  const endUserRows = prepare(
    'end_user',
    [
      cte(
        'locked',
        sql`select ${endingAt} from ${t} where ${ofUser} and ${t.id} <> ${text('except')}
          limit 1000 for update skip locked`,
      ),
      tombstones(),
      announcement('d', 'ended'),
    ],
    endedAnswer,
    sql`select ${endedIds} as done,
        (select ${t.id} from ${t}
          where ${ofUser} and ${t.id} <> ${text('except')} and ${isNotIn('ended')} limit 1) as busy`,
  );

  // The user's sessions are all locked before any is judged. Two log-ins at once cannot each end the
  // other: one of them finds rows that it cannot lock, or that the other has ended.
  const isLiveOfUser = sql`${ofUser} and ${isLive}`;
  const isIncomplete = sql`(select count(*) from locked) <> (select count(*) from ${t} where ${isLiveOfUser})`;
  const endBeyondRows = prepare(
    'end_beyond',
    [
      cte(
        'locked',
        sql`select ${endingAt}, ${t.lastSeenAt} as seen from ${t} where ${isLiveOfUser} for update skip locked`,
      ),
      cte(
        'surplus',
        sql`select id from locked where id <> ${text('id')} and not ${isIncomplete}
          order by seen desc, id
          offset ${number('keep')}::integer - (select count(*) from locked where id = ${text('id')})`,
      ),
      tombstones(sql`locked.id in (select id from surplus)`),
      announcement('d', 'ended'),
    ],
    endedAnswer,
    sql`select ${endedIds} as done,
        case when ${isIncomplete} or (select count(*) from ended) <> (select count(*) from surplus)
          then 'some' end as busy`,
  );

  const nextPage = sql`${t.id} > ${text('after')} order by ${t.id} limit ${number('limit')}::integer`;
  const listed = sql`${stored(milliseconds(t.lastSeenAt))} where ${isLive}`;
  const listAll = prepare('list', [], storedAnswer, sql`${listed} and ${nextPage}`);
  const listOfUser = prepare(
    'list_user',
    [],
    storedAnswer,
    sql`${listed} and ${ofUser} and ${nextPage}`,
  );
  const listIdRows = prepare(
    'list_ids',
    [],
    idAnswer,
    sql`select ${t.id} as id from ${t} where ${isLive} and ${nextPage}`,
  );
  const countRows = prepare(
    'count',
    [],
    countAnswer,
    sql`select count(*) as count from ${t} where ${isLive}`,
  );

  // `expires_hour <= now()` finds the rows by the index; the second condition is exact. Planned anew each
  // time: the plan that suits a small table reads a large one from end to end, twice.
  const pruneRows = prepare(
    'prune',
    [
      cte(
        'pruned',
        sql`delete from ${t} where ctid = any(array(
            select ctid from ${t} where ${t.expiresHour} <= now() and ${t.expiresAt} <= now()
            limit ${number('limit')}::integer for update skip locked))
          returning 1`,
      ),
    ],
    countAnswer,
    sql`select count(*) as count from pruned`,
    false,
  );
  const probeRows = prepare('probe', [], idAnswer, sql`select ${t.id} as id from ${t} limit 0`);
  // Once its queue of notifications has been full, Postgres refuses every one, whoever has caught up
  // since, until somebody asks how full it is.
  const sendMessage = prepare(
    'notify',
    [],
    idAnswer,
    sql`select pg_notify(${text('channel')}, ${text('payload')})::text as id
        where pg_notification_queue_usage() >= 0`,
  );

  const read: Statements['read'] = async (ids) => {
    const found = new Map<string, StoredRow>();
    for (const fields of await readRows(ids.length, { ids: ids.join(',') })) {
      const row = storedOf(fields);
      found.set(row.id, row);
    }
    return ids.map((id) => found.get(id));
  };

  /** What became of each row of a write: `done`, or what is said of the row as it is stored now. */
  async function judged<Row extends { readonly id: string }, Result>(
    rows: readonly Row[],
    [answer]: readonly { readonly done: string | null }[],
    done: (row: Row) => Result,
    otherwise: (row: Row, stored: StoredRow | undefined) => Result,
  ): Promise<Result[]> {
    const ids = new Set(split(answer?.done ?? null));
    if (ids.size === rows.length) return rows.map(done);
    const others = rows.filter((row) => !ids.has(row.id)).map((row) => row.id);
    const stored = await read(others);
    const storedById = new Map(others.map((id, at) => [id, stored[at]]));
    return rows.map((row) =>
      ids.has(row.id) ? done(row) : otherwise(row, storedById.get(row.id)),
    );
  }

  const ownersOf = (rows: readonly WriteRow[]) =>
    withUser ? { users: JSON.stringify(rows.map((row) => row.userId)) } : {};

  const insert =
    (run: typeof createRows): Statement<WriteRow, Written> =>
    async (rows) => {
      const [answer] = await run(rows.length, {
        ids: joined(rows, (row) => row.id),
        expiry: joined(rows, (row) => row.expiresAt),
        data: joined(rows, (row) => row.data, DATA_SEPARATOR),
        ...ownersOf(rows),
      });
      const results = new Map<string, Written>();
      for (const id of split(answer?.busy ?? null)) results.set(id, { outcome: 'busy' });
      const versions = numbers(answer?.version ?? null);
      const createdAt = numbers(answer?.createdAt ?? null);
      for (const [at, id] of split(answer?.id ?? null).entries()) {
        const [version = 1, created = 0] = [versions[at], createdAt[at]];
        results.set(id, { outcome: 'done', version, createdAt: created });
      }
      return rows.map((row) => results.get(row.id) ?? GONE);
    };

  return {
    read,
    touch: async (rows) => {
      const answer = await touchRows(rows.length, {
        ids: joined(rows, (row) => row.id),
        created: joined(rows, (row) => row.createdAt),
        expiry: joined(rows, (row) => row.expiresAt),
        alive: joined(rows, (row) => row.aliveAt),
      });
      const isMeantAndAlive = (row: TouchRow, stored: StoredRow | undefined) =>
        stored !== undefined &&
        (row.createdAt === 0 || row.createdAt === stored.createdAt) &&
        stored.expiresAt > row.aliveAt;
      return judged<TouchRow, Outcome>(
        rows,
        answer,
        () => 'done',
        (row, stored) => (isMeantAndAlive(row, stored) ? 'busy' : 'gone'),
      );
    },
    save: async (rows) => {
      const answer = await saveRows(rows.length, {
        ids: joined(rows, (row) => row.id),
        version: joined(rows, (row) => row.version),
        created: joined(rows, (row) => row.createdAt),
        seen: joined(rows, (row) => row.seenExpiresAt),
        expiry: joined(rows, (row) => row.expiresAt),
        data: joined(rows, (row) => row.data, DATA_SEPARATOR),
        ...ownersOf(rows),
      });
      return judged<SaveRow, Written>(
        rows,
        answer,
        ({ version, createdAt }) => ({ outcome: 'done', version: version + 1, createdAt }),
        ({ version, createdAt }, stored) => {
          if (stored === undefined) return GONE;
          const isSame = stored.version === version && stored.createdAt === createdAt;
          return isSame ? { outcome: 'busy' } : { outcome: 'conflict', stored };
        },
      );
    },
    create: insert(createRows),
    put: insert(putRows),
    end: async (ids) => {
      const rows = ids.map((id) => ({ id }));
      return judged<{ id: string }, Outcome>(
        rows,
        await endRows(ids.length, { ids: ids.join(','), now: String(Date.now()) }),
        () => 'done',
        (_, stored) => (stored === undefined ? 'gone' : 'busy'),
      );
    },
    clear: async () => endedIn(await clearRows({})),
    endUser: async (user, except) =>
      endedIn(await endUserRows({ user, except, now: String(Date.now()) })),
    endBeyond: async (user, id, keep, now) =>
      endedIn(await endBeyondRows({ user, id, keep: String(keep), now: String(now) })),
    list: async ({ userId, after, limit, now }) => {
      const page = { after, limit: String(limit), now: String(now) };
      const rows = await (userId === undefined
        ? listAll(page)
        : listOfUser({ ...page, user: userId }));
      return rows.map(storedOf);
    },
    listIds: async ({ after, limit, now }) =>
      (await listIdRows({ after, limit: String(limit), now: String(now) })).map((row) => row.id),
    count: async (now) => Number((await countRows({ now: String(now) }))[0]?.count),
    prune: async (limit) => Number((await pruneRows({ limit: String(limit) }))[0]?.count),
    probe: async () => {
      await probeRows({});
    },
    notify: async (channel, payload) => {
      await sendMessage({ channel, payload });
    },
  };
}

const GONE: Written = { outcome: 'gone' };

/** A text as an SQL literal, for the few that this package makes itself. */
function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
