/**
 * Compares a small table with a large one.
 *
 * @module
 */
import { compare, EVERY_TOUCH, startAll } from './subject.js';

const OPERATIONS = ['get', 'touch', 'set'];
const BYTES = 200;
const CALLERS = 64;

/** Only these contenders, because it takes long to create two million sessions. */
const CONTENDERS = ['connect-drizzle', 'connect-pg-simple', 'connect-redis', 'batched by hand'];

/** @param {import('./bench.js').Bench} bench */
export async function size(bench) {
  const names = bench.contenders.filter((name) => CONTENDERS.includes(name));
  const wanted = [];
  for (const [i, sessions] of bench.options.sizes.entries()) {
    const url = await bench.postgres.createDatabase(`size_${sessions}`);
    for (const name of names) {
      wanted.push({
        name,
        label: `${name}/${sessions}`,
        url,
        redisDatabase: i,
        options: EVERY_TOUCH,
      });
    }
  }
  const subjects = await startAll(bench, wanted);
  try {
    for (const subject of subjects) {
      const sessions = sessionsOf(subject.label);
      bench.log(`size: ${sessions} sessions of ${BYTES} bytes in ${subject.name}`);
      await subject.call('fill', { sessions, bytes: BYTES });
    }
    const rows = [];
    for (const operation of OPERATIONS) {
      if (!bench.selects({ operation })) continue;
      bench.log(`size: ${operation}`);
      const window = { operation, callers: CALLERS, milliseconds: bench.options.window };
      for (const { contender, ...row } of await compare(bench, subjects, window)) {
        rows.push({
          operation,
          callers: CALLERS,
          bytes: BYTES,
          sessions: sessionsOf(contender),
          contender: contender.split('/')[0],
          ...row,
        });
      }
    }
    return rows;
  } finally {
    for (const subject of subjects) await subject.close();
  }
}

/** @param {string} label */
function sessionsOf(label) {
  return Number(label.split('/')[1]);
}
