// What a store does, on one driver: node cycle.mjs DRIVER DATABASE_URL
import { DrizzleStore } from 'connect-drizzle';

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
};

const [driver, url] = process.argv.slice(2);
const { db, end } = await drivers[driver](url);
const store = new DrizzleStore(db, {
  tableName: `of_${driver}`,
  sync: true,
  userId: (session) => session.user,
});
const session = (seconds, data) => ({
  cookie: { originalMaxAge: seconds * 1000, expires: new Date(Date.now() + seconds * 1000) },
  user: 'ada',
  ...data,
});

await store.migrate();
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
const listed = [];
for await (const { id } of store.sessions({ userId: 'ada' })) listed.push(id);
console.log(
  JSON.stringify({
    merged: [merged.at, merged.one, merged.other],
    isTouched: new Date(expires).getTime() > Date.now() + 3_600_000,
    updated: (await store.get('sid 5')).at,
    destroyed: (await store.get('sid 6')) === undefined,
    listed: listed.length,
    revoked: await store.revokeUser('ada', { except: 'sid 1' }),
    left: await store.length(),
  }),
);
await store.close();
await end();
