/**
 * Deleting half of a large table, and its effect on readers.
 *
 * @module
 */
import { medians } from './stats.js';
import { interleaved, startAll } from './subject.js';

const BYTES = 200;

/** Gets at a steady rate, far below the maximum of the machine, because a p99 under saturation is meaningless. */
const GETS_PER_SECOND = 2_000;

const WARM_MILLISECONDS = 300;

const CONTENDERS = ['connect-drizzle', 'connect-pg-simple'];

/** @param {import('./bench.js').Bench} bench */
export async function prune(bench) {
  const url = await bench.postgres.createDatabase('prune');
  const names = bench.contenders.filter((name) => CONTENDERS.includes(name));
  const subjects = await startAll(
    bench,
    names.map((name) => ({ name, url, timeStatements: true })),
  );
  const expired = bench.options.expired;
  const live = expired;
  try {
    for (const subject of subjects) {
      bench.log(`prune: ${live} live and ${expired} expired sessions in ${subject.label}`);
      await subject.call('fillMixed', { live, expired, bytes: BYTES });
    }
    bench.log('prune');
    const results = await interleaved(bench.options.rounds, subjects, async (subject, round) => {
      if (round > 0) await subject.call('addExpired', { live, expired, bytes: BYTES });
      await subject.call('measure', {
        operation: 'get',
        callers: 8,
        milliseconds: WARM_MILLISECONDS,
      });
      const idle = await subject.call('paced', {
        perSecond: GETS_PER_SECOND,
        milliseconds: bench.options.idleMilliseconds,
      });
      const { milliseconds, gets, statements } = await subject.call('prune', {
        perSecond: GETS_PER_SECOND,
        live,
      });
      return {
        rate: (expired / milliseconds) * 1000,
        milliseconds,
        statements: statements.count,
        longestStatement: statements.longest,
        idleP50: idle.p50,
        idleP99: idle.p99,
        p50: gets.p50,
        p99: gets.p99,
        p99Ratio: gets.p99 / idle.p99,
      };
    });
    return [...results].map(([subject, rounds]) => ({
      contender: subject.label,
      live,
      expired,
      getsPerSecond: GETS_PER_SECOND,
      ...medians(rounds),
    }));
  } finally {
    for (const subject of subjects) await subject.close();
  }
}
