/**
 * The routes of the page: what each reads or does, and its responses as HTML and as JSON.
 *
 * @module
 */
import type { Request, Response } from 'express';
import { idOf, isId } from '../session/id.js';
import { property } from '../util/guards.js';
import { ASSETS } from './assets/assets.js';
import { EventStreams } from './events.js';
import { sendExport } from './export.js';
import { HttpError } from './guard.js';
import type { Page, Root } from './layout.js';
import { listPage } from './list-page.js';
import type { AdminSettings, AuditEvent } from './options.js';
import { fieldsOf } from './request.js';
import { sessionPage } from './session-page.js';
import { AdminSessions, type ShownSession } from './sessions.js';
import type { Place } from './statements.js';
import { statsPage } from './stats-page.js';
import { TableTotals } from './totals.js';

export interface Context {
  readonly request: Request;
  readonly response: Response;
  readonly query: URLSearchParams;
  /** The part of the path that matched the route's pattern. */
  readonly match: string;
  readonly root: Root;
}

/** A page, or a redirect after an action, and the same as JSON; `undefined` if the route has sent a response. */
export type Reply =
  | { readonly page: Page; readonly json: object }
  | { readonly location: string; readonly json?: object }
  | undefined;

export interface Route {
  readonly method: 'GET' | 'POST';
  readonly pattern: RegExp;
  readonly root: Root;
  readonly handle: (context: Context) => Promise<Reply>;
}

const PAGE_ROWS = 50;

export function routesOf(settings: AdminSettings): readonly Route[] {
  const sessions = new AdminSessions(settings);
  const totals = new TableTotals(settings.access);
  const streams = new EventStreams(settings);

  const audit = async ({ request }: Context, event: Omit<AuditEvent, 'request'>) => {
    await settings.audit?.({ ...event, request });
  };

  const find = async (id: string): Promise<ShownSession> => {
    const session = await sessions.one(id);
    if (session === undefined) throw new HttpError(404, 'There is no session with this id.');
    return session;
  };

  async function list({ request, query }: Context): Promise<Reply> {
    const q = query.get('q');
    if (q !== null) return { location: await placeOf(q) };
    const user = query.get('user') ?? undefined;
    const before = cursorIn(query.get('before'));
    const [page, counted] = await Promise.all([
      sessions.page(user, before, PAGE_ROWS),
      totals.soon(),
    ]);
    const cursor = page.next && `${page.next.createdUs}.${page.next.id}`;
    const currentId = currentIdOf(request);
    return {
      page: listPage({
        ...page,
        user,
        cursor,
        currentId,
        isFirst: before === undefined,
        hasUsers: sessions.hasUsers,
        totals: counted,
        notice: noticeIn(query),
      }),
      json: {
        sessions: page.sessions.map((each) => sessionJson(each, currentId)),
        next: cursor ?? null,
      },
    };
  }

  /** Returns the page for a search text: a session's id, or a user. */
  async function placeOf(text: string): Promise<string> {
    if (text === '') return './';
    const isSession =
      isId(text) && (!sessions.hasUsers || (await sessions.one(text)) !== undefined);
    if (isSession) return `./s/${text}`;
    if (sessions.hasUsers) return `./?user=${encodeURIComponent(text.toWellFormed())}`;
    throw new HttpError(404, 'There is no session with this id.');
  }

  async function show(context: Context): Promise<Reply> {
    return detailsOf(context, await find(context.match));
  }

  async function reveal(context: Context): Promise<Reply> {
    const { match: id } = context;
    const session = await find(id);
    await audit(context, { action: 'reveal', id, userId: session.userId });
    const content = session.state === 'revoked' ? undefined : await sessions.content(id);
    return detailsOf(context, session, content ?? null);
  }

  /** Returns the page of a session, with its content if it was revealed. */
  function detailsOf(
    { request, root, query }: Context,
    session: ShownSession,
    content?: string | null,
  ): Reply {
    const currentId = currentIdOf(request);
    return {
      page: sessionPage({
        root,
        session,
        isCurrent: session.id === currentId,
        hasUsers: sessions.hasUsers,
        content,
        notice: noticeIn(query),
      }),
      // JSON omits `content` if it is undefined.
      json: { session: sessionJson(session, currentId), content },
    };
  }

  async function revoke(context: Context): Promise<Reply> {
    const { match: id, root, query } = context;
    const { userId } = await find(id);
    await audit(context, { action: 'revoke', id, userId });
    const ended = await sessions.revoke(id);
    totals.invalidate();
    // Back to the list with the button, which may be the list of a user.
    const user = query.get('user');
    const location = user ? afterUser(context, user, `ended=${ended}`) : `${root}?ended=${ended}`;
    return { location, json: { ended } };
  }

  async function revokeUser(context: Context): Promise<Reply> {
    const field = await fieldsIn(context);
    const userId = sessions.owner(field('user') ?? '');
    const keep = field('keep');
    if (keep !== undefined && !isId(keep)) throw new HttpError(400, 'keep must be a session id.');
    await audit(context, { action: 'revokeUser', id: keep, userId });
    const ended = await sessions.revokeUser(userId, keep);
    totals.invalidate();
    return { location: afterUser(context, userId, `ended=${ended}`), json: { ended } };
  }

  async function eraseUser(context: Context): Promise<Reply> {
    const field = await fieldsIn(context);
    const userId = sessions.owner(field('user') ?? '');
    await audit(context, { action: 'eraseUser', id: undefined, userId });
    // This deletes content and user, also of expired sessions.
    const ended = await sessions.revokeUser(userId);
    totals.invalidate();
    return { location: afterUser(context, userId, `erased=${ended}`), json: { ended } };
  }

  async function exportUser(context: Context): Promise<Reply> {
    const field = await fieldsIn(context);
    const userId = sessions.owner(field('user') ?? '');
    await audit(context, { action: 'exportUser', id: undefined, userId });
    await sendExport(context.response, userId, sessions.ofUser(userId));
    return undefined;
  }

  async function stats(): Promise<Reply> {
    const view = { totals: await totals.read(), stats: settings.store.stats() };
    return { page: statsPage(view), json: view };
  }

  async function events({ request, response }: Context): Promise<Reply> {
    streams.open(request, response, currentIdOf(request));
    return undefined;
  }

  async function asset({ response, match: name }: Context): Promise<Reply> {
    const found = ASSETS.get(name);
    if (found === undefined) throw new HttpError(404, 'There is nothing at this address.');
    response.setHeader('Content-Type', found.type);
    response.end(found.text);
    return undefined;
  }

  return [
    { method: 'GET', pattern: /^\/()$/, root: './', handle: list },
    { method: 'GET', pattern: /^\/(stats)$/, root: './', handle: stats },
    { method: 'GET', pattern: /^\/(events)$/, root: './', handle: events },
    { method: 'GET', pattern: /^\/assets\/([\w.-]+)$/, root: '../', handle: asset },
    { method: 'GET', pattern: /^\/s\/([\w-]{43})$/, root: '../', handle: show },
    { method: 'POST', pattern: /^\/s\/([\w-]{43})\/reveal$/, root: '../../', handle: reveal },
    { method: 'POST', pattern: /^\/s\/([\w-]{43})\/revoke$/, root: '../../', handle: revoke },
    { method: 'POST', pattern: /^\/users\/(revoke)$/, root: '../', handle: revokeUser },
    { method: 'POST', pattern: /^\/users\/(export)$/, root: '../', handle: exportUser },
    { method: 'POST', pattern: /^\/users\/(erase)$/, root: '../', handle: eraseUser },
  ];
}

/** Returns a session for JSON, with the names of `store.sessions()`. */
export function sessionJson(session: ShownSession, currentId: string | undefined): object {
  const { id, userId, state, bytes, revokedAt, isReadable, described } = session;
  return {
    id,
    userId,
    state,
    createdAt: new Date(session.createdAt),
    lastSeenAt: new Date(session.lastSeenAt),
    expiresAt: new Date(session.expiresAt),
    revokedAt: revokedAt === null ? null : new Date(revokedAt),
    bytes,
    isCurrent: id === currentId,
    isReadable,
    described: Object.fromEntries(described),
  };
}

/** Fields are in the body. In the pages' own forms, the user is in the query, which keeps every character. */
async function fieldsIn({ request, query }: Context) {
  const field = await fieldsOf(request);
  return (name: string) => field(name) ?? query.get(name) ?? undefined;
}

function afterUser({ root }: Context, user: string, outcome: string): string {
  return `${root}?user=${encodeURIComponent(user)}&${outcome}`;
}

/** Returns the id of the session of the admin, if the app uses express-session for admins. */
function currentIdOf(request: Request): string | undefined {
  const sid = property(request, 'sessionID');
  return typeof sid === 'string' && sid !== '' ? idOf(sid) : undefined;
}

function cursorIn(text: string | null): Place | undefined {
  if (text === null) return undefined;
  const [, createdUs, id] = /^(-?\d{1,18})\.(.+)$/s.exec(text) ?? [];
  if (createdUs === undefined || id === undefined)
    throw new HttpError(400, 'before is not a cursor.');
  return { createdUs, id };
}

/** Returns the result of the action before a redirect. Any site can contain such a link, so it has only a number. */
function noticeIn(query: URLSearchParams): string | undefined {
  const ended = countIn(query.get('ended'));
  const erased = countIn(query.get('erased'));
  if (erased !== undefined) return `Erased. ${endedText(erased)}`;
  return ended === undefined ? undefined : endedText(ended);
}

function countIn(text: string | null): number | undefined {
  return text !== null && /^\d{1,9}$/.test(text) ? Number(text) : undefined;
}

function endedText(count: number): string {
  if (count === 0) return 'No live session was left to end.';
  return count === 1
    ? '1 session has ended.'
    : `${count.toLocaleString('en-US')} sessions have ended.`;
}
