/**
 * Realtime: what the other processes did to the sessions, as long as it can be known.
 *
 * A dedicated connection listens; heartbeats that the store sends to itself prove that it still does.
 * Notifications arrive in the order of their commits, so a heartbeat that came back proves that every
 * change committed before it was *sent* has been heard of. That is the lease: while the newest
 * heartbeat that came back was sent less than `heartbeat` seconds ago, nothing that this process was
 * not told of is older than that.
 *
 * The first heartbeat of a connection goes the way of the announcements, through the store's own
 * statements, and nothing else is sent before it came back. A transaction pooler would give a
 * connection its own notifications back and drop everybody else's; and a URL of another database
 * would answer as well.
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { StoreTimeoutError } from '../errors.js';
import {
  type Announcement,
  heartbeat,
  isAnnouncement,
  type Listen,
  type Listener,
  newSender,
  readMessage,
} from './channel.js';

export interface RealtimeSettings {
  readonly channel: string;
  /** Seconds. */
  readonly heartbeat: number;
  readonly connectionString: string | undefined;
  /** Gets every announcement of other stores, and the echoes of this one's. */
  readonly onMessage: (message: Announcement, isOwn: boolean) => void;
  /** `up`: the first heartbeat came back. `down`: what was known is no longer. */
  readonly onState: (state: 'up' | 'down') => void;
  readonly onError: (message: string, error?: unknown) => void;
}

/** Where a store listens, and how its statements announce; both once its source is open. */
export interface SyncSource {
  readonly listen: Listen;
  readonly announce: (payload: string) => Promise<void>;
}

/** Heartbeats within one lease: one may be late. */
const BEATS_PER_LEASE = 3;

const CONNECT_TIMEOUT_MS = 10_000;
const FIRST_BACKOFF_MS = 100;
const LONGEST_BACKOFF_MS = 15_000;

export class Realtime {
  /** By what the other stores know this one. */
  readonly sender = newSender();
  /** Raised whenever notifications may have been missed, and when listening begins. */
  epoch = 0;
  state: 'up' | 'down' = 'down';
  /** When the newest heartbeat that came back was sent. */
  #leaseStart: Instant | undefined;
  readonly #settings: RealtimeSettings;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #warned = false;

  constructor(settings: RealtimeSettings) {
    this.#settings = settings;
  }

  /** Whether nothing older than `heartbeat` seconds can be unknown here. */
  get holds(): boolean {
    if (this.state === 'down' || this.#leaseStart === undefined) return false;
    return elapsedMs(this.#leaseStart) < this.#settings.heartbeat * 1000;
  }

  /** Starts to listen, and goes on, with pauses after failures, until {@link close}. */
  start(open: () => Promise<SyncSource>): void {
    this.#running ??= this.#run(open);
  }

  async close(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(open: () => Promise<SyncSource>): Promise<void> {
    const { signal } = this.#stop;
    let failures = 0;
    while (!signal.aborted) {
      failures += 1;
      try {
        if (await this.#listenOnce(await open())) failures = 1;
      } catch (error) {
        if (!signal.aborted) this.#settings.onError('Listening for session changes failed', error);
      }
      await pause(backoffMs(failures), signal);
    }
  }

  /** One connection, from its start to its loss. Gives whether it was ever up. */
  async #listenOnce({ listen, announce }: SyncSource): Promise<boolean> {
    const { channel, connectionString, heartbeat: lease } = this.#settings;
    const over = new AbortController();
    const { signal } = over;
    const end = () => over.abort();
    const sentAt = new Map<string, Instant>();
    let listener: Listener | undefined;
    let everUp = false;
    let announced = false;
    /** Whether a heartbeat has not been answered: no second one is put behind it. */
    let isSending = false;
    const beat = async (number: number, send: (payload: string) => Promise<void>) => {
      isSending = true;
      sentAt.set(String(number), now());
      await send(heartbeat(this.sender, number));
      isSending = false;
    };
    const onMessage = (payload: string) => {
      const message = signal.aborted ? undefined : readMessage(payload);
      if (message === undefined) return;
      const isOwn = message.sender === this.sender;
      if (isAnnouncement(message)) this.#settings.onMessage(message, isOwn);
      else if (isOwn) this.#renew(sentAt, message.body);
    };
    this.#stop.signal.addEventListener('abort', end, { once: true });
    const limit = setTimeout(() => {
      over.abort(new StoreTimeoutError(CONNECT_TIMEOUT_MS / 1000));
    }, CONNECT_TIMEOUT_MS);
    limit.unref();
    try {
      if (this.#stop.signal.aborted) end();
      listener = await listen(channel, connectionString, { onMessage, onLost: end, signal });
      clearTimeout(limit);
      // A statement that was sent before may have missed a notification.
      this.epoch += 1;
      // Heartbeats are not awaited: a connection that is half open takes the bytes and never answers.
      beat(1, announce).then(
        () => (announced = true),
        (error) => {
          if (!signal.aborted) this.#settings.onError('Announcing session changes failed', error);
          end();
        },
      );
      for (let number = 2; !signal.aborted; number += 1) {
        await pause((lease * 1000) / BEATS_PER_LEASE, signal);
        everUp ||= this.state === 'up';
        if (signal.aborted) break;
        if (number > BEATS_PER_LEASE && !this.holds) {
          if (announced && !everUp) this.#warnOfPooler();
          break;
        }
        if (everUp && !isSending) beat(number, listener.send).catch(end);
      }
    } finally {
      clearTimeout(limit);
      this.#stop.signal.removeEventListener('abort', end);
      end();
      this.#lose();
      await listener?.close().catch(() => {});
    }
    return everUp;
  }

  #renew(sentAt: Map<string, Instant>, number: string): void {
    const at = sentAt.get(number);
    if (at === undefined) return;
    sentAt.delete(number);
    this.#leaseStart = at;
    if (this.state === 'up') return;
    this.state = 'up';
    this.#settings.onState('up');
  }

  #lose(): void {
    this.epoch += 1;
    this.#leaseStart = undefined;
    if (this.state === 'down') return;
    this.state = 'down';
    this.#settings.onState('down');
  }

  #warnOfPooler(): void {
    if (this.#warned) return;
    this.#warned = true;
    this.#settings.onError(
      'No announcement comes back to this session store: does its listener go through a transaction ' +
        'pooler, or to another database? Until one does, nothing is cached and no event comes from ' +
        "other processes. Give it a direct connection: sync: { connectionString: 'postgres://…' }",
    );
  }
}

/**
 * The monotonic clock, which nobody sets, and the wall clock, which goes on while a machine is
 * suspended: what has passed is the longer of the two.
 */
interface Instant {
  readonly monotonicMs: number;
  readonly wallMs: number;
}

function now(): Instant {
  return { monotonicMs: performance.now(), wallMs: Date.now() };
}

function elapsedMs({ monotonicMs, wallMs }: Instant): number {
  return Math.max(performance.now() - monotonicMs, Date.now() - wallMs);
}

/** How long to wait after so many failures in a row: doubled each time, capped, and jittered by half. */
export function backoffMs(failures: number, random = Math.random()): number {
  return Math.min(FIRST_BACKOFF_MS * 2 ** (failures - 1), LONGEST_BACKOFF_MS) * (0.5 + random);
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal, ref: false }).catch(() => {});
}
