/** The session tables of other packages, as those packages create them, with two rows each. */
export const otherTables: Record<string, { owner: string; sql: string }> = {
  'connect-pg-simple': {
    owner: 'connect-pg-simple',
    sql: `create table "sessions" ("sid" varchar not null collate "default", "sess" json not null,
        "expire" timestamp(6) not null, constraint "session_pkey" primary key ("sid"));
      insert into sessions values ('a', '{}', now() - interval '1 day'), ('b', '{}', now() + interval '1 day')`,
  },
  Laravel: {
    owner: 'Laravel',
    sql: `create table sessions (id varchar(255) primary key, user_id bigint, ip_address varchar(45),
        user_agent text, payload text not null, last_activity integer not null);
      insert into sessions values ('a', 1, null, null, 'x', 1), ('b', 2, null, null, 'x', 2)`,
  },
  Rails: {
    owner: 'Rails',
    sql: `create table sessions (id bigserial primary key, session_id varchar not null unique, data text,
        created_at timestamp(6) not null, updated_at timestamp(6) not null);
      insert into sessions values (1, 'a', 'x', now(), now()), (2, 'b', 'x', now(), now())`,
  },
  Django: {
    owner: 'Django',
    sql: `create table sessions (session_key varchar(40) primary key, session_data text not null,
        expire_date timestamptz not null);
      insert into sessions values ('a', 'x', now() - interval '1 day'), ('b', 'x', now() + interval '1 day')`,
  },
  Spring: {
    owner: 'Spring',
    sql: `create table SESSIONS (PRIMARY_ID char(36) primary key, SESSION_ID char(36) not null,
        CREATION_TIME bigint not null, LAST_ACCESS_TIME bigint not null, MAX_INACTIVE_INTERVAL int not null,
        EXPIRY_TIME bigint not null, PRINCIPAL_NAME varchar(100));
      insert into sessions values ('a', 'a', 1, 1, 1, 1, null), ('b', 'b', 1, 1, 1, 1, null)`,
  },
  Supabase: {
    owner: 'Supabase',
    sql: `create table sessions (id uuid primary key, user_id uuid not null, created_at timestamptz,
        updated_at timestamptz, factor_id uuid, aal text, not_after timestamptz, refreshed_at timestamp,
        user_agent text, ip inet, tag text);
      insert into sessions (id, user_id) values (gen_random_uuid(), gen_random_uuid()),
        (gen_random_uuid(), gen_random_uuid())`,
  },
  'Auth.js': {
    owner: 'Auth.js',
    sql: `create table sessions ("sessionToken" text primary key, "userId" text not null,
        expires timestamp not null);
      insert into sessions values ('a', 'ada', now()), ('b', 'bob', now())`,
  },
  'Auth.js with snake_case': {
    owner: 'Auth.js',
    sql: `create table sessions (id serial primary key, user_id integer not null, expires timestamptz not null,
        session_token varchar(255) not null);
      insert into sessions values (1, 1, now(), 'a'), (2, 2, now(), 'b')`,
  },
  'better-auth, plural': {
    owner: 'better-auth',
    sql: `create table sessions (id text primary key, expires_at timestamp not null, token text not null unique,
        created_at timestamp not null, updated_at timestamp not null, ip_address text, user_agent text,
        user_id text not null);
      insert into sessions values ('a', now(), 'a', now(), now(), null, null, 'ada'),
        ('b', now(), 'b', now(), now(), null, null, 'bob')`,
  },
  'better-auth with camelCase': {
    owner: 'better-auth',
    sql: `create table sessions (id text primary key, "expiresAt" timestamp not null, token text not null unique,
        "createdAt" timestamp not null, "updatedAt" timestamp not null, "ipAddress" text, "userAgent" text,
        "userId" text not null);
      insert into sessions values ('a', now(), 'a', now(), now(), null, null, 'ada'),
        ('b', now(), 'b', now(), now(), null, null, 'bob')`,
  },
  'Lucia 3': {
    owner: 'Lucia',
    sql: `create table sessions (id text primary key, user_id text not null, expires_at timestamptz not null);
      insert into sessions values ('a', 'ada', now() - interval '1 day'), ('b', 'bob', now() + interval '1 day')`,
  },
  'Lucia 2': {
    owner: 'Lucia',
    sql: `create table sessions (id varchar(128) primary key, user_id varchar(15) not null,
        active_expires bigint not null, idle_expires bigint not null);
      insert into sessions values ('a', 'ada', 1, 1), ('b', 'bob', 1, 1)`,
  },
  'the newest Lucia': {
    owner: 'Lucia',
    sql: `create table sessions (id text primary key, secret_hash bytea not null, created_at timestamptz not null);
      insert into sessions values ('a', '\\x00', now()), ('b', '\\x00', now())`,
  },
};
