import { drizzle } from 'drizzle-orm/node-postgres';
import { json, pgTable, timestamp, varchar } from 'drizzle-orm/pg-core';
import drizzleSessionStore from 'drizzle-session-store';
import { FRESH, filler, openPool, tableOf } from './postgres.js';

/** As in the package's own example, but with the primary key that a `get` needs. */
const table = pgTable('drizzle_sessions', {
  sid: varchar('sid').primaryKey(),
  session: json('session'),
  expires: timestamp('date'),
});

/** @type {import('./index.js').Contender} */
export default {
  server: 'postgres',
  packages: ['drizzle-session-store', 'drizzle-orm', 'pg'],
  async open(context) {
    const { pool, statements } = openPool(context);
    await pool.query(
      'create table drizzle_sessions (sid varchar primary key, session json, date timestamp)',
    );
    return {
      store: new drizzleSessionStore.DrizzleSessionStore(drizzle({ client: pool }), table),
      statements,
      ...tableOf(pool, 'drizzle_sessions'),
      fill: filler(
        pool,
        `with ${FRESH} insert into drizzle_sessions (sid, session, date)
         select sid, data, expires_at from fresh order by sid`,
      ),
      close: () => pool.end(),
    };
  },
};
