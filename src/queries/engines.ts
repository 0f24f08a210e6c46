/**
 * The databases with Postgres' protocol, what they can do, and how the store recognises them. The facts about engines other
 * than Postgres come from their documentation: see docs/engines.md.
 *
 * @module
 */
import type { Connection } from '../drivers/driver.js';
import type { EngineChoice } from '../options.js';

/** The properties of a database engine that the store depends on. */
export interface Engine {
  readonly name: string;
  /** Whether the store sends the portable statements instead of those for Postgres. */
  readonly isPortable: boolean;
  /** Whether a statement can limit its own wait for a lock, with `set_config('lock_timeout', …)` in a condition. */
  readonly limitsLockWaits: boolean;
  readonly canListen: boolean;
  /** Whether `migrate()` works: advisory locks, and several DDL statements in one transaction. */
  readonly canMigrate: boolean;
  /** Whether it returns a `json` column byte for byte. */
  readonly keepsJson: boolean;
}

/** @internal */
export const POSTGRES: Engine = {
  name: 'PostgreSQL',
  isPortable: false,
  limitsLockWaits: true,
  canListen: true,
  canMigrate: true,
  keepsJson: true,
};

/** A table that Citus has distributed. Its planner refuses volatile functions in a write. */
const CITUS: Engine = {
  ...POSTGRES,
  name: 'Citus',
  isPortable: true,
  limitsLockWaits: false,
};

const YUGABYTE: Engine = {
  ...POSTGRES,
  name: 'YugabyteDB',
  isPortable: true,
  limitsLockWaits: false,
  canListen: false,
  canMigrate: false,
};

const COCKROACH: Engine = { ...YUGABYTE, name: 'CockroachDB', keepsJson: false };

const DSQL: Engine = { ...YUGABYTE, name: 'Aurora DSQL', keepsJson: false };

/** The facts that a server reports about itself. */
export interface ServerFacts {
  /** The result of `version()`. */
  readonly version: string;
  /** Whether the extension Citus is installed. */
  readonly hasCitus: boolean;
  /** Whether there is a table that only Aurora DSQL has. */
  readonly hasDsql: boolean;
  /** YugabyteDB's setting for LISTEN; null in other engines. */
  readonly yugabyteListens: string | null;
}

/** Returns the engine of a server. Does not check whether Citus has distributed the table. */
export function engineOf({ version, hasDsql, yugabyteListens }: ServerFacts): Engine {
  if (/-YB-/.test(version)) return { ...YUGABYTE, canListen: yugabyteListens === 'on' };
  if (/^CockroachDB/.test(version)) return COCKROACH;
  return hasDsql ? DSQL : POSTGRES;
}

/** Returns the engine of a table. Sends a second query only if Citus is installed. */
export async function engineOfTable(
  on: Connection,
  server: ServerFacts,
  table: string,
): Promise<Engine> {
  const engine = engineOf(server);
  if (engine !== POSTGRES || !server.hasCitus) return engine;
  const text =
    'select (exists (select 1 from pg_dist_partition where logicalrelid = to_regclass($1::text)))::text';
  const { rows } = await on.run({ text, name: undefined }, [table]);
  return rows[0]?.[0] === 'true' ? CITUS : engine;
}

const HAS_DSQL = `exists (select 1 from pg_class as s join pg_namespace as n on n.oid = s.relnamespace
  where n.nspname = 'sys' and s.relname = 'iam_pg_role_mappings')`;

/** A JSON expression with the facts of a server. */
export const SERVER_FACTS = `json_build_object('version', version(),
  'hasCitus', to_regclass('pg_dist_partition') is not null, 'hasDsql', ${HAS_DSQL},
  'yugabyteListens', current_setting('yb_enable_listen_notify', true))`;

/** Asks a server for its facts, with a query that every engine can run. */
export async function askEngine(on: Connection): Promise<Engine> {
  const text = `select version(), (${HAS_DSQL})::text`;
  const { rows } = await on.run({ text, name: undefined }, []);
  const [version, hasDsql] = rows[0] ?? [];
  return engineOf({
    version: version ?? '',
    hasCitus: false,
    hasDsql: hasDsql === 'true',
    yugabyteListens: null,
  });
}

/** Returns the engine, with the kind of statements that the app has chosen. */
export function chosenEngine(found: Engine, choice: EngineChoice): Engine {
  return choice === 'auto' ? found : { ...found, isPortable: choice === 'portable' };
}
