/**
 * Serves many requests with one store. After each tenth of them, collects garbage and prints the size of the heap in
 * bytes.
 *
 * @module
 */
import { randomUUID } from 'node:crypto';
import { DrizzleStore } from 'connect-drizzle';
import pg from 'pg';
import { ending, generated, loaded } from './requests.js';

const total = Number(process.argv[2]);
const atOnce = 256;
const sessions = Array.from({ length: 512 }, () => randomUUID());
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 4 });
const store = new DrizzleStore(pool, { pruneSessionInterval: false });

for (const sid of sessions) await store.set(sid, generated(store, sid));

let served = 0;

/** Loads a session and touches it, or three times out of four saves it, sometimes with a merge. */
async function serve(): Promise<void> {
  const number = served;
  served += 1;
  const sid = sessions[number % sessions.length] ?? '';
  const session = await loaded(store, sid);
  if (number % 4 === 0) {
    await store.touch(sid, ending(session));
    return;
  }
  session[`key${number % 8}`] = number;
  if (number % 16 === 1)
    await store.update(sid, (other) => void Reflect.set(other, 'other', number));
  await store.set(sid, ending(session));
}

for (let tenth = 1; tenth <= 10; tenth += 1) {
  const until = (total * tenth) / 10;
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (served < until) await serve();
    }),
  );
  // Finalizers run between two collections.
  for (let round = 0; round < 3; round += 1) {
    globalThis.gc?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
  console.log(process.memoryUsage().heapUsed);
}
console.log(JSON.stringify(store.stats()));
await store.close();
await pool.end();
