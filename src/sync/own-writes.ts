/**
 * Matches this process's own announcements with the writes that it knows have committed.
 *
 * An acknowledged write is announced exactly once. So an announcement that no acknowledged write
 * accounts for belongs to a write whose outcome this process never learned: its connection was lost, or
 * it was given up and the server ran it later.
 *
 * @module
 */

/** What this module needs to know about listening. */
export interface Listening {
  /** Changes when listening begins and when it ends. */
  readonly epoch: number;
}

interface Account {
  inFlight: number;
  /** Acknowledged writes minus announcements heard. Below zero: an announcement is unexplained. */
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
   * Records that a write committed. `epoch` is the one in which the write was sent: a write that was
   * sent before listening began may have committed unheard, so no announcement is expected for it.
   */
  acknowledge(id: string, epoch: number): void {
    if (epoch === this.#listening.epoch) this.#accountOf(id).balance += 1;
  }

  /** Ends what {@link begin} began. Returns whether an unexplained announcement came meanwhile. */
  end(id: string): boolean {
    const account = this.#accountOf(id);
    account.inFlight -= 1;
    return this.#isUnexplained(id, account);
  }

  /** Records an announcement. Returns whether it is unexplained, as far as can be told yet. */
  hear(id: string): boolean {
    const account = this.#accountOf(id);
    account.balance -= 1;
    return this.#isUnexplained(id, account);
  }

  /** An announcement can come before its answer, so nothing is decided while a write is in flight. */
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

  /** Announcements from a time without a listener are never heard. */
  #startOver(): void {
    this.#epoch = this.#listening.epoch;
    for (const [id, account] of this.#accounts) {
      if (account.inFlight === 0) this.#accounts.delete(id);
      else account.balance = 0;
    }
  }
}
