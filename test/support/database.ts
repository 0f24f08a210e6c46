import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';

/** An empty database of its own, on the server that all test files share. */
export interface TestDatabase {
  readonly name: string;
  readonly url: string;
  /** The server's major version, 14 and up. */
  readonly serverVersion: number;
  /** Creates a pool, which `drop` ends. Errors of idle connections are ignored, because `drop` and tests cause them. */
  pool(config?: pg.PoolConfig): pg.Pool;
  /** Runs a query on a pool of its own and returns the rows. */
  query<Row extends pg.QueryResultRow = pg.QueryResultRow>(
    text: string,
    values?: unknown[],
  ): Promise<Row[]>;
  /** Ends all pools created here and drops the database, even if there are connections to it. */
  drop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface DatabaseOptions {
  /** Uses ICU's collation for English (from Postgres 15 on). */
  icu?: boolean;
  /** The encoding, for `create database`; the collation is then C. */
  encoding?: string;
  /** Settings of the database, such as `{ default_transaction_isolation: 'repeatable read' }`. */
  settings?: Record<string, string>;
}

export async function freshDatabase(options: DatabaseOptions = {}): Promise<TestDatabase> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  const serverUrl = inject('postgresUrl');
  const serverVersion = await asAdmin(serverUrl, async (admin) => {
    const { rows } = await admin.query<{ version: number }>(
      `select current_setting('server_version_num')::int / 10000 as version`,
    );
    const version = rows[0]?.version ?? 0;
    const collation =
      options.icu && version >= 15 ? ` template template0 locale_provider icu icu_locale 'en'` : '';
    const encoding =
      options.encoding === undefined
        ? ''
        : ` template template0 encoding '${options.encoding}' locale 'C'`;
    await admin.query(`create database ${name}${collation}${encoding}`);
    for (const [setting, value] of Object.entries(options.settings ?? {})) {
      await admin.query(
        `alter database ${name} set ${admin.escapeIdentifier(setting)} to ${admin.escapeLiteral(value)}`,
      );
    }
    return version;
  });

  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const pools: pg.Pool[] = [];
  const pool = (config: pg.PoolConfig = {}) => {
    const made = new pg.Pool({ connectionString: url.href, max: 10, ...config });
    made.on('error', () => {});
    pools.push(made);
    return made;
  };
  let own: pg.Pool | undefined;
  const drop = async () => {
    await asAdmin(serverUrl, (admin) =>
      admin.query(`drop database if exists ${name} with (force)`),
    );
    await Promise.all(pools.splice(0).map((each) => (each.ending ? undefined : each.end())));
  };
  return {
    name,
    url: url.href,
    serverVersion,
    pool,
    async query(text, values) {
      own ??= pool({ max: 2 });
      return (await own.query(text, values)).rows;
    },
    drop,
    [Symbol.asyncDispose]: drop,
  };
}

/** Runs `use` on an empty database, which it drops afterwards. */
export async function withDatabase<Result>(
  use: (database: TestDatabase) => Promise<Result>,
  options?: DatabaseOptions,
): Promise<Result> {
  const database = await freshDatabase(options);
  try {
    return await use(database);
  } finally {
    await database.drop();
  }
}

async function asAdmin<Result>(
  url: string,
  use: (admin: pg.Client) => Promise<Result>,
): Promise<Result> {
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  try {
    return await use(admin);
  } finally {
    await admin.end();
  }
}
