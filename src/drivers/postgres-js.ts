/**
 * LISTEN through postgres-js: a connection of its own with the app's settings. `sql.listen` is not
 * used: it comes back by itself after a loss, and so hides that notifications were missed.
 *
 * @module
 */
import { connect, type Socket } from 'node:net';
import type { Listen } from '../sync/channel.js';
import { loadDriver } from './load.js';

export function listenPostgresJs(appOptions: object): Listen {
  return async (channel, connectionString, { onMessage, onLost, signal }) => {
    const postgres = await loadDriver('postgres');
    signal.throwIfAborted();
    let over = false;
    let socket: Socket | undefined;
    // With several hosts, postgres-js leaves a query waiting whose connection could not be made.
    let fail: (error: unknown) => void = () => {};
    const failed = new Promise<never>((_, reject) => {
      fail = reject;
    });
    const own = {
      max: 1,
      idle_timeout: 0,
      max_lifetime: null,
      // Its timer would keep the process alive; the signal is the limit.
      connect_timeout: 0,
      fetch_types: false,
      prepare: false,
      onnotify: (on: string, payload: string) => {
        if (!over && on === channel) onMessage(payload);
      },
      onclose: () => {
        if (over) return;
        over = true;
        onLost();
      },
      /** Made here, since a socket of postgres-js's own cannot be unref'd, nor asked for only once. */
      socket: async (options: SocketOptions) => {
        try {
          if (socket !== undefined) throw new Error('The connection that listens was lost');
          socket = await openSocket(options, signal);
          return socket;
        } catch (error) {
          fail(error);
          throw error;
        }
      },
    };
    // The app's options, which postgres-js has parsed, say where unless a URL does.
    const sql =
      connectionString === undefined
        ? postgres({ ...appOptions, ...own } as never)
        : postgres(connectionString, own as never);
    const close = async () => {
      over = true;
      socket?.destroy();
      await sql.end({ timeout: 0 });
    };
    const giveUp = () => socket?.destroy();
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      await Promise.race([sql.unsafe(`listen "${channel}"`), failed]);
    } catch (error) {
      await close();
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
    return {
      send: async (payload) => {
        await sql.unsafe('select pg_notify($1, $2)', [channel, payload]);
      },
      close,
    };
  };
}

interface SocketOptions {
  readonly host: readonly string[] | string;
  readonly port: readonly number[] | number;
  readonly path?: string | false;
}

/** Connects to the first host that answers, as postgres-js does, without keeping the process alive. */
async function openSocket(
  { host, port, path }: SocketOptions,
  signal: AbortSignal,
): Promise<Socket> {
  if (path) return connected(connect(path), signal);
  const hosts = [host].flat();
  const ports = [port].flat();
  let failure: unknown;
  for (const [at, one] of hosts.entries()) {
    const to = { host: one, port: ports[at] ?? ports[0] ?? 5432 };
    try {
      // postgres-js takes the host from the socket, to check it against the server's certificate.
      return Object.assign(await connected(connect(to), signal), to);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

function connected(socket: Socket, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const giveUp = () => socket.destroy(new Error('The wait for the server was given up'));
    const settle = () => {
      socket.off('error', fail);
      signal.removeEventListener('abort', giveUp);
    };
    const fail = (error: Error) => {
      settle();
      reject(error);
    };
    socket.once('error', fail);
    socket.once('connect', () => {
      settle();
      socket.unref();
      resolve(socket);
    });
    signal.addEventListener('abort', giveUp, { once: true });
    if (signal.aborted) giveUp();
  });
}
