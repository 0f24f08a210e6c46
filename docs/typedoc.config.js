import { createRequire } from 'node:module';

const { exports } = createRequire(import.meta.url)('../package.json');
const modules = Object.values(exports).filter((entry) => typeof entry === 'object');

/** @type {Partial<import('typedoc').TypeDocOptions>} */
export default {
  entryPoints: modules.map((entry) =>
    entry.import.default.replace('./dist/', '../src/').replace(/\.js$/, '.ts'),
  ),
  tsconfig: '../tsconfig.build.json',
  // `npm run types` and the build check the types, with another version of TypeScript.
  skipErrorChecking: true,
  plugin: ['typedoc-plugin-markdown'],
  out: 'reference',
  entryFileName: 'index',
  readme: 'none',
  name: 'connect-drizzle',
  excludeInternal: true,
  excludePrivate: true,
  excludeProtected: true,
  // express-session's and Node's own methods have their own documentation.
  excludeExternals: true,
  disableSources: true,
  hideBreadcrumbs: true,
  hidePageHeader: true,
  useCodeBlocks: true,
  parametersFormat: 'table',
  interfacePropertiesFormat: 'table',
  // The build of the site fails for dead links in these pages.
  logLevel: 'Error',
  validation: false,
};
