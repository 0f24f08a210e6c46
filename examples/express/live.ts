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

/** Seconds between two reads without an event, for changes without one, such as an expiry. */
const lookEvery = 25;

/**
 * Updates open pages with server-sent events.
 *
 * The store emits an event in every process when a session changes or ends. If the session of a page
 * has ended, the page gets a message at once. The other pages of the user get a new list.
 */
export class Live {
  readonly #store: DrizzleStore;
  readonly #streams = new Set<Stream>();
  /** The users for whom a list is being read; true if a session has changed since the read began. */
  readonly #reading = new Map<number, boolean>();
  readonly #timer: NodeJS.Timeout;

  constructor(store: DrizzleStore) {
    this.#store = store;
    store.on('destroy', ({ id }) => {
      for (const stream of this.#streams) if (stream.id === id) this.#end(stream);
      this.#refreshAll();
    });
    // An event contains the session, not its user. An app with many visitors would keep a map.
    store.on('change', () => this.#refreshAll());
    // While the listener was down, events were missed: read all lists again.
    store.on('sync', () => this.#refreshAll());
    this.#timer = setInterval(() => this.#refreshAll(), lookEvery * 1000).unref();
  }

  /** Keeps the response open as an event stream. */
  open(request: Request, response: Response): void {
    response.writeHead(200, {
      'Content-Type': 'text/event-stream',
      'Cache-Control': 'no-store',
      // Otherwise nginx would buffer events.
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

  /** Reads a user's list, once at a time. If something changes during a read, reads it once more. */
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
      // At shutdown, the store may close during a read. Its result is not needed any more.
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
