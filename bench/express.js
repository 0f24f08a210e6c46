/**
 * End to end: an Express 5 app with express-session, and returning users who request the next page as soon as the last
 * one has arrived.
 *
 * @module
 */
import { BARE_STORE, BYTES, ROUTES, withSites } from './sites.js';
import { medians } from './stats.js';
import { interleaved } from './subject.js';

const CONNECTIONS = Object.freeze([8, 64]);

const CONTENDERS = Object.freeze([
  { name: 'connect-drizzle' },
  { name: 'connect-pg-simple' },
  BARE_STORE,
  { name: 'connect-redis' },
  { name: 'MemoryStore' },
]);

/** @param {import('./bench.js').Bench} bench */
export function express(bench) {
  return withSites(bench, CONTENDERS, 'express', async (sites) => {
    const sessions = Math.max(...CONNECTIONS);
    for (const { subject } of sites) await subject.call('fill', { sessions, bytes: BYTES });
    const rows = [];
    for (const [route, calls] of Object.entries(ROUTES)) {
      for (const connections of CONNECTIONS) {
        bench.log(`express: ${route} (${calls}), ${connections} connections`);
        const load = (/** @type {import('./sites.js').Site} */ site) =>
          site.load('closed', {
            path: route,
            users: connections,
            seconds: bench.options.httpSeconds,
          });
        for (const site of sites) await load(site);
        for (const [site, rounds] of await interleaved(bench.options.rounds, sites, load)) {
          rows.push({
            route,
            calls,
            connections,
            bytes: BYTES,
            contender: site.label,
            ...medians(rounds),
            rates: rounds.map(({ rate }) => Math.round(rate)),
          });
        }
      }
    }
    return rows;
  });
}
