/**
 * The rows of the session table, one by one, with their texts: what the store reads and writes
 * through. Behind it, calls of one id are put in order, calls of many are put into one statement, and
 * texts are turned into what is stored. The cache is another implementation of the same contract, around
 * this one.
 *
 * @module
 */
import type { Outcome, StoredRow, Written } from '../queries/answers.js';
import type { SaveRow, TouchRow, WriteRow } from '../queries/columns.js';
import type { Statement, Statements } from '../queries/statements.js';
import type { Codec } from '../session/codec.js';
import type { Batcher, Send } from './batcher.js';
import { Turns } from './keyed-lock.js';

/** What became of a write, once no other transaction held its row. */
export type Settled = Exclude<Written, { readonly outcome: 'busy' }>;

/** The same of a touch or an end. */
export type Decided = Exclude<Outcome, 'busy'>;

/** Moves an expiry. `onDone` is called before any later call of the id begins. */
export type Touch = (row: TouchRow, onDone?: OnDone) => Promise<Decided>;
type OnDone = (outcome: Decided) => void;

/** The writes that a caller may send while it is its turn. */
export interface RowWrites {
  save(row: SaveRow): Promise<Settled>;
  create(row: WriteRow): Promise<Settled>;
  put(row: WriteRow): Promise<Settled>;
  touch: Touch;
  end(id: string): Promise<Decided>;
}

export interface Rows {
  /** What is known of a live row without asking the database. */
  peek(id: string): StoredRow | undefined;
  /**
   * The live or expired row of an id, as all earlier calls of this process have left it.
   *
   * @throws {Unreadable} where its stored form cannot be read
   */
  read(id: string): Promise<StoredRow | undefined>;
  /** Runs `work` when all earlier calls of this id have ended, before any later one. */
  write<T>(id: string, work: (writes: RowWrites) => Promise<T>): Promise<T>;
  /** Waiting touches of one id become one. */
  touch: Touch;
  /** Tells that other rows have ended than those that were written by id. */
  ended(ids: readonly string[]): void;
}

interface WaitingTouch {
  row: TouchRow;
  readonly onDone: (OnDone | undefined)[];
  readonly outcome: Promise<Decided>;
}

export class BatchedRows implements Rows {
  readonly #turns: Turns;
  /** Waiting touches, which later ones of their id may join. */
  readonly #touches = new Map<string, WaitingTouch>();
  readonly #read: Send<string, StoredRow | undefined>;
  readonly #touch: Send<TouchRow, Decided>;
  readonly #writes: RowWrites;

  /** `timeout` is in seconds. */
  constructor(statements: Statements, batcher: Batcher, codec: Codec, timeout: number) {
    this.#turns = new Turns(timeout);
    const unseal = (row: StoredRow): StoredRow => ({
      ...row,
      data: codec.unseal(row.id, row.data),
    });
    const write = <Row extends WriteRow>(name: string, statement: Statement<Row, Written>) => {
      const send = batcher.batched(name, 'write', statement, {
        bytesOf: (row) => Buffer.byteLength(row.data),
        isSettled,
      });
      if (codec.isPlain) return (row: Row) => send(row);
      return async (row: Row): Promise<Settled> => {
        const written = await send({ ...row, data: codec.seal(row.id, row.data) });
        return written.outcome === 'conflict'
          ? { outcome: 'conflict', stored: unseal(written.stored) }
          : written;
      };
    };
    const end = batcher.batched('end', 'write', statements.end, { isSettled: isDecided });
    const read = batcher.batched('read', 'read', statements.read, { isShared: true });
    this.#read = codec.isPlain
      ? read
      : (id, onEnd) => read(id, onEnd).then((row) => row && unseal(row));
    this.#touch = batcher.batched('touch', 'write', statements.touch, { isSettled: isDecided });
    this.#writes = {
      save: write('save', statements.save),
      create: write('create', statements.create),
      put: write('put', statements.put),
      touch: (row, onDone) => this.#touch(row, (outcome) => outcome && onDone?.(outcome)),
      end: (id) => end(id),
    };
  }

  peek(): undefined {
    return undefined;
  }

  read(id: string): Promise<StoredRow | undefined> {
    this.#touches.delete(id);
    const turn = this.#turns.enter(id, false);
    const send = () => this.#read(id, () => this.#turns.leave(id));
    return turn === undefined ? send() : turn.then(send);
  }

  write<T>(id: string, work: (writes: RowWrites) => Promise<T>): Promise<T> {
    this.#touches.delete(id);
    return this.#turns.exclusive(id, () => work(this.#writes));
  }

  touch(row: TouchRow, onDone?: OnDone): Promise<Decided> {
    const { id } = row;
    const waiting = this.#touches.get(id);
    if (waiting !== undefined && waiting.row.createdAt === row.createdAt) {
      // As if both had been sent: the session was alive at the first, and stays until the later expiry.
      const { aliveAt, expiresAt } = waiting.row;
      const later = row.createdAt === 0 ? row.expiresAt : Math.max(row.expiresAt, expiresAt);
      waiting.row = { ...row, aliveAt, expiresAt: later };
      waiting.onDone.push(onDone);
      return waiting.outcome;
    }
    const everybody = [onDone];
    const end = (outcome?: Decided) => {
      if (outcome !== undefined) for (const each of everybody) each?.(outcome);
      this.#turns.leave(id);
    };
    const turn = this.#turns.enter(id, true);
    if (turn === undefined) return this.#touch(row, end);
    const noMore = () => {
      if (this.#touches.get(id) === touch) this.#touches.delete(id);
    };
    const send = () => {
      noMore();
      return this.#touch(touch.row, end);
    };
    const outcome = turn.then(send, (error) => {
      noMore();
      throw error;
    });
    const touch: WaitingTouch = { row, onDone: everybody, outcome };
    this.#touches.set(id, touch);
    return outcome;
  }

  ended(): void {}
}

function isDecided(outcome: Outcome): outcome is Decided {
  return outcome !== 'busy';
}

function isSettled(written: Written): written is Settled {
  return written.outcome !== 'busy';
}
