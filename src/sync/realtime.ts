/**
 * Realtime: what the other processes did to the sessions, as long as it can be known.
 *
 * A dedicated connection listens; heartbeats that the store sends to itself through it prove that it
 * still does. Notifications arrive in the order of their commits, so a heartbeat that came back proves
 * that every change committed before it was *sent* has been heard of. That is the lease: while the
 * newest heartbeat that came back was sent less than `heartbeat` seconds ago, nothing that this
 * process was not told of is older than that.
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  heartbeat,
  type Listen,
  type Listener,
  type Message,
  newSender,
  readMessage,
} from './channel.js';

export interface RealtimeSettings {
  readonly channel: string;
  /** Seconds. */
  readonly heartbeat: number;
  readonly connectionString: string | undefined;
  /** Gets every message of other stores. */
  readonly onMessage: (message: Message) => void;
  /** `up`: the first heartbeat came back. `down`: what was known is no longer. */
  readonly onState: (state: 'up' | 'down') => void;
  readonly onError: (message: string, error?: unknown) => void;
}

/** Heartbeats within one lease: one may be late. */
const BEATS_PER_LEASE = 3;

const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 15_000;

export class Realtime {
  /** By what the other stores know this one. */
  readonly sender = newSender();
  /** Raised whenever notifications may have been missed. */
  epoch = 0;
  state: 'up' | 'down' = 'down';
  /** On the monotonic clock, when the newest heartbeat that came back was sent. */
  #leaseStart = Number.NEGATIVE_INFINITY;
  readonly #settings: RealtimeSettings;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #warned = false;

  constructor(settings: RealtimeSettings) {
    this.#settings = settings;
  }

  /** Whether nothing older than `heartbeat` seconds can be unknown here. */
  get holds(): boolean {
    return (
      this.state === 'up' && performance.now() - this.#leaseStart < this.#settings.heartbeat * 1000
    );
  }

  /** Starts to listen, and goes on, with pauses after failures, until {@link close}. */
  start(listen: Listen): void {
    this.#running ??= this.#run(listen);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(listen: Listen): Promise<void> {
    const { signal } = this.#stop;
    let backoff = FIRST_BACKOFF_MS;
    while (!signal.aborted) {
      try {
        if (await this.#listenOnce(listen)) backoff = FIRST_BACKOFF_MS;
      } catch (error) {
        if (!signal.aborted) this.#settings.onError('Listening for session changes failed', error);
      }
      await this.#pause(backoff * (0.5 + Math.random()));
      backoff = Math.min(backoff * 2, LONGEST_BACKOFF_MS);
    }
  }

  /** One connection, from its start to its loss. Gives whether it was ever up. */
  async #listenOnce(listen: Listen): Promise<boolean> {
    const { channel, connectionString, heartbeat: lease } = this.#settings;
    const over = new AbortController();
    const end = () => over.abort();
    const sentAt = new Map<string, number>();
    const onMessage = (payload: string) => {
      const message = readMessage(payload);
      if (message === undefined) return;
      if (message.sender !== this.sender) {
        if (message.kind !== 'heartbeat') this.#settings.onMessage(message);
      } else if (message.kind === 'heartbeat') {
        this.#renew(sentAt, message.body);
      }
    };
    this.#stop.signal.addEventListener('abort', end, { once: true });
    let listener: Listener | undefined;
    let everUp = false;
    try {
      listener = await listen(channel, connectionString, { onMessage, onLost: end });
      for (let beat = 1; !over.signal.aborted; beat += 1) {
        sentAt.set(String(beat), performance.now());
        // Not awaited: a connection that is half open takes the bytes and never answers.
        listener.send(heartbeat(this.sender, beat)).catch(end);
        await this.#pause((lease * 1000) / BEATS_PER_LEASE, over.signal);
        everUp ||= this.state === 'up';
        if (!over.signal.aborted && beat >= BEATS_PER_LEASE && !this.holds) {
          if (!everUp) this.#warnOfPooler();
          break;
        }
      }
    } finally {
      this.#stop.signal.removeEventListener('abort', end);
      this.#lose();
      await listener?.close().catch(() => {});
    }
    return everUp;
  }

  #renew(sentAt: Map<string, number>, beat: string): void {
    const at = sentAt.get(beat);
    if (at === undefined) return;
    sentAt.delete(beat);
    this.#leaseStart = Math.max(this.#leaseStart, at);
    if (this.state === 'up') return;
    this.state = 'up';
    this.#settings.onState('up');
  }

  #lose(): void {
    this.epoch += 1;
    this.#leaseStart = Number.NEGATIVE_INFINITY;
    if (this.state === 'down') return;
    this.state = 'down';
    this.#settings.onState('down');
  }

  #warnOfPooler(): void {
    if (this.#warned) return;
    this.#warned = true;
    this.#settings.onError(
      'No heartbeat comes back to this session store: is its listener behind a transaction pooler? ' +
        'Until one does, nothing is cached and no event comes from other processes. ' +
        "Give it a direct connection: sync: { connectionString: 'postgres://…' }",
    );
  }

  async #pause(ms: number, signal = this.#stop.signal): Promise<void> {
    await sleep(ms, undefined, { signal, ref: false }).catch(() => {});
  }
}
