import { DrizzleStore } from 'connect-drizzle';
import type pg from 'pg';
import { type DatabaseOptions, freshDatabase, type TestDatabase } from './database.js';
import { eventually } from './eventually.js';
import { BUSY_TIMEOUT_S } from './sessions.js';

type Options = NonNullable<ConstructorParameters<typeof DrizzleStore>[1]>;

/**
 * A database for all tests of a file, cleared after each: creating a database takes longer than most tests.
 */
export interface ReusedDatabase extends TestDatabase {
  /** Opens a store with its table, which neither prunes nor logs. */
  store(options?: Options, pool?: pg.Pool): Promise<DrizzleStore>;
  /** Ends all connections, closes the stores and pools created here, and drops all tables. */
  clear(): Promise<void>;
}

/** Drops all schemas that tests have created. */
const DROP_ALL = `
  do $$
  declare name text;
  begin
    for name in select nspname from pg_namespace
      where nspname !~ '^pg_' and nspname <> 'information_schema' loop
      execute format('drop schema %I cascade', name);
    end loop;
  end $$;
  create schema public`;

export async function reusedDatabase(options?: DatabaseOptions): Promise<ReusedDatabase> {
  const database = await freshDatabase(options);
  const stores: DrizzleStore[] = [];
  const pools: pg.Pool[] = [];
  const pool: ReusedDatabase['pool'] = (config) => {
    const made = database.pool(config);
    pools.push(made);
    return made;
  };
  return {
    ...database,
    pool,
    async store(settings = {}, on = pool()) {
      const store = new DrizzleStore(on, {
        createTableIfMissing: true,
        pruneSessionInterval: false,
        errorLog: () => {},
        timeout: BUSY_TIMEOUT_S,
        ...settings,
      });
      stores.push(store);
      await eventually(() => store.ready());
      return store;
    },
    async clear() {
      await database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()`,
      );
      await Promise.all(stores.splice(0).map((store) => store.close()));
      await Promise.all(pools.splice(0).map((each) => (each.ending ? undefined : each.end())));
      await database.query(DROP_ALL);
    },
  };
}
