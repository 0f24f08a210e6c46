import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../', import.meta.url));
const languages = ['ts', 'js', 'sh', 'sql'] as const;

/** A block of code in README.md or in a page of the documentation. */
export interface Snippet {
  /** Page and line, as in `docs/table.md:12`. */
  readonly place: string;
  /** The path of its file in a folder of its page, from the name in its first line or from its line number. */
  readonly file: string;
  readonly language: (typeof languages)[number];
  readonly code: string;
  readonly plan: Plan;
}

/**
 * What the tests do with a snippet, by the comment `<!-- snippet: … -->` before it:
 *
 * - no comment: ts, js and sql are run, sh is parsed
 * - `run`
 * - `request POST /login`: run, and this request is sent to the server that it starts (otherwise `GET /`)
 * - `not run, REASON`: compiled only
 * - `neither, REASON`
 */
export type Plan =
  | { readonly kind: 'run'; readonly request: { method: string; path: string } | undefined }
  | { readonly kind: 'compile' | 'neither'; readonly reason: string };

/** Returns the pages whose snippets are tested. */
export async function pages(): Promise<string[]> {
  const inFolder = async (folder: string) =>
    (await readdir(join(root, folder)))
      .filter((file) => file.endsWith('.md'))
      .sort()
      .map((file) => `${folder}/${file}`);
  return ['README.md', ...(await inFolder('docs')), ...(await inFolder('docs/guides'))];
}

/** Returns the snippets of a page. */
export async function snippetsOf(page: string): Promise<Snippet[]> {
  const text = await readFile(join(root, page), 'utf8');
  const pattern =
    /(?:<!-- snippet: (?<note>[^>]+) -->\s*)?^(?<indent>[ \t]*)```(?<language>\w+)\n(?<code>.*?)^[ \t]*```$/gms;
  const snippets: Snippet[] = [];
  for (const { groups, index, 0: block } of text.matchAll(pattern)) {
    const language = languages.find((each) => each === groups?.language);
    if (groups === undefined || language === undefined) continue;
    const fence = index + block.indexOf('```');
    const line = text.slice(0, fence).split('\n').length;
    const place = `${page}:${line}`;
    const code = (groups.code ?? '').replaceAll(new RegExp(`^${groups.indent}`, 'gm'), '');
    const [, named] = /^\/\/ ([\w./-]+\.(?:d\.ts|[cm]?[jt]s))\b/.exec(code) ?? [];
    const name = named?.replace(/\.d\.ts$/, '-types.ts') ?? `line-${line}.${language}`;
    const file = `${page.replace(/^docs\//, '').replace(/\.md$/, '')}/${name}`;
    snippets.push({
      place,
      file,
      language,
      code,
      plan: planOf(groups.note, language, code, place),
    });
  }
  return snippets;
}

function planOf(
  note: string | undefined,
  language: Snippet['language'],
  code: string,
  place: string,
): Plan {
  const [, without, reason] = /^(not run|neither), (.+)$/s.exec(note ?? '') ?? [];
  if (reason !== undefined) return { kind: without === 'neither' ? 'neither' : 'compile', reason };
  const [, method, path] = /^request ([A-Z]+) (\S+)$/.exec(note ?? '') ?? [];
  const request = method && path ? { method, path } : undefined;
  if (note !== undefined && note !== 'run' && request === undefined) {
    throw new Error(`${place}: what does "${note}" mean?`);
  }
  if (/^declare module|^import [^;]+;\s*declare module/.test(code.replace(/^\/\/.*\n/, ''))) {
    return { kind: 'compile', reason: 'it declares types' };
  }
  if (language === 'sh' && note !== 'run') {
    return {
      kind: 'compile',
      reason: 'it downloads packages, or needs what only your machine has',
    };
  }
  return { kind: 'run', request };
}
