import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';
import { eq, sql } from 'drizzle-orm';
import { boolean, pgTable, serial, text } from 'drizzle-orm/pg-core';
import { createTables, type Db } from './database.js';

/** The app's own table, in the same database as the sessions. Names are not case-sensitive. */
const accounts = pgTable('example_accounts', {
  id: serial('id').primaryKey(),
  name: text('name').notNull(),
  password: text('password').notNull(),
  isAdmin: boolean('is_admin').notNull().default(false),
});

export interface Account {
  id: number;
  name: string;
  /** The value at log-in, for the links on a page. To allow an action, the server calls `Accounts.isAdmin`. */
  isAdmin: boolean;
}

/** Accounts to try the app. The log-in page shows their passwords. */
export const demoAccounts = [
  { name: 'Ada', password: 'difference-engine', isAdmin: false },
  { name: 'Grace', password: 'nanosecond-wire', isAdmin: false },
  { name: 'admin', password: 'all-sessions', isAdmin: true },
] as const;

export const nameRule = /^[\p{L}\p{N}._-]{2,30}$/u;
export const passwordLength = { min: 8, max: 200 };

const account = { id: accounts.id, name: accounts.name, isAdmin: accounts.isAdmin };

export class Accounts {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Creates the table and the demo accounts if they are missing. */
  async prepare(): Promise<void> {
    await createTables(this.#db, [
      sql`
        create table if not exists example_accounts (
          id serial primary key, name text not null, password text not null)`,
      // Older versions of this example created the table without this column.
      sql`
        alter table example_accounts
          add column if not exists is_admin boolean not null default false`,
      sql`
        create unique index if not exists example_accounts_name
          on example_accounts (lower(name))`,
    ]);
    for (const { name, password, isAdmin } of demoAccounts) {
      await this.create(name, password, isAdmin);
    }
  }

  /** Creates an account. Returns undefined if the name is taken. */
  async create(name: string, password: string, isAdmin = false): Promise<Account | undefined> {
    const [created] = await this.#db
      .insert(accounts)
      .values({ name, password: await hash(password), isAdmin })
      .onConflictDoNothing()
      .returning(account);
    return created;
  }

  /** Returns the account with this name and this password, or undefined. */
  async find(name: string, password: string): Promise<Account | undefined> {
    const [found] = await this.#db
      .select({ ...account, password: accounts.password })
      .from(accounts)
      .where(sql`lower(${accounts.name}) = lower(${name})`);
    // An unknown name takes as long as a wrong password, so that the time does not reveal which
    // names exist.
    const matches = await verify(password, found?.password ?? nobody);
    if (!found || !matches) return undefined;
    return { id: found.id, name: found.name, isAdmin: found.isAdmin };
  }

  /** Whether the account is an admin's now. This may have changed since log-in. */
  async isAdmin(id: number): Promise<boolean> {
    const [found] = await this.#db
      .select({ isAdmin: accounts.isAdmin })
      .from(accounts)
      .where(eq(accounts.id, id));
    return found?.isAdmin ?? false;
  }
}

const cost: ScryptOptions = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 };

async function hash(password: string): Promise<string> {
  const salt = randomBytes(16);
  const key = await derive(password, salt);
  return `${salt.toString('base64url')}.${key.toString('base64url')}`;
}

async function verify(password: string, stored: string): Promise<boolean> {
  const [salt = '', key = ''] = stored.split('.');
  const expected = Buffer.from(key, 'base64url');
  const actual = await derive(password, Buffer.from(salt, 'base64url'));
  return expected.length === actual.length && timingSafeEqual(expected, actual);
}

function derive(password: string, salt: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password.normalize('NFKC'), salt, 32, cost, (error, key) =>
      error ? reject(error) : resolve(key),
    );
  });
}

/** A hash that matches no password. */
const nobody = `${randomBytes(16).toString('base64url')}.${randomBytes(32).toString('base64url')}`;
