import { AsyncLocalStorage } from 'node:async_hooks';
import { tracingChannel } from 'node:diagnostics_channel';
import {
  DrizzleStore,
  type DrizzleStoreOptions,
  idOf,
  type StoreStats,
  type TraceContext,
} from 'connect-drizzle';
import type { SessionData } from 'express-session';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { holding, holdingTable } from './support/obstacles.js';
import { contentOf, sessionWith } from './support/sessions.js';
import { onPortable } from './support/statement-set.js';

const alone = onPortable('a portable statement has one row: there are no batches');

let database: TestDatabase;
const undo: (() => unknown)[] = [];

beforeAll(async () => {
  database = await freshDatabase();
});

afterEach(async () => {
  for (const each of undo.splice(0).reverse()) await each();
  await database.query('drop schema public cascade; create schema public');
});

afterAll(() => database.drop());

function make(options: DrizzleStoreOptions = {}): DrizzleStore {
  const store = new DrizzleStore(database.pool(), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    errorLog: () => {},
    ...options,
  });
  undo.push(() => store.close());
  return store;
}

async function open(options: DrizzleStoreOptions = {}): Promise<DrizzleStore> {
  const store = make(options);
  await store.ready();
  return store;
}

async function load(store: DrizzleStore, sid: string): Promise<SessionData> {
  const found = await store.get(sid);
  if (found === undefined) throw new Error(`no session ${sid}`);
  return found;
}

describe('stats()', () => {
  const nothing: StoreStats = {
    hits: 0,
    misses: 0,
    statements: 0,
    rows: 0,
    largestBatch: 0,
    retries: 0,
    merges: 0,
    dropped: 0,
    unreadable: 0,
    pruned: 0,
    sync: 'off',
    cached: 0,
  };

  test('has all counts before the first call and after close()', async () => {
    const store = make();
    expect(store.stats()).toEqual(nothing);
    await store.set('sid', sessionWith());
    await store.close();
    expect(store.stats()).toEqual({ ...nothing, statements: 1, rows: 1, largestBatch: 1 });
  });

  test('returns a copy', async () => {
    const store = await open();
    const before = store.stats();
    await store.get('sid');
    expect(before).toEqual(nothing);
    expect(store.stats().statements).toBe(1);
  });

  test.skipIf(alone)('counts statements, their rows, and the largest batch', async () => {
    const store = await open();
    await Promise.all(['a', 'b', 'c', 'd', 'e'].map((sid) => store.get(sid)));
    expect(store.stats()).toMatchObject({ statements: 1, rows: 5, largestBatch: 5 });
    await store.get('a');
    expect(store.stats()).toMatchObject({ statements: 2, rows: 6, largestBatch: 5 });
    // Two concurrent reads of one session share a row.
    await Promise.all([store.get('a'), store.get('a')]);
    expect(store.stats()).toMatchObject({ statements: 3, rows: 7 });
  });

  test('counts merges, and writes that were dropped because the session had ended', async () => {
    const store = await open();
    await store.set('sid', sessionWith());
    const [one, two, three] = await Promise.all([1, 2, 3].map(() => load(store, 'sid')));
    await store.set('sid', Object.assign(one ?? sessionWith(), { one: 1 }));
    expect(store.stats()).toMatchObject({ merges: 0, dropped: 0 });
    await store.set('sid', Object.assign(two ?? sessionWith(), { two: 2 }));
    expect(store.stats()).toMatchObject({ merges: 1, dropped: 0 });
    await store.destroy('sid');
    await store.set('sid', Object.assign(three ?? sessionWith(), { three: 3 }));
    expect(store.stats()).toMatchObject({ merges: 1, dropped: 1 });
  });

  test('counts rows that are sent again because another transaction has locked them', async () => {
    const store = await open();
    await store.set('sid', sessionWith());
    await using obstacle = await holding(database, 'select from sessions for update');
    const destroyed = store.destroy('sid');
    await expect.poll(() => store.stats().retries).toBeGreaterThan(0);
    await obstacle.release();
    await destroyed;
  });

  test('counts pruned sessions, by pruneSessions() and in the background', async () => {
    const store = await open({ pruneSessionInterval: 0.05 });
    for (const sid of ['a', 'b']) await store.set(sid, sessionWith({}, -7200));
    await expect.poll(() => store.stats().pruned).toBe(2);
    const other = await open();
    await other.set('c', sessionWith({}, -7200));
    const count = await other.pruneSessions();
    expect(other.stats().pruned).toBe(count);
  });

  test('counts hits, misses and cached sessions', async () => {
    const store = await open({ cache: true });
    await expect.poll(() => store.stats().sync).toBe('up');
    await store.get('nobody');
    expect(store.stats()).toMatchObject({ hits: 0, misses: 1, cached: 0 });
    await store.set('sid', sessionWith());
    await store.get('sid');
    const { hits, misses, cached } = store.stats();
    expect(hits + misses).toBe(2);
    expect(cached).toBe(1);
    await store.get('sid');
    expect(store.stats()).toMatchObject({ hits: hits + 1, misses });
    await store.destroy('sid');
    expect(store.stats().cached).toBe(0);
  });

  test('has the state of the listener', async () => {
    const store = await open({ sync: { heartbeat: 1 } });
    await expect.poll(() => store.stats().sync).toBe('up');
    const lost = new Promise((resolve) => store.once('sync', resolve));
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid()`,
    );
    expect(await lost).toBe('down');
    expect(store.stats().sync).toBe('down');
    await expect.poll(() => store.stats().sync).toBe('up');
  });
});

type Stage = 'start' | 'end' | 'asyncStart' | 'asyncEnd' | 'error';

interface Message extends TraceContext {
  result?: unknown;
  error?: unknown;
}

/** Subscribes to one operation's channels. */
function subscribe(operation: string, on: (stage: Stage, message: Message) => void): void {
  const channel = tracingChannel<unknown, Message>(`connect-drizzle:${operation}`);
  const subscriber = {
    start: (message: Message) => on('start', message),
    end: (message: Message) => on('end', message),
    asyncStart: (message: Message) => on('asyncStart', message),
    asyncEnd: (message: Message) => on('asyncEnd', message),
    error: (message: Message) => on('error', message),
  };
  channel.subscribe(subscriber);
  undo.push(() => channel.unsubscribe(subscriber));
}

describe('the tracing channels', () => {
  const id = idOf('sid');
  test.each<[string, (store: DrizzleStore) => Promise<unknown>, object]>([
    ['get', (store) => store.get('sid'), { operation: 'get', id }],
    ['set', (store) => store.set('sid', sessionWith({ page: 2 })), { operation: 'set', id }],
    ['touch', (store) => store.touch('sid', sessionWith()), { operation: 'touch', id }],
    ['destroy', (store) => store.destroy('sid'), { operation: 'destroy', id }],
    ['update', (store) => store.update('sid', () => {}), { operation: 'update', id }],
    ['prune', (store) => store.pruneSessions(), { operation: 'prune' }],
    [
      'statement',
      (store) =>
        Promise.all((alone ? ['sid'] : ['sid', 'two', 'three']).map((sid) => store.get(sid))),
      { operation: 'statement', statement: 'read', rows: alone ? 1 : 3 },
    ],
  ])(
    'publish the start and the end of each %s, without the session',
    async (name, call, context) => {
      const store = await open();
      await store.set('sid', sessionWith({ page: 1 }));
      const messages = new Set<Message>();
      const stages: Stage[] = [];
      subscribe(name, (stage, message) => {
        stages.push(stage);
        messages.add(message);
      });
      await call(store);
      expect(stages).toEqual(['start', 'end', 'asyncStart', 'asyncEnd']);
      const [message, ...others] = messages;
      expect(others).toEqual([]);
      expect(message).toEqual(context);
      expect(message?.result).toBeUndefined();
    },
  );

  test('do not change the result of a call, by promise or by callback', async () => {
    const store = await open();
    for (const name of ['get', 'set', 'update', 'statement', 'prune']) subscribe(name, () => {});
    await store.set('sid', sessionWith({ page: 1 }));
    expect(contentOf(await store.get('sid'))).toEqual({ page: 1 });
    expect(
      contentOf(await store.update('sid', (data) => void Object.assign(data, { page: 2 }))),
    ).toEqual({ page: 2 });
    expect(await store.get('nobody')).toBeUndefined();
    expect(await store.pruneSessions()).toBe(0);
    const found = await new Promise<unknown>((resolve) =>
      store.get('sid', (_, data) => resolve(data)),
    );
    expect(found).toMatchObject({ page: 2 });
  });

  test('publish the error that the caller gets', async () => {
    const store = await open();
    await database.query('drop table sessions');
    const shown: Message[] = [];
    for (const name of ['get', 'statement']) {
      subscribe(name, (stage, message) => {
        if (stage === 'error') shown.push(message);
      });
    }
    const failure = await store.get('sid').catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 'ERR_TABLE_MISSING' });
    expect(shown.map(({ operation }) => operation)).toEqual(['statement', 'get']);
    for (const { error } of shown) expect(error).toBe(failure);
  });

  test('publish the end of an operation only after the database has answered', async () => {
    const store = await open();
    const stages: string[] = [];
    for (const name of ['set', 'statement']) {
      subscribe(name, (stage) => {
        if (stage === 'start' || stage === 'asyncEnd') stages.push(`${name} ${stage}`);
      });
    }
    await using obstacle = await holdingTable(database);
    const saved = store.set('sid', sessionWith());
    await obstacle.waiting(1);
    expect(stages).toEqual(['set start', 'statement start']);
    await obstacle.release();
    await saved;
    expect(stages.slice(2)).toEqual(['statement asyncEnd', 'set asyncEnd']);
  });

  test.skipIf(alone)(
    'run a call and its lone statement in the async context of the caller, and a batch in none',
    async () => {
      const request = new AsyncLocalStorage<string>();
      const store = make();
      const seen = new Map<string, (string | undefined)[]>();
      for (const name of ['get', 'set', 'statement']) {
        const contexts: (string | undefined)[] = [];
        seen.set(name, contexts);
        subscribe(name, (stage) => {
          if (stage === 'start') contexts.push(request.getStore());
        });
      }
      // The first request opens the store. Its context must not stay in the lane.
      await request.run('first', () => store.set('sid', sessionWith()));
      expect(seen.get('set')).toEqual(['first']);
      expect(seen.get('statement')).toEqual(['first']);
      await Promise.all(
        ['second', 'third'].map((each) => request.run(each, () => store.get(`sid of ${each}`))),
      );
      expect(seen.get('get')).toEqual(['second', 'third']);
      expect(seen.get('statement')).toEqual(['first', undefined]);
      await request.run('fourth', () => store.get('sid'));
      expect(seen.get('statement')).toEqual(['first', undefined, 'fourth']);
    },
  );

  test('can be subscribed to and unsubscribed from while calls are in flight', async () => {
    const store = await open();
    const shown: Stage[] = [];
    await using obstacle = await holdingTable(database);
    const first = store.get('sid');
    await obstacle.waiting(1);
    subscribe('get', (stage) => shown.push(stage));
    const second = store.get('two');
    await obstacle.release();
    await Promise.all([first, second]);
    expect(shown).toEqual(['start', 'end', 'asyncStart', 'asyncEnd']);
    for (const each of undo.splice(1)) each();
    await store.get('sid');
    expect(shown).toHaveLength(4);
  });
});
