/**
 * The effect of touches on the indexes: the share of HOT updates, which write no index, and the growth.
 *
 * @module
 */
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import { EVERY_TOUCH, startAll } from './subject.js';

const BYTES = 200;
const CALLERS = 64;
const CONTENDERS = ['connect-drizzle', 'connect-pg-simple'];

/** A backend reports its counts when it ends; an idle one reports them after ten seconds. */
const COUNTS_WITHIN_MILLISECONDS = 15_000;

/** @param {import('./bench.js').Bench} bench */
export async function hot(bench) {
  const url = await bench.postgres.createDatabase('hot');
  const names = bench.contenders.filter((name) => CONTENDERS.includes(name));
  const subjects = await startAll(
    bench,
    names.map((name) => ({ name, url, options: EVERY_TOUCH })),
  );
  const admin = new pg.Client({ connectionString: url });
  admin.on('error', () => {});
  await admin.connect();
  try {
    const { touches, touchedSessions: sessions } = bench.options;
    const rows = [];
    for (const subject of subjects) {
      bench.log(`hot: ${touches} touches of ${sessions} sessions in ${subject.label}`);
      await subject.call('fill', { sessions, bytes: BYTES });
      const before = await figures(admin, subject.table);
      const { rate } = await subject.measure({
        operation: 'touch',
        callers: CALLERS,
        milliseconds: 600_000,
        operations: touches,
        // In random order, many sessions would be touched twice within a second; other stores keep whole seconds.
        inTurn: true,
      });
      await subject.close();
      const after = await counted(admin, subject.table, before.updates + touches);
      const updates = after.updates - before.updates;
      rows.push({
        contender: subject.label,
        touches,
        sessions,
        rate,
        updates,
        hotShare: (after.hot - before.hot) / updates,
        indexBytesBefore: before.indexBytes,
        indexBytesAfter: after.indexBytes,
        indexGrowth: after.indexBytes / before.indexBytes - 1,
        tableGrowth: after.tableBytes / before.tableBytes - 1,
      });
    }
    return rows;
  } finally {
    await admin.end();
    for (const subject of subjects) await subject.close();
  }
}

/**
 * @param {pg.Client} admin
 * @param {string} table
 */
async function figures(admin, table) {
  const { rows } = await admin.query(
    `select n_tup_upd::float8 as updates, n_tup_hot_upd::float8 as hot,
            pg_indexes_size(relid)::float8 as "indexBytes", pg_table_size(relid)::float8 as "tableBytes"
       from pg_stat_user_tables where relid = $1::regclass`,
    [table],
  );
  return rows[0];
}

/**
 * @param {pg.Client} admin
 * @param {string} table
 * @param {number} updates to wait for
 */
async function counted(admin, table, updates) {
  const end = performance.now() + COUNTS_WITHIN_MILLISECONDS;
  for (;;) {
    const now = await figures(admin, table);
    if (now.updates >= updates || performance.now() > end) return now;
    await wait(200);
  }
}
