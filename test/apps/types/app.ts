// Compiled with each version of Drizzle and TypeScript.
import { PGlite } from '@electric-sql/pglite';
import { Client as NeonClient, Pool as NeonPool, neon } from '@neondatabase/serverless';
import { createClient, createPool, sql as vercelSql } from '@vercel/postgres';
import { DrizzleStore, type DrizzleStoreOptions, type Source } from 'connect-drizzle';
import { drizzle as drizzleSqlite } from 'drizzle-orm/sqlite-proxy';
import express from 'express';
import session from 'express-session';
import pg from 'pg';
import postgres from 'postgres';

declare module 'express-session' {
  interface SessionData {
    views: number;
    /** Set by Passport at log-in: what `serializeUser` returned. */
    passport?: { user?: string };
  }
}

const options: DrizzleStoreOptions = {
  userId: ({ passport }) => passport?.user,
  ttl: (data) => data.views * 60,
};

export function middleware(source: Source) {
  const store = new DrizzleStore(source, options);
  store.on('destroy', ({ id, local }) => console.log(id.length, local === true));
  return express().use(
    session({ store, secret: 'a secret', resave: false, saveUninitialized: false }),
    async (request, response) => {
      const user: string | undefined = request.session.passport?.user;
      if (user !== undefined) {
        const ended: number = await store.revokeUser(user, { except: request.sessionID });
        response.json({ ended });
      }
      for await (const { data } of store.sessions({ limit: 1 })) {
        const views: number = data.views;
        console.log(views);
      }
    },
  );
}

const sqlOfPostgresJs = postgres('postgres://localhost/app');

export const accepted = [
  new DrizzleStore(),
  new DrizzleStore('memory://'),
  new DrizzleStore('postgres://localhost/app', options),
  new DrizzleStore(new pg.Pool()),
  new DrizzleStore(new NeonPool()),
  new DrizzleStore(createPool()),
  new DrizzleStore(vercelSql),
  new DrizzleStore(sqlOfPostgresJs),
  new DrizzleStore(new PGlite()),
  new DrizzleStore(neon('postgres://localhost/app')),
  new DrizzleStore(neon('postgres://localhost/app'), { ttl: 60, sync: false }),
];

declare const poolClient: pg.PoolClient;
declare const reserved: postgres.ReservedSql;

export const refused = [
  // @ts-expect-error an unset variable
  new DrizzleStore(undefined),
  // @ts-expect-error a variable that may be unset
  new DrizzleStore(process.env.DATABASE_URL),
  // @ts-expect-error nothing
  new DrizzleStore(null),
  // @ts-expect-error a number
  new DrizzleStore(5432),
  // @ts-expect-error options alone
  new DrizzleStore({ ttl: 60 }),
  // @ts-expect-error the options of connect-pg-simple
  new DrizzleStore({ pool: new pg.Pool() }),
  // @ts-expect-error the options of connect-pg-simple with a URL
  new DrizzleStore({ conString: 'postgres://localhost/app' }),
  // @ts-expect-error a single client
  new DrizzleStore(new pg.Client()),
  // @ts-expect-error a client that was checked out
  new DrizzleStore(poolClient),
  // @ts-expect-error a single client of Neon
  new DrizzleStore(new NeonClient()),
  // @ts-expect-error a single client of Vercel
  new DrizzleStore(createClient()),
  // @ts-expect-error HTTP has no connection to listen on
  new DrizzleStore(neon('postgres://localhost/app'), { sync: true }),
  // @ts-expect-error a reserved connection
  new DrizzleStore(reserved),
  // @ts-expect-error another dialect
  new DrizzleStore(drizzleSqlite(async () => ({ rows: [] }))),
  // @ts-expect-error express-session itself, as for a factory
  new DrizzleStore(session),
];

export const refusedInTransactions = () => [
  // @ts-expect-error a transaction
  sqlOfPostgresJs.begin((tx) => [new DrizzleStore(tx)]),
  // @ts-expect-error a transaction
  new PGlite().transaction(async (tx) => new DrizzleStore(tx)),
];
