import { createRequire } from 'node:module';
import { sessionAdmin } from 'connect-drizzle/admin';
import express, { type RequestHandler } from 'express';
import session from 'express-session';
import { expect, test } from 'vitest';
import { AdminClient, adminSite, asAdmin, type ListBody, MOUNT } from '../support/admin.js';
import { ends, useDatabase } from '../support/fault-database.js';
import { serve } from '../support/http.js';

// The page in different apps, and behind different proxies.

declare module 'express-session' {
  interface SessionData {
    role?: string;
  }
}

const express4: typeof express = createRequire(import.meta.url)('express4');

useDatabase();

const expresses = [
  ['Express 5', express],
  ['Express 4', express4],
] as const;

/** The paths that a page links to, as a browser at this address resolves them. */
function linksOf(text: string, address: string): string[] {
  return Array.from(text.matchAll(/(?:href|src|action)="([^"#]+)"/g), ([, link = '']) => {
    return new URL(link.replaceAll('&amp;', '&'), address).pathname;
  });
}

test.each(expresses)('lists and ends sessions in %s', async (_, create) => {
  const { admin, add, store } = await adminSite({ app: (page) => create().use(MOUNT, page) });
  const id = await add('a sid', { user: 'Ada' });
  const { status, text } = await admin.get('/');
  expect([status, text.includes(id)]).toEqual([200, true]);
  const { headers } = await admin.post(`/s/${id}/revoke`);
  expect(headers.get('location')).toBe('../../?ended=1');
  expect(await store.length()).toBe(0);
});

const parsers: [string, RequestHandler[]][] = [
  ['no body parser', []],
  ['the parsers of Express', [express.urlencoded({ extended: true }), express.json()]],
  ['a parser without nested fields', [express.urlencoded({ extended: false })]],
  ['a JSON parser only', [express.json()]],
  ['a text parser', [express.text({ type: '*/*' })]],
  ['a raw parser', [express.raw({ type: '*/*' })]],
];

test.each(
  expresses.flatMap(([name, create]) =>
    parsers.map(([parser, handlers]) => [name, parser, create, handlers] as const),
  ),
)('in %s, reads forms and JSON behind %s', async (_name, _parser, create, handlers) => {
  const { admin, add, store } = await adminSite({
    app: (page) => create().use(MOUNT, ...handlers, page),
  });
  await add('a sid', { user: 'Ada' });
  await add('another', { user: 'Grace' });
  expect((await admin.post('/users/revoke', { user: 'Ada' })).status).toBe(303);
  const headers = { ...asAdmin, 'sec-fetch-site': 'same-origin', accept: 'application/json' };
  const answer = await admin.browser.post(`${MOUNT}/users/revoke`, { user: 'Grace' }, { headers });
  expect([answer.status, answer.json()]).toEqual([200, { ended: 1 }]);
  expect(await store.length()).toBe(0);
});

test('every page links back to the app if the option home says where that is', async () => {
  const { admin, add } = await adminSite({ page: { home: '/shop?from="admin"' } });
  const id = await add('a sid');
  for (const path of ['/', '/stats', `/s/${id}`, '/nothing']) {
    const { text } = await admin.get(path);
    expect(text).toContain('<a href="/shop?from=&quot;admin&quot;">Back to the app</a>');
  }
  const plain = await adminSite();
  expect((await plain.admin.get()).text).not.toContain('Back to the app');
});

test('treats a body that another middleware has consumed as empty', async () => {
  const { admin, add, store } = await adminSite({
    app: (page) =>
      express()
        .use((request, _response, next) => {
          request.resume().once('end', () => next());
        })
        .use(MOUNT, page),
  });
  await add('a sid', { user: 'Ada' });
  expect((await admin.post('/users/revoke', { user: 'Ada' })).status).toBe(400);
  // The page's own forms send everything in the URL.
  expect((await admin.post('/users/revoke?user=Ada')).status).toBe(303);
  expect(await store.length()).toBe(0);
});

test.each([
  ['/admin/sessions', '/admin/sessions?user=Ada', './sessions/?user=Ada'],
  ['/a:b', '/a:b', './a:b/'],
  ['/', '/', undefined],
])(
  'mounted at %s, redirects to a trailing slash if it needs one, and links to its own pages',
  async (mount, path, target) => {
    const { site, add } = await adminSite({ app: (page) => express().use(mount, page) });
    await add('a sid', { user: 'Ada' });
    const browser = site.browser();
    const first = await browser.get(path, { headers: asAdmin });
    expect(first.headers.get('location')).toBe(target ?? null);
    expect(first.status).toBe(target === undefined ? 200 : 308);
    const address = new URL(target ?? path, new URL(path, site.url));
    const { status, text } = await browser.get(address.href, { headers: asAdmin });
    expect(status).toBe(200);
    const base = mount === '/' ? '/' : `${mount}/`;
    const links = linksOf(text, address.href);
    expect(links.length).toBeGreaterThan(5);
    expect(links.filter((link) => !link.startsWith(base))).toEqual([]);
  },
);

test('does not redirect to another host', async () => {
  const { site } = await adminSite({ app: (page) => express().use(page) });
  for (const path of ['//evil.example', '/%5c%5cevil.example', '/..//evil.example']) {
    const { headers, status } = await site.browser().get(site.url + path, { headers: asAdmin });
    expect([path, status, headers.get('location')]).toEqual([path, 404, null]);
  }
});

test.each([
  ['strips a prefix', '/ops/sessions', (path: string) => path.replace('/ops/sessions', MOUNT)],
  ['adds a prefix', '/sessions', (path: string) => path.replace('/sessions', MOUNT)],
  ['keeps the path', MOUNT, (path: string) => path],
])(
  'behind a proxy that %s, every link and redirect stays below the mount path',
  async (_, outside, inside) => {
    const { admin, site, add } = await adminSite();
    const id = await add('a sid', { user: 'Ada' });
    const visit = (path: string) => site.browser().get(inside(path), { headers: asAdmin });
    for (const path of [
      `${outside}/`,
      `${outside}/?user=Ada`,
      `${outside}/s/${id}`,
      `${outside}/stats`,
    ]) {
      const { status, text } = await visit(path);
      expect([path, status]).toEqual([path, 200]);
      const links = linksOf(text, `http://proxy${path}`).filter(
        (link) => !link.startsWith('/connect-'),
      );
      expect(links.filter((link) => !link.startsWith(`${outside}/`))).toEqual([]);
      for (const link of links.filter((each) => /assets|stats/.test(each))) {
        expect([link, (await visit(link)).status]).toEqual([link, 200]);
      }
    }
    const revoked = await admin.post(`/s/${id}/revoke`);
    const location = revoked.headers.get('location') ?? '';
    expect(new URL(location, `http://proxy${outside}/s/${id}/revoke`).pathname).toBe(`${outside}/`);
    const slash = await visit(outside);
    const target = slash.headers.get('location') ?? '';
    expect(new URL(target, `http://proxy${outside}`).pathname).toBe(`${outside}/`);
  },
);

test('marks the admin’s own session', async () => {
  const { site, store, add } = await adminSite({
    store: { userId: ({ role }) => role },
    page: { authorize: (request) => request.session.role === 'admin' },
    app: (page, sessions) =>
      express()
        .use(session({ store: sessions, secret: 'x', resave: false, saveUninitialized: false }))
        .post('/login', (request, response) => {
          request.session.role = 'admin';
          response.end();
        })
        .use(MOUNT, page),
  });
  await add('another', { role: 'Ada' });
  const browser = site.browser();
  expect((await browser.get(`${MOUNT}/`)).status).toBe(403);
  await browser.post('/login');
  const page = await browser.get(`${MOUNT}/`, { headers: { accept: 'application/json' } });
  const { sessions } = page.json<ListBody>();
  expect(sessions.map(({ userId, isCurrent }) => [userId, isCurrent])).toEqual([
    ['admin', true],
    ['Ada', false],
  ]);
  expect((await browser.get(`${MOUNT}/`)).text).toContain('Your session');
  const headers = { 'sec-fetch-site': 'same-origin' };
  await browser.post(`${MOUNT}/s/${sessions[0]?.id}/revoke`, new URLSearchParams(), { headers });
  expect((await browser.get(`${MOUNT}/`)).status).toBe(403);
  expect(await store.length()).toBe(1);
});

test('answers HEAD requests without a body', async () => {
  const { admin } = await adminSite();
  for (const path of ['/', '/stats', '/events', '/assets/style.css']) {
    const { status, text } = await admin.browser.fetch(MOUNT + path, {
      method: 'HEAD',
      headers: asAdmin,
    });
    expect([path, status, text]).toEqual([path, 200, '']);
  }
});

test('works inside a router below a prefix, as behind a NestJS guard', async () => {
  const { store, add } = await adminSite();
  await add('a sid', { user: 'Ada' });
  const page = sessionAdmin({ store, authorize: () => true });
  const guarded = express.Router().use('/admin/sessions', page);
  const app = express().all('/api{/*path}', (request, response, next) => {
    request.url = request.url.slice('/api'.length);
    guarded(request, response, next);
  });
  const site = await serve(app);
  ends.push(site.close);
  const client = new AdminClient(site.browser(), '/api/admin/sessions');
  expect((await client.get('')).headers.get('location')).toBe('./sessions/');
  expect((await client.json<ListBody>()).sessions).toHaveLength(1);
});
