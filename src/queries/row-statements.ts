/**
 * The statements of rows, typed and prepared: what requests send. Each is sent as one implicit transaction, so
 * it commits before it answers.
 *
 * Each is there twice, over many and for a row alone: joining texts and taking them apart is for
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
  doneAnswer,
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
  type Fragments,
  microseconds,
  milliseconds,
  type StatementSettings,
  timestamp,
  withSetting,
} from './fragments.js';
import type { Prepared } from './prepare.js';
import type { Statement, Statements } from './statements.js';

/**
 * How long a write waits for another transaction, where it cannot skip what that one holds: an id that is
 * being inserted, or the user's row that an app's foreign key leads to.
 */
const LOCK_TIMEOUT = '100ms';

/** Builds them; nothing is sent. */
export function rowStatements(
  settings: StatementSettings,
  f: Fragments,
  { prepareBoth }: Prepared,
): Pick<Statements, 'read' | 'touch' | 'save' | 'create' | 'put' | 'end'> {
  const { view: t, withUser } = settings;

  const readRows = prepareBoth('read', storedAnswer, (shape) => ({
    ctes: [f.given(shape, 'ids')],
    result: sql`${f.stored(sql`''`)} where ${f.isGiven(shape)} and ${f.isNotEnded}`,
  }));

  const touchRows = prepareBoth('touch', doneAnswer, (shape) => ({
    ctes: [
      f.given(shape, 'ids', 'created', 'expiry', 'alive'),
      f.input(shape, false, 'created', 'expiry', 'alive'),
      f.locked(
        shape,
        f.lockedAt,
        sql`${f.isNotEnded} and ${withSetting('synchronous_commit', 'off')}`,
      ),
      f.cte(
        'moved',
        sql`update ${t} set ${column(t.lastSeenAt)} = now(), ${column(t.expiresAt)} = ${f.capped(
          sql`case input.created when '0' then ${timestamp(sql`input.expiry`)}
              else greatest(${t.expiresAt}, ${timestamp(sql`input.expiry`)}) end`,
          t.createdAt,
        )}
          from locked join input on input.id = locked.id
          where ${f.isLocked} and input.created in ('0', ${microseconds(t.createdAt)}::text)
            and ${t.expiresAt} > ${timestamp(sql`input.alive`)}
          returning ${t.id} as id`,
      ),
    ],
    result: sql`select string_agg(id, ',') as done from moved`,
  }));

  const saveRows = prepareBoth('save', doneAnswer, (shape) => ({
    ctes: [
      f.given(shape, 'ids', 'version', 'created', 'seen', 'expiry', 'data'),
      f.input(shape, withUser, 'version', 'created', 'seen', 'expiry', 'data'),
      f.locked(
        shape,
        f.lockedAt,
        withUser
          ? sql`${f.isNotEnded} and ${withSetting('lock_timeout', LOCK_TIMEOUT)}`
          : f.isNotEnded,
      ),
      f.cte(
        'saved',
        sql`update ${t} set ${column(t.data)} = input.data::json,
            ${withUser ? sql`${column(t.userId)} = ${f.inputOwner},` : sql``}
            ${column(t.version)} = ${t.version} + 1, ${column(t.lastSeenAt)} = now(),
            ${column(t.expiresAt)} = ${f.capped(
              sql`case when input.expiry = input.seen then ${t.expiresAt}
                when ${milliseconds(t.expiresAt)} = input.seen::bigint then ${timestamp(sql`input.expiry`)}
                else greatest(${t.expiresAt}, ${timestamp(sql`input.expiry`)}) end`,
              t.createdAt,
            )}
          from locked join input on input.id = locked.id
          where ${f.isLocked} and ${t.version} = input.version::integer
            and ${microseconds(t.createdAt)} = input.created::bigint
          returning ${t.id} as id`,
      ),
      f.announcement('c', 'saved'),
    ],
    result: sql`select string_agg(id, ',') as done from saved where ${f.announced}`,
  }));

  const insertRows = (kind: 'create' | 'put') =>
    prepareBoth(kind, writtenAnswer, (shape) => ({
      ctes: [
        f.given(shape, 'ids', 'expiry', 'data'),
        f.input(shape, withUser, 'expiry', 'data'),
        f.locked(shape, sql`${t.id} as id`, sql`true`),
        f.cte(
          'held',
          sql`select ${t.id} as id from ${t} where ${f.isGiven(shape)} and ${f.isNotIn('locked')}`,
        ),
        f.cte(
          'written',
          sql`insert into ${t} (${sql.join(
            [t.id, t.data, ...(withUser ? [t.userId] : []), t.expiresAt].map(column),
            sql`, `,
          )})
            select input.id, input.data::json, ${withUser ? sql`${f.inputOwner},` : sql``}
              ${f.capped(timestamp(sql`input.expiry`), sql`now()`)}
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
                      ${f.capped(sql`excluded.${column(t.expiresAt)}`, t.createdAt)} where ${f.isNotEnded}`
              }
            returning ${t.id} as id, ${t.version} as version, ${microseconds(t.createdAt)} as created_us`,
        ),
        f.announcement('c', 'written'),
      ],
      result: sql`select string_agg(id, ',') as id, string_agg(version::text, ',') as version,
          string_agg(created_us::text, ',') as created_us, (select string_agg(id, ',') from held) as busy
        from written where ${f.announced}`,
    }));
  const createRows = insertRows('create');
  const putRows = insertRows('put');

  const endRows = prepareBoth('end', doneAnswer, (shape) => ({
    ctes: [
      f.given(shape, 'ids'),
      f.locked(shape, f.endingAt, f.isNotEnded),
      f.tombstones(),
      f.announcement('d', 'ended'),
    ],
    result: sql`select ${f.endedIds} as done`,
  }));

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
  };
}

const GONE: Written = { outcome: 'gone' };
const BUSY: Written = { outcome: 'busy' };
