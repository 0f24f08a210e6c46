/**
 * What the project sets itself to reach, and where in a result it is to be seen.
 *
 * @module
 */
import { percent, ratio, times } from './report.js';

/** @typedef {import('./result.js').Result} Result */

/**
 * @typedef {object} Goal
 * @property {string} what
 * @property {number} [atLeast]
 * @property {number} [atMost]
 * @property {(result: Result) => number} value NaN where it was not measured
 * @property {(value: number) => string} show
 */

const OURS = 'connect-drizzle';
const LIMIT = 'same statements by hand';

/** @type {readonly Goal[]} */
export const GOALS = Object.freeze([
  against('get', 'connect-pg-simple', 5),
  against('get', 'connect-redis', 1.3),
  against('set', 'connect-pg-simple', 4.5),
  against('set', 'connect-redis', 0.7),
  against('touch', 'connect-pg-simple', 8),
  against('touch', 'connect-redis', 1),
  against('get', LIMIT, 0.85),
  against('set', LIMIT, 0.85),
  against('touch', LIMIT, 0.85),
  sooner('get', 1.5),
  sooner('set', 1),
  sooner('touch', 1),
  against('get', 'connect-pg-simple', 2, { callers: 256, bytes: 20_480 }),
  endToEnd('read', 'connect-pg-simple', 1.9),
  endToEnd('write', 'connect-pg-simple', 1.9),
  endToEnd('read', 'MemoryStore', 0.85),
  endToEnd('write', 'MemoryStore', 0.85),
  {
    what: 'get on the large table against the small one',
    atLeast: 0.7,
    value: ({ size = [] }) => {
      const rows = size.filter((row) => row.operation === 'get' && row.contender === OURS);
      const [small, large] = rows.sort((a, b) => a.sessions - b.sessions);
      return large ? large.rate / small.rate : Number.NaN;
    },
    show: times,
  },
  {
    what: 'pruning: p99 of get meanwhile against idle',
    atMost: 3,
    value: ({ prune = [] }) => ours(prune)?.p99Ratio ?? Number.NaN,
    show: times,
  },
  {
    what: 'touches: share of HOT updates',
    atLeast: 0.9,
    value: ({ hot = [] }) => ours(hot)?.hotShare ?? Number.NaN,
    show: percent,
  },
  {
    what: 'touches: growth of the indexes',
    atMost: 0.1,
    value: ({ hot = [] }) => ours(hot)?.indexGrowth ?? Number.NaN,
    show: percent,
  },
  {
    what: 'cached get against uncached',
    atLeast: 10,
    value: ({ cache = [] }) => {
      const cached = cache.find(({ contender }) => contender === `${OURS}, cached`);
      return cached ? ratio(cache, cached, { contender: OURS }) : Number.NaN;
    },
    show: times,
  },
  {
    what: 'set with sync against without',
    atLeast: 0.8,
    value: ({ sync }) => {
      const synced = sync?.cost.find(({ contender }) => contender === `${OURS}, sync`);
      return synced ? ratio(sync.cost, synced, { contender: OURS }) : Number.NaN;
    },
    show: times,
  },
  {
    what: 'a change is known in another process, p99',
    atMost: 20,
    value: ({ sync }) => sync?.propagation[0]?.p99 ?? Number.NaN,
    show: (value) => `${value.toFixed(1)} ms`,
  },
]);

/**
 * @param {string} operation
 * @param {string} peer
 * @param {number} atLeast
 * @param {{ callers?: number, bytes?: number }} [cell]
 * @returns {Goal}
 */
function against(operation, peer, atLeast, { callers = 64, bytes = 200 } = {}) {
  const special = callers === 64 && bytes === 200 ? '' : `, ${callers} callers, ${bytes} bytes`;
  return {
    what: `${operation} against ${peer}${special}`,
    atLeast,
    value: ({ micro = [] }) => {
      const row = cellOf(micro, { operation, callers, bytes });
      return row ? ratio(micro, row, { contender: peer }) : Number.NaN;
    },
    show: times,
  };
}

/**
 * The latency of a caller on its own.
 *
 * @param {string} operation
 * @param {number} atLeast
 * @returns {Goal}
 */
function sooner(operation, atLeast) {
  const peer = 'connect-pg-simple';
  return {
    what: `${operation} of 1 caller: as fast as ${peer}`,
    atLeast,
    value: ({ micro = [] }) => {
      const row = cellOf(micro, { operation, callers: 1, bytes: 200 });
      return row ? 1 / ratio(micro, row, { contender: peer }, ({ p50 }) => p50) : Number.NaN;
    },
    show: times,
  };
}

/**
 * @param {string} route
 * @param {string} peer
 * @param {number} atLeast
 * @returns {Goal}
 */
function endToEnd(route, peer, atLeast) {
  return {
    what: `Express, ${route} route, against ${peer}`,
    atLeast,
    value: ({ express = [] }) => {
      const row = ours(express.filter((one) => one.route === route));
      return row ? ratio(express, row, { contender: peer }) : Number.NaN;
    },
    show: times,
  };
}

/** @param {readonly Record<string, any>[]} rows */
function ours(rows) {
  return rows.find(({ contender }) => contender === OURS);
}

/**
 * @param {readonly Record<string, any>[]} rows
 * @param {{ operation: string, callers: number, bytes: number }} cell
 */
function cellOf(rows, cell) {
  return ours(
    rows.filter((row) => Object.entries(cell).every(([key, value]) => row[key] === value)),
  );
}
