/**
 * Reads from the cache.
 *
 * @module
 */
import { compare, startAll } from './subject.js';

const CALLERS = 64;
const SESSIONS = 20_000;
const CACHED_BYTES = [200];

/** @param {import('./bench.js').Bench} bench */
export async function cache(bench) {
  const uncached = await bench.postgres.createDatabase('uncached');
  const cached = await bench.postgres.createDatabase('cached');
  const subjects = await startAll(bench, [
    { name: 'connect-drizzle', url: uncached },
    {
      name: 'connect-drizzle',
      label: 'connect-drizzle, cached',
      url: cached,
      options: { cache: { max: SESSIONS * 2 } },
    },
    { name: 'session-pouchdb-store', url: uncached },
    { name: 'MemoryStore', url: uncached },
  ]);
  try {
    const rows = [];
    for (const bytes of CACHED_BYTES) {
      const sessions = Math.min(SESSIONS, bench.sessionsOf(bytes));
      bench.log(`cache: ${sessions} sessions of ${bytes} bytes`);
      for (const subject of subjects) {
        await subject.call('fill', { sessions, bytes });
        await subject.call('warmCache', { sessions });
      }
      const before = await counters(subjects);
      const window = { operation: 'get', callers: CALLERS, milliseconds: bench.options.window };
      const compared = await compare(bench, subjects, window);
      const after = await counters(subjects);
      for (const row of compared) {
        const [first, last] = [before.get(row.contender), after.get(row.contender)];
        const hits = last.hits - first.hits;
        const misses = last.misses - first.misses;
        rows.push({ bytes, sessions, callers: CALLERS, ...row, hitShare: hits / (hits + misses) });
      }
    }
    return rows;
  } finally {
    for (const subject of subjects) await subject.close();
  }
}

/** @param {readonly import('./subject.js').Subject[]} subjects */
async function counters(subjects) {
  const all = new Map();
  for (const subject of subjects) all.set(subject.label, await subject.call('stats'));
  return all;
}
