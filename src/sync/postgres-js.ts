/**
 * LISTEN through postgres-js: a connection of its own with the app's settings. `sql.listen` is not
 * used: it comes back by itself after a loss, and so hides that notifications were missed.
 *
 * @module
 */
import { connect, type Socket } from 'node:net';
import type { Listen } from './channel.js';

export function listenPostgresJs(appOptions: object): Listen {
  return async (channel, connectionString, { onMessage, onLost }) => {
    const { default: postgres } = await import('postgres');
    let over = false;
    let socket: Socket | undefined;
    const own = {
      max: 1,
      idle_timeout: 0,
      max_lifetime: null,
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
      /** Made here, since a socket of postgres-js's own cannot be unref'd. */
      socket: async (options: SocketOptions) => {
        socket = await openSocket(options);
        return socket;
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
    try {
      await sql.unsafe(`listen "${channel}"`);
    } catch (error) {
      await close();
      throw error;
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
async function openSocket({ host, port, path }: SocketOptions): Promise<Socket> {
  if (path) return connected(connect(path));
  const hosts = [host].flat();
  const ports = [port].flat();
  let failure: unknown;
  for (const [at, one] of hosts.entries()) {
    try {
      return await connected(connect(ports[at] ?? ports[0] ?? 5432, one));
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      socket.unref();
      resolve(socket);
    });
  });
}
