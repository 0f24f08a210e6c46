import { scryptSync, timingSafeEqual } from 'node:crypto';
import { insertUserSchema, type User as UserRow, users } from '@shared/schema';
import { eq } from 'drizzle-orm';
import type { Application } from 'express';
import session from 'express-session';
import passport from 'passport';
import { Strategy } from 'passport-local';
import { db } from './db';
import { store } from './store';

declare global {
  namespace Express {
    interface User extends UserRow {}
  }
}

declare module 'express-session' {
  interface SessionData {
    cart?: string[];
    passport?: { user?: string };
  }
}

function hash(username: string, password: string): string {
  return scryptSync(password, username, 32, { cost: 1024 }).toString('hex');
}

export function setUpAuth(app: Application): void {
  app.set('trust proxy', 1);
  app.use(
    session({
      store,
      secret: process.env.SESSION_SECRET ?? '',
      resave: false,
      saveUninitialized: false,
      cookie: { httpOnly: true, maxAge: 7 * 24 * 60 * 60 * 1000 },
    }),
  );
  app.use(passport.initialize());
  app.use(passport.session());

  passport.use(
    new Strategy(async (username, password, done) => {
      try {
        const [user] = await db.select().from(users).where(eq(users.username, username));
        const given = Buffer.from(hash(username, password));
        const matches = user !== undefined && timingSafeEqual(given, Buffer.from(user.password));
        done(null, matches ? user : false);
      } catch (error) {
        done(error);
      }
    }),
  );
  passport.serializeUser((user, done) => done(null, user.id));
  passport.deserializeUser(async (id: string, done) => {
    try {
      const [user] = await db.select().from(users).where(eq(users.id, id));
      done(null, user ?? false);
    } catch (error) {
      done(error);
    }
  });

  app.post('/api/register', async (request, response) => {
    const { username, password } = insertUserSchema.parse(request.body);
    await db.insert(users).values({ username, password: hash(username, password) });
    response.sendStatus(201);
  });
  app.post('/api/login', passport.authenticate('local'), (request, response) => {
    response.json({ username: request.user?.username });
  });
  app.post('/api/logout', (request, response, next) => {
    request.logout((error) => {
      if (error) return next(error);
      request.session.destroy((failure) => (failure ? next(failure) : response.sendStatus(204)));
    });
  });
}
