import { readFile } from 'node:fs/promises';

/** The migration guide. The tests run its code. */
export const guide = await readFile(new URL('../../docs/migrating.md', import.meta.url), 'utf8');

export type ImportVariable = 'source' | 'target' | 'imported' | 'user_path' | 'zone';

/** Returns the guide's import script for psql, with these values in its `\\set` lines. */
export function importScript(variables: Partial<Record<ImportVariable, string>>): string {
  const [, script] = /```sql\n(\\set [^`]+)```/.exec(guide) ?? [];
  if (script === undefined) throw new Error('The guide has no import script');
  return Object.entries(variables).reduce(
    (text, [name, value]) =>
      replaced(text, new RegExp(`^\\\\set ${name} .*$`, 'm'), `\\set ${name} '${value}'`),
    script,
  );
}

/** Replaces `:"name"` and `:'name'` by the `\\set` variables of a script, as psql does. */
export function asSql(script: string): string {
  const values = new Map<string, string>();
  const statements = script.replaceAll(
    /^\\set (\w+) '?(.*?)'?$/gm,
    (_, name: string, value: string) => {
      values.set(name, value);
      return '';
    },
  );
  return statements.replaceAll(/:(["'])(\w+)\1/g, (_, quote: string, name: string) => {
    const value = values.get(name);
    if (value === undefined) throw new Error(`The script does not set ${name}`);
    return quote + value.replaceAll(quote, quote + quote) + quote;
  });
}

/** Replaces a pattern. Throws if there is no match. */
export function replaced(text: string, pattern: string | RegExp, replacement: string): string {
  const result = text.replace(pattern, () => replacement);
  if (result === text) throw new Error(`Nothing to replace: ${pattern}`);
  return result;
}
