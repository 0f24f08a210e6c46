/**
 * Statements about the size of the session table, for operators.
 *
 * @module
 */
import { and, lte, type SQL, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { db, statement } from './compile.js';
import type { FragmentSettings } from './fragments.js';
import { milliseconds, now, parameter, scalar } from './sql.js';
import { quotedName } from './table-facts.js';
import type { RowTable } from './view.js';

export interface Sizes {
  /** Bytes with indexes and TOAST. */
  readonly bytes: number;
  /** Pages of the table itself. */
  readonly pages: number;
  /** The earliest expiry of an expired row, to the hour; null if no row has expired. */
  readonly expiredSince: number | null;
}

/** Whether a row has expired on the server's clock. The index on `expires_hour` finds these rows. */
export function isDue(t: RowTable): SQL | undefined {
  return and(lte(t.expiresHour, now), lte(t.expiresAt, now));
}

export function sizeStatements(settings: FragmentSettings) {
  const { rows: t } = settings;
  const regclass = sql`${parameter('table')}::regclass`;
  const qualified = quotedName(settings);

  const longestDue = db
    .select({ expiresAt: t.expiresAt })
    .from(t)
    .where(isDue(t))
    .orderBy(t.expiresHour)
    .limit(1);

  // A partitioned table itself has no pages.
  const sizes = statement('sizes', false, ['table'], () =>
    db
      .select({
        bytes: sql<string>`sum(pg_total_relation_size(relid))::text`,
        pages: sql<string>`(sum(pg_relation_size(relid)) / current_setting('block_size')::int)::bigint::text`,
        expiredSince: millisecondsText(scalar(longestDue)),
      })
      .from(
        sql`(select ${regclass} as relid union select relid from pg_partition_tree(${regclass})) as relations`,
      ),
  );

  const indexed = statement('indexed', false, ['table'], () =>
    db
      .select({ column: sql<string>`attname::text` })
      .from(sql`pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0]`)
      .where(sql`indrelid = ${regclass} and indisvalid`),
  );

  return {
    sizes: async (on: Connection): Promise<Sizes> => {
      const [row] = await sizes(on, { table: qualified });
      return {
        bytes: Number(row?.bytes ?? 0),
        pages: Number(row?.pages ?? 0),
        expiredSince: numberOrNull(row?.expiredSince),
      };
    },
    /** Returns the columns that are the first one of an index. */
    indexedColumns: async (on: Connection): Promise<ReadonlySet<string>> =>
      new Set((await indexed(on, { table: qualified })).map(({ column }) => column)),
  };
}

/** Returns null for null, because in SQL the least of a time and null is the time. */
export function millisecondsText(time: SQL): SQL<string | null> {
  return sql`(case when ${time} is not null then ${milliseconds(time)} end)::text`;
}

export function numberOrNull(value: string | null | undefined): number | null {
  return value === null || value === undefined ? null : Number(value);
}
