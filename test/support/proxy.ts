import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { gate } from './gate.js';

export type Direction = 'toServer' | 'toClient';

/**
 * A TCP proxy in front of Postgres. The test holds, swallows or cuts its traffic to force an order of events. Each
 * setting applies to all connections through the proxy, open or new.
 */
export interface Proxy {
  readonly port: number;
  /** The number of open connections through the proxy. */
  readonly connections: number;
  /** The number of connections that their clients have not closed. */
  readonly clients: number;
  /**
   * Holds all data in one direction, from the first piece that `match` accepts (by default any piece) until `release`.
   * Resolves when the first piece is held.
   */
  hold(direction: Direction, match?: (piece: Buffer) => boolean): Promise<void>;
  /** Sends all held data, and passes new data on. */
  release(direction?: Direction): void;
  /** Drops all held data, so that connections that wait for it hang. Passes new data on. */
  lose(direction?: Direction): void;
  /** Delays all data in both directions by this many milliseconds. Keeps the order. */
  delay(ms: number): void;
  /** Drops all data in one direction or both, as on a half-open connection. */
  swallow(direction?: Direction): void;
  /**
   * Makes all open connections half-open for good. New ones work. Returns a function that ends the half-open ones.
   */
  strand(): () => void;
  /** Ends connections whose other end closed while their data was held or swallowed. */
  endAbandoned(): void;
  /** Breaks all open connections. New ones work. */
  cut(): void;
  /** Breaks all connections and refuses new ones, until `accept`. */
  refuse(): void;
  accept(): void;
  /** Connects new connections to another port on the server's host; without a port, to the server again. */
  pointTo(port?: number): void;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

type Mode = 'pass' | 'hold' | 'swallow';

class Lane {
  mode: Mode = 'pass';
  match: (piece: Buffer) => boolean = () => true;
  firstHeld = gate();
  /** Held data of all connections, in order. */
  held: { piece: Buffer; to: Socket }[] = [];

  take(piece: Buffer, to: Socket): void {
    if (this.mode === 'swallow') return;
    const holds = this.mode === 'hold' && (this.held.length > 0 || this.match(piece));
    if (!holds) {
      to.write(piece);
      return;
    }
    this.held.push({ piece, to });
    this.firstHeld.open();
  }

  lose(): void {
    this.mode = 'pass';
    this.held.length = 0;
  }

  release(): void {
    this.mode = 'pass';
    for (const { piece, to } of this.held.splice(0)) if (!to.destroyed) to.write(piece);
  }
}

/** Starts a proxy to the server of a database URL. `url` is the same URL through the proxy. */
export async function startProxy(databaseUrl: string): Promise<Proxy & { url: string }> {
  const target = new URL(databaseUrl);
  const ownPort = Number(target.port || 5432);
  let targetPort = ownPort;
  const lanes: Record<Direction, Lane> = { toServer: new Lane(), toClient: new Lane() };
  const sockets = new Set<Socket>();
  const clients = new Set<Socket>();
  const stranded = new WeakSet<Socket>();
  const abandoned = new Set<Socket>();
  let refusing = false;
  let delayMs = 0;

  const server = createServer((client) => {
    if (refusing) {
      client.destroy();
      return;
    }
    clients.add(client);
    client.on('close', () => clients.delete(client));
    const upstream = connect({ host: target.hostname, port: targetPort });
    for (const [socket, other, lane] of [
      [client, upstream, lanes.toServer],
      [upstream, client, lanes.toClient],
    ] as const) {
      socket.setNoDelay(true);
      let late = 0;
      let last = Promise.resolve();
      socket.on('data', (piece) => {
        if (stranded.has(socket)) return;
        if (delayMs === 0 && late === 0) {
          lane.take(piece, other);
          return;
        }
        late += 1;
        const due = pause(delayMs);
        last = last
          .then(() => due)
          .then(() => {
            late -= 1;
            lane.take(piece, other);
          });
      });
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        abandoned.delete(socket);
        // While data is held or swallowed, the other side does not notice the end.
        if (lane.mode === 'pass' && !stranded.has(socket)) other.destroy();
        else if (!other.destroyed) abandoned.add(other);
      });
      sockets.add(socket);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');

  const chosen = (direction?: Direction) =>
    direction ? [lanes[direction]] : [lanes.toServer, lanes.toClient];
  const cut = () => {
    for (const socket of sockets) socket.destroy();
    for (const lane of chosen()) lane.held.length = 0;
  };
  const close = async () => {
    const closed = new Promise((resolve) => server.close(resolve));
    cut();
    await closed;
  };
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${address.port}`;
  return {
    url: url.href,
    port: address.port,
    get connections() {
      return sockets.size / 2;
    },
    get clients() {
      return clients.size;
    },
    hold(direction, match = () => true) {
      const lane = lanes[direction];
      lane.mode = 'hold';
      lane.match = match;
      lane.firstHeld = gate();
      return lane.firstHeld.opened;
    },
    lose(direction) {
      for (const lane of chosen(direction)) lane.lose();
    },
    release(direction) {
      for (const lane of chosen(direction)) lane.release();
    },
    delay(ms) {
      delayMs = ms;
    },
    swallow(direction) {
      for (const lane of chosen(direction)) lane.mode = 'swallow';
    },
    strand() {
      const all = [...sockets];
      for (const socket of all) stranded.add(socket);
      return () => {
        for (const socket of all) socket.destroy();
      };
    },
    endAbandoned() {
      for (const socket of abandoned) socket.destroy();
    },
    cut,
    refuse() {
      refusing = true;
      cut();
    },
    accept() {
      refusing = false;
    },
    pointTo(port = ownPort) {
      targetPort = port;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}
