import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { tracingChannel } from 'node:diagnostics_channel';
import { inspect } from 'node:util';
import {
  DrizzleStore,
  type DrizzleStoreOptions,
  idOf,
  type Source,
  type StoredSession,
} from 'connect-drizzle';
import express from 'express';
import session, { type SessionData } from 'express-session';
import pg from 'pg';
import postgres from 'postgres';
import { afterEach, expect, test, vi } from 'vitest';
import { channelOf } from '../src/sync/channel.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { eventually } from './support/eventually.js';
import { serve } from './support/http.js';
import { holdingTable } from './support/obstacles.js';
import { freshPglite } from './support/pglite.js';
import { freePort } from './support/postgres.js';
import { sessionWith } from './support/sessions.js';

// The secrets: all sids, and a word that each session contains as a key and as a value.
const word = `canary${randomBytes(6).toString('hex')}`;
const password = `password${randomBytes(6).toString('hex')}`;
const encryptionKey = randomBytes(32).toString('hex');
const sids: string[] = [];

function sid(): string {
  const made = randomUUID();
  sids.push(made);
  return made;
}

type Owned = SessionData & { user?: unknown };

function content(user?: unknown): Owned {
  return sessionWith({ user, [word]: word, nested: { [word]: [word] } });
}

/** The encodings in which a secret could be contained in a text. */
function formsOf(text: string): string[] {
  const bytes = Buffer.from(text);
  // The base64 of a part depends on its offset in the whole, so there are three forms of it.
  const base64 = [0, 1, 2].map((shift) =>
    Buffer.concat([Buffer.alloc(shift), bytes])
      .toString('base64')
      .slice(4, -4),
  );
  return [text, bytes.toString('hex'), ...base64, encodeURIComponent(text)];
}

/** The texts that contain one of the secrets. */
function findings(texts: readonly string[], secrets: readonly string[]): string[] {
  const forms = secrets.flatMap(formsOf).map((form) => form.toLowerCase());
  return texts.filter((text) => {
    const lower = text.toLowerCase();
    return forms.some((form) => lower.includes(form));
  });
}

/** Collects everything that a store emits or logs, and all errors. */
class Overheard {
  readonly kinds = new Map<string, unknown[]>();
  readonly #atOnce: string[] = [];

  add(kind: string, value: unknown): void {
    this.kinds.set(kind, [...(this.kinds.get(kind) ?? []), value]);
    this.#atOnce.push(shown(value));
  }

  count(kind: string): number {
    return this.kinds.get(kind)?.length ?? 0;
  }

  /** All values as text, as they were when they arrived and as they are now. */
  get texts(): string[] {
    return [...this.#atOnce, ...[...this.kinds.values()].flat().map(shown)];
  }

  /** Awaits a call that must fail, and records its error. */
  async failure(call: Promise<unknown>, code: string): Promise<void> {
    const [result] = await Promise.allSettled([call]);
    if (result.status === 'fulfilled') throw new Error(`a call succeeded, in place of ${code}`);
    this.add('errors', result.reason);
    expect(result.reason).toMatchObject({ code });
  }

  /** The same for a function that must throw. */
  thrown(call: () => unknown): void {
    let failure: unknown;
    try {
      call();
    } catch (error) {
      failure = error;
    }
    expect(failure).toBeInstanceOf(TypeError);
    this.add('errors', failure);
  }
}

function shown(value: unknown): string {
  const options = { depth: 30, showHidden: true, maxStringLength: null, maxArrayLength: null };
  let json: string | undefined;
  try {
    json = JSON.stringify(value);
  } catch {
    // Only `inspect` can show cyclic values.
  }
  return `${inspect(value, options)} ${String(value)} ${json}`;
}

const undo: (() => unknown)[] = [];

afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
});

/** Listens to the console, to warnings and to the tracing channels. */
function overhear(): Overheard {
  const heard = new Overheard();
  for (const method of ['log', 'info', 'warn', 'error', 'debug'] as const) {
    const spy = vi.spyOn(console, method).mockImplementation((...entry: unknown[]) => {
      heard.add('console', entry);
    });
    undo.push(() => spy.mockRestore());
  }
  const onWarning = (warning: Error) => heard.add('warnings', warning);
  process.on('warning', onWarning);
  undo.push(() => process.off('warning', onWarning));
  for (const operation of ['get', 'set', 'touch', 'destroy', 'update', 'prune', 'statement']) {
    const channel = tracingChannel<unknown, object>(`connect-drizzle:${operation}`);
    const add = (message: object) => heard.add('diagnostics', message);
    const subscriber = { start: add, end: add, asyncStart: add, asyncEnd: add, error: add };
    channel.subscribe(subscriber);
    undo.push(() => channel.unsubscribe(subscriber));
  }
  return heard;
}

interface Scene {
  readonly heard: Overheard;
  readonly query: (text: string, values?: unknown[]) => Promise<unknown[]>;
  /** A store on a connection of its own to the same database. */
  readonly open: (options?: DrizzleStoreOptions) => Promise<DrizzleStore>;
}

/** A constraint and a trigger that refuse rows by their user, and quote the whole row in their errors. */
const indiscretions = `
  alter table sessions add constraint nobody_checked check (user_id <> 'checked');
  create function indiscreet() returns trigger language plpgsql as $$
  declare seen text := case when tg_op = 'DELETE' then old::text else new::text end;
  begin
    if seen like '%refused%' and tg_op <> 'DELETE' or seen like '%undeletable%' and tg_op = 'DELETE' then
      raise exception using message = 'refused ' || seen, detail = seen, hint = seen;
    end if;
    if tg_op = 'DELETE' then return old; end if;
    return new;
  end $$;
  create trigger indiscreet before insert or update or delete on sessions
    for each row execute function indiscreet();
`;

/** Events and failures that are possible on every source. */
async function misfortunes({ heard, query, open }: Scene): Promise<void> {
  const store = await open({ sync: true, cache: true });
  for (const statement of indiscretions.split(/;(?=\n {2}(?:create|alter|$))/)) {
    if (statement.trim() !== '') await query(statement);
  }
  for (const event of ['change', 'destroy', 'sync', 'error', 'connect', 'disconnect']) {
    store.on(event, (...values) => heard.add('events', [event, ...values]));
  }
  await expect.poll(() => store.stats().sync).toBe('up');

  // Calls without failures: reads, touches, a merge, a dropped write, log-outs, a list.
  const [one, two, three] = [sid(), sid(), sid()];
  for (const each of [one, two, three]) await store.set(each, content('ada'));
  const [mine, theirs, late] = [await store.get(one), await store.get(one), await store.get(two)];
  if (!mine || !theirs || !late) throw new Error('no session');
  await store.touch(one, mine);
  await store.set(one, Object.assign(theirs, { theirs: word }));
  await store.set(one, Object.assign(mine, { mine: word }));
  await store.update(one, (data) => void Object.assign(data, { more: word }));
  await store.revoke(idOf(two));
  await store.set(two, Object.assign(late, { late: word }));
  await store.destroy(three);
  expect(store.stats()).toMatchObject({ merges: 1, dropped: 1 });
  const listed: StoredSession[] = [];
  for await (const each of store.sessions({ userId: 'ada' })) listed.push(each);
  expect(listed).toHaveLength(1);
  await store.revokeUser('ada', { except: one });

  // Calls that fail before they reach the database.
  const cycle = content();
  Object.assign(cycle, { [word]: { [word]: cycle } });
  const big = Object.assign(content(), { [word]: 1n });
  const throwing = {
    toJSON: () => {
      throw new Error(word);
    },
  };
  for (const bad of [cycle, big, Object.assign(content(), { [word]: throwing })]) {
    await heard.failure(store.set(sid(), bad), 'ERR_NOT_SERIALIZABLE');
  }
  await heard.failure(store.set('', content()), 'ERR_INVALID_SID');
  const wrongSid: unknown = { [word]: word };
  await heard.failure(store.set(wrongSid as string, content()), 'ERR_INVALID_SID');
  for (const user of [{ [word]: word }, `${word}\0`, word.repeat(200), [word]]) {
    await heard.failure(store.set(sid(), content(user)), 'ERR_INVALID_USER_ID');
  }

  // Rows that the database refuses, with the row in the message, detail and hint of its error.
  await heard.failure(store.set(sid(), content('refused')), 'ERR_STATEMENT');
  await heard.failure(store.set(sid(), content('checked')), 'ERR_STATEMENT');
  const many = await Promise.allSettled(
    ['ada', 'checked', 'bob', 'refused', 'eve'].map((user) => store.set(sid(), content(user))),
  );
  expect(many.filter(({ status }) => status === 'rejected')).toHaveLength(2);
  for (const each of many) heard.add('errors', each);
  await new Promise<void>((resolve) => {
    store.set(sid(), content('checked'), (error) => {
      heard.add('errors', error);
      resolve();
    });
  });
  // Nobody awaits this call, so its error is logged.
  const logged = heard.count('logs');
  void store.set(sid(), content('checked'));
  await expect.poll(() => heard.count('logs')).toBeGreaterThan(logged);

  // Pruning a row that cannot be deleted.
  await store.set(sid(), sessionWith({ user: 'undeletable', [word]: word }, -7200));
  await heard.failure(store.pruneSessions(), 'ERR_STATEMENT');

  // Rows that cannot be read.
  const broken = sid();
  await store.set(broken, content());
  await query(`update sessions set data = '"broken"', version = version + 1 where id = $1`, [
    idOf(broken),
  ]);
  const other = await open();
  expect(await other.get(broken)).toBeUndefined();
  expect(Object.keys(await other.all())).not.toContain(idOf(broken));

  // A serializer whose errors contain the session.
  const serializer = {
    stringify: (data: object) => {
      if ('fails' in data) throw new Error(JSON.stringify(data));
      return JSON.stringify(data);
    },
    parse: (text: string) => {
      throw new Error(text);
    },
  };
  const indiscreet = await open({ serializer });
  await indiscreet.set(broken, content());
  await heard.failure(
    indiscreet.set(sid(), Object.assign(content(), { fails: true })),
    'ERR_NOT_SERIALIZABLE',
  );
  expect(await indiscreet.get(broken)).toBeUndefined();

  // A missing table, and a closed store.
  const without = await open({ tableName: 'missing' });
  await query('drop table missing');
  await heard.failure(without.set(sid(), content()), 'ERR_TABLE_MISSING');
  await without.close();
  await heard.failure(without.set(sid(), content()), 'ERR_STORE_CLOSED');
  for (const each of [store, indiscreet]) heard.add('the store itself', each);
}

/** Failures that are possible only with a server. */
async function breakdowns(
  { heard, query, open }: Scene,
  database: TestDatabase,
  options: DrizzleStoreOptions,
): Promise<void> {
  const terminate = `select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()
      and (query ~ 'connect_drizzle|with "|update "' or query ilike 'listen%' or state = 'idle')`;
  const store = await open({ sync: true, cache: true });
  await expect.poll(() => store.stats().sync).toBe('up');

  const hasty = await open({ timeout: 0.2 });
  {
    await using obstacle = await holdingTable(database);
    await heard.failure(hasty.set(sid(), content()), 'ERR_STORE_TIMEOUT');
    const batch = Array.from({ length: 20 }, () => store.set(sid(), content('ada')));
    const outcomes = Promise.allSettled(batch);
    await obstacle.waiting(2);
    const logged = heard.count('logs');
    await query(terminate);
    await obstacle.release();
    const results = await outcomes;
    expect(results.some(({ status }) => status === 'rejected')).toBe(true);
    for (const each of results) heard.add('errors', each);
    await expect.poll(() => heard.count('logs')).toBeGreaterThan(logged);
  }
  await expect.poll(() => store.stats().sync).toBe('up');

  // A store's own pool that loses its idle connections.
  const owner = new DrizzleStore(database.url, {
    ...options,
    pruneSessionInterval: false,
    errorLog: (...entry) => heard.add('logs', entry),
  });
  undo.push(() => owner.close());
  await owner.set(sid(), content());
  const logged = heard.count('logs');
  await query(terminate);
  await expect.poll(() => heard.count('logs')).toBeGreaterThan(logged);

  // No server, and a password that the server refuses.
  const nowhere = new URL(database.url);
  nowhere.password = password;
  const stranger = new URL(nowhere);
  stranger.username = 'stranger';
  nowhere.port = String(await freePort());
  for (const url of [nowhere, stranger]) {
    const lost = new DrizzleStore(url.href, {
      sync: true,
      pruneSessionInterval: false,
      errorLog: (...entry) => heard.add('logs', entry),
    });
    undo.push(() => lost.close());
    const [result] = await Promise.allSettled([lost.set(sid(), content())]);
    expect(result.status).toBe('rejected');
    heard.add('errors', result);
    heard.add('the store itself', lost);
  }
}

/** Invalid arguments that contain a password or a key. */
function mistakes(heard: Overheard): void {
  const urls = [
    `mysql://root:${password}@localhost/db`,
    `"postgres://me:${password}@localhost/db"`,
    `host=localhost password=${password}`,
    `postgres://me:${password}@localhost:port/db`,
    `postgres:/me:${password}@localhost/db`,
  ];
  for (const url of urls) heard.thrown(() => new DrizzleStore(url));
  const options: object[] = [
    { encryptionKeys: [encryptionKey.slice(2)] },
    { encryptionKeys: encryptionKey },
    { encryptionKeys: [encryptionKey, { key: encryptionKey }] },
    { sync: { connectionString: `host=localhost password=${password}` } },
    { ttl: password },
    { tableName: 7, schemaName: password },
    { table: { name: password } },
  ];
  for (const each of options) heard.thrown(() => new DrizzleStore('memory://', each));
  const client: unknown = new pg.Client({ password });
  heard.thrown(() => new DrizzleStore(client as Source));
}

/** Each row of each table, and of some system views, as text without the column `except`. */
async function dump(query: Scene['query'], except?: string): Promise<string[]> {
  const tables = (await query(
    `select format('%I.%I', table_schema, table_name) as name from information_schema.tables
     where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'`,
  )) as { name: string }[];
  const views = ['pg_prepared_statements', 'pg_stat_activity', 'pg_settings', 'pg_proc'];
  const texts: string[] = [];
  for (const name of [...tables.map((table) => table.name), ...views]) {
    const row = except === undefined ? 't::text' : `(to_jsonb(t) - '${except}')::text`;
    const rows = (await query(`select ${row} as text from ${name} as t`)) as { text: string }[];
    texts.push(...rows.map(({ text }) => text));
  }
  return texts;
}

async function opener(
  heard: Overheard,
  source: () => Source,
  options: DrizzleStoreOptions,
): Promise<Scene['open']> {
  return async (more = {}) => {
    const store = new DrizzleStore(source(), {
      createTableIfMissing: true,
      pruneSessionInterval: false,
      // May return any value, as an untyped app could.
      userId: (data: Owned) => data.user as string,
      maxSessionsPerUser: 3,
      errorLog: (...entry) => heard.add('logs', entry),
      ...options,
      ...more,
    });
    undo.push(() => store.close());
    await eventually(() => store.ready());
    return store;
  };
}

function expectNothing(heard: Overheard, kinds: Record<string, number>): void {
  for (const [kind, least] of Object.entries(kinds)) {
    expect(heard.count(kind), kind).toBeGreaterThanOrEqual(least);
  }
  expect(heard.count('console')).toBe(0);
  const { texts } = heard;
  expect(findings(texts, [word, password, encryptionKey, ...sids])).toEqual([]);
  // Nor a driver's own objects, which contain the statements and the password.
  expect(
    texts.filter((text) => /parsedStatements|connectionParameters|Socket \{/.test(text)),
  ).toEqual([]);
}

const modes: [string, DrizzleStoreOptions, string | undefined][] = [
  ['as JSON', {}, 'data'],
  ['encrypted', { encryptionKeys: [encryptionKey] }, undefined],
];

test.each(
  ['node-postgres', 'postgres-js'].flatMap((driver) =>
    modes.map(([how, options, readable]) => ({ driver, how, options, readable })),
  ),
)(
  'errors, logs, events and columns other than data contain no sid or session content, on $driver, stored $how',
  async ({ driver, options, readable }) => {
    const heard = overhear();
    const database = await freshDatabase();
    undo.push(() => database.drop());
    const listener = await database.pool().connect();
    undo.push(() => listener.release(true));
    listener.on('error', () => {});
    const channel = channelOf('public', 'sessions');
    listener.on('notification', (message) => heard.add('notifications', message));
    await listener.query(`listen "${channel}"`);

    const source = (): Source => {
      if (driver === 'node-postgres') return database.pool();
      // If the connection is lost while postgres-js fetches types, it leaves a rejection unhandled.
      const sql = postgres(database.url, { onnotice: () => {}, fetch_types: false });
      undo.push(() => sql.end({ timeout: 1 }));
      return sql;
    };
    const scene = {
      heard,
      query: database.query,
      open: await opener(heard, source, options),
    };
    await misfortunes(scene);
    await breakdowns(scene, database, options);
    mistakes(heard);

    const kinds = { errors: 40, logs: 8, events: 8, notifications: 12, diagnostics: 100 };
    expectNothing(heard, { ...kinds, 'the store itself': 4 });
    const rows = await dump(database.query, readable);
    expect(rows.length).toBeGreaterThan(30);
    expect(findings(rows, [password, encryptionKey, ...sids])).toEqual([]);
    expect(findings(rows, [word])).toEqual([]);
    // The search works: it finds plain content in the column `data`.
    const all = await dump(database.query);
    expect(findings(all, [word]).length > 0).toBe(readable !== undefined);
  },
);

test.each(modes)(
  'errors, logs, events and columns other than data contain no sid or session content, on PGlite, stored %s',
  async (_, options, readable) => {
    const heard = overhear();
    const client = await freshPglite();
    undo.push(() => client.close());
    const query: Scene['query'] = async (text, values) => (await client.query(text, values)).rows;
    await client.listen(channelOf('public', 'sessions'), (payload) =>
      heard.add('notifications', payload),
    );
    await misfortunes({ heard, query, open: await opener(heard, () => client, options) });
    mistakes(heard);
    expectNothing(heard, { errors: 25, logs: 3, events: 8, notifications: 10, diagnostics: 100 });
    const rows = await dump(query, readable);
    expect(findings(rows, [word, password, encryptionKey, ...sids])).toEqual([]);
  },
);

test('a stolen table contains no usable session, even for someone who can sign cookies', async () => {
  const secret = 'the secret of the app';
  await using database = await freshDatabase();
  const store = new DrizzleStore(database.pool(), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    userId: (data: Owned) => data.user as string,
  });
  undo.push(() => store.close());
  const app = express();
  app.use(session({ store, secret, resave: false, saveUninitialized: false, rolling: true }));
  app.get('/', (request, response) => {
    response.send(String(Reflect.get(request.session, 'user') ?? 'nobody'));
  });
  app.post('/login', (request, response) => {
    Object.assign(request.session, { user: 'ada' });
    response.end();
  });
  await using site = await serve(app);
  const ada = site.browser();
  await ada.post('/login');
  expect((await ada.get('/')).text).toBe('ada');
  const ended = site.browser();
  await ended.post('/login');
  await store.destroy(
    decodeURIComponent(ended.cookies.get('connect.sid') ?? '')
      .slice(2)
      .replace(/\..*$/, ''),
  );
  expect(await store.length()).toBe(1);

  const rows = await database.query<Record<string, unknown>>(
    'select *, sessions::text as whole, data::text as text, ctid::text, xmin::text from sessions',
  );
  const state = () =>
    database.query(
      'select id, data::text, version, expires_at, revoked_at from sessions order by id',
    );
  const before = await state();
  expect(rows).toHaveLength(2);
  const stolen = new Set<string>();
  for (const row of rows) {
    for (const value of Object.values(row)) {
      const text = value instanceof Date ? value.toISOString() : String(value);
      stolen.add(text);
      stolen.add(JSON.stringify(value));
      stolen.add(Buffer.from(text, 'base64url').toString('hex'));
      stolen.add(Buffer.from(text, 'base64url').toString('latin1'));
      stolen.add(idOf(text));
    }
  }
  const signed = (value: string) => {
    const signature = createHmac('sha256', secret).update(value).digest('base64');
    return `s:${value}.${signature.replace(/=+$/, '')}`;
  };
  for (const value of stolen) {
    for (const cookie of [value, signed(value), `s:${value}`]) {
      const thief = site.browser();
      thief.cookies.set('connect.sid', encodeURIComponent(cookie));
      expect((await thief.get('/')).text).toBe('nobody');
    }
  }
  // None of the cookies changed a session. A cookie with the sid, signed the same way, works.
  expect(await state()).toEqual(before);
  const owner = site.browser();
  const own = decodeURIComponent(ada.cookies.get('connect.sid') ?? '');
  const adasSid = own.slice(2, own.lastIndexOf('.'));
  owner.cookies.set('connect.sid', encodeURIComponent(signed(adasSid)));
  expect((await owner.get('/')).text).toBe('ada');
});
