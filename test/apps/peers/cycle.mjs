// Uses a store on one driver: node cycle.mjs DRIVER DATABASE_URL
// NEON_WEBSOCKET (host and port) and NEON_HTTP (a URL) are the addresses of Neon.
import { DrizzleStore } from 'connect-drizzle';

/** Drivers without connections. They cannot create the table or listen. */
const connectionless = ['neon-http', 'pg-proxy'];

const drivers = {
  async pg(url) {
    const { default: pg } = await import('pg');
    const { drizzle } = await import('drizzle-orm/node-postgres');
    const pool = new pg.Pool({ connectionString: url });
    return { db: drizzle({ client: pool }), end: () => pool.end() };
  },
  async postgres(url) {
    const { default: postgres } = await import('postgres');
    const { drizzle } = await import('drizzle-orm/postgres-js');
    const sql = postgres(url, { onnotice() {} });
    return { db: drizzle({ client: sql }), end: () => sql.end() };
  },
  async pglite() {
    const { PGlite } = await import('@electric-sql/pglite');
    const { drizzle } = await import('drizzle-orm/pglite');
    const client = new PGlite();
    return { db: drizzle({ client }), end: () => client.close() };
  },
  async 'bun-sql'(url) {
    const { SQL } = await import('bun');
    const { drizzle } = await import('drizzle-orm/bun-sql');
    const sql = new SQL(url);
    return { db: drizzle({ client: sql }), end: () => sql.close() };
  },
  async 'an SQL of Bun'(url) {
    const { SQL } = await import('bun');
    const sql = new SQL(url);
    return { db: sql, end: () => sql.close() };
  },
  async 'neon-serverless'(url) {
    const { Pool, neonConfig } = await import('@neondatabase/serverless');
    const { drizzle } = await import('drizzle-orm/neon-serverless');
    neonConfig.wsProxy = () => process.env.NEON_WEBSOCKET;
    neonConfig.useSecureWebSocket = false;
    neonConfig.pipelineConnect = false;
    neonConfig.webSocketConstructor = globalThis.WebSocket ?? (await import('ws')).WebSocket;
    const pool = new Pool({ connectionString: url });
    return { db: drizzle({ client: pool }), end: () => pool.end() };
  },
  async 'neon-http'(url) {
    const { neon, neonConfig } = await import('@neondatabase/serverless');
    const { drizzle } = await import('drizzle-orm/neon-http');
    neonConfig.fetchEndpoint = process.env.NEON_HTTP;
    return { db: drizzle({ client: neon(url) }), async end() {} };
  },
  async 'pg-proxy'(url) {
    const { default: pg } = await import('pg');
    const { drizzle } = await import('drizzle-orm/pg-proxy');
    const pool = new pg.Pool({ connectionString: url });
    const run = async (text, values, method) => {
      const { rows } = await pool.query({ text, values, rowMode: method === 'all' ? 'array' : '' });
      return { rows };
    };
    return { db: drizzle(run), end: () => pool.end() };
  },
};

const [driver, url] = process.argv.slice(2);
const { db, end } = await drivers[driver](url);
const isConnected = !connectionless.includes(driver);
const tableName = `of ${driver}`;
const store = new DrizzleStore(db, {
  tableName,
  sync: isConnected,
  userId: (session) => session.user,
});
const session = (seconds, data) => ({
  cookie: { originalMaxAge: seconds * 1000, expires: new Date(Date.now() + seconds * 1000) },
  user: 'ada',
  ...data,
});

const creator = isConnected ? store : new DrizzleStore(url, { tableName });
await creator.migrate();
if (!isConnected) await creator.close();
await store.ready();
await Promise.all(
  Array.from({ length: 20 }, (_, at) => store.set(`sid ${at}`, session(60, { at }))),
);
const [one, other] = [await store.get('sid 3'), await store.get('sid 3')];
await store.set('sid 3', Object.assign(one, { one: 1 }));
await store.set('sid 3', Object.assign(other, { other: 2 }));
const merged = await store.get('sid 3');
await store.touch('sid 4', session(7200, { at: 4 }));
const { expires } = (await store.get('sid 4')).cookie;
await store.update('sid 5', (stored) => {
  stored.at = 55;
});
await Promise.all(['sid 6', 'sid 7'].map((sid) => store.destroy(sid)));
await store.set('expired', session(-60, {}));
const listed = [];
for await (const { id } of store.sessions({ userId: 'ada' })) listed.push(id);
console.log(
  JSON.stringify({
    merged: [merged.at, merged.one, merged.other],
    isTouched: new Date(expires).getTime() > Date.now() + 3_600_000,
    updated: (await store.get('sid 5')).at,
    destroyed: (await store.get('sid 6')) === undefined,
    listed: listed.length,
    pruned: await store.pruneSessions(),
    revoked: await store.revokeUser('ada', { except: 'sid 1' }),
    left: await store.length(),
  }),
);
await store.close();
await end();
