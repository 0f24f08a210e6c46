/**
 * End to end: an Express 5 app with express-session under autocannon, the app and the load generator
 * in processes of their own.
 *
 * @module
 */
import { fileURLToPath } from 'node:url';
import { startNode } from './machine.js';
import { median } from './stats.js';
import { interleaved, Remote, startAll } from './subject.js';

const CONNECTIONS = 64;
const SESSIONS = 1_000;
const BYTES = 200;

/** Under the names of the app's paths. */
const ROUTES = Object.freeze({ read: 'get + touch', write: 'get + set' });

const CONTENDERS = ['connect-drizzle', 'connect-pg-simple', 'connect-redis', 'MemoryStore'];

/** @param {import('./bench.js').Bench} bench */
export async function express(bench) {
  const url = await bench.postgres.createDatabase('express');
  const names = bench.contenders.filter(
    (name) => CONTENDERS.includes(name) || bench.options.contenders !== undefined,
  );
  const subjects = await startAll(
    bench,
    names.map((name) => ({ name, url })),
  );
  const generator = new Remote(
    startNode(fileURLToPath(new URL('./http-load.js', import.meta.url)), bench.cores.load),
  );
  try {
    const targets = new Map();
    for (const subject of subjects) {
      const port = await subject.call('serve', { bytes: BYTES });
      const cookies = await generator.call('login', { port, sessions: SESSIONS });
      targets.set(subject, { port, cookies });
    }
    const rows = [];
    for (const [path, calls] of Object.entries(ROUTES)) {
      bench.log(`express: ${path} (${calls})`);
      const attack = async (subject) => {
        const before = await subject.call('cpu');
        const answer = await generator.call('attack', {
          ...targets.get(subject),
          path,
          connections: CONNECTIONS,
          seconds: bench.options.httpSeconds,
        });
        const cpu = (await subject.call('cpu')) - before;
        return { ...answer, appCpu: (cpu * 1000) / answer.requests };
      };
      for (const subject of subjects) await attack(subject);
      for (const [subject, rounds] of await interleaved(bench.options.rounds, subjects, attack)) {
        rows.push({
          route: path,
          calls,
          connections: CONNECTIONS,
          bytes: BYTES,
          sessions: SESSIONS,
          contender: subject.label,
          rate: median(rounds.map(({ rate }) => rate)),
          p50: median(rounds.map(({ p50 }) => p50)),
          p99: median(rounds.map(({ p99 }) => p99)),
          appCpu: median(rounds.map(({ appCpu }) => appCpu)),
          rates: rounds.map(({ rate }) => Math.round(rate)),
        });
      }
    }
    return rows;
  } finally {
    generator.child.disconnect();
    for (const subject of subjects) await subject.close();
  }
}
