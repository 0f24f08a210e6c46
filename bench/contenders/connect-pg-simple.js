import connectPgSimple from 'connect-pg-simple';
import session from 'express-session';
import { FRESH, filler, openPool, tableOf } from './postgres.js';

/** @type {import('./index.js').Contender} */
export default {
  server: 'postgres',
  packages: ['connect-pg-simple', 'pg'],
  async open(context) {
    const { pool, statements } = openPool(context);
    const PgStore = connectPgSimple(session);
    const store = new PgStore({ pool, createTableIfMissing: true, pruneSessionInterval: false });
    await store._ensureSessionStoreTable();
    return {
      store,
      statements,
      ...tableOf(pool, 'session'),
      fill: filler(
        pool,
        `with ${FRESH} insert into session (sid, sess, expire)
         select sid, data, expires_at from fresh order by sid`,
      ),
      prune: () =>
        new Promise((resolve, reject) => {
          store.pruneSessions((error) => (error ? reject(error) : resolve()));
        }),
      async close() {
        await store.close();
        await pool.end();
      },
    };
  },
};
