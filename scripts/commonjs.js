// Gives what is built its CommonJS side: an entry for `require` that gives the same module, and each
// declaration a second time, as a CommonJS module's. Drizzle has other declarations for `require` than for
// `import`, and a table of the one kind is none of the other: a CommonJS app and this package must meet in
// the same ones.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

const dist = new URL('../dist/', import.meta.url);
const ENTRIES = ['index', 'schema'];

for (const name of ENTRIES) {
  writeFileSync(new URL(`${name}.cjs`, dist), `module.exports = require('./${name}.js');\n`);
}

for (const path of readdirSync(dist, { recursive: true })) {
  if (!path.endsWith('.d.ts')) continue;
  const text = readFileSync(new URL(path, dist), 'utf8');
  const asCommonJs = text.replaceAll(/(['"])(\.{1,2}\/[^'"]+)\.js\1/g, '$1$2.cjs$1');
  writeFileSync(new URL(path.replace(/\.d\.ts$/, '.d.cts'), dist), asCommonJs);
}
