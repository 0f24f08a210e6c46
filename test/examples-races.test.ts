import { createRequire } from 'node:module';
import { DrizzleStore } from 'connect-drizzle';
import { drizzle } from 'drizzle-orm/node-postgres';
import session, { MemoryStore, type SessionData, type Store } from 'express-session';
import type { Pool } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PlainStore } from '../examples/express/plain-store.js';
import { type RaceName, runRace } from '../examples/express/races.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { type Example, startExample } from './support/example.js';

const connectPgSimple: (
  session: unknown,
) => new (
  options: object,
) => Store & { close(): Promise<void> } = createRequire(import.meta.url)('connect-pg-simple');

const raceNames: readonly RaceName[] = ['lost-update', 'revived-log-out'];

/** The stored session if both requests took effect, and (`wrong`) if only the last save did. */
const right = {
  'lost-update': { customer: 'Ada', cart: ['tea'], theme: 'dark' },
  'revived-log-out': null,
};
const wrong = { customer: 'Ada', cart: [], theme: 'dark' };

describe('a race', () => {
  let database: TestDatabase;
  let pool: Pool;
  let ours: DrizzleStore;
  let plain: PlainStore;

  beforeAll(async () => {
    database = await freshDatabase();
    pool = database.pool();
    ours = new DrizzleStore(pool, { createTableIfMissing: true });
    plain = new PlainStore(drizzle({ client: pool }));
    await plain.prepare();
  });

  afterAll(async () => {
    await ours?.close();
    await database?.drop();
  });

  test.each(raceNames)(
    '%s: connect-drizzle always keeps the changes of both requests',
    async (race) => {
      for (let run = 0; run < 5; run += 1) {
        expect(await runRace(race, ours)).toEqual({ left: right[race], held: true });
      }
    },
  );

  test.each(raceNames)('%s: a plain store always keeps only the last save', async (race) => {
    for (let run = 0; run < 5; run += 1) {
      expect(await runRace(race, plain)).toEqual({ left: wrong, held: false });
    }
  });

  // The page claims this.
  test.each(raceNames)(
    '%s: MemoryStore and connect-pg-simple keep only the last save, too',
    async (race) => {
      const pgSimple = new (connectPgSimple(session))({
        pool,
        createTableIfMissing: true,
      });
      for (const store of [new MemoryStore(), pgSimple]) {
        expect(await runRace(race, store)).toEqual({ left: wrong, held: false });
      }
      await pgSimple.close();
    },
  );

  test('is not affected by other races at the same time', async () => {
    const runs = Array.from({ length: 5 }, () => raceNames).flat();
    const outcomes = await Promise.all(
      runs.flatMap((race) => [runRace(race, ours), runRace(race, plain)]),
    );
    const expected = runs.flatMap((race) => [
      { left: right[race], held: true },
      { left: wrong, held: false },
    ]);
    expect(outcomes).toEqual(expected);
  });

  test('leaves no session behind', async () => {
    for (const race of raceNames) {
      await Promise.all([runRace(race, ours), runRace(race, plain)]);
    }
    expect(await ours.length()).toBe(0);
    expect(await database.query('select sid from example_plain_sessions')).toEqual([]);
  });

  test.each(raceNames)(
    '%s: fails instead of reporting an outcome if a save fails',
    async (race) => {
      class FullStore extends MemoryStore {
        override set(sid: string, data: SessionData, callback?: (error?: unknown) => void): void {
          if (data.theme === undefined) super.set(sid, data, callback);
          else callback?.(new Error('disk full'));
        }
      }
      await expect(runRace(race, new FullStore())).rejects.toThrow('disk full');
    },
  );

  test('fails instead of hanging if the slow request cannot load its session', async () => {
    class LostStore extends MemoryStore {
      override get(_sid: string, callback: (error: unknown) => void): void {
        callback(new Error('no connection'));
      }
    }
    await expect(runRace('lost-update', new LostStore())).rejects.toThrow('no connection');
  });
});

describe('the page of the races', () => {
  let database: TestDatabase;
  let example: Example;

  beforeAll(async () => {
    database = await freshDatabase();
    example = await startExample('examples/express/server.ts', { args: [database.url] });
  });

  afterAll(async () => {
    await example?.stop();
    await database?.drop();
  });

  test.each([
    ['lost-update', 'Both changes are there', 'cart: ["tea"]', 'The tea is lost', 'cart: []'],
    [
      'revived-log-out',
      'Ada is logged out',
      '(no session)',
      'Ada is logged in again',
      'customer: "Ada"',
    ],
  ])('runs %s on both stores and shows the outcomes', async (race, held, kept, failed, left) => {
    const browser = example.browser();
    expect(outcomesOn((await browser.get('/races')).text)).toEqual([]);

    const answer = await browser.post(`/races/${race}`, new URLSearchParams());
    expect(answer.status).toBe(303);
    expect(answer.headers.get('location')).toBe(`/races#${race}`);
    const [ours, plain, ...others] = outcomesOn((await browser.get('/races')).text);
    expect(ours).toMatchObject({ store: 'connect-drizzle', verdict: held });
    expect(ours?.left).toContain(kept);
    expect(plain).toMatchObject({ store: 'A plain store', verdict: failed });
    expect(plain?.left).toContain(left);
    expect(others).toEqual([]);

    // Other visitors do not see the outcomes.
    expect(outcomesOn((await example.browser().get('/races')).text)).toEqual([]);
  });

  test('keeps the outcomes of two races started at once', async () => {
    const browser = example.browser();
    await browser.get('/races');
    await Promise.all(
      raceNames.map((race) => browser.copy().post(`/races/${race}`, new URLSearchParams())),
    );
    expect(outcomesOn((await browser.get('/races')).text)).toHaveLength(4);
  });

  test('refuses unknown races and forms of other sites', async () => {
    const browser = example.browser();
    const post = (path: string, headers = {}) =>
      browser.post(path, new URLSearchParams(), { headers });
    for (const name of ['toString', '__proto__', 'lost', '']) {
      expect((await post(`/races/${name}`)).status).toBe(404);
    }
    const foreign = await post('/races/lost-update', { 'Sec-Fetch-Site': 'cross-site' });
    expect(foreign.status).toBe(403);
    expect(outcomesOn((await browser.get('/races')).text)).toEqual([]);
  });

  test('is linked from the start page, for visitors and for people who are logged in', async () => {
    const browser = example.browser();
    expect((await browser.get('/')).text).toContain('href="/races"');
    const account = new URLSearchParams({ name: 'Ada', password: 'difference-engine' });
    await browser.post('/login', account);
    expect((await browser.get('/')).text).toContain('href="/races"');
    expect((await browser.get('/races')).text).toContain('Logged in as <strong>Ada</strong>');
  });
});

/** The outcomes on the page, from top to bottom. */
function outcomesOn(text: string) {
  const pattern =
    /<h3>([^<]+)<\/h3>\s*<p class="verdict">.*?<span>([^<]+)<\/span><\/p>\s*<pre>([^<]*)<\/pre>/gs;
  return [...text.matchAll(pattern)].map(([, store, verdict, left = '']) => ({
    store,
    verdict,
    left: left.replaceAll('&quot;', '"'),
  }));
}
