/**
 * All contenders, by name.
 *
 * @module
 */

/**
 * @typedef {object} Context
 * @property {string} url a Postgres database for the section
 * @property {string | undefined} redisUrl
 * @property {Record<string, unknown>} options of the store, added to the options of every contender
 * @property {boolean} timeStatements whether to record how long each statement takes
 */

/**
 * @typedef {object} Rows sessions number `first` to `last`, see sessions.js
 * @property {number} first
 * @property {number} last
 * @property {number} bytes of each session's JSON text
 * @property {number} ttlSeconds until they expire; negative for expired ones
 */

/**
 * @typedef {object} Opened a store on its own, empty table
 * @property {import('express-session').Store} store
 * @property {(rows: Rows) => Promise<void>} fill adds sessions without the store
 * @property {() => Promise<void>} empty removes all sessions without the store
 * @property {() => Promise<void>} close
 * @property {() => Promise<void>} [settle] vacuums, so that no contender starts on another's leftovers
 * @property {string} [table] its name in Postgres
 * @property {import('./postgres.js').StatementTimes} [statements]
 * @property {() => Promise<void>} [prune]
 * @property {() => Promise<number>} [count] of all rows, without the store
 * @property {() => Promise<void>} [synced] after this returns, the store receives changes of other processes
 * @property {(sid: string) => string} [idOf]
 * @property {() => Record<string, unknown>} [stats]
 */

/**
 * @typedef {object} Contender
 * @property {'postgres' | 'redis' | 'memory'} server
 * @property {readonly string[]} packages; the report names their versions
 * @property {boolean} [background] continues to work after its results, so that it is stopped (SIGSTOP) while others are
 *   measured
 * @property {Record<string, string>} [unsupported] unsupported operations, with the reason; not needed for those that
 *   fail at the first try
 * @property {(context: Context) => Promise<Opened>} open throws if it cannot run here
 */

/** The names in the order of the report. */
export const CONTENDERS = Object.freeze([
  'connect-drizzle',
  'connect-pg-simple',
  'connect-pg-pool',
  'drizzle-session-store',
  'connect-redis',
  'MemoryStore',
  'session-pouchdb-store',
  'by hand',
  'same statements by hand',
  'batched by hand',
]);

/**
 * @param {string} name one of {@link CONTENDERS}
 * @returns {Promise<Contender>}
 */
export async function contender(name) {
  const file = name.toLowerCase().replaceAll(/\W+/g, '-');
  return (await import(`./${file}.js`)).default;
}
