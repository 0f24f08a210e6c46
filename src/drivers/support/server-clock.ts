/**
 * The clock of the server at the other end of a connection.
 *
 * A write carries the last server time at which it may run, because a network or a pooler may deliver it after
 * its caller gave up. So the deadline, which is on this process's clock, has to be converted.
 *
 * A reading of the server's clock limits the offset between the two clocks: the server read it after the statement was
 * sent and before the result arrived. Further readings narrow the limits. A reading outside of them means that a
 * clock was set, or that a pooler moved the connection to another server; then the limits start again from it.
 *
 * @module
 */
import { monotonicMs } from '../../util/clock.js';

/** Limits older than this start again, so that clocks that drift apart cannot leave them. */
const FRESH_MS = 60_000;

/** Covers rounding, and clocks that drift apart by 300 ppm for {@link FRESH_MS}. */
const MARGIN_MS = 20;

export class ServerClock {
  /** What to add to the time here for the time there, at least and at most. */
  #least = Number.NEGATIVE_INFINITY;
  #most = Number.POSITIVE_INFINITY;
  #sinceMs = Number.NEGATIVE_INFINITY;

  /** Whether the clock was read lately. Without that, {@link earliest} and {@link latest} must not be used. */
  get isFresh(): boolean {
    return monotonicMs() - this.#sinceMs < FRESH_MS;
  }

  /** Drops what was read: the clock may have been set. */
  forget(): void {
    this.#sinceMs = Number.NEGATIVE_INFINITY;
  }

  /** Takes a reading: milliseconds since 1970 there, and the time here at which the statement was sent. */
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

  /** Returns the time there, or that of up to a round trip before. */
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
