/**
 * Passport with its local strategy. Passport regenerates the session at log-in and log-out; the store
 * adds "log out everywhere".
 *
 *     npx tsx examples/passport/server.ts                                   in memory
 *     npx tsx examples/passport/server.ts postgres://user:password@host/name
 *
 * Then open http://localhost:3000 and log in as ada with the password difference-engine.
 */
import { scryptSync, timingSafeEqual } from 'node:crypto';
import { DrizzleStore } from 'connect-drizzle';
import express from 'express';
import session from 'express-session';
import passport from 'passport';
import { Strategy } from 'passport-local';

declare module 'express-session' {
  interface SessionData {
    /** Passport keeps the result of `serializeUser` here. */
    passport: { user?: string };
  }
}

declare global {
  namespace Express {
    interface User {
      name: string;
    }
  }
}

const users = new Map([['ada', hash('difference-engine')]]);
const nobody = Buffer.alloc(32);

passport.use(
  new Strategy((name, password, done) => {
    const matches = timingSafeEqual(users.get(name) ?? nobody, hash(password));
    done(null, matches ? { name } : false);
  }),
);
passport.serializeUser((user, done) => done(null, user.name));
passport.deserializeUser((name: string, done) => done(null, users.has(name) ? { name } : false));

const store = new DrizzleStore(process.argv[2] ?? 'memory://', {
  createTableIfMissing: true,
  userId: (session) => session.passport?.user,
});

const app = express();
app.use(express.urlencoded({ extended: false, limit: '10kb' }));
app.use(
  session({
    store,
    secret: process.env.SESSION_SECRET ?? 'good enough for an example',
    resave: false,
    saveUninitialized: false,
    cookie: { sameSite: 'lax', secure: 'auto' },
  }),
);
app.use(passport.session());

app.get('/', (request, response) => {
  response.send(request.user ? loggedInPage(request.user.name) : logInPage());
});

app.post(
  '/login',
  passport.authenticate('local', { successRedirect: '/', failureRedirect: '/?failed' }),
);

app.post('/logout', (request, response, next) => {
  request.logout((error) => (error ? next(error) : response.redirect(303, '/')));
});

app.post('/logout/everywhere', async (request, response) => {
  if (request.user) await store.revokeUser(request.user.name);
  response.redirect(303, '/');
});

await store.ready();
const server = app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1', (error) => {
  if (error) throw error;
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : address;
  console.log(`The page is at http://localhost:${port}`);
});

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => server.close(() => store.close()));
}

function hash(password: string): Buffer {
  // A real app has a salt for each user.
  return scryptSync(password, 'one salt is enough for one user', 32);
}

function logInPage(): string {
  return page(`
    <h1>Log in</h1>
    <form method="post" action="/login">
      <p><label>Name <input name="username" autocomplete="username" required></label></p>
      <p><label>Password <input name="password" type="password" autocomplete="current-password" required></label></p>
      <button>Log in</button>
    </form>`);
}

function loggedInPage(name: string): string {
  return page(`
    <h1>Hello, ${name}</h1>
    <form method="post" action="/logout"><button>Log out</button></form>
    <form method="post" action="/logout/everywhere"><button>Log out everywhere</button></form>`);
}

function page(body: string): string {
  return `<!doctype html>
    <html lang="en">
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>connect-drizzle with Passport</title>
    ${body}`;
}
