import { createRequire } from 'node:module';
import * as neon from '@neondatabase/serverless';
import { WebSocket } from 'ws';
import { startWebSocketProxy } from './websocket-proxy.js';

type NeonModule = Pick<typeof neon, 'neonConfig'>;

/** Makes Neon's driver connect to a local database, through a WebSocket without TLS and with SCRAM. */
async function connectThrough({ neonConfig }: NeonModule, databaseUrl: string) {
  const proxy = await startWebSocketProxy(databaseUrl);
  neonConfig.webSocketConstructor = WebSocket;
  neonConfig.wsProxy = () => proxy.address;
  neonConfig.useSecureWebSocket = false;
  neonConfig.pipelineConnect = false;
  return proxy;
}

/** Neon's pool on a local database. */
export async function neonPool(databaseUrl: string) {
  const proxy = await connectThrough(neon, databaseUrl);
  const pool = new neon.Pool({ connectionString: databaseUrl });
  // The server may end what the pool is just ending.
  pool.on('error', () => {});
  return {
    pool,
    proxy,
    close: async () => {
      await pool.end();
      await proxy.close();
    },
  };
}

/** Vercel's `sql` and `createPool()` on a local database. They use another version of Neon's driver. */
export async function vercelPostgres(databaseUrl: string) {
  const require = createRequire(import.meta.url);
  // `sql` keeps the pool of its first use, so the module is loaded anew for each database.
  for (const path of Object.keys(require.cache)) {
    if (path.includes('/@vercel/postgres/dist/')) delete require.cache[path];
  }
  const vercel: typeof import('@vercel/postgres') = require('@vercel/postgres');
  const ownRequire = createRequire(require.resolve('@vercel/postgres'));
  const proxy = await connectThrough(ownRequire('@neondatabase/serverless'), databaseUrl);
  // It accepts a local host only under this name.
  const connectionString = databaseUrl.replace('127.0.0.1', 'localhost');
  process.env.POSTGRES_URL = connectionString;
  return { vercel, connectionString, proxy };
}
