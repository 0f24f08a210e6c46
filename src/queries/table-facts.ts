/**
 * Reads the facts about the session table from the catalog, with one query and one round trip.
 *
 * @module
 */
import type { Connection, Value } from '../drivers/driver.js';
import { sqlState } from '../errors.js';
import { isRecord } from '../util/guards.js';
import { SERVER_FACTS, type ServerFacts } from './engines.js';

export interface ColumnFacts {
  readonly name: string;
  /** The SQL type without a length; of a domain, its base type. */
  readonly type: string;
  /** `pg_type.typcategory`: `N` for numbers, `S` for strings, and others. */
  readonly category: string;
  readonly notNull: boolean;
  /** Whether the column has a default, an identity, or an expression that generates it. */
  readonly hasDefault: boolean;
  readonly isGenerated: boolean;
  readonly mayInsert: boolean;
  readonly mayUpdate: boolean;
}

export interface TableFacts {
  /** `pg_class.relkind`. */
  readonly kind: string;
  /** The schema of the table. */
  readonly schema: string;
  readonly role: string;
  readonly columns: readonly ColumnFacts[];
  /** Whether `on conflict (id)` finds a unique index. */
  readonly hasKey: boolean;
  readonly hasRules: boolean;
  /** The commands that row-level security does not allow the role. */
  readonly withoutPolicy: readonly string[];
  readonly maySelect: boolean;
  readonly mayDelete: boolean;
  /** The SQL type that the store casts user ids to; null if Postgres does not know it by that name. */
  readonly userType: { readonly name: string; readonly category: string } | null;
  readonly server: ServerFacts;
}

/** The table does not exist, or the role may not use its schema. */
export interface NoTable {
  readonly kind: null;
  /** The schema in which it would be created. */
  readonly schema: string | null;
  readonly role: string;
  readonly deniedSchema: string | null;
  /** Undefined if the server only reported that the role may not use the schema. */
  readonly server: ServerFacts | undefined;
}

/**
 * The name of a type, for comparisons and casts. Types of Postgres have no quotes, also if the server has
 * `quote_all_identifiers` on. A type of the app needs its quotes in a cast.
 */
const TYPE_NAME = `case when typnamespace = 'pg_catalog'::regnamespace then replace(format_type(oid, null), '"', '')
      else format_type(oid, null) end`;

/**
 * Returns one row with one column of JSON text.
 * `$1`: the quoted name, `$2`: the id column, `$3`: the type of user ids or an empty string.
 */
const QUERY = `
with recursive found as (
  select to_regclass($1::text)::oid as id
), attributes as (
  select attnum, attname, atttypid, attnotnull, attgenerated <> '' as is_generated,
    atthasdef or attidentity <> '' as has_default
  from pg_attribute, found where attrelid = found.id and attnum > 0 and not attisdropped
), types as (
  select a.attnum, t.oid, t.typnamespace, t.typtype, t.typbasetype, t.typcategory, t.typnotnull, t.typdefault
  from attributes as a join pg_type as t on t.oid = a.atttypid
  union all
  select d.attnum, t.oid, t.typnamespace, t.typtype, t.typbasetype, t.typcategory, t.typnotnull, t.typdefault
  from types as d join pg_type as t on t.oid = d.typbasetype where d.typtype = 'd'
), columns as (
  select attnum, attname, is_generated, attnotnull or bool_or(typnotnull) as not_null,
    has_default or bool_or(typdefault is not null) as has_default,
    max(${TYPE_NAME}) filter (where typtype <> 'd') as type,
    max(typcategory::text) filter (where typtype <> 'd') as category
  from attributes join types using (attnum)
  group by attnum, attname, is_generated, attnotnull, has_default
)
select case when c.oid is null then json_build_object(
  'kind', null,
  'server', ${SERVER_FACTS},
  'schema', current_schema(),
  'role', current_user,
  'deniedSchema', (select nspname from pg_namespace
    where current_schema() is null and not has_schema_privilege(oid, 'usage') and nspname = any(
      string_to_array(regexp_replace(current_setting('search_path'), '[" ]', '', 'g'), ',')) limit 1)
) else json_build_object(
  'kind', c.relkind,
  'server', ${SERVER_FACTS},
  'schema', (select nspname from pg_namespace where oid = c.relnamespace),
  'role', current_user,
  'columns', (select coalesce(json_agg(json_build_object(
      'name', attname, 'type', type, 'category', category, 'notNull', not_null, 'hasDefault', has_default,
      'isGenerated', is_generated, 'mayInsert', has_column_privilege(c.oid, attnum, 'insert'),
      'mayUpdate', has_column_privilege(c.oid, attnum, 'update')) order by attnum), '[]')
    from columns),
  'hasKey', exists (select from pg_index join columns on attnum = indkey[0]
    where indrelid = c.oid and attname = $2::text and indnkeyatts = 1 and indisunique and indisvalid
      and indimmediate and indpred is null and indexprs is null),
  'hasRules', exists (select from pg_rewrite where ev_class = c.oid and rulename <> '_RETURN'),
  'withoutPolicy', (select coalesce(json_agg(command), '[]')
    from (values ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w'), ('DELETE', 'd')) as needed (command, code)
    where row_security_active(c.oid) and not exists (select from pg_policy
      where polrelid = c.oid and polpermissive and polcmd::text in ('*', code) and exists (
        select from unnest(polroles) as role
        where case when role = 0 then true else pg_has_role(role, 'usage') end))),
  'maySelect', has_table_privilege(c.oid, 'select'),
  'mayDelete', has_table_privilege(c.oid, 'delete'),
  'userType', (select json_build_object('name', ${TYPE_NAME}, 'category', typcategory)
    from pg_type where oid = to_regtype(nullif($3::text, '')) and typtype <> 'd')
) end::text as facts
from found left join pg_class as c on c.oid = found.id`;

const INSUFFICIENT_PRIVILEGE = '42501';

export interface Asked {
  readonly schemaName: string | undefined;
  readonly tableName: string;
  readonly idName: string;
  readonly userIdType: string;
}

/** Reads the facts about a table. */
export async function readFacts(on: Connection, asked: Asked): Promise<TableFacts | NoTable> {
  const { schemaName, idName, userIdType } = asked;
  // Before Postgres 16, `to_regtype` raises a syntax error for anything that is not the name of a type.
  const userType = /^\w+( \w+)*$/.test(userIdType) ? userIdType : '';
  let rows: readonly (readonly Value[])[];
  try {
    const values = [quotedName(asked), idName, userType];
    rows = (await on.run({ text: QUERY, name: undefined }, values)).rows;
  } catch (error) {
    // `to_regclass` raises this for a schema that the role may not use.
    if (sqlState(error) !== INSUFFICIENT_PRIVILEGE || schemaName === undefined) throw error;
    return {
      kind: null,
      schema: schemaName,
      role: '',
      deniedSchema: schemaName,
      server: undefined,
    };
  }
  const facts: unknown = JSON.parse(rows[0]?.[0] ?? 'null');
  if (!isFacts(facts))
    throw new TypeError('The driver did not return the result of the table check');
  return facts;
}

/** Returns the quoted name of a table, with its schema if that is known. */
export function quotedName({ schemaName, tableName }: Pick<Asked, 'schemaName' | 'tableName'>) {
  return [schemaName, tableName]
    .flatMap((part) => (part === undefined ? [] : [quoted(part)]))
    .join('.');
}

/** Quotes an identifier. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** The query defines the shape. This only checks that the driver returned its JSON. */
function isFacts(value: unknown): value is TableFacts | NoTable {
  return isRecord(value) && (value.kind === null || Array.isArray(value.columns));
}
