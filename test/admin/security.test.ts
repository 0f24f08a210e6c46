import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { sessionAdmin } from 'connect-drizzle/admin';
import express from 'express';
import { expect, test, vi } from 'vitest';
import { adminSite, asAdmin, MOUNT } from '../support/admin.js';
import { database, useDatabase } from '../support/fault-database.js';
import { gate } from '../support/gate.js';
import type { Answer } from '../support/http.js';

// Authorization, and requests that another site makes an admin's browser send.

useDatabase();

const readRoutes = (id: string) => [
  '/',
  `/?q=${id}`,
  '/stats',
  '/events',
  '/assets/style.css',
  `/s/${id}`,
  '/nothing',
];
const writeRoutes = (id: string) => [
  `/s/${id}/reveal`,
  `/s/${id}/revoke`,
  '/users/revoke?user=Ada',
  '/users/export?user=Ada',
  '/users/erase?user=Ada',
  '/nothing',
];

const sameOrigin = { 'sec-fetch-site': 'same-origin' };

test('every route and stream calls authorize, and answers 403 if it refuses', async () => {
  const authorize = vi.fn(() => false);
  const { admin, add, store } = await adminSite({ page: { authorize } });
  const id = await add('a sid', { user: 'Ada', secret: 'the secret' });
  const answers: Answer[] = [];
  for (const path of readRoutes(id)) answers.push(await admin.get(path));
  for (const path of writeRoutes(id)) answers.push(await admin.post(path));
  for (const { status, text } of answers) {
    expect(status).toBe(403);
    expect(text).not.toMatch(/Ada|the secret/);
  }
  expect(authorize).toHaveBeenCalledTimes(answers.length);
  expect(await store.length()).toBe(1);
});

test.each([
  ['a string', 'true'],
  ['an object', {}],
  ['a number', 1],
  ['a promise of a string', Promise.resolve('yes')],
  ['undefined', undefined],
])('authorize admits only with true, not with %s', async (_, value) => {
  const authorize = (): never => value as never;
  const { admin } = await adminSite({ page: { authorize } });
  expect((await admin.get()).status).toBe(403);
});

test.each([
  [
    'throws',
    (): never => {
      throw new Error('no database');
    },
  ],
  ['rejects', () => Promise.reject(new Error('no database'))],
])(
  'if authorize %s, the app’s error handler gets the error and nothing is done',
  async (_, authorize) => {
    const { admin, add, store } = await adminSite({ page: { authorize } });
    const id = await add('a sid');
    for (const answer of [await admin.get(), await admin.post(`/s/${id}/revoke`)]) {
      expect([answer.status, answer.text]).toEqual([500, "The app's error handler: no database"]);
    }
    expect(await store.length()).toBe(1);
  },
);

test('nothing is done before a slow authorize has admitted the request', async () => {
  const asked = gate();
  const decision = gate<boolean>();
  const authorize = () => {
    asked.open();
    return decision.opened;
  };
  const { admin, add, store } = await adminSite({ page: { authorize } });
  const id = await add('a sid');
  const revoking = admin.post(`/s/${id}/revoke`);
  await asked.opened;
  expect(await store.length()).toBe(1);
  decision.open(true);
  expect((await revoking).status).toBe(303);
  expect(await store.length()).toBe(0);
});

test('nothing is done for a client that disconnects while authorize decides', async () => {
  const asked = gate();
  const decision = gate<boolean>();
  const closed = gate();
  const { site, add, store } = await adminSite({
    page: {
      authorize: (_, response) => {
        response.once('close', () => closed.open());
        asked.open();
        return decision.opened;
      },
    },
  });
  const id = await add('a sid');
  const request = httpRequest(`${site.url}${MOUNT}/s/${id}/revoke`, {
    method: 'POST',
    headers: sameOrigin,
  });
  request.on('error', () => {});
  request.end();
  await asked.opened;
  request.destroy();
  await closed.opened;
  decision.open(true);
  // Later requests are answered, and the session is still there.
  expect((await site.browser().get(MOUNT)).status).toBe(308);
  expect(await store.length()).toBe(1);
});

test('authorize may send the response itself, such as a redirect to the log-in', async () => {
  const { admin } = await adminSite({
    page: {
      authorize: (_, response) => {
        response.redirect('/login');
        return false;
      },
    },
  });
  const { status, headers } = await admin.get();
  expect([status, headers.get('location')]).toEqual([302, '/login']);
});

test.each<[string, Record<string, string>]>([
  ['of another site', { 'sec-fetch-site': 'cross-site' }],
  ['of another host of the site', { 'sec-fetch-site': 'same-site' }],
  ['that no page has sent', { 'sec-fetch-site': 'none' }],
  ['of another site, even with our origin', { 'sec-fetch-site': 'cross-site', origin: 'OWN' }],
  ['without a header that names its origin', {}],
  ['of an opaque origin', { origin: 'null' }],
  ['of another origin', { origin: 'http://evil.example' }],
  ['of another port', { origin: 'http://127.0.0.1:1' }],
  ['of the same host over another scheme', { origin: 'OWN-HTTPS' }],
  ['whose origin only begins like ours', { origin: 'OWN.evil.example' }],
])('refuses a form %s', async (_, headers) => {
  const authorize = vi.fn(() => true);
  const { admin, site, add, store } = await adminSite({ page: { authorize } });
  const id = await add('a sid', { user: 'Ada', secret: 'the secret' });
  const { origin, ...others } = headers;
  const own = origin
    ?.replace('OWN-HTTPS', site.url.replace('http:', 'https:'))
    .replace('OWN', site.url);
  const sent = own === undefined ? others : { ...others, origin: own };
  for (const path of writeRoutes(id)) {
    const answer = await admin.browser.post(MOUNT + path, new URLSearchParams(), {
      headers: { ...asAdmin, ...sent },
    });
    expect([answer.status, answer.text.includes('the secret')]).toEqual([403, false]);
  }
  expect(await store.length()).toBe(1);
  expect(authorize).not.toHaveBeenCalled();
});

test('accepts a form of its own page by Sec-Fetch-Site, or by Origin without that header', async () => {
  const { admin, site, add, store } = await adminSite();
  for (const headers of [sameOrigin, { origin: site.url }]) {
    const id = await add('a sid');
    const answer = await admin.browser.post(`${MOUNT}/s/${id}/revoke`, new URLSearchParams(), {
      headers: { ...asAdmin, ...headers },
    });
    expect(answer.status).toBe(303);
    expect(await store.length()).toBe(0);
  }
});

test('takes its own origin from the headers of a proxy, if the app trusts the proxy', async () => {
  const forwarded = { 'x-forwarded-proto': 'https', 'x-forwarded-host': 'shop.example' };
  const origin = 'https://shop.example';
  for (const [trust, status] of [
    [true, 303],
    [false, 403],
  ] as const) {
    const { admin, add } = await adminSite({
      app: (page) => express().set('trust proxy', trust).use(MOUNT, page),
    });
    const id = await add('a sid');
    const answer = await admin.browser.post(`${MOUNT}/s/${id}/revoke`, new URLSearchParams(), {
      headers: { ...asAdmin, ...forwarded, origin },
    });
    expect(answer.status).toBe(status);
  }
});

test('no response, errors included, can be framed, cached or run foreign scripts', async () => {
  const { admin, add, site } = await adminSite({
    app: (page) =>
      express()
        .use((_, response, next) => {
          response.set('Content-Security-Policy', "script-src 'unsafe-inline'");
          response.set('Cache-Control', 'public, max-age=600');
          next();
        })
        .use(MOUNT, page),
  });
  const id = await add('a sid', { user: 'Ada' });
  const answers = [
    ...(await Promise.all(
      ['/', '/stats', `/s/${id}`, '/assets/script.js', '/x'].map((path) => admin.get(path)),
    )),
    await admin.post(`/s/${id}/reveal`),
    await admin.post('/users/export?user=Ada'),
    await site.browser().get(`${MOUNT}/`),
    await site.browser().get(MOUNT),
  ];
  for (const { headers } of answers) {
    const policy = headers.get('content-security-policy') ?? '';
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).toContain("form-action 'self'");
    expect(policy).not.toContain('unsafe');
    expect(headers.get('x-frame-options')).toBe('DENY');
    expect(headers.get('cache-control')).toContain('no-store');
    expect(headers.get('referrer-policy')).toBe('same-origin');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
  }
});

test('no page has an inline script or style', async () => {
  const { admin, add } = await adminSite();
  const id = await add('a sid', { user: 'Ada' });
  const pages = await Promise.all(
    ['/', '/?user=Ada', '/stats', `/s/${id}`].map((path) => admin.get(path)),
  );
  for (const { text } of pages) {
    expect(text).not.toMatch(/<style|\sstyle=|\son\w+=|javascript:|<script(?![^>]* src=)/i);
  }
});

test('an unknown address gets 404, a wrong method 405', async () => {
  const { admin, add } = await adminSite();
  const id = await add('a sid', { user: 'Ada' });
  for (const path of [
    '/nothing',
    '/s/',
    '/s/short',
    `/s/${id}/`,
    '/users',
    '/assets/none.css',
    '/assets/..%2fx',
  ]) {
    expect([path, (await admin.get(path)).status]).toEqual([path, 404]);
  }
  for (const path of [`/s/${id}/revoke`, `/s/${id}/reveal`, '/users/erase', '/users/export']) {
    const { status, headers } = await admin.get(path);
    expect([path, status, headers.get('allow')]).toEqual([path, 405, 'POST']);
  }
  const posted = await admin.post('/stats');
  expect([posted.status, posted.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  const asJson = await admin.get('/nothing', { accept: 'application/json' });
  expect([asJson.status, asJson.json()]).toEqual([
    404,
    { error: 'There is nothing at this address.' },
  ]);
});

test('a body that is too large, malformed or of an unknown type is refused', async () => {
  const { admin, site, add, store } = await adminSite();
  await add('a sid', { user: 'Ada' });
  expect((await admin.post('/users/revoke', { user: 'Ada', x: 'x'.repeat(20_000) })).status).toBe(
    413,
  );
  const send = (type: string, body: string) =>
    admin.browser.fetch(`${MOUNT}/users/revoke`, {
      method: 'POST',
      headers: { ...asAdmin, ...sameOrigin, 'content-type': type },
      body,
    });
  expect((await send('text/plain', 'user=Ada')).status).toBe(415);
  expect((await send('application/json', '{"user":')).status).toBe(400);
  expect((await send('application/json', '["Ada"]')).status).toBe(400);
  expect((await send('application/json', '{"user":{"toString":"Ada"}}')).status).toBe(400);
  expect((await send('application/json', '{"__proto__":{"user":"Ada"}}')).status).toBe(400);
  expect(await store.length()).toBe(1);
  // The response does not wait for the end of a body that is too large.
  const request = httpRequest(`${site.url}${MOUNT}/users/revoke`, {
    method: 'POST',
    headers: { ...asAdmin, ...sameOrigin, 'content-type': 'application/json' },
  });
  request.on('error', () => {});
  request.write('x'.repeat(40_000));
  const [response] = await once(request, 'response');
  expect(response.statusCode).toBe(413);
  request.destroy();
});

test('sessionAdmin() throws on invalid options', async () => {
  const store = await database.store();
  const authorize = () => true;
  expect(() => sessionAdmin({ store, authorize: undefined as never })).toThrow(
    'authorize is required',
  );
  expect(() => sessionAdmin({ store, authorize: true as never })).toThrow(
    'authorize must be a function',
  );
  expect(() => sessionAdmin({ store: {} as never, authorize })).toThrow(
    'store must be a DrizzleStore',
  );
  expect(() => sessionAdmin(undefined as never)).toThrow('options must be an object');
  expect(() => sessionAdmin({ store, authorize, audits: 1 } as never)).toThrow(
    'unknown option audits',
  );
  expect(() => sessionAdmin({ store, authorize, describe: 1 as never })).toThrow(
    'describe must be',
  );
  for (const home of ['', 7 as never]) {
    expect(() => sessionAdmin({ store, authorize, home })).toThrow('home must be a URL or a path');
  }
});
