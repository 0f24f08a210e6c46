/**
 * Creates the table of the two limits, with the columns and indexes of connect-drizzle, so that they use the same rows.
 *
 * @param {import('pg').Pool} pool
 * @param {string} name
 */
export async function makeTable(pool, name) {
  await pool.query(`
    create table ${name} (
      id text primary key,
      data json,
      user_id text,
      version integer not null default 1,
      created_at timestamptz not null default now(),
      last_seen_at timestamptz not null default now(),
      expires_at timestamptz not null,
      revoked_at timestamptz,
      expires_hour timestamptz generated always as
        (date_bin('1 hour', expires_at, timestamptz '2000-01-01 00:00:00+00')) stored
    );
    create index on ${name} (user_id) where user_id is not null;
    create index on ${name} (expires_hour);`);
}
