/**
 * Checks whether the table in the database is the one that the store expects: it belongs to this package, is complete, and
 * can store sessions.
 *
 * @module
 */
import { getTableColumns, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { type MismatchReason, sqlState } from '../errors.js';
import { runSql } from './compile.js';
import { askEngine, type Engine, engineOfTable, POSTGRES } from './engines.js';
import { ownerOf } from './foreign-tables.js';
import {
  type ColumnFacts,
  type NoTable,
  quotedName,
  readFacts,
  type TableFacts,
} from './table-facts.js';
import type { SessionView } from './view.js';

/** The table that a store expects. */
export interface ExpectedTable extends SessionView {
  /** Whether the store writes `user_id`. */
  readonly withUser: boolean;
}

export interface Mismatch {
  readonly state: 'mismatch';
  /** The schema of the table, if the role can see it. */
  readonly schemaName: string | undefined;
  readonly reason: MismatchReason;
  /** The package that owns the table, if recognised. */
  readonly owner: string | undefined;
  /** What is wrong, and what to do. */
  readonly message: string;
}

/** A table that the store can use, or one that does not exist, and the schema of the table or for it. */
interface Found {
  readonly state: 'usable' | 'missing';
  readonly schemaName: string | undefined;
}

/** The same, with the engine of the table. */
export interface Located extends Found {
  readonly engine: Engine;
}

export type Verdict = Found | Mismatch;

/** Checks whether a store can use its table. */
export async function checkTable(
  on: Connection,
  expected: ExpectedTable,
): Promise<Located | Mismatch> {
  let facts: TableFacts | NoTable;
  try {
    facts = await readFacts(on, { ...expected, idName: expected.rows.id.name });
  } catch (error) {
    return await checkWithoutCatalog(on, expected, error);
  }
  const verdict = judge(expected, facts);
  const { server } = facts;
  const engine =
    server === undefined ? POSTGRES : await engineOfTable(on, server, quotedName(expected));
  if (verdict.state === 'mismatch') return withAdvice(verdict, expected, engine);
  const refused = verdict.state === 'usable' ? withoutJson(expected, engine) : undefined;
  return refused ?? { ...verdict, engine };
}

/** The server does not understand a statement: a syntax error, an unknown function, a missing feature. */
const NOT_UNDERSTOOD = /^(42601|42883|42704|42703|42P01|0A)/;

/**
 * Checks the table of an engine without Postgres' catalog, so that reading the catalog failed. Selects all columns that the
 * store uses.
 */
async function checkWithoutCatalog(
  on: Connection,
  expected: ExpectedTable,
  error: unknown,
): Promise<Located | Mismatch> {
  if (!NOT_UNDERSTOOD.test(sqlState(error) ?? '')) throw error;
  const engine = await askEngine(on);
  if (engine === POSTGRES) throw error;
  const { rows: view, schemaName } = expected;
  const columns = ownColumns(view).map((own) => sql`${own}`);
  try {
    await runSql(on, sql`select ${sql.join(columns, sql`, `)} from ${view} limit 0`);
  } catch (refusal) {
    const state = sqlState(refusal);
    if (state === '42P01' || state === '3F000') return { state: 'missing', schemaName, engine };
    if (state !== '42703') throw refusal;
    const message = `The table ${expected.label} lacks a column of the session table`;
    return mismatch(schemaName, 'unusable', message);
  }
  return withoutJson(expected, engine) ?? { state: 'usable', schemaName, engine };
}

/** Refuses a `json` column in an engine that does not keep json byte for byte. */
function withoutJson(expected: ExpectedTable, engine: Engine): Mismatch | undefined {
  if (engine.keepsJson || expected.dataType === 'text') return undefined;
  const message = `The table ${expected.label} cannot store sessions: ${textAdvice(engine)}`;
  return mismatch(expected.schemaName, 'unusable', message);
}

function withAdvice(verdict: Mismatch, expected: ExpectedTable, engine: Engine): Mismatch {
  if (engine.keepsJson || expected.dataType === 'text') return verdict;
  return { ...verdict, message: `${verdict.message}. Note that ${textAdvice(engine)}` };
}

function textAdvice({ name }: Engine): string {
  return (
    `${name} does not keep json byte for byte. Make the column data a text: ` +
    "`sessionTable({ data: 'text' })`, passed as the option `table`"
  );
}

/** Decides with the facts of the catalog whether the store can use a table. */
export function judge(expected: ExpectedTable, facts: TableFacts | NoTable): Verdict {
  if (facts.kind === null) {
    return facts.deniedSchema === null
      ? { state: 'missing', schemaName: expected.schemaName ?? facts.schema ?? undefined }
      : deniedSchema(expected, facts.role, facts.deniedSchema);
  }
  const { rows: view, label } = expected;
  const names = new Set(facts.columns.map(({ name }) => name));
  const missing = ownColumns(view).flatMap(({ name }) => (names.has(name) ? [] : [name]));
  const markers = [view.version, view.revokedAt, view.expiresHour];
  if (markers.every(({ name }) => missing.includes(name))) {
    return foreign(label, facts.schema, names, missing);
  }
  const faults = faultsOf(expected, facts);
  const all = [...(missing.length > 0 ? [lacks(missing)] : []), ...faults.map(({ text }) => text)];
  if (all.length === 0) return { state: 'usable', schemaName: facts.schema };
  const isTable = OTHER_KINDS[facts.kind] === undefined;
  // Only the type of `version` differs between releases.
  if (isTable && (missing.length > 0 || faults.some(({ isOlder }) => isOlder))) {
    return mismatch(
      facts.schema,
      'outdated',
      `The table ${label} is an older or incomplete version of the session table: ${all.join('; ')}. ` +
        'Run the migration: `await store.migrate()`, or drizzle-kit if the table is in your own schema',
    );
  }
  const isStructural = faults.some(({ isPermission }) => !isPermission);
  const advice = isStructural ? `. Change the table or use another one: ${ANOTHER_TABLE}` : '';
  return mismatch(
    facts.schema,
    'unusable',
    `The table ${label} cannot store sessions: ${all.join('; ')}${advice}`,
  );
}

const ANOTHER_TABLE =
  'set `tableName`, or the name in your Drizzle schema, to another name and create that table with ' +
  '`await store.migrate()` or drizzle-kit';

function mismatch(
  schemaName: string | undefined,
  reason: MismatchReason,
  message: string,
  owner?: string,
): Mismatch {
  return { state: 'mismatch', schemaName, reason, owner, message };
}

function foreign(
  label: string,
  schema: string,
  names: ReadonlySet<string>,
  missing: readonly string[],
): Mismatch {
  const owner = ownerOf(names);
  const belongs =
    owner === undefined
      ? 'is not a table of connect-drizzle'
      : `belongs to ${owner.name}: it has the columns ${listed(owner.columns)}`;
  const importing =
    owner === undefined || owner.canImport
      ? '. Sessions of another express-session store can be imported: see docs/migrating.md, the migration guide'
      : '';
  return mismatch(
    schema,
    'foreign',
    `The table ${label} ${belongs}; ${lacks(missing)}. Use another table: ${ANOTHER_TABLE}${importing}`,
    owner?.name,
  );
}

function deniedSchema({ label }: ExpectedTable, role: string, schema: string): Mismatch {
  return mismatch(
    undefined,
    'unusable',
    `The table ${label} cannot be used: the role ${role} has no permission on the schema ${schema} ` +
      `(grant usage on schema ${schema})`,
  );
}

/** A reason why the store cannot use a table. */
interface Fault {
  readonly text: string;
  /** Whether the table of an earlier release has this fault. */
  readonly isOlder?: boolean;
  readonly isPermission?: boolean;
}

/** Names of relations that are not tables, by `pg_class.relkind`. */
const OTHER_KINDS: Readonly<Record<string, string>> = {
  v: 'a view',
  m: 'a materialized view',
  f: 'a foreign table',
  S: 'a sequence',
  c: 'a composite type',
  i: 'an index',
  I: 'an index',
  t: 'a TOAST table',
};

function faultsOf(expected: ExpectedTable, facts: TableFacts): Fault[] {
  const { kind, role, withoutPolicy } = facts;
  const otherKind = OTHER_KINDS[kind];
  if (otherKind !== undefined) return [{ text: `it is ${otherKind}, not a table` }];
  const faults = [
    ...ownColumnFaults(expected, facts),
    ...otherColumnFaults(expected, facts),
    ...keyFaults(expected, facts),
  ];
  if (facts.hasRules) faults.push({ text: 'it has rules' });
  if (withoutPolicy.length > 0) {
    faults.push({
      text: `row-level security has no policy that lets the role ${role} ${listed(withoutPolicy)}`,
    });
  }
  const denied = deniedCommands(expected, facts);
  if (denied.length > 0) {
    faults.push({
      text:
        `the role ${role} has no permission to ${listed(denied)} ` +
        `(grant ${denied.join(', ').toLowerCase()} on ${expected.label})`,
      isPermission: true,
    });
  }
  return faults;
}

/** Returns the faults of the columns that the store reads and writes, except missing columns. */
function ownColumnFaults(expected: ExpectedTable, { columns, userType }: TableFacts): Fault[] {
  const { rows: view, withUser, userIdNullable } = expected;
  const found = new Map(columns.map((column) => [column.name, column]));
  return ownColumns(view).flatMap((own): Fault[] => {
    const column = found.get(own.name);
    if (column === undefined) return [];
    const texts: string[] = [];
    const isUser = own === view.userId;
    const isGenerated = own.generated !== undefined;
    const type = own.getSQLType();
    const hasOtherType = !isUser && column.type !== type;
    if (hasOtherType) texts.push(`is ${column.type} instead of ${type}`);
    if (isUser && withUser && userType !== null && !isComparable(column, userType)) {
      texts.push(`is ${column.type}, but the store expects ${userType.name}`);
    }
    if (column.isGenerated !== isGenerated) {
      texts.push(isGenerated ? 'is not a generated column' : 'is a generated column');
    } else if (own.hasDefault && !column.hasDefault) {
      texts.push('has no default');
    }
    const mayBeNull = isUser ? userIdNullable : !own.notNull && !isGenerated;
    if (column.notNull && mayBeNull) texts.push('is NOT NULL');
    else if (isUser && !withUser && column.notNull && !column.hasDefault) {
      texts.push('is NOT NULL, but the store has no option userId');
    }
    const isOlder = hasOtherType && own === view.version;
    return texts.map((text) => ({ text: `the column ${own.name} ${text}`, isOlder }));
  });
}

/** Returns the faults of columns that the store does not know. */
function otherColumnFaults({ rows: view }: ExpectedTable, { columns }: TableFacts): Fault[] {
  const own = new Set(ownColumns(view).map(({ name }) => name));
  return columns
    .filter(({ name, notNull, hasDefault }) => !own.has(name) && notNull && !hasDefault)
    .map(({ name }) => ({ text: `the column ${name} is NOT NULL and has no default` }));
}

function keyFaults({ rows: view }: ExpectedTable, { columns, hasKey }: TableFacts): Fault[] {
  const { name } = view.id;
  if (hasKey || !columns.some((column) => column.name === name)) return [];
  return [
    {
      text: `the column ${name} is not the primary key and has no other unique index that is valid, not deferrable and not partial`,
    },
  ];
}

function deniedCommands({ rows: view, withUser }: ExpectedTable, facts: TableFacts): string[] {
  const { id, data, userId, expiresAt } = view;
  const inserted = [id, data, expiresAt, ...(withUser ? [userId] : [])];
  const updated = ownColumns(view).filter((own) => own !== id && own.generated === undefined);
  const mayOn = (privilege: 'mayInsert' | 'mayUpdate', own: readonly { name: string }[]) =>
    facts.columns.every(
      (column) => column[privilege] || own.every(({ name }) => name !== column.name),
    );
  return [
    ...(facts.maySelect ? [] : ['SELECT']),
    ...(mayOn('mayInsert', inserted) ? [] : ['INSERT']),
    ...(mayOn('mayUpdate', updated) ? [] : ['UPDATE']),
    ...(facts.mayDelete ? [] : ['DELETE']),
  ];
}

/** Whether Postgres compares and stores user ids of the two types in the same way. */
function isComparable(column: ColumnFacts, cast: { name: string; category: string }): boolean {
  if (column.type === cast.name) return true;
  return column.category === cast.category && ['N', 'S'].includes(cast.category);
}

/** The columns of the schema, without the system columns. */
function ownColumns(view: SessionView['rows']) {
  const { ctid: _, tableoid: __, ...columns } = getTableColumns(view);
  return Object.values(columns);
}

function lacks(missing: readonly string[]): string {
  return `it lacks the column${missing.length === 1 ? '' : 's'} ${listed(missing)}`;
}

function listed(words: readonly string[]): string {
  const last = words.at(-1) ?? '';
  return words.length < 2 ? last : `${words.slice(0, -1).join(', ')} and ${last}`;
}
