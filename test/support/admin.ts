import { type DrizzleStore, type DrizzleStoreOptions, idOf } from 'connect-drizzle';
import { type SessionAdminOptions, sessionAdmin } from 'connect-drizzle/admin';
import express, { type Express } from 'express';
import type { SessionData } from 'express-session';
import type pg from 'pg';
import { database, ends } from './fault-database.js';
import { type Answer, type Browser, type Site, serve } from './http.js';
import { sessionWith } from './sessions.js';

/** The path at which the page is mounted by default. */
export const MOUNT = '/admin/sessions';

/** A site with the admin page. */
export interface AdminSite {
  readonly store: DrizzleStore;
  readonly site: Site;
  /** A client that the app treats as an admin. Its forms look like those of the page. */
  readonly admin: AdminClient;
  /** Stores a session and returns its id. */
  add(sid: string, data?: object, seconds?: number): Promise<string>;
}

export interface AdminSiteOptions {
  readonly store?: DrizzleStoreOptions;
  readonly pool?: pg.Pool;
  readonly page?: Partial<SessionAdminOptions>;
  /** Builds the app around the page. */
  readonly app?: (page: ReturnType<typeof sessionAdmin>, store: DrizzleStore) => Express;
}

/** Headers by which the test app recognises an admin. */
export const asAdmin = { 'x-role': 'admin' };

export const withUser: DrizzleStoreOptions = {
  userId: (session: SessionData & { user?: string }) => session.user,
};

/** Starts a site on the database of the test file. It ends with the test. */
export async function adminSite(options: AdminSiteOptions = {}): Promise<AdminSite> {
  const store = await database.store({ ...withUser, ...options.store }, options.pool);
  const page = sessionAdmin({
    store,
    authorize: (request) => request.get('x-role') === 'admin',
    ...options.page,
  });
  const app = options.app?.(page, store) ?? express().use(MOUNT, page);
  // Does not print errors.
  const site = await serve(quiet(app));
  ends.push(site.close);
  return {
    store,
    site,
    admin: new AdminClient(site.browser()),
    add: async (sid, data = {}, seconds = 3600) => {
      await store.set(sid, sessionWith(data, seconds));
      return idOf(sid);
    },
  };
}

function quiet(app: Express): Express {
  app.use(
    (
      error: unknown,
      _request: express.Request,
      response: express.Response,
      _next: express.NextFunction,
    ) => {
      const name = error instanceof Error ? error.message : String(error);
      response.status(500).send(`The app's error handler: ${name}`);
    },
  );
  return app;
}

export class AdminClient {
  constructor(
    readonly browser: Browser,
    readonly mount = MOUNT,
  ) {}

  get(path = '/', headers: Record<string, string> = {}): Promise<Answer> {
    return this.browser.get(this.mount + path, { headers: { ...asAdmin, ...headers } });
  }

  /** A page as JSON. */
  async json<Body>(path = '/'): Promise<Body> {
    return (await this.get(path, { accept: 'application/json' })).json<Body>();
  }

  /** Submits a form of the page. */
  post(
    path: string,
    fields: Record<string, string> = {},
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    return this.browser.post(this.mount + path, new URLSearchParams(fields), {
      headers: { ...asAdmin, 'sec-fetch-site': 'same-origin', ...headers },
    });
  }
}

/** A session in the page's JSON. */
export interface ListedSession {
  readonly id: string;
  readonly userId: string | null;
  readonly state: string;
  readonly described: Record<string, string>;
  readonly isReadable: boolean;
  readonly isCurrent: boolean;
}

export interface ListBody {
  readonly sessions: ListedSession[];
  readonly next: string | null;
}
