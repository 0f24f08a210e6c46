import { eq, sql } from 'drizzle-orm';
import { json, pgTable, text } from 'drizzle-orm/pg-core';
import { type SessionData, Store } from 'express-session';
import { createTables, type Db } from './database.js';

const plainSessions = pgTable('example_plain_sessions', {
  sid: text('sid').primaryKey(),
  data: json('data').$type<SessionData>().notNull(),
});

/**
 * The plain store on the page "Two requests at once".
 *
 * It is as simple as possible: `set` writes the session that it gets and `destroy` deletes the row, as
 * in express-session's MemoryStore and connect-pg-simple. So the last write wins. It has no expiry,
 * pruning or `touch`, because the comparison does not need them.
 */
export class PlainStore extends Store {
  readonly #db: Db;

  constructor(db: Db) {
    super();
    this.#db = db;
  }

  /** Creates the table if it is missing. */
  async prepare(): Promise<void> {
    await createTables(this.#db, [
      sql`
        create table if not exists example_plain_sessions (
          sid text primary key, data json not null)`,
    ]);
  }

  override get(sid: string, callback: (error: unknown, data?: SessionData) => void): void {
    this.#db
      .select({ data: plainSessions.data })
      .from(plainSessions)
      .where(eq(plainSessions.sid, sid))
      .then(([row]) => callback(null, row?.data), callback);
  }

  override set(sid: string, data: SessionData, callback: (error?: unknown) => void = ignore): void {
    this.#db
      .insert(plainSessions)
      .values({ sid, data })
      .onConflictDoUpdate({ target: plainSessions.sid, set: { data } })
      .then(() => callback(), callback);
  }

  override destroy(sid: string, callback: (error?: unknown) => void = ignore): void {
    this.#db
      .delete(plainSessions)
      .where(eq(plainSessions.sid, sid))
      .then(() => callback(), callback);
  }
}

function ignore(): void {}
