// Runs snippets one after the other: node runner.js. Environment: DATABASE_URL, and SNIPPETS, a JSON list of
// { place, file, request?: { method, path } }. Prints a line of JSON for each: { place, error?, status?, body? }.
import { Server } from 'node:http';
import { DrizzleStore } from 'connect-drizzle';
import express from 'express';
import session from 'express-session';
import pg from 'pg';

/** The servers that a snippet has started. Each listens on a free port, whatever its code says. */
const servers = new Set();
const { listen, close } = Server.prototype;
Server.prototype.listen = function (...args) {
  servers.add(this);
  const callbacks = args.filter((arg) => typeof arg === 'function');
  // Without a host, `address()` is known at once.
  return args[0] === 0
    ? listen.call(this, 0, ...callbacks)
    : listen.call(this, 0, '127.0.0.1', ...callbacks);
};

Server.prototype.close = function (...args) {
  servers.delete(this);
  return close.apply(this, args);
};

/**
 * Sends the request that a snippet asks for, or else `GET /`, which may be missing.
 *
 * @param {Server} server
 */
async function request(server, path = '/', method = 'GET', isExpected = false) {
  if (!server.listening) await new Promise((resolve) => server.once('listening', resolve));
  const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`, {
    method,
    redirect: 'manual',
    signal: AbortSignal.timeout(30_000),
  });
  const body = await response.text();
  if (response.status >= 500 || (isExpected && response.status === 404)) {
    throw new Error(`${method} ${path}: ${response.status} ${body.slice(0, 500)}`);
  }
  return { status: response.status, body };
}

/** The last failure response of a server, because a snippet may ignore it. */
let lastFailure = '';
const { fetch } = globalThis;
globalThis.fetch = async (...args) => {
  const response = await fetch(...args);
  if (response.status >= 500) lastFailure = await response.clone().text();
  return response;
};

async function run({ place, file, request: expected }) {
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
  const store = new DrizzleStore(pool, {
    createTableIfMissing: true,
    userId: (data) => data.userId,
    errorLog() {},
  });
  await store.ready();
  const app = express();
  app.use(session({ store, secret: 'a secret', resave: false, saveUninitialized: false }));
  const req = { sessionID: 'a sid', path: '/' };
  Object.assign(globalThis, { DrizzleStore, store, pool, app, req });
  globalThis.old = async function* () {
    yield ['the sid of another store', { cookie: { originalMaxAge: 60_000 } }];
  };
  servers.clear();
  let answer = {};
  await import(file);
  for (const server of servers) {
    answer = await (expected === undefined
      ? request(server)
      : request(server, expected.path, expected.method, true));
    server.close();
  }
  return { place, ...answer };
}

process.on('unhandledRejection', (error) => {
  process.stdout.write(`\n@${JSON.stringify({ place: 'unhandled', error: String(error) })}\n`);
});
// Keeps the process alive while a snippet waits for something that does not.
setInterval(() => {}, 60_000);
for (const snippet of JSON.parse(process.env.SNIPPETS)) {
  const result = await run(snippet).catch((error) => ({
    place: snippet.place,
    error: `${error?.stack ?? error} ${lastFailure}`,
  }));
  // Starts a new line, because a snippet may have printed part of one.
  process.stdout.write(`\n@${JSON.stringify(result)}\n`);
}
process.exit(0);
