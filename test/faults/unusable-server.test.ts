import { chown, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DrizzleStore, type Source } from 'connect-drizzle';
import pg from 'pg';
import postgres from 'postgres';
import { describe, expect, test } from 'vitest';
import { database, ends, networkSources, useDatabase } from '../support/fault-database.js';
import { until } from '../support/obstacles.js';
import { startPostgres } from '../support/postgres.js';
import { up } from '../support/realtime.js';
import { contentOf, sessionWith } from '../support/sessions.js';
import { causeCode } from '../support/statements.js';

useDatabase();

const clients = networkSources();

function storeOn(source: Source, sync = false): DrizzleStore {
  const store = new DrizzleStore(source, {
    pruneSessionInterval: false,
    touchAfter: 0,
    errorLog: () => {},
    sync,
  });
  ends.push(() => store.close());
  return store;
}

describe.each(clients)('a connection of %s whose server cannot be used', (_, source) => {
  test.each(['25006', '57P01', '57P02', '57P03'])(
    'is closed when the server refuses a call or a batch with %s',
    async (code) => {
      await database.store();
      // Connections in this table count as connections to the old server. New ones do not.
      await database.query(`
        create table old_server as select pid from pg_stat_activity where false;
        create function refuse() returns trigger language plpgsql as $$ begin
          if exists (select from old_server where pid = pg_backend_pid()) then
            raise exception using errcode = '${code}', message = 'refused';
          end if;
          return null;
        end $$;
        create trigger refuse before insert or update or delete on sessions
          for each statement execute function refuse();
      `);
      const url = `${database.url}?application_name=moving`;
      const store = storeOn(source(url));
      const moveAway = () =>
        database.query(`insert into old_server
          select pid from pg_stat_activity
          where datname = current_database() and application_name = 'moving'`);
      const codeOf = (call: Promise<unknown>) => call.catch(causeCode);
      await store.set('a', sessionWith({ n: 1 }));
      for (const call of [
        () => store.set('a', sessionWith()),
        () => store.touch('a', sessionWith()),
        () => store.pruneSessions(),
        () => store.clear(),
      ]) {
        await moveAway();
        expect(await codeOf(call())).toBe(code);
        await store.set('a', sessionWith({ n: 2 }));
      }
      await moveAway();
      const many = ['b', 'c', 'd', 'e'].map((sid) => codeOf(store.set(sid, sessionWith())));
      expect(new Set(await Promise.all(many))).toEqual(new Set([code]));
      await store.set('a', sessionWith({ n: 3 }));
      expect(contentOf(await store.get('a'))).toEqual({ n: 3 });
    },
  );
});

async function isStandby(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query('select pg_is_in_recovery() as so');
    return rows[0]?.so === true;
  } catch {
    return false;
  } finally {
    await client.end();
  }
}

describe('with several hosts, a standby first,', () => {
  test('postgres-js finds the primary, for calls and for its listener', async () => {
    await database.store();
    await using standby = await startPostgres({ durable: false });
    const admin = new pg.Client({ connectionString: standby.url });
    await admin.connect();
    const { rows } = await admin.query<{ folder: string }>(
      `select setting as folder from pg_settings where name = 'data_directory'`,
    );
    await admin.query(`create database ${database.name}`);
    await admin.end();
    const folder = rows[0]?.folder ?? '';
    await standby.shutdown();
    const signal = join(folder, 'standby.signal');
    await writeFile(signal, '');
    const { uid, gid } = await stat(folder);
    await chown(signal, uid, gid);
    // Not awaited, because it waits until the server accepts writes.
    standby.start().catch(() => {});
    await until(() => isStandby(standby.url));

    const url = new URL(database.url);
    const several = database.url.replace(url.host, `${new URL(standby.url).host},${url.host}`);
    const sql = postgres(several, { target_session_attrs: 'primary', onnotice: () => {} });
    ends.push(() => sql.end({ timeout: 0 }));
    const store = storeOn(sql, true);
    await up(store);
    await store.set('a', sessionWith({ n: 1 }));
    expect(contentOf(await store.get('a'))).toEqual({ n: 1 });
    expect(await database.query('select from sessions')).toHaveLength(1);
  });
});
