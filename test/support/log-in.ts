/**
 * A process that logs one user in many times at once. Arguments: the URL of the database, the user, the number of
 * log-ins, and how many sessions the user may have. It prints `ready`, waits for the advisory lock that the test
 * holds, and exits after all log-ins.
 */
import { randomUUID } from 'node:crypto';
import { DrizzleStore } from 'connect-drizzle';
import type { SessionData } from 'express-session';
import pg from 'pg';
import { logInLock } from './log-in-lock.js';
import { sessionWith } from './sessions.js';

const [url = '', user, logIns, most] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url, max: 10 });
const store = new DrizzleStore(pool, {
  pruneSessionInterval: false,
  userId: (session: SessionData & { user?: string }) => session.user,
  maxSessionsPerUser: Number(most),
});
await store.ready();
console.log('ready');
const gatekeeper = await pool.connect();
await gatekeeper.query('select pg_advisory_lock_shared($1)', [logInLock]);
gatekeeper.release();
await Promise.all(
  Array.from({ length: Number(logIns) }, () => store.set(randomUUID(), sessionWith({ user }))),
);
await store.close();
await pool.end();
