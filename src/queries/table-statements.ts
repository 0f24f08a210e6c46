/**
 * The statements that concern no single row: ending many sessions, listing and counting them, pruning, and what
 * is said to the other stores. Typed, and prepared where one plan suits every table.
 *
 * @module
 */
import { type SQL, sql } from 'drizzle-orm';
import { countAnswer, endedAnswer, endedIn, idAnswer, storedAnswer, storedOf } from './answers.js';
import { type Fragments, milliseconds, number, type StatementSettings, text } from './fragments.js';
import type { Prepared } from './prepare.js';
import type { Statements } from './statements.js';

/** Builds them; nothing is sent. */
export function tableStatements(
  settings: StatementSettings,
  f: Fragments,
  { prepare }: Prepared,
): Omit<Statements, 'read' | 'touch' | 'save' | 'create' | 'put' | 'end'> {
  const { view: t } = settings;

  /** Deletes up to so many rows that nobody holds. (In a partitioned table, each partition has a row at the same `ctid`.) */
  const deleteUnlocked = (condition: SQL, limit: SQL, returning: SQL) => [
    f.cte(
      'locked',
      sql`select ${t}.tableoid as part, ${t}.ctid as at from ${t} where ${condition}
        limit ${limit} for update skip locked`,
    ),
    f.cte(
      'deleted',
      sql`delete from ${t} where ${t}.ctid = any(array(select at from locked))
          and (${t}.tableoid, ${t}.ctid) in (select part, at from locked)
        returning ${returning}`,
    ),
  ];

  const clearRows = prepare(
    'clear',
    [...deleteUnlocked(f.isOurs, sql`1000`, sql`${t.id} as id`), f.announcement('d', 'deleted')],
    endedAnswer,
    sql`select (select string_agg(id, ',') from deleted where ${f.announced}) as done,
        (select ${t.id} from ${t} where ${f.isNotIn('deleted')} limit 1) as busy`,
  );

  const ofUser = sql`${f.isOurs} and ${t.userId} = ${text('user')}::${sql.raw(settings.userIdType)} and ${f.isNotEnded}`;
  const endUserRows = prepare(
    'end_user',
    [
      f.cte(
        'locked',
        sql`select ${f.endingAt} from ${t} where ${ofUser} and ${t.id} <> ${text('except')}
          limit 1000 for update skip locked`,
      ),
      f.tombstones(),
      f.announcement('d', 'ended'),
    ],
    endedAnswer,
    sql`select ${f.endedIds} as done,
        (select ${t.id} from ${t}
          where ${ofUser} and ${t.id} <> ${text('except')} and ${f.isNotIn('ended')} limit 1) as busy`,
  );

  // The user's sessions are all locked before any is judged. Two log-ins at once cannot each end the
  // other: one of them finds rows that it cannot lock, or that the other has ended.
  const isLiveOfUser = sql`${ofUser} and ${f.isLive}`;
  const isIncomplete = sql`(select count(*) from locked) <> (select count(*) from ${t} where ${isLiveOfUser})`;
  const endBeyondRows = prepare(
    'end_beyond',
    [
      f.cte(
        'locked',
        sql`select ${f.endingAt}, ${t.lastSeenAt} as seen from ${t} where ${isLiveOfUser} for update skip locked`,
      ),
      f.cte(
        'surplus',
        sql`select id from locked where id <> ${text('id')} and not ${isIncomplete}
          order by seen desc, id
          offset ${number('keep')}::integer - (select count(*) from locked where id = ${text('id')})`,
      ),
      f.tombstones(sql`locked.id in (select id from surplus)`),
      f.announcement('d', 'ended'),
    ],
    endedAnswer,
    sql`select ${f.endedIds} as done,
        case when ${isIncomplete} or (select count(*) from ended) <> (select count(*) from surplus)
          then 'some' end as busy`,
  );

  const nextPage = sql`${t.id} > ${text('after')} order by ${t.id} limit ${number('limit')}::integer`;
  const listed = sql`${f.stored(milliseconds(t.lastSeenAt))} where ${f.isLive}`;
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
    sql`select ${t.id} as id from ${t} where ${f.isLive} and ${nextPage}`,
  );
  const countRows = prepare(
    'count',
    [],
    countAnswer,
    sql`select count(*) as count from ${t} where ${f.isLive}`,
  );

  // `expires_hour <= now()` finds the rows by the index; the second condition is exact. Planned anew each
  // time: the plan that suits a small table reads a large one from end to end, twice.
  const pruneRows = prepare(
    'prune',
    deleteUnlocked(
      sql`${t.expiresHour} <= now() and ${t.expiresAt} <= now()`,
      sql`${number('limit')}::integer`,
      sql`1`,
    ),
    countAnswer,
    sql`select count(*) as count from deleted`,
    false,
  );
  const probeRows = prepare(
    'probe',
    [],
    idAnswer,
    sql`select ${t.id} as id from ${t} where ${f.isOurs} limit 0`,
  );
  // Once its queue of notifications has been full, Postgres refuses every one, whoever has caught up
  // since, until somebody asks how full it is.
  const sendMessage = prepare(
    'notify',
    [],
    idAnswer,
    sql`select pg_notify(${text('channel')}, ${text('payload')})::text as id
        where pg_notification_queue_usage() >= 0`,
  );

  return {
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
