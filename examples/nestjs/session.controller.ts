import {
  BadRequestException,
  Body,
  Controller,
  Delete,
  Get,
  Header,
  HttpCode,
  Inject,
  NotFoundException,
  Param,
  Post,
  Redirect,
  Req,
  UseGuards,
} from '@nestjs/common';
import { DrizzleStore, idOf } from 'connect-drizzle';
import type { Request } from 'express';
import { LoggedIn, Member } from './logged-in.js';

declare module 'express-session' {
  interface SessionData {
    /** The name of the user who is logged in. */
    member: string;
    /** How often the user has requested `/me`. */
    asked: number;
  }
}

@Controller()
export class SessionController {
  constructor(@Inject(DrizzleStore) private readonly store: DrizzleStore) {}

  /** A minimal page to log in with a browser. */
  @Get()
  @Header('Content-Type', 'text/html')
  page(@Req() { session }: Request): string {
    if (session.member === undefined) {
      return '<form method="post" action="/login"><label>Name <input name="name"></label> <button>Log in</button></form>';
    }
    return '<p>You are logged in: <a href="/me">me</a>, <a href="/sessions">sessions</a>, <a href="/admin/sessions/">admin page</a></p>';
  }

  /** A real app checks a password here. */
  @Post('login')
  @Redirect('/', 303)
  async logIn(@Req() request: Request, @Body('name') name: unknown): Promise<void> {
    if (typeof name !== 'string' || name === '') throw new BadRequestException('A name, please.');
    await promised((done) => request.session.regenerate(done));
    request.session.member = name;
    await promised((done) => request.session.save(done));
  }

  @Get('me')
  @UseGuards(LoggedIn)
  me(@Req() { session }: Request, @Member() name: string): { name: string; asked: number } {
    session.asked = (session.asked ?? 0) + 1;
    return { name, asked: session.asked };
  }

  @Get('sessions')
  @UseGuards(LoggedIn)
  async sessions(@Req() request: Request, @Member() name: string) {
    const current = idOf(request.sessionID);
    const sessions: { id: string; lastSeenAt: Date; current: boolean }[] = [];
    for await (const { id, lastSeenAt } of this.store.sessions({ userId: name })) {
      sessions.push({ id, lastSeenAt, current: id === current });
    }
    return sessions;
  }

  @Delete('sessions/:id')
  @HttpCode(204)
  @UseGuards(LoggedIn)
  async revoke(@Param('id') id: string, @Member() name: string): Promise<void> {
    for await (const session of this.store.sessions({ userId: name })) {
      if (session.id === id && (await this.store.revoke(id)) > 0) return;
    }
    // The same error for another user's session, because ids are not secret.
    throw new NotFoundException('No such session of yours.');
  }

  @Post('logout')
  @HttpCode(204)
  async logOut(@Req() request: Request): Promise<void> {
    await promised((done) => request.session.destroy(done));
  }
}

function promised(call: (done: (error?: unknown) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()));
  });
}
