/**
 * Turns queries of Drizzle's builder into statements. A statement is compiled once, on first use, and its text is then sent
 * directly through the driver.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { is, Param, Placeholder, type SQL } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/pg-proxy';
import type { Connection, Query, Result, Value } from '../drivers/driver.js';
import { parameter } from './sql.js';

/** Builds queries for every driver. It never sends a query itself. */
export const db = /* @__PURE__ */ drizzle(async () => ({ rows: [] }));

/** Runs a single SQL statement, such as DDL, and returns its rows. */
export async function runSql(
  on: Connection,
  statement: SQL,
): Promise<readonly (readonly Value[])[]> {
  let rows: readonly (readonly Value[])[] = [];
  const onConnection = drizzle(async (text, values: Value[]) => {
    rows = (await on.run({ text, name: undefined }, values)).rows;
    return { rows: [] };
  });
  await onConnection.execute(statement);
  return rows;
}

/** The common part of all queries of the builder, in Drizzle 0.45 and 1.0. */
interface Compilable {
  toSQL(): { sql: string; params: unknown[] };
}

/** A query that returns rows. */
interface Built<Row> extends Compilable {
  readonly _: { readonly result: readonly Row[] };
}

/** Sends a statement on a connection and returns its rows. */
export type Statement<Name extends string, Row> = (
  connection: Connection,
  values: Readonly<Record<Name, Value>>,
) => Promise<Row[]>;

/** The parameters of a statement, by name. */
export type Parameters<Name extends string> = Readonly<Record<Name, SQL<string>>>;

/**
 * Declares a statement. `build` runs on first use: Drizzle takes milliseconds to compile a statement, and compiling all of
 * them when a store opens would block the event loop.
 *
 * @param kind part of its name on the server; a hash of its text follows, so that stores can share a pool
 * @param isPrepared whether the server keeps its plan
 */
export function statement<const Name extends string, Row>(
  kind: string,
  isPrepared: boolean,
  names: readonly Name[],
  build: (parameters: Parameters<Name>) => Built<Row>,
): Statement<Name, Row> {
  const run = runner(kind, isPrepared, names, build);
  return (connection, values) =>
    run(connection, values, ({ rows }, fields) => rows.map((row) => decode<Row>(fields, row)));
}

/** Declares a write that returns only the number of changed rows. See {@link statement}. */
export function command<const Name extends string>(
  kind: string,
  isPrepared: boolean,
  names: readonly Name[],
  build: (parameters: Parameters<Name>) => Compilable,
): (connection: Connection, values: Readonly<Record<Name, Value>>) => Promise<number> {
  const run = runner(kind, isPrepared, names, build);
  return (connection, values) => run(connection, values, ({ rowCount }) => rowCount);
}

/** Compiles a query once and runs it. */
function runner<Name extends string>(
  kind: string,
  isPrepared: boolean,
  names: readonly Name[],
  build: (parameters: Parameters<Name>) => Compilable,
) {
  let compiled: Compiled<Name> | undefined;
  return <T>(
    connection: Connection,
    values: Readonly<Record<Name, Value>>,
    onResult: (result: Result, fields: readonly string[]) => T,
  ): Promise<T> => {
    try {
      compiled ??= compile(kind, isPrepared, names, build);
    } catch (error) {
      return Promise.reject(error);
    }
    const { query, parameters, fields } = compiled;
    const sent = parameters.map(({ name, constant }) =>
      name === undefined ? constant : values[name],
    );
    return connection.run(query, sent).then((result) => onResult(result, fields));
  };
}

/** The name of a parameter, or a constant of the query. */
interface ParameterSource<Name> {
  readonly name: Name | undefined;
  readonly constant: Value;
}

interface Compiled<Name extends string> {
  readonly query: Query;
  readonly parameters: readonly ParameterSource<Name>[];
  readonly fields: readonly string[];
}

function compile<Name extends string>(
  kind: string,
  isPrepared: boolean,
  names: readonly Name[],
  build: (parameters: Parameters<Name>) => Compilable,
): Compiled<Name> {
  const parameters = {} as Record<Name, SQL<string>>;
  for (const name of names) parameters[name] = parameter(name);
  const built = build(parameters);
  const { sql: text, params } = built.toSQL();
  const hash = createHash('sha256').update(text).digest('base64url').slice(0, 16);
  const fields = fieldsOf(built);
  return {
    query: {
      text,
      name: isPrepared ? `connect_drizzle_${kind}_${hash}` : undefined,
      isCommand: fields.length === 0,
    },
    parameters: params.map((param) => sourceOf(param, names)),
    fields,
  };
}

/**
 * Ignores the encoder that Drizzle puts around a placeholder in `set()` and `values()`: all parameters are strings, and
 * JSON would be encoded twice.
 */
function sourceOf<Name extends string>(
  param: unknown,
  names: readonly Name[],
): ParameterSource<Name> {
  const value = is(param, Param) ? param.value : param;
  if (!is(value, Placeholder)) {
    return { name: undefined, constant: value === null ? null : String(value) };
  }
  const name = names.find((each) => each === value.name);
  if (name === undefined) throw new TypeError(`Unknown parameter ${value.name}`);
  return { name, constant: null };
}

/** The names of the selected fields, in the order of the result's columns. */
function fieldsOf(built: object): string[] {
  const selected: unknown = Reflect.get(built, 'getSelectedFields');
  const fields: unknown = typeof selected === 'function' ? selected.call(built) : undefined;
  return typeof fields === 'object' && fields !== null ? Object.keys(fields) : [];
}

/** The statements select all fields as text, so their types are strings. */
function decode<Row>(fields: readonly string[], row: readonly Value[]): Row {
  const decoded: Record<string, Value> = {};
  for (let at = 0; at < fields.length; at += 1) decoded[fields[at] as string] = row[at] ?? null;
  return decoded as Row;
}
