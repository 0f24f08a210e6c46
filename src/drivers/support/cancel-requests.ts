/**
 * The connections of cancel requests. An abandoned statement may still wait for a lock on the server. To cancel it, the
 * driver needs another connection, which can hang or fail like any other.
 *
 * @module
 */
import type { Socket } from 'node:net';
import { clearTimeout, setTimeout } from '../../util/clock.js';

/** The server closes the connection of a cancel request at once, so this limit is generous. */
const LIMIT_MS = 5000;

export class CancelRequests {
  readonly #sockets = new Set<Socket>();

  /** Closes the socket after a time limit at the latest. Ignores its errors, and does not keep the process alive. */
  add(socket: Socket): void {
    this.#sockets.add(socket);
    const end = () => {
      clearTimeout(timer);
      this.#sockets.delete(socket);
      socket.destroy();
    };
    const timer = setTimeout(end, LIMIT_MS).unref();
    socket.on('error', end);
    socket.on('close', end);
    socket.unref();
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
