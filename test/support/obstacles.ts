import type pg from 'pg';
import type { TestDatabase } from './database.js';

/** An open transaction of the app, which blocks other statements. */
export interface Obstacle {
  readonly client: pg.PoolClient;
  /** Resolves when at least `count` statements in this database wait for a lock. */
  waiting(count: number): Promise<void>;
  /** Commits and releases the connection. */
  release(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Begins a transaction, runs the statements and leaves it open. */
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

/** Locks the session table against all statements, reads included. */
export function holdingTable(database: TestDatabase, table = 'sessions'): Promise<Obstacle> {
  return holding(database, `lock table ${table} in access exclusive mode`);
}

/** Makes writes of sessions with `held: true` wait while the test holds the advisory lock 1. */
export async function holdMarked(database: TestDatabase): Promise<void> {
  await database.query(`
    create function hold() returns trigger language plpgsql as $$ begin
      if new.data ->> 'held' is not null then perform pg_advisory_xact_lock(1); end if;
      return new;
    end $$;
    create trigger hold before insert or update on sessions for each row execute function hold();
  `);
}

/** Resolves when at least `count` statements in this database wait for a lock. */
export async function waitingForLocks(database: TestDatabase, count: number): Promise<void> {
  await until(async () => {
    const [row] = await database.query<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return (row?.count ?? 0) >= count;
  });
}

/** Calls `isSo` until it returns true. There is no pause, because each call takes a round trip. */
export async function until(isSo: () => Promise<boolean>, limitMs = 60_000): Promise<void> {
  const startedAt = Date.now();
  while (!(await isSo())) {
    if (Date.now() - startedAt > limitMs)
      throw new Error('timed out: the condition did not become true');
  }
}

/**
 * Makes the server refuse sessions by their content: `{ refuse: '23514' }` with that SQLSTATE on insert and update,
 * `{ refuseUpdate: '42501' }` on update, log-out and delete, and `{ transient: '40001' }` at the first three tries.
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
