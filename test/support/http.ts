import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';

/** An app that listens on a free port of the loopback interface. */
export interface Site {
  readonly url: string;
  readonly server: Server;
  /** A new client without cookies. */
  browser(): Browser;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export async function serve(app: RequestListener): Promise<Site> {
  const server = createServer(app);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const url = `http://127.0.0.1:${address.port}`;
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  };
  return {
    url,
    server,
    browser: () => new Browser(url),
    close,
    [Symbol.asyncDispose]: close,
  };
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body parsed as JSON. */
  json<Body = unknown>(): Body;
}

/** A client that keeps cookies, one of each name, and follows no redirects. */
export class Browser {
  readonly cookies = new Map<string, string>();

  constructor(readonly base: string) {}

  /** Another client with the same cookies, such as a second tab or a thief. */
  copy(): Browser {
    const other = new Browser(this.base);
    for (const [name, value] of this.cookies) other.cookies.set(name, value);
    return other;
  }

  get(path: string, init: RequestInit = {}): Promise<Answer> {
    return this.fetch(path, init);
  }

  /** Posts an object as JSON, a URLSearchParams as a form. */
  post(path: string, body: object = {}, init: RequestInit = {}): Promise<Answer> {
    const form = body instanceof URLSearchParams;
    const headers = new Headers(init.headers);
    if (!form) headers.set('content-type', 'application/json');
    return this.fetch(path, {
      ...init,
      method: 'POST',
      headers,
      body: form ? body : JSON.stringify(body),
    });
  }

  async fetch(path: string, init: RequestInit = {}): Promise<Answer> {
    const response = await this.open(path, init);
    const text = await response.text();
    return {
      status: response.status,
      headers: response.headers,
      text,
      json: <Body>(): Body => JSON.parse(text),
    };
  }

  /** Like `fetch`, but resolves when the headers arrive: for streamed bodies. */
  async open(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.cookies.size > 0) {
      headers.set(
        'cookie',
        [...this.cookies].map(([name, value]) => `${name}=${value}`).join('; '),
      );
    }
    const response = await fetch(new URL(path, this.base), {
      redirect: 'manual',
      ...init,
      headers,
    });
    for (const line of response.headers.getSetCookie()) this.keep(line);
    return response;
  }

  private keep(line: string): void {
    const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
    const equals = pair.indexOf('=');
    const name = pair.slice(0, equals);
    const ends = attributes.find((attribute) => /^expires=/i.test(attribute))?.slice(8);
    if (ends !== undefined && Date.parse(ends) <= Date.now()) this.cookies.delete(name);
    else this.cookies.set(name, pair.slice(equals + 1));
  }
}
