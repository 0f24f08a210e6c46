import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import connectPgPool from 'connect-pg-pool';
import session from 'express-session';
import { FRESH, filler, openPool, tableOf } from './postgres.js';

const TABLE = 'pool_session';

/** @type {import('./index.js').Contender} */
export default {
  server: 'postgres',
  packages: ['connect-pg-pool', 'pg'],
  async open(context) {
    const { pool, statements } = openPool(context);
    const file = createRequire(import.meta.url).resolve('connect-pg-pool/table.sql');
    const definition = await readFile(file, 'utf8');
    await pool.query(
      definition.replaceAll('"session"', TABLE).replaceAll('"session_pkey"', `${TABLE}_pkey`),
    );
    const PgStore = connectPgPool(session);
    const store = new PgStore({ pool, tableName: TABLE, pruneSessionInterval: false });
    return {
      store,
      statements,
      ...tableOf(pool, TABLE),
      fill: filler(
        pool,
        `with ${FRESH} insert into ${TABLE} (sid, sess, expire)
         select sid, data, expires_at from fresh order by sid`,
      ),
      prune: () =>
        new Promise((resolve, reject) => {
          store.pruneSessions((error) => (error ? reject(error) : resolve()));
        }),
      async close() {
        store.close();
        await pool.end();
      },
    };
  },
};
