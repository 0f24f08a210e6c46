/**
 * Counts the calls in flight. `close()` waits for them.
 *
 * @module
 */
export class InFlight {
  #inFlight = 0;
  #onIdle: (() => void) | undefined;

  /** Counts a call until it settles, and returns the result of `onResult` or `onError`. */
  track<T, Result>(
    running: Promise<T>,
    onResult: (value: T) => Result,
    onError: (error: unknown) => Result,
  ): Promise<Result> {
    this.#inFlight += 1;
    return running.then(
      (value) => {
        this.#end();
        return onResult(value);
      },
      (error) => {
        this.#end();
        return onError(error);
      },
    );
  }

  /** Resolves when no call is in flight. */
  async idle(): Promise<void> {
    if (this.#inFlight === 0) return;
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
    });
  }

  #end(): void {
    this.#inFlight -= 1;
    if (this.#inFlight === 0) this.#onIdle?.();
  }
}
