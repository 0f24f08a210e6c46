/**
 * The common part of all stores on Postgres: the same pool, and tables filled by the server.
 *
 * @module
 */
import pg from 'pg';
import { NUMBER_PLACEHOLDER, template } from '../sessions.js';

/** Connections in every contender's pool. */
export const POOL_SIZE = 10;

/**
 * For a contender's own INSERT: the sessions as `fresh (sid, data, expires_at)`.
 */
export const FRESH = `fresh as (
  select md5('s' || i) as sid,
         replace($3, $4, lpad(i::text, length($4), '0'))::json as data,
         now() + make_interval(secs => $5) as expires_at
    from generate_series($1::int, $2::int) i
)`;

/** @param {import('./index.js').Context} context */
export function openPool({ url, timeStatements }) {
  const pool = new pg.Pool({ connectionString: url, max: POOL_SIZE, idleTimeoutMillis: 0 });
  pool.on('error', () => {});
  return { pool, statements: timeStatements ? new StatementTimes(pool) : undefined };
}

/**
 * @param {import('pg').Pool} pool
 * @param {string} insert begins with {@link FRESH}
 * @returns {import('./index.js').Opened['fill']}
 */
export function filler(pool, insert) {
  return async ({ first, last, bytes, ttlSeconds }) => {
    await pool.query(insert, [first, last, template(bytes), NUMBER_PLACEHOLDER, ttlSeconds]);
  };
}

/**
 * How the benchmark handles the table itself.
 *
 * @param {import('pg').Pool} pool
 * @param {string} table
 */
export function tableOf(pool, table) {
  return {
    table,
    async empty() {
      await pool.query(`truncate ${table}`);
    },
    async count() {
      return (await pool.query(`select count(*)::float8 as count from ${table}`)).rows[0].count;
    },
    async settle() {
      await pool.query(`vacuum (analyze) ${table}`);
    },
  };
}

/** The duration of each statement, from `client.query` to the end of its result. */
export class StatementTimes {
  /** @type {{ text: string, milliseconds: number }[]} */
  #times = [];

  /** @param {import('pg').Pool} pool */
  constructor(pool) {
    pool.on('connect', (client) => {
      /** The statements in flight. A connection returns results in the order of sending. */
      const inFlight = [];
      const query = client.query;
      client.query = (...args) => {
        const text = typeof args[0] === 'string' ? args[0] : args[0].text;
        inFlight.push({ text, started: performance.now() });
        return query.apply(client, args);
      };
      client.connection.on('readyForQuery', () => {
        const { text, started } = inFlight.shift();
        this.#times.push({ text, milliseconds: performance.now() - started });
      });
    });
  }

  reset() {
    this.#times = [];
  }

  /**
   * @param {RegExp} pattern of the statements meant
   * @returns {{ count: number, longest: number }} milliseconds
   */
  summary(pattern) {
    const matching = this.#times.filter(({ text }) => pattern.test(text));
    return {
      count: matching.length,
      longest: Math.max(0, ...matching.map(({ milliseconds }) => milliseconds)),
    };
  }
}
