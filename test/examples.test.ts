import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withDatabase } from './support/database.js';
import { eventsOf, nextEvent } from './support/event-stream.js';
import { type Example, failExample, launch, startExample } from './support/example.js';
import type { Answer, Browser } from './support/http.js';

const app = 'examples/express/server.ts';
const ada = { name: 'Ada', password: 'difference-engine' };

function logIn(browser: Browser, { name, password }: { name: string; password: string }) {
  return browser.post('/login', new URLSearchParams({ name, password }));
}

let people = 0;
/** A new account and a browser that is logged in to it. */
async function somebody(example: Example) {
  people += 1;
  const account = { name: `person-${people}`, password: `password-${people}` };
  const browser = example.browser();
  const answer = await browser.post('/signup', new URLSearchParams(account));
  expect(answer.status).toBe(303);
  return { account, browser };
}

/** Another browser, logged in to the same account. */
async function another(example: Example, account: { name: string; password: string }) {
  const browser = example.browser();
  expect((await logIn(browser, account)).status).toBe(303);
  return browser;
}

/** The ids in the list of devices, this device first. */
function devicesOn({ text }: { text: string }): string[] {
  return [...text.matchAll(/<li class="device" data-id="([^"]+)"/g)].map(([, id]) => id ?? '');
}

function visitsOn({ text }: Answer): number {
  if (text.includes('Your first visit in this session')) return 1;
  return Number(/Visit number <strong>(\d+)<\/strong>/.exec(text)?.[1]);
}

describe('the express example, in memory', () => {
  let example: Example;

  beforeAll(async () => {
    example = await startExample(app);
  });

  afterAll(() => example?.stop());

  test('prints where it stores sessions and the address of its page', () => {
    expect(example.output).toContain('an embedded database in memory');
    expect(example.output).toMatch(/The page is at http:\/\/localhost:\d+/);
  });

  test('counts the visits of each browser in its session', async () => {
    const one = example.browser();
    const other = example.browser();
    for (const visits of [1, 2, 3]) expect(visitsOn(await one.get('/'))).toBe(visits);
    expect(visitsOn(await other.get('/'))).toBe(1);
  });

  test('logs in only with the password that the page shows', async () => {
    const browser = example.browser();
    expect((await browser.get('/')).text).toContain(ada.password);
    const refused = await logIn(browser, { ...ada, password: 'guess' });
    expect(refused.status).toBe(401);
    expect(refused.text).toContain('That name and password do not match.');
    expect((await logIn(browser, { name: 'nobody', password: 'guess' })).status).toBe(401);
    const answer = await logIn(browser, ada);
    expect(answer.status).toBe(303);
    expect(answer.headers.get('location')).toBe('/');
    expect((await browser.get('/')).text).toContain('Hello, Ada');
  });

  test('gives a log-in a new cookie, and the old one is not logged in', async () => {
    const browser = example.browser();
    await browser.get('/');
    const before = browser.copy();
    await logIn(browser, ada);
    expect(browser.cookies.get('sid')).not.toBe(before.cookies.get('sid'));
    expect((await before.get('/')).text).toContain('<h2 id="log-in">Log in</h2>');
  });

  test('signs people up, and refuses a taken name in upper or lower case', async () => {
    const { account, browser } = await somebody(example);
    expect((await browser.get('/')).text).toContain(`Hello, ${account.name}`);
    const same = new URLSearchParams({ ...account, name: account.name.toUpperCase() });
    const answer = await example.browser().post('/signup', same);
    expect(answer.status).toBe(422);
    expect(answer.text).toContain('That name is taken.');
    const short = new URLSearchParams({ name: 'somebody-else', password: 'short' });
    expect((await example.browser().post('/signup', short)).status).toBe(422);
  });

  test('shows form input as text, never as markup', async () => {
    const name = '"><script>alert(1)</script>';
    for (const path of ['/login', '/signup']) {
      const form = new URLSearchParams({ name, password: 'some-password' });
      const { text } = await example.browser().post(path, form);
      expect(text).toContain('value="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"');
      expect(text).not.toContain('<script>');
    }
  });

  test('lists the devices of a person with readable names, this device first', async () => {
    const { account, browser } = await somebody(example);
    const phone = example.browser();
    const agent =
      'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 ' +
      '(KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1';
    const headers = { 'User-Agent': agent };
    await phone.post('/login', new URLSearchParams(account), { headers });
    const page = await phone.get('/', { headers });
    expect(page.text).toContain('Safari on iPhone');
    expect(page.text.match(/This device/g)).toHaveLength(1);
    expect(devicesOn(page)).toEqual(devicesOn(await browser.get('/')).reverse());
    // The list contains ids, and no sid.
    for (const each of [phone, browser]) {
      const sid =
        decodeURIComponent(each.cookies.get('sid') ?? '')
          .slice(2)
          .split('.')[0] ?? '';
      expect(sid).toHaveLength(32);
      expect(page.text).not.toContain(sid);
    }
  });

  test('logs out one device from another, with one button per device', async () => {
    const { account, browser } = await somebody(example);
    const lost = await another(example, account);
    const before = await browser.get('/');
    expect(before.text.match(/<button[^>]*>Log out.*<\/button>/g)).toHaveLength(2);
    expect(before.text).toContain('<button class="plain">Log out here</button>');
    const [, id = ''] = devicesOn(before);
    await browser.post('/devices/logout', new URLSearchParams({ id }));
    expect((await lost.get('/')).text).toContain('<h2 id="log-in">Log in</h2>');
    const page = await browser.get('/');
    expect(page.text).toContain('is logged out.');
    expect(devicesOn(page)).toHaveLength(1);
  });

  test("does not log out another person's device", async () => {
    const { browser: victim } = await somebody(example);
    const { browser: meddler } = await somebody(example);
    const [id = ''] = devicesOn(await victim.get('/'));
    await meddler.post('/devices/logout', new URLSearchParams({ id }));
    expect(devicesOn(await victim.get('/'))).toEqual([id]);
  });

  test('logs out all devices but this one', async () => {
    const { account, browser } = await somebody(example);
    const others = [await another(example, account), await another(example, account)];
    expect((await browser.get('/')).text).toContain('Log out all 2 other devices');
    await browser.post('/devices/others/logout', new URLSearchParams());
    const page = await browser.get('/');
    expect(page.text).toContain('2 other devices are logged out.');
    expect(devicesOn(page)).toHaveLength(1);
    for (const other of others) {
      expect((await other.get('/')).text).toContain('<h2 id="log-in">Log in</h2>');
    }
  });

  test('logs out all tabs that have the cookie', async () => {
    const { browser } = await somebody(example);
    const tab = browser.copy();
    await browser.post('/logout', new URLSearchParams());
    expect(browser.cookies.has('sid')).toBe(false);
    expect((await tab.get('/')).text).toContain('<h2 id="log-in">Log in</h2>');
  });

  test('sends an open page the new list when a device logs in, and ends its stream when it is logged out', async () => {
    const { account, browser } = await somebody(example);
    const events = eventsOf(await browser.open('/events'));
    const first = await nextEvent(events, ({ name }) => name === 'devices');
    expect(devicesOn({ text: first.data })).toHaveLength(1);
    const other = await another(example, account);
    await nextEvent(events, ({ data }) => devicesOn({ text: data }).length === 2);
    await other.post('/devices/others/logout', new URLSearchParams());
    await nextEvent(events, ({ name }) => name === 'ended');
    expect(await events.next()).toMatchObject({ done: true });
  });

  test('ends the stream of a page at once when another tab has logged out', async () => {
    const { browser } = await somebody(example);
    const events = eventsOf(await browser.copy().open('/events'));
    await nextEvent(events, ({ name }) => name === 'devices');
    await browser.post('/logout', new URLSearchParams());
    await nextEvent(events, ({ name }) => name === 'ended');
  });

  test('ends the stream of a page on which nobody is logged in at once', async () => {
    const events = eventsOf(await example.browser().open('/events'));
    expect(await events.next()).toMatchObject({ value: { name: 'ended' } });
  });

  test.each([
    ['Sec-Fetch-Site', { 'Sec-Fetch-Site': 'cross-site' }],
    ['a foreign Origin', { Origin: 'https://evil.example' }],
    ['an opaque Origin', { Origin: 'null' }],
  ])('refuses a form of another site by %s', async (_how, headers) => {
    const { browser } = await somebody(example);
    const answer = await browser.post('/logout', new URLSearchParams(), { headers });
    expect(answer.status).toBe(403);
    expect((await browser.get('/')).text).toContain('Log out here');
  });

  test('accepts a form of its own page', async () => {
    const { browser } = await somebody(example);
    const headers = { 'Sec-Fetch-Site': 'same-origin', Origin: example.url };
    expect((await browser.post('/logout', new URLSearchParams(), { headers })).status).toBe(303);
  });

  test('hides its cookie from scripts and other sites, and keeps its pages out of caches and frames', async () => {
    const { headers } = await example.browser().get('/');
    expect(headers.getSetCookie().join()).toMatch(/sid=.*HttpOnly; SameSite=Lax/);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
  });

  test('answers unknown addresses and bad input without a stack trace', async () => {
    const browser = example.browser();
    expect((await browser.get('/nothing')).status).toBe(404);
    const big = await browser.post('/login', new URLSearchParams({ name: 'x'.repeat(20_000) }));
    expect(big.status).toBe(413);
    expect(big.text).not.toContain('node_modules');
    const odd = await browser.post('/login', new URLSearchParams('name=a&name=b&__proto__=c'));
    expect(odd.status).toBe(401);
  });
});

describe('the express example, started and stopped', () => {
  test('starts with npm start and stops on a signal', async () => {
    const run = launch('npm', ['start']);
    const url = await run.until(/http:\/\/localhost:\d+/);
    const response = await fetch(url);
    expect(response.status).toBe(200);
    const cookie = response.headers.getSetCookie()[0]?.split(';')[0] ?? '';
    await fetch(`${url}/login`, {
      method: 'POST',
      body: new URLSearchParams(ada),
      headers: { cookie },
      redirect: 'manual',
    });
    await run.stop();
    expect(run.output).toContain('Stopped.');
  });

  test('stops on a signal while a page listens for events', async () => {
    const example = await startExample(app);
    const { browser } = await somebody(example);
    const events = eventsOf(await browser.open('/events'));
    await nextEvent(events, ({ name }) => name === 'devices');
    expect(await example.stop('SIGINT')).toBe(0);
    expect(example.output).toContain('Stopped.');
  });

  test('keeps sessions and accounts in a folder across a restart, for one process at a time', async () => {
    const folder = join(await mkdtemp(join(tmpdir(), 'connect-drizzle-example-')), 'data');
    try {
      const first = await startExample(app, { args: [folder] });
      expect(first.output).toContain(folder);
      const { account, browser } = await somebody(first);
      expect(visitsOn(await browser.get('/'))).toBe(1);

      const second = await failExample(app, { args: [folder] });
      expect(second.code).toBe(1);
      expect(second.output).toMatch(/is in use by process \d+\.\n$/);

      expect(await first.stop()).toBe(0);
      await using again = await startExample(app, { args: [folder] });
      const returned = again.browser();
      returned.cookies.set('sid', browser.cookies.get('sid') ?? '');
      expect(visitsOn(await returned.get('/'))).toBe(2);
      expect((await logIn(again.browser(), account)).status).toBe(303);
    } finally {
      await rm(join(folder, '..'), { recursive: true, force: true });
    }
  });

  test('opens the folder of a process that was killed', async () => {
    const folder = join(await mkdtemp(join(tmpdir(), 'connect-drizzle-example-')), 'data');
    try {
      const first = await startExample(app, { args: [folder] });
      const { browser } = await somebody(first);
      await browser.get('/');
      await first.stop('SIGKILL');
      await using again = await startExample(app, { args: [folder] });
      const returned = again.browser();
      returned.cookies.set('sid', browser.cookies.get('sid') ?? '');
      expect(visitsOn(await returned.get('/'))).toBe(2);
    } finally {
      await rm(join(folder, '..'), { recursive: true, force: true });
    }
  });

  test('updates a page of one process at once when a session changes in another, on Postgres', () =>
    withDatabase(async (database) => {
      // Both processes create the tables at once.
      const [one, two] = await Promise.all([
        startExample(app, { args: [database.url] }),
        startExample(app, { env: { DATABASE_URL: database.url } }),
      ]);
      await using _one = one;
      await using _two = two;
      const { password } = new URL(database.url);
      expect(password).not.toBe('');
      for (const { output } of [one, two]) {
        expect(output).toContain(database.name);
        expect(output).not.toContain(`:${password}@`);
      }

      const { account, browser } = await somebody(one);
      const elsewhere = await another(two, account);
      const events = eventsOf(await browser.open('/events'));
      await nextEvent(events, ({ data }) => devicesOn({ text: data }).length === 2);
      await elsewhere.post('/devices/others/logout', new URLSearchParams());
      await nextEvent(events, ({ name }) => name === 'ended');
      expect((await browser.get('/')).text).toContain('<h2 id="log-in">Log in</h2>');

      const rows = await database.query<{ id: string }>('select id from sessions');
      expect(rows.length).toBeGreaterThan(0);
      expect(devicesOn(await elsewhere.get('/'))).toHaveLength(1);
    }));

  test('says in one line why it cannot start', async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
    const address = taken.address();
    if (address === null || typeof address === 'string') throw new Error('no port');
    const port = String(address.port);
    try {
      const reasons: [string, Parameters<typeof failExample>[1]][] = [
        [`Port ${port} is taken. Choose another`, { env: { PORT: port } }],
        ['PORT must be a number', { env: { PORT: 'eighty' } }],
        ['"mysql://me:***@host/name" is neither', { args: ['mysql://me:hidden@host/name'] }],
        [
          'postgres://me:***@127.0.0.1:1/name does not answer',
          { args: ['postgres://me:hidden@127.0.0.1:1/name'] },
        ],
        ['Usage: npm start', { args: ['one', 'two'] }],
        ['Set SESSION_SECRET', { env: { NODE_ENV: 'production' } }],
      ];
      for (const [reason, options] of reasons) {
        const { code, output } = await failExample(app, options);
        expect(output).toContain(reason);
        expect(output).not.toContain('hidden');
        expect(output.trim().split('\n')).toHaveLength(1);
        expect(code).toBe(1);
      }
    } finally {
      await new Promise((resolve) => taken.close(resolve));
    }
  });
});

describe('the passport example', () => {
  test('logs in, shows who is logged in, and logs out here or everywhere', async () => {
    await using example = await startExample('examples/passport/server.ts');
    const right = new URLSearchParams({ username: 'ada', password: 'difference-engine' });
    const wrong = new URLSearchParams({ username: 'ada', password: 'guess' });
    const one = example.browser();
    const other = example.browser();

    expect((await one.post('/login', wrong)).headers.get('location')).toBe('/?failed');
    for (const browser of [one, other]) {
      expect((await browser.post('/login', right)).headers.get('location')).toBe('/');
      expect((await browser.get('/')).text).toContain('Hello, ada');
    }
    const before = one.copy();
    await one.post('/logout', new URLSearchParams());
    for (const browser of [one, before]) {
      expect((await browser.get('/')).text).toContain('Log in');
    }
    expect((await other.get('/')).text).toContain('Hello, ada');

    await one.post('/login', right);
    await other.post('/logout/everywhere', new URLSearchParams());
    for (const browser of [one, other]) {
      expect((await browser.get('/')).text).toContain('Log in');
    }
    expect(await example.stop()).toBe(0);
  });
});

describe('the NestJS example', () => {
  test('logs in, lists the sessions of a person and revokes one, on Postgres', () =>
    withDatabase(async (database) => {
      await using example = await startExample('examples/nestjs/main.ts', {
        args: [database.url],
      });
      interface Listed {
        id: string;
        current: boolean;
      }
      const one = example.browser();
      const other = example.browser();
      expect((await one.get('/me')).status).toBe(403);
      expect((await one.post('/login', { name: 7 })).status).toBe(400);
      for (const browser of [one, other]) {
        expect((await browser.post('/login', { name: 'ada' })).status).toBe(303);
      }
      expect((await one.get('/me')).json()).toEqual({ name: 'ada', asked: 1 });
      expect((await one.get('/me')).json()).toEqual({ name: 'ada', asked: 2 });

      const listed = (await one.get('/sessions')).json<Listed[]>();
      expect(listed.map(({ current }) => current).sort()).toEqual([false, true]);
      const id = listed.find(({ current }) => !current)?.id;

      const stranger = example.browser();
      await stranger.post('/login', { name: 'grace' });
      expect((await stranger.fetch(`/sessions/${id}`, { method: 'DELETE' })).status).toBe(404);
      expect((await one.fetch(`/sessions/${id}`, { method: 'DELETE' })).status).toBe(204);
      expect((await other.get('/me')).status).toBe(403);
      expect((await one.get('/me')).json()).toEqual({ name: 'ada', asked: 3 });

      expect((await one.post('/logout')).status).toBe(204);
      expect((await one.get('/me')).status).toBe(403);
      expect(await example.stop()).not.toBe(1);
    }));
});

describe('the OpenTelemetry example', () => {
  test('prints the spans of the operations of a request, and metrics when it stops', async () => {
    await using example = await startExample('examples/opentelemetry/server.ts');
    const browser = example.browser();
    expect((await browser.get('/')).text).toBe('Opened 1 times in this session.\n');
    expect((await browser.get('/')).text).toBe('Opened 2 times in this session.\n');
    await example.stop();

    const spans = spansIn(example.output);
    const request = spans.findLast(({ name }) => name === 'GET /');
    expect(request).toBeDefined();
    const below = spans.filter(({ parent }) => parent === request?.id).map(({ name }) => name);
    expect(below).toEqual(expect.arrayContaining(['session get', 'session set']));
    expect(spans.map(({ name }) => name)).toContain('session statement');

    expect(example.output).toContain("name: 'connect_drizzle.operation.duration'");
    expect(example.output).toContain("name: 'connect_drizzle.hits'");
    const sid = decodeURIComponent(browser.cookies.get('connect.sid') ?? '')
      .slice(2)
      .split('.')[0];
    expect(sid).toHaveLength(32);
    expect(example.output).not.toContain(sid);
  });
});

/** The spans that the console exporter printed. */
function spansIn(output: string): { name?: string; id?: string; parent?: string }[] {
  return output.split(/^\{$/m).map((block) => ({
    name: /^ {2}name: '(.*)',$/m.exec(block)?.[1],
    id: /^ {2}id: '(.*)',$/m.exec(block)?.[1],
    parent: /spanId: '(.*)',$/m.exec(block)?.[1],
  }));
}
