/**
 * How statements are prepared and waited for.
 *
 * @module
 */
import { createHash } from 'node:crypto';
import { getTableColumns, type SQL, type WithSubquery } from 'drizzle-orm';
import { Patience } from '../batching/deadlines.js';
import type { Answer } from './answers.js';
import type { Database, Shape, StatementSettings } from './fragments.js';

/** Makes what prepares the statements of one store; they share one clock. */
export function preparing(db: Database, settings: StatementSettings) {
  const patience = new Patience(settings.timeout);

  /** Prepares a statement; its name carries a hash of its text, so that two stores can share a pool. */
  function prepare<A extends Answer>(
    kind: string,
    ctes: readonly (WithSubquery | undefined)[],
    answer: A,
    result: SQL,
    prepared = settings.prepared,
  ): (values: Record<string, unknown>) => Promise<A['$inferSelect'][]> {
    const query = db
      .with(...ctes.filter((one) => one !== undefined), db.$with('result', {}).as(result))
      .select(getTableColumns<Answer>(answer))
      .from(answer as Answer);
    const hash = createHash('sha256').update(query.toSQL().sql).digest('base64url').slice(0, 16);
    const statement = prepared ? query.prepare(`connect_drizzle_${kind}_${hash}`) : query;
    return async (values) => {
      try {
        return await patience.waitFor(statement.execute(values));
      } catch (error) {
        throw await settings.explain(error);
      }
    };
  }

  /** Prepares a statement over many rows, and one for a row alone, which takes the server a quarter less time. */
  function prepareBoth<A extends Answer>(
    kind: string,
    answer: A,
    make: (shape: Shape) => { ctes: readonly (WithSubquery | undefined)[]; result: SQL },
  ): (rows: number, values: Record<string, unknown>) => Promise<A['$inferSelect'][]> {
    const over = (shape: Shape) => {
      const { ctes, result } = make(shape);
      return prepare(kind, ctes, answer, result);
    };
    const [one, many] = [over('one'), over('many')];
    return (rows, values) => (rows === 1 ? one(values) : many(values));
  }

  return { prepare, prepareBoth };
}

export type Prepared = ReturnType<typeof preparing>;
