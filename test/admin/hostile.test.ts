import type { SessionData } from 'express-session';
import { expect, test } from 'vitest';
import { clipped, html, visible } from '../../src/admin/html.js';
import { adminSite, type ListBody } from '../support/admin.js';
import { database, useDatabase } from '../support/fault-database.js';

// Visitors control parts of their sessions. The page shows all of it as text.

useDatabase();

type Hostile = SessionData & { user?: string; agent?: string };
const describe = ({ agent, user }: Hostile) => ({ Browser: agent, [`<b>${user}`]: user });

const script = `"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;`;

test.each([
  ['HTML', script],
  ['attributes', `" onfocus="alert(1)" autofocus x="`],
  ['a URL', 'javascript:alert(1)'],
  ['a path', '../../../evil?x=1&user=2#y'],
  ['an entity', '&#x3c;script&#x3e;'],
  ['a template', '{{7*7}}`<%= 1 %>'],
])('%s in a user id or a description is shown as text on every page', async (_, text) => {
  const { admin, add } = await adminSite({ page: { describe } });
  const id = await add('a sid', { user: text, agent: text });
  const { headers } = await admin.get(`/?q=${encodeURIComponent(text)}`);
  const location = headers.get('location') ?? '';
  expect(location).toMatch(/^\.\/\?user=[\w%!'()*.~-]+$/);
  const pages = [
    await admin.get('/'),
    await admin.get(location.slice(1)),
    await admin.get(`/s/${id}`),
    await admin.post(`/s/${id}/reveal`),
  ];
  for (const page of pages) {
    expect(page.status).toBe(200);
    expect(page.text).not.toMatch(/<script>alert|<img|<b>|\sonfocus="alert|href="javascript/);
    // The only script is the page's own.
    expect(page.text.match(/<script/g)).toHaveLength(1);
  }
  expect(pages[0]?.text).toContain(String(html`${text}`));
  const { sessions } = await admin.json<ListBody>(location.slice(1));
  expect(sessions[0]).toMatchObject({ id, userId: text });
  const exported = await admin.post(`/users/export${location.slice(2)}`);
  expect(exported.headers.get('content-type')).toBe('application/json; charset=utf-8');
  expect(exported.json()).toMatchObject({ user: text, sessions: [{ id }] });
  await admin.post(`/users/revoke${location.slice(2)}`);
  expect((await admin.json<ListBody>()).sessions).toEqual([]);
});

test('control characters, bidirectional marks and lone surrogates are shown as escapes, and forms send the exact user id', async () => {
  const { admin, add } = await adminSite({ page: { describe } });
  const user = 'a\r\nb\u001b[2J\u202ec\u200bd\u00ade';
  const id = await add('a sid', { user, agent: `\ud800${user}\u2028` });
  const { text } = await admin.get();
  expect(text).toContain('\\u{202e}');
  expect(text).toContain('\\u{1b}[2J');
  expect(text).toContain('\\u{d800}');
  expect(text).not.toMatch(/[^\P{C}\n]|[\p{Zl}\ufffd]/u);
  const [, action] = /action="([^"]+users\/revoke[^"]+)"/.exec(
    (await admin.get(`/?user=${encodeURIComponent(user)}`)).text,
  ) ?? ['', ''];
  await admin.post((action ?? '').slice(1).replaceAll('&amp;', '&'));
  expect((await admin.get(`/s/${id}`)).text).toContain('This session has ended');
});

test('very long values are cut, in the list and in the content', async () => {
  const { admin, add } = await adminSite({ page: { describe } });
  const id = await add('a sid', { user: 'u'.repeat(1000), agent: 'x'.repeat(2_000_000) });
  const list = await admin.get();
  expect(list.text.length).toBeLessThan(20_000);
  const { text } = await admin.post(`/s/${id}/reveal`);
  expect(text).toContain('The first 200,000 of ');
  expect(text.length).toBeLessThan(250_000);
  expect(clipped(`${'x'.repeat(9)}\u{1f600}`, 10)).toBe(`${'x'.repeat(9)}\ufffd…`);
});

test('a deeply nested session is shown as it is stored', async () => {
  const { admin, add } = await adminSite();
  const id = await add('a sid');
  const deep = `{"cookie":{},"deep":${'['.repeat(20_000)}${']'.repeat(20_000)}}`;
  await database.query('update sessions set data = $1 where id = $2', [deep, id]);
  const { status, text } = await admin.post(`/s/${id}/reveal`);
  expect(status).toBe(200);
  expect(text).toContain('[[[[[[');
});

test('keys such as __proto__ are shown and pollute no prototype', async () => {
  const { admin, add } = await adminSite({
    page: { describe: () => JSON.parse('{"__proto__":"polluted","constructor":"c"}') },
  });
  const id = await add('a sid');
  const data = '{"cookie":{"originalMaxAge":null},"__proto__":{"polluted":true}}';
  await database.query('update sessions set data = $1 where id = $2', [data, id]);
  const { text } = await admin.get('/', { accept: 'application/json' });
  expect(text).toContain('"described":{"__proto__":"polluted","constructor":"c"}');
  expect((await admin.get()).text).toContain('polluted');
  expect((await admin.post(`/s/${id}/reveal`)).text).toContain('__proto__');
  expect(Reflect.get({}, 'polluted')).toBeUndefined();
});

test('describe may return any value, and the first twelve labels with a usable value are shown', async () => {
  const values = [null, undefined, 'text', 7, ['a', 'b'], new Map([['a', 1]]), Symbol('s')];
  for (const value of values) {
    const { admin, add } = await adminSite({ page: { describe: () => value as never } });
    await add('a sid');
    expect((await admin.get()).status).toBe(200);
    await database.clear();
  }
  const many = Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`label ${n}`, n]));
  const { admin, add } = await adminSite({
    page: {
      describe: () => ({ ...many, 'label 0': {} as never, 'label 1': new Date(Number.NaN) }),
    },
  });
  await add('a sid');
  const { described } = (await admin.json<ListBody>()).sessions[0] ?? {};
  expect(Object.keys(described ?? {})).toEqual(
    Array.from({ length: 12 }, (_, n) => `label ${n + 2}`),
  );
});

test('text is escaped, HTML is not escaped twice', () => {
  const inner = html`<b>${'<'}</b>`;
  expect(String(html`<p title="${`"'&`}">${inner}${[1, inner]}${null}${false}</p>`)).toBe(
    '<p title="&quot;&#39;&amp;"><b>&lt;</b>1<b>&lt;</b></p>',
  );
  expect(visible('a\n\tb\u0000')).toBe('a\n\tb\\u{0}');
});
