/**
 * A page's latency when requests arrive at a fixed rate and do not wait for earlier responses (an open loop). The rates
 * are shares of the maximum of connect-pg-simple in a closed loop.
 *
 * @module
 */
import { BYTES, ROUTES, withSites } from './sites.js';
import { median, medians } from './stats.js';
import { interleaved } from './subject.js';

const BASE = 'connect-pg-simple';
const CONTENDERS = Object.freeze([
  { name: 'connect-drizzle' },
  { name: BASE },
  { name: 'MemoryStore' },
]);

/** Connections in the closed loop that measures the capacity. */
const CAPACITY_CONNECTIONS = 64;
const CAPACITY_ROUNDS = 3;

/** Connections in the open loop: more than are ever busy, unless the store falls behind. */
const USERS = 256;

/** @param {import('./bench.js').Bench} bench */
export function arrivals(bench) {
  return withSites(bench, CONTENDERS, 'arrivals', async (sites) => {
    const base = sites.find(({ label }) => label === BASE);
    if (!base) throw new Error(`the arrival rates are shares of ${BASE}'s capacity`);
    for (const { subject } of sites) await subject.call('fill', { sessions: USERS, bytes: BYTES });
    const seconds = bench.options.arrivalSeconds;
    const rows = [];
    for (const [route, calls] of Object.entries(ROUTES)) {
      const capacity = await capacityOf(base, route, bench.options);
      for (const share of bench.options.arrivalShares) {
        const rate = Math.round(capacity * share);
        bench.log(`arrivals: ${route} (${calls}), ${rate} per second`);
        const load = (/** @type {import('./sites.js').Site} */ site) =>
          site.load('open', { path: route, users: USERS, rate, seconds });
        for (const site of sites) await load(site);
        for (const [site, rounds] of await interleaved(bench.options.rounds, sites, load)) {
          const { p50, p99, max, appCpu, serverCpu } = medians(rounds);
          rows.push({
            route,
            calls,
            bytes: BYTES,
            capacity: Math.round(capacity),
            share,
            perSecond: rate,
            contender: site.label,
            p50,
            p99,
            max,
            appCpu,
            serverCpu,
          });
        }
      }
    }
    return rows;
  });
}

/**
 * @param {import('./sites.js').Site} site
 * @param {string} route
 * @param {import('./options.js').Options} options
 * @returns {Promise<number>} requests per second
 */
async function capacityOf(site, route, { rounds, httpSeconds }) {
  const load = { path: route, users: CAPACITY_CONNECTIONS, seconds: httpSeconds };
  await site.load('closed', load);
  const rates = [];
  for (let round = 0; round < Math.min(rounds, CAPACITY_ROUNDS); round += 1) {
    rates.push((await site.load('closed', load)).rate);
  }
  return median(rates);
}
