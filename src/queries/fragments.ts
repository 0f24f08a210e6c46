/**
 * What the statements are made of: their input, what they lock, what they announce and what they answer,
 * in the words of one table.
 *
 * @module
 */
import { type SQL, sql, type WithSubquery } from 'drizzle-orm';
import type { AnyPgColumn, PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core';
import type { SessionView } from './view.js';

/** @internal The Drizzle database that statements run on: 0.45 and 1.0 have no name for it in common. */
export type Database = PgDatabase<PgQueryResultHKT>;

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

/** What a statement is for: any number of rows, or one alone. */
export type Shape = 'one' | 'many';

/** How long a tombstone stays, for late writers to run into. */
const TOMBSTONE = sql.raw(`interval '1 hour'`);

/** The bytes of a session's id. */
const ID_BYTES = sql.raw('43');

/** Ids in one notification: 44 bytes each, of the 8,000 that Postgres takes. */
const IDS_PER_NOTIFICATION = 150;

/** The last moment of a JavaScript `Date` (ECMA-262, Time Values). */
const LAST_TIME = sql.raw(`timestamptz '275760-09-13 00:00:00+00'`);

export const column = (of: AnyPgColumn) => sql.identifier(of.name);
export const text = (name: string) => sql`${sql.placeholder(name)}::text`;
export const number = (name: string) => sql`${text(name)}::float8`;
export const timestamp = (ms: SQL) => sql`to_timestamp(${ms}::float8 / 1000)`;
export const microseconds = (time: SQL | AnyPgColumn) =>
  sql`(date_part('epoch', ${time}) * 1000000)::bigint`;
/** Within what a `Date` can be: an app may have set `infinity`. */
export const milliseconds = (time: SQL | AnyPgColumn) =>
  sql`round(date_part('epoch', least(greatest(${time}, timestamptz 'epoch'), ${LAST_TIME})) * 1000)::bigint`;

/** Sets a server's setting for this transaction; a scalar subselect is run once, before the rows are looked for. */
export const withSetting = (name: string, value: string) =>
  sql`(select set_config(${sql.raw(literal(name))}, ${sql.raw(literal(value))}, true)) is not null`;

/** The parts that depend on the table and on the store's settings. */
export function fragmentsOf(db: Database, settings: StatementSettings) {
  const { view: t, withUser, announce } = settings;
  const lifetime =
    settings.maxLifetime === undefined
      ? undefined
      : sql.raw(`interval '${settings.maxLifetime * 1000} milliseconds'`);

  /** An expiry that no touch or set moves beyond the absolute end of the session. */
  const capped = (expiry: SQL, createdAt: SQL | AnyPgColumn) =>
    lifetime === undefined ? expiry : sql`least(${expiry}, ${createdAt} + ${lifetime})`;
  const cte = (name: string, query: SQL): WithSubquery => db.$with(name, {}).as(query);

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

  /**
   * Announces the ids in `changed` in the same transaction, in as few notifications as fit. A row that was
   * inserted by hand can have an id of any length. It is left out: no store could read or cache it.
   */
  const announcement = (kind: 'c' | 'd', changed: string) =>
    announce &&
    cte(
      'announced',
      sql`select pg_notify(${sql.raw(literal(announce.channel))},
          ${sql.raw(literal(kind + announce.sender))} || string_agg(id, ','))
        from (select id, (row_number() over () - 1) / ${sql.raw(String(IDS_PER_NOTIFICATION))} as page
          from ${sql.raw(changed)} where octet_length(id) = ${ID_BYTES}) as pages
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

  // Everything but the text in one column: for a driver, a row costs by its columns.
  // `data::text` says the same in half as much time again: it copies the text two times more (measured at 20 KB).
  const storedData = sql`convert_from(json_send(${t.data}), pg_client_encoding()) as data`;
  const storedOwner = withUser ? sql`${t.userId}::text as owner` : sql`null as owner`;
  const stored = (seen: SQL) =>
    sql`select ${t.version} || ',' || ${microseconds(t.createdAt)} || ',' || ${milliseconds(t.expiresAt)} || ','
        || ${seen} || ',' || ${t.id} as head, ${storedData}, ${storedOwner} from ${t}`;

  return {
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
  };
}

export type Fragments = ReturnType<typeof fragmentsOf>;

/** A text as an SQL literal, for the few that this package makes itself. */
function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
