/**
 * LISTEN with node-postgres.
 *
 * @module
 */
import { hasMethod, property } from '../../util/guards.js';
import type { Listen } from '../driver.js';

interface Pool {
  readonly options: object;
}

/** Closes a connection without waiting for the server, which may never respond. */
export function destroySocket(client: object): void {
  const stream = property(property(client, 'connection'), 'stream');
  if (hasMethod(stream, 'destroy')) stream.destroy();
}

/** Listens with a new client that has the class and the settings of the pool's clients. */
export function listenOn(pool: Pool): Listen {
  return async (channel, connectionString, { onMessage, onLost, signal }) => {
    signal.throwIfAborted();
    const options = connectionString === undefined ? allOf(pool.options) : { connectionString };
    const client = newClient(pool, { ...options, keepAlive: true });
    let isOver = false;
    let connecting: Promise<unknown> = Promise.resolve();
    const destroy = destroyerOf(client, () => connecting);
    const lost = () => {
      if (isOver) return;
      isOver = true;
      destroy();
      onLost();
    };
    client.on('error', lost);
    client.on('end', lost);
    client.on('notification', (message: { channel: string; payload?: string }) => {
      if (!isOver && message.channel === channel) onMessage(message.payload ?? '');
    });
    signal.addEventListener('abort', destroy, { once: true });
    try {
      connecting = client.connect();
      // Neither connecting nor listening keeps the process alive.
      unref(client);
      await connecting;
      signal.throwIfAborted();
      // TLS has replaced the socket.
      unref(client);
      await client.query(`listen "${channel}"`);
    } catch (error) {
      isOver = true;
      destroy();
      throw error;
    } finally {
      signal.removeEventListener('abort', destroy);
    }
    return {
      close: async () => {
        isOver = true;
        destroy();
      },
    };
  };
}

/** Returns a function that closes a client at once. It may be called more than once. */
function destroyerOf(client: ListeningClient, connecting: () => Promise<unknown>): () => void {
  let isDestroyed = false;
  return () => {
    if (isDestroyed) return;
    isDestroyed = true;
    if (property(client, 'native') === undefined) destroySocket(client);
    // The socket belongs to libpq. If `end()` were called while the client connects, one of its events would throw.
    else
      void connecting()
        .then(() => client.end())
        .catch(ignore);
  };
}

interface ListeningClient {
  connect(): Promise<unknown>;
  end(): Promise<unknown>;
  query(text: string, values?: readonly string[]): Promise<unknown>;
  on(event: string, listener: (message: never) => void): unknown;
}

export function newClient(pool: Pool, options: object): ListeningClient {
  const Client = property(pool, 'Client');
  if (typeof Client !== 'function') throw new TypeError('This pool has no class of clients');
  return Reflect.construct(Client, [options]);
}

/** Returns a copy with the password, which pg-pool makes non-enumerable, so that a spread omits it. */
export function allOf(options: object): object {
  const copy: Record<string, unknown> = {};
  for (const key of Object.getOwnPropertyNames(options)) copy[key] = property(options, key);
  return copy;
}

function unref(client: object): void {
  if (hasMethod(client, 'unref')) client.unref();
}

function ignore(): void {}
