/**
 * Requires the optional packages of the drivers in the CommonJS build. In Jest `import()` fails, and bundlers would follow
 * a plain `require`.
 *
 * @module
 */
import nodeModule = require('node:module');

import type { Packages } from './import-package.js' with { 'resolution-mode': 'import' };

/** Requires a package. Rejects with Node's own error if the package is not installed. */
async function importPackage<Name extends keyof Packages>(name: Name): Promise<Packages[Name]> {
  const module = nodeModule.createRequire(startingPoint())(name);
  // Bun may require the ES module of a package.
  return module.default ?? module;
}

/** Returns the file from which to resolve packages: the app's start file if an ES module bundle contains this module. */
function startingPoint(): string {
  if (typeof __filename === 'string') return __filename;
  return process.argv[1] ?? `${process.cwd()}/`;
}

export = { importPackage };
