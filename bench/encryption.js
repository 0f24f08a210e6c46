/**
 * What encryption costs.
 *
 * @module
 */
import { randomBytes } from 'node:crypto';
import { compare, startAll } from './subject.js';

const CALLERS = 64;
const OPERATIONS = ['get', 'set'];

/** @param {import('./bench.js').Bench} bench */
export async function encryption(bench) {
  const subjects = await startAll(bench, [
    { name: 'connect-drizzle', url: await bench.postgres.createDatabase('plain') },
    {
      name: 'connect-drizzle',
      label: 'connect-drizzle, encrypted',
      url: await bench.postgres.createDatabase('encrypted'),
      options: { encryptionKeys: [randomBytes(32).toString('hex')] },
    },
  ]);
  try {
    const rows = [];
    for (const bytes of bench.options.payload) {
      const sessions = bench.sessionsOf(bytes);
      bench.log(`encryption: ${sessions} sessions of ${bytes} bytes`);
      for (const subject of subjects) await subject.call('fill', { sessions, bytes });
      for (const operation of OPERATIONS) {
        if (!bench.selects({ operation })) continue;
        const window = { operation, callers: CALLERS, milliseconds: bench.options.window };
        for (const row of await compare(bench, subjects, window)) {
          rows.push({ operation, callers: CALLERS, bytes, sessions, ...row });
        }
      }
    }
    return rows;
  } finally {
    for (const subject of subjects) await subject.close();
  }
}
