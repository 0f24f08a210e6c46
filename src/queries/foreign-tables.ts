/**
 * Recognises the session tables of other packages by their columns.
 *
 * @module
 */

export interface Owner {
  readonly name: string;
  /** The columns by which it was recognised, with the names in the table. */
  readonly columns: readonly string[];
  /** Whether it contains sessions of an express-session store. */
  readonly canImport: boolean;
}

/** A package, and the columns that its table must have. A list contains alternative names of one column. */
interface Fingerprint {
  readonly name: string;
  readonly columns: readonly (string | readonly string[])[];
  readonly canImport?: true;
}

const EXPIRY = ['expires_at', 'expires', 'idle_expires', 'active_expires', 'expiry'];

/** The first match is the owner: later ones are less specific. */
const FINGERPRINTS: readonly Fingerprint[] = [
  { name: 'connect-pg-simple', columns: ['sid', 'sess', 'expire'], canImport: true },
  { name: 'Laravel', columns: ['payload', 'last_activity'] },
  { name: 'Rails', columns: ['session_id', 'data', 'updated_at'] },
  { name: 'Django', columns: ['session_key', 'session_data', 'expire_date'] },
  { name: 'Spring', columns: ['primary_id', 'session_id', 'max_inactive_interval'] },
  { name: 'Supabase', columns: ['aal', 'not_after'] },
  { name: 'Auth.js', columns: ['session_token', 'user_id', 'expires'] },
  { name: 'better-auth', columns: ['token', 'user_id', EXPIRY, 'ip_address'] },
  { name: 'Lucia', columns: ['id', 'user_id', EXPIRY] },
  { name: 'Lucia', columns: ['id', 'secret_hash'] },
];

/**
 * Returns the package that owns a table with these columns, if known. Ignores case and underscores, because an ORM
 * may turn `sessionToken` into `session_token`.
 */
export function ownerOf(names: Iterable<string>): Owner | undefined {
  const spelled = new Map([...names].map((name) => [plain(name), name]));
  for (const { name, columns, canImport = false } of FINGERPRINTS) {
    const found = columns.map((spellings) =>
      [spellings]
        .flat()
        .map((spelling) => spelled.get(plain(spelling)))
        .find((column) => column !== undefined),
    );
    const known = found.filter((column) => column !== undefined);
    if (known.length === columns.length) return { name, columns: known, canImport };
  }
  return undefined;
}

function plain(name: string): string {
  return name.replaceAll('_', '').toLowerCase();
}
