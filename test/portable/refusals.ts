/**
 * What engines with Postgres' protocol refuse or treat differently, according to their documentation. Tests check the
 * portable statements against this list. "Measured" means that it was seen on a server of that engine.
 */

export interface Refusal {
  readonly engine: 'Citus' | 'YugabyteDB' | 'CockroachDB' | 'Aurora DSQL' | 'PgDog';
  readonly what: string;
  readonly source: string;
  /** Whether a statement contains it. The text is in lower case, with single spaces. */
  readonly isIn: (statement: Parsed) => boolean;
}

/** The parts of a statement that the list needs. */
export interface Parsed {
  readonly text: string;
  readonly isWrite: boolean;
  /** The SET clause of an update. */
  readonly set: string;
  readonly returning: string;
}

export function parse(sql: string): Parsed {
  const text = sql.replace(/\s+/g, ' ').trim().toLowerCase();
  const isWrite = /^(insert into|update|delete from) /.test(text);
  return {
    text,
    isWrite,
    set: / set (.*?) where /.exec(text)?.[1] ?? '',
    returning: isWrite ? (/ returning (.*)$/.exec(text)?.[1] ?? '') : '',
  };
}

const CITUS_CODE =
  'https://github.com/citusdata/citus/blob/v13.2.0/src/backend/distributed/planner/multi_router_planner.c';
const CITUS_DOCS = 'https://docs.citusdata.com/en/stable/develop/reference_workarounds.html';
const YUGABYTE_DOCS = 'https://docs.yugabyte.com/stable/api/ysql/sql-feature-support';
const COCKROACH_DOCS = 'https://www.cockroachlabs.com/docs/stable/postgresql-compatibility';
const COCKROACH_LIMITS = 'https://www.cockroachlabs.com/docs/stable/known-limitations';
const DSQL_DOCS =
  'https://docs.aws.amazon.com/aurora-dsql/latest/userguide/working-with-postgresql-compatibility-unsupported-features.html';
const PGDOG_DOCS = 'https://docs.pgdog.dev/features/sharding/cross-shard-queries/insert';

/** `date_part` is stable for a time with a time zone, and immutable for an interval. */
const STABLE_OF_COLUMN = /date_part\('epoch', "\w+"(\."\w+")*\)|"\w+" [-+] interval|extract\(/;
const STABLE =
  /\bnow\(\)|statement_timestamp\(|current_timestamp|interval '|date_trunc\(|to_char\(/;
const VOLATILE = /clock_timestamp\(|random\(|set_config\(|pg_notify\(|nextval\(|gen_random_uuid\(/;

export const refusals: readonly Refusal[] = [
  {
    engine: 'Citus',
    what: 'volatile functions in a write',
    source: `${CITUS_CODE}: functions used in the WHERE clause of modification queries on distributed tables must not be VOLATILE`,
    isIn: ({ text, isWrite }) => isWrite && VOLATILE.test(text),
  },
  {
    engine: 'Citus',
    what: 'stable functions of columns in a write',
    source: `${CITUS_CODE}: STABLE functions used in UPDATE queries cannot be called with column references`,
    isIn: ({ text, isWrite }) => isWrite && STABLE_OF_COLUMN.test(text),
  },
  {
    engine: 'Citus',
    what: 'stable functions in SET (measured on 13.2)',
    source: `${CITUS_CODE}: non-IMMUTABLE functions are not allowed in CASE or COALESCE statements`,
    isIn: ({ set }) => STABLE.test(set) || VOLATILE.test(set),
  },
  {
    engine: 'Citus',
    what: 'functions that are not immutable in RETURNING',
    source: `${CITUS_CODE}: non-IMMUTABLE functions are not allowed in the RETURNING clause`,
    isIn: ({ returning }) =>
      STABLE.test(returning) || VOLATILE.test(returning) || STABLE_OF_COLUMN.test(returning),
  },
  {
    engine: 'Citus',
    what: 'SELECT … FOR UPDATE over several shards (measured on 13.2)',
    source: `${CITUS_DOCS}#select-for-update`,
    isIn: ({ text }) => / for (no key )?(update|share)\b/.test(text),
  },
  {
    engine: 'Citus',
    what: 'ctid in a write (measured on 13.2)',
    source: CITUS_CODE,
    isIn: ({ text }) => /\bctid\b/.test(text),
  },
  {
    engine: 'Citus',
    what: 'a write without the distribution column, and so to all shards',
    source: CITUS_DOCS,
    isIn: (statement) => statement.isWrite && !namesItsRow(statement.text),
  },
  {
    engine: 'Citus',
    what: 'functions in DO UPDATE SET (measured on 13.2)',
    source: `${CITUS_CODE}: functions used in the DO UPDATE SET clause of INSERTs on distributed tables must be marked IMMUTABLE`,
    isIn: ({ text }) => /do update set/.test(text),
  },
  {
    engine: 'PgDog',
    what: 'INSERT … SELECT, which no key routes',
    source: PGDOG_DOCS,
    isIn: ({ text }) => /^insert into .*\) select /.test(text),
  },
  {
    engine: 'YugabyteDB',
    what: 'ctid, tableoid and xmin',
    source: `${YUGABYTE_DOCS}: System column "ctid" is not supported yet`,
    isIn: ({ text }) => /\b(ctid|tableoid|xmin|xmax)\b/.test(text),
  },
  {
    engine: 'YugabyteDB',
    what: 'LOCK TABLE, TABLESAMPLE',
    source: YUGABYTE_DOCS,
    isIn: ({ text }) => /^lock |tablesample/.test(text),
  },
  {
    engine: 'CockroachDB',
    what: 'several writes of one table in a statement',
    source: COCKROACH_LIMITS,
    isIn: ({ text }) =>
      /^with /.test(text) || text.split(/insert into|update "|delete from/).length > 2,
  },
  {
    engine: 'CockroachDB',
    what: 'functions for json and encodings that it lacks',
    source: 'https://www.cockroachlabs.com/docs/stable/functions-and-operators',
    isIn: ({ text }) => /json_send|convert_from|pg_client_encoding|json_array_elements/.test(text),
  },
  {
    engine: 'CockroachDB',
    what: 'joining a number and a string with ||',
    source: 'https://www.cockroachlabs.com/docs/stable/functions-and-operators#operators',
    isIn: ({ text }) => /(::bigint|"version") \|\|/.test(text),
  },
  {
    engine: 'CockroachDB',
    what: 'settings for one statement: set_config(…, true)',
    source: COCKROACH_DOCS,
    isIn: ({ text }) => /set_config/.test(text),
  },
  {
    engine: 'CockroachDB',
    what: 'a select without columns',
    source: 'https://www.cockroachlabs.com/docs/stable/select-clause',
    isIn: ({ text }) => /\(select\)/.test(text),
  },
  {
    engine: 'Aurora DSQL',
    what: 'locks other than FOR UPDATE of one primary key, such as SKIP LOCKED',
    source:
      'https://docs.aws.amazon.com/aurora-dsql/latest/userguide/working-with-postgresql-compatibility-supported-sql-features.html',
    isIn: ({ text }) => / for update|skip locked|nowait/.test(text),
  },
  {
    engine: 'Aurora DSQL',
    what: 'TRUNCATE, SAVEPOINT, advisory locks, COLLATE',
    source: DSQL_DOCS,
    isIn: ({ text }) => /^truncate|savepoint|pg_(try_)?advisory|collate/.test(text),
  },
];

/** Whether a write names its row by primary key, as a parameter. Drizzle 1.0 puts conditions into parentheses. */
function namesItsRow(text: string): boolean {
  return (
    /^insert into "\w+" \("id", .*\) values \(\$1::text, /.test(text) ||
    / where \(*"\w+"\."id" = \$\d+::text\)? and /.test(text)
  );
}
