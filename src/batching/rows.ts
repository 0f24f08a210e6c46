/**
 * Reads and writes the rows of the session table, one at a time. Calls for one id run in order, calls for different ids
 * share a statement, and texts are converted to their stored form. The cache implements the same interface in front of
 * this one.
 *
 * @module
 */

import type { StoreTimeoutError } from '../errors.js';
import type { RowStatements } from '../queries/contract.js';
import type { SaveRow, StoredRow, TouchRow, WriteRow } from '../queries/wire.js';
import { monotonicMs } from '../util/clock.js';
import type { Batcher } from './batcher.js';
import type { Deadline, Holder } from './deadlines.js';
import { KeyedLock } from './keyed-lock.js';
import { type Decided, type Sealing, type Sends, type Settled, sendsOf } from './sends.js';

type OnDone = (outcome: Decided) => void;

/** The writes of a caller while it holds the lock of an id. */
export interface RowWrites {
  read(id: string): Promise<StoredRow | undefined>;
  save(row: SaveRow): Promise<Settled>;
  create(row: WriteRow): Promise<Settled>;
  put(row: WriteRow): Promise<Settled>;
  touch(row: TouchRow, onDone?: OnDone): Promise<Decided>;
  end(id: string): Promise<Decided>;
}

/** Every call rejects with a {@link StoreTimeoutError} at its deadline. */
export interface Rows {
  /** Returns the live row of an id if it is cached. */
  peek(id: string): StoredRow | undefined;
  /** The same, but does not count as a cache hit. */
  glance(id: string): StoredRow | undefined;
  /** Reads the live or expired row of an id, after all earlier calls of this process for the id. */
  read(id: string, deadline: Deadline): Promise<StoredRow | undefined>;
  /** Runs `work` after all earlier calls for the id have ended, and before any later one. */
  write<T>(id: string, deadline: Deadline, work: (writes: RowWrites) => Promise<T>): Promise<T>;
  /** Moves an expiry. Waiting touches of one id become one. `onDone` runs before any later call for the id. */
  touch(row: TouchRow, deadline: Deadline, onDone?: OnDone): Promise<Decided>;
  /** Reports rows that were ended without {@link write}. */
  forget(ids: readonly string[]): void;
  /** Returns a promise that resolves when the current writes and touches have ended; `undefined` if there are none. */
  afterWrites(): Promise<void> | undefined;
}

/** The lifetime of a tombstone. */
const LATE_INSERT_MS = 3_600_000;

/**
 * Knows whether an insert may still be running on the server although its connection was lost. Its row is not visible yet,
 * so a log-out of an id without a row must leave a tombstone.
 */
class LateInserts {
  #untilMs = 0;

  note(): void {
    this.#untilMs = monotonicMs() + LATE_INSERT_MS;
  }

  get arePossible(): boolean {
    return monotonicMs() < this.#untilMs;
  }
}

export class BatchedRows implements Rows {
  readonly #lock = new KeyedLock();
  /** Waiting touches. Later touches of the same id can join them. */
  readonly #touches = new Map<string, WaitingTouch>();
  readonly #late = new LateInserts();
  readonly #send: Sends;

  constructor(statements: RowStatements, batcher: Batcher, sealing: Sealing) {
    this.#send = sendsOf(statements, batcher, sealing);
  }

  peek(): undefined {
    return undefined;
  }

  glance(): undefined {
    return undefined;
  }

  read(id: string, deadline: Deadline): Promise<StoredRow | undefined> {
    this.#touches.delete(id);
    const turn = this.#lock.enter(id, false, deadline);
    const send = () => this.#send.read(id, deadline, () => this.#lock.leave(id));
    return turn === undefined ? send() : turn.then(send);
  }

  write<T>(id: string, deadline: Deadline, work: (writes: RowWrites) => Promise<T>): Promise<T> {
    this.#touches.delete(id);
    const turn = this.#lock.enter(id, true, deadline);
    const run = () => {
      const writing = new Writing(this.#send, deadline, this.#late, () => this.#lock.leave(id));
      const result = started(work, writing);
      result.then(writing.finish, writing.finish);
      return result;
    };
    if (turn === undefined) return run();
    return turn.then(() => {
      deadline.beganMs = monotonicMs();
      return run();
    });
  }

  touch(row: TouchRow, deadline: Deadline, onDone?: OnDone): Promise<Decided> {
    const { id } = row;
    const waiting = this.#touches.get(id);
    if (waiting?.row.createdAt === row.createdAt) return waiting.join(row, deadline, onDone);
    const turn = this.#lock.enter(id, true, deadline);
    if (turn === undefined) {
      return this.#send.touch(row, deadline, (outcome) => {
        if (outcome !== undefined) onDone?.(outcome);
        this.#lock.leave(id);
      });
    }
    const touch = new WaitingTouch(row);
    const outcome = touch.join(row, deadline, onDone);
    this.#touches.set(id, touch);
    void turn.then(() => {
      if (this.#touches.get(id) === touch) this.#touches.delete(id);
      const { latest } = touch;
      if (latest === undefined) return this.#lock.leave(id);
      touch.sendWith(latest);
      return this.#send
        .touch(touch.row, latest, (outcome) => {
          if (outcome !== undefined) touch.done(outcome);
          this.#lock.leave(id);
        })
        .then(touch.resolve, touch.reject);
    });
    return outcome;
  }

  forget(): void {}

  afterWrites(): Promise<void> | undefined {
    return this.#lock.afterWrites();
  }
}

/** Holds the lock of an id for a writer, until its work and all statements of the work have ended. */
class Writing implements RowWrites {
  readonly #send: Sends;
  readonly #deadline: Deadline;
  readonly #late: LateInserts;
  readonly #leave: () => void;
  /** Number of statements in flight, plus one for the work. */
  #running = 1;

  constructor(send: Sends, deadline: Deadline, late: LateInserts, leave: () => void) {
    this.#send = send;
    this.#deadline = deadline;
    this.#late = late;
    this.#leave = leave;
  }

  readonly finish = () => {
    this.#running -= 1;
    if (this.#running === 0) this.#leave();
  };

  readonly #inserted = (_result: Settled | undefined, isInDoubt: boolean) => {
    if (isInDoubt) this.#late.note();
    this.finish();
  };

  read(id: string): Promise<StoredRow | undefined> {
    this.#running += 1;
    return this.#send.read(id, this.#deadline, this.finish);
  }

  save(row: SaveRow): Promise<Settled> {
    this.#running += 1;
    return this.#send.save(row, this.#deadline, this.finish);
  }

  create(row: WriteRow): Promise<Settled> {
    this.#running += 1;
    return this.#send.create(row, this.#deadline, this.#inserted);
  }

  put(row: WriteRow): Promise<Settled> {
    this.#running += 1;
    return this.#send.put(row, this.#deadline, this.#inserted);
  }

  touch(row: TouchRow, onDone?: OnDone): Promise<Decided> {
    this.#running += 1;
    return this.#send.touch(row, this.#deadline, (outcome) => {
      if (outcome !== undefined) onDone?.(outcome);
      this.finish();
    });
  }

  async end(id: string): Promise<Decided> {
    const outcome = await this.#end(id);
    if (outcome === 'done' || !this.#late.arePossible) return outcome;
    this.#running += 1;
    const buried = await this.#send.bury(id, this.#deadline, this.finish);
    // An insert may have been faster.
    return buried === 'done' ? 'gone' : this.#end(id);
  }

  #end(id: string): Promise<Decided> {
    this.#running += 1;
    return this.#send.end(id, this.#deadline, this.finish);
  }
}

/** Touches of one id that wait for the lock together. */
class WaitingTouch {
  row: TouchRow;
  readonly #members: Member[] = [];

  constructor(row: TouchRow) {
    this.row = row;
  }

  /** Merges a touch, with the same effect as two: the session must be live at the first, and the later expiry wins. */
  join(row: TouchRow, deadline: Deadline, onDone?: OnDone): Promise<Decided> {
    const { aliveAt, expiresAt } = this.row;
    const later = row.createdAt === 0 ? row.expiresAt : Math.max(row.expiresAt, expiresAt);
    this.row = { ...row, aliveAt, expiresAt: later };
    return new Promise((resolve, reject) => {
      if (deadline.error !== undefined) return reject(deadline.error);
      const member = new Member(deadline, resolve, reject, onDone);
      deadline.holder = member;
      this.#members.push(member);
    });
  }

  /** The latest deadline of the touches that have not given up. */
  get latest(): Deadline | undefined {
    return this.#members.findLast((member) => !member.isOver)?.deadline;
  }

  /** Makes the time-out error of each touch say whether the one call for all of them was sent. */
  sendWith(latest: Deadline): void {
    for (const { deadline } of this.#members) deadline.sentWith = latest;
  }

  done(outcome: Decided): void {
    for (const member of this.#members) member.onDone?.(outcome);
  }

  readonly resolve = (outcome: Decided) => {
    for (const member of this.#members) member.resolve(outcome);
  };

  readonly reject = (error: unknown) => {
    for (const member of this.#members) member.reject(error);
  };
}

class Member implements Holder {
  isOver = false;

  constructor(
    readonly deadline: Deadline,
    readonly resolve: (outcome: Decided) => void,
    readonly reject: (error: unknown) => void,
    readonly onDone: OnDone | undefined,
  ) {}

  giveUp(error: StoreTimeoutError): void {
    this.isOver = true;
    this.reject(error);
  }
}

/** Starts work. Rejects if the work throws synchronously, so that the lock is released. */
function started<T>(work: (writes: RowWrites) => Promise<T>, writing: Writing): Promise<T> {
  try {
    return work(writing);
  } catch (error) {
    return Promise.reject(error);
  }
}
