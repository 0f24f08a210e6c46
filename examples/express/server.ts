/**
 * The example app: two races between requests, "your devices" live, and the admin page.
 *
 *     npm start                                          an embedded database in memory
 *     npm start -- ./data                                in a folder, which survives a restart
 *     npm start -- postgres://user:password@host/name    a Postgres server
 *
 * PORT (3000) and HOST (127.0.0.1) set the address, DATABASE_URL replaces the argument, and
 * SESSION_SECRET signs the cookies.
 */
import { once } from 'node:events';
import { createServer } from 'node:http';
import { DrizzleStore } from 'connect-drizzle';
import { Accounts, demoAccounts } from './accounts.js';
import { createApp } from './app.js';
import { openDatabase, StartError } from './database.js';
import { Live } from './live.js';
import { PlainStore } from './plain-store.js';

/** Functions that close what is open, in the order of opening. */
const open: (() => unknown)[] = [];

async function start(): Promise<void> {
  const [source = process.env.DATABASE_URL || undefined, ...rest] = process.argv.slice(2);
  if (rest.length > 0) {
    throw new StartError('Usage: npm start [-- postgres://user:password@host/name | ./folder]');
  }
  const port = portOf(process.env.PORT || '3000');
  const host = process.env.HOST || '127.0.0.1';
  const secret = secretOf(process.env.SESSION_SECRET);

  const database = await openDatabase(source);
  open.push(() => database.close());
  const accounts = new Accounts(database.db);
  await accounts.prepare();
  const plainStore = new PlainStore(database.db);
  await plainStore.prepare();

  const store = new DrizzleStore(database.db, {
    createTableIfMissing: true,
    // Notifies every process of changes, so that pages update live.
    sync: true,
    // The owner of a session, for "your devices".
    userId: (session) => session.account?.id,
    maxSessionsPerUser: 20,
  });
  open.push(() => store.close());
  await store.ready();

  const live = new Live(store);
  const storage = database.kind;
  const server = createServer(createApp({ store, plainStore, accounts, live, storage, secret }));
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    throw new StartError(listenProblem(error, host, port));
  }
  open.push(async () => {
    const closed = once(server, 'close');
    server.close();
    live.close();
    // A connection that was busy when the server closed becomes idle after its response.
    const timer = setInterval(() => server.closeIdleConnections(), 50);
    await closed;
    clearInterval(timer);
  });

  const address = server.address();
  const shown = typeof address === 'object' && address ? address.port : port;
  const name = ['127.0.0.1', '0.0.0.0', '::1', '::'].includes(host) ? 'localhost' : host;
  const [demo] = demoAccounts;
  console.log(`Sessions are stored in ${database.name}.`);
  console.log(`The page is at http://${name}:${shown}`);
  console.log(
    `Log in as ${demo.name} with the password ${demo.password}. Ctrl+C stops the server.`,
  );
}

/** Closes everything, the last opened first. */
async function closeAll(): Promise<void> {
  for (let close = open.pop(); close; close = open.pop()) await close();
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port > 65_535) {
    throw new StartError(`PORT must be a number from 0 to 65535, but is ${JSON.stringify(text)}.`);
  }
  return port;
}

function secretOf(given: string | undefined): string {
  if (given) return given;
  if (process.env.NODE_ENV === 'production') {
    throw new StartError('Set SESSION_SECRET: the default of the example is not for production.');
  }
  // The same at every start, so that cookies work after a restart.
  return 'good enough for an example on your own machine';
}

function listenProblem(error: unknown, host: string, port: number): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'EADDRINUSE') {
    return `Port ${port} is taken. Choose another: PORT=${port + 1} npm start`;
  }
  if (code === 'EACCES') return `You may not use port ${port}. Choose one above 1023.`;
  return `The server cannot listen on ${host}:${port}: ${String(code ?? error)}`;
}

let stopping = false;
async function stop(): Promise<void> {
  // Only once: npm forwards a Ctrl+C that the terminal has already sent.
  if (stopping) return;
  stopping = true;
  setTimeout(() => process.exit(1), 10_000).unref();
  await closeAll();
  console.log('Stopped.');
  process.exit(0);
}

process.on('SIGINT', stop);
process.on('SIGTERM', stop);
if (process.env.npm_lifecycle_event) {
  // npm starts this in a shell, which ends at a SIGTERM and does not forward it.
  const shell = process.ppid;
  setInterval(() => process.ppid !== shell && stop(), 500).unref();
}

try {
  await start();
} catch (error) {
  console.error(error instanceof StartError ? error.message : error);
  process.exitCode = 1;
  await closeAll();
}
