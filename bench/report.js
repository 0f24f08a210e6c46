/**
 * The tables, for the terminal and for docs/performance.md: built from a result, never by hand.
 *
 * @module
 */
import { GOALS } from './goals.js';

/** @typedef {import('./result.js').Result} Result */

/**
 * @typedef {object} Table
 * @property {string} title
 * @property {string[]} head
 * @property {string[][]} rows
 */

const OURS = 'connect-drizzle';
const PG = 'connect-pg-simple';
const REDIS = 'connect-redis';

/** @type {Record<string, (result: Result) => Table[]>} tables by the name of a block in the docs */
export const TABLES = {
  environment: ({ meta }) => [
    {
      title: 'Environment',
      head: ['', ''],
      rows: [
        ['Machine', machineText(meta)],
        ['Postgres', postgresText(meta)],
        ['Redis', meta.redis.version ? `${meta.redis.version}, in memory` : meta.redis.missing],
        ['Node', meta.machine.node],
        [
          'Packages',
          Object.entries(meta.versions)
            .map((pair) => pair.join(' '))
            .join(', '),
        ],
        ['Processes', processesText(meta)],
        [
          'Rounds',
          `medians of ${meta.rounds} interleaved rounds, windows of ${meta.windowMilliseconds} ms`,
        ],
        ['Measured', [...new Set(Object.values(meta.measured))].join(', ')],
        ...Object.entries(meta.missing).map(([who, why]) => [`Not measured: ${who}`, why]),
      ],
    },
  ],

  goals: (result) => [
    {
      title: 'Goals',
      head: ['goal', 'at least', 'measured', ''],
      rows: GOALS.map((goal) => {
        const value = goal.value(result);
        const known = Number.isFinite(value);
        return [
          goal.what,
          `${goal.atMost === undefined ? '' : 'under '}${goal.show(goal.atLeast ?? goal.atMost)}`,
          known ? goal.show(value) : 'not measured',
          known ? (reached(goal, value) ? 'reached' : 'missed') : '',
        ];
      }),
    },
  ],

  operations: (result) =>
    each(headlines(result.micro ?? []), 'operation', (operation, rows) => ({
      title: `${operation}: ${rows[0].callers} callers, ${rows[0].bytes} bytes, ${count(rows[0].sessions)} sessions`,
      head: ['', 'per second', 'p50', 'p99', 'client CPU', 'server CPU', '× pg-simple', '× Redis'],
      rows: rows.map((row) => [
        row.contender,
        count(row.rate),
        milliseconds(row.p50),
        milliseconds(row.p99),
        microseconds(row.clientCpu),
        microseconds(row.serverCpu),
        times(ratio(result.micro, row, peerOperation(row, PG))),
        times(ratio(result.micro, row, peerOperation(row, REDIS))),
      ]),
    })),

  callers: (result) =>
    each(
      (result.micro ?? []).filter(({ bytes }) => bytes === smallest(result.micro)),
      'operation',
      (operation, rows) =>
        pivot(rows, 'callers', (callers) => (callers === 1 ? '1 caller' : `${callers}`), {
          title: `${operation}, per second, by callers (${rows[0].bytes} bytes)`,
        }),
    ),

  payloads: (result) =>
    each(
      (result.micro ?? []).filter(({ callers }) => callers === 64),
      'operation',
      (operation, rows) =>
        pivot(rows, 'bytes', bytesText, {
          title: `${operation}, per second, by payload (64 callers)`,
        }),
    ),

  latency: (result) => {
    const rows = (result.micro ?? []).filter(
      ({ callers, bytes }) => callers === 1 && bytes === smallest(result.micro),
    );
    if (rows.length === 0) return [];
    return [
      pivot(rows, 'operation', String, {
        title: `Latency of 1 caller, median (${rows[0].bytes} bytes)`,
        cell: ({ p50 }) => milliseconds(p50),
      }),
    ];
  },

  size: (result) =>
    each(result.size ?? [], 'operation', (operation, rows) =>
      pivot(rows, 'sessions', (sessions) => `${count(sessions)} sessions`, {
        title: `${operation}, per second, by sessions in the table (${rows[0].callers} callers)`,
        last: [
          'share kept',
          (cells) => percent((cells.at(-1)?.rate ?? Number.NaN) / (cells[0]?.rate ?? Number.NaN)),
        ],
      }),
    ),

  express: (result) =>
    each(result.express ?? [], 'route', (route, rows) => ({
      title: `Express 5, ${route} (${rows[0].calls}): ${rows[0].connections} connections`,
      head: ['', 'requests/s', 'p50', 'p99', 'app CPU', '× pg-simple', '× MemoryStore'],
      rows: rows.map((row) => [
        row.contender,
        count(row.rate),
        milliseconds(row.p50),
        milliseconds(row.p99),
        microseconds(row.appCpu),
        times(ratio(rows, row, { contender: PG })),
        times(ratio(rows, row, { contender: 'MemoryStore' })),
      ]),
    })),

  prune: ({ prune = [] }) =>
    prune.length === 0
      ? []
      : [
          {
            title: `Pruning ${count(prune[0].expired)} expired among ${count(prune[0].live + prune[0].expired)} sessions, ${count(prune[0].getsPerSecond)} gets/s meanwhile`,
            head: ['', 'rows/s', 'statements', 'longest', 'get p99 idle', 'meanwhile', '×'],
            rows: prune.map((row) => [
              row.contender,
              count(row.rate),
              count(row.statements),
              milliseconds(row.longestStatement),
              milliseconds(row.idleP99),
              milliseconds(row.p99),
              times(row.p99Ratio),
            ]),
          },
        ],

  hot: ({ hot = [] }) =>
    hot.length === 0
      ? []
      : [
          {
            title: `${count(hot[0].touches)} touches of ${count(hot[0].sessions)} sessions`,
            head: ['', 'updates', 'HOT', 'indexes before', 'after', 'growth', 'table growth'],
            rows: hot.map((row) => [
              row.contender,
              count(row.updates),
              percent(row.hotShare),
              bytesText(row.indexBytesBefore),
              bytesText(row.indexBytesAfter),
              percent(row.indexGrowth),
              percent(row.tableGrowth),
            ]),
          },
        ],

  cache: ({ cache = [] }) =>
    cache.length === 0
      ? []
      : [
          {
            title: `Cached get: ${cache[0].callers} callers, ${cache[0].bytes} bytes`,
            head: ['', 'per second', 'p50', 'p99', 'client CPU', 'hits', '× uncached'],
            rows: cache.map((row) => [
              row.contender,
              count(row.rate),
              milliseconds(row.p50),
              milliseconds(row.p99),
              microseconds(row.clientCpu),
              row.hitShare > 0 ? percent(row.hitShare) : '–',
              times(ratio(cache, row, { contender: OURS })),
            ]),
          },
        ],

  sync: ({ sync }) =>
    [
      sync?.cost.length && {
        title: `set with sync: ${sync.cost[0].callers} callers, ${sync.cost[0].bytes} bytes`,
        head: ['', 'per second', 'p50', 'p99', 'client CPU', 'server CPU', '× without'],
        rows: sync.cost.map((row) => [
          row.contender,
          count(row.rate),
          milliseconds(row.p50),
          milliseconds(row.p99),
          microseconds(row.clientCpu),
          microseconds(row.serverCpu),
          times(ratio(sync.cost, row, { contender: OURS })),
        ]),
      },
      sync?.propagation.length && {
        title: 'Until another process has the change event',
        head: ['', 'changes', 'seen', 'p50', 'p99', 'longest'],
        rows: sync.propagation.map((row) => [
          row.span,
          count(row.changes),
          count(row.seen),
          milliseconds(row.p50),
          milliseconds(row.p99),
          milliseconds(row.max),
        ]),
      },
    ].filter(Boolean),

  encryption: ({ encryption = [] }) =>
    each(encryption, 'operation', (operation, rows) =>
      pivot(rows, 'bytes', bytesText, {
        title: `${operation} with encryption, per second (${rows[0].callers} callers)`,
      }),
    ),
};

/** @param {Result} result */
export function describeResult(result) {
  return Object.entries(TABLES)
    .filter(([name]) => name !== 'goals')
    .flatMap(([, build]) => build(result))
    .map((table) => `${table.title}\n\n${markdown(table)}\n`)
    .join('\n');
}

/** @param {Result} result */
export function describeGoals(result) {
  return TABLES.goals(result)
    .map((table) => `${table.title}\n\n${markdown(table)}\n`)
    .join('\n');
}

/**
 * A Markdown table; figures in aligned columns, texts as they come.
 *
 * @param {Table} table
 */
export function markdown({ head, rows }) {
  const widths = head.map((_, i) => Math.max(3, ...[head, ...rows].map((row) => row[i].length)));
  const numeric = head.length > 2;
  const line = (/** @type {string[]} */ row) =>
    `| ${row.map((cell, i) => (numeric ? pad(cell, widths[i], i > 0) : cell)).join(' | ')} |`;
  const rule = widths.map((width, i) => {
    if (!numeric) return '---';
    return i > 0 ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width);
  });
  return [line(head), `| ${rule.join(' | ')} |`, ...rows.map(line)].join('\n');
}

/**
 * The row of a peer that a row is to be compared with.
 *
 * @param {readonly Record<string, any>[]} rows
 * @param {Record<string, any>} row
 * @param {Record<string, unknown>} peer what is different about it
 * @param {(row: Record<string, any>) => number} [value]
 * @returns {number} how many times as much; NaN where there is no such row
 */
export function ratio(rows, row, peer, value = ({ rate }) => rate) {
  const keys = ['operation', 'callers', 'bytes', 'sessions', 'route'];
  const wanted = { ...Object.fromEntries(keys.map((key) => [key, row[key]])), ...peer };
  const other = rows.find((one) =>
    Object.entries(wanted).every(([key, expected]) => one[key] === expected),
  );
  return other ? value(row) / value(other) : Number.NaN;
}

/**
 * @param {import('./goals.js').Goal} goal
 * @param {number} value
 */
export function reached({ atLeast, atMost }, value) {
  return atLeast === undefined ? value < atMost : value >= atLeast;
}

/** To a peer, a foreign object is what every object is. */
function peerOperation({ operation }, contender) {
  return { contender, operation: operation === 'set foreign' ? 'set' : operation };
}

/** @param {readonly { callers: number, bytes: number }[]} micro */
function headlines(micro) {
  const callers = micro.some((row) => row.callers === 64) ? 64 : micro[0]?.callers;
  const bytes = smallest(micro);
  return micro.filter((row) => row.callers === callers && row.bytes === bytes);
}

/** @param {readonly { bytes: number }[]} rows */
function smallest(rows) {
  return Math.min(...rows.map(({ bytes }) => bytes));
}

/**
 * @template {Record<string, any>} T
 * @param {readonly T[]} rows
 * @param {string} key
 * @param {(value: any, rows: T[]) => Table} build
 * @returns {Table[]} one for each value of the key
 */
function each(rows, key, build) {
  return [...new Set(rows.map((row) => row[key]))].map((value) =>
    build(
      value,
      rows.filter((row) => row[key] === value),
    ),
  );
}

/**
 * Contenders down, values of a key across.
 *
 * @param {readonly Record<string, any>[]} rows
 * @param {string} key
 * @param {(value: any) => string} headOf
 * @param {object} options
 * @param {string} options.title
 * @param {(row: Record<string, any>) => string} [options.cell]
 * @param {[string, (cells: (Record<string, any> | undefined)[]) => string]} [options.last] a column more
 * @returns {Table}
 */
function pivot(rows, key, headOf, { title, cell = ({ rate }) => count(rate), last }) {
  const values = [...new Set(rows.map((row) => row[key]))];
  const contenders = [...new Set(rows.map(({ contender }) => contender))];
  return {
    title,
    head: ['', ...values.map(headOf), ...(last ? [last[0]] : [])],
    rows: contenders.map((contender) => {
      const cells = values.map((value) =>
        rows.find((row) => row[key] === value && row.contender === contender),
      );
      return [
        contender,
        ...cells.map((found) => (found ? cell(found) : '–')),
        ...(last ? [last[1](cells)] : []),
      ];
    }),
  };
}

/** @param {Result['meta']} meta */
function machineText({ machine }) {
  const { cpu, cores, memoryGb, system, fsyncMilliseconds } = machine;
  return `${cpu}, ${cores} cores, ${memoryGb} GB, ${system}; fsync of a page: ${milliseconds(fsyncMilliseconds)}`;
}

/** @param {Result['meta']} meta */
function postgresText({ postgres }) {
  const settings = Object.entries(postgres.settings).map((pair) => pair.join(' '));
  return `${postgres.version}, ${settings.join(', ')}`;
}

/** @param {Result['meta']} meta */
function processesText({ cores, poolSize, postgres }) {
  const servers = postgres.embedded ? 'database servers' : 'Postgres where it is, Redis';
  const pinned = cores.app
    ? `contender on core ${cores.app}, ${servers} on ${cores.server}, HTTP load on ${cores.load}`
    : 'not pinned to cores';
  return `${pinned}; ${poolSize} connections in every pool`;
}

/** @param {number} value */
function count(value) {
  return Number.isFinite(value) ? Math.round(value).toLocaleString('en-US') : '–';
}

/** @param {number} value */
function milliseconds(value) {
  return Number.isFinite(value) ? `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms` : '–';
}

/** @param {number} value */
function microseconds(value) {
  return Number.isFinite(value) ? `${value.toFixed(1)} µs` : '–';
}

/** @param {number} value */
export function times(value) {
  return Number.isFinite(value) ? `${value.toFixed(2)}x` : '–';
}

/** @param {number} value */
export function percent(value) {
  return Number.isFinite(value) ? `${(value * 100).toFixed(1)} %` : '–';
}

/** @param {number} value */
function bytesText(value) {
  if (value >= 2 ** 20) return `${(value / 2 ** 20).toFixed(1)} MB`;
  return value >= 2 ** 10 ? `${Math.round(value / 2 ** 10)} KB` : `${value} B`;
}

/**
 * @param {string} cell
 * @param {number} width
 * @param {boolean} right
 */
function pad(cell, width, right) {
  return right ? cell.padStart(width) : cell.padEnd(width);
}
