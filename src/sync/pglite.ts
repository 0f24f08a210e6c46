/**
 * LISTEN through PGlite, whose one connection is in this process.
 *
 * @module
 */
import type { Listen } from './channel.js';

interface PGliteListening {
  listen(channel: string, onMessage: (payload: string) => void): Promise<() => Promise<void>>;
  query(text: string, values: unknown[]): Promise<unknown>;
}

export function listenPglite(client: object): Listen {
  return async (channel, _connectionString, { onMessage }) => {
    if (!canListen(client)) throw new TypeError('This PGlite cannot listen');
    const unlisten = await client.listen(channel, onMessage);
    return {
      send: async (payload) => {
        await client.query('select pg_notify($1, $2)', [channel, payload]);
      },
      close: () => unlisten(),
    };
  };
}

function canListen(client: object): client is PGliteListening {
  return 'listen' in client && 'query' in client;
}
