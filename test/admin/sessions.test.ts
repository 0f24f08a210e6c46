import { idOf, sessionColumns, sessionIndexes } from 'connect-drizzle';
import type { AuditEvent } from 'connect-drizzle/admin';
import { integer, pgTable } from 'drizzle-orm/pg-core';
import type { SessionData } from 'express-session';
import { expect, test, vi } from 'vitest';
import { histogramOf, type Totals } from '../../src/admin/totals.js';
import { adminSite, asAdmin, type ListBody, type ListedSession } from '../support/admin.js';
import { database, useDatabase } from '../support/fault-database.js';
import { contentOf } from '../support/sessions.js';

// What the page shows, and what its buttons do.

useDatabase();

/** Inserts live sessions that logged in a second apart, the oldest first. */
function insertSessions(count: number) {
  return database.query(
    `insert into sessions (id, data, user_id, created_at, expires_at)
     select 'id' || lpad(n::text, 41, '0'), '{"cookie":{}}', 'user ' || n % 3,
       timestamptz '2026-01-01' + n * interval '1 second', now() + interval '1 day'
     from generate_series(1, $1::int) n`,
    [count],
  );
}

test('lists live sessions, newest log-in first, as a page and as JSON', async () => {
  const { admin, add } = await adminSite();
  const ada = await add('ada', { user: 'Ada' });
  const grace = await add('grace', { user: 'Grace' });
  await add('over', { user: 'Over' }, -1);
  const { text, headers } = await admin.get();
  expect(headers.get('content-type')).toBe('text/html; charset=utf-8');
  expect(text.indexOf(grace)).toBeGreaterThan(0);
  expect(text.indexOf(ada)).toBeGreaterThan(text.indexOf(grace));
  expect(text).not.toContain('Over<');
  const { sessions, next } = await admin.json<ListBody>();
  expect(sessions.map(({ id, userId, state }) => [id, userId, state])).toEqual([
    [grace, 'Grace', 'live'],
    [ada, 'Ada', 'live'],
  ]);
  expect(next).toBeNull();
});

test('pages skip and repeat no session, also if sessions are touched, created or ended meanwhile', async () => {
  const { admin, store, add } = await adminSite();
  await insertSessions(170);
  const seen: string[] = [];
  let next: string | null = '';
  for (let pages = 0; next !== null; pages += 1) {
    const before: string = next === '' ? '' : `?before=${encodeURIComponent(next)}`;
    const page: ListBody = await admin.json(`/${before}`);
    seen.push(...page.sessions.map(({ id }) => id));
    next = page.next;
    // Moves all sessions to another `expires_hour`, creates a new one and ends one.
    await database.query(
      `update sessions set expires_at = expires_at + interval '1 hour', last_seen_at = now()`,
    );
    await add(`later ${pages}`);
    await store.revoke(seen[0] ?? '');
  }
  const ids = Array.from({ length: 170 }, (_, n) => `id${String(170 - n).padStart(41, '0')}`);
  expect(seen).toEqual(ids);
});

test('sessions with the same log-in time are on exactly one page each', async () => {
  const { admin } = await adminSite();
  await insertSessions(120);
  await database.query(`update sessions set created_at = '2026-01-01'`);
  const { sessions, next } = await admin.json<ListBody>();
  const { text } = await admin.get(`/?before=${next}`);
  expect(text).toContain('Newest');
  const second = await admin.json<ListBody>(`/?before=${next}`);
  const third = await admin.json<ListBody>(`/?before=${second.next}`);
  const all = [...sessions, ...second.sessions, ...third.sessions];
  expect(new Set(all.map(({ id }) => id)).size).toBe(120);
  expect(all.length).toBe(120);
  expect(third.next).toBeNull();
});

test('finds a user, and a session by its id', async () => {
  const { admin, add } = await adminSite();
  const id = await add('a sid', { user: 'Ada & Co' });
  await add('another', { user: 'Grace' });
  const user = await admin.get('/?q=Ada+%26+Co');
  expect([user.status, user.headers.get('location')]).toEqual([303, './?user=Ada%20%26%20Co']);
  const { sessions } = await admin.json<ListBody>('/?user=Ada%20%26%20Co');
  expect(sessions.map((each) => each.id)).toEqual([id]);
  expect((await admin.get(`/?q=${id}`)).headers.get('location')).toBe(`./s/${id}`);
  // A user id may look like a session id.
  const other = idOf('unknown');
  expect((await admin.get(`/?q=${other}`)).headers.get('location')).toBe(`./?user=${other}`);
  expect((await admin.get('/?user=')).status).toBe(400);
  expect((await admin.get('/?user=nobody')).text).toContain('There are no live sessions.');
});

test('a user id that the column cannot hold has no sessions', async () => {
  await database.store();
  await database.query('alter table sessions alter user_id type integer using user_id::integer');
  const columns = { ...sessionColumns(), userId: integer('user_id') };
  const { admin, add } = await adminSite({
    store: {
      table: pgTable('sessions', columns, sessionIndexes),
      createTableIfMissing: false,
      userId: (session: SessionData & { user?: number }) => session.user,
    },
  });
  const id = await add('a sid', { user: 7 });
  expect((await admin.json<ListBody>('/?user=7')).sessions.map((each) => each.id)).toEqual([id]);
  expect((await admin.get('/?user=ada')).text).toContain('There are no live sessions.');
  expect((await admin.post('/users/export?user=ada')).json()).toMatchObject({ sessions: [] });
  expect((await admin.post('/users/revoke?user=ada')).headers.get('location')).toContain('ended=0');
});

test('shows only the parts of the content that describe returns', async () => {
  const describe = (session: SessionData & { agent?: string; at?: string }) => ({
    Browser: session.agent,
    At: new Date(session.at ?? 0),
    Empty: '',
    None: undefined,
    Keys: Object.keys(session).length,
  });
  const { admin, add } = await adminSite({ page: { describe } });
  const id = await add('a sid', {
    agent: 'Firefox',
    at: '2026-01-02T03:04:05Z',
    secret: 'the secret',
  });
  const { sessions } = await admin.json<ListBody>();
  expect(sessions[0]?.described).toEqual({
    Browser: 'Firefox',
    At: '2026-01-02T03:04:05.000Z',
    Keys: '4',
  });
  for (const path of ['/', `/s/${id}`]) {
    const { text } = await admin.get(path);
    expect(text).toContain('Firefox');
    expect(text).not.toContain('the secret');
  }
});

test('reads no content without describe', async () => {
  const { admin, add } = await adminSite({ store: { encryptionKeys: ['1'.repeat(64)] } });
  await add('a sid', { user: 'Ada' });
  await database.query(`update sessions set data = '"broken"'`);
  expect((await admin.json<ListBody>()).sessions[0]).toMatchObject({ isReadable: true });
});

test('a session that cannot be read or described breaks no page, and can be ended', async () => {
  const errorLog = vi.fn();
  const { admin, add } = await adminSite({
    store: { errorLog },
    page: {
      describe: ({ user }: SessionData & { user?: string }) => {
        if (user === 'Grace') throw new Error('describe fails');
        // An app without types can return anything.
        if (user === 'Alan') return Promise.reject(new Error('async')) as never;
        return { Who: user };
      },
    },
  });
  const broken = await add('broken', { user: 'Ada' });
  await add('grace', { user: 'Grace' });
  await add('alan', { user: 'Alan' });
  await add('fine', { user: 'Mary' });
  await database.query(`update sessions set data = '[]' where id = $1`, [broken]);
  const { sessions } = await admin.json<ListBody>();
  expect(sessions.map(({ isReadable, described }) => [isReadable, described])).toEqual([
    [true, { Who: 'Mary' }],
    [true, {}],
    [true, {}],
    [false, {}],
  ]);
  expect((await admin.get(`/s/${broken}`)).text).toContain('cannot be read');
  const log = errorLog.mock.calls.flat().join();
  expect(log).toContain('cannot describe a session');
  expect(log).toContain('describe must not be async');
  expect((await admin.post(`/s/${broken}/revoke`)).status).toBe(303);
  expect((await admin.json<ListBody>()).sessions.length).toBe(3);
});

test('reveals the content of a session only to a POST, decrypted', async () => {
  const { admin, add, store } = await adminSite({ store: { encryptionKeys: ['1'.repeat(64)] } });
  const id = await add('a sid', { user: 'Ada', secret: 'the secret' });
  expect((await admin.get(`/s/${id}`)).text).not.toContain('the secret');
  expect((await admin.get(`/s/${id}/reveal`)).status).toBe(405);
  const { status, text } = await admin.post(`/s/${id}/reveal`);
  expect(status).toBe(200);
  expect(text).toContain('the secret');
  const answer = await admin.post(`/s/${id}/reveal`, {}, { accept: 'application/json' });
  const { session, content } = answer.json<{ session: ListedSession; content: string }>();
  expect(session.id).toBe(id);
  expect(JSON.parse(content)).toMatchObject({ user: 'Ada', secret: 'the secret' });
  await store.destroy('a sid');
  expect((await admin.get(`/s/${id}`)).text).toContain('This session has ended');
  expect((await admin.post(`/s/${id}/reveal`)).text).not.toContain('the secret');
});

test('ends one session and reports it', async () => {
  const { admin, add, store } = await adminSite();
  const id = await add('a sid', { user: 'Ada' });
  await add('another', { user: 'Ada' });
  const { status, headers } = await admin.post(`/s/${id}/revoke`);
  expect([status, headers.get('location')]).toEqual([303, '../../?ended=1']);
  expect((await admin.get('/?ended=1')).text).toContain('1 session has ended.');
  expect(await store.get('a sid')).toBeUndefined();
  expect(await store.length()).toBe(1);
  const again = await admin.post(`/s/${id}/revoke`, {}, { accept: 'application/json' });
  expect(again.json()).toEqual({ ended: 0 });
  expect((await admin.post(`/s/${idOf('unknown')}/revoke`)).status).toBe(404);
});

test('ends all sessions of a user, or all but one', async () => {
  const { admin, add, store } = await adminSite();
  const kept = await add('kept', { user: 'Ada' });
  await add('one', { user: 'Ada' });
  await add('two', { user: 'Ada' });
  await add('other', { user: 'Grace' });
  const { headers } = await admin.post(`/users/revoke?user=Ada&keep=${kept}`);
  expect(headers.get('location')).toBe('../?user=Ada&ended=2');
  expect(contentOf(await store.get('kept'))).toEqual({ user: 'Ada' });
  expect(await store.length()).toBe(2);
  // The user may be in the body as well, as a form or as JSON.
  await admin.post('/users/revoke', { user: 'Ada' });
  const json = { ...asAdmin, 'sec-fetch-site': 'same-origin' };
  await admin.browser.post('/admin/sessions/users/revoke', { user: 'Grace' }, { headers: json });
  expect(await store.length()).toBe(0);
  expect((await admin.post('/users/revoke?user=Ada&keep=x')).status).toBe(400);
  expect((await admin.post('/users/revoke')).status).toBe(400);
});

test('exports all sessions of a user byte for byte, expired ones included', async () => {
  const { admin, add } = await adminSite();
  const ids = await Promise.all(
    Array.from({ length: 130 }, (_, n) => add(`sid ${n}`, { user: 'Ada', n }, n === 0 ? -9 : 60)),
  );
  await add('other', { user: 'Grace' });
  const data = '{"cookie":{},  "n":12345678901234567890, "__proto__":{"x":1}}';
  await database.query('update sessions set data = $1 where id = $2', [data, ids[5]]);
  const { text, headers } = await admin.post('/users/export?user=Ada');
  expect(headers.get('content-disposition')).toBe('attachment; filename="sessions.json"');
  expect(text).toContain(`"data":${data}`);
  const { user, sessions }: { user: string; sessions: ListedSession[] } = JSON.parse(text);
  expect(user).toBe('Ada');
  expect(sessions.map(({ id }) => id).sort()).toEqual([...ids].sort());
  expect(sessions.find(({ id }) => id === ids[0])?.state).toBe('expired');
});

test('erases all sessions of a user, expired ones included', async () => {
  const { admin, add } = await adminSite();
  await add('live', { user: 'Ada', secret: 1 });
  await add('over', { user: 'Ada', secret: 1 }, -1);
  await add('other', { user: 'Grace', secret: 1 });
  const { headers } = await admin.post('/users/erase?user=Ada');
  expect(headers.get('location')).toBe('../?user=Ada&erased=1');
  const rows = await database.query(
    'select user_id, data from sessions where revoked_at is not null',
  );
  expect(rows).toEqual([
    { user_id: null, data: null },
    { user_id: null, data: null },
  ]);
  expect(await database.query('select from sessions where data is not null')).toHaveLength(1);
});

test('calls audit before each action, and does nothing if audit throws', async () => {
  const events: Omit<AuditEvent, 'request'>[] = [];
  let fails = false;
  const { admin, add, store } = await adminSite({
    page: {
      audit: async ({ request, ...event }) => {
        if (fails) throw new Error('no audit, no action');
        events.push({ ...event, id: event.id });
        expect(request.get('x-role')).toBe('admin');
      },
    },
  });
  const id = await add('a sid', { user: 'Ada', secret: 'the secret' });
  const actions = [
    `/s/${id}/reveal`,
    '/users/export?user=Ada',
    `/users/revoke?user=Ada&keep=${id}`,
    `/s/${id}/revoke`,
    '/users/erase?user=Ada',
  ];
  fails = true;
  for (const action of actions) {
    const { status, text } = await admin.post(action);
    expect([status, text]).toEqual([500, "The app's error handler: no audit, no action"]);
  }
  expect(await store.length()).toBe(1);
  fails = false;
  for (const action of actions) expect((await admin.post(action)).status).toBeLessThan(400);
  expect(events).toEqual([
    { action: 'reveal', id, userId: 'Ada' },
    { action: 'exportUser', id: undefined, userId: 'Ada' },
    { action: 'revokeUser', id, userId: 'Ada' },
    { action: 'revoke', id, userId: 'Ada' },
    { action: 'eraseUser', id: undefined, userId: 'Ada' },
  ]);
});

test('counts the sessions, in total and by expiry, once a minute and when a session was ended on the page', async () => {
  const { admin, add } = await adminSite();
  await add('one');
  await add('two');
  await add('over', {}, -1);
  await add('ended');
  await admin.post(`/s/${idOf('ended')}/revoke`);
  const { totals, stats } = await admin.json<{ totals: Totals; stats: object }>('/stats');
  expect(totals).toMatchObject({
    live: 2,
    expired: 1,
    revoked: 1,
    isEstimate: false,
    hasIndex: false,
  });
  expect(totals.expiries.reduce((sum, { sessions }) => sum + sessions, 0)).toBe(2);
  expect(stats).toMatchObject({ sync: 'off' });
  await add('three');
  expect((await admin.json<{ totals: Totals }>('/stats')).totals).toEqual(totals);
  await admin.post(`/s/${idOf('three')}/revoke`);
  expect((await admin.json<{ totals: Totals }>('/stats')).totals).toMatchObject({ revoked: 2 });
  const { text } = await admin.get('/stats');
  expect(text).toContain('When live sessions expire');
  expect(text).toContain('<rect');
});

test('shows no histogram if the table has no sessions', async () => {
  const { admin } = await adminSite();
  expect((await admin.get()).text).toContain('There are no live sessions.');
  expect((await admin.get('/stats')).text).toContain('There are no live sessions.');
});

test('offers nothing by user without the option userId', async () => {
  const { admin, add } = await adminSite({ store: { userId: undefined } });
  const id = await add('a sid', { user: 'Ada' });
  expect((await admin.get()).text).toContain('Find a session id');
  expect((await admin.get(`/?q=${id}`)).headers.get('location')).toBe(`./s/${id}`);
  expect((await admin.get('/?q=Ada')).status).toBe(404);
  expect((await admin.get('/?user=Ada')).status).toBe(400);
  expect((await admin.post('/users/revoke?user=Ada')).status).toBe(400);
  expect((await admin.get(`/s/${id}`)).text).not.toContain('>User<');
});

test('lists a row with an id of another form without a link to its details', async () => {
  const { admin } = await adminSite();
  await database.query(
    `insert into sessions (id, data, expires_at) values ('"><script>', '{}', now() + interval '1 day')`,
  );
  const { text } = await admin.get();
  expect(text).toContain('Anonymous');
  expect(text).not.toContain('Details');
  expect(text).not.toContain('"><script>');
});

const hour = 3_600_000;

test('the histogram has at most 24 bars of equal width, and one for all later hours', () => {
  const hours = Array.from({ length: 30 * 24 }, (_, n) => ({ hour: n * hour, sessions: 10 }));
  const bars = histogramOf([...hours, { hour: 5000 * 24 * hour, sessions: 3 }]);
  expect(bars.length).toBe(16);
  expect(bars[0]).toEqual({ from: 0, until: 48 * hour, sessions: 480 });
  expect(bars.at(-1)).toEqual({ from: 48 * 24 * hour, until: null, sessions: 3 });
  expect(histogramOf([])).toEqual([]);
  expect(histogramOf([{ hour: 7 * hour, sessions: 2.4 }])).toEqual([
    { from: 7 * hour, until: 8 * hour, sessions: 2 },
  ]);
});
