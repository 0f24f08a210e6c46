/**
 * The identifiers of the session table. They are part of the schema, which browsers load, too, so this module uses no Node
 * module and no Node global.
 *
 * @module
 */

/** The table that the package's migrations create. */
export const DEFAULT_TABLE_NAME = 'sessions';

/** The column names in the package's migrations. */
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

/** Postgres cuts longer identifiers without an error (NAMEDATALEN - 1). */
export const MAX_IDENTIFIER_BYTES = 63;

/** The columns that an index begins with. */
export type IndexedColumn = 'user_id' | 'expires_hour' | 'created_at';

/**
 * Returns the name of an index of the session table, such as `sessions_user_id_index`. If a name is too long for Postgres,
 * it is shortened and contains a hash, so that tables with similar names have different index names.
 */
export function indexName(tableName: string, column: IndexedColumn): string {
  const name = `${tableName}_${column}_index`;
  if (utf8(name).length <= MAX_IDENTIFIER_BYTES) return name;
  const hash = fnv1a(utf8(tableName)).toString(16).padStart(8, '0');
  return `${cut(tableName, 30)}_${hash}_${column}_index`;
}

/** Cuts a string to at most `maxBytes` bytes of UTF-8, at the end of a code point. */
function cut(text: string, maxBytes: number): string {
  let kept = '';
  let bytes = 0;
  for (const character of text) {
    bytes += utf8(character).length;
    if (bytes > maxBytes) break;
    kept += character;
  }
  return kept;
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/**
 * Returns the 32-bit FNV-1a hash. It only distinguishes names with the same beginning, so it does not have to resist
 * attacks. Names of one length that differ in a single byte never collide.
 */
function fnv1a(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}
