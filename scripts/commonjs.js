// Adds the CommonJS build to dist/, beside the ES modules from tsc: one file for each entry, without any
// import(), which fails in Jest. Writes each declaration a second time for CommonJS. Drizzle has different
// declarations for `require` and `import`, and their table types are not assignable to each other. So a
// CommonJS app and this package must use the same ones.
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('../', import.meta.url));
const dist = resolve(root, 'dist');
const src = resolve(root, 'src');

const RELATIVE_IMPORT = /(['"])(\.{1,2}\/[^'"]+)\.js\1/g;

/** Modules that the CommonJS build replaces. */
const importPackage = resolve(src, 'drivers/support/import-package');
const replacements = new Map([[`${importPackage}.js`, `${importPackage}.cts`]]);

/** All entries share one schema: a module that imports it requires this entry. */
const otherEntries = new Map([[resolve(src, 'schema.js'), './schema.cjs']]);

const resolveModules = {
  name: 'resolve-modules',
  setup({ onResolve }) {
    onResolve({ filter: /^\./ }, ({ path, resolveDir, kind }) => {
      if (kind === 'entry-point') return undefined;
      const module = resolve(resolveDir, path);
      const entry = otherEntries.get(module);
      if (entry !== undefined) return { path: entry, external: true };
      const replacement = replacements.get(module);
      return replacement === undefined ? undefined : { path: replacement };
    });
  },
};

await build({
  absWorkingDir: root,
  entryPoints: { index: 'src/index.ts', schema: 'src/schema.ts', admin: 'src/admin/index.ts' },
  outdir: 'dist',
  outExtension: { '.js': '.cjs' },
  bundle: true,
  format: 'cjs',
  platform: 'node',
  target: 'node20.19',
  packages: 'external',
  // Turns the import() of a package into a require.
  supported: { 'dynamic-import': false },
  sourcemap: true,
  // The tarball contains src/.
  sourcesContent: false,
  plugins: [resolveModules],
  logLevel: 'warning',
});

const declarations = reachableFrom(['index.d.ts', 'schema.d.ts', 'admin/index.d.ts']);
for (const path of readdirSync(dist, { recursive: true })) {
  const file = resolve(dist, path);
  // Removes declarations that no entry uses.
  if (/\.d\.ts(\.map)?$/.test(path) && !declarations.has(file.replace(/\.map$/, ''))) rmSync(file);
}
for (const file of declarations) {
  writeDeclaration(file);
  writeMap(`${file}.map`);
}

/** Returns these declaration files and all that they import, directly or indirectly. */
function reachableFrom(entries) {
  const found = new Set();
  const add = (file) => {
    if (found.has(file)) return;
    found.add(file);
    for (const [, , path] of readFileSync(file, 'utf8').matchAll(RELATIVE_IMPORT)) {
      add(resolve(dirname(file), `${path}.d.ts`));
    }
  };
  for (const entry of entries) add(resolve(dist, entry));
  return found;
}

function writeDeclaration(file) {
  const text = readFileSync(file, 'utf8')
    .replaceAll(RELATIVE_IMPORT, '$1$2.cjs$1')
    .replace(/^(\/\/# sourceMappingURL=.+)\.d\.ts\.map$/m, '$1.d.cts.map');
  writeFileSync(file.replace(/\.d\.ts$/, '.d.cts'), text);
}

function writeMap(file) {
  const map = JSON.parse(readFileSync(file, 'utf8'));
  map.file = map.file.replace(/\.d\.ts$/, '.d.cts');
  writeFileSync(file.replace(/\.d\.ts\.map$/, '.d.cts.map'), JSON.stringify(map));
}
