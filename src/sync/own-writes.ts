/**
 * Matches the announcements of this process with its acknowledged writes.
 *
 * An acknowledged write is announced exactly once. So an announcement without an acknowledged write belongs to a write
 * with an unknown outcome: its connection was lost, or the caller gave up and the server ran it later.
 *
 * @module
 */

/** The state of listening that this module needs. */
export interface Listening {
  /** Changes when listening begins and when it ends. */
  readonly epoch: number;
}

interface Account {
  inFlight: number;
  /** Acknowledged writes minus announcements received. If below zero, an announcement is unexplained. */
  balance: number;
}

export class OwnWrites {
  readonly #listening: Listening;
  readonly #accounts = new Map<string, Account>();
  #epoch: number;

  constructor(listening: Listening) {
    this.#listening = listening;
    this.#epoch = listening.epoch;
  }

  begin(id: string): void {
    this.#accountOf(id).inFlight += 1;
  }

  /**
   * Records that a write committed. `epoch` is the epoch in which the write was sent. If that was before listening began,
   * no announcement is expected, because the write may have committed before, too.
   */
  acknowledge(id: string, epoch: number): void {
    if (epoch === this.#listening.epoch) this.#accountOf(id).balance += 1;
  }

  /** Ends a write that {@link begin} began. Returns whether an unexplained announcement arrived during the write. */
  end(id: string): boolean {
    const account = this.#accountOf(id);
    account.inFlight -= 1;
    return this.#isUnexplained(id, account);
  }

  /** Records an announcement. Returns whether it is already known to be unexplained. */
  hear(id: string): boolean {
    const account = this.#accountOf(id);
    account.balance -= 1;
    return this.#isUnexplained(id, account);
  }

  /** Undecided while a write is in flight, because its announcement can arrive before its result. */
  #isUnexplained(id: string, { inFlight, balance }: Account): boolean {
    if (inFlight > 0) return false;
    if (balance <= 0) this.#accounts.delete(id);
    return balance < 0;
  }

  #accountOf(id: string): Account {
    if (this.#epoch !== this.#listening.epoch) this.#startOver();
    let account = this.#accounts.get(id);
    if (account === undefined) {
      account = { inFlight: 0, balance: 0 };
      this.#accounts.set(id, account);
    }
    return account;
  }

  /** Forgets all writes, because announcements from a time without a listener never arrive. */
  #startOver(): void {
    this.#epoch = this.#listening.epoch;
    for (const [id, account] of this.#accounts) {
      if (account.inFlight === 0) this.#accounts.delete(id);
      else account.balance = 0;
    }
  }
}
