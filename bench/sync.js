/**
 * The cost of announcing every change, and the time until another process knows it.
 *
 * @module
 */
import { percentile } from './stats.js';
import { compare, startAll } from './subject.js';

const CALLERS = 64;
const BYTES = 200;
const SESSIONS = 20_000;

/** The pause between two announced changes, so that the machine is idle. */
const PAUSE_MILLISECONDS = 5;

/** @param {import('./bench.js').Bench} bench */
export async function sync(bench) {
  return { cost: await cost(bench), propagation: await propagation(bench) };
}

/** @param {import('./bench.js').Bench} bench */
async function cost(bench) {
  const subjects = await startAll(bench, [
    { name: 'connect-drizzle', url: await bench.postgres.createDatabase('sync_off') },
    {
      name: 'connect-drizzle',
      label: 'connect-drizzle, sync',
      url: await bench.postgres.createDatabase('sync_on'),
      options: { sync: true },
    },
  ]);
  try {
    bench.log('sync: set with and without');
    for (const subject of subjects) {
      await subject.call('fill', { sessions: SESSIONS, bytes: BYTES });
      if (subject.label.endsWith('sync')) await subject.call('synced');
    }
    const window = { operation: 'set', callers: CALLERS, milliseconds: bench.options.window };
    const rows = await compare(bench, subjects, window);
    return rows.map((row) => ({ operation: 'set', callers: CALLERS, bytes: BYTES, ...row }));
  } finally {
    for (const subject of subjects) await subject.close();
  }
}

/** @param {import('./bench.js').Bench} bench */
async function propagation(bench) {
  const url = await bench.postgres.createDatabase('propagation');
  const options = { sync: true };
  const [writer, listener] = await startAll(bench, [
    { name: 'connect-drizzle', url, options },
    {
      name: 'connect-drizzle',
      label: 'connect-drizzle, listening',
      url,
      options,
      cores: bench.cores.load,
    },
  ]);
  if (!writer || !listener) {
    await writer?.close();
    return [];
  }
  try {
    bench.log('sync: propagation between two processes');
    await writer.call('fill', { sessions: bench.options.changes, bytes: BYTES });
    await writer.call('synced');
    await listener.call('synced');
    await listener.call('watch');
    const written = await writer.call('change', {
      sessions: bench.options.changes,
      pause: PAUSE_MILLISECONDS,
    });
    const seen = await listener.call('watched', { expected: written.length });
    const spans = { 'from the call of set': 'called', 'from the answer of set': 'answered' };
    return Object.entries(spans).map(([span, from]) => {
      const delays = written
        .filter(({ id }) => seen.has(id))
        .map((change) => seen.get(change.id) - change[from])
        .sort((a, b) => a - b);
      return {
        span,
        changes: written.length,
        seen: delays.length,
        p50: percentile(delays, 0.5),
        p99: percentile(delays, 0.99),
        max: delays.at(-1) ?? Number.NaN,
      };
    });
  } finally {
    await writer.close();
    await listener.close();
  }
}
