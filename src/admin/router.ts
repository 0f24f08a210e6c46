/**
 * Handles the requests of the page.
 *
 * @module
 */
import type { NextFunction, Request, Response } from 'express';
import { HttpError, isSameOrigin, requireAuthorization, setHeaders } from './guard.js';
import { documentOf, errorPage, type Page, type Root } from './layout.js';
import { type AdminSettings, adminSettings, type SessionAdminOptions } from './options.js';
import { targetOf, wantsJson, withSlash } from './request.js';
import { type Reply, type Route, routesOf } from './routes.js';

/** Middleware for Express 4 and 5, and for frameworks that call middleware in the same way. */
export type SessionAdminHandler = (
  request: Request,
  response: Response,
  next: NextFunction,
) => void;

/**
 * Creates the admin page: `app.use('/admin/sessions', sessionAdmin({ store, authorize }))`. You can mount it at any path.
 * Each page returns JSON to a client that accepts `application/json`. Errors that the client has not caused go to `next`.
 *
 * @throws {InvalidArgumentError} (`ERR_INVALID_ARGUMENT`) for invalid options
 */
export function sessionAdmin(options: SessionAdminOptions): SessionAdminHandler {
  const settings = adminSettings(options);
  const routes = routesOf(settings);
  return (request, response, next) => {
    handle(settings, routes, request, response).catch(next);
  };
}

async function handle(
  { authorize, home }: AdminSettings,
  routes: readonly Route[],
  request: Request,
  response: Response,
): Promise<void> {
  setHeaders(response);
  let root: Root = './';
  try {
    if (!isRead(request) && !isSameOrigin(request)) {
      throw new HttpError(403, 'This form does not come from this page.');
    }
    await requireAuthorization(authorize, request, response);
    // The app may have sent a response, or the client may have closed the connection.
    if (response.headersSent || response.destroyed) return;
    const { path, query } = targetOf(request);
    const slash = path === '/' && isRead(request) ? withSlash(request) : undefined;
    if (slash !== undefined) {
      redirect(response, 308, slash);
      return;
    }
    root = rootOf(path);
    const { route, match } = find(routes, request, response, path);
    const reply = await route.handle({ request, response, query, match, root: route.root });
    if (reply !== undefined) send(request, response, reply, home);
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    // `authorize` may have redirected to a log-in page.
    if (!response.headersSent) sendError(request, response, root, error, home);
  }
}

function isRead({ method }: Request): boolean {
  return method === 'GET' || method === 'HEAD';
}

/** @throws {HttpError} 404 or 405 */
function find(
  routes: readonly Route[],
  request: Request,
  response: Response,
  path: string,
): { route: Route; match: string } {
  const found = routes.filter(({ pattern }) => pattern.test(path));
  if (found.length === 0) throw new HttpError(404, 'There is nothing at this address.');
  const method = isRead(request) ? 'GET' : request.method;
  const route = found.find((each) => each.method === method);
  if (route === undefined) {
    const allowed = found.flatMap((each) => (each.method === 'GET' ? ['GET', 'HEAD'] : ['POST']));
    response.setHeader('Allow', allowed.join(', '));
    throw new HttpError(405, 'This address does not accept the request. Go back and try again.');
  }
  return { route, match: route.pattern.exec(path)?.[1] ?? '' };
}

/** Returns the relative path from a path to the mount path. */
function rootOf(path: string): Root {
  const depth = path.split('/').length - 2;
  if (depth <= 0) return './';
  return depth === 1 ? '../' : '../../';
}

function send(
  request: Request,
  response: Response,
  reply: NonNullable<Reply>,
  home: string | undefined,
): void {
  const isJson = wantsJson(request);
  if ('location' in reply && !(isJson && reply.json)) redirect(response, 303, reply.location);
  else if ('page' in reply && !isJson) sendPage(response, reply.page, home);
  else sendJson(response, reply.json ?? {});
}

function sendError(
  request: Request,
  response: Response,
  root: Root,
  { status, message }: HttpError,
  home: string | undefined,
): void {
  response.statusCode = status;
  if (wantsJson(request)) sendJson(response, { error: message });
  else sendPage(response, errorPage(root, TITLES[status] ?? 'Not possible', message), home);
}

const TITLES: Readonly<Record<number, string>> = {
  403: 'Not allowed',
  404: 'Not found',
  405: 'Not possible here',
};

function sendPage(response: Response, page: Page, home: string | undefined): void {
  response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.end(String(documentOf(page, home)));
}

function sendJson(response: Response, value: object): void {
  response.setHeader('Content-Type', 'application/json; charset=utf-8');
  response.end(JSON.stringify(value));
}

/** The target is relative, because only the browser knows the URL in front of a proxy. */
function redirect(response: Response, status: 303 | 308, location: string): void {
  response.statusCode = status;
  response.setHeader('Location', location);
  response.end();
}
