import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { cp, readFile, symlink } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';
import { DrizzleStore, idOf, type StoredSession } from 'connect-drizzle';
import { build } from 'esbuild';
import type { SessionData } from 'express-session';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { installIn } from '../scripts/install.js';
import { freshDatabase, type TestDatabase } from './support/database.js';
import { asSql, guide, type ImportVariable, importScript, replaced } from './support/guide.js';
import { Browser } from './support/http.js';
import {
  type DrizzleVersion,
  emptyApp,
  linkedApp,
  type Package,
  packagesOf,
  packPackage,
  type ScratchApp,
} from './support/package.js';

// A typical app (test/apps/template) moves from connect-pg-simple by the steps of the guide.

const template = fileURLToPath(new URL('./apps/template', import.meta.url));
const root = fileURLToPath(new URL('../', import.meta.url));

/** The time zones of the app's connections and of psql. */
const appZone = 'America/St_Johns';
const psqlZone = 'Asia/Tokyo';

const minute = 60_000;
const week = 7 * 24 * 60 * minute;

/** Packages of the repository that the app uses, too. */
const shared = ['express', 'passport', 'passport-local', 'connect-pg-simple', 'typescript'].concat(
  ['express', 'express-session', 'node', 'passport', 'passport-local', 'pg'].map(
    (name) => `@types/${name}`,
  ),
);

let packed: Package;
let links: Map<string, string>;
let besideZod: ScratchApp;
/** The path of Drizzle 1.0. */
let drizzleV1: string;
beforeAll(async () => {
  links = await packagesOf('test/apps/template');
  for (const name of shared) links.set(name, `${root}node_modules/${name}`);
  packed = await packPackage();
  // Drizzle 1.0 contains drizzle-zod, and finds zod only in the node_modules folder that it is in itself.
  besideZod = await emptyApp();
  drizzleV1 = `${besideZod.folder}/node_modules/drizzle-orm`;
  const installed = `${installIn('test/drizzle-v1')}/node_modules/drizzle-orm`;
  await cp(installed, drizzleV1, { recursive: true });
  for (const name of ['zod', 'pg']) {
    const path = links.get(name) ?? `${root}node_modules/${name}`;
    await symlink(path, `${besideZod.folder}/node_modules/${name}`, 'dir');
  }
});
afterAll(async () => {
  await besideZod?.[Symbol.asyncDispose]();
});

interface Push {
  readonly code: number;
  readonly output: string;
}

/** The template in a folder of its own, on a database of its own. */
class Template {
  readonly app: ScratchApp;
  readonly database: TestDatabase;

  private constructor(app: ScratchApp, database: TestDatabase) {
    this.app = app;
    this.database = database;
  }

  static async create(drizzle: DrizzleVersion): Promise<Template> {
    const database = await freshDatabase({ settings: { TimeZone: appZone } });
    const app = await linkedApp(packed, drizzle, {
      links: drizzle === '1.0' ? new Map([...links, ['drizzle-orm', drizzleV1]]) : links,
    });
    const made = new Template(app, database);
    for (const path of ['client', 'server', 'shared', 'tsconfig.json', 'vite.config.ts']) {
      await cp(`${template}/${path}`, `${app.folder}/${path}`, { recursive: true });
    }
    await cp(`${template}/drizzle.config.ts`, `${app.folder}/drizzle.config.ts`);
    await app.write(
      '.env',
      `DATABASE_URL=${database.url}\nSESSION_SECRET=one secret before and after\nPORT=0\n`,
    );
    if (drizzle === '1.0') await made.edit('shared/schema.ts', 'drizzle-zod', 'drizzle-orm/zod');
    return made;
  }

  async edit(path: string, pattern: string | RegExp, replacement: string): Promise<void> {
    const text = await readFile(`${this.app.folder}/${path}`, 'utf8');
    await this.app.write(path, replaced(text, pattern, replacement));
  }

  /** `drizzle-kit push`, without a terminal. */
  async push(...args: string[]): Promise<Push> {
    const child = spawn(process.execPath, ['node_modules/drizzle-kit/bin.cjs', 'push', ...args], {
      cwd: this.app.folder,
      env: { ...process.env, DATABASE_URL: this.database.url },
    });
    child.stdin.end();
    return ended(child);
  }

  /** `drizzle-kit push` in a terminal. Presses Enter at each question, and gives this answer to the last one. */
  async pushInTerminal(confirm: 'yes' | 'no'): Promise<Push> {
    const command = `${process.execPath} node_modules/drizzle-kit/bin.cjs push`;
    const child = spawn('script', ['-qefc', command, '/dev/null'], {
      cwd: this.app.folder,
      env: { ...process.env, DATABASE_URL: this.database.url },
    });
    const answered = new Set<string>();
    let seen = '';
    const answer = (question: string, keys: string) => {
      if (answered.has(question)) return;
      answered.add(question);
      child.stdin.write(keys);
    };
    child.stdout.on('data', (chunk: Buffer) => {
      seen = stripVTControlCharacters(seen + chunk);
      for (const [question] of seen.matchAll(
        /Is \S+ (?:column|index)(?: in \S+ table)? created or/g,
      )) {
        answer(question, '\r');
      }
      if (seen.includes('❯ No, abort')) answer('confirm', confirm === 'yes' ? '\x1b[B' : '\r');
      if (seen.includes('❯ Yes')) answer('confirmed', '\r');
    });
    return ended(child);
  }

  /** Builds the server as the script of the app does. */
  async buildServer(outdir: string): Promise<void> {
    await build({
      absWorkingDir: this.app.folder,
      entryPoints: ['server/index.ts'],
      outdir,
      bundle: true,
      platform: 'node',
      packages: 'external',
      format: 'esm',
      logLevel: 'warning',
    });
  }

  async start(folder: string): Promise<Server> {
    const child = this.app.spawn(['--env-file=.env', `${folder}/index.js`]);
    if (child.stdout === null) throw new Error('no stdout');
    for await (const line of createInterface({ input: child.stdout })) {
      const [, port] = /^port (\d+)$/.exec(line) ?? [];
      if (port === undefined) continue;
      const stop = async () => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        child.kill();
        await once(child, 'exit');
      };
      return { url: `http://127.0.0.1:${port}`, stop, [Symbol.asyncDispose]: stop };
    }
    throw new Error('The server did not start');
  }

  /** Runs the script of the guide with psql, or as one query if psql is not installed. */
  async runScript(variables: Partial<Record<ImportVariable, string>>): Promise<void> {
    const script = importScript(variables);
    await this.app.write('import.sql', script);
    const args = ['-X', '-v', 'ON_ERROR_STOP=1', '-f', 'import.sql', this.database.url];
    try {
      await this.app.run('psql', args, { PGTZ: psqlZone });
    } catch (error) {
      if (!(error instanceof Error && /ENOENT/.test(String(error.cause)))) throw error;
      console.warn('psql is not installed: the script is sent as one query instead');
      await this.database.query(asSql(script));
    }
  }

  async count(table: string): Promise<number> {
    const [row] = await this.database.query<{ rows: number }>(
      `select count(*)::int as rows from ${table}`,
    );
    return row?.rows ?? 0;
  }

  async tables(): Promise<string[]> {
    const rows = await this.database.query<{ tablename: string }>(
      `select tablename from pg_tables where schemaname = 'public' order by tablename`,
    );
    return rows.map(({ tablename }) => tablename);
  }

  async columns(table: string): Promise<string[]> {
    const rows = await this.database.query<{ name: string }>(
      `select attname as name from pg_attribute
       where attrelid = $1::regclass and attnum > 0 and not attisdropped order by attname`,
      [table],
    );
    return rows.map(({ name }) => name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.app[Symbol.asyncDispose]();
    await this.database.drop();
  }
}

interface Server {
  readonly url: string;
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

async function ended(child: ChildProcess): Promise<Push> {
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output += chunk;
    });
  }
  const [code] = await once(child, 'close');
  return { code, output: stripVTControlCharacters(output) };
}

/** Returns the guide's code block that starts with a comment naming this file. */
function codeOf(file: string): string {
  const [, code] = new RegExp(`\`\`\`ts\\n// ${file}\\n([^\`]+)\`\`\``).exec(guide) ?? [];
  if (code === undefined) throw new Error(`The guide has no code for ${file}`);
  return code;
}

/** Returns the guide's drizzle-kit command for a version, without `npx drizzle-kit push`. */
function pushArguments(drizzle: DrizzleVersion): string[] {
  if (drizzle === '0.45') {
    expect(guide).toContain('npx drizzle-kit push --force # drizzle-kit 0.31\n');
    return ['--force'];
  }
  const [, hints] = /npx drizzle-kit push --hints '([^']+)' # 1\.0\n/.exec(guide) ?? [];
  if (hints === undefined) throw new Error('The guide has no command for 1.0');
  return ['--hints', hints];
}

/** Renames the constant of the old table and adds the new table, as in the guide. */
async function addTable(template: Template): Promise<void> {
  await template.edit('shared/schema.ts', 'export const sessions =', 'export const oldSessions =');
  const [, imports = '', table = ''] =
    /^(import [^\n]+\n)\n(.+)$/s.exec(codeOf('shared/schema.ts')) ?? [];
  await template.edit('shared/schema.ts', /^/, imports);
  await template.edit('shared/schema.ts', /$/, `\n${table}`);
}

/** Matches the old table in the schema. */
const oldTable = /export const \w+ = pgTable\(\n {2}'sessions',.+?\n\);\n/s;

/** The export that the guide and the error recommend. */
const byName = "export { sessions } from 'connect-drizzle/schema'";

/** util-linux has `script`, which runs a command in a terminal. */
const hasTerminals = existsSync('/usr/bin/script') && process.platform === 'linux';
if (!hasTerminals) {
  console.log('drizzle-kit push is not tested in a terminal: /usr/bin/script of Linux is missing.');
}

const versions: DrizzleVersion[] = ['0.45', '1.0'];
const names = ['ada', 'bob', 'cem', 'dee', 'eve'];

describe.each(versions)('with Drizzle %s', (drizzle) => {
  test('the app moves and everybody stays logged in', async () => {
    await using app = await Template.create(drizzle);
    const { database } = app;
    const steps: string[] = [];
    const timed = async <T>(step: string, work: () => Promise<T>): Promise<T> => {
      const start = performance.now();
      const result = await work();
      steps.push(`${step} ${((performance.now() - start) / 1000).toFixed(1)} s`);
      return result;
    };

    // The app with connect-pg-simple, and 50 people who are logged in.
    expect((await app.push()).output).toContain('Changes applied');
    await app.buildServer('old');
    await using before = await app.start('old');
    const logIn = async (server: Server, username: string) => {
      const browser = new Browser(server.url);
      const { status } = await browser.post('/api/login', { username, password: 'a password' });
      expect(status).toBe(200);
      return browser;
    };
    for (const username of names) {
      const body = { username, password: 'a password' };
      expect((await new Browser(before.url).post('/api/register', body)).status).toBe(201);
    }
    const started = Date.now();
    const people: { name: string; browser: Browser }[] = [];
    for (let at = 0; at < 50; at += 1) {
      const name = names[at % names.length] ?? '';
      people.push({ name, browser: await logIn(before, name) });
    }
    const loggedIn = Date.now();
    expect(await app.count('sessions')).toBe(50);

    await addTable(app);
    const pushed = await timed('push', () => app.push());
    expect(pushed).toMatchObject({ code: 0, output: expect.stringContaining('Changes applied') });
    expect(await app.tables()).toEqual(['sessions', 'user_sessions', 'users']);
    expect(await app.count('sessions')).toBe(50);

    await app.app.write('server/store.ts', codeOf('server/store.ts'));
    await timed('tsc', () => app.app.node(['node_modules/typescript/bin/tsc']));
    await timed('build', async () => {
      await app.app.node(['node_modules/vite/bin/vite.js', 'build']);
      await app.buildServer('new');
    });

    const copy = () => app.runScript({ zone: appZone });
    await timed('copy', copy);
    expect(await app.count('user_sessions')).toBe(50);
    await using store = new DrizzleStore(database.pool(), {
      tableName: 'user_sessions',
      userId: (session: SessionData & { passport?: { user?: string } }) => session.passport?.user,
      pruneSessionInterval: false,
    });
    const userIds = new Map(
      (
        await database.query<{ id: string; username: string }>('select id, username from users')
      ).map(({ id, username }) => [username, id]),
    );
    const cookies = await database.query<{ sid: string; expires: string }>(
      `select sid, sess #>> '{cookie,expires}' as expires from sessions`,
    );
    const expiries = new Map(cookies.map(({ sid, expires }) => [idOf(sid), Date.parse(expires)]));
    for (const name of names) {
      const userId = userIds.get(name);
      if (userId === undefined) throw new Error(`no ${name}`);
      const found: StoredSession[] = [];
      for await (const each of store.sessions({ userId })) found.push(each);
      expect(found).toHaveLength(10);
      for (const { id, createdAt, expiresAt } of found) {
        // Not hours, as with a wrong time zone. connect-pg-simple rounds up to a second.
        const late = expiresAt.getTime() - (expiries.get(id) ?? 0);
        expect(late).toBeGreaterThanOrEqual(0);
        expect(late).toBeLessThan(minute);
        // The log-in is the expiry minus originalMaxAge, which is about a millisecond less than the cookie's maxAge.
        expect(Math.abs(expiresAt.getTime() - createdAt.getTime() - week)).toBeLessThan(minute);
        expect(createdAt.getTime()).toBeGreaterThan(started - minute);
        expect(createdAt.getTime()).toBeLessThan(loggedIn + minute);
      }
    }

    // The old and the new process run side by side.
    await using after = await timed('start', () => app.start('new'));
    const person = (at: number) => {
      const found = people[at];
      if (found === undefined) throw new Error(`nobody at ${at}`);
      return found.browser;
    };
    const moved = (browser: Browser) => {
      const other = new Browser(after.url);
      for (const [name, value] of browser.cookies) other.cookies.set(name, value);
      return other;
    };
    const [loggedOut, changedThere, changedHere, loggedOutHere] = [0, 1, 2, 3].map(person);
    if (!loggedOut || !changedThere || !changedHere || !loggedOutHere) throw new Error('nobody');
    expect((await loggedOut.post('/api/logout')).status).toBe(204);
    expect((await moved(loggedOut).get('/api/user')).status).toBe(200);
    await changedThere.post('/api/cart', { item: 'apples' });
    await moved(changedHere).post('/api/cart', { item: 'pears' });
    expect((await moved(loggedOutHere).post('/api/logout')).status).toBe(204);
    const late = await logIn(before, 'ada');
    await before.stop();

    await timed('copy again', copy);
    for (const browser of [loggedOut, loggedOutHere]) {
      expect((await moved(browser).get('/api/user')).status).toBe(401);
    }
    const carts = new Map([
      [changedThere, ['apples']],
      [changedHere, ['pears']],
    ]);
    const stayed = people.slice(4).concat({ name: 'ada', browser: late });
    for (const [at, browser] of [changedThere, changedHere].entries()) {
      stayed.push({ name: names[at + 1] ?? '', browser });
    }
    for (const { name, browser } of stayed) {
      const answer = await moved(browser).get('/api/user');
      expect(answer.json()).toEqual({ username: name, cart: carts.get(browser) ?? [] });
    }
    // A third run changes nothing.
    const state = () =>
      database.query('select id, version, expires_at, revoked_at from user_sessions order by id');
    const settled = await state();
    await copy();
    expect(await state()).toEqual(settled);

    await database.query('drop table imported_sessions');
    await app.edit('shared/schema.ts', oldTable, '');
    const removed = await timed('push without the old table', () =>
      app.push(...pushArguments(drizzle)),
    );
    expect(removed).toMatchObject({ code: 0, output: expect.stringContaining('Changes applied') });
    expect(await app.tables()).toEqual(['user_sessions', 'users']);
    expect(await state()).toEqual(settled);
    expect((await moved(late).get('/api/user')).status).toBe(200);
    console.log(
      `the template's move with Drizzle ${drizzle}: ${steps.join(', ')}; ${stayed.length} of ${stayed.length} old cookies still logged in`,
    );
  });

  test('drizzle-kit push cannot turn the old table into the new one under the same name', async () => {
    await using app = await Template.create(drizzle);
    await app.push();
    await app.database.query(
      `insert into sessions select 'sid ' || n, '{}', now() + interval '1 day' from generate_series(1, 50) n`,
    );
    await app.edit('shared/schema.ts', oldTable, `${byName};\n`);

    const { code, output } = await app.push();
    expect({ code, output }).toEqual(
      drizzle === '0.45'
        ? { code: 0, output: expect.stringContaining('Interactive prompts require a TTY terminal') }
        : { code: 2, output: expect.stringContaining('unresolved decisions') },
    );
    expect(await app.columns('sessions')).toEqual(['expire', 'sess', 'sid']);
    expect(await app.count('sessions')).toBe(50);
    if (!hasTerminals) return;

    expect((await app.pushInTerminal('no')).output).toContain('All changes were aborted');
    expect(await app.columns('sessions')).toEqual(['expire', 'sess', 'sid']);
    expect(await app.count('sessions')).toBe(50);

    const confirmed = await app.pushInTerminal('yes');
    if (drizzle === '0.45') {
      expect(confirmed.output).toContain('multiple primary keys for table "sessions"');
      expect(await app.count('sessions')).toBe(0);
    } else {
      expect(confirmed.output).toContain(
        'column "expires_at" of relation "sessions" contains null',
      );
      expect(await app.columns('sessions')).toEqual(expect.arrayContaining(['sess', 'version']));
      expect(await app.columns('sessions')).not.toContain('expires_at');
    }
  });

  test('drizzle-kit push drops an old table that is not in the schema, and asks only if it has rows', async () => {
    await using app = await Template.create(drizzle);
    await addTable(app);
    await app.push();
    expect(await app.tables()).toEqual(['sessions', 'user_sessions', 'users']);
    await app.database.query(`insert into sessions values ('a sid', '{}', now())`);
    await app.edit('shared/schema.ts', oldTable, '');
    const asking = await app.push();
    expect(asking.output).not.toContain('Changes applied');
    expect(asking.code).toBe(drizzle === '0.45' ? 0 : 2);
    expect(await app.tables()).toEqual(['sessions', 'user_sessions', 'users']);

    await app.database.query('delete from sessions');
    expect((await app.push()).output).toContain('Changes applied');
    expect(await app.tables()).toEqual(['user_sessions', 'users']);
  });

  test('if two modules export sessions, the error of ready() says how to export the table', async () => {
    await using app = await Template.create(drizzle);
    await app.app.write(
      'shared/other.ts',
      `import { pgTable, text } from 'drizzle-orm/pg-core';
       export const sessions = pgTable('gym_sessions', { id: text('id').primaryKey() });`,
    );
    const everything = `export * from './other';\nexport * from 'connect-drizzle/schema';\n`;
    await app.app.write('shared/schema.ts', everything);
    const { output } = await app.push();
    if (drizzle === '0.45') expect(output).toContain('Changes applied');
    else expect(output).toContain('Cannot redefine property: sessions');
    expect(await app.tables()).not.toContain('sessions');
    await using store = new DrizzleStore(app.database.pool(), { errorLog() {} });
    await expect(store.ready()).rejects.toMatchObject({
      code: 'ERR_TABLE_MISSING',
      message: expect.stringContaining(byName),
    });

    expect(guide).toContain(`\`${byName}\``);
    await app.app.write(
      'shared/schema.ts',
      `export { sessions as gymSessions } from './other';\n${byName};\n`,
    );
    await app.push();
    expect(await app.tables()).toEqual(['gym_sessions', 'sessions']);
    await store.ready();
  });
});

test('the constructor accepts the options of the app, except a ttl in milliseconds', async () => {
  await using database = await freshDatabase();
  await database.query(
    'create table sessions (sid varchar primary key, sess jsonb, expire timestamp)',
  );
  const options = {
    tableName: 'sessions',
    createTableIfMissing: false,
    errorLog() {},
  };
  const pool = database.pool();
  expect(() => new DrizzleStore(pool, { ...options, ttl: week })).toThrow(/^ttl .*seconds/);
  await using store = new DrizzleStore(pool, { ...options, ttl: week / 1000 });
  const failure = await store.ready().catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: 'ERR_TABLE_MISMATCH', owner: 'connect-pg-simple' });
  expect(String(failure)).toContain('set `tableName`');
  expect(String(failure)).toContain('docs/migrating.md');
});
