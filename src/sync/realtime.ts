/**
 * Realtime: receives the changes of other processes, and knows when it may have missed one.
 *
 * A separate connection listens, and the store sends heartbeats to itself. Postgres delivers notifications in the order of
 * their commits. So when a heartbeat comes back, this process has received every change that was committed before the
 * heartbeat was *sent*. This is the lease: if the last heartbeat that came back was sent less than `heartbeat` seconds ago,
 * this process knows every older change.
 *
 * Heartbeats go through the store's own statements, like the announcements. If they went through the listening connection,
 * they would come back even if that connection leads to another place than the writes: to another database, to a former
 * primary, or through a transaction pooler, which drops the notifications of other connections.
 *
 * @module
 */
import type { Listen, Listener } from '../drivers/driver.js';
import { StoreTimeoutError, sqlState } from '../errors.js';
import { unlessAborted } from '../util/abort.js';
import { type Backoff, backoffMs } from '../util/backoff.js';
import { agingMs, clearTimeout, pause, setTimeout, socketsRead } from '../util/clock.js';
import { READ_ONLY } from '../util/sql-states.js';
import { type Announcement, isAnnouncement, newSender, readMessage } from './channel.js';
import { type Announce, Heartbeats } from './heartbeats.js';

export interface RealtimeSettings {
  /** Seconds. */
  readonly heartbeat: number;
  readonly connectionString: string | undefined;
  /** Called for every announcement, of other stores and of this store. */
  readonly onMessage: (message: Announcement, isOwn: boolean) => void;
  /** `up`: the first heartbeat came back. `down`: announcements may be missed from now on. */
  readonly onState: (state: 'up' | 'down') => void;
  readonly onError: (message: string, error?: unknown) => void;
}

/** The channel of a store, and how to listen and announce on it. */
export interface SyncSource {
  readonly channel: string;
  readonly listen: Listen;
  readonly announce: Announce;
}

/** Heartbeats within one lease, so that one may be late. */
const BEATS_PER_LEASE = 3;

const CONNECT_TIMEOUT_MS = 10_000;
const FIRST_RETRY_MS = 100;

export class Realtime {
  /** The name of the sender in this store's messages. */
  readonly sender = newSender();
  /** Changes whenever announcements may have been missed, and when listening begins. */
  epoch = 0;
  state: 'up' | 'down' = 'down';
  /** Time of sending of the last heartbeat that came back, on the clock of {@link agingMs}. */
  #leaseStartMs: number | undefined;
  readonly #settings: RealtimeSettings;
  readonly #stop = new AbortController();
  /** Ends the current connection. */
  #over = new AbortController();
  #running: Promise<void> | undefined;
  #hasWarned = false;

  constructor(settings: RealtimeSettings) {
    this.#settings = settings;
  }

  /**
   * Whether this process has received every change older than `heartbeat` seconds. After the machine was suspended, this
   * is false until a new heartbeat comes back, because {@link agingMs} includes that time.
   */
  holdsAt(nowMs: number): boolean {
    if (this.state === 'down' || this.#leaseStartMs === undefined) return false;
    return nowMs - this.#leaseStartMs < this.#settings.heartbeat * 1000;
  }

  /** Listens until {@link close}. After a failure, tries again after a pause. */
  start(open: () => Promise<SyncSource>): void {
    this.#running ??= this.#run(open);
  }

  /** Ends the current connection and opens the source again. */
  restart(): void {
    this.#over.abort();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    this.#over.abort();
    await this.#running;
  }

  async #run(open: () => Promise<SyncSource>): Promise<void> {
    const { signal } = this.#stop;
    // Listening begins again within `heartbeat` seconds after the database is available, however long it was not.
    const halfLeaseMs = (this.#settings.heartbeat * 1000) / 2;
    const backoff: Backoff = {
      firstMs: FIRST_RETRY_MS,
      longestMs: Math.max(halfLeaseMs, FIRST_RETRY_MS),
    };
    let failures = 0;
    while (!signal.aborted) {
      try {
        if (await this.#listenOnce(await unlessAborted(open(), signal))) failures = 0;
      } catch (error) {
        if (!signal.aborted) this.#settings.onError('Listening for session changes failed', error);
      }
      await pause(backoffMs(failures, backoff), signal);
      failures += 1;
    }
  }

  /** Listens on one connection until it is lost. Returns whether it was ever up. */
  async #listenOnce({ channel, listen, announce }: SyncSource): Promise<boolean> {
    if (this.#stop.signal.aborted) return false;
    const { connectionString, heartbeat: lease } = this.#settings;
    const over = new AbortController();
    this.#over = over;
    const { signal } = over;
    const end = () => over.abort();
    const beats = new Heartbeats(this.sender, announce, this.#stop.signal);
    let listener: Listener | undefined;
    const onMessage = (payload: string) => {
      const message = signal.aborted ? undefined : readMessage(payload);
      if (message === undefined) return;
      const isOwn = message.sender === this.sender;
      if (isAnnouncement(message)) this.#settings.onMessage(message, isOwn);
      else if (isOwn) this.#renew(beats.cameBack(message.body));
    };
    const limit = setTimeout(() => {
      over.abort(new StoreTimeoutError(CONNECT_TIMEOUT_MS / 1000, false));
    }, CONNECT_TIMEOUT_MS);
    limit.unref();
    try {
      listener = await listen(channel, connectionString, { onMessage, onLost: end, signal });
      clearTimeout(limit);
      // A statement that was sent before may have missed a notification.
      this.epoch += 1;
      while (!signal.aborted) {
        // Not awaited: a half-open connection accepts the bytes and never responds.
        beats.send().catch((error) => {
          // If only one connection of the pool is broken, the listener can continue.
          if (beats.everCameBack && sqlState(error) !== READ_ONLY) return;
          if (!signal.aborted) this.#failedToAnnounce(error);
          end();
        });
        await pause((lease * 1000) / BEATS_PER_LEASE, signal);
        if (signal.aborted) break;
        // If the event loop was blocked, a heartbeat may be in the socket.
        await unlessAborted(socketsRead(), signal).catch(() => {});
        if (signal.aborted || !beats.isOverdueAt(agingMs() - lease * 1000)) continue;
        if (beats.failure !== undefined) this.#failedToAnnounce(beats.failure);
        else if (beats.wasSent && !beats.everCameBack) this.#warnOfPooler();
        break;
      }
    } finally {
      clearTimeout(limit);
      end();
      this.#lose();
      await listener?.close().catch(() => {});
    }
    return beats.everCameBack;
  }

  /** `sentAtMs`: when the heartbeat that came back was sent. */
  #renew(sentAtMs: number | undefined): void {
    if (sentAtMs === undefined) return;
    this.#leaseStartMs = sentAtMs;
    if (this.state === 'up') return;
    this.state = 'up';
    this.#settings.onState('up');
  }

  #lose(): void {
    this.epoch += 1;
    this.#leaseStartMs = undefined;
    if (this.state === 'down') return;
    this.state = 'down';
    this.#settings.onState('down');
  }

  #failedToAnnounce(error: unknown): void {
    this.#settings.onError('Announcing session changes failed', error);
  }

  #warnOfPooler(): void {
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    this.#settings.onError(
      'This session store does not receive its own announcements. Probably its listener connects through a ' +
        'transaction pooler, or to another database. Until it receives them, it caches nothing and gets no ' +
        "changes of other processes. Pass a direct connection: sync: { connectionString: 'postgres://…' }",
    );
  }
}
