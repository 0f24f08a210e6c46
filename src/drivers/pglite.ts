/**
 * LISTEN through PGlite, whose one connection is in this process.
 *
 * @module
 */
import type { Listen } from '../sync/channel.js';

interface PGliteListening {
  listen(channel: string, onMessage: (payload: string) => void): Promise<() => Promise<void>>;
  query(text: string, values: unknown[]): Promise<unknown>;
}

export function listenPglite(client: object): Listen {
  return async (channel, _connectionString, { onMessage, signal }) => {
    if (!canListen(client)) throw new TypeError('This PGlite cannot listen');
    // A transaction of the app's may keep it waiting; then the wait is given up, not the LISTEN.
    let isOver = false;
    const listening = client.listen(channel, (payload) => {
      if (!isOver) onMessage(payload);
    });
    const unlisten = await unlessAborted(listening, signal).catch((error) => {
      listening.then((stop) => stop()).catch(() => {});
      throw error;
    });
    return {
      send: async (payload) => {
        await client.query('select pg_notify($1, $2)', [channel, payload]);
      },
      // Nor does a transaction of the app's keep this one waiting: it is unheard from now on, and ends after it.
      close: async () => {
        isOver = true;
        unlisten().catch(() => {});
      },
    };
  };
}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
  });
}

function canListen(client: object): client is PGliteListening {
  return 'listen' in client && 'query' in client;
}
