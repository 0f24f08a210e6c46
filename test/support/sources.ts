import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PGlite } from '@electric-sql/pglite';
import { DrizzleStore, type Source } from 'connect-drizzle';
import { drizzle as drizzleNeon } from 'drizzle-orm/neon-serverless';
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres';
import { drizzle as drizzlePglite } from 'drizzle-orm/pglite';
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js';
import postgres from 'postgres';
import { freshDatabase } from './database.js';
import { eventually } from './eventually.js';
import { neonPool } from './neon.js';
import { freshPglite } from './pglite.js';

/** An open source with a store. */
export interface OpenSource {
  /** Shared by many tests, which clear it. */
  readonly store: DrizzleStore;
  close(): Promise<void>;
}

/** All kinds of sources that a store accepts. */
export const sources: Record<string, () => Promise<OpenSource>> = {
  'a pg.Pool': () => onServer(({ pool }) => pool()),
  'a URL': () => onServer(({ url }) => url),
  'Drizzle on node-postgres': () =>
    onServer(({ pool }) => drizzleNodePostgres({ client: pool(), logger: false })),
  'Drizzle on Neon': () =>
    onServer(async ({ url }, ends) => {
      const { pool, close } = await neonPool(url);
      ends.push(close);
      return drizzleNeon({ client: pool });
    }),
  'Drizzle on postgres-js': () =>
    onServer(({ url }, ends) => drizzlePostgresJs({ client: postgresJs(url, ends) })),
  'a postgres-js sql': () => onServer(({ url }, ends) => postgresJs(url, ends)),
  'a PGlite': () => onPglite((client) => client),
  'Drizzle on PGlite': () => onPglite((client) => drizzlePglite({ client })),
  'a folder': async () => {
    const folder = await mkdtemp(join(tmpdir(), 'connect-drizzle-folder-'));
    return on(join(folder, 'sessions'), () => rm(folder, { recursive: true, force: true }));
  },
  memory: async () => on('memory://', async () => {}),
};

type End = () => Promise<unknown>;
type Database = Awaited<ReturnType<typeof freshDatabase>>;

async function onServer(
  make: (database: Database, ends: End[]) => Source | Promise<Source>,
): Promise<OpenSource> {
  const database = await freshDatabase();
  const ends: End[] = [];
  return on(await make(database, ends), async () => {
    for (const end of ends) await end();
    await database.drop();
  });
}

function postgresJs(url: string, ends: End[]): postgres.Sql {
  const sql = postgres(url, { onnotice: () => {} });
  ends.push(() => sql.end());
  return sql;
}

async function onPglite(make: (client: PGlite) => Source): Promise<OpenSource> {
  const client = await freshPglite();
  return on(make(client), () => client.close());
}

async function on(source: Source, end: End): Promise<OpenSource> {
  const store = new DrizzleStore(source, { createTableIfMissing: true });
  // PGlite takes seconds to start, and longer on a busy machine.
  await eventually(() => store.ready());
  return {
    store,
    async close() {
      await store.close();
      await end();
    },
  };
}
