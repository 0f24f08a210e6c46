import {
  createDecipheriv,
  createHmac,
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  randomBytes,
} from 'node:crypto';
import { DrizzleStore, type DrizzleStoreOptions, type EncryptionKey, idOf } from 'connect-drizzle';
import type { SessionData } from 'express-session';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { contentOf, sessionWith } from './support/sessions.js';

let database: TestDatabase;
let logged: string[];
const stores: DrizzleStore[] = [];

beforeAll(async () => {
  database = await freshDatabase();
});

beforeEach(() => {
  logged = [];
});

afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  await database.query('drop schema public cascade; create schema public');
});

afterAll(() => database.drop());

const current = randomBytes(32);
const older = randomBytes(32);

async function open(
  encryptionKeys: readonly EncryptionKey[] | undefined = [current],
  options: DrizzleStoreOptions = {},
): Promise<DrizzleStore> {
  const store = new DrizzleStore(database.pool(), {
    createTableIfMissing: true,
    pruneSessionInterval: false,
    errorLog: (message, error) =>
      logged.push(error === undefined ? message : `${message} ${error}`),
    encryptionKeys,
    ...options,
  });
  stores.push(store);
  await store.ready();
  return store;
}

async function load(store: DrizzleStore, sid: string): Promise<SessionData> {
  const found = await store.get(sid);
  if (found === undefined) throw new Error(`no session ${sid}`);
  return found;
}

/** The stored form of a session. */
async function storedOf(sid: string): Promise<string> {
  const [row] = await database.query<{ data: string }>(
    'select data::text from sessions where id = $1',
    [idOf(sid)],
  );
  if (row === undefined) throw new Error(`no row of ${sid}`);
  return row.data;
}

async function storedParts(sid: string): Promise<[name: string, nonce: string, body: string]> {
  const envelope: string = JSON.parse(await storedOf(sid));
  const [name = '', nonce = '', body = ''] = envelope.split('.');
  return [name, nonce, body];
}

/** Replaces the data of a row. With `raise`, the version changes as in a write of another request. */
async function overwrite(sid: string, data: unknown, raise = 0): Promise<void> {
  await database.query(
    'update sessions set data = $2::json, version = version + $3 where id = $1',
    [idOf(sid), JSON.stringify(data), raise],
  );
}

/** Changes the first bit of a base64url text. */
function flipped(text: string): string {
  const bytes = Buffer.from(text, 'base64url');
  bytes[0] = (bytes[0] ?? 0) ^ 0x80;
  return bytes.toString('base64url');
}

function unreadable(sid: string, reason: string): string {
  return `connect-drizzle: The session with the id ${idOf(sid)} cannot be read: ${reason}`;
}

describe('an encrypted session', () => {
  test('is read back unchanged, and the table contains none of it in plain text', async () => {
    const store = await open([current], { userId: () => 'ada' });
    const content = {
      secret: 'top-secret',
      odd: '\0\u001f\ud800 "\\" 🙈 é',
      nested: { list: [1, null, { deep: true }], date: '2026-01-01T00:00:00.000Z' },
      long: 'top-secret'.repeat(20_000),
    };
    await store.set('sid', sessionWith(content));
    expect(contentOf(await store.get('sid'))).toEqual(content);
    const stored = await storedOf('sid');
    expect(stored).toMatch(/^"[\w-]+\.[\w-]+\.[\w-]+"$/);
    for (const word of ['secret', 'nested', 'cookie', 'originalMaxAge']) {
      expect(stored).not.toContain(word);
      expect(Buffer.from(stored, 'base64url').toString('latin1')).not.toContain(word);
    }
    // The owner is not encrypted, because the store searches for it.
    expect(await database.query('select user_id from sessions')).toEqual([{ user_id: 'ada' }]);
  });

  test('uses AES-256-GCM with a key derived from the key and the id', async () => {
    const store = await open();
    await store.set('sid', sessionWith({ page: 1 }));
    const [nonce, body] = (await storedParts('sid'))
      .slice(1)
      .map((part) => Buffer.from(part, 'base64url'));
    if (nonce === undefined || body === undefined) throw new Error('no envelope');
    const key = createHmac('sha256', current).update(idOf('sid')).digest();
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
    decipher.setAAD(Buffer.from(idOf('sid')));
    decipher.setAuthTag(body.subarray(-16));
    const text = decipher.update(body.subarray(0, -16)).toString('utf8') + decipher.final('utf8');
    expect(contentOf(JSON.parse(text))).toEqual({ page: 1 });
    expect(nonce).toHaveLength(12);
  });

  test('has another ciphertext in each row and after each write', async () => {
    const store = await open();
    const data = sessionWith({ same: true });
    await store.set('one', data);
    await store.set('two', sessionWith({ same: true }));
    const seen = [await storedParts('one'), await storedParts('two')];
    await store.set('one', Object.assign(data, { same: false }));
    await store.set('one', Object.assign(data, { same: true }));
    seen.push(await storedParts('one'));
    expect(new Set(seen.map(([, nonce]) => nonce)).size).toBe(3);
    expect(new Set(seen.map(([, , body]) => body)).size).toBe(3);
    expect(new Set(seen.map(([name]) => name)).size).toBe(1);
  });

  test('is decrypted by all(), sessions() and update()', async () => {
    const store = await open();
    await store.set('sid', sessionWith({ count: 1 }));
    await store.update('sid', (data) => void Object.assign(data, { count: 2 }));
    expect(contentOf(Object.values(await store.all())[0])).toEqual({ count: 2 });
    for await (const { data } of store.sessions()) expect(contentOf(data)).toEqual({ count: 2 });
    expect(logged).toEqual([]);
  });
});

describe('key rotation', () => {
  test('reads sessions under an older key and writes them under the current one', async () => {
    const before = await open([older]);
    await before.set('sid', sessionWith({ page: 1 }));
    const [name] = await storedParts('sid');

    const during = await open([current, older]);
    const request = await load(during, 'sid');
    expect(contentOf(request)).toEqual({ page: 1 });
    // A touch writes no data.
    await during.touch('sid', request);
    expect((await storedParts('sid'))[0]).toBe(name);
    await during.set('sid', Object.assign(request, { page: 2 }));
    expect((await storedParts('sid'))[0]).not.toBe(name);

    const after = await open([current]);
    expect(contentOf(await after.get('sid'))).toEqual({ page: 2 });
    expect(await before.get('sid')).toBeUndefined();
    expect(logged).toEqual([
      unreadable('sid', 'it is not encrypted with any of the encryptionKeys'),
    ]);
  });

  test('accepts any number of older keys, in any order', async () => {
    const keys = Array.from({ length: 5 }, () => randomBytes(32));
    for (const [at, key] of keys.entries()) {
      const store = await open([key]);
      await store.set(`sid-${at}`, sessionWith({ at }));
    }
    const store = await open([current, ...keys.reverse()]);
    for (const at of keys.keys()) {
      expect(contentOf(await store.get(`sid-${at}`))).toEqual({ at });
    }
  });

  test('works in two steps while processes with old and new keys run side by side', async () => {
    const old = await open([older]);
    await old.set('sid', sessionWith({ page: 1 }));
    // First all processes get the new key for reading, then one after the other writes with it.
    const first = await open([older, current]);
    const second = await open([current, older]);
    for (const [at, store] of [first, second, first, second].entries()) {
      await store.set('sid', Object.assign(await load(store, 'sid'), { page: at + 2 }));
    }
    expect(contentOf(await first.get('sid'))).toEqual({ page: 5 });
    expect(logged).toEqual([]);
  });
});

describe('a row that cannot be read', () => {
  const damages: [string, (parts: [string, string, string]) => unknown, string][] = [
    ['a changed ciphertext', ([k, n, body]) => `${k}.${n}.${flipped(body)}`, 'it does not decrypt'],
    ['a changed nonce', ([k, nonce, b]) => `${k}.${flipped(nonce)}.${b}`, 'it does not decrypt'],
    [
      'a truncated ciphertext',
      ([k, n, body]) => `${k}.${n}.${body.slice(0, -8)}`,
      'it does not decrypt',
    ],
    [
      'a ciphertext shorter than the tag',
      ([k, n, body]) => `${k}.${n}.${body.slice(0, 9)}`,
      'it does not decrypt',
    ],
    ['no ciphertext', ([k, n]) => `${k}.${n}.`, 'it does not decrypt'],
    ['no nonce', ([k, , body]) => `${k}..${body}`, 'it does not decrypt'],
    [
      'a truncated nonce',
      ([k, nonce, b]) => `${k}.${nonce.slice(0, 4)}.${b}`,
      'it does not decrypt',
    ],
    ['only the name of the key', ([name]) => name, 'it does not decrypt'],
    [
      'the name of another key',
      ([name, n, b]) => `${name}x.${n}.${b}`,
      'it is not encrypted with any',
    ],
    ['an empty string', () => '', 'it is not encrypted with any'],
    [
      'a session that is not encrypted',
      () => sessionWith({ user: 'admin' }),
      'this store did not write it',
    ],
    [
      'a session that is not encrypted, as a string',
      () => JSON.stringify(sessionWith({ user: 'admin' })),
      'it is not encrypted with any',
    ],
    ['a number', () => 7, 'this store did not write it'],
    ['null', () => null, 'this store did not write it'],
  ];

  test.each(damages)(
    '(%s) is no session, is reported by its id and does not change',
    async (_, damage, reason) => {
      const store = await open();
      await store.set('sid', sessionWith({ secret: 'top-secret' }));
      await store.set('other', sessionWith({ other: true }));
      await overwrite('sid', damage(await storedParts('sid')));
      const before = await database.query('select *, xmin, data::text as data from sessions');

      expect(await store.get('sid')).toBeUndefined();
      expect(logged).toHaveLength(1);
      expect(logged[0]).toContain(unreadable('sid', reason));
      expect(await store.update('sid', () => sessionWith({ overwritten: true }))).toBeUndefined();
      expect(Object.keys(await store.all())).toEqual([idOf('other')]);
      const listed: string[] = [];
      for await (const { id } of store.sessions()) listed.push(id);
      expect(listed).toEqual([idOf('other')]);
      expect(store.stats().unreadable).toBe(4);
      expect(new Set(logged).size).toBe(1);
      expect(await database.query('select *, xmin, data::text as data from sessions')).toEqual(
        before,
      );
      // It can still be revoked.
      expect(await store.revoke(idOf('sid'))).toBe(1);
      expect(await store.get('sid')).toBeUndefined();
      expect(store.stats().unreadable).toBe(4);
    },
  );

  test('may be one with the data of another row', async () => {
    const store = await open();
    await store.set('victim', sessionWith({ user: 'admin' }));
    await store.set('thief', sessionWith({ user: 'thief' }));
    await database.query(
      `update sessions set data = (select data from sessions where id = $1) where id = $2`,
      [idOf('victim'), idOf('thief')],
    );
    expect(await store.get('thief')).toBeUndefined();
    expect(contentOf(await store.get('victim'))).toEqual({ user: 'admin' });
    expect(logged).toEqual([unreadable('thief', 'it does not decrypt')]);
  });

  test('may be a plain one for a store with keys, or an encrypted one for a store without', async () => {
    const plain = await open(undefined, { encryptionKeys: undefined });
    await plain.set('plain', sessionWith({ user: 'ada' }));
    const encrypting = await open();
    await encrypting.set('encrypted', sessionWith({ user: 'ada' }));
    expect(await encrypting.get('plain')).toBeUndefined();
    expect(await plain.get('encrypted')).toBeUndefined();
    expect(logged).toEqual([
      unreadable('plain', 'this store did not write it'),
      unreadable(
        'encrypted',
        'it is not an object; it may be encrypted, or from another serializer',
      ),
    ]);
  });

  test.each(['set', 'touch'] as const)(
    'is not overwritten by the %s of a request that read it before, which does not fail',
    async (write) => {
      const store = await open();
      await store.set('sid', sessionWith({ page: 1 }));
      const request = Object.assign(await load(store, 'sid'), { page: 2 });
      request.cookie.path = '/elsewhere';
      await overwrite('sid', '1.2.3', 1);
      await store[write]('sid', request);
      expect(await storedOf('sid')).toBe('"1.2.3"');
      expect(logged).toEqual([
        unreadable('sid', 'it is not encrypted with any of the encryptionKeys'),
      ]);
      expect(store.stats()).toMatchObject({ unreadable: 1, merges: 0 });
    },
  );

  test('does not affect other sessions read in the same statement', async () => {
    const store = await open();
    const sids = Array.from({ length: 20 }, (_, at) => `sid-${at}`);
    await Promise.all(sids.map((sid) => store.set(sid, sessionWith({ sid }))));
    await overwrite('sid-7', 'x');
    const found = await Promise.all(sids.map((sid) => store.get(sid)));
    expect(found.map((one) => one !== undefined)).toEqual(sids.map((sid) => sid !== 'sid-7'));
  });
});

describe('a store with encryption', () => {
  test('merges the changes of two requests and encrypts the result', async () => {
    const store = await open();
    const other = await open();
    await store.set('sid', sessionWith({ nested: { mine: 0, theirs: 0 } }));
    const mine = await load(store, 'sid');
    const theirs = await load(other, 'sid');
    await other.set('sid', Object.assign(theirs, { nested: { mine: 0, theirs: 1 } }));
    await store.set('sid', Object.assign(mine, { nested: { mine: 1, theirs: 0 } }));
    expect(contentOf(await other.get('sid'))).toEqual({ nested: { mine: 1, theirs: 1 } });
    expect(store.stats().merges).toBe(1);
    expect(await storedOf('sid')).not.toContain('nested');
  });

  test('merges with a change that was written under an older key', async () => {
    const store = await open([current, older]);
    const old = await open([older, current]);
    await store.set('sid', sessionWith());
    const request = await load(store, 'sid');
    await old.set('sid', Object.assign(await load(old, 'sid'), { theirs: 1 }));
    await store.set('sid', Object.assign(request, { mine: 1 }));
    expect(contentOf(await old.get('sid'))).toEqual({ mine: 1, theirs: 1 });
  });

  test('writes no data if only the expiry changed', async () => {
    const store = await open();
    await store.set('sid', sessionWith({ page: 1 }, 60));
    const stored = await storedOf('sid');
    const request = await load(store, 'sid');
    request.cookie.expires = new Date(Date.now() + 120_000);
    await store.set('sid', request);
    expect(await storedOf('sid')).toBe(stored);
  });

  test('works with a cache and changes of another process', async () => {
    const store = await open([current], { cache: true });
    const other = await open([current], { cache: true });
    for (const one of [store, other]) await expect.poll(() => one.stats().sync).toBe('up');
    await store.set('sid', sessionWith({ page: 1 }));
    await expect
      .poll(async () => {
        await other.get('sid');
        return other.stats().hits;
      })
      .toBeGreaterThan(0);
    expect(contentOf(await other.get('sid'))).toEqual({ page: 1 });

    const changed = new Promise((resolve) => other.once('change', resolve));
    await store.set('sid', Object.assign(await load(store, 'sid'), { page: 2 }));
    await changed;
    expect(contentOf(await other.get('sid'))).toEqual({ page: 2 });
    expect(await storedOf('sid')).not.toContain('page');
    expect(logged).toEqual([]);
  });

  test('works with a custom serializer', async () => {
    const serializer = {
      stringify: (data: object) =>
        JSON.stringify(data, (_, value) => (value instanceof Map ? { map: [...value] } : value)),
      parse: (text: string): unknown =>
        JSON.parse(text, (_, value) => (Array.isArray(value?.map) ? new Map(value.map) : value)),
    };
    const store = await open([current], { serializer });
    const content = { cart: new Map([['apples', 3]]), odd: '\u001f\ud800' };
    await store.set('sid', sessionWith(content));
    expect(contentOf(await store.get('sid'))).toEqual(content);
    const request = await load(store, 'sid');
    await store.set('sid', Object.assign(await load(store, 'sid'), { theirs: new Map([[1, 2]]) }));
    await store.set('sid', Object.assign(request, { mine: new Map([[3, 4]]) }));
    expect(contentOf(await store.get('sid'))).toEqual({
      ...content,
      theirs: new Map([[1, 2]]),
      mine: new Map([[3, 4]]),
    });
    expect(await storedOf('sid')).not.toContain('apples');
  });
});

describe('a key', () => {
  const bytes = randomBytes(32);
  const formats: [string, EncryptionKey][] = [
    ['a Buffer', bytes],
    ['a Uint8Array', new Uint8Array(bytes)],
    [
      'a part of a larger buffer',
      Buffer.concat([randomBytes(5), bytes, randomBytes(5)]).subarray(5, 37),
    ],
    ['a secret KeyObject', createSecretKey(bytes)],
    ['hex', bytes.toString('hex')],
    ['hex in capitals', bytes.toString('hex').toUpperCase()],
    ['base64', bytes.toString('base64')],
    ['base64 without padding', bytes.toString('base64').replace(/=+$/, '')],
    ['base64url', bytes.toString('base64url')],
  ];

  test('works the same in every format', async () => {
    const writer = await open([bytes]);
    await writer.set('sid', sessionWith({ page: 1 }));
    const names = new Set<string>();
    for (const [format, key] of formats) {
      const store = await open([key]);
      const request = await load(store, 'sid');
      expect(contentOf(request), format).toEqual({ page: 1 });
      await store.set('sid', Object.assign(request, { format }));
      names.add((await storedParts('sid'))[0]);
      await store.update('sid', (data) => void Reflect.deleteProperty(data, 'format'));
    }
    expect(names.size).toBe(1);
    expect(logged).toEqual([]);
  });

  test('is copied when the store is created', async () => {
    const mutable = Buffer.from(bytes);
    const store = await open([mutable]);
    mutable.fill(0);
    await store.set('sid', sessionWith({ page: 1 }));
    expect(contentOf(await (await open([bytes])).get('sid'))).toEqual({ page: 1 });
  });

  const pair = generateKeyPairSync('ed25519');
  const expected = 'must be 32 bytes as a Buffer, a secret KeyObject, hex or base64, but got';
  test.each<[string, unknown, string]>([
    ['31 bytes', randomBytes(31), '31 bytes'],
    ['33 bytes', randomBytes(33), '33 bytes'],
    ['16 bytes', randomBytes(16), '16 bytes'],
    ['an empty Buffer', Buffer.alloc(0), '0 bytes'],
    ['a KeyObject of 16 bytes', createSecretKey(randomBytes(16)), '16 bytes'],
    ['a private KeyObject', pair.privateKey, 'object'],
    ['a public KeyObject', createPublicKey(pair.privateKey), 'object'],
    ['62 digits of hex', bytes.toString('hex').slice(2), '46 bytes'],
    ['66 digits of hex', `${bytes.toString('hex')}00`, '49 bytes'],
    ['base64 of 31 bytes', randomBytes(31).toString('base64'), '31 bytes'],
    ['a passphrase of 32 letters', 'a-passphrase-of-32-letters-.....', 'string'],
    ['a passphrase', 'correct horse battery staple', 'string'],
    ['32 letters', 'abcdefghijklmnopqrstuvwxyzabcdef', '24 bytes'],
    ['an empty string', '', 'string'],
    ['undefined, as an unset variable', undefined, 'undefined'],
    ['null', null, 'object'],
    ['a number', 42, 'number'],
    ['an ArrayBuffer', new ArrayBuffer(32), 'object'],
    ['an array of numbers', [...bytes], 'object'],
    ['words of 32 bits', new Uint32Array(8), 'object'],
  ])('cannot be %s', (_, key, came) => {
    for (const at of [0, 1]) {
      const keys = [...[bytes].slice(0, at), key];
      const make = () => new DrizzleStore('memory://', { encryptionKeys: keys as EncryptionKey[] });
      expect(make).toThrow(TypeError);
      expect(make).toThrow(`encryptionKeys[${at}] ${expected} ${came}`);
      expect(make).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }));
      if (typeof key !== 'string' || key === '') continue;
      expect(make).toThrow(expect.objectContaining({ message: expect.not.stringContaining(key) }));
    }
  });

  test.each([
    ['a string', bytes.toString('hex')],
    ['a single Buffer', bytes],
    ['an empty array', []],
    ['an object', { current: bytes }],
  ])('must be in a non-empty array, not in %s', (_, keys) => {
    const make = () => new DrizzleStore('memory://', { encryptionKeys: keys as EncryptionKey[] });
    expect(make).toThrow(TypeError);
    expect(make).toThrow(/^encryptionKeys must be an array with the current key first/);
  });
});
