/**
 * NestJS on Express: the store is a provider, the session middleware is Express's own, and the store
 * is closed with the app.
 *
 *     npx tsx examples/nestjs/main.ts                                   in memory
 *     npx tsx examples/nestjs/main.ts postgres://user:password@host/name
 *
 * In a browser, open http://localhost:3000 and log in with any name. As "admin", open
 * /admin/sessions/ to see and end all sessions.
 *
 * An API to try with curl and a cookie jar (-c jar -b jar):
 *
 *     POST   /login {"name":"ada"}   a new session for ada
 *     GET    /me                     who is logged in, and how often they requested this
 *     GET    /sessions               the user's sessions
 *     DELETE /sessions/:id           ends one of them
 *     POST   /logout
 */
import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import type { NestExpressApplication } from '@nestjs/platform-express';
import { DrizzleStore } from 'connect-drizzle';
import session from 'express-session';
import { AppModule } from './app.module.js';

const app = await NestFactory.create<NestExpressApplication>(AppModule, {
  logger: ['warn', 'error'],
});
app.use(
  session({
    store: app.get(DrizzleStore),
    secret: process.env.SESSION_SECRET ?? 'good enough for an example',
    resave: false,
    saveUninitialized: false,
    cookie: { sameSite: 'lax', secure: 'auto' },
  }),
);
app.enableShutdownHooks();
await app.listen(Number(process.env.PORT ?? 3000), '127.0.0.1');
console.log(`The API is at ${await app.getUrl()}`);
