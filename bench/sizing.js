#!/usr/bin/env node
/**
 * Calculates what a site needs from the number of its sessions: `node bench/sizing.js --help`. The costs are measured
 * (`sizing.json`, by `sizing-measure.js`). The behaviour of visitors and the load of a server are assumptions.
 *
 * Uses only modules of Node.
 *
 * @module
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const PAGE = new URL('../docs/sizing.md', import.meta.url);
const COSTS = new URL('sizing.json', import.meta.url);
const RESULTS = new URL('results.jsonl', import.meta.url);

const HELP = `node bench/sizing.js [options]: calculates what a site needs from the number of its sessions

  --sessions n,n        live sessions (1000,100000,10000000,1000000000)
  --views n             page views of a session in a day, on average (2)
  --visit n             page views in a visit (5)
  --changes n           share of the page views that change the session (0.1)
  --lifetime n          days until an unused session expires (30)
  --peak n              load at the busiest time, in multiples of the average (3)
  --json                prints figures instead of a table
  --check               fails if docs/sizing.md has other tables
  --write               writes the tables into docs/sizing.md
  --help                prints this text
`;

/** Assumptions about visitors. */
const VISITORS = { views: 2, visit: 5, changes: 0.1, lifetime: 30, peak: 3 };

/** Limits for one server or one process. */
const LIMITS = {
  /** Load of a core at the busiest time. */
  utilization: 0.5,
  cores: 32,
  walBytesPerSecond: 100e6,
  tableBytes: 1e12,
  viewsPerProcess: 500,
  /** Two lanes for reads, two for writes, one for other statements, one connection that listens. */
  connectionsPerProcess: 6,
  /** Above this, a table is easier to vacuum and to move in parts. */
  partitionBytes: 100e9,
  /** Connections above which a pooler saves memory. */
  connections: 300,
  /** Notifications per second to all processes, above which listening costs more than it saves. */
  deliveries: 50_000,
};

/**
 * Microseconds of the server's CPU time for a call alone, and for one of many at once: the figures of
 * docs/performance.md for 20,000 sessions of 200 bytes.
 */
const CPU = measuredCpu({ get: 'get', touch: 'touch', set: 'set', create: 'set new' });

/** Factor for a table that does not fit into `shared_buffers`: `sizing.json` has 0.8 to 2.1. */
const LARGE_TABLE = 2;
const LARGE = 1_000_000;

const SECONDS_PER_DAY = 86_400;

/**
 * A touch is written once a minute: once in each visit, and a second time in half of the visits. The first one moves the
 * expiry to another hour and also writes the indexes; the second does not.
 */
const LATER_TOUCHES = 0.5;

/** Pruning runs this often in a day, with the default options. */
const PRUNINGS_PER_DAY = 96;

/**
 * @typedef {object} Operation
 * @property {number} alone microseconds of the server's CPU time for a call alone, on a machine with other work
 * @property {number} batched the same with 64 callers at once
 * @property {number} wal bytes of WAL if the page was written since the last checkpoint
 * @property {number} walAfterCheckpoint bytes of WAL of the first writes after a checkpoint
 */

/**
 * @typedef {object} Costs the output of `sizing-measure.js`
 * @property {number} sessions rows in the table
 * @property {number} bytes of a session's JSON text
 * @property {number} heapBytes per row
 * @property {number} indexBytes per row
 * @property {Record<'get' | 'touch' | 'set' | 'create' | 'destroy', Operation>} operations
 * @property {{ rowsPerSecond: number, cpu: number, wal: number }} prune
 * @property {string} environment
 */

/**
 * Returns what a site needs.
 *
 * @param {number} sessions
 * @param {typeof VISITORS} visitors
 * @param {Costs} costs
 */
export function sizeOf(sessions, visitors, costs) {
  const { operations, prune } = costs;
  const perSecond = (perDay) => (perDay / SECONDS_PER_DAY) * visitors.peak;
  const viewsPerDay = sessions * visitors.views;
  const endedPerDay = sessions / visitors.lifetime;
  const visits = perSecond(viewsPerDay / visitors.visit);
  const rates = {
    get: perSecond(viewsPerDay),
    touch: visits * (1 + LATER_TOUCHES),
    set: perSecond(viewsPerDay * visitors.changes),
    create: perSecond(endedPerDay),
  };
  const pruneRate = endedPerDay / SECONDS_PER_DAY;
  const inTable = sessions >= LARGE ? LARGE_TABLE : 1;
  const microseconds = Object.entries(rates).reduce(
    (sum, [name, rate]) => sum + rate * CPU[name].alone * inTable,
    pruneRate * prune.cpu,
  );
  const busyCores = microseconds / 1e6;
  const { touch, set, create } = operations;
  const walBytesPerSecond =
    visits * (touch.walAfterCheckpoint + LATER_TOUCHES * touch.wal) +
    rates.set * set.walAfterCheckpoint +
    rates.create * create.walAfterCheckpoint +
    pruneRate * prune.wal;
  const cores = Math.max(1, Math.ceil(busyCores / LIMITS.utilization));
  const heapBytes = sessions * costs.heapBytes;
  const indexBytes = sessions * costs.indexBytes;
  const bytes = heapBytes + indexBytes;
  const processes = Math.max(2, Math.ceil(rates.get / LIMITS.viewsPerProcess));
  const connections = processes * LIMITS.connectionsPerProcess;
  const deliveries = (rates.set + rates.create) * processes;
  const nodes = Math.max(
    Math.ceil(cores / LIMITS.cores),
    Math.ceil(walBytesPerSecond / LIMITS.walBytesPerSecond),
    Math.ceil(bytes / LIMITS.tableBytes),
  );
  return {
    sessions,
    rates,
    busyCores,
    cores,
    heapBytes,
    indexBytes,
    bytes,
    walBytesPerSecond,
    /** If nothing is in memory, a read needs a page of the index and one of the table. */
    readsPerSecond: rates.get * 2,
    processes,
    connections,
    needsPooler: connections > LIMITS.connections,
    secondsOfPruning: endedPerDay / PRUNINGS_PER_DAY / prune.rowsPerSecond,
    prunedAtOnce: endedPerDay / PRUNINGS_PER_DAY,
    partitions: bytes / nodes > LIMITS.partitionBytes,
    mayCache: deliveries <= LIMITS.deliveries,
    deliveries,
    nodes,
    measuredWith: costs.sessions,
  };
}

/** @typedef {ReturnType<typeof sizeOf>} Size */

/** @type {[string, (size: Size) => string][]} */
const ROWS = [
  ['page views a second, at the busiest time', ({ rates }) => number(rates.get)],
  [
    'touches / saves / new sessions a second',
    ({ rates }) => [rates.touch, rates.set, rates.create].map(number).join(' / '),
  ],
  ['table and indexes', ({ bytes }) => size(bytes)],
  ['indexes alone', ({ indexBytes }) => size(indexBytes)],
  ['busy cores of Postgres', ({ busyCores }) => number(busyCores)],
  ['recommended cores', ({ cores }) => number(cores)],
  ['WAL at the busiest time', ({ walBytesPerSecond }) => `${size(walBytesPerSecond)}/s`],
  ['random reads a second if nothing is in memory', ({ readsPerSecond }) => number(readsPerSecond)],
  ['app processes', ({ processes }) => number(processes)],
  [
    'connections',
    ({ connections, needsPooler }) =>
      `${number(connections)}${needsPooler ? ', through a pooler' : ''}`,
  ],
  ['sessions deleted by one pruning run', ({ prunedAtOnce }) => number(prunedAtOnce)],
  ['time of one pruning run', ({ secondsOfPruning }) => time(secondsOfPruning)],
  [
    'cache',
    ({ mayCache, deliveries }) =>
      mayCache ? 'possible' : `no: ${number(deliveries)} notifications a second`,
  ],
  ['partitions', ({ partitions }) => (partitions ? 'yes' : 'no')],
  ['database servers, without standbys', ({ nodes }) => number(nodes)],
];

/** @param {readonly Size[]} sizes */
function siteTable(sizes) {
  const head = ['live sessions', ...sizes.map(({ sessions }) => number(sessions))];
  const source = [
    'bytes and WAL measured in a table of',
    ...sizes.map(({ measuredWith }) => number(measuredWith)),
  ];
  return table([head, source, ...ROWS.map(([name, cell]) => [name, ...sizes.map(cell)])]);
}

function cpuTable() {
  const micros = (value) => `${number(value)} µs`;
  const rows = Object.entries(CPU).map(([name, { alone, batched }]) => [
    name,
    micros(alone),
    micros(batched),
  ]);
  return table([['CPU of the server', 'a call alone', 'one of many at once'], ...rows]);
}

/** @param {readonly Costs[]} measured */
function costTable(measured) {
  const bytes = (value) => `${number(value)} B`;
  const rows = ['touch', 'set', 'create'].flatMap((name) => {
    const of = (cell) => measured.map(({ operations }) => bytes(cell(operations[name])));
    return [
      [`${name}: WAL`, ...of(({ wal }) => wal)],
      [`${name}: WAL after a checkpoint`, ...of((each) => each.walAfterCheckpoint)],
    ];
  });
  return table([
    ['rows', ...measured.map(({ sessions }) => number(sessions))],
    ['table, per row', ...measured.map(({ heapBytes }) => bytes(heapBytes))],
    ['indexes, per row', ...measured.map(({ indexBytes }) => bytes(indexBytes))],
    ...rows,
    ['pruning', ...measured.map(({ prune }) => `${number(prune.rowsPerSecond)} rows/s`)],
    ['pruning: WAL per row', ...measured.map(({ prune }) => bytes(prune.wal))],
  ]);
}

/** @param {readonly (readonly string[])[]} rows */
function table([head, ...rows]) {
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [
    line(head),
    line(head.map((_, at) => (at === 0 ? '---' : '---:'))),
    ...rows.map(line),
  ].join('\n');
}

/** Rounds to two digits: the model is not more exact. */
function number(value) {
  if (value === 0) return '0';
  const rounded = Number(value.toPrecision(2));
  if (rounded < 0.01) return '< 0.01';
  return rounded.toLocaleString('en-US', { maximumFractionDigits: 2 });
}

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB'];

function size(bytes) {
  const unit = Math.min(Math.max(Math.floor(Math.log10(bytes) / 3), 0), UNITS.length - 1);
  return `${number(bytes / 1000 ** unit)} ${UNITS[unit]}`;
}

function time(seconds) {
  if (seconds < 1) return 'below 1 s';
  return seconds < 120 ? `${number(seconds)} s` : `${number(seconds / 60)} min`;
}

/**
 * Returns the server's CPU time of each call, from the stored run of the benchmark.
 *
 * @template {string} Name
 * @param {Record<Name, string>} operations the benchmark's name of each call
 * @returns {Record<Name, { alone: number, batched: number }>}
 */
function measuredCpu(operations) {
  const rows = readFileSync(RESULTS, 'utf8')
    .split('\n')
    .filter((line) => line.includes('"connect-drizzle"'))
    .map((line) => JSON.parse(line));
  const cpu = (operation, callers) =>
    rows.find(
      (row) =>
        row.section === 'micro' &&
        row.contender === 'connect-drizzle' &&
        row.operation === operation &&
        row.callers === callers &&
        row.bytes === 200,
    ).serverCpu;
  const costs = Object.entries(operations).map(([name, operation]) => [
    name,
    { alone: cpu(operation, 1), batched: cpu(operation, 64) },
  ]);
  return /** @type {Record<Name, { alone: number, batched: number }>} */ (
    Object.fromEntries(costs)
  );
}

/** @returns {Costs[]} one for each number of rows */
function measuredCosts() {
  return JSON.parse(readFileSync(COSTS, 'utf8'));
}

/** Returns the nearest measurement, in orders of magnitude. */
function costsFor(sessions, measured) {
  const distance = (each) => Math.abs(Math.log10(each.sessions / sessions));
  return measured.toSorted((a, b) => distance(a) - distance(b))[0];
}

/** Returns the page with the tables between its markers. */
function pageWith(tables) {
  return readFileSync(PAGE, 'utf8').replaceAll(
    /(<!-- sizing:(\w+) -->\n)[\s\S]*?(<!-- \/sizing -->)/g,
    (_block, start, name, end) => `${start}\n${tables[name]}\n\n${end}`,
  );
}

function main() {
  const { values } = parseArgs({
    options: {
      sessions: { type: 'string', default: '1000,100000,10000000,1000000000' },
      ...Object.fromEntries(
        Object.entries(VISITORS).map(([name, value]) => [
          name,
          { type: 'string', default: String(value) },
        ]),
      ),
      json: { type: 'boolean' },
      check: { type: 'boolean' },
      write: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) return process.stdout.write(HELP);
  const visitors = Object.fromEntries(
    Object.keys(VISITORS).map((name) => [name, positive(name, values[name])]),
  );
  const measured = measuredCosts();
  const sizes = values.sessions
    .split(',')
    .map((text) => positive('sessions', text))
    .map((sessions) => sizeOf(sessions, visitors, costsFor(sessions, measured)));
  if (values.json) return process.stdout.write(`${JSON.stringify(sizes, null, 2)}\n`);
  const tables = { sites: siteTable(sizes), cpu: cpuTable(), costs: costTable(measured) };
  if (values.write) return writeFileSync(PAGE, pageWith(tables));
  if (values.check) {
    if (pageWith(tables) === readFileSync(PAGE, 'utf8')) return undefined;
    throw new Error('docs/sizing.md has other tables: node bench/sizing.js --write');
  }
  return process.stdout.write(`${Object.values(tables).join('\n\n')}\n`);
}

function positive(name, text) {
  const value = Number(text);
  if (!(value > 0)) throw new Error(`--${name} must be a positive number, but got '${text}'`);
  return value;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    main();
  } catch (error) {
    process.stderr.write(`${fileURLToPath(import.meta.url)}: ${error.message}\n`);
    process.exitCode = 1;
  }
}
