// Tests what is special about a store on an SQL of Bun: bun bun-sql.mjs DATABASE_URL
import { once } from 'node:events';
import { SQL } from 'bun';
import { DrizzleStore } from 'connect-drizzle';

const [url] = process.argv.slice(2);
const sql = new SQL(url, { max: 6 });
const session = (n) => {
  const expires = new Date(Date.now() + 600_000);
  return { cookie: { originalMaxAge: 600_000, expires }, n };
};

/** The reason why the constructor refuses a source. */
function refusal(source) {
  try {
    new DrizzleStore(source);
    return 'accepted';
  } catch ({ message }) {
    return message.replace(/^.* but got /, '');
  }
}

const refused = [
  refusal(new SQL(url, { max: 1 })),
  refusal(new SQL('sqlite://:memory:')),
  refusal(new SQL('mysql://localhost/app')),
  await sql.begin(async (transaction) => refusal(transaction)),
];
const reserved = await sql.reserve();
refused.push(refusal(reserved));
await reserved.release();

// One store listens through the app's pool, the other through a URL.
const store = new DrizzleStore(sql, { sync: true, errorLog() {} });
const direct = new DrizzleStore(sql, { sync: { connectionString: url }, errorLog() {} });
await store.migrate();
for (const each of [store, direct]) {
  while (each.stats().sync !== 'up') await once(each, 'sync');
}
const other = new DrizzleStore(url);
const silent = new DrizzleStore(url, { sync: true });
await store.set('sid', session(1));
await store.set('ended', session(2));
const heard = Promise.all([store, direct].map((each) => once(each, 'destroy')));
await silent.destroy('ended');
const events = (await heard).map(([{ local }]) => local);

// A statement that waits for a lock is given up and never runs.
const holder = await sql.reserve();
await holder`begin`;
await holder`lock table sessions in access exclusive mode`;
const impatient = new DrizzleStore(sql, { timeout: 1, errorLog() {} });
const { code: late } = await impatient.set('late', session(3)).catch((error) => error);
await holder`commit`;
await holder.release();

// The cause has the SQLSTATE of the server's error.
await sql`alter table sessions add check (data->>'n' is null or data->>'n' <> '4')`;
const { cause } = await store.set('refused', session(4)).catch((error) => error);

// All connections end. Bun listens again by itself; the store must nevertheless notice the loss.
const lost = once(store, 'sync');
await sql`select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()`;
let kept;
while (kept === undefined) kept = await store.get('sid').catch(() => undefined);
const [state] = await lost;
while (store.stats().sync !== 'up') await once(store, 'sync');

console.log(
  JSON.stringify({
    refused,
    events,
    late,
    isLateThere: (await other.get('late')) !== undefined,
    cause: cause.code,
    kept: kept.n,
    state,
  }),
);
for (const each of [store, direct, other, silent, impatient]) await each.close();
await sql.close();
