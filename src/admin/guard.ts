/**
 * Protects the page: headers, a check of the origin of forms, and the app's authorization.
 *
 * @module
 */
import type { Request, Response } from 'express';
import type { SessionAdminOptions } from './options.js';

/** An error response that says what is wrong with the request. */
export class HttpError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

const HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'X-Frame-Options': 'DENY',
  'X-Content-Type-Options': 'nosniff',
  // With `no-referrer`, browsers send `Origin: null` with the page's own forms.
  'Referrer-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  // Middleware that compresses would delay events.
  'Cache-Control': 'no-store, no-transform',
  'X-Robots-Tag': 'noindex',
  Vary: 'Accept, Cookie, Sec-Fetch-Site, Origin',
};

export function setHeaders(response: Response): void {
  for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
}

/**
 * Whether a request that changes something comes from the page itself. Browsers send this in `Sec-Fetch-Site`. On plain
 * HTTP, except on localhost, they do not; then `Origin` must be the page's own. Refuses a request with neither header.
 */
export function isSameOrigin(request: Request): boolean {
  const site = request.headers['sec-fetch-site'];
  if (site !== undefined) return site === 'same-origin';
  const { origin } = request.headers;
  return origin !== undefined && origin === ownOrigin(request);
}

function ownOrigin(request: Request): string | undefined {
  const url = `${request.protocol}://${ownHost(request)}`;
  return URL.canParse(url) ? new URL(url).origin : undefined;
}

/** Behind a proxy that the app trusts, Express takes `hostname` from X-Forwarded-Host. No form can set that header. */
function ownHost({ headers, hostname }: Request): string {
  const header = headers['x-forwarded-host'];
  const forwarded = typeof header === 'string' ? header.split(',')[0]?.trim() : undefined;
  const isTrusted = forwarded !== undefined && forwarded.replace(/:\d+$/, '') === hostname;
  return isTrusted ? forwarded : (headers.host ?? '');
}

/**
 * Resolves if the app allows the request.
 *
 * @throws {HttpError} 403 if the result is not `true`
 * @throws the errors of the app's function
 */
export async function requireAuthorization(
  authorize: SessionAdminOptions['authorize'],
  request: Request,
  response: Response,
): Promise<void> {
  const admitted: unknown = await authorize(request, response);
  if (admitted !== true) throw new HttpError(403, 'You may not see this page.');
}
