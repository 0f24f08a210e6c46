/**
 * The session table for engines on which the migrations cannot run, and the calls that must work on any engine.
 *
 * @module
 */
import assert from 'node:assert/strict';
import { type DrizzleStore, sessionTable } from 'connect-drizzle';
import type { SessionData } from 'express-session';
import { contentOf, endOf, sessionUntil, sessionWith } from '../support/sessions.js';

/** Statements that create the table. `data` is text if the engine does not keep `json` byte for byte. */
export function tableWith(data: 'json' | 'text'): string[] {
  return [
    `create table sessions (
      id text primary key,
      data ${data},
      user_id text,
      version integer not null default 1,
      created_at timestamptz not null default now(),
      last_seen_at timestamptz not null default now(),
      expires_at timestamptz not null,
      revoked_at timestamptz,
      expires_hour timestamptz generated always as
        (date_trunc('hour', expires_at at time zone 'UTC') at time zone 'UTC') stored
    )`,
    'create index sessions_user_id_index on sessions (user_id) where user_id is not null',
    'create index sessions_expires_hour_index on sessions (expires_hour)',
  ];
}

/** The same table, for the option `table`. */
export function schemaWith(data: 'json' | 'text') {
  return data === 'text' ? sessionTable({ data }) : sessionTable();
}

/** The owner, for the option `userId`. */
export function userOf(session: object): string | undefined {
  const user: unknown = Reflect.get(session, 'user');
  return typeof user === 'string' ? user : undefined;
}

/** Throws unless each kind of call works. The table must be empty. */
export async function cycle(store: DrizzleStore): Promise<void> {
  await store.ready();
  await Promise.all(
    Array.from({ length: 20 }, (_, at) => store.set(`sid ${at}`, sessionWith({ at, user: 'ada' }))),
  );
  const [one, other] = [await loaded(store, 'sid 3'), await loaded(store, 'sid 3')];
  await store.set('sid 3', Object.assign(one, { one: 1 }));
  await store.set('sid 3', Object.assign(other, { other: 2 }));
  const merged = { at: 3, user: 'ada', one: 1, other: 2 };
  assert.deepEqual(contentOf(await store.get('sid 3')), merged);

  const touched = await loaded(store, 'sid 4');
  const later = Date.now() + 7_200_000;
  touched.cookie.expires = new Date(later);
  await store.touch('sid 4', touched);
  assert.equal(endOf(await store.get('sid 4')), later);

  const increments = Array.from({ length: 8 }, () =>
    store.update('sid 5', (session) => {
      Object.assign(session, { at: Number(Reflect.get(session, 'at')) + 1 });
    }),
  );
  await Promise.all(increments);
  assert.deepEqual(contentOf(await store.get('sid 5')), { at: 13, user: 'ada' });

  const inFlight = await loaded(store, 'sid 6');
  await store.destroy('sid 6');
  await store.set('sid 6', Object.assign(inFlight, { late: true }));
  assert.equal(await store.get('sid 6'), undefined);

  await store.set('expired', sessionUntil(new Date(0)));
  assert.equal(await store.pruneSessions(), 1);
  assert.equal(await store.length(), 19);
  assert.equal(await store.revokeUser('ada', { except: 'sid 1' }), 18);
  assert.equal(await store.length(), 1);
}

async function loaded(store: DrizzleStore, sid: string): Promise<SessionData> {
  const found = await store.get(sid);
  assert(found, `There is no session ${sid}`);
  return found;
}
