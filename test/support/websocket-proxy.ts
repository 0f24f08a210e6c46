import { once } from 'node:events';
import { connect } from 'node:net';
import { createWebSocketStream, WebSocketServer } from 'ws';

/** Passes the data of WebSockets on to Postgres, as Neon's own proxy does. */
export interface WebSocketProxy {
  /** Host and port, as `neonConfig.wsProxy` returns them. */
  readonly address: string;
  /** The number of WebSockets opened so far. */
  readonly opened: number;
  /** Breaks all open connections. New ones work. */
  cut(): void;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts a proxy to the server of a database URL. */
export async function startWebSocketProxy(databaseUrl: string): Promise<WebSocketProxy> {
  const target = new URL(databaseUrl);
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  let opened = 0;
  server.on('connection', (socket) => {
    opened += 1;
    const client = createWebSocketStream(socket);
    const upstream = connect({ host: target.hostname, port: Number(target.port || 5432) });
    client.on('error', () => upstream.destroy());
    client.on('close', () => upstream.destroy());
    upstream.on('error', () => socket.terminate());
    client.pipe(upstream).pipe(client);
  });
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const cut = () => {
    for (const socket of server.clients) socket.terminate();
  };
  const close = async () => {
    const closed = once(server, 'close');
    server.close();
    cut();
    await closed;
  };
  return {
    address: `127.0.0.1:${address.port}`,
    get opened() {
      return opened;
    },
    cut,
    close,
    [Symbol.asyncDispose]: close,
  };
}
