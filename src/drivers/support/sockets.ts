/**
 * Sockets for postgres-js.
 *
 * @module
 */
import type { Socket } from 'node:net';

/** The options that postgres-js passes. */
export interface SocketOptions {
  readonly host: readonly string[] | string;
  readonly port: readonly number[] | number;
  readonly path?: string | false;
}

export type Address = { readonly path: string } | { readonly host: string; readonly port: number };

/** Returns the addresses to try: each host in order, or a Unix socket. */
export function addressesOf({ host, port, path }: SocketOptions): Address[] {
  if (path) return [{ path }];
  const ports = [port].flat();
  return [host].flat().map((each, at) => ({ host: each, port: ports[at] ?? ports[0] ?? 5432 }));
}

/** Resolves when the socket is connected; rejects if it fails or the signal is aborted. */
export function connected(socket: Socket, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const giveUp = () => socket.destroy(new Error('Gave up waiting for the server'));
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
      resolve(socket);
    });
    signal.addEventListener('abort', giveUp, { once: true });
    if (signal.aborted) giveUp();
  });
}
