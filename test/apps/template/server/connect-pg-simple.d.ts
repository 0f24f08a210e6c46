declare module 'connect-pg-simple' {
  import type session from 'express-session';
  import type { Pool } from 'pg';

  interface Options {
    pool: Pool;
    tableName: string;
    createTableIfMissing: boolean;
    ttl: number;
  }

  export default function connectPgSimple(
    library: typeof session,
  ): new (
    options: Options,
  ) => session.Store;
}
