/**
 * The connections of cancel requests. A statement that was given up may still wait for a lock on the server;
 * cancelling it needs a connection of its own, which can hang or fail like any other.
 *
 * @module
 */
import type { Socket } from 'node:net';
import { clearTimeout, setTimeout } from '../../util/clock.js';

/** The server answers a cancel request at once, by closing the connection. */
const LIMIT_MS = 5000;

export class CancelRequests {
  readonly #sockets = new Set<Socket>();

  /** Closes the socket after a time limit at the latest. Its errors are ignored, and it keeps no process alive. */
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
