/**
 * The app of the end-to-end rows: only Express 5 with express-session.
 *
 * @module
 */
import express from 'express';
import session from 'express-session';
import { MAX_AGE_SECONDS, SECRET } from './sessions.js';

/**
 * @param {session.Store} store
 * @returns {Promise<{ port: number, close: () => Promise<void> }>}
 */
export async function serveApp(store) {
  const app = express();
  app.use(
    session({
      store,
      secret: SECRET,
      resave: false,
      saveUninitialized: false,
      rolling: true,
      cookie: { maxAge: MAX_AGE_SECONDS * 1000 },
    }),
  );
  const answer = (/** @type {import('express').Request} */ { session: { views } }, response) => {
    if (views === undefined) response.status(401).json({ error: 'the session was not found' });
    else response.json({ views });
  };
  // get + touch
  app.get('/read', answer);
  // get + set
  app.get('/write', (request, response) => {
    if (request.session.views !== undefined) request.session.views += 1;
    answer(request, response);
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
