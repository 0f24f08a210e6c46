import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freshDatabase, type TestDatabase, withDatabase } from './support/database.js';
import { type Example, startExample } from './support/example.js';
import type { Browser } from './support/http.js';

/** The header that a browser sends with a form of the page itself. */
const fromThePage = { 'Sec-Fetch-Site': 'same-origin' };

interface Listed {
  id: string;
  userId: string | null;
  isCurrent: boolean;
  described: Record<string, string>;
}

/** The sessions that the page lists, read as JSON. */
async function listedTo(browser: Browser): Promise<Listed[]> {
  const headers = { Accept: 'application/json' };
  const answer = await browser.get('/admin/sessions/', { headers });
  expect(answer.status).toBe(200);
  return answer.json<{ sessions: Listed[] }>().sessions;
}

/** Ends a session as the page's own form does. */
function end(browser: Browser, id: string) {
  const options = { headers: fromThePage };
  return browser.post(`/admin/sessions/s/${id}/revoke`, new URLSearchParams(), options);
}

describe('the admin page of the express example', () => {
  let database: TestDatabase;
  let example: Example;

  beforeAll(async () => {
    database = await freshDatabase();
    example = await startExample('examples/express/server.ts', { args: [database.url] });
  });

  afterAll(async () => {
    await example?.stop();
    await database?.drop();
  });

  async function loggedIn(name: string, password: string): Promise<Browser> {
    const browser = example.browser();
    const answer = await browser.post('/login', new URLSearchParams({ name, password }));
    expect(answer.status).toBe(303);
    return browser;
  }

  let people = 0;
  /** A new account and a browser that is logged in to it. */
  async function somebody() {
    people += 1;
    const name = `visitor-${people}`;
    const browser = example.browser();
    const form = new URLSearchParams({ name, password: 'some-password' });
    expect((await browser.post('/signup', form)).status).toBe(303);
    return { browser, name };
  }

  const asAdmin = () => loggedIn('admin', 'all-sessions');
  const asAda = () => loggedIn('Ada', 'difference-engine');

  test('admits the admin and shows who is logged in where', async () => {
    await asAda();
    const admin = await asAdmin();
    expect((await admin.get('/')).text).toContain('href="/admin/sessions/"');
    const page = await admin.get('/admin/sessions/');
    expect(page.status).toBe(200);
    expect(page.text).toContain('Ada');
    const ada = (await listedTo(admin)).find(({ described }) => described.Name === 'Ada');
    expect(ada?.described.Address).toBe('127.0.0.1');
    expect(ada?.described.Browser).toBeDefined();
  });

  test('logs a browser out and names the admin in the audit log', async () => {
    const { browser: victim, name } = await somebody();
    const admin = await asAdmin();
    const session = (await listedTo(admin)).find(({ described }) => described.Name === name);
    expect((await end(admin, session?.id ?? '')).status).toBe(303);
    expect((await victim.get('/')).text).not.toContain(`Hello, ${name}`);
    const entry = {
      admin: 'admin',
      action: 'revoke',
      session: session?.id,
      userId: session?.userId,
    };
    expect(example.output).toContain(`Audit: ${JSON.stringify(entry)}\n`);
  });

  test('answers 403 to everyone else, for pages, streams and forms', async () => {
    const ada = await asAda();
    expect((await ada.get('/')).text).not.toContain('/admin/sessions');
    const [session] = await listedTo(await asAdmin());
    for (const browser of [ada, example.browser()]) {
      for (const path of ['', 'stats', 'events', `s/${session?.id}`, 'nothing']) {
        expect((await browser.get(`/admin/sessions/${path}`)).status).toBe(403);
      }
      expect((await end(browser, session?.id ?? '')).status).toBe(403);
    }
    expect((await listedTo(await asAdmin())).map(({ id }) => id)).toContain(session?.id);
  });

  test('refuses a form of another site, even to the admin', async () => {
    const admin = await asAdmin();
    const own = (await listedTo(admin)).find(({ isCurrent }) => isCurrent);
    const headers = { 'Sec-Fetch-Site': 'cross-site' };
    const path = `/admin/sessions/s/${own?.id}/revoke`;
    expect((await admin.post(path, new URLSearchParams(), { headers })).status).toBe(403);
    expect((await admin.get('/')).text).toContain('Hello, admin');
  });

  test('checks the role each time, and refuses a former admin at once', async () => {
    const admin = await asAdmin();
    expect((await admin.get('/admin/sessions/')).status).toBe(200);
    const setRole = (isAdmin: boolean) =>
      database.query("update example_accounts set is_admin = $1 where name = 'admin'", [isAdmin]);
    await setRole(false);
    try {
      expect((await admin.get('/admin/sessions/')).status).toBe(403);
    } finally {
      await setRole(true);
    }
  });

  test('goes by the role, not by the name', async () => {
    const signUp = (name: string) => {
      const form = new URLSearchParams({ name, password: 'some-password' });
      const browser = example.browser();
      return browser.post('/signup', form).then(({ status }) => ({ browser, status }));
    };
    expect((await signUp('ADMIN')).status).toBe(422);
    const { browser, status } = await signUp('admin.');
    expect(status).toBe(303);
    expect((await browser.get('/admin/sessions/')).status).toBe(403);
  });
});

describe('the admin role of the express example', () => {
  test('is not given to an account called admin that an older version has created', () =>
    withDatabase(async (database) => {
      await database.query(
        'create table example_accounts (id serial primary key, name text not null, password text not null)',
      );
      await database.query(
        'create unique index example_accounts_name on example_accounts (lower(name))',
      );
      await database.query("insert into example_accounts (name, password) values ('Admin', 'x.y')");
      await using example = await startExample('examples/express/server.ts', {
        args: [database.url],
      });
      expect(example.output).toContain('The page is at');
      const rows = await database.query(
        "select name, is_admin from example_accounts where lower(name) = 'admin'",
      );
      expect(rows).toEqual([{ name: 'Admin', is_admin: false }]);
    }));
});

describe('the admin page of the NestJS example', () => {
  test('is behind a guard, and works below it', () =>
    withDatabase(async (database) => {
      await using example = await startExample('examples/nestjs/main.ts', { args: [database.url] });
      const logIn = async (name: string) => {
        const browser = example.browser();
        // With the form of the start page.
        expect((await browser.get('/')).text).toContain('action="/login"');
        const answer = await browser.post('/login', new URLSearchParams({ name }));
        expect(answer.headers.get('location')).toBe('/');
        return browser;
      };
      const ada = await logIn('ada');
      const admin = await logIn('admin');
      expect((await admin.get('/')).text).toContain('href="/admin/sessions/"');

      const session = (await listedTo(admin)).find(({ userId }) => userId === 'ada');
      expect(session?.described.Member).toBe('ada');
      for (const browser of [ada, example.browser()]) {
        for (const path of ['', '/', '/stats', '/events', `/s/${session?.id}`]) {
          const answer = await browser.get(`/admin/sessions${path}`);
          expect(answer.status).toBe(403);
          // The guard answers, not the page.
          expect(answer.json()).toMatchObject({ message: 'Forbidden resource' });
        }
        expect((await end(browser, session?.id ?? '')).status).toBe(403);
      }

      // The relative links need the trailing slash.
      const answer = await admin.get('/admin/sessions');
      expect(answer.status).toBe(308);
      expect((await admin.get('/admin/sessions/assets/nothing')).status).toBe(404);

      expect((await end(admin, session?.id ?? '')).status).toBe(303);
      expect((await ada.get('/me')).status).toBe(403);
      expect((await admin.get('/me')).status).toBe(200);
    }));
});
