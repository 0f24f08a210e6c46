/**
 * The heartbeats of one connection that listens: when each was sent, and which came back.
 *
 * @module
 */
import { StoreTimeoutError } from '../errors.js';
import { agingMs } from '../util/clock.js';
import { heartbeat } from './channel.js';

/** Sends a notification through the writes' pool. Calls `onSend` once it has a connection; `signal` gives it up. */
export type Announce = (payload: string, onSend: () => void, signal: AbortSignal) => Promise<void>;

export class Heartbeats {
  /** Whether the server has accepted one. */
  wasSent = false;
  everCameBack = false;
  /** Why the last one failed. */
  failure: unknown;
  readonly #sender: string;
  readonly #announce: Announce;
  readonly #signal: AbortSignal;
  /** Those that have not come back, oldest first: when they were sent, on the clock of {@link agingMs}. */
  readonly #sentAtMs = new Map<string, number>();
  #count = 0;
  #isSending = false;

  /** Once `signal` is aborted, a heartbeat that is being sent is given up, with its connection. */
  constructor(sender: string, announce: Announce, signal: AbortSignal) {
    this.#signal = signal;
    this.#sender = sender;
    this.#announce = announce;
  }

  /**
   * Sends a heartbeat, unless the last one is still being sent. One that gets no connection in time, because the app
   * uses all of them, is no failure.
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

  /** Returns when a heartbeat was sent that came back; those sent before it will not come back any more. */
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

  /** Whether one that was sent before a time has not come back. */
  isOverdueAt(timeMs: number): boolean {
    const [oldestMs] = this.#sentAtMs.values();
    return oldestMs !== undefined && oldestMs <= timeMs;
  }
}
