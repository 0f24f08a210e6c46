/**
 * The statement that copies a part of the source and records the copies.
 *
 * @module
 */
import { and, eq, getTableColumns, isNotNull, not, or, sql } from 'drizzle-orm';
import {
  bigint as bigintColumn,
  boolean as booleanColumn,
  integer as integerColumn,
  json as jsonColumn,
  PgSchema,
  type PgTable,
  pgTable,
  text as textColumn,
  timestamp as timestampColumn,
} from 'drizzle-orm/pg-core';
import { db, statement } from './compile.js';
import type { Fragments } from './fragments.js';
import type { ImportSettings, ImportTables } from './import-source.js';
import { now } from './sql.js';

/** The rows of a batch as the CTE `page`. Declared as a table so that Drizzle qualifies its columns. */
const pageTable = /* @__PURE__ */ pgTable('page', {
  id: textColumn('id').notNull(),
  data: jsonColumn('data').notNull(),
  expiresAt: timestampColumn('expires_at', { withTimezone: true }).notNull(),
  content: bigintColumn('content', { mode: 'number' }).notNull(),
  isOdd: booleanColumn('is_odd').notNull(),
});

/** The rows of `page` that must be copied, or copied again, as the CTE `due`. */
const dueTable = /* @__PURE__ */ pgTable('due', {
  id: textColumn('id').notNull(),
  data: jsonColumn('data').notNull(),
  expiresAt: timestampColumn('expires_at', { withTimezone: true }).notNull(),
  content: bigintColumn('content', { mode: 'number' }).notNull(),
  isOdd: booleanColumn('is_odd').notNull(),
  /** Whether it was not copied before, or its copy may have been pruned. */
  mayInsert: booleanColumn('may_insert').notNull(),
  /** Whether the content differs from the copy's, not only the expiry. */
  isChanged: booleanColumn('is_changed').notNull(),
  /** The version of the copy. */
  version: integerColumn('version'),
  createdAt: timestampColumn('created_at', { withTimezone: true }).notNull(),
  owner: textColumn('owner'),
});

/** Returns the columns of a table for the declaration of a CTE. */
function columnsOf<Table extends PgTable>(table: Table): Table['_']['columns'] {
  return getTableColumns(table);
}

/** Matches escapes that json accepts but text does not: U+0000, and surrogates, which may be lone. */
const ODD = sql.raw(`E'\\\\\\\\u(0000|[dD][89a-fA-F])'`);

/** Longer ids do not fit into an index: see `userIdText`. */
const MAX_USER_ID_BYTES = sql.raw('1000');

/** Ignores lifetimes above 100 years. */
const MAX_AGE_MS = sql.raw('3155760000000');

/** Copies the rows between two positions of the source. */
export function copyStatement(settings: ImportSettings, tables: ImportTables, f: Fragments) {
  const { rows: t, schemaName, tableName, userPath } = settings;
  const { source, record, sourceExpiry, sourceId } = tables;
  const columns = {
    id: textColumn(t.id.name).notNull(),
    data: textColumn(t.data.name).notNull(),
    userId: textColumn(t.userId.name),
    createdAt: timestampColumn(t.createdAt.name).notNull(),
    lastSeenAt: timestampColumn(t.lastSeenAt.name).notNull(),
    expiresAt: timestampColumn(t.expiresAt.name).notNull(),
  };
  const { userId: _, ...others } = columns;
  // Without a path, an insert uses the default of the column.
  const target = new PgSchema(schemaName).table(
    tableName,
    userPath === undefined ? (others as typeof columns) : columns,
  );

  const path = sql.join(
    (userPath ?? []).map((key) => sql`${key}::text`),
    sql`, `,
  );
  const ownerJson =
    userPath === undefined ? sql`null::json` : sql`${pageTable.data} #> array[${path}]`;

  return statement('import', false, ['from', 'to'], (p) => {
    const page = db.$with('page', columnsOf(pageTable)).as(
      sql`select ${sourceId} as id, ${source.sess}::json as data,
          ${sourceExpiry} as expires_at, hashtextextended(${source.sess}::text, 0) as content,
          (position(E'\\\\u' in ${source.sess}::text) > 0 and ${source.sess}::text ~ ${ODD}) as is_odd
        from ${source} where ctid >= ${p.from}::tid and ctid < ${p.to}::tid`,
    );
    // Each session is parsed twice at most. `age` is the last time when its expiry was set, which is the best estimate of
    // its creation. A copy that has expired may have been pruned. A copy that disappeared before its expiry was revoked here.
    const due = db.$with('due', columnsOf(dueTable)).as(
      sql`select known.*,
          least(${now}, coalesce(case when json_typeof(age) = 'number' then expires_at
            - least(greatest(age::text::numeric, 0), ${MAX_AGE_MS})::float8 * interval '1 millisecond' end, ${now})) as created_at,
          case when json_typeof(owner_json) in ('string', 'number') and octet_length(owner_json #>> '{}') <= ${MAX_USER_ID_BYTES}
            then nullif(owner_json #>> '{}', '') end as owner
        from (select page.id, page.data, page.expires_at, page.content, page.is_odd, known.version,
            known.id is null or known.expires_at <= ${now} as may_insert,
            known.content is distinct from page.content as is_changed,
            case when not is_odd then page.data #> '{cookie,originalMaxAge}' end as age,
            case when not is_odd then ${ownerJson} end as owner_json
          from page left join ${record} as known on known.id = page.id
          where page.expires_at > ${now} and (known.id is null or known.expires_at <= ${now}
            or known.content <> page.content or known.expires_at <> page.expires_at)) as known`,
    );
    const owner = sql<string | null>`${due.owner}::${sql.raw(settings.userIdType)}`;
    const inserted = db.$with('inserted').as(
      db
        .insert(target)
        .select(
          db
            .select({
              id: due.id,
              data: due.data,
              ...(userPath === undefined ? {} : { userId: owner.as('owner') }),
              createdAt: due.createdAt,
              lastSeenAt: sql`${due.createdAt}`.as('last_seen_at'),
              expiresAt: due.expiresAt,
            })
            .from(due)
            .where(sql`${due.mayInsert}`),
        )
        .onConflictDoNothing({ target: target.id })
        .returning({
          id: target.id,
          version: t.version,
          isOurs: sql`${sql.identifier(t.expiresHour.name)} is not null`.as('is_ours'),
        }),
    );
    const isUntouched = and(eq(t.id, due.id), eq(t.version, due.version), f.isNotEnded);
    const later = {
      lastSeenAt: sql`greatest(${t.lastSeenAt}, ${due.createdAt})`,
      expiresAt: sql`greatest(${t.expiresAt}, ${due.expiresAt})`,
    };
    const updated = db.$with('updated').as(
      db
        .update(t)
        .set({
          data: sql`${due.data}`,
          ...(userPath === undefined ? {} : { userId: owner }),
          version: f.written(due.data, undefined).version,
          ...later,
        })
        .from(due)
        .where(and(isUntouched, due.isChanged))
        .returning({ id: t.id, version: t.version }),
    );
    const moved = db.$with('moved').as(
      db
        .update(t)
        .set(later)
        .from(due)
        .where(and(isUntouched, not(due.isChanged)))
        .returning({ id: t.id }),
    );
    // Also for sessions that have changed here, because their expiry in the source is still needed. A session that existed
    // here before the first run is not a copy.
    const recorded = db.$with('recorded').as(
      db
        .insert(record)
        .select(
          db
            .select({
              id: due.id,
              version:
                sql<number>`coalesce(${inserted.version}, ${updated.version}, ${due.version})`.as(
                  'version',
                ),
              content: due.content,
              expiresAt: due.expiresAt,
            })
            .from(due)
            .leftJoin(inserted, eq(inserted.id, due.id))
            .leftJoin(updated, eq(updated.id, due.id))
            .where(or(isNotNull(inserted.id), isNotNull(due.version))),
        )
        .onConflictDoUpdate({
          target: record.id,
          set: {
            version: sql`excluded.version`,
            content: sql`excluded.content`,
            expiresAt: sql`excluded.expires_at`,
          },
        })
        .returning({ id: record.id }),
    );
    const { announced, isAnnounced } = f.announcement('c', updated);
    // Qualified by hand, because Drizzle 0.45 does not qualify columns in a statement on one table.
    const odd = sql<
      string | null
    >`(select json_agg(json_build_object('id', p.id, 'text', p.data::text,
        'version', coalesce(i.version, u.version)::text))::text
      from ${due} as p left join ${inserted} as i on i.id = p.id left join ${updated} as u on u.id = p.id
      where p.is_odd and (i.id is not null or u.id is not null))`;
    return db
      .with(page, due, inserted, updated, moved, recorded, ...announced)
      .select({
        inserted: sql<string>`(select count(*) from ${inserted})::text`,
        updated: sql<string>`(select count(*) from ${updated})::text`,
        odd,
      })
      .from(sql`(values (1)) as result`)
      .where(isAnnounced);
  });
}
