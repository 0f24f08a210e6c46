/**
 * The statement that counts sessions by the hour in which they expire.
 *
 * @module
 */
import { count, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { db, statement } from './compile.js';
import { type FragmentSettings, fragmentsOf } from './fragments.js';
import { milliseconds, text } from './sql.js';

/** The number of live sessions that expire in the hour that begins at `hour`, in milliseconds since 1970. */
export interface ExpiryCount {
  readonly hour: number;
  readonly sessions: number;
}

/** The statement ignores expiries beyond a year. */
const MAX_HOURS = 366 * 24;

/** Counts live sessions in about `percent` of the table's pages by the hour in which they expire, and scales up. */
export function expiryStatement(settings: FragmentSettings) {
  const { rows: t } = settings;
  const { isLive } = fragmentsOf(settings);
  const byHour = statement('expiries', false, ['percent', 'now'], (p) =>
    db
      .select({
        hour: text(milliseconds(t.expiresHour)).as('hour'),
        sessions: text(count()).as('sessions'),
      })
      .from(sql`${t} tablesample system (${p.percent}::float4)`)
      .where(isLive)
      .groupBy(t.expiresHour)
      .orderBy(t.expiresHour)
      .limit(MAX_HOURS),
  );
  return async (on: Connection, percent: number): Promise<readonly ExpiryCount[]> =>
    (await byHour(on, { percent: String(percent), now: String(Date.now()) })).map((row) => ({
      hour: Number(row.hour),
      sessions: (Number(row.sessions) * 100) / percent,
    }));
}
