/**
 * Statements that replace the stored form of sessions. The content does not change.
 *
 * @module
 */
import { and, count, eq, gt, ne, not, or, type SQL, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { db, statement } from './compile.js';
import { type FragmentSettings, type Fragments, inputOf } from './fragments.js';
import { bigint, integer, joinedText, microseconds, text } from './sql.js';
import { DATA_SEPARATOR, joined, type StoredRow, split, storedRow } from './wire.js';

/** A stored form to replace, unless the row has changed since it was read. */
export interface ResealedRow {
  readonly id: string;
  readonly version: number;
  /** Microseconds since 1970. */
  readonly createdAt: number;
  readonly data: string;
}

export type StoredPage = readonly [prefix: string, after: string, limit: number];

export interface RekeyStatements {
  /** Returns a page of sessions, including expired ones, with a stored form that does not begin with `prefix`. Ordered by id. */
  readonly listStored: (on: Connection, ...page: StoredPage) => Promise<readonly StoredRow[]>;
  /** Returns how many such sessions there are. With an empty prefix, counts the encrypted ones. */
  readonly countStored: (on: Connection, prefix: string) => Promise<number>;
  /** Replaces only stored forms. Returns the ids of the rows that had not changed and were not locked. */
  readonly reseal: (on: Connection, rows: readonly ResealedRow[]) => Promise<ReadonlySet<string>>;
}

export function rekeyStatements(settings: FragmentSettings, f: Fragments): RekeyStatements {
  const { rows: t, prepared } = settings;

  const startsWith = (prefix: SQL) => sql`starts_with(${t.data}::text, ${prefix})`;
  const listStored = statement('list_stored', false, ['prefix', 'after', 'limit'], (p) =>
    db
      .select(f.readFields())
      .from(t)
      .where(
        and(f.isNotEnded, gt(t.id, p.after), or(eq(p.prefix, sql`''`), not(startsWith(p.prefix)))),
      )
      .orderBy(t.id)
      .limit(sql.placeholder('limit')),
  );

  const countStored = statement('count_stored', false, ['prefix'], (p) => {
    const isEncrypted = startsWith(sql`'"1'`);
    const isOther = or(
      and(eq(p.prefix, sql`''`), isEncrypted),
      and(ne(p.prefix, sql`''`), not(startsWith(p.prefix))),
    );
    return db
      .select({ count: text(count()) })
      .from(t)
      .where(and(f.isNotEnded, isOther));
  });

  // Does not change the version, because the content is the same. A request that has read the session can still save it.
  const reseal = statement('reseal', prepared, ['id', 'version', 'created', 'data'], () => {
    const { given, input, includes } = inputOf('version', 'created', 'data');
    const locked = f.lock(and(includes(t.id), f.isNotEnded));
    const resealed = db.$with('resealed').as(
      db
        .update(t)
        .set({ data: f.stored(input.data) })
        .from(locked)
        .innerJoin(input, eq(input.id, locked.id))
        .where(
          and(
            f.isLocked(locked),
            eq(t.version, integer(input.version)),
            eq(microseconds(t.createdAt), bigint(input.created)),
          ),
        )
        .returning({ id: t.id }),
    );
    return db
      .with(given, input, locked, resealed)
      .select({ done: joinedText(resealed.id) })
      .from(resealed);
  });

  return {
    listStored: async (on, prefix, after, limit) =>
      (await listStored(on, { prefix, after, limit: String(limit) })).map(storedRow),
    countStored: async (on, prefix) => Number((await countStored(on, { prefix }))[0]?.count ?? 0),
    reseal: async (on, rows) => {
      const [result] = await reseal(on, {
        id: joined(rows, (row) => row.id),
        version: joined(rows, (row) => row.version),
        created: joined(rows, (row) => row.createdAt),
        data: joined(rows, (row) => row.data, DATA_SEPARATOR),
      });
      return new Set(split(result?.done ?? null));
    },
  };
}
