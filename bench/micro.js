/**
 * The store's methods, called as express-session calls them, by 1 to 256 callers at once.
 *
 * @module
 */
import { compare, EVERY_TOUCH, startAll } from './subject.js';

/** The order is important, because the last two change the number of sessions. */
export const OPERATIONS = Object.freeze([
  'get',
  'touch',
  'set',
  'set foreign',
  'set new',
  'destroy',
]);

/** @param {import('./bench.js').Bench} bench */
export async function micro(bench) {
  const url = await bench.postgres.createDatabase('micro');
  const subjects = await startAll(
    bench,
    bench.contenders.map((name) => ({ name, url, options: EVERY_TOUCH })),
  );
  try {
    for (const subject of subjects) {
      subject.unsupported = await subject.call('unsupported');
      for (const [operation, reason] of Object.entries(subject.unsupported)) {
        bench.missing[`${subject.label}, ${operation}`] = reason;
        bench.log(`${subject.label} does not ${operation}: ${reason}`);
      }
    }
    const rows = [];
    for (const bytes of bench.options.payload) {
      const sessions = bench.sessionsOf(bytes);
      bench.log(`micro: ${sessions} sessions of ${bytes} bytes`);
      for (const subject of subjects) await subject.call('fill', { sessions, bytes });
      for (const operation of OPERATIONS) {
        for (const callers of bench.options.callers) {
          if (!bench.selects({ operation, callers, bytes })) continue;
          bench.log(`micro: ${operation}, ${callers} callers, ${bytes} bytes`);
          const able = subjects.filter((subject) => takesPart(subject, operation));
          const window = { operation, callers, milliseconds: bench.options.window };
          for (const row of await compare(bench, able, window)) {
            rows.push({ operation, callers, bytes, sessions, ...row });
          }
        }
      }
    }
    return rows;
  } finally {
    for (const subject of subjects) await subject.close();
  }
}

/**
 * @param {import('./subject.js').Subject} subject
 * @param {string} operation
 */
function takesPart(subject, operation) {
  // For other stores, every object is foreign.
  if (operation === 'set foreign') return subject.label === 'connect-drizzle';
  return !(operation in subject.unsupported);
}
