import { DrizzleStore } from 'connect-drizzle';
import express, { type Express, type Request, type RequestHandler, type Response } from 'express';
import session from 'express-session';
import type pg from 'pg';
import { adding, type Hands, play, type Setup, type Step, Waits } from './script.js';
import { promised } from './sessions.js';

/** An app, and a function that closes its stores. */
export interface Scripted<App> {
  readonly app: App;
  close(): Promise<void>;
}

/**
 * An Express app whose requests run the steps that the test sends. The header `x-setup` contains the options. Each
 * setup has a session middleware and a store of its own, on the same table.
 */
export function scriptedExpress(pool: pg.Pool): Scripted<Express> {
  const waits = new Waits();
  const setups = new Map<string, { store: DrizzleStore; middleware: RequestHandler }>();

  const setUp = (json: string) => {
    const known = setups.get(json);
    if (known !== undefined) return known;
    const made = fromSetup(pool, JSON.parse(json));
    setups.set(json, made);
    return made;
  };

  const app = express();
  app.get('/arrived/:name', async (request, response) => {
    await waits.arrived(request.params.name);
    response.end();
  });
  app.post('/go/:name', (request, response) => {
    waits.go(request.params.name);
    response.end();
  });
  app.use(express.json());
  app.use((request, response, next) => {
    setUp(request.get('x-setup') ?? '{}').middleware(request, response, next);
  });
  app.post('/play', async (request, response) => {
    const { name, steps }: { name: string; steps: Step[] } = request.body;
    const { store } = setUp(request.get('x-setup') ?? '{}');
    const pass = (count: number) => waits.pass(`${name}.${count}`);
    const played = await play(steps, handsOn(request, response, store), pass);
    response.end(JSON.stringify(played));
  });

  return {
    app,
    async close() {
      for (const { store } of setups.values()) await store.close();
    },
  };
}

function fromSetup(pool: pg.Pool, setup: Setup) {
  const { resave = false, rolling = false, unset = 'keep', maxAge, sid, userKey } = setup;
  const store = new DrizzleStore(pool, {
    pruneSessionInterval: false,
    userId: userKey === undefined ? undefined : (found) => Reflect.get(found, userKey),
  });
  const middleware = session({
    store,
    resave,
    rolling,
    unset,
    saveUninitialized: false,
    secret: 'a secret of 32 characters or more',
    cookie: maxAge === undefined ? {} : { maxAge },
    ...(sid === undefined ? {} : { genid: () => sid }),
  });
  return { store, middleware };
}

function handsOn(request: Request, response: Response, store: DrizzleStore): Hands {
  return {
    session: () => request.session,
    save: () => promised((done) => request.session.save(done)),
    reload: () => promised((done) => request.session.reload(done)),
    destroy: () => promised((done) => request.session.destroy(done)),
    regenerate: () => promised((done) => request.session.regenerate(done)),
    unset: () => void Reflect.set(request, 'session', null),
    add: async (path, by) => void (await store.update(request.sessionID, adding(path, by))),
    write: () => void response.write('\n'),
  };
}
