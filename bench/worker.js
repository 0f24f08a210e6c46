/**
 * One contender in a separate process. It runs the commands that run.js sends over the IPC channel, see {@link commands}.
 *
 * @module
 */
import { createRequire } from 'node:module';
import { setTimeout as wait } from 'node:timers/promises';
import { contender } from './contenders/index.js';
import { serveApp } from './express-app.js';
import { Load } from './load.js';
import { MAX_AGE_SECONDS, sidOf } from './sessions.js';
import { sharedClockMs } from './stats.js';

/** A table of live and expired sessions is filled in turns. */
const MIXED_PARTS = 48;

/** @type {import('./contenders/index.js').Opened} */
let opened;
/** @type {Record<string, string>} the unsupported operations of the contender */
let known;
/** @type {Load} */
let load;
/** @type {Map<string, number>} when the change of a session arrived, by id */
const heard = new Map();
/** @type {{ close: () => Promise<void> } | undefined} */
let app;

const commands = {
  /** @param {{ name: string, context: import('./contenders/index.js').Context }} argument */
  async open({ name, context }) {
    const { open, packages, unsupported = {} } = await contender(name);
    opened = await open(context);
    known = unsupported;
    return {
      versions: Object.fromEntries(packages.map((name) => [name, versionOf(name)])),
      table: opened.table,
    };
  },

  /**
   * Tries each operation, and returns those that the store does not support.
   *
   * @returns {Promise<Record<string, string>>} the reason by operation
   */
  async unsupported() {
    const reasons = { ...known };
    await opened.empty();
    await opened.fill({ first: 1, last: 2, bytes: 200, ttlSeconds: MAX_AGE_SECONDS });
    const trial = new Load(opened, { sessions: 2, bytes: 200 });
    for (const operation of ['get', 'set', 'set new', 'touch', 'destroy']) {
      if (operation in reasons) continue;
      if (operation === 'touch' && typeof opened.store.touch !== 'function') {
        reasons.touch = 'has no touch';
        continue;
      }
      try {
        await trial.measure({ operation, callers: 1, milliseconds: 1000, operations: 3 });
      } catch (error) {
        reasons[operation] = firstLine((error.cause ?? error).message);
      }
    }
    await opened.empty();
    return reasons;
  },

  /** @param {{ sessions: number, bytes: number }} rows */
  async fill({ sessions, bytes }) {
    await opened.empty();
    await opened.fill({ first: 1, last: sessions, bytes, ttlSeconds: MAX_AGE_SECONDS });
    await opened.settle?.();
    load = new Load(opened, { sessions, bytes });
  },

  /**
   * Fills a table that is never analysed. The statements are prepared, and their plans kept, while it is nearly empty.
   *
   * @param {{ sessions: number, bytes: number, operations: import('./load.js').Operation[] }} argument
   */
  async fillUnanalysed({ sessions, bytes, operations }) {
    const first = 256;
    await opened.empty();
    await opened.fill({ first: 1, last: first, bytes, ttlSeconds: MAX_AGE_SECONDS });
    load = new Load(opened, { sessions: first, bytes });
    for (const operation of operations) {
      await load.measure({ operation, callers: 64, milliseconds: 10_000, operations: 2_000 });
    }
    await opened.fill({ first: first + 1, last: sessions, bytes, ttlSeconds: MAX_AGE_SECONDS });
    load = new Load(opened, { sessions, bytes });
  },

  /**
   * Fills the table with sessions. Their expiry was last moved between `everySeconds` and a minute ago, equally many at
   * each step. A table looks like this if users view a page every `everySeconds`, and the store moves an expiry once a minute.
   *
   * @param {{ sessions: number, bytes: number, everySeconds: number }} argument
   */
  async fillReturning({ sessions, bytes, everySeconds }) {
    await opened.empty();
    const steps = 60 / everySeconds;
    for (let step = 0; step < steps; step += 1) {
      const [first, end] = [step, step + 1].map((i) => 1 + Math.floor((sessions * i) / steps));
      const ttlSeconds = MAX_AGE_SECONDS - (step + 1) * everySeconds;
      await opened.fill({ first, last: end - 1, bytes, ttlSeconds });
    }
    await opened.settle?.();
  },

  /**
   * Live and expired sessions side by side in the table.
   *
   * @param {{ live: number, expired: number, bytes: number }} rows
   */
  async fillMixed({ live, expired, bytes }) {
    await opened.empty();
    for (let part = 0; part < MIXED_PARTS; part += 1) {
      const [first, end] = [part, part + 1].map((i) => 1 + Math.floor((live * i) / MIXED_PARTS));
      await opened.fill({ first, last: end - 1, bytes, ttlSeconds: MAX_AGE_SECONDS });
      await fillExpired({ live, expired, bytes }, part);
    }
    await opened.settle?.();
    load = new Load(opened, { sessions: live, bytes });
  },

  /** @param {{ live: number, expired: number, bytes: number }} rows */
  async addExpired(rows) {
    for (let part = 0; part < MIXED_PARTS; part += 1) await fillExpired(rows, part);
    await opened.settle?.();
  },

  /** @param {Parameters<Load['measure']>[0]} argument */
  measure(argument) {
    return load.measure(argument);
  },

  /** Reads every session once, so that the cache contains them. */
  async warmCache({ sessions }) {
    await opened.synced?.();
    for (let round = 0; round < 3; round += 1) {
      await load.measure({
        operation: 'get',
        callers: 64,
        milliseconds: 60_000,
        operations: sessions * 3,
      });
    }
  },

  stats: async () => opened.stats?.() ?? {},

  /**
   * Gets at a steady rate for some time.
   *
   * @param {{ perSecond: number, milliseconds: number }} argument
   */
  paced({ perSecond, milliseconds }) {
    const until = new Promise((resolve) => setTimeout(resolve, milliseconds));
    return load.paced({ perSecond, until });
  },

  /**
   * Prunes while gets continue.
   *
   * @param {{ perSecond: number, live: number }} argument
   */
  async prune({ perSecond, live }) {
    opened.statements?.reset();
    const started = performance.now();
    let milliseconds = 0;
    const until = opened.prune().then(() => {
      milliseconds = performance.now() - started;
    });
    const gets = await load.paced({ perSecond, until });
    await until;
    const left = await opened.count();
    if (left !== live) throw new Error(`prune: ${left} rows were left of ${live}`);
    return { milliseconds, gets, statements: opened.statements?.summary(/\bdelete\b/i) };
  },

  /** Waits until the store receives changes from other processes. */
  async synced() {
    await opened.synced();
  },

  /** From now on, records when a change of another process arrives. */
  async watch() {
    opened.store.on('change', ({ id, local }) => {
      if (!local) heard.set(id, sharedClockMs());
    });
  },

  /**
   * @param {{ expected: number }} argument
   * @returns {Promise<Map<string, number>>} the moment by the session's id
   */
  async watched({ expected }) {
    for (let i = 0; i < 100 && heard.size < expected; i += 1) await wait(50);
    return heard;
  },

  /**
   * Changes one session after the other.
   *
   * @param {{ sessions: number, pause: number }} argument pause: milliseconds
   */
  async change({ sessions, pause }) {
    const changes = [];
    for (let number = 1; number <= sessions; number += 1) {
      const sid = sidOf(number);
      const session = { ...(await opened.store.get(sid)), views: 1 };
      const called = sharedClockMs();
      await opened.store.set(sid, session);
      changes.push({ id: opened.idOf(sid), called, answered: sharedClockMs() });
      await wait(pause);
    }
    return changes;
  },

  /** @returns {Promise<number>} the port of an app that uses the store */
  async serve() {
    const { port, close } = await serveApp(opened.store);
    app = { close };
    return port;
  },

  /** Forgets the statements so far. */
  resetStatements() {
    opened.statements?.reset();
  },

  /** @returns {number} statements since then; NaN if the store has none */
  countStatements() {
    return opened.statements?.summary(/^/).count ?? Number.NaN;
  },

  cpu() {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1000;
  },

  async close() {
    await app?.close();
    await opened?.close();
    // Timers of other stores may keep the process alive.
    setImmediate(() => process.exit(0));
  },
};

process.on('message', async ({ id, command, argument }) => {
  try {
    process.send({ id, value: await commands[command](argument) });
  } catch (error) {
    process.send({ id, error: firstLine(error?.message ?? String(error)), stack: error?.stack });
  }
});
process.on('disconnect', () => process.exit(0));

/**
 * Expired over the last day, hour by hour.
 *
 * @param {{ live: number, expired: number, bytes: number }} rows
 * @param {number} part
 */
function fillExpired({ live, expired, bytes }, part) {
  const [first, end] = [part, part + 1].map((i) => 1 + Math.floor((expired * i) / MIXED_PARTS));
  return opened.fill({
    first: live + first,
    last: live + end - 1,
    bytes,
    ttlSeconds: -3600 * (1 + (part % 24)),
  });
}

/** @param {string} name of a package */
function versionOf(name) {
  const require = createRequire(import.meta.url);
  if (name === 'connect-drizzle') return require('../package.json').version;
  for (const folder of require.resolve.paths(name) ?? []) {
    try {
      return require(`${folder}/${name}/package.json`).version;
    } catch {
      // Not in this one.
    }
  }
  return 'unknown';
}

/** @param {string} message */
function firstLine(message) {
  return message.split('\n')[0].slice(0, 160);
}
