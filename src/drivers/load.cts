/**
 * Loads the optional packages of the drivers, in the CommonJS build: under Jest `import()` fails, and a
 * plain `require` would be followed by bundlers.
 *
 * @module
 */
import nodeModule = require('node:module');

import type { Drivers } from './load.js' with { 'resolution-mode': 'import' };

const requirePackage = nodeModule.createRequire(__filename);

/** Loads the package of a driver. Rejects with Node's own error if the package is not installed. */
async function loadDriver<Name extends keyof Drivers>(name: Name): Promise<Drivers[Name]> {
  return requirePackage(name);
}

export = { loadDriver };
