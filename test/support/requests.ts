import session, { type SessionData, type Store } from 'express-session';

/** A session as a handler has it. */
export type RequestSession = session.Session & SessionData & Record<string, unknown>;

/** The session of a sid as a request loads it; fails where there is none. */
export async function loaded(store: Store, sid: string): Promise<RequestSession> {
  const found = await new Promise<SessionData | undefined>((resolve, reject) => {
    store.load(sid, (error, session) => (error ? reject(error) : resolve(session)));
  });
  if (found === undefined) throw new Error(`no session ${sid}`);
  return found as RequestSession;
}

/** What the next session of a store is made with. */
interface Next {
  sid: string;
  cookie: session.CookieOptions;
}

const nexts = new WeakMap<Store, Next>();

/** The session that express-session makes for a request, under the sid that `genid` gives. */
export function generated(
  store: Store,
  sid: string,
  cookie: session.CookieOptions = { maxAge: 3_600_000 },
): RequestSession {
  const next = nexts.get(store) ?? withExpress(store, { sid, cookie });
  Object.assign(next, { sid, cookie });
  const generate: unknown = Reflect.get(store, 'generate');
  const request: { sessionStore: Store; session?: RequestSession } = { sessionStore: store };
  if (typeof generate === 'function') generate.call(store, request);
  if (request.session === undefined) throw new Error('no session was generated');
  return request.session;
}

function withExpress(store: Store, next: Next): Next {
  session({
    store,
    secret: 'secret',
    resave: false,
    saveUninitialized: false,
    genid: () => next.sid,
    cookie: () => next.cookie,
  });
  nexts.set(store, next);
  return next;
}

/** A session whose request ends: express-session has moved its expiry, and will save or touch it. */
export function ending(session: RequestSession): RequestSession {
  session.touch();
  return session;
}
