/**
 * The tables for the terminal and for docs/performance.md, built from a result.
 *
 * @module
 */
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
const MEMORY = 'MemoryStore';
const BARE = 'bare store';

/** The arrival rate of the summary: half of connect-pg-simple's capacity. */
const REPORTED_SHARE = 0.5;

/** The stores in the summary and in the chart of latencies. */
export const LEADING = Object.freeze([OURS, PG, MEMORY]);

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

  summary: ({ arrivals = [], express = [], views = [] }) =>
    each([...arrivals, ...express, ...views], 'route', (route, rows) => {
      const half = rows.filter(({ share }) => share === REPORTED_SHARE);
      return {
        title: pageTitle(rows[0]),
        head: ['', ...LEADING],
        rows: [
          ...line(half, `p50 at ${count(half[0]?.perSecond)} requests/s`, 'p50', milliseconds),
          ...line(half, 'p99', 'p99', milliseconds),
          ...line(half, 'CPU of the app', 'appCpu', microseconds),
          ...line(half, 'CPU of the database', 'serverCpu', microseconds),
          ...line(views, 'statements', 'statements', decimal, route),
          ...line(views, 'write-ahead log (WAL)', 'walBytes', bytesText, route),
          ...each(express, 'connections', (connections, ofConnections) =>
            line(
              ofConnections,
              `most requests/s, ${connections} connections`,
              'rate',
              count,
              route,
            ),
          ).flat(),
        ],
      };
    }),

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

  lone: ({ micro = [] }) => {
    const rows = micro.filter(
      (row) => row.contender === OURS && row.callers === 1 && row.bytes === smallest(micro),
    );
    if (rows.length === 0) return [];
    return [
      {
        title: `1 caller beside ${PG} (${rows[0].bytes} bytes)`,
        head: ['', 'client CPU', '×', 'server CPU', '×', 'time', '×', 'by hand: CPU', 'time'],
        rows: rows.map((row) => {
          const against = (/** @type {string} */ key) =>
            times(ratio(micro, row, peerOperation(row, PG), key));
          const limit = rowOf(micro, row, peerOperation(row, 'by hand'));
          return [
            row.operation,
            microseconds(row.clientCpu),
            against('clientCpu'),
            microseconds(row.serverCpu),
            against('serverCpu'),
            microseconds(row.p50 * 1000),
            against('p50'),
            microseconds(limit?.clientCpu),
            microseconds(limit && limit.p50 * 1000),
          ];
        }),
      },
    ];
  },

  serverCpu: ({ micro = [] }) =>
    each(
      micro.filter(
        ({ callers, operation, contender }) =>
          callers === 64 &&
          (operation === 'get' || operation === 'set') &&
          [OURS, PG, 'by hand'].includes(contender),
      ),
      'operation',
      (operation, rows) =>
        pivot(rows, 'bytes', bytesText, {
          title: `${operation}: server CPU by payload (64 callers)`,
          cell: ({ serverCpu }) => microseconds(serverCpu),
        }),
    ),

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

  express: ({ express = [] }) =>
    each(express, 'route', (_route, ofRoute) =>
      each(ofRoute, 'connections', (connections, rows) => ({
        title: `${pageTitle(rows[0])}: ${connections} connections`,
        head: [
          '',
          'requests/s',
          'p50',
          'p99',
          'app CPU',
          'database CPU',
          '× pg-simple',
          '× MemoryStore',
          '× bare store',
        ],
        rows: rows.map((row) => [
          row.contender,
          count(row.rate),
          milliseconds(row.p50),
          milliseconds(row.p99),
          microseconds(row.appCpu),
          microseconds(row.serverCpu),
          times(ratio(rows, row, { contender: PG })),
          times(ratio(rows, row, { contender: MEMORY })),
          times(ratio(rows, row, { contender: BARE })),
        ]),
      })),
    ).flat(),

  arrivals: ({ arrivals = [] }) =>
    each(arrivals, 'route', (_route, rows) =>
      pivot(rows, 'perSecond', (rate) => `${count(rate)}/s`, {
        title: `${pageTitle(rows[0])}: p50, p99 by arrival rate; ${PG} can do ${count(rows[0].capacity)}/s`,
        cell: ({ p50, p99 }) => `${milliseconds(p50)}, ${milliseconds(p99)}`,
      }),
    ),

  views: ({ views = [] }) =>
    each(views, 'route', (_route, rows) => ({
      title: `${pageTitle(rows[0])}: users who view one every ${rows[0].everySeconds} seconds, 8 at a time`,
      head: ['', 'WAL', '× pg-simple', 'statements', '× pg-simple'],
      rows: rows.map((row) => [
        row.contender,
        bytesText(row.walBytes),
        times(ratio(rows, row, { contender: PG }, 'walBytes')),
        decimal(row.statements),
        times(ratio(rows, row, { contender: PG }, 'statements')),
      ]),
    })),

  fresh: ({ fresh = [] }) =>
    fresh.length === 0
      ? []
      : [
          pivot(fresh, 'operation', String, {
            title: `${OURS}, per second (${fresh[0].callers} callers, ${count(fresh[0].sessions)} sessions)`,
          }),
        ],

  prune: ({ prune = [] }) =>
    prune.length === 0
      ? []
      : [
          {
            title: `Pruning ${count(prune[0].expired)} expired among ${count(prune[0].live + prune[0].expired)} sessions, ${count(prune[0].getsPerSecond)} gets/s meanwhile`,
            head: ['', 'rows/s', 'statements', 'longest', 'get p99 idle', 'get p99 pruning', '×'],
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
            head: [
              '',
              'per second',
              'p50',
              'p99',
              'client CPU',
              'CPU × MemoryStore',
              'hits',
              '× uncached',
            ],
            rows: cache.map((row) => [
              row.contender,
              count(row.rate),
              milliseconds(row.p50),
              milliseconds(row.p99),
              microseconds(row.clientCpu),
              times(ratio(cache, row, { contender: MEMORY }, 'clientCpu')),
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

/** @param {{ route: string, calls: string }} page */
export function pageTitle({ route, calls }) {
  return `A page that ${route === 'read' ? 'reads' : 'changes'} its session (${calls})`;
}

/** @param {Result} result */
export function describeResult(result) {
  return Object.values(TABLES)
    .flatMap((build) => build(result))
    .map((table) => `${table.title}\n\n${markdown(table)}\n`)
    .join('\n');
}

/**
 * A Markdown table. Aligns columns of figures, but not of texts.
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
 * The row that differs from another in some keys only.
 *
 * @param {readonly Record<string, any>[]} rows
 * @param {Record<string, any>} row
 * @param {Record<string, unknown>} different
 */
function rowOf(rows, row, different) {
  const keys = ['operation', 'callers', 'bytes', 'sessions', 'route'];
  const wanted = { ...Object.fromEntries(keys.map((key) => [key, row[key]])), ...different };
  return rows.find((one) =>
    Object.entries(wanted).every(([key, expected]) => one[key] === expected),
  );
}

/**
 * Returns the factor compared with another store.
 *
 * @param {readonly Record<string, any>[]} rows
 * @param {Record<string, any>} row
 * @param {Record<string, unknown>} peer the keys in which its row differs
 * @param {string} [key] of the figure
 * @returns {number} NaN if there is no such row
 */
function ratio(rows, row, peer, key = 'rate') {
  return row[key] / (rowOf(rows, row, peer)?.[key] ?? Number.NaN);
}

/** For other stores, every object is foreign. */
function peerOperation({ operation }, contender) {
  return { contender, operation: operation === 'set foreign' ? 'set' : operation };
}

/**
 * A line of the summary.
 *
 * @param {readonly Record<string, any>[]} rows
 * @param {string} title
 * @param {string} key of the figure
 * @param {(value: number) => string} show
 * @param {string} [route] if `rows` has several
 * @returns {string[][]} none if there are no such rows
 */
function line(rows, title, key, show, route = rows[0]?.route) {
  const ofRoute = rows.filter((row) => row.route === route);
  if (ofRoute.length === 0) return [];
  const cells = LEADING.map((contender) =>
    show(ofRoute.find((row) => row.contender === contender)?.[key]),
  );
  return [[title, ...cells]];
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
 * @template R
 * @param {readonly T[]} rows
 * @param {string} key
 * @param {(value: any, rows: T[]) => R} build
 * @returns {R[]} one for each value of the key
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
 * A table with a row for each contender and a column for each value of a key.
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
function decimal(value) {
  return Number.isFinite(value) ? value.toFixed(2) : '–';
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
function times(value) {
  return Number.isFinite(value) ? `${value.toFixed(2)}x` : '–';
}

/** @param {number} value */
function percent(value) {
  return Number.isFinite(value) ? `${(value * 100).toFixed(1)} %` : '–';
}

/** @param {number} value */
function bytesText(value) {
  if (!Number.isFinite(value)) return '–';
  if (value >= 2 ** 20) return `${(value / 2 ** 20).toFixed(1)} MB`;
  return value >= 2 ** 10 ? `${Math.round(value / 2 ** 10)} KB` : `${Math.round(value)} B`;
}

/**
 * @param {string} cell
 * @param {number} width
 * @param {boolean} right
 */
function pad(cell, width, right) {
  return right ? cell.padStart(width) : cell.padEnd(width);
}
