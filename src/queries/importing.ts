/**
 * Statements that copy sessions from the table of connect-pg-simple (and connect-pg-pool), and log out here what was
 * logged out there.
 *
 * A record beside the session table remembers, for each copied session, what was copied: a hash of its text, its expiry,
 * and the version that the copy got. So a later run copies again what has changed in the source, leaves alone what has
 * changed here, and knows which sessions have gone from the source.
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

/** A session whose JSON Postgres cannot look into: it contains U+0000 or a lone surrogate. */
export interface OddSession {
  readonly id: string;
  readonly version: string;
  readonly text: string;
}

/** What a batch did. */
export interface Copied {
  readonly inserted: number;
  /** Copied again, because they have changed in the source. */
  readonly updated: number;
  readonly odd: readonly OddSession[];
}

export type ImportStatements = ReturnType<typeof importStatements>;

/**
 * What expires later cannot have been pruned by the old store. Its clock may be ahead by a minute, and this transaction may
 * have waited for a lock for half a minute. (A volatile function here would make Postgres compare each row with each.)
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

  /** Copied sessions that would still be live in the source, but are not there: their users logged out. */
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
    /** Creates the record unless it exists. */
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
    /** How large the source is. */
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
    /** Adds to a copied session what Postgres could not find in its JSON. */
    complete: async (
      on: Connection,
      { id, version }: OddSession,
      found: { readonly owner: string | null; readonly maxAgeMs: number | null },
    ): Promise<void> => {
      const age = found.maxAgeMs === null ? null : String(found.maxAgeMs);
      await complete(on, { id, version, owner: found.owner, age });
    },
    /** Keeps everybody from writing to the source until the transaction ends. */
    lockSource: async (on: Connection): Promise<void> => {
      await runSql(on, sql`set local lock_timeout = '30s'`);
      await runSql(on, sql`lock table ${source} in share row exclusive mode`);
    },
    /** Ends here what has gone from the source. Returns the number of live sessions ended. Leaves out locked ones. */
    endGone: async (on: Connection): Promise<number> =>
      Number((await endGone(on, { now: String(Date.now()) }))[0]?.ended ?? 0),
    countGone: async (on: Connection): Promise<number> =>
      Number((await countGone(on, { now: String(Date.now()) }))[0]?.count ?? 0),
    dropRecord: async (on: Connection): Promise<void> => {
      await runSql(on, sql`drop table ${record}`);
    },
    /** Counts the live sessions of the source, and those of them that are here. */
    count: async (on: Connection) => {
      const [row] = await countSource(on, {});
      return { live: Number(row?.live ?? 0), copied: Number(row?.copied ?? 0) };
    },
  };
}
