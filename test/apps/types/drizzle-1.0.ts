// Compiled with Drizzle 1.0, whose types differ from those of 0.45.
import { PGlite } from '@electric-sql/pglite';
import { neon } from '@neondatabase/serverless';
import { DrizzleStore, sessions } from 'connect-drizzle';
import { defineRelations } from 'drizzle-orm';
import { drizzle as drizzleNeonHttp, type NeonHttpDatabase } from 'drizzle-orm/neon-http';
import { drizzle as drizzleNeon, type NeonDatabase } from 'drizzle-orm/neon-serverless';
import { drizzle as drizzleNodePostgres, type NodePgDatabase } from 'drizzle-orm/node-postgres';
import type { PgAsyncDatabase } from 'drizzle-orm/pg-core/async';
import { drizzle as drizzlePgProxy, type PgRemoteDatabase } from 'drizzle-orm/pg-proxy';
import { drizzle as drizzlePglite, type PgliteDatabase } from 'drizzle-orm/pglite';
import { drizzle as drizzlePostgresJs, type PostgresJsDatabase } from 'drizzle-orm/postgres-js';
import { drizzle as drizzleVercel, type VercelPgDatabase } from 'drizzle-orm/vercel-postgres';
import pg from 'pg';

const relations = defineRelations({ sessions });

declare const nodePg: NodePgDatabase;
declare const nodePgWithRelations: NodePgDatabase<typeof relations>;
declare const postgresJs: PostgresJsDatabase;
declare const postgresJsWithRelations: PostgresJsDatabase<typeof relations>;
declare const pglite: PgliteDatabase;
declare const pgliteWithRelations: PgliteDatabase<typeof relations>;
declare const neonDb: NeonDatabase;
declare const neonWithRelations: NeonDatabase<typeof relations>;
declare const vercel: VercelPgDatabase<typeof relations>;
// biome-ignore lint/suspicious/noExplicitAny: apps that support several drivers use this type.
declare const anyPg: PgAsyncDatabase<any, any>;

declare const neonHttp: NeonHttpDatabase<typeof relations>;
declare const proxy: PgRemoteDatabase<typeof relations>;
const neonHttpDatabase = drizzleNeonHttp({ client: neon('postgres://localhost/app') });

export const accepted = [
  new DrizzleStore(nodePg),
  new DrizzleStore(nodePgWithRelations),
  new DrizzleStore(postgresJs),
  new DrizzleStore(postgresJsWithRelations),
  new DrizzleStore(pglite),
  new DrizzleStore(pgliteWithRelations),
  new DrizzleStore(neonDb),
  new DrizzleStore(neonWithRelations),
  new DrizzleStore(vercel),
  new DrizzleStore(anyPg),
  new DrizzleStore(drizzleNodePostgres('postgres://localhost/app', { relations })),
  new DrizzleStore(drizzleNodePostgres({ client: new pg.Pool(), relations })),
  new DrizzleStore(drizzlePostgresJs('postgres://localhost/app', { relations })),
  new DrizzleStore(drizzlePglite({ client: new PGlite(), relations })),
  new DrizzleStore(drizzleNeon('postgres://localhost/app', { relations })),
  new DrizzleStore(drizzleVercel({ relations })),
  new DrizzleStore(neonHttp),
  new DrizzleStore(neonHttpDatabase, { ttl: 60 }),
  new DrizzleStore(proxy),
  new DrizzleStore(
    drizzlePgProxy(async () => ({ rows: [] })),
    { sync: false },
  ),
];

export const refused = [
  // @ts-expect-error HTTP has no connection to listen on
  new DrizzleStore(neonHttp, { sync: true }),
  // @ts-expect-error the same, as `drizzle()` returns it
  new DrizzleStore(neonHttpDatabase, { cache: true }),
  // @ts-expect-error a proxy has no connection to listen on
  new DrizzleStore(proxy, { sync: { heartbeat: 1 } }),
  // @ts-expect-error a proxy has no transactions
  new DrizzleStore(proxy, { createTableIfMissing: true }),
  // @ts-expect-error a single client
  new DrizzleStore(drizzleNodePostgres({ client: new pg.Client() })),
  // @ts-expect-error not a database
  new DrizzleStore(drizzleNodePostgres.mock()),
];

export const refusedInTransactions = () => [
  // @ts-expect-error a transaction
  nodePgWithRelations.transaction(async (tx) => new DrizzleStore(tx)),
  // @ts-expect-error a transaction
  postgresJs.transaction(async (tx) => new DrizzleStore(tx)),
  // @ts-expect-error a transaction
  pglite.transaction(async (tx) => new DrizzleStore(tx)),
];
