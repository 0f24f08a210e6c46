/**
 * Reads requests without a framework. The app may have parsed the body already, or not.
 *
 * @module
 */
import type { Request } from 'express';
import { isPlainObject, isRecord, property } from '../util/guards.js';
import { HttpError } from './guard.js';

/** A form of this page has a few hundred bytes. */
const MAX_BODY_BYTES = 16 * 1024;

/** Returns the path below the mount path, and the query. */
export function targetOf(request: Request): { path: string; query: URLSearchParams } {
  const [path = '/', ...rest] = request.url.split('?');
  return { path: path === '' ? '/' : path, query: new URLSearchParams(rest.join('?')) };
}

/**
 * Returns the redirect for a request to the mount path without a slash at the end, where relative links would be wrong;
 * `undefined` for any other request. The target is relative, because a proxy may have changed the path.
 */
export function withSlash(request: Request): string | undefined {
  const [path = '', ...rest] = (request.originalUrl ?? request.url).split('?');
  if (path.endsWith('/')) return undefined;
  const query = rest.length > 0 ? `?${rest.join('?')}` : '';
  // With `./` in front, browsers cannot take a segment for a scheme or a host.
  return `./${path.slice(path.lastIndexOf('/') + 1)}/${query}`;
}

/** Whether the client wants JSON instead of a page. */
export function wantsJson({ headers }: Request): boolean {
  const accept = headers.accept ?? '';
  return accept.includes('application/json') && !accept.includes('text/html');
}

/** Returns a function that reads a field of a posted form or JSON object; `undefined` for a missing field. */
export async function fieldsOf(request: Request): Promise<(name: string) => string | undefined> {
  const parsed = await parsedBody(request);
  return (name) => {
    const value = Object.getOwnPropertyDescriptor(parsed, name)?.value;
    return typeof value === 'string' ? value : undefined;
  };
}

async function parsedBody(request: Request): Promise<object> {
  const body: unknown = property(request, 'body');
  const text = textOf(body);
  if (text !== undefined) return parsed(request, text);
  if (isRecord(body) && Object.keys(body).length > 0) return body;
  // A parser has consumed the body without storing the result in the request.
  if (request.readableEnded || request.readableDidRead) return {};
  return parsed(request, await readBody(request));
}

function textOf(body: unknown): string | undefined {
  if (typeof body === 'string') return body;
  return body instanceof Uint8Array ? Buffer.from(body).toString() : undefined;
}

function parsed({ headers }: Request, text: string): object {
  if (text === '') return {};
  const type = headers['content-type']?.split(';')[0]?.trim().toLowerCase();
  if (type === 'application/x-www-form-urlencoded') {
    return Object.fromEntries(new URLSearchParams(text));
  }
  if (type !== 'application/json') throw new HttpError(415, 'Send a form or JSON.');
  const value = jsonIn(text);
  if (!isPlainObject(value)) throw new HttpError(400, 'The body must be a JSON object.');
  return value;
}

function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new HttpError(400, 'The body is not JSON.');
  }
}

function readBody(request: Request): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    request.on('data', (chunk: Buffer | string) => {
      bytes += chunk.length;
      if (bytes <= MAX_BODY_BYTES) chunks.push(Buffer.from(chunk));
      // Reads and drops the rest. Otherwise a client that is still sending would not get the response.
      else reject(new HttpError(413, 'The body is too large.'));
    });
    request.once('end', () => resolve(Buffer.concat(chunks).toString()));
    request.once('error', reject);
    request.once('close', () => reject(new HttpError(400, 'The body is incomplete.')));
  });
}
