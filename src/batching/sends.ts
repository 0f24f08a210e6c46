/**
 * One function for each statement about a row. It sends the row, alone or together with others, and converts the text to
 * the stored form and back.
 *
 * @module
 */
import type { RowStatement, RowStatements } from '../queries/contract.js';
import type { Outcome, SaveRow, StoredRow, TouchRow, WriteRow, Written } from '../queries/wire.js';
import type { Batcher } from './batcher.js';
import type { OnEnd, Send } from './call-queue.js';

/** The final outcome of a write: anything except `busy`. */
export type Settled = Exclude<Written, { readonly outcome: 'busy' }>;

/** The outcome of a touch or an end. */
export type Decided = Exclude<Outcome, 'busy'>;

/** Converts the text of a session to its stored form, and back. */
export interface Sealing {
  /** Whether the stored form is the text itself. */
  readonly isPlain: boolean;
  seal(id: string, text: string): string;
  unseal(id: string, stored: string): string;
}

/** One function for each statement about a row. */
export interface Sends {
  readonly read: Send<string, StoredRow | undefined>;
  readonly touch: Send<TouchRow, Decided>;
  readonly save: Send<SaveRow, Settled>;
  readonly create: Send<WriteRow, Settled>;
  readonly put: Send<WriteRow, Settled>;
  readonly end: Send<string, Decided>;
  readonly bury: Send<string, Outcome>;
}

export function sendsOf(statements: RowStatements, batcher: Batcher, sealing: Sealing): Sends {
  const unsealed = (row: StoredRow): StoredRow => ({
    ...row,
    data: sealing.unseal(row.id, row.data),
  });

  const sealed = <Row extends WriteRow>(row: Row, onEnd?: OnEnd<Settled>): Row => {
    try {
      return { ...row, data: sealing.seal(row.id, row.data) };
    } catch (error) {
      onEnd?.(undefined, false);
      throw error;
    }
  };

  const { maxRows } = statements;

  const read = batcher.batched('read', 'read', statements.read, { isShared: true, maxRows });

  const write = <Row extends WriteRow>(
    name: string,
    statement: RowStatement<Row, Written>,
  ): Send<Row, Settled> => {
    const send = batcher.batched(name, 'write', statement, {
      bytesOf: (row) => Buffer.byteLength(row.data),
      isSettled,
      maxRows,
    });
    if (sealing.isPlain) return send;
    return async (row, deadline, onEnd) => {
      const written = await send(sealed(row, onEnd), deadline, onEnd);
      return written.outcome === 'conflict'
        ? { outcome: 'conflict', stored: unsealed(written.stored) }
        : written;
    };
  };

  return {
    read: sealing.isPlain
      ? read
      : (id, deadline, onEnd) =>
          read(id, deadline, onEnd && (() => onEnd(undefined, false))).then(
            (row) => row && unsealed(row),
          ),
    touch: batcher.batched('touch', 'write', statements.touch, { isSettled: isDecided, maxRows }),
    save: write('save', statements.save),
    create: write('create', statements.create),
    put: write('put', statements.put),
    end: batcher.batched('end', 'write', statements.end, { isSettled: isDecided, maxRows }),
    bury: batcher.batched('bury', 'write', statements.bury, { maxRows: 1 }),
  };
}

function isDecided(outcome: Outcome): outcome is Decided {
  return outcome !== 'busy';
}

function isSettled(written: Written): written is Settled {
  return written.outcome !== 'busy';
}
