/**
 * The SQL that Drizzle's query builder cannot express, as named helpers.
 *
 * @module
 */
import { type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import type { AnyPgColumn } from 'drizzle-orm/pg-core';

type Value = SQL | AnyPgColumn;

export const now = sql`now()`;

/** As SQL, because a plain null in `set` becomes a parameter. */
export const none = sql`null`;

/** Instead of a time that a statement does not read. */
export const unread = sql`'0'`;

/** A parameter. Because of the cast, drivers do not encode it for an inferred type. */
export const parameter = (name: string) => sql<string>`${sql.placeholder(name)}::text`;

export const integer = (value: Value) => sql<number>`${value}::integer`;
export const bigint = (value: Value) => sql<number>`${value}::bigint`;
export const text = (value: SQLWrapper) => sql<string>`${value}::text`;
/** A bitwise exclusive or. It differs from `value` unless `other` is 0, and cannot overflow. */
export const xor = (value: AnyPgColumn, other: SQL) => sql<number>`${value} # ${other}`;

/** A time from milliseconds since 1970. */
export const timestamp = (ms: Value) => sql<Date>`to_timestamp(${ms}::float8 / 1000)`;

/** A time as microseconds since 1970. */
export const microseconds = (time: Value) =>
  sql<number>`(date_part('epoch', ${time}) * 1000000)::bigint`;

/** The last moment of a JavaScript `Date` (ECMA-262, Time Values). */
export const LAST_TIME = sql.raw(`timestamptz '275760-09-13 00:00:00+00'`);

/** A time as milliseconds since 1970, clamped to the range of `Date`, because an app may have stored `infinity`. */
export const milliseconds = (time: Value) =>
  sql<number>`round(date_part('epoch', least(greatest(${time}, timestamptz 'epoch'), ${LAST_TIME})) * 1000)::bigint`;

/** The server's clock in milliseconds: the current time, not the start of the transaction. */
export const clockMs = sql<number>`(date_part('epoch', clock_timestamp()) * 1000)::bigint`;

/** Whether the server's clock has not yet reached a time in milliseconds. */
export const isBefore = (ms: Value) => sql`clock_timestamp() < ${timestamp(ms)}`;

/** Joins a column of all rows with commas; null if there are none. */
export const joinedText = (value: SQLWrapper) =>
  sql<string | null>`string_agg(${value}::text, ',')`;

/** The rows of a subquery as a list. The planner cannot see its length. */
export const anyOf = (query: SQLWrapper) => sql`any(array(${query}))`;

/**
 * The same condition, but the planner assumes that it is true for nearly all rows. Otherwise it expects that an equality of
 * `tableoid` matches one row in 200, and uses a nested loop.
 */
export const nearlyAlways = (condition: SQL) => sql`nullif(${condition}, false) is not null`;

/**
 * A condition that is always true for an id. It is cheap, because Postgres stops after the first part. But the planner adds
 * the costs of all parts, and estimates a text search (`@@`) as expensive. So it does not read a whole table to find a few
 * rows by id, even if the table is small, and the plan is still good when the table has grown.
 */
export const costly = (id: AnyPgColumn) =>
  sql`(${id} <> '' or ${id} @@ ${id} or ${id} @@ ${id} or ${id} @@ ${id})`;

/** The only value of a subquery. */
export const scalar = <T>(query: SQLWrapper) => sql<T>`(${query})`;

/** Sorts by bytes, independent of the database's locale, so that JavaScript and Postgres agree. */
export const inByteOrder = (value: Value) => sql`${value} collate "C"`;

/** Changes a setting for this transaction. */
export const setting = (name: string, value: string) =>
  sql<string>`set_config(${literal(name)}, ${literal(value)}, true)`;

/** The same as a condition. A scalar subquery, so that it runs once, before the search for rows. */
export const setLocally = (name: string, value: string) =>
  sql`(select ${setting(name, value)}) is not null`;

/** A value, after a change of a setting for this transaction. Only for a single row, because it runs for each row. */
export const afterSetting = (name: string, value: string, then: SQL) =>
  sql`case when ${setting(name, value)} is not null then ${then} end`;

export const notify = (channel: SQL, payload: SQL) =>
  sql<string>`pg_notify(${channel}, ${payload})::text`;

/** An SQL string literal. Only for constants of this package. */
export function literal(value: string): SQL<string> {
  return sql.raw(`'${value.replaceAll("'", "''")}'`) as SQL<string>;
}
