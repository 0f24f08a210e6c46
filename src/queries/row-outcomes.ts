/**
 * Finds the outcome of each row of a statement, for one row or for many.
 *
 * @module
 */
import type { Connection } from '../drivers/driver.js';
import type { RowStatement, RowStatements } from './contract.js';
import type { Inserted, ManyRows } from './many-rows.js';
import type { OneRow, Versioned } from './one-row.js';
import type { ReadClock } from './server-time.js';
import {
  type CallTimes,
  type Outcome,
  type SaveRow,
  type StoredRow,
  type TouchRow,
  versionStep,
  type WriteRow,
  type Written,
} from './wire.js';

/** The outcome of a call for one row. */
type ForOne<Row, Result> = (on: Connection, row: Row, times: CallTimes) => Promise<Result>;

interface OneRowOutcomes {
  readonly touch: ForOne<TouchRow, Outcome>;
  readonly save: ForOne<SaveRow, Written>;
  readonly create: ForOne<WriteRow, Written>;
  readonly put: ForOne<WriteRow, Written>;
  readonly end: ForOne<string, Outcome>;
  readonly bury: ForOne<string, Outcome>;
}

function outcomesOf(one: OneRow): OneRowOutcomes {
  return {
    touch: async (on, row, times) => {
      if (await one.touch(on, row, times)) return 'done';
      return missedTouch(row, await one.read(on, row.id));
    },
    save: async (on, row, times) => {
      const step = versionStep();
      if (await one.save(on, row, step, times)) return saved(row, step);
      return missedSave(row, await one.read(on, row.id));
    },
    create: async (on, row, times) => {
      const written = (await one.insert(on, row, times)) ?? (await one.replace(on, row, times));
      return done(written) ?? ((await one.isTombstone(on, row.id, times)) ? GONE : BUSY);
    },
    put: async (on, row, times) => {
      const written = (await one.overwrite(on, row, times)) ?? (await one.insert(on, row, times));
      return done(written) ?? ((await one.isTombstone(on, row.id)) ? GONE : BUSY);
    },
    end: async (on, id, times) => {
      if (await one.endLive(on, id, times)) return 'done';
      if ((await one.read(on, id)) === undefined) return 'gone';
      return (await one.endExpired(on, id, times)) ? 'gone' : 'busy';
    },
    bury: async (on, id, times) => ((await one.bury(on, id, times)) ? 'done' : 'busy'),
  };
}

/**
 * A write needs the server's clock. If it changed nothing, that clock may have been set, and there is no row with a reading
 * of it.
 */
function writer(readClock: ReadClock) {
  return <Row, Result extends Outcome | Written>(
    send: RowStatement<Row, Result>,
  ): RowStatement<Row, Result> =>
    (on, rows, times) => {
      const reading = readClock(on);
      const sent =
        reading === undefined ? send(on, rows, times) : reading.then(() => send(on, rows, times));
      return sent.then((results) => {
        if (results.some(isBusy)) on.clock.forget();
        return results;
      });
    };
}

/** Statements for one row each. A lane sends one at a time, because a statement may wait for its row. */
export function oneByOne(one: OneRow, readClock: ReadClock): RowStatements {
  const write = writer(readClock);
  const { touch, save, create, put, end, bury } = outcomesOf(one);
  return {
    maxRows: 1,
    read: each((on, id) => one.read(on, id)),
    touch: write(each(touch)),
    save: write(each(save)),
    create: write(each(create)),
    put: write(each(put)),
    end: write(each(end)),
    bury: write(each(bury)),
  };
}

export function rowStatements(one: OneRow, many: ManyRows, readClock: ReadClock): RowStatements {
  const write = writer(readClock);
  const alone = outcomesOf(one);
  const read = async (on: Connection, ids: readonly string[]) => {
    const found = await many.read(on, ids);
    return ids.map((id) => found.get(id));
  };

  return {
    maxRows: undefined,
    read: aloneOr((on, id) => one.read(on, id), read),
    touch: write(
      aloneOr(alone.touch, async (on, rows, times) =>
        judged(on, rows, await many.touch(on, rows, times), () => 'done', 'busy', missedTouch),
      ),
    ),
    save: write(
      aloneOr(alone.save, async (on, rows, times) => {
        const step = versionStep();
        const changed = await many.save(on, rows, step, times);
        return judged(on, rows, changed, (row) => saved(row, step), BUSY, missedSave);
      }),
    ),
    create: write(
      aloneOr(alone.create, async (on, rows, times) =>
        inserted(rows, await many.create(on, rows, times)),
      ),
    ),
    put: write(
      aloneOr(alone.put, async (on, rows, times) =>
        inserted(rows, await many.put(on, rows, times)),
      ),
    ),
    end: write(
      aloneOr(alone.end, async (on, ids, times) => {
        const rows = ids.map((id) => ({ id }));
        const ended = await many.end(on, ids, times);
        return judged<{ id: string }, Outcome>(
          on,
          rows,
          ended,
          () => 'done',
          'busy',
          (_, stored) => (stored === undefined ? 'gone' : 'busy'),
        );
      }),
    ),
    bury: write(each(alone.bury)),
  };

  /** Returns the outcome of each row of a write. Reads the rows that the write did not change. */
  async function judged<Row extends { readonly id: string }, Result>(
    on: Connection,
    rows: readonly Row[],
    changed: ReadonlySet<string>,
    success: (row: Row) => Result,
    busy: Result,
    missed: (row: Row, stored: StoredRow | undefined) => Result,
  ): Promise<Result[]> {
    if (changed.size === rows.length) return rows.map(success);
    const others = rows.filter((row) => !changed.has(row.id)).map((row) => row.id);
    const stored = await many.read(on, others).catch((error) => {
      // The changes have been committed. The other rows count as busy and are sent again.
      if (changed.size > 0) return undefined;
      throw error;
    });
    return rows.map((row) => {
      if (changed.has(row.id)) return success(row);
      return stored === undefined ? busy : missed(row, stored.get(row.id));
    });
  }
}

/** Uses one statement for a single row, and another for several. */
function aloneOr<Row, Result>(
  one: ForOne<Row, Result>,
  several: RowStatement<Row, Result>,
): RowStatement<Row, Result> {
  return (on, rows, times) => {
    const [row] = rows;
    const [time] = times;
    return rows.length === 1 && row !== undefined && time !== undefined
      ? one(on, row, time).then((result) => [result])
      : several(on, rows, times);
  };
}

/** Sends a statement for each row. */
function each<Row, Result>(one: ForOne<Row, Result>): RowStatement<Row, Result> {
  return (on, rows, times) =>
    Promise.all(rows.map((row, at) => one(on, row, times[at] as CallTimes)));
}

function isBusy(result: Outcome | Written): boolean {
  return result === 'busy' || (typeof result === 'object' && result.outcome === 'busy');
}

const GONE: Written = { outcome: 'gone' };
const BUSY: Written = { outcome: 'busy' };

function done(written: Versioned): Written | undefined {
  return written && { outcome: 'done', version: written.version, createdAt: written.createdAt };
}

function saved({ version, createdAt }: SaveRow, step: number): Written {
  return { outcome: 'done', version: version ^ step, createdAt };
}

/** Returns why a touch changed nothing: another transaction has locked the row, or there is nothing to touch. */
function missedTouch(row: TouchRow, stored: StoredRow | undefined): Outcome {
  const isMeant =
    stored !== undefined && (row.createdAt === 0 || row.createdAt === stored.createdAt);
  return isMeant && stored.expiresAt > row.aliveAt ? 'busy' : 'gone';
}

function missedSave({ version, createdAt }: SaveRow, stored: StoredRow | undefined): Written {
  if (stored === undefined) return GONE;
  const isSame = stored.version === version && stored.createdAt === createdAt;
  return isSame ? BUSY : { outcome: 'conflict', stored };
}

function inserted(rows: readonly WriteRow[], { written, gone }: Inserted): Written[] {
  return rows.map(({ id }) => done(written.get(id)) ?? (gone.has(id) ? GONE : BUSY));
}
