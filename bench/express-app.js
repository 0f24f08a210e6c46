/**
 * The app of the end-to-end rows: Express 5 with express-session, and nothing else.
 *
 * @module
 */
import express from 'express';
import session from 'express-session';
import { contents, MAX_AGE_SECONDS } from './sessions.js';

/**
 * @param {session.Store} store
 * @param {number} bytes of each session
 * @returns {Promise<{ port: number, close: () => Promise<void> }>}
 */
export async function serveApp(store, bytes) {
  const content = contents(bytes);
  const app = express();
  app.use(
    session({
      store,
      secret: 'benchmark',
      resave: false,
      saveUninitialized: false,
      rolling: true,
      cookie: { maxAge: MAX_AGE_SECONDS * 1000 },
    }),
  );
  app.get('/login', (request, response) => {
    Object.assign(request.session, content);
    response.json({ views: request.session.views });
  });
  // get + touch
  app.get('/read', (request, response) => {
    response.json({ views: request.session.views });
  });
  // get + set
  app.get('/write', (request, response) => {
    request.session.views += 1;
    response.json({ views: request.session.views });
  });
  const server = app.listen(0, '127.0.0.1');
  await new Promise((resolve, reject) => {
    server.once('listening', resolve);
    server.once('error', reject);
  });
  return {
    port: server.address().port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
