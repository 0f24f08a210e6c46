/**
 * A run: the servers, the contenders, and the sections one after the other.
 *
 * @module
 */
import { CONTENDERS } from './contenders/index.js';
import { POOL_SIZE } from './contenders/postgres.js';
import { assignCores, describeMachine } from './machine.js';
import { startPostgres, startRedis } from './servers.js';

/** A table with large sessions has fewer of them. Otherwise filling it takes longer than measuring. */
const TABLE_BYTES = 102_400_000;

/** @typedef {import('./options.js').Options} Options */

/** The data that all sections share. */
export class Bench {
  /** Versions of the packages that took part. */
  versions = /** @type {Record<string, string>} */ ({});
  /** Contenders that did not take part, or not in all sections, and the reasons. */
  missing = /** @type {Record<string, string>} */ ({});

  /**
   * @param {object} parts
   * @param {Options} parts.options
   * @param {(line: string) => void} parts.log
   * @param {import('./machine.js').Cores} parts.cores
   * @param {import('./servers.js').Postgres} parts.postgres
   * @param {import('./servers.js').Redis | undefined} parts.redis
   */
  constructor({ options, log, cores, postgres, redis }) {
    this.options = options;
    this.log = log;
    this.cores = cores;
    this.postgres = postgres;
    this.redis = redis;
    this.contenders = CONTENDERS.filter((name) => options.contenders?.includes(name) ?? true);
  }

  /** @param {number} bytes of each session */
  sessionsOf(bytes) {
    const most = this.options.quick ? 2_000 : 20_000;
    return Math.min(most, Math.floor(TABLE_BYTES / bytes));
  }

  /**
   * Whether the command line asks for this.
   *
   * @param {{ operation: string, callers?: number, bytes?: number }} cell
   */
  selects({ operation, callers, bytes }) {
    const { operations, cross } = this.options;
    if (operations && !operations.includes(operation)) return false;
    if (cross || callers === undefined) return true;
    const [smallest, largest] = [this.options.payload[0], this.options.payload.at(-1)];
    if (operation === 'get' && callers === 256 && bytes === largest) return true;
    return bytes === smallest || callers === 64 || this.options.callers.length === 1;
  }
}

/**
 * @param {Options} options
 * @param {(line: string) => void} log
 */
export async function runSections(options, log) {
  const unknown = options.contenders?.find((name) => !CONTENDERS.includes(name));
  if (unknown) throw new Error(`no contender ${unknown}, only ${CONTENDERS.join(' | ')}`);
  const cores = assignCores(options.pin);
  const machine = describeMachine();
  const stops = [];
  try {
    log('starting Postgres and Redis');
    const postgres = await startPostgres({ url: options.url, cores: cores.server });
    stops.push(() => postgres.stop());
    const redis = await startRedis(cores.server);
    if ('stop' in redis) stops.push(() => redis.stop());
    else log(`connect-redis does not take part: ${redis.missing}`);

    const present = 'stop' in redis ? redis : undefined;
    const bench = new Bench({ options, log, cores, postgres, redis: present });
    const sections = {};
    const measured = {};
    const started = performance.now();
    for (const name of options.sections) {
      const before = performance.now();
      try {
        sections[name] = await (await import(`./${name}.js`))[name](bench);
        measured[name] = new Date().toISOString().slice(0, 10);
      } catch (error) {
        log(`${name}: ${error.stack}`);
        bench.missing[`the section ${name}`] = error.message;
        process.exitCode = 1;
      }
      log(`${name}: done in ${Math.round((performance.now() - before) / 1000)} s`);
    }
    log(`all done in ${Math.round((performance.now() - started) / 1000)} s`);
    return {
      meta: {
        measured,
        quick: options.quick,
        rounds: options.rounds,
        windowMilliseconds: options.window,
        poolSize: POOL_SIZE,
        machine,
        cores,
        postgres: {
          version: postgres.version,
          embedded: options.url === undefined,
          settings: postgres.settings,
        },
        redis: present ? { version: present.version } : redis,
        versions: bench.versions,
        missing: bench.missing,
      },
      ...sections,
    };
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
}
