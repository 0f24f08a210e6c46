/** Sessions that are nested as deeply as JSON allows, in all calls of the store. */
import { randomUUID } from 'node:crypto';
import {
  DrizzleStore,
  type DrizzleStoreOptions,
  idOf,
  NotSerializableError,
} from 'connect-drizzle';
import type { SessionData } from 'express-session';
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { ending, generated, loaded } from './support/requests.js';
import { contentOf, promised } from './support/sessions.js';

/** Close to the limit of `JSON.stringify`, which is its stack. */
const LEVELS = 3000;
/** Far beyond that limit, but not beyond that of Postgres. `JSON.parse` has no limit. */
const TOO_MANY = 10_000;

let database: TestDatabase;
const stores: DrizzleStore[] = [];

beforeAll(async () => {
  database = await freshDatabase();
});
afterAll(async () => {
  for (const store of stores) await store.close();
  await database.drop();
});

async function open(options: DrizzleStoreOptions): Promise<DrizzleStore> {
  const store = new DrizzleStore(database.pool(), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    errorLog: () => {},
    ...options,
  });
  stores.push(store);
  await store.ready();
  return store;
}

function nested(levels: number, value: unknown): object {
  return JSON.parse(`${'{"a":'.repeat(levels)}${JSON.stringify(value)}${'}'.repeat(levels)}`);
}

/** Newer versions of V8 stringify objects of any depth, unless they contain an object with a `toJSON`. */
function skipIfWritable(context: TestContext): void {
  try {
    JSON.stringify(nested(TOO_MANY, 1));
  } catch {
    return;
  }
  context.skip('JSON.stringify of this Node writes 10,000 levels');
}

/** The JSON of the content without the cookie. (`toEqual` is recursive and would fail.) */
function jsonOf(session: SessionData | undefined): string {
  return JSON.stringify(contentOf(session));
}

const kinds: [kind: string, options: DrizzleStoreOptions][] = [
  ['stored as JSON', {}],
  ['encrypted', { tableName: 'encrypted', encryptionKeys: [Buffer.alloc(32, 1)] }],
  [
    'of a serializer',
    { tableName: 'serialized', serializer: { stringify: JSON.stringify, parse: JSON.parse } },
  ],
  ['in a cache', { tableName: 'cached', cache: true }],
];

describe.each(kinds)('a deeply nested session %s', (_kind, options) => {
  let here: DrizzleStore;
  let there: DrizzleStore;

  beforeAll(async () => {
    here = await open(options);
    there = await open(options);
  });

  test('can be saved, read, touched, updated and listed, and merged if two requests changed it', async () => {
    const sid = randomUUID();
    const session = generated(here, sid, { maxAge: 3_600_000 });
    await here.set(sid, Object.assign(session, nested(LEVELS, { seen: 1 })));
    const [mine, theirs] = [await loaded(here, sid), await loaded(there, sid)];
    await here.touch(sid, ending(mine));
    await there.set(sid, ending(Object.assign(theirs, nested(LEVELS, { seen: 1, theirs: 1 }))));
    await here.set(sid, ending(Object.assign(mine, nested(LEVELS, { seen: 1, mine: 1 }))));
    expect(here.stats().merges).toBe(1);
    const expected = JSON.stringify(nested(LEVELS, { seen: 1, theirs: 1, mine: 1 }));
    expect(jsonOf(await here.get(sid)) === expected).toBe(true);
    const updated = await here.update(sid, (stored) => Object.assign(stored, { updated: true }));
    expect(jsonOf(updated) === `${expected.slice(0, -1)},"updated":true}`).toBe(true);
    expect(jsonOf((await here.all())[idOf(sid)]) === jsonOf(updated)).toBe(true);
    for await (const { data } of here.sessions())
      expect(jsonOf(data) === jsonOf(updated)).toBe(true);
  });

  test('that is too deep for JSON.stringify is refused by set() and update(), and the stored session stays', async (context) => {
    skipIfWritable(context);
    const sid = randomUUID();
    await here.set(sid, generated(here, sid, { maxAge: 3_600_000 }));
    const deep = nested(TOO_MANY, 1);
    const changed = Object.assign(await loaded(here, sid), deep);
    const calls: (() => Promise<unknown>)[] = [
      () => here.set(randomUUID(), Object.assign(generated(here, sid), deep)),
      () => here.set(sid, ending(changed)),
      () => promised((done) => here.set(sid, ending(changed), done)),
      () => here.update(sid, (stored) => Object.assign(stored, deep)),
    ];
    for (const call of calls) {
      const error: unknown = await call().catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(NotSerializableError);
      expect(error).toMatchObject({
        message: 'The session cannot be serialized: it is nested too deeply',
      });
    }
    expect(jsonOf(await here.get(sid))).toBe('{}');
  });
});

test('a stored session too deep for JSON.stringify can be read, listed and touched', async (context) => {
  const store = await open({ tableName: 'by_hand' });
  const sid = randomUUID();
  const session = generated(store, sid, { maxAge: 3_600_000 });
  await store.set(sid, session);
  const levels = `${'{"a":'.repeat(TOO_MANY)}1${'}'.repeat(TOO_MANY)}`;
  const json = `{"cookie":${JSON.stringify(session.cookie)},"deep":${levels}}`;
  await database.query('update by_hand set data = $2 where id = $1', [idOf(sid), json]);

  const depthOf = (found: object | undefined) => {
    let depth = 0;
    for (let at: unknown = Reflect.get(found ?? {}, 'deep'); at !== 1; depth += 1) {
      at = Reflect.get(Object(at), 'a');
    }
    return depth;
  };
  const found = await loaded(store, sid);
  expect(depthOf(found)).toBe(TOO_MANY);
  expect(depthOf((await store.all())[idOf(sid)])).toBe(TOO_MANY);
  await store.touch(sid, ending(found));
  skipIfWritable(context);
  // A changed cookie is a change of the session, so its data must be written.
  found.cookie.path = '/elsewhere';
  await expect(store.touch(sid, found)).rejects.toThrow(NotSerializableError);
  await expect(store.update(sid, () => {})).rejects.toThrow(NotSerializableError);
  await store.update(sid, (stored) => {
    Reflect.deleteProperty(stored, 'deep');
  });
  expect(jsonOf(await store.get(sid))).toBe('{}');
});
