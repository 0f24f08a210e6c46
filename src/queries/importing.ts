/**
 * Statements that copy sessions from the table of connect-pg-simple (and connect-pg-pool), and end the sessions here that
 * were logged out there.
 *
 * A record table stores facts about each copied session: a hash of its text, its expiry, and the version of the copy. So a
 * later run can copy again sessions that have changed in the source, skip sessions that have changed here, and find
 * sessions that were removed from the source.
 *
 * @module
 */
import { and, eq, exists, gt, not, sql } from 'drizzle-orm';
import type { Connection } from '../drivers/driver.js';
import { db, runSql, statement } from './compile.js';
import { fragmentsOf } from './fragments.js';
import { copyStatement } from './import-copy.js';
import { type ImportSettings, importTables, recordName } from './import-source.js';
import { now } from './sql.js';
import { quoted } from './table-facts.js';

/** A session with JSON that Postgres cannot read values from, because it contains U+0000 or a lone surrogate. */
export interface OddSession {
  readonly id: string;
  readonly version: string;
  readonly text: string;
}

/** The result of a batch. */
export interface Copied {
  readonly inserted: number;
  /** Sessions copied again, because they have changed in the source. */
  readonly updated: number;
  readonly odd: readonly OddSession[];
}

export type ImportStatements = ReturnType<typeof importStatements>;

/**
 * The old store cannot have pruned a session that expires later than this. Its clock may be ahead by a minute, and this
 * transaction may have waited half a minute for a lock. (With a volatile function here, Postgres would compare each row
 * with each other row.)
 */
const surelyLive = sql`now() + interval '2 minutes'`;

export function importStatements(settings: ImportSettings) {
  const f = fragmentsOf(settings);
  const { rows: t, schemaName, tableName, userPath, source: names } = settings;
  const tables = importTables(settings);
  const { source, record, sourceExpiry, sourceId } = tables;
  const copy = copyStatement(settings, tables, f);

  const extent = statement('import_extent', false, ['table'], (p) =>
    db
      .select({
        pages: sql<string>`(pg_relation_size(oid) / current_setting('block_size')::int)::text`,
        bytes: sql<string>`pg_table_size(oid)::text`,
      })
      .from(sql`(select ${p.table}::regclass as oid) as source`),
  );

  const complete = statement('import_odd', false, ['id', 'version', 'owner', 'age'], (p) =>
    db
      .update(t)
      .set({
        ...(userPath === undefined ? {} : { userId: f.ownerOf(p.owner) }),
        createdAt: sql`least(${now}, coalesce(${t.expiresAt} - ${p.age}::float8 * interval '1 millisecond', ${now}))`,
      })
      .where(and(eq(t.id, p.id), sql`${t.version}::text = ${p.version}`, f.isNotEnded))
      .returning({ id: t.id }),
  );

  /** Copied sessions that would still be live in the source but were removed there, because their users logged out. */
  const isGone = () =>
    exists(
      db
        .select({ id: record.id })
        .from(record)
        .where(
          and(
            eq(record.id, t.id),
            gt(record.expiresAt, surelyLive),
            not(exists(db.select({ sid: source.sid }).from(source).where(eq(sourceId, record.id)))),
          ),
        ),
    );

  const endGone = statement('import_end', false, ['now'], () => {
    const locked = f.lockEnding(and(f.isNotEnded, isGone()));
    const { ended, announced, isAnnounced } = f.ending(locked);
    return db
      .with(locked, ended, ...announced)
      .select({
        ended: sql<string>`(count(*) filter (where ${ended.live}))::text`,
      })
      .from(ended)
      .where(isAnnounced);
  });

  const countGone = statement('import_gone', false, ['now'], () =>
    db.select({ count: sql<string>`count(*)::text` }).from(t).where(and(f.isLive, isGone())),
  );

  const countSource = statement('import_count', false, [], () =>
    db
      .select({
        live: sql<string>`count(*)::text`,
        copied: sql<string>`count(${t.id})::text`,
      })
      .from(source)
      .leftJoin(t, and(eq(t.id, sourceId), f.isOurs))
      .where(gt(sourceExpiry, now)),
  );

  return {
    /** Creates the record table unless it exists. */
    prepare: async (on: Connection): Promise<void> => {
      const name = [schemaName, recordName(tableName)].map(quoted).join('.');
      const [found] = await runSql(on, sql`select to_regclass(${name}::text)::text`);
      if ((found?.[0] ?? null) !== null) return;
      await runSql(
        on,
        sql`create table ${record} (id text primary key, version ${sql.raw(t.version.getSQLType())} not null,
          content bigint not null, expires_at timestamptz not null)`,
      );
    },
    /** Returns the size of the source. */
    extent: async (on: Connection): Promise<{ readonly pages: number; readonly bytes: number }> => {
      const [row] = await extent(on, {
        table: [names.schemaName, names.tableName].map(quoted).join('.'),
      });
      return { pages: Number(row?.pages ?? 0), bytes: Number(row?.bytes ?? 0) };
    },
    /** Copies the rows in some pages of the source, in their physical order: no sid leaves the server. */
    copy: async (on: Connection, fromPage: number, toPage: number): Promise<Copied> => {
      const [row] = await copy(on, { from: `(${fromPage},0)`, to: `(${toPage},0)` });
      return {
        inserted: Number(row?.inserted ?? 0),
        updated: Number(row?.updated ?? 0),
        odd: JSON.parse(row?.odd ?? '[]'),
      };
    },
    /** Adds the values to a copied session that Postgres could not read from its JSON. */
    complete: async (
      on: Connection,
      { id, version }: OddSession,
      found: { readonly owner: string | null; readonly maxAgeMs: number | null },
    ): Promise<void> => {
      const age = found.maxAgeMs === null ? null : String(found.maxAgeMs);
      await complete(on, { id, version, owner: found.owner, age });
    },
    /** Locks the source against writes until the transaction ends. */
    lockSource: async (on: Connection): Promise<void> => {
      await runSql(on, sql`set local lock_timeout = '30s'`);
      await runSql(on, sql`lock table ${source} in share row exclusive mode`);
    },
    /** Ends sessions here that were removed from the source, except locked ones. Returns the number of live sessions ended. */
    endGone: async (on: Connection): Promise<number> =>
      Number((await endGone(on, { now: String(Date.now()) }))[0]?.ended ?? 0),
    countGone: async (on: Connection): Promise<number> =>
      Number((await countGone(on, { now: String(Date.now()) }))[0]?.count ?? 0),
    dropRecord: async (on: Connection): Promise<void> => {
      await runSql(on, sql`drop table ${record}`);
    },
    /** Counts the live sessions of the source, and how many of them exist here. */
    count: async (on: Connection) => {
      const [row] = await countSource(on, {});
      return { live: Number(row?.live ?? 0), copied: Number(row?.copied ?? 0) };
    },
  };
}
