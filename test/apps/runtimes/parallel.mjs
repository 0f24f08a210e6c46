// Two workers with a store each, threads or processes of a cluster: node parallel.mjs KIND DATABASE_URL
import cluster from 'node:cluster';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { isMainThread, Worker } from 'node:worker_threads';
import { DrizzleStore } from 'connect-drizzle';

const [kind, url] = process.argv.slice(2);
const store = new DrizzleStore(url, { sync: true });

function startWorker() {
  const program = fileURLToPath(import.meta.url);
  return kind === 'threads' ? new Worker(program, { argv: [kind, url] }) : cluster.fork();
}

if (isMainThread && cluster.isPrimary) {
  await store.migrate();
  const expires = new Date(Date.now() + 60_000);
  await store.set('sid', { cookie: { originalMaxAge: 60_000, expires }, count: 0 });
  const workers = [startWorker(), startWorker()];
  const exits = await Promise.all(workers.map((worker) => once(worker, 'exit')));
  const { count } = await store.get('sid');
  console.log(JSON.stringify({ codes: exits.map(([code]) => code), count }));
} else {
  for (let n = 0; n < 20; n += 1) {
    await store.update('sid', (session) => {
      session.count += 1;
    });
  }
}
await store.close();
// The channel to the primary process would keep a worker alive.
cluster.worker?.disconnect();
