import { type DrizzleStore, idOf } from 'connect-drizzle';
import type { Request, Response } from 'express';
import { devicesOf } from './devices.js';
import { deviceList } from './pages.js';

interface Stream {
  /** The id of the session that opened the stream. */
  id: string;
  userId: number;
  response: Response;
}

/** Seconds between two looks without an event: for what no event announces, such as an expiry. */
const lookEvery = 25;

/**
 * Open pages, kept true by server-sent events.
 *
 * The store says in every process which session changed or ended; a page whose own session has
 * ended is told so at once, and the other pages of that person get their list anew.
 */
export class Live {
  readonly #store: DrizzleStore;
  readonly #streams = new Set<Stream>();
  /** People whose list is being read; true where something changed since the read began. */
  readonly #reading = new Map<number, boolean>();
  readonly #timer: NodeJS.Timeout;

  constructor(store: DrizzleStore) {
    this.#store = store;
    store.on('destroy', ({ id }) => {
      for (const stream of this.#streams) if (stream.id === id) this.#end(stream);
      this.#refreshAll();
    });
    // An event says which session changed, not whose: an app with many visitors would keep a map.
    store.on('change', () => this.#refreshAll());
    // Events were missed while the listener was down: everybody looks again.
    store.on('sync', () => this.#refreshAll());
    this.#timer = setInterval(() => this.#refreshAll(), lookEvery * 1000).unref();
  }

  /** Keeps the response open as an event stream. */
  open(request: Request, response: Response): void {
    response.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      // nginx would gather events before it passes them on.
      'X-Accel-Buffering': 'no',
    });
    response.flushHeaders();
    const userId = request.session.account?.id;
    const stream = { id: idOf(request.sessionID), userId: userId ?? 0, response };
    if (userId === undefined) {
      this.#end(stream);
      return;
    }
    this.#streams.add(stream);
    response.on('close', () => this.#streams.delete(stream));
    this.#refresh(userId);
  }

  /** Ends every stream, so that the server can close. */
  close(): void {
    clearInterval(this.#timer);
    for (const { response } of this.#streams) response.end();
    this.#streams.clear();
  }

  #refreshAll(): void {
    for (const userId of new Set(Array.from(this.#streams, (stream) => stream.userId))) {
      this.#refresh(userId);
    }
  }

  /** One read at a time for a person; whatever changes during it makes one more. */
  async #refresh(userId: number): Promise<void> {
    if (this.#reading.has(userId)) {
      this.#reading.set(userId, true);
      return;
    }
    try {
      do {
        this.#reading.set(userId, false);
        const devices = await devicesOf(this.#store, userId);
        for (const stream of this.#streams) {
          if (stream.userId !== userId) continue;
          if (devices.some(({ id }) => id === stream.id)) {
            send(stream, 'devices', String(deviceList(devices, stream.id)));
          } else {
            this.#end(stream);
          }
        }
      } while (this.#reading.get(userId));
    } catch (error) {
      // At the end the store closes under a read that nobody waits for any more.
      if (this.#streams.size > 0) console.error('The devices could not be read:', error);
    } finally {
      this.#reading.delete(userId);
    }
  }

  #end(stream: Stream): void {
    send(stream, 'ended', '');
    stream.response.end();
    this.#streams.delete(stream);
  }
}

function send({ response }: Stream, event: string, data: string): void {
  const lines = data.split('\n').map((line) => `data: ${line}\n`);
  response.write(`event: ${event}\n${lines.join('')}\n`);
}
