import { DrizzleStore } from 'connect-drizzle';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { faultsIn, type History, tally } from './support/history.js';
import type { StoreKind } from './support/history-process.js';
import { HistoryProcess, plan, runPlan } from './support/history-run.js';

let database: TestDatabase;

beforeAll(async () => {
  database = await freshDatabase();
  const store = new DrizzleStore(database.pool(), { createTableIfMissing: true });
  await store.ready();
  await store.close();
  await database.query('create table plain (sid text primary key, data jsonb not null)');
  await database.query(
    'create table simple (sid varchar primary key, sess json not null, expire timestamp(6) not null)',
  );
});

afterAll(() => database.drop());

async function withProcesses<T>(
  kind: StoreKind,
  use: (processes: HistoryProcess[]) => Promise<T>,
): Promise<T> {
  const processes = await Promise.all([
    HistoryProcess.start(kind, database),
    HistoryProcess.start(kind, database),
  ]);
  try {
    return await use(processes);
  } finally {
    await Promise.all(processes.map((process) => process.stop()));
  }
}

describe('hundreds of concurrent requests on three browsers’ sessions, in two processes,', () => {
  test('lose no acknowledged change, revive no ended session and reuse no version', async () => {
    await withProcesses('connect-drizzle', async (processes) => {
      let changes = 0;
      let logOuts = 0;
      await fc.assert(
        fc.asyncProperty(plan, async (planned) => {
          const history = await runPlan(planned, processes, database);
          changes += history.writes.length;
          logOuts += history.destroys.length;
          expect(history.errors).toEqual([]);
          expect(faultsIn(history)).toEqual([]);
        }),
        // A plan that fails is not shrunk, because it may not fail again.
        { numRuns: 8, endOnFailure: true },
      );
      const stats = await Promise.all(processes.map((process) => process.tell({ do: 'stats' })));
      const [merges, dropped] = (['merges', 'dropped'] as const).map((count) =>
        stats.reduce((sum, report) => sum + (report[count] ?? 0), 0),
      );
      // The histories contain enough of what they are to test.
      expect(changes).toBeGreaterThan(1000);
      expect(logOuts).toBeGreaterThan(20);
      expect(merges).toBeGreaterThan(100);
      expect(dropped).toBeGreaterThan(10);
    });
  });
});

describe('the same checker', () => {
  const plans = fc.sample(plan, { numRuns: 3, seed: 1 });

  test.each<[StoreKind, ('lost' | 'revived')[]]>([
    ['connect-drizzle without origins', ['lost']],
    ['a plain upsert', ['lost', 'revived']],
    ['connect-pg-simple', ['lost', 'revived']],
  ])('finds in the histories of %s the faults %j', async (kind, expected) => {
    await withProcesses(kind, async (processes) => {
      const faults = [];
      for (const planned of plans) {
        const history = await runPlan(planned, processes, database);
        expect(history.errors).toEqual([]);
        // The other stores do not promise to keep the order of one process's calls.
        faults.push(...faultsIn(history, false));
      }
      const found = tally(faults);
      expect(Object.keys(found).sort()).toEqual(expected);
    });
  });
});

describe('the checker', () => {
  const call = { session: 's', process: 0 };
  const nothing: History = { writes: [], reads: [], destroys: [], looks: [] };
  const write = (key: string, value: number | undefined, invoked: number, acked: number) => ({
    ...call,
    key,
    value,
    invoked,
    acked,
  });
  const read = (content: Record<string, number> | null, invoked: number, acked: number) => ({
    ...call,
    process: 1,
    content,
    invoked,
    acked,
  });
  const kinds = (history: Partial<History>) =>
    faultsIn({ ...nothing, ...history }).map(({ kind }) => kind);

  test('accepts a value that a later or a concurrent change of the same key explains', () => {
    const writes = [write('a', 1, 1, 2), write('a', 2, 3, 6), write('a', undefined, 4, 7)];
    for (const content of [{ a: 1 }, { a: 2 }, {}] as Record<string, number>[]) {
      expect(kinds({ writes, reads: [read(content, 5, 8)] })).toEqual([]);
    }
  });

  test('finds a lost change, and a value that comes back', () => {
    const writes = [write('a', 1, 1, 2), write('a', 2, 3, 4), write('b', 1, 1, 2)];
    expect(kinds({ writes, reads: [read({ a: 2 }, 5, 6)] })).toEqual(['lost']);
    expect(kinds({ writes, reads: [read({ a: 1, b: 1 }, 5, 6)] })).toEqual(['lost']);
    const deleted = [write('a', 1, 1, 2), write('a', undefined, 3, 4)];
    expect(kinds({ writes: deleted, reads: [read({ a: 1 }, 5, 6)] })).toEqual(['lost']);
  });

  test('uses the order of the calls of one process, too', () => {
    const writes = [write('a', 1, 1, 5), write('a', 2, 2, 4)];
    expect(kinds({ writes, reads: [read({ a: 1 }, 6, 7)] })).toEqual(['lost']);
    const history = { ...nothing, writes, reads: [read({ a: 1 }, 6, 7)] };
    expect(faultsIn(history, false)).toEqual([]);
  });

  test('finds a session that was revived, has vanished or was invented', () => {
    const writes = [write('a', 1, 1, 2)];
    const destroys = [{ ...call, invoked: 3, acked: 4 }];
    expect(kinds({ writes, destroys, reads: [read({ a: 1 }, 5, 6)] })).toEqual(['revived']);
    expect(kinds({ writes, destroys, reads: [read(null, 5, 6)] })).toEqual([]);
    expect(kinds({ writes, reads: [read(null, 5, 6)] })).toEqual(['vanished']);
    expect(kinds({ writes, reads: [read({ a: 9 }, 5, 6)] })).toEqual(['invented']);
  });

  test('finds a version that is reused, or stays while the data changes', () => {
    const look = (version: number, data: string) => ({ session: 's', version, data });
    expect(kinds({ looks: [look(1, 'x'), look(1, 'x'), look(3, 'y')] })).toEqual([]);
    expect(kinds({ looks: [look(2, 'x'), look(1, 'y'), look(2, 'z')] })).toEqual(['version']);
    expect(kinds({ looks: [look(2, 'x'), look(2, 'y')] })).toEqual(['version']);
  });
});
