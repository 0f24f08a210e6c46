// A write must not happen after its caller gave up, whether the network, a lock or a queue delayed it.
import { DrizzleStore, idOf, type Source, StoreTimeoutError } from 'connect-drizzle';
import type { SessionData } from 'express-session';
import postgres from 'postgres';
import { describe } from 'vitest';
import { gate } from './support/gate.js';
import { gatedPool } from './support/gated-pool.js';
import { holding, holdMarked, until } from './support/obstacles.js';
import { type OwnDatabase, test } from './support/own-database.js';
import { freshPglite } from './support/pglite.js';
import { startProxy, type Proxy as TcpProxy } from './support/proxy.js';
import { generated } from './support/requests.js';
import { contentOf, sessionUntil, sessionWith } from './support/sessions.js';
import { isPortable, onPortable } from './support/statement-set.js';

const silent = { pruneSessionInterval: false, errorLog: () => {}, touchAfter: 0 } as const;

/** Long enough for a busy machine to send a statement. */
const impatient = { ...silent, timeout: 3 } as const;

const drivers: Record<string, (database: OwnDatabase, url: string) => Source> = {
  'node-postgres': (database, url) => database.pool({ connectionString: url }),
  'postgres-js': (database, url) => {
    const sql = postgres(url, { onnotice: () => {} });
    database.atEnd(() => sql.end({ timeout: 0 }));
    return sql;
  },
};

function openStore(database: OwnDatabase, source: Source): DrizzleStore {
  const store = new DrizzleStore(source, impatient);
  database.atEnd(() => store.close());
  return store;
}

async function openProxy(database: OwnDatabase) {
  const proxy = await startProxy(database.url);
  database.atEnd(() => proxy.close());
  return proxy;
}

/** Prepares a test. There, a timeout only means that the machine is busy. */
async function eventually<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof StoreTimeoutError)) throw error;
    }
  }
}

/** Makes calls whose statement is held back; repeats them if the machine was too busy to send it in time. */
async function kept(
  isKept: Promise<void>,
  make: () => Promise<unknown>[],
): Promise<Promise<unknown>[]> {
  for (;;) {
    const calls = make();
    const isSent = await Promise.race([
      isKept.then(() => true),
      Promise.allSettled(calls).then(() => false),
    ]);
    if (isSent) return calls;
  }
}

/** Delivers what was held back to the server and waits for its answer, after the store closed that connection. */
async function delivered(proxy: TcpProxy): Promise<void> {
  // One of its two sockets is left.
  while (Number.isInteger(proxy.connections)) await new Promise(setImmediate);
  const answered = proxy.hold('toClient');
  proxy.release('toServer');
  await answered;
  proxy.release();
}

function newSession(store: DrizzleStore, sid: string, content: object = {}): SessionData {
  return Object.assign(generated(store, sid, { maxAge: 3_600_000 }), content);
}

function rowsOf(database: OwnDatabase, sid: string): Promise<unknown[]> {
  return database.query(
    `select id, data::text, version, created_at, expires_at, revoked_at from sessions
     where id like $1 order by id`,
    [sid === '' ? '%' : idOf(sid)],
  );
}

interface Write {
  /** Whether the session exists before. */
  readonly exists: boolean;
  readonly call: (store: DrizzleStore, sid: string, read: SessionData) => Promise<unknown>[];
}

const later = new Date('2090-01-01');
const writes: Record<string, Write> = {
  'a save': {
    exists: true,
    call: (store, sid, read) => [store.set(sid, Object.assign(read, { late: true }))],
  },
  'a set of a new session': {
    exists: false,
    call: (store, sid) => [store.set(sid, newSession(store, sid))],
  },
  'a set over another session': {
    exists: true,
    call: (store, sid) => [store.set(sid, newSession(store, sid))],
  },
  'a set of a foreign object': {
    exists: false,
    call: (store, sid) => [store.set(sid, sessionWith({ late: true }))],
  },
  'a set of a foreign object over another': {
    exists: true,
    call: (store, sid) => [store.set(sid, sessionWith({ late: true }))],
  },
  'a touch': { exists: true, call: (store, sid) => [store.touch(sid, sessionUntil(later))] },
  'a touch of a loaded session': {
    exists: true,
    call: (store, sid, read) => {
      read.cookie.expires = later;
      return [store.touch(sid, read)];
    },
  },
  'a log-out': { exists: true, call: (store, sid) => [store.destroy(sid)] },
  'a batch of sets of new sessions': {
    exists: false,
    call: (store, sid) => [sid, `${sid} 2`].map((each) => store.set(each, newSession(store, each))),
  },
  'a batch of sets of foreign objects': {
    exists: true,
    call: (store, sid) => [sid, `${sid} 2`].map((each) => store.set(each, sessionWith({ b: 1 }))),
  },
  'a batch of touches': {
    exists: true,
    call: (store, sid) => [sid, `${sid} 2`].map((each) => store.touch(each, sessionUntil(later))),
  },
  'a batch of log-outs': {
    exists: true,
    call: (store, sid) => [sid, `${sid} 2`].map((each) => store.destroy(each)),
  },
};

const withoutBatches = onPortable('calls made at once are not sent at once');

describe.concurrent.each(Object.entries(drivers))('on %s', (_, connect) => {
  test('a write that arrives after its caller gave up changes nothing, and a log-out in another process holds', async ({
    database,
    expect,
  }) => {
    const there = await database.store();
    await Promise.all(
      Object.entries(writes).map(async ([sid, { exists, call }]) => {
        if (withoutBatches && sid.startsWith('a batch')) return;
        const proxy = await openProxy(database);
        const here = openStore(database, connect(database, proxy.url));
        if (exists) {
          for (const each of [sid, `${sid} 2`]) await there.set(each, sessionWith({ n: 1 }));
        }
        await eventually(() => here.set(`warm ${sid}`, sessionWith()));
        const read = (await eventually(() => here.get(sid))) ?? sessionWith();

        const late = await kept(
          proxy.hold('toServer', (piece) => piece.includes(idOf(sid))),
          () => call(here, sid, read),
        );
        for (const each of late) await expect(each, sid).rejects.toMatchObject({ sent: true });
        if (!exists) await there.destroy(sid);
        const before = [await rowsOf(database, sid), await rowsOf(database, `${sid} 2`)];
        await delivered(proxy);
        expect([await rowsOf(database, sid), await rowsOf(database, `${sid} 2`)], sid).toEqual(
          before,
        );
      }),
    );
  });

  test('clear() that arrives late deletes nothing', async ({ database, expect }) => {
    const there = await database.store();
    const proxy = await openProxy(database);
    const here = openStore(database, connect(database, proxy.url));
    // Prepares the statement: postgres-js does that in a round trip of its own.
    await eventually(() => here.clear());
    await there.set('sid', sessionWith());
    const [late] = await kept(proxy.hold('toServer'), () => [here.clear()]);
    await expect(late).rejects.toMatchObject({ sent: true });
    const before = await rowsOf(database, '');
    await delivered(proxy);
    expect(await rowsOf(database, '')).toEqual(before);
  });

  test('a log-out after a set whose answer was lost holds in every process', async ({
    database,
    expect,
  }) => {
    const there = await database.store();
    const logOutIn = async (sid: 'here' | 'there') => {
      const proxy = await openProxy(database);
      const here = openStore(database, connect(database, proxy.url));
      await eventually(() => here.set(`warm ${sid}`, sessionWith()));
      const [lost] = await kept(
        proxy.hold('toServer', (piece) => piece.includes(idOf(sid))),
        () => [here.set(sid, newSession(here, sid))],
      );
      const answered = proxy.hold('toClient');
      proxy.release('toServer');
      await Promise.race([answered, lost?.catch(() => {})]);
      await expect(lost).rejects.toMatchObject({ sent: true });
      proxy.lose('toClient');
      await eventually(() => (sid === 'here' ? here : there).destroy(sid));
      expect(await there.get(sid), sid).toBeUndefined();
      // There is no row if the server had no time to run it.
      for (const row of await rowsOf(database, sid)) expect(row).toMatchObject({ data: null });
    };
    await Promise.all([logOutIn('here'), logOutIn('there')]);
  });

  test('a set that waits for a lock is cancelled when its caller gives up', async ({
    database,
    expect,
  }) => {
    const there = await database.store();
    await holdMarked(database);
    await using lock = await holding(database, 'select pg_advisory_xact_lock(1)');
    const here = openStore(database, connect(database, database.url));
    await there.set('sid', sessionWith({ n: 1 }));
    const read = await eventually(() => here.get('sid'));
    const [late] = await kept(lock.waiting(1), () => [
      here.set('sid', Object.assign(read ?? sessionWith(), { held: true })),
    ]);
    // A portable statement gives up soon and is sent again: it may be waiting for that.
    await expect(late).rejects.toMatchObject(isPortable ? {} : { sent: true });
    // The lock is still held, and a log-out need not wait for it.
    await until(async () => (await count(database, `wait_event_type = 'Lock'`)) === 0);
    await there.destroy('sid');
    await lock.release();
    expect(await rowsOf(database, 'sid')).toMatchObject([{ data: null }]);
  });

  test('close() does not wait for a cancel request that nobody answers', async ({
    database,
    expect,
  }) => {
    const there = await database.store();
    await holdMarked(database);
    await using lock = await holding(database, 'select pg_advisory_xact_lock(1)');
    const proxy = await openProxy(database);
    const here = openStore(database, connect(database, proxy.url));
    await there.set('sid', sessionWith({ n: 1 }));
    const read = await eventually(() => here.get('sid'));
    const [late] = await kept(lock.waiting(1), () => [
      here.set('sid', Object.assign(read ?? sessionWith(), { held: true })),
    ]);
    // New connections are accepted, and nothing comes back.
    proxy.swallow();
    await expect(late).rejects.toMatchObject({ sent: true });
    await here.close();
    await lock.release();
  });
});

/** How many connections to this database are in a state. */
async function count(database: OwnDatabase, condition: string): Promise<number> {
  const [row] = await database.query<{ count: number }>(
    `select count(*)::int as count from pg_stat_activity where datname = current_database() and ${condition}`,
  );
  return row?.count ?? 0;
}

test.concurrent('a log-out holds even if the insert before it could not be cancelled and ends later', async ({
  database,
  expect,
}) => {
  const there = await database.store();
  // Not with a lock, because `lock_timeout` would end the wait.
  await database.query(`
    create table held ();
    insert into held default values;
    create function hold() returns trigger language plpgsql as $$ begin
      while new.data is not null and exists (select from held) loop perform pg_sleep(0.02); end loop;
      return new;
    end $$;
    create trigger hold before insert on sessions for each row execute function hold();
  `);
  const pool = database.pool();
  // Where the cancel request goes: nobody listens on port 1.
  pool.on('connect', (client) => Object.assign(client, { port: 1 }));
  const here = openStore(database, pool);
  await eventually(() => here.get('warm'));
  const isHeld = () => count(database, `wait_event = 'PgSleep'`);
  const [late] = await kept(
    until(async () => (await isHeld()) === 1),
    () => [here.set('sid', newSession(here, 'sid'))],
  );
  await expect(late).rejects.toMatchObject({ sent: true });
  await eventually(() => here.destroy('sid'));
  // The insert is still running.
  await until(async () => (await isHeld()) === 1);
  await database.query('delete from held');
  await until(
    async () => (await isHeld()) === 0 && (await count(database, `state = 'active'`)) <= 1,
  );
  expect(await there.get('sid')).toBeUndefined();
  expect(await rowsOf(database, 'sid')).toMatchObject([{ data: null }]);
});

test('log-outs of sessions that do not exist leave no tombstones after an insert was refused or never sent', async ({
  database,
  expect,
}) => {
  const pool = database.pool({ max: 1 });
  const here = await database.store({ ...silent, timeout: 1 }, pool);
  await database.query(
    `alter table sessions add constraint small check (length(data::text) < 500)`,
  );
  const tooLong = newSession(here, 'refused', { text: 'x'.repeat(500) });
  await expect(eventually(() => here.set('refused', tooLong))).rejects.toMatchObject({
    cause: { code: '23514' },
  });
  const app = await pool.connect();
  app.on('error', () => {});
  const unsent = here.set('unsent', newSession(here, 'unsent'));
  await expect(unsent).rejects.toMatchObject({ sent: false });
  app.release();
  for (const sid of ['a', 'b', 'c']) await eventually(() => here.destroy(sid));
  expect(await rowsOf(database, '')).toEqual([]);
});

test.for(withoutBatches ? [1] : [1, 2])(
  'a set of %s new sessions does not overwrite a tombstone that was created after its call began',
  async (count, { database, expect }) => {
    const there = await database.store();
    const leave = gate();
    let sent = Number.NEGATIVE_INFINITY;
    const held = gate();
    const pool = gatedPool(database.pool(), async (query) => {
      sent += 1;
      // The first reads the server's clock.
      if (sent === 2) {
        held.open();
        await leave.opened;
      }
      return query();
    });
    const here = await database.store({}, pool);
    await here.set('warm', sessionWith());
    const sids = ['a', 'b'].slice(0, count);
    sent = 0;
    const late = sids.map((sid) => here.set(sid, newSession(here, sid)));
    await held.opened;
    // Longer than the clocks' margin.
    await new Promise((resolve) => setTimeout(resolve, 200));
    for (const sid of sids) {
      await there.set(sid, sessionWith());
      await there.destroy(sid);
    }
    leave.open();
    await Promise.all(late);
    for (const sid of sids) expect(await there.get(sid)).toBeUndefined();
    expect(here.stats().dropped).toBe(count);
    // A later call does.
    for (const sid of sids) await here.set(sid, newSession(here, sid, { n: 2 }));
    for (const sid of sids) expect(contentOf(await there.get(sid))).toEqual({ n: 2 });
  },
);

test('a session exists after one process ended it and set it again at once', async ({
  database,
  expect,
}) => {
  const store = await database.store();
  for (let n = 0; n < 50; n += 1) {
    await store.destroy('sid');
    await store.set('sid', newSession(store, 'sid', { n }));
    expect(contentOf(await store.get('sid'))).toEqual({ n });
  }
});

describe('on PGlite', () => {
  test('a write whose caller gave up while the app held the database changes nothing, and a log-out holds', async ({
    database,
    expect,
  }) => {
    const client = await freshPglite();
    database.atEnd(() => client.close());
    const store = openStore(database, client);
    /** Makes calls while a transaction of the app holds the database. */
    const whileHeld = async (calls: () => Promise<unknown>) => {
      const [inside, leave] = [gate(), gate()];
      const transaction = client.transaction(async (tx) => {
        await tx.query('select 1');
        inside.open();
        await leave.opened;
      });
      await inside.opened;
      await calls();
      leave.open();
      await transaction;
    };
    await eventually(() => store.set('saved', sessionWith({ n: 1 })));
    const read = (await eventually(() => store.get('saved'))) ?? sessionWith();

    await whileHeld(async () => {
      const late = store.set('new', newSession(store, 'new'));
      await expect(late).rejects.toMatchObject({ sent: true });
    });
    expect(await eventually(() => store.get('new'))).toBeUndefined();

    await whileHeld(async () => {
      const late = store.set('saved', Object.assign(read, { n: 2 }));
      await expect(late).rejects.toMatchObject({ sent: true });
      await expect(store.destroy('saved')).rejects.toMatchObject({ sent: false });
    });
    expect(contentOf(await eventually(() => store.get('saved')))).toEqual({ n: 1 });
    await eventually(() => store.destroy('saved'));
    expect(await eventually(() => store.get('saved'))).toBeUndefined();
  });
});
