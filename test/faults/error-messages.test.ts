import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { inspect } from 'node:util';
import type { PGlite } from '@electric-sql/pglite';
import {
  ConnectionError,
  DrizzleStore,
  type Source,
  StatementError,
  StoreTimeoutError,
} from 'connect-drizzle';
import pg from 'pg';
import postgres from 'postgres';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { eventually, untilSent } from '../support/eventually.js';
import { holdingTable, until } from '../support/obstacles.js';
import { freshPglite } from '../support/pglite.js';
import { type ReusedDatabase, reusedDatabase } from '../support/reused-database.js';
import { sessionWith } from '../support/sessions.js';
import { causeCode } from '../support/statements.js';

let database: ReusedDatabase;
const ends: (() => Promise<unknown>)[] = [];
let pglite: PGlite;

beforeAll(async () => {
  // This blocks the process for seconds, so no call may be in flight meanwhile.
  pglite = await freshPglite();
  database = await reusedDatabase();
});

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await database.clear();
});

afterAll(async () => {
  await database.drop();
  await pglite.close();
});

type Open = (url: string) => Source | Promise<Source>;

const clients: [string, Open][] = [
  ['node-postgres', (url) => database.pool({ connectionString: url })],
  [
    'postgres-js',
    (url) => {
      const sql = postgres(url, { onnotice: () => {} });
      ends.push(() => sql.end({ timeout: 0 }));
      return sql;
    },
  ],
  ['a URL', (url) => url],
];
const everySource: [string, Open][] = [...clients, ['PGlite', () => pglite]];

async function storeOn(open: Open, url = database.url): Promise<DrizzleStore> {
  const store = new DrizzleStore(await open(url), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    errorLog: () => {},
  });
  ends.push(() => store.close());
  return store;
}

const SECRETS = ['secret-sid', 'secret-content', 'secret-password'];

/** The error of a `set` of a secret session. Checks that it contains none of the secrets. */
async function refusalOf(store: DrizzleStore): Promise<Error> {
  const error: unknown = await store
    .set('secret-sid', sessionWith({ key: 'secret-content' }))
    .catch((reason) => reason);
  const shown = inspect(error, { depth: null, showHidden: true });
  for (const secret of SECRETS) expect(shown).not.toContain(secret);
  if (!(error instanceof Error)) throw new Error('It was not refused');
  return error;
}

describe('the error of a refused statement', () => {
  const reasons: [string, typeof StatementError | typeof ConnectionError, string][] = [
    ['53100', StatementError, 'the disk of the server is full'],
    ['53200', StatementError, 'the server is out of memory'],
    ['57014', StatementError, 'set outside the store'],
    ['25006', StatementError, 'the server is read-only'],
    ['57P01', ConnectionError, 'the server is shutting down'],
    ['57P03', ConnectionError, 'the server is starting up, shutting down or in recovery'],
    ['42501', StatementError, 'lacks a permission on sessions, or on an object that its triggers'],
    ['23514', StatementError, 'refused the statement (SQLSTATE 23514)'],
  ];

  test.each(everySource)('gives the reason in plain words, on %s', async (_, open) => {
    const store = await storeOn(open);
    await store.clear();
    const run = async (text: string) =>
      open === everySource.at(-1)?.[1] ? pglite.exec(text) : database.query(text);
    for (const [code, type, text] of reasons) {
      await run(`
        create or replace function refuse() returns trigger language plpgsql as $$ begin
          raise exception using errcode = '${code}', detail = new.data::text,
            message = 'permission denied for ' || new.data::text;
        end $$;
        create or replace trigger refuse before insert on sessions for each row execute function refuse();
      `);
      const error = await refusalOf(store);
      expect(error).toBeInstanceOf(type);
      expect(error.message).toContain(text);
      expect(error.message).toContain(code);
      expect(causeCode(error)).toBe(code);
    }
    await run('drop function refuse cascade');
  });

  test.each(clients)(
    'names the table for which a permission is missing, on %s',
    async (_, open) => {
      await database.store();
      const role = `role_${database.name}`;
      await database.query(`
      create role ${role} login password 'secret-password';
      grant usage on schema public to ${role};
      grant select, insert, update, delete on sessions to ${role};
      create table audited ();
      create function audit() returns trigger language plpgsql as $$ begin
        insert into audited default values;
        return new;
      end $$;
      create trigger audit before insert on sessions for each row execute function audit();
    `);
      ends.push(() => database.query(`drop owned by ${role}; drop role ${role}`));
      const url = new URL(database.url);
      url.username = role;
      url.password = 'secret-password';
      const error = await refusalOf(await storeOn(open, url.href));
      expect(error).toBeInstanceOf(StatementError);
      expect(error.message).toContain('lacks a permission on table audited (SQLSTATE 42501)');
    },
  );
});

test('names the schema in which a user may not create the table, also if Drizzle wraps the error', async () => {
  const role = `creator_${database.name}`;
  await database.query(`
    create role ${role} login password 'secret-password';
    grant usage on schema public to ${role};
  `);
  ends.push(() => database.query(`drop owned by ${role}; drop role ${role}`));
  const url = new URL(database.url);
  url.username = role;
  url.password = 'secret-password';
  await using store = new DrizzleStore(url.href, {
    createTableIfMissing: true,
    errorLog: () => {},
  });
  const error: unknown = await store.ready().catch((reason) => reason);
  expect(error).toBeInstanceOf(StatementError);
  expect(String(error)).toContain('lacks a permission on schema public (SQLSTATE 42501)');
});

describe('the error of a failed connection', () => {
  /** Starts a server that is not Postgres, and returns its port. */
  async function listening(onConnection: (socket: Socket) => void): Promise<number> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket.on('error', () => {}));
      onConnection(socket);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    ends.push(async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    return address.port;
  }

  /** Starts a server that refuses every log-in with this SQLSTATE. Returns its port. */
  function refusingServer(code: string): Promise<number> {
    return listening((socket) => {
      socket.once('data', () => {
        const fields = Buffer.from(`SFATAL\0VFATAL\0C${code}\0Mno\0\0`);
        const head = Buffer.from('E\0\0\0\0');
        head.writeInt32BE(fields.length + 4, 1);
        socket.end(Buffer.concat([head, fields]));
      });
    });
  }

  test.each(clients)(
    'names host, port and reason, but not the password, on %s',
    async (_, open) => {
      const refused: [string, number, string][] = [
        ['ECONNREFUSED', 1, 'nothing accepts connections there'],
        ['53300', await refusingServer('53300'), 'the server has too many connections'],
        ['57P03', await refusingServer('57P03'), 'the server is starting up'],
      ];
      for (const [code, port, text] of refused) {
        const at = `127.0.0.1:${port}`;
        const error = await refusalOf(
          await storeOn(open, `postgres://user:secret-password@${at}/database`),
        );
        expect(error).toBeInstanceOf(ConnectionError);
        expect(error.message).toContain(`to the database at ${at} failed: ${text}`);
        expect(error.message).toContain(`(${code})`);
      }
    },
  );

  test.each<[string, () => Promise<pg.Pool>]>([
    [
      'the pool had no free connection within its connectionTimeoutMillis',
      async () => {
        const pool = database.pool({ max: 1 });
        const client = await pool.connect();
        ends.push(async () => client.release());
        return Object.assign(pool, { options: { ...pool.options, connectionTimeoutMillis: 1 } });
      },
    ],
    [
      'the server did not answer within connectionTimeoutMillis',
      async () => poolOf(await listening(() => {}), { connectionTimeoutMillis: 1 }),
    ],
    [
      'it was closed by the other side',
      async () => poolOf(await listening((socket) => socket.end())),
    ],
    [
      'the server does not support TLS',
      async () =>
        poolOf(await listening((socket) => socket.once('data', () => socket.end('N'))), {
          ssl: true,
        }),
    ],
    [
      'the app has ended its pool',
      async () => {
        const pool = new pg.Pool({ connectionString: database.url });
        await pool.end();
        return pool;
      },
    ],
  ])('says why if node-postgres gives no code: %s', async (reason, open) => {
    const pool = await open();
    const error = await refusalOf(await storeOn(() => pool));
    expect(error).toBeInstanceOf(ConnectionError);
    expect(error.message).toMatch(/^The connection to the database at 127\.0\.0\.1:\d+ failed: /);
    expect(error.message).toContain(`failed: ${reason}`);
  });

  function poolOf(port: number, config: pg.PoolConfig = {}): pg.Pool {
    const connectionString = `postgres://user:secret-password@127.0.0.1:${port}/database`;
    return database.pool({ connectionString, ...config });
  }

  test('names the host of a pool without a connection string, and all hosts if there are several', async () => {
    const pool = database.pool({ connectionString: undefined, host: '127.0.0.1', port: 1 });
    expect(String(await refusalOf(await storeOn(() => pool)))).toContain('at 127.0.0.1:1 failed');
    const sql = postgres('postgres://127.0.0.1:1,127.0.0.1:2/database');
    ends.push(() => sql.end({ timeout: 0 }));
    expect(String(await refusalOf(await storeOn(() => sql)))).toContain(
      'at 127.0.0.1:1, 127.0.0.1:2 failed',
    );
  });
});

describe("an app's own statement timeout", () => {
  const limits: [string, Open][] = [
    ['statement_timeout', () => database.pool({ statement_timeout: 300 })],
    ['query_timeout', () => database.pool({ query_timeout: 300 })],
    [
      'statement_timeout of postgres-js',
      () => {
        const connection = { statement_timeout: 300 };
        const sql = postgres(database.url, { connection, onnotice: () => {} });
        ends.push(() => sql.end({ timeout: 0 }));
        return sql;
      },
    ],
  ];

  test.each(limits)(
    'fails its callers without a retry for each, and leaves no busy connection: %s',
    async (_, open) => {
      await database.store();
      const store = await storeOn(open);
      await eventually(() => store.ready());
      await database.query(`
      create sequence tries;
      create function count_tries() returns trigger language plpgsql as $$ begin
        perform nextval('tries');
        return null;
      end $$;
      create trigger count_tries before insert on sessions
        for each statement execute function count_tries();
      create function hold() returns trigger language plpgsql as $$ begin
        perform pg_sleep(60);
        return new;
      end $$;
      create trigger hold before insert on sessions for each row execute function hold();
    `);
      const calls = ['a', 'b', 'c', 'd'].map((sid) => store.set(sid, sessionWith()));
      for (const call of calls) {
        const error: unknown = await call.catch((reason) => reason);
        expect(error).toBeInstanceOf(StatementError);
        expect(causeCode(error)).toBe('57014');
      }
      const [row] = await database.query('select last_value::int as tries from tries');
      // At most two statements; if they were split and retried, there would be more.
      expect(row?.tries).toBeLessThanOrEqual(2);
      // Only a cancel request ends `pg_sleep`.
      await until(async () => {
        const busy = await database.query(
          `select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`,
        );
        return busy.length === 0;
      });
      await database.query('drop function hold cascade');
      await eventually(() => store.set('a', sessionWith()));
      expect(await eventually(() => store.length())).toBeGreaterThan(0);
    },
  );
});

test('the error of a call that timed out says whether it was sent', async () => {
  const store = await database.store({ timeout: 0.5 }, database.pool({ max: 2 }));
  const table = await holdingTable(database);
  // The second call waits for its turn.
  const calls = await untilSent<unknown>(table.waiting(1), () => [
    store.get('a'),
    store.set('a', sessionWith()),
  ]);
  const [sent, queued] = await Promise.all(calls.map((call) => call.catch((reason) => reason)));
  expect(sent).toBeInstanceOf(StoreTimeoutError);
  expect(sent).toMatchObject({
    code: 'ERR_STORE_TIMEOUT',
    sent: true,
    message: 'The database did not answer within 0.5 s. A write may have taken effect',
  });
  expect(queued).toBeInstanceOf(StoreTimeoutError);
  expect(queued).toMatchObject({
    sent: false,
    message:
      'The call could not be sent within 0.5 s: it waited for a connection, or for earlier calls for its session. It has no effect',
  });
  await table.release();
});

test('a session whose stored form is too long for a string is named as the cause', async () => {
  // JSON escapes each character as six.
  const serializer = { stringify: () => '\u0001'.repeat(90e6), parse: () => ({}) };
  const store = await database.store({ serializer, timeout: 60 });
  await expect(store.set('a', sessionWith())).rejects.toMatchObject({
    code: 'ERR_NOT_SERIALIZABLE',
    message: 'The session cannot be serialized: it is too large',
  });
  expect(await store.get('a')).toBeUndefined();
});
