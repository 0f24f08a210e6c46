/**
 * Every statement of the store, typed, and prepared where one plan suits every table. Each is sent as one
 * implicit transaction, so it commits before it answers.
 *
 * Those of rows are there twice, over many and for a row alone: joining texts and taking them apart is for
 * many. All parameters are texts; over many rows, a column of the batch each (see `columns.ts`). They are
 * taken apart in a subselect or a CTE, out of the planner's sight: if it could see how long a list is, it
 * would find each call's own plan a little cheaper than the general one, and make a new plan for every call.
 *
 * Many rows are reached through `id = any(…)`: a plan that joined instead, made while the table was empty,
 * would go on reading the whole table once it is large.
 *
 * Rows to be updated are locked by a CTE with FOR UPDATE SKIP LOCKED and updated through their `ctid`.
 * No statement waits for a row, so no two can wait for each other. (What cannot be skipped, an id that is just
 * being inserted and the row that a foreign key leads to, is waited for no longer than {@link LOCK_TIMEOUT}.) What another transaction holds, or
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
import { sql } from 'drizzle-orm';
import {
  countAnswer,
  doneAnswer,
  endedAnswer,
  endedIn,
  idAnswer,
  type ListedRow,
  type Outcome,
  type StoredRow,
  storedAnswer,
  storedOf,
  type Written,
  writtenAnswer,
} from './answers.js';
import {
  DATA_SEPARATOR,
  joined,
  numbers,
  type SaveRow,
  split,
  type TouchRow,
  type WriteRow,
} from './columns.js';
import {
  column,
  type Database,
  fragmentsOf,
  microseconds,
  milliseconds,
  number,
  type StatementSettings,
  text,
  timestamp,
  withSetting,
} from './fragments.js';
import { preparing } from './prepare.js';

/**
 * How long a write waits for another transaction, where it cannot skip what that one holds: an id that is
 * being inserted, or the user's row that an app's foreign key leads to.
 */
const LOCK_TIMEOUT = '100ms';

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
  const { view: t, withUser } = settings;
  const { prepare, prepareBoth } = preparing(db, settings);
  const {
    announced,
    announcement,
    capped,
    cte,
    endedIds,
    endingAt,
    given,
    input,
    inputOwner,
    isGiven,
    isLive,
    isNotEnded,
    isNotIn,
    locked,
    lockedAt,
    stored,
    tombstones,
  } = fragmentsOf(db, settings);

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
    busy: Result,
    done: (row: Row) => Result,
    otherwise: (row: Row, stored: StoredRow | undefined) => Result,
  ): Promise<Result[]> {
    const ids = new Set(split(answer?.done ?? null));
    if (ids.size === rows.length) return rows.map(done);
    const others = rows.filter((row) => !ids.has(row.id)).map((row) => row.id);
    const stored = await read(others).catch((error) => {
      // What was done is done, whatever becomes of the others: they are sent again.
      if (ids.size > 0) return undefined;
      throw error;
    });
    const storedById = new Map(others.map((id, at) => [id, stored?.[at]]));
    return rows.map((row) => {
      if (ids.has(row.id)) return done(row);
      return stored === undefined ? busy : otherwise(row, storedById.get(row.id));
    });
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
      for (const id of split(answer?.busy ?? null)) results.set(id, BUSY);
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
        'busy',
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
        BUSY,
        ({ version, createdAt }) => ({ outcome: 'done', version: version + 1, createdAt }),
        ({ version, createdAt }, stored) => {
          if (stored === undefined) return GONE;
          const isSame = stored.version === version && stored.createdAt === createdAt;
          return isSame ? BUSY : { outcome: 'conflict', stored };
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
        'busy',
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
const BUSY: Written = { outcome: 'busy' };
