/**
 * Tells express-session to skip sessions while the database is unavailable (`whenUnavailable: 'skip'`), by the events
 * `disconnect` and `connect`.
 *
 * A failed call proves nothing: its connection may have been the only one that broke, or another transaction may hold
 * its session. So the database is probed first. While it is unavailable no requests come, and probing goes on.
 *
 * @module
 */
import { Deadlines } from '../batching/deadlines.js';
import { ConnectionError, StoreTimeoutError } from '../errors.js';
import { type Backoff, backoffMs } from '../util/backoff.js';
import { pause } from '../util/clock.js';

/** Without requests to serve, a probe every two seconds is cheap, and sessions return soon after the database. */
const BACKOFF: Backoff = { firstMs: 100, longestMs: 2000 };

/** A network that has returned is noticed by the next probe, so no probe waits long for the old one. */
const PROBE_SECONDS = 5;

export interface AvailabilitySettings {
  /** Resolves if the database answers. */
  readonly probe: (deadlines: Deadlines) => Promise<void>;
  /** Seconds that a call may take. A probe takes no longer. */
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

  /** Takes the error of a call. */
  failed(error: unknown): void {
    if (!mayBeAway(error) || this.#settings.signal.aborted) return;
    // Repeated at each failure, because express-session may not have been listening before.
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

  /** Whether the database answers, even if it answers with an error, such as that of a missing table. */
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
