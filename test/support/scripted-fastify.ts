import fastifyCookie from '@fastify/cookie';
import fastifySession from '@fastify/session';
import { DrizzleStore } from 'connect-drizzle';
import { type FastifyInstance, type FastifyRequest, fastify } from 'fastify';
import type pg from 'pg';
import { adding, type Hands, play, type Setup, type Step, Waits } from './script.js';
import type { Scripted } from './scripted-express.js';

/** The same app on @fastify/session, with one setup. */
export async function scriptedFastify(
  pool: pg.Pool,
  { rolling = false, maxAge, sid }: Setup = {},
): Promise<Scripted<FastifyInstance>> {
  const waits = new Waits();
  const store = new DrizzleStore(pool, { pruneSessionInterval: false });
  const app = fastify();
  await app.register(fastifyCookie);
  app.get<{ Params: { name: string } }>('/arrived/:name', async (request) => {
    await waits.arrived(request.params.name);
    return '';
  });
  app.post<{ Params: { name: string } }>('/go/:name', async (request) => {
    waits.go(request.params.name);
    return '';
  });
  await app.register(async (scope) => {
    await scope.register(fastifySession, {
      store,
      rolling,
      secret: 'a secret of 32 characters or more',
      saveUninitialized: false,
      cookie: { secure: false, ...(maxAge === undefined ? {} : { maxAge }) },
      ...(sid === undefined ? {} : { idGenerator: () => sid }),
    });
    scope.post<{ Body: { name: string; steps: Step[] } }>('/play', (request) => {
      const { name, steps } = request.body;
      const pass = (count: number) => waits.pass(`${name}.${count}`);
      return play(steps, handsOn(request, store), pass);
    });
  });
  return {
    app,
    async close() {
      await app.close();
      await store.close();
    },
  };
}

function handsOn(request: FastifyRequest, store: DrizzleStore): Hands {
  return {
    session: () => request.session,
    save: () => request.session.save(),
    reload: () => request.session.reload(),
    destroy: () => request.session.destroy(),
    regenerate: () => request.session.regenerate(),
    unset: () => void Reflect.set(request, 'session', null),
    add: async (path, by) => void (await store.update(request.session.sessionId, adding(path, by))),
    write() {
      throw new Error('a hook saves the session before anything is sent');
    },
  };
}
