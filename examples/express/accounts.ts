import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';
import { sql } from 'drizzle-orm';
import { type PgDatabase, type PgQueryResultHKT, pgTable, serial, text } from 'drizzle-orm/pg-core';

/** The app's own table, in the same database as the sessions. A name is taken in any case. */
const accounts = pgTable('example_accounts', {
  id: serial('id').primaryKey(),
  name: text('name').notNull(),
  password: text('password').notNull(),
});

export interface Account {
  id: number;
  name: string;
}

/** Two people to try the page with. The log-in page shows their passwords. */
export const demoAccounts = [
  { name: 'Ada', password: 'difference-engine' },
  { name: 'Grace', password: 'nanosecond-wire' },
] as const;

export const nameRule = /^[\p{L}\p{N}._-]{2,30}$/u;
export const passwordLength = { min: 8, max: 200 };

export class Accounts {
  readonly #db: PgDatabase<PgQueryResultHKT>;

  constructor(db: PgDatabase<PgQueryResultHKT>) {
    this.#db = db;
  }

  /** Makes the table and the demo accounts where they are missing. */
  async prepare(): Promise<void> {
    // Two servers that start at once take turns: CREATE TABLE IF NOT EXISTS alone can collide.
    await this.#db.transaction(async (tx) => {
      await tx.execute(sql`select pg_advisory_xact_lock(hashtext('example_accounts'))`);
      await tx.execute(sql`
        create table if not exists example_accounts (
          id serial primary key, name text not null, password text not null)`);
      await tx.execute(sql`
        create unique index if not exists example_accounts_name
          on example_accounts (lower(name))`);
    });
    for (const { name, password } of demoAccounts) await this.create(name, password);
  }

  /** A new account, or undefined where the name is taken. */
  async create(name: string, password: string): Promise<Account | undefined> {
    const [account] = await this.#db
      .insert(accounts)
      .values({ name, password: await hash(password) })
      .onConflictDoNothing()
      .returning({ id: accounts.id, name: accounts.name });
    return account;
  }

  /** The account that has this name and this password, or undefined. */
  async find(name: string, password: string): Promise<Account | undefined> {
    const [account] = await this.#db
      .select()
      .from(accounts)
      .where(sql`lower(${accounts.name}) = lower(${name})`);
    // An unknown name costs as much time as a wrong password, so the time taken tells nobody
    // which names exist.
    const matches = await verify(password, account?.password ?? nobody);
    return account && matches ? { id: account.id, name: account.name } : undefined;
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

/** What no password has as its hash. */
const nobody = `${randomBytes(16).toString('base64url')}.${randomBytes(32).toString('base64url')}`;
