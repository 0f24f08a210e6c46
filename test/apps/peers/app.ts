// Compiled with the lowest version of each peer.
import { DrizzleStore, sessions } from 'connect-drizzle';
import type { NodePgDatabase } from 'drizzle-orm/node-postgres';
import type { PgDatabase, PgTransaction } from 'drizzle-orm/pg-core';
import type { PgliteDatabase } from 'drizzle-orm/pglite';
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js';
import session from 'express-session';
import { Client, Pool } from 'pg';

const schema = { sessions };
declare const nodePg: NodePgDatabase<typeof schema>;
declare const postgresJs: PostgresJsDatabase<typeof schema>;
declare const pglite: PgliteDatabase<typeof schema>;
// biome-ignore lint/suspicious/noExplicitAny: apps that support several drivers use this type.
declare const anyPg: PgDatabase<any, any, any>;
// biome-ignore lint/suspicious/noExplicitAny: as above.
declare const transaction: PgTransaction<any, any, any>;

export const stores = [nodePg, postgresJs, pglite, anyPg].map((db) => new DrizzleStore(db));
export const onPool = new DrizzleStore(new Pool());
export const middleware = session({ store: onPool, secret: 'a secret' });

export const refused = [
  // @ts-expect-error a transaction
  new DrizzleStore(transaction),
  // @ts-expect-error a single client
  new DrizzleStore(new Client()),
];
