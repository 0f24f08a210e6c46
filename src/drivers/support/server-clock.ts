/**
 * The clock of the server of a connection.
 *
 * A write contains the last server time at which it may run, because a network or a pooler may deliver it after its caller
 * has given up. So the deadline must be converted from this process's clock to the server's.
 *
 * The server reads its clock after the statement was sent and before the result arrived. So each reading limits the offset
 * between the two clocks. More readings narrow the limits. If a reading is outside of them, a clock was set, or a pooler
 * moved the connection to another server. Then the limits start again from this reading.
 *
 * @module
 */
import { monotonicMs } from '../../util/clock.js';

/** Older limits start again, because the clocks drift apart. */
const FRESH_MS = 60_000;

/** Covers rounding, and clocks that drift apart by 300 ppm for {@link FRESH_MS}. */
const MARGIN_MS = 20;

export class ServerClock {
  /** The minimum and maximum difference: server time minus local time. */
  #least = Number.NEGATIVE_INFINITY;
  #most = Number.POSITIVE_INFINITY;
  #sinceMs = Number.NEGATIVE_INFINITY;

  /** Whether the clock was read recently. If not, do not use {@link earliest} and {@link latest}. */
  get isFresh(): boolean {
    return monotonicMs() - this.#sinceMs < FRESH_MS;
  }

  /** Drops all readings, because the clock may have been set. */
  forget(): void {
    this.#sinceMs = Number.NEGATIVE_INFINITY;
  }

  /** Adds a reading: the server's time in milliseconds since 1970, and the local time when the statement was sent. */
  read(serverMs: number, sentMs: number): void {
    const nowMs = monotonicMs();
    const [least, most] = [serverMs - nowMs, serverMs - sentMs];
    const isApart = least > this.#most || most < this.#least;
    if (isApart || !this.isFresh) {
      this.#least = least;
      this.#most = most;
      this.#sinceMs = nowMs;
    } else {
      this.#least = Math.max(this.#least, least);
      this.#most = Math.min(this.#most, most);
    }
  }

  /** Returns the server's time, or up to a round trip earlier. */
  now(): number {
    return Math.floor(monotonicMs() + this.#least);
  }

  /** Converts a local time to server time, rounded down (never too late). */
  earliest(localMs: number): number {
    return Math.floor(localMs + this.#least - MARGIN_MS);
  }

  /** Converts a local time to server time, rounded up (never too early). */
  latest(localMs: number): number {
    return Math.ceil(localMs + this.#most + MARGIN_MS);
  }
}
