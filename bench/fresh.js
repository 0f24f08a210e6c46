/**
 * Compares a table that was never analysed with one that was. Postgres keeps the plans of prepared statements. A plan for
 * an almost empty table may be bad after the table has filled up.
 *
 * @module
 */
import pg from 'pg';
import { compare, startAll } from './subject.js';

const BYTES = 200;
const CALLERS = 64;
const SESSIONS = 20_000;
const OPERATIONS = Object.freeze(['get', 'set', 'set foreign']);

export const ANALYSED = 'analysed';
export const NEVER_ANALYSED = 'never analysed';

/** @param {import('./bench.js').Bench} bench */
export async function fresh(bench) {
  const urls = {
    [ANALYSED]: await bench.postgres.createDatabase('analysed'),
    [NEVER_ANALYSED]: await bench.postgres.createDatabase('never_analysed'),
  };
  const subjects = await startAll(
    bench,
    Object.entries(urls).map(([label, url]) => ({ name: 'connect-drizzle', label, url })),
  );
  try {
    const sessions = Math.min(SESSIONS, bench.sessionsOf(BYTES));
    for (const subject of subjects) {
      bench.log(`fresh: ${sessions} sessions, ${subject.label}`);
      await disableAutovacuum(urls[subject.label], subject.table);
      const rows = { sessions, bytes: BYTES };
      if (subject.label === ANALYSED) await subject.call('fill', rows);
      else await subject.call('fillUnanalysed', { ...rows, operations: OPERATIONS });
    }
    const rows = [];
    for (const operation of OPERATIONS) {
      if (!bench.selects({ operation })) continue;
      const window = { operation, callers: CALLERS, milliseconds: bench.options.window };
      for (const row of await compare(bench, subjects, window)) {
        rows.push({ operation, callers: CALLERS, bytes: BYTES, sessions, ...row });
      }
    }
    return rows;
  } finally {
    for (const subject of subjects) await subject.close();
  }
}

/**
 * Turns autovacuum off, because it would analyse the table at an unknown time.
 *
 * @param {string} url
 * @param {string | undefined} table
 */
async function disableAutovacuum(url, table) {
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  try {
    await admin.query(`alter table ${table} set (autovacuum_enabled = false)`);
  } finally {
    await admin.end();
  }
}
