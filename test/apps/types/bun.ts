// Compiled with Bun's types.
import { SQL, sql } from 'bun';
import { DrizzleStore } from 'connect-drizzle';
import { drizzle } from 'drizzle-orm/bun-sql';

const database = drizzle({ client: sql });

export const accepted = [
  new DrizzleStore(sql),
  new DrizzleStore(new SQL('postgres://localhost/app'), { sync: true }),
  new DrizzleStore(database, { cache: true }),
  new DrizzleStore(drizzle('postgres://localhost/app')),
];

export const refused = async () => {
  const reserved = await sql.reserve();
  return [
    // @ts-expect-error a reserved connection
    new DrizzleStore(reserved),
    // @ts-expect-error a transaction
    sql.begin(async (transaction) => new DrizzleStore(transaction)),
    // @ts-expect-error a transaction
    database.transaction(async (transaction) => new DrizzleStore(transaction)),
  ];
};
