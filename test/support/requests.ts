import session, { type SessionData, type Store } from 'express-session';

/** A session as a request handler has it. */
export type RequestSession = session.Session & SessionData & Record<string, unknown>;

/** Loads a session as a request does. Throws if there is none. */
export async function loaded(store: Store, sid: string): Promise<RequestSession> {
  const found = await new Promise<SessionData | undefined>((resolve, reject) => {
    store.load(sid, (error, session) => (error ? reject(error) : resolve(session)));
  });
  if (found === undefined) throw new Error(`no session ${sid}`);
  return found as RequestSession;
}

/** The sid and cookie of the next session that a store generates. */
interface Next {
  sid: string;
  cookie: session.CookieOptions;
}

const nexts = new WeakMap<Store, Next>();

/** Returns a session that express-session generates for a request, with this sid. */
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

/** Moves the expiry of a session, as express-session does at the end of a request before it saves or touches it. */
export function ending(session: RequestSession): RequestSession {
  session.touch();
  return session;
}
