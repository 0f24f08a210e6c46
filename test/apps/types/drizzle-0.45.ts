// Compiled with Drizzle 0.45, whose types differ from those of 1.0.
import { PGlite } from '@electric-sql/pglite';
import { neon } from '@neondatabase/serverless';
import { DrizzleStore, sessions } from 'connect-drizzle';
import { sql } from 'drizzle-orm';
import { drizzle as drizzleNeonHttp, type NeonHttpDatabase } from 'drizzle-orm/neon-http';
import { drizzle as drizzleNeon, type NeonDatabase } from 'drizzle-orm/neon-serverless';
import { drizzle as drizzleNodePostgres, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import { type PgDatabase, type PgTransaction, withReplicas } from 'drizzle-orm/pg-core';
import { drizzle as drizzlePgProxy, type PgRemoteDatabase } from 'drizzle-orm/pg-proxy';
import { drizzle as drizzlePglite, type PgliteDatabase } from 'drizzle-orm/pglite';
import { drizzle as drizzlePostgresJs, type PostgresJsDatabase } from 'drizzle-orm/postgres-js';
import { drizzle as drizzleVercel, type VercelPgDatabase } from 'drizzle-orm/vercel-postgres';
import pg from 'pg';

const schema = { sessions };

declare const nodePg: NodePgDatabase;
declare const nodePgWithSchema: NodePgDatabase<typeof schema>;
declare const postgresJs: PostgresJsDatabase;
declare const postgresJsWithSchema: PostgresJsDatabase<typeof schema>;
declare const pglite: PgliteDatabase;
declare const pgliteWithSchema: PgliteDatabase<typeof schema>;
declare const neonDb: NeonDatabase;
declare const neonWithSchema: NeonDatabase<typeof schema>;
declare const vercel: VercelPgDatabase<typeof schema>;
// biome-ignore lint/suspicious/noExplicitAny: apps that support several drivers use this type.
declare const anyPg: PgDatabase<any, any, any>;

declare const neonHttp: NeonHttpDatabase<typeof schema>;
declare const proxy: PgRemoteDatabase<typeof schema>;
const neonHttpDatabase = drizzleNeonHttp(neon('postgres://localhost/app'));

export const accepted = [
  new DrizzleStore(nodePg),
  new DrizzleStore(nodePgWithSchema),
  new DrizzleStore(postgresJs),
  new DrizzleStore(postgresJsWithSchema),
  new DrizzleStore(pglite),
  new DrizzleStore(pgliteWithSchema),
  new DrizzleStore(neonDb),
  new DrizzleStore(neonWithSchema),
  new DrizzleStore(vercel),
  new DrizzleStore(anyPg),
  new DrizzleStore(drizzleNodePostgres('postgres://localhost/app', { schema })),
  new DrizzleStore(drizzleNodePostgres({ client: new pg.Pool(), schema })),
  new DrizzleStore(drizzlePostgresJs('postgres://localhost/app', { schema })),
  new DrizzleStore(drizzlePglite({ client: new PGlite(), schema })),
  new DrizzleStore(drizzleNeon('postgres://localhost/app', { schema })),
  new DrizzleStore(drizzleVercel({ schema })),
  new DrizzleStore(withReplicas(nodePgWithSchema, [nodePgWithSchema])),
  new DrizzleStore(neonHttp),
  new DrizzleStore(neonHttpDatabase, { ttl: 60 }),
  new DrizzleStore(proxy),
  new DrizzleStore(
    drizzlePgProxy(async () => ({ rows: [] })),
    { sync: false },
  ),
];

// biome-ignore lint/suspicious/noExplicitAny: as above.
declare const transaction: PgTransaction<any, any, any>;

export const refused = [
  // @ts-expect-error HTTP has no connection to listen on
  new DrizzleStore(neonHttp, { sync: true }),
  // @ts-expect-error the same, as `drizzle()` returns it
  new DrizzleStore(neonHttpDatabase, { cache: true }),
  // @ts-expect-error a proxy has no connection to listen on
  new DrizzleStore(proxy, { sync: { heartbeat: 1 } }),
  // @ts-expect-error a proxy has no transactions
  new DrizzleStore(proxy, { createTableIfMissing: true }),
  // @ts-expect-error a transaction
  new DrizzleStore(transaction),
  // @ts-expect-error a single client
  new DrizzleStore(drizzleNodePostgres({ client: new pg.Client() })),
  // @ts-expect-error not a database
  new DrizzleStore(drizzleNodePostgres.mock()),
];

export const refusedInTransactions = () => [
  // @ts-expect-error a transaction
  nodePgWithSchema.transaction(async (tx) => new DrizzleStore(tx)),
  // @ts-expect-error a transaction
  postgresJs.transaction(async (tx) => new DrizzleStore(tx)),
  // @ts-expect-error a transaction
  pglite.transaction(async (tx) => new DrizzleStore(tx)),
  // The database itself still has its own types.
  nodePgWithSchema.execute<{ one: number }>(sql`select 1 as one`).then(({ rows }) => rows[0]?.one),
];
