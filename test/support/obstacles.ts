import type pg from 'pg';
import type { TestDatabase } from './database.js';

/** A transaction of the app's that stands in the way of others, until it ends. */
export interface Obstacle {
  readonly client: pg.PoolClient;
  /** Resolves when so many statements in this database wait for a lock. */
  waiting(count: number): Promise<void>;
  /** Commits, and gives the connection back. */
  release(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Begins a transaction that runs these statements and stays open. */
export async function holding(
  database: TestDatabase,
  ...statements: (string | { text: string; values: unknown[] })[]
): Promise<Obstacle> {
  const pool = database.pool({ max: 1 });
  const client = await pool.connect();
  client.on('error', () => {});
  await client.query('begin');
  for (const statement of statements) await client.query(statement);
  let open = true;
  const release = async () => {
    if (!open) return;
    open = false;
    await client.query('commit');
    client.release();
    await pool.end();
  };
  return {
    client,
    waiting: (count) => waitingForLocks(database, count),
    release,
    [Symbol.asyncDispose]: release,
  };
}

/** Keeps every statement away from the session table, reads too. */
export function holdingTable(database: TestDatabase, table = 'sessions'): Promise<Obstacle> {
  return holding(database, `lock table ${table} in access exclusive mode`);
}

/** Sessions with `held: true` wait to be written until the test lets its advisory lock 1 go. */
export async function holdMarked(database: TestDatabase): Promise<void> {
  await database.query(`
    create function hold() returns trigger language plpgsql as $$ begin
      if new.data ->> 'held' is not null then perform pg_advisory_xact_lock(1); end if;
      return new;
    end $$;
    create trigger hold before insert or update on sessions for each row execute function hold();
  `);
}

/** Resolves when so many statements in this database wait for a lock. */
export async function waitingForLocks(database: TestDatabase, count: number): Promise<void> {
  await until(async () => {
    const [row] = await database.query<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return (row?.count ?? 0) >= count;
  });
}

/** Asks again and again; each answer takes a round trip, so there is no pause. */
export async function until(isSo: () => Promise<boolean>, limitMs = 60_000): Promise<void> {
  const startedAt = Date.now();
  while (!(await isSo())) {
    if (Date.now() - startedAt > limitMs)
      throw new Error('timed out: the condition did not become true');
  }
}

/**
 * Makes a session's own content decide whether the server takes it: `{ refuse: '23514' }` is refused
 * with that SQLSTATE when it is inserted or updated, `{ refuseUpdate: '42501' }` when it is updated,
 * tombstoned or deleted, and `{ transient: '40001' }` at the first three tries of anything.
 */
export async function refuseByContent(database: TestDatabase, table = 'sessions'): Promise<void> {
  await database.query(`
    create sequence tries;
    create function refuse() returns trigger language plpgsql as $$
    declare
      content json := case when tg_op = 'DELETE' then old.data
        when tg_op = 'UPDATE' then coalesce(new.data, old.data) else new.data end;
      state text := content ->> 'refuse';
    begin
      if tg_op <> 'INSERT' then state := coalesce(state, content ->> 'refuseUpdate'); end if;
      if state is null and content ->> 'transient' is not null and nextval('tries') <= 3 then
        state := content ->> 'transient';
      end if;
      if state is not null then raise exception using errcode = state, message = 'refused'; end if;
      if tg_op = 'DELETE' then return old; end if;
      return new;
    end $$;
    create trigger refuse before insert or update or delete on ${table}
      for each row execute function refuse();
  `);
}
