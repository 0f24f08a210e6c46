import { readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const src = fileURLToPath(new URL('../src', import.meta.url));

/** From bottom to top. A folder is one layer, whose files may import each other. */
const LAYERS: readonly (readonly string[])[] = [
  ['util'],
  ['names.ts', 'errors.ts'],
  ['schema.ts', 'option-reader.ts'],
  ['options.ts'],
  ['drivers'],
  ['queries'],
  ['batching'],
  ['sync'],
  ['session'],
  ['lifecycle'],
  ['admin'],
  ['cli'],
  ['store.ts'],
  ['index.ts'],
];

const MAX_LINES = 350;
const MAX_ENTRY_FILES = 8;

interface SourceFile {
  /** Relative to src, with slashes. */
  readonly name: string;
  readonly lines: number;
  /** The module names it imports, as they are written; type imports included. */
  readonly imports: readonly string[];
}

function read(path: string): SourceFile {
  const text = readFileSync(path, 'utf8');
  return {
    name: relative(src, path).replaceAll('\\', '/'),
    lines: text.split('\n').length - 1,
    imports: importsOf(text),
  };
}

/** The strings after `from`, `import`, `import(` and `require(` outside of comments. */
function importsOf(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, '');
  const named = /\b(?:from|import|(?:import|require)\s*\()\s*(['"`])([^'"`]+)\1/g;
  return Array.from(code.matchAll(named), ([, , name = '']) => name);
}

const files = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.[cm]?ts$/.test(name))
  .map((name) => read(join(src, name)));
const byName = new Map(files.map((file) => [file.name, file]));

/** The files of src that a file imports. */
function targetsOf({ name, imports }: SourceFile): string[] {
  return imports
    .filter((each) => each.startsWith('.'))
    .map((each) => join(dirname(name), each).replaceAll('\\', '/').replace(/js$/, 'ts'));
}

/** The layer of a file; -1 if it has none. */
function layerOf(name: string): number {
  const [first = name] = name.split('/');
  return LAYERS.findIndex((layer) => layer.includes(first));
}

test('every file belongs to a layer, and every relative import is a file in src', () => {
  expect(files.length).toBeGreaterThan(50);
  expect(files.flatMap(targetsOf).length).toBeGreaterThan(150);
  expect(files.filter(({ name }) => layerOf(name) === -1).map(({ name }) => name)).toEqual([]);
  const unknown = files.flatMap((file) =>
    targetsOf(file)
      .filter((target) => !byName.has(target))
      .map((target) => `${file.name} imports ${target}`),
  );
  expect(unknown).toEqual([]);
});

test('no file imports from a layer above its own, type imports included', () => {
  const upwards = files.flatMap((file) =>
    targetsOf(file)
      .filter((target) => layerOf(target) > layerOf(file.name))
      .map((target) => `${file.name} imports ${target}`),
  );
  expect(upwards).toEqual([]);
});

test('no files import each other in a cycle, type imports included', () => {
  const cycles: string[] = [];
  const done = new Set<string>();
  const visit = (name: string, path: readonly string[]) => {
    const at = path.indexOf(name);
    if (at !== -1) cycles.push([...path.slice(at), name].join(' → '));
    const file = byName.get(name);
    if (file === undefined || done.has(name) || at !== -1) return;
    for (const target of targetsOf(file)) visit(target, [...path, name]);
    done.add(name);
  };
  for (const { name } of files) visit(name, []);
  expect(cycles).toEqual([]);
});

test('no file imports a driver of Drizzle', () => {
  const drivers = files.flatMap(({ name, imports }) =>
    imports
      .filter((each) => /^drizzle-orm\/(?!(pg-core|pg-proxy)$)/.test(each))
      .map((each) => `${name} imports ${each}`),
  );
  expect(drivers).toEqual([]);
});

test('schema.ts imports only Drizzle and names.ts, and names.ts imports nothing', () => {
  const others = byName
    .get('schema.ts')
    ?.imports.filter((each) => !/^drizzle-orm(\/pg-core)?$/.test(each) && each !== './names.js');
  expect(others).toEqual([]);
  expect(byName.get('names.ts')?.imports).toEqual([]);
});

test(`no file has more than ${MAX_LINES} lines`, () => {
  const long = files.filter(({ lines }) => lines > MAX_LINES);
  expect(long.map(({ name, lines }) => `${name}: ${lines}`)).toEqual([]);
});

test(`src has at most ${MAX_ENTRY_FILES} files outside its folders`, () => {
  const entries = files.filter(({ name }) => basename(name) === name);
  expect(entries.length).toBeLessThanOrEqual(MAX_ENTRY_FILES);
});

test('no file calls process.nextTick or queueMicrotask directly, because fake timers replace them', () => {
  const calls = /\b(?:process\.nextTick|queueMicrotask)\(/;
  const found = files.filter(({ name }) => calls.test(readFileSync(join(src, name), 'utf8')));
  expect(found.map(({ name }) => name)).toEqual([]);
});
