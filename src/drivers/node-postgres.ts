/**
 * LISTEN through node-postgres: a client of its own with the pool's settings.
 *
 * @module
 */
import type { Listen } from '../sync/channel.js';
import { loadDriver } from './load.js';

export function listenNodePostgres(poolOptions: object): Listen {
  return async (channel, connectionString, { onMessage, onLost, signal }) => {
    const pg = await loadDriver('pg');
    signal.throwIfAborted();
    const options = connectionString === undefined ? allOf(poolOptions) : { connectionString };
    const client = new pg.Client({ ...options, keepAlive: true });
    let over = false;
    const lost = () => {
      if (over) return;
      over = true;
      destroy(client);
      onLost();
    };
    const giveUp = () => destroy(client);
    client.on('error', lost);
    client.on('end', lost);
    client.on('notification', (message) => {
      if (!over && message.channel === channel) onMessage(message.payload ?? '');
    });
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      const connecting = client.connect();
      // Neither waiting for a server that does not answer nor listening keeps the process alive.
      unref(client);
      await connecting;
      // TLS has made it another socket.
      unref(client);
      await client.query(`listen "${channel}"`);
    } catch (error) {
      over = true;
      destroy(client);
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
    return {
      send: async (payload) => {
        await client.query('select pg_notify($1, $2)', [channel, payload]);
      },
      close: async () => {
        over = true;
        destroy(client);
      },
    };
  };
}

/** A copy with the password, which pg-pool makes a property that a spread leaves out. */
function allOf(options: object): object {
  const copy: Record<string, unknown> = {};
  for (const key of Object.getOwnPropertyNames(options)) copy[key] = Reflect.get(options, key);
  return copy;
}

/** Ends a connection without waiting for the other side, which may never answer. */
function destroy(client: object): void {
  const stream: unknown = Reflect.get(Reflect.get(client, 'connection') ?? {}, 'stream');
  if (isDestroyable(stream)) stream.destroy();
}

function unref(client: object): void {
  const method: unknown = Reflect.get(client, 'unref');
  if (typeof method === 'function') method.call(client);
}

function isDestroyable(value: unknown): value is { destroy(): void } {
  return typeof value === 'object' && value !== null && 'destroy' in value;
}
