import { idOf } from 'connect-drizzle';
import type pg from 'pg';

/** The parts of a session that version 1.0.0 reads. */
export interface Version1Row {
  readonly version: string;
  readonly created: string;
  readonly expiry: string;
  readonly data: Record<string, unknown>;
}

const READ = `with "result" as (select "sessions"."version" || ',' || (date_part('epoch', "sessions"."created_at") * 1000000)::bigint || ',' || round(date_part('epoch', least(greatest("sessions"."expires_at", timestamptz 'epoch'), timestamptz '275760-09-13 00:00:00+00')) * 1000)::bigint || ','
        || '' || ',' || "sessions"."id" as head, convert_from(json_send("sessions"."data"), pg_client_encoding()) as data, null as owner from "sessions" where "sessions"."id" = $1::text and "sessions"."revoked_at" is null) select "head", "data", "owner" from "result"`;

const PUT = `with "input" as (select $1::text as id, $2::text as "expiry", $3::text as "data"), "locked" as (select "sessions"."id" as id from "sessions" where "sessions"."id" = $4::text and true for update skip locked), "held" as (select "sessions"."id" as id from "sessions" where "sessions"."id" = $5::text and "sessions"."id" not in (select id from locked)), "written" as (insert into "sessions" ("id", "data", "expires_at")
            select input.id, input.data::json,
              to_timestamp(input.expiry::float8 / 1000)
            from input where (select set_config('lock_timeout', '100ms', true)) is not null and input.id not in (select id from held)
            order by input.id collate "C"
            on conflict ("id") do update set "data" = excluded."data",
              "version" = "sessions"."version" + 1, "last_seen_at" = now(),
              "expires_at" =
                      excluded."expires_at" where "sessions"."revoked_at" is null
            returning "sessions"."id" as id, "sessions"."version" as version, (date_part('epoch', "sessions"."created_at") * 1000000)::bigint as created_us), "result" as (select string_agg(id, ',') as id, string_agg(version::text, ',') as version,
          string_agg(created_us::text, ',') as created_us, (select string_agg(id, ',') from held) as busy
        from written where true) select "id", "version", "created_us", "busy" from "result"`;

const SAVE = `with "input" as (select $1::text as id, $2::text as "version", $3::text as "created", $4::text as "seen", $5::text as "expiry", $6::text as "data"), "locked" as (select "sessions"."id" as id, "sessions".ctid as at from "sessions" where "sessions"."id" = $7::text and "sessions"."revoked_at" is null for update skip locked), "saved" as (update "sessions" set "data" = input.data::json,
            "version" = "sessions"."version" + 1, "last_seen_at" = now(),
            "expires_at" = case when input.expiry = input.seen then "sessions"."expires_at"
                when round(date_part('epoch', least(greatest("sessions"."expires_at", timestamptz 'epoch'), timestamptz '275760-09-13 00:00:00+00')) * 1000)::bigint = input.seen::bigint then to_timestamp(input.expiry::float8 / 1000)
                else greatest("sessions"."expires_at", to_timestamp(input.expiry::float8 / 1000)) end
          from locked join input on input.id = locked.id
          where "sessions".ctid = locked.at and "sessions"."version" = input.version::integer
            and (date_part('epoch', "sessions"."created_at") * 1000000)::bigint = input.created::bigint
          returning "sessions"."id" as id), "result" as (select string_agg(id, ',') as done from saved where true) select "done" from "result"`;

const END = `with "locked" as (select "sessions"."id" as id, "sessions".ctid as at, "sessions"."revoked_at" is null and "sessions"."expires_at" > to_timestamp($1::text::float8::float8 / 1000)  as live from "sessions" where "sessions"."id" = $2::text and "sessions"."revoked_at" is null for update skip locked), "ended" as (update "sessions" set "data" = null,
          "user_id" = null,
          "version" = "sessions"."version" + 1, "revoked_at" = now(),
          "expires_at" = now() + interval '1 hour'
        from locked where "sessions".ctid = locked.at and true
        returning "sessions"."id" as id, locked.live as live), "result" as (select (select string_agg(id, ',') filter (where live) from ended where true) as done) select "done" from "result"`;

/** The recorded one-row statements of version 1.0.0, with its retries. */
export function version1(pool: pg.Pool) {
  const first = async <Row extends pg.QueryResultRow>(
    name: string,
    text: string,
    values: string[],
  ) => (await pool.query<Row>({ name: `version_1_${name}`, text, values })).rows[0];

  const read = async (sid: string): Promise<Version1Row | undefined> => {
    const row = await first<{ head: string; data: string }>('read', READ, [idOf(sid)]);
    if (row === undefined) return undefined;
    const [version = '', created = '', expiry = ''] = row.head.split(',');
    return { version, created, expiry, data: JSON.parse(row.data) };
  };

  return {
    read,
    async put(sid: string, data: object, expiresAt: number): Promise<void> {
      const id = idOf(sid);
      const values = [id, String(expiresAt), JSON.stringify(data), id, id];
      while ((await first<{ id: string | null }>('put', PUT, values))?.id !== id);
    },
    /** Saves changes of a session that was read. Merges them if another write was first. */
    async save(sid: string, seen: Version1Row, changes: object): Promise<void> {
      const id = idOf(sid);
      for (let row: Version1Row | undefined = seen; row !== undefined; row = await read(sid)) {
        const { version, created, expiry } = row;
        const data = JSON.stringify({ ...row.data, ...changes });
        const values = [id, version, created, expiry, expiry, data, id];
        if ((await first<{ done: string | null }>('save', SAVE, values))?.done === id) return;
      }
      throw new Error(`the session ${sid} has ended`);
    },
    async end(sid: string): Promise<void> {
      const id = idOf(sid);
      const values = [String(Date.now()), id];
      while ((await first<{ done: string | null }>('end', END, values))?.done !== id) {
        if ((await read(sid)) === undefined) return;
      }
    },
  };
}
