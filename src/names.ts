/**
 * The identifiers of the session table.
 *
 * @module
 */
import { createHash } from 'node:crypto';

/** The table that the package's own migrations make. */
export const DEFAULT_TABLE_NAME = 'sessions';

/** The columns as the package's own migrations call them. */
export const COLUMN_NAMES = {
  id: 'id',
  data: 'data',
  userId: 'user_id',
  version: 'version',
  createdAt: 'created_at',
  lastSeenAt: 'last_seen_at',
  expiresAt: 'expires_at',
  revokedAt: 'revoked_at',
  expiresHour: 'expires_hour',
};

export type ColumnNames = Readonly<typeof COLUMN_NAMES>;

/** Postgres cuts longer identifiers off without an error (NAMEDATALEN - 1). */
export const MAX_IDENTIFIER_BYTES = 63;

/** The name of an index of the session table, `sessions_user_id_index`: within 63 bytes whatever the table's. */
export function indexName(tableName: string, column: 'user_id' | 'expires_hour'): string {
  const name = `${tableName}_${column}_index`;
  if (Buffer.byteLength(name) <= MAX_IDENTIFIER_BYTES) return name;
  const hash = createHash('sha256').update(tableName).digest('hex').slice(0, 8);
  return `${cut(tableName, 30)}_${hash}_${column}_index`;
}

/** The start of a text, of at most so many bytes of UTF-8, no character torn apart. */
function cut(text: string, bytes: number): string {
  let end = text.length;
  while (Buffer.byteLength(text.slice(0, end)) > bytes) end -= 1;
  return text.slice(0, end);
}
