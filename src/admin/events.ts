/**
 * Notifies open pages with server-sent events that sessions have changed or ended.
 *
 * @module
 */
import type { Request, Response } from 'express';
import type { SessionEvent } from '../session/events.js';
import { followSignal } from '../util/abort.js';
import { clearInterval, monotonicMs, setInterval } from '../util/clock.js';
import { property } from '../util/guards.js';
import type { AdminSettings } from './options.js';

export interface StreamLimits {
  /** At most one message in this time. It counts the events since the stream was opened. */
  readonly messageMs: number;
  /** After this time, the browser opens the stream again, and `authorize` runs again. */
  readonly streamMs: number;
}

export const STREAM_LIMITS: StreamLimits = { messageMs: 1000, streamMs: 60_000 };

/** How long the browser waits before it opens a stream again. */
const RETRY_MS = 2000;

interface Stream {
  readonly response: Response;
  /** The session of the admin; `undefined` if the app does not use express-session for admins. */
  readonly sessionId: string | undefined;
  readonly openedMs: number;
  /** Whether the server of the app still accepts connections. */
  readonly isServing: () => boolean;
  /** Whether there are new counts to send. */
  isStale: boolean;
  changed: number;
  ended: number;
}

export class EventStreams {
  readonly #settings: Pick<AdminSettings, 'store' | 'access'>;
  readonly #limits: StreamLimits;
  readonly #streams = new Set<Stream>();
  #stop: (() => void) | undefined;

  constructor(settings: Pick<AdminSettings, 'store' | 'access'>, limits = STREAM_LIMITS) {
    this.#settings = settings;
    this.#limits = limits;
  }

  /** Keeps a response open as an event stream. */
  open(request: Request, response: Response, sessionId: string | undefined): void {
    response.statusCode = 200;
    response.setHeader('Content-Type', 'text/event-stream; charset=utf-8');
    // Otherwise nginx would buffer events.
    response.setHeader('X-Accel-Buffering', 'no');
    response.flushHeaders();
    if (request.method === 'HEAD' || this.#settings.access.closing.aborted) {
      response.end();
      return;
    }
    const server = property(request.socket, 'server');
    const stream: Stream = {
      response,
      sessionId,
      openedMs: monotonicMs(),
      isServing: () => property(server, 'listening') !== false,
      isStale: false,
      changed: 0,
      ended: 0,
    };
    this.#streams.add(stream);
    response.once('close', () => this.#forget(stream));
    response.write(`retry: ${RETRY_MS}\n\n`);
    this.#stop ??= this.#start();
  }

  /** Listens to the store while there are streams. */
  #start(): () => void {
    const { store, access } = this.#settings;
    const onChange = () => {
      for (const stream of this.#streams) {
        stream.changed += 1;
        stream.isStale = true;
      }
    };
    const onDestroy = ({ id }: SessionEvent) => {
      for (const stream of this.#streams) {
        stream.ended += 1;
        stream.isStale = true;
        // The admin has logged out, or was logged out.
        if (stream.sessionId === id) this.#end(stream);
      }
    };
    store.on('change', onChange);
    store.on('destroy', onDestroy);
    const timer = setInterval(() => this.#tick(), this.#limits.messageMs).unref();
    const unfollow = followSignal(access.closing, () => {
      for (const stream of this.#streams) this.#end(stream);
    });
    return () => {
      store.off('change', onChange);
      store.off('destroy', onDestroy);
      clearInterval(timer);
      unfollow();
    };
  }

  #tick(): void {
    for (const stream of this.#streams) {
      // `server.close()` waits for open responses.
      const isOver =
        monotonicMs() - stream.openedMs >= this.#limits.streamMs || !stream.isServing();
      if (isOver) this.#end(stream);
      else send(stream);
    }
  }

  #end(stream: Stream): void {
    stream.response.end();
    this.#forget(stream);
  }

  #forget(stream: Stream): void {
    this.#streams.delete(stream);
    if (this.#streams.size > 0) return;
    this.#stop?.();
    this.#stop = undefined;
  }
}

/** Sends the counts if they have changed. */
function send(stream: Stream): void {
  if (!stream.isStale) return;
  const { changed, ended, response } = stream;
  stream.isStale = false;
  response.write(`event: counts\ndata: ${JSON.stringify({ changed, ended })}\n\n`);
}
