/**
 * The heartbeats for one listening connection: when each was sent, and which came back.
 *
 * @module
 */
import { StoreTimeoutError } from '../errors.js';
import { agingMs } from '../util/clock.js';
import { heartbeat } from './channel.js';

/** Sends a notification through the pool of the writes. Calls `onSend` when it has a connection. `signal` stops it. */
export type Announce = (payload: string, onSend: () => void, signal: AbortSignal) => Promise<void>;

export class Heartbeats {
  /** Whether the server has accepted one. */
  wasSent = false;
  everCameBack = false;
  /** The error of the last heartbeat, if it failed. */
  failure: unknown;
  readonly #sender: string;
  readonly #announce: Announce;
  readonly #signal: AbortSignal;
  /** The heartbeats that have not come back, oldest first, with the time of sending on the clock of {@link agingMs}. */
  readonly #sentAtMs = new Map<string, number>();
  #count = 0;
  #isSending = false;

  /** If `signal` is aborted while a heartbeat is being sent, its connection is closed. */
  constructor(sender: string, announce: Announce, signal: AbortSignal) {
    this.#signal = signal;
    this.#sender = sender;
    this.#announce = announce;
  }

  /**
   * Sends a heartbeat, unless the last one is still being sent. If it gets no connection in time because the app uses all
   * of them, that does not count as a failure.
   */
  async send(): Promise<void> {
    if (this.#isSending) return;
    this.#isSending = true;
    this.#count += 1;
    const number = String(this.#count);
    const onSend = () => this.#sentAtMs.set(number, agingMs());
    try {
      await this.#announce(heartbeat(this.#sender, this.#count), onSend, this.#signal);
      this.wasSent = true;
      this.failure = undefined;
    } catch (error) {
      if (error instanceof StoreTimeoutError && !error.sent) return;
      if (!this.#sentAtMs.has(number)) onSend();
      this.failure = error;
      throw error;
    } finally {
      this.#isSending = false;
    }
  }

  /** Returns the time of sending of a heartbeat that came back. Forgets earlier ones, which will not come back any more. */
  cameBack(number: string): number | undefined {
    const sentAtMs = this.#sentAtMs.get(number);
    if (sentAtMs === undefined) return undefined;
    for (const earlier of this.#sentAtMs.keys()) {
      this.#sentAtMs.delete(earlier);
      if (earlier === number) break;
    }
    this.everCameBack = true;
    return sentAtMs;
  }

  /** Whether a heartbeat sent before this time has not come back. */
  isOverdueAt(timeMs: number): boolean {
    const [oldestMs] = this.#sentAtMs.values();
    return oldestMs !== undefined && oldestMs <= timeMs;
  }
}
