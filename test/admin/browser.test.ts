import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { type DrizzleStore, idOf } from 'connect-drizzle';
import { sessionAdmin } from 'connect-drizzle/admin';
import express from 'express';
import session, { type SessionData } from 'express-session';
import type {
  Browser,
  BrowserContext,
  BrowserContextOptions,
  Locator,
  Page,
} from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { findChromium, launchChromium } from '../support/chromium.js';
import { database, useDatabase } from '../support/fault-database.js';
import { type Site, serve } from '../support/http.js';
import { sessionWith } from '../support/sessions.js';

const chromium = findChromium();
if (!chromium) {
  console.log('No browser test: no Chromium is installed, and CHROMIUM does not name one.');
}

/** With `SCREENSHOTS=1`, the run takes the pictures of the guide again. */
const pictures = process.env.SCREENSHOTS
  ? fileURLToPath(new URL('../../docs/images/', import.meta.url))
  : undefined;

const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

const laptop = { viewport: { width: 1060, height: 800 } };
const phone = {
  viewport: { width: 360, height: 780 },
  deviceScaleFactor: 2,
  isMobile: true,
  hasTouch: true,
};
const dark = { ...laptop, colorScheme: 'dark' } as const;
const withoutScript = { ...laptop, javaScriptEnabled: false };

declare module 'express-session' {
  interface SessionData {
    role?: string;
  }
}

const PEOPLE = [
  ['Ada', 'Firefox on Linux', '203.0.113.7'],
  ['Grace', 'Safari on iPhone', '198.51.100.24'],
  ['Ada', 'Chrome on Android', '203.0.113.7'],
  ['Katherine', 'Edge on Windows', '192.0.2.180'],
  ['Mary', 'Chrome on macOS', '2001:db8::7a2'],
  ['Hedy', 'Firefox on Windows', '198.51.100.3'],
] as const;

useDatabase();

describe.runIf(chromium)('the admin page in a browser', () => {
  let browser: Browser;
  let store: DrizzleStore;
  let site: Site;
  const contexts: BrowserContext[] = [];
  const complaints: string[] = [];

  beforeAll(async () => {
    browser = await launchChromium(chromium ?? '', [
      '--host-resolver-rules=MAP app.test 127.0.0.1',
    ]);
  });

  afterAll(async () => {
    await browser?.close();
  });

  beforeEach(async () => {
    store = await database.store({ userId: userOf });
    const app = express()
      .get('/favicon.ico', (_, response) => {
        response.status(204).end();
      })
      .use(session({ store, secret: 'x', resave: false, saveUninitialized: false }))
      .get('/login', (request, response) => {
        Object.assign(request.session, {
          role: 'admin',
          ...device('Firefox on macOS', '192.0.2.1'),
        });
        response.end();
      })
      .get('/logout', (request, response) => {
        request.session.destroy(() => response.end());
      })
      .use(
        '/admin/sessions',
        sessionAdmin({
          store,
          authorize: (request) => request.session.role === 'admin',
          describe: ({ browser: Browser, address: Address }: SessionData & Device) => ({
            Browser,
            Address,
          }),
        }),
      );
    site = await serve(app);
  });

  afterEach(async () => {
    for (const context of contexts.splice(0)) await context.close();
    await site.close();
    // Errors in scripts, and what the content security policy blocked.
    expect(complaints.splice(0)).toEqual([]);
  });

  interface Device {
    browser?: string;
    address?: string;
  }
  const device = (name: string, address: string): Device => ({ browser: name, address });
  const userOf = ({ role, user }: SessionData & { user?: string }) => role ?? user;

  async function addPeople() {
    for (const [at, [user, name, address]] of PEOPLE.entries()) {
      await store.set(`sid ${at}`, sessionWith({ user, ...device(name, address) }));
    }
    // Logged in over the last days; the first in the list is the newest.
    await database.query(
      `update sessions set created_at = now() - age * interval '1 minute',
         last_seen_at = now() - age / 5 * interval '1 minute'
       from unnest($1::text[], $2::int[]) as ages (person, age) where id = person`,
      [PEOPLE.map((_, at) => idOf(`sid ${at}`)), [4, 41, 190, 1500, 4400, 9000]],
    );
  }

  /** Opens a page as an admin, in a browser context of its own. */
  async function open(path = '/', options: BrowserContextOptions = laptop): Promise<Page> {
    const context = await browser.newContext({ baseURL: site.url, ...options });
    context.setDefaultTimeout(20_000);
    contexts.push(context);
    context.on('weberror', (error) => complaints.push(String(error.error())));
    context.on('console', (message) => {
      const text = message.text();
      if (message.type() === 'error' && !text.startsWith('Failed to load resource')) {
        complaints.push(text);
      }
    });
    const page = await context.newPage();
    await page.goto('/login');
    await page.goto(`/admin/sessions${path}`);
    return page;
  }

  /** The accessibility violations that axe finds. */
  async function faults(page: Page): Promise<string[]> {
    await page.evaluate(await import('node:fs/promises').then((fs) => fs.readFile(axe, 'utf8')));
    return page.evaluate(`axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
      violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html).join(' ')))`);
  }

  const isLive = (page: Page) => page.getByText('Live', { exact: true }).first().waitFor();
  const items = (page: Page) => page.locator('.session');
  const hasFocus = async (element: Locator) =>
    (await element.and(element.page().locator(':focus')).count()) === 1;

  test.each([
    ['on a laptop', laptop],
    ['on a phone', phone],
    ['in dark mode', dark],
  ])(
    'has no accessibility violation and does not scroll sideways on any page, %s',
    async (_, options) => {
      await addPeople();
      const id = idOf('sid 0');
      await store.destroy('sid 5');
      const page = await open('/', options);
      for (const path of [
        '/',
        '/?user=Ada',
        '/?ended=2',
        '/stats',
        `/s/${id}`,
        `/s/${idOf('sid 5')}`,
        '/none',
      ]) {
        await page.goto(`/admin/sessions${path}`);
        for (const details of await page.locator('details').all()) {
          await details.locator('summary').click();
        }
        expect([path, await faults(page)]).toEqual([path, []]);
        expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(
          true,
        );
      }
      await page.goto(`/admin/sessions/s/${id}`);
      await page.getByRole('button', { name: 'Reveal the content' }).click();
      await page.getByText('"address": "203.0.113.7"').waitFor();
      expect(await faults(page)).toEqual([]);
    },
    180_000,
  );

  test('shows new and ended sessions as they come and go, without a reload', async () => {
    await addPeople();
    const page = await open();
    await isLive(page);
    await page.evaluate('globalThis.marked = true');
    await store.set('new', sessionWith({ user: 'Margaret' }));
    await page.getByRole('link', { name: 'Margaret', exact: true }).waitFor();
    expect(await page.locator('#news').textContent()).toBe('1 new session.');
    await store.destroy('sid 1');
    await page.getByRole('link', { name: 'Grace', exact: true }).waitFor({ state: 'detached' });
    expect(await page.evaluate('globalThis.marked')).toBe(true);
  });

  test('keeps the focus when the list changes, and moves it to the heading when the focused session ends', async () => {
    await addPeople();
    const page = await open();
    await isLive(page);
    const details = page.getByRole('link', { name: /Details of the session of Hedy/ });
    await details.focus();
    await store.set('new', sessionWith({ user: 'Margaret' }));
    await page.getByRole('link', { name: 'Margaret', exact: true }).waitFor();
    expect(await hasFocus(details)).toBe(true);
    await store.destroy('sid 5');
    await details.waitFor({ state: 'detached' });
    expect(await hasFocus(page.locator('#list-title'))).toBe(true);
  });

  test('replaces the page of an admin who has logged out', async () => {
    await addPeople();
    const page = await open();
    await isLive(page);
    await page.context().request.get(`${site.url}/logout`);
    await page.getByRole('heading', { name: 'This page is closed' }).waitFor();
    expect(await page.locator('body').textContent()).not.toContain('Grace');
  });

  test('can be used with the keyboard alone', async () => {
    await addPeople();
    const page = await open();
    const { keyboard } = page;
    const press = async (key: string, until: Locator) => {
      for (let presses = 0; !(await hasFocus(until)); presses += 1) {
        if (presses > 60) throw new Error('It cannot be reached with the keyboard');
        await keyboard.press(key);
      }
    };
    await press('Tab', page.getByRole('link', { name: 'Skip to the content' }));
    await keyboard.press('Enter');
    await press('Tab', page.getByRole('searchbox'));
    await keyboard.type('Ada');
    await keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Sessions of Ada' }).waitFor();
    expect(await items(page).count()).toBe(2);
    await press('Tab', page.getByRole('link', { name: /Details .*Firefox/ }));
    await keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Details' }).waitFor();
    await press('Tab', page.getByRole('button', { name: 'Reveal the content' }));
    await keyboard.press('Enter');
    await press('Tab', page.getByRole('region', { name: 'Stored text' }));
    await press('Shift+Tab', page.locator('summary', { hasText: 'End all others' }));
    await keyboard.press('Enter');
    await press('Tab', page.getByRole('button', { name: 'End all others' }));
    await keyboard.press('Enter');
    await page.getByText('1 session has ended.').waitFor();
    expect(await items(page).count()).toBe(1);
    await press('Tab', page.getByRole('button', { name: 'End the session of Ada' }));
    await keyboard.press('Enter');
    await page.getByText('There are no live sessions.').waitFor();
    await press('Tab', page.getByRole('link', { name: 'Statistics' }));
    await keyboard.press('Enter');
    await press('Tab', page.getByText('Show the numbers'));
    await keyboard.press('Enter');
    await page.getByRole('columnheader', { name: 'Sessions' }).waitFor();
  });

  test('can be used without JavaScript', async () => {
    await addPeople();
    const page = await open('', withoutScript);
    await page.getByRole('searchbox').fill(idOf('sid 3'));
    await page.getByRole('button', { name: 'Find' }).click();
    await page.getByRole('button', { name: 'Reveal the content' }).click();
    await page.getByText('"user": "Katherine"').waitFor();
    await page.getByRole('button', { name: 'End this session' }).click();
    await page.getByText('1 session has ended.').waitFor();
    await page.getByRole('link', { name: 'Ada', exact: true }).first().click();
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Export as JSON' }).click();
    expect((await download).suggestedFilename()).toBe('sessions.json');
    await page.getByText('Erase …').click();
    await page.getByRole('button', { name: 'Erase everything' }).click();
    await page.getByText('Erased. 2 sessions have ended.').waitFor();
    await page.getByRole('link', { name: 'Show all sessions' }).click();
    expect(await items(page).count()).toBe(4);
  });

  test('accepts its own forms on plain HTTP off localhost, where browsers send only Origin', async () => {
    await addPeople();
    // Browsers send no Sec-Fetch-Site to a host that they do not trust.
    const { port } = new URL(site.url);
    const page = await open('/', { ...laptop, baseURL: `http://app.test:${port}` });
    const form = page.waitForRequest((request) => request.method() === 'POST');
    await page.getByRole('button', { name: 'End the session of Hedy' }).click();
    await page.getByText('1 session has ended.').waitFor();
    const headers = await (await form).allHeaders();
    expect(headers['sec-fetch-site']).toBeUndefined();
    expect(headers.origin).toBe(`http://app.test:${port}`);
  });

  async function takePictures(folder: string) {
    const shots = [
      ['admin-desktop', '/', laptop],
      ['admin-phone', '/', phone],
      ['admin-dark', '/', dark],
      ['admin-stats', '/stats', { viewport: { width: 1060, height: 900 } }],
      ['admin-session', `/s/${idOf('sid 0')}`, laptop],
      ['admin-user', '/?user=Ada', laptop],
    ] as const;
    for (const [name, path, options] of shots) {
      await store.clear();
      await addPeople();
      await database.query(
        `insert into sessions (id, data, user_id, created_at, last_seen_at, expires_at, revoked_at)
         select 'id' || lpad(n::text, 41, '0'), '{"cookie":{}}', 'user ' || n,
           now() - interval '8 days' - n * interval '1 minute', now() - interval '1 hour',
           now() + (1 + 6 * abs(sin(n)) + n % 7) * interval '1 day' * (n % 9) / 8,
           case when n % 19 = 0 then now() end
         from generate_series(1, 700) n`,
      );
      await database.query(
        `update sessions set expires_at = now() + interval '7 days' - (now() - last_seen_at)
         where user_id not like 'user %'`,
      );
      const page = await open(path, options);
      if (path !== '/stats') await isLive(page);
      if (path === '/?user=Ada') await page.getByText('End all sessions …').click();
      await page.screenshot({ path: `${folder}${name}.png` });
      await page.context().close();
    }
  }

  if (pictures) test('has its pictures taken for the guide', () => takePictures(pictures));
});
