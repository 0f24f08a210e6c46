/**
 * Makes express-session skip sessions while the database is unavailable (`whenUnavailable: 'skip'`), with the events
 * `disconnect` and `connect`.
 *
 * A failed call alone proves nothing: perhaps only its connection broke, or another transaction has locked its session. So
 * the store probes the database first. While it is unavailable, no calls arrive, and the store keeps probing.
 *
 * @module
 */
import { Deadlines } from '../batching/deadlines.js';
import { ConnectionError, StoreTimeoutError } from '../errors.js';
import { type Backoff, backoffMs } from '../util/backoff.js';
import { pause } from '../util/clock.js';

/** No requests use the store during that time, so a probe every two seconds is cheap. */
const BACKOFF: Backoff = { firstMs: 100, longestMs: 2000 };

/** Short, because after a network failure only the next probe can succeed. */
const PROBE_SECONDS = 5;

export interface AvailabilitySettings {
  /** Resolves if the database answers. */
  readonly probe: (deadlines: Deadlines) => Promise<void>;
  /** Time limit of a call in seconds. A probe has no longer one. */
  readonly timeout: number;
  /** Aborting it ends probing. */
  readonly signal: AbortSignal;
  readonly onChange: (event: 'connect' | 'disconnect') => void;
}

export class Availability {
  readonly #settings: AvailabilitySettings;
  readonly #deadlines: Deadlines;
  #isAway = false;
  #isProbing = false;

  constructor(settings: AvailabilitySettings) {
    this.#settings = settings;
    this.#deadlines = new Deadlines(Math.min(settings.timeout, PROBE_SECONDS));
  }

  /** Reports the error of a call. */
  failed(error: unknown): void {
    if (!mayBeAway(error) || this.#settings.signal.aborted) return;
    // Repeated at each failure, because express-session may not have listened to earlier ones.
    if (this.#isAway) this.#settings.onChange('disconnect');
    if (!this.#isProbing) void this.#probeUntilAnswered();
  }

  async #probeUntilAnswered(): Promise<void> {
    const { signal, onChange } = this.#settings;
    this.#isProbing = true;
    for (let failures = 0; !(await this.#answers()); failures += 1) {
      if (signal.aborted) return;
      this.#isAway = true;
      onChange('disconnect');
      await pause(backoffMs(failures, BACKOFF), signal);
      if (signal.aborted) return;
    }
    this.#isProbing = false;
    if (!this.#isAway || signal.aborted) return;
    this.#isAway = false;
    onChange('connect');
  }

  /** Whether the database responds. An error counts, too, such as a missing table. */
  #answers(): Promise<boolean> {
    return this.#settings.probe(this.#deadlines).then(
      () => true,
      (error) => !mayBeAway(error),
    );
  }
}

function mayBeAway(error: unknown): boolean {
  return error instanceof StoreTimeoutError || error instanceof ConnectionError;
}
