/**
 * The cost of a returning user's page view for the database: bytes of write-ahead log (WAL), and statements.
 *
 * @module
 */
import pg from 'pg';
import { BARE_STORE, BYTES, ROUTES, withSites } from './sites.js';
import { medians } from './stats.js';
import { interleaved } from './subject.js';

const CONTENDERS = Object.freeze([
  { name: 'connect-drizzle', timeStatements: true },
  { name: 'connect-pg-simple', timeStatements: true },
  { ...BARE_STORE, timeStatements: true },
]);

/** The time between two page views of a user. */
const EVERY_SECONDS = 5;

/** @param {import('./bench.js').Bench} bench */
export function views(bench) {
  return withSites(bench, CONTENDERS, 'views', async (sites) => {
    const admin = new pg.Client({ connectionString: bench.postgres.url });
    admin.on('error', () => {});
    await admin.connect();
    try {
      const rows = [];
      for (const [route, calls] of Object.entries(ROUTES)) {
        bench.log(`views: ${route} (${calls})`);
        const users = bench.options.returningUsers;
        const view = (/** @type {import('./sites.js').Site} */ site) =>
          viewAll(admin, site, route, users);
        // The first change of a page after a checkpoint logs the whole page. The warm-up makes these changes. Not every
        // role may run CHECKPOINT; without it, an automatic checkpoint may be in a round.
        await admin.query('checkpoint').catch(() => {});
        for (const site of sites) await view(site);
        for (const [site, rounds] of await interleaved(bench.options.rounds, sites, view)) {
          rows.push({
            route,
            calls,
            bytes: BYTES,
            users,
            everySeconds: EVERY_SECONDS,
            contender: site.label,
            ...medians(rounds),
          });
        }
      }
      return rows;
    } finally {
      await admin.end();
    }
  });
}

/**
 * Lets every user view one page.
 *
 * @param {pg.Client} admin
 * @param {import('./sites.js').Site} site
 * @param {string} route
 * @param {number} users
 */
async function viewAll(admin, site, route, users) {
  const { subject } = site;
  const returning = { sessions: users, bytes: BYTES, everySeconds: EVERY_SECONDS };
  await subject.call('fillReturning', returning);
  await subject.call('resetStatements');
  const before = await walBytes(admin);
  await site.load('visit', { path: route, users });
  const statements = await subject.call('countStatements');
  return {
    walBytes: ((await walBytes(admin)) - before) / users,
    statements: statements / users,
  };
}

/** @param {pg.Client} admin */
async function walBytes(admin) {
  const { rows } = await admin.query(
    `select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as bytes`,
  );
  return rows[0].bytes;
}
