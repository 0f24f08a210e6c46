import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, statSync } from 'node:fs';
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { installIn } from '../../scripts/install.js';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** The package as it would be published. */
export interface Package {
  readonly tarball: string;
  /** The paths of the files in it. */
  readonly files: string[];
  /** The size of the tarball and of its contents, in bytes. */
  readonly size: number;
  readonly unpackedSize: number;
}

/** The files and folders that the package is built from. */
const sources = [
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'package.json',
  'drizzle',
  'src',
  'scripts',
  'tsconfig.json',
  'tsconfig.build.json',
];

/**
 * Returns the packed package. The first test file of a run that calls this builds and packs a copy of the working
 * tree, in the temporary folder of the run. If the working tree changes, it is packed again.
 */
export async function packPackage(): Promise<Package> {
  const folder = join(await realpath(tmpdir()), `package-${await hashOfSources()}`);
  const done = join(folder, 'packed.json');
  const failed = join(folder, 'failed.txt');
  if (await isCreated(folder)) {
    try {
      await writeFile(`${done}.new`, JSON.stringify(await packIn(folder)));
      await rename(`${done}.new`, done);
    } catch (error) {
      await writeFile(failed, String(error));
      throw error;
    }
  }
  while (!existsSync(done)) {
    if (existsSync(failed)) throw new Error(await readFile(failed, 'utf8'));
    await delay(50);
  }
  return JSON.parse(await readFile(done, 'utf8'));
}

/** Creates a folder. Returns `false` if another process was first. */
async function isCreated(folder: string): Promise<boolean> {
  try {
    await mkdir(folder);
    return true;
  } catch (error) {
    if (existsSync(folder)) return false;
    throw error;
  }
}

async function hashOfSources(): Promise<string> {
  const hash = createHash('sha256');
  for (const path of sources) {
    const isFolder = statSync(join(root, path)).isDirectory();
    const names = isFolder ? await readdir(join(root, path), { recursive: true }) : [''];
    for (const name of names.sort()) {
      const file = join(root, path, name);
      if (statSync(file).isFile()) hash.update(file).update(await readFile(file));
    }
  }
  return hash.digest('hex').slice(0, 16);
}

async function packIn(folder: string): Promise<Package> {
  for (const path of sources) await cp(join(root, path), join(folder, path), { recursive: true });
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'), 'dir');
  await execute('npm', ['run', 'build'], folder);
  const output = await execute('npm', ['pack', '--ignore-scripts', '--json'], folder);
  const [packed]: [
    { filename: string; files: { path: string }[]; size: number; unpackedSize: number },
  ] = JSON.parse(output);
  return {
    tarball: join(folder, packed.filename),
    files: packed.files.map(({ path }) => path).sort(),
    size: packed.size,
    unpackedSize: packed.unpackedSize,
  };
}

const linked = ['lru-cache', 'express-session', 'pg', 'postgres', '@electric-sql/pglite', 'tsx'];

/**
 * Returns the dependencies of a folder with a package.json of its own, such as `test/apps/jest`, and the paths where
 * they are installed: for the option `links`.
 */
export async function packagesOf(folder: string): Promise<Map<string, string>> {
  const modules = join(installIn(folder), 'node_modules');
  const manifest: { dependencies: Record<string, string> } = JSON.parse(
    await readFile(join(root, folder, 'package.json'), 'utf8'),
  );
  return new Map(Object.keys(manifest.dependencies).map((name) => [name, join(modules, name)]));
}

export type DrizzleVersion = '0.45' | '1.0';

/** An app in a temporary folder that uses the packed package. */
export interface ScratchApp {
  readonly folder: string;
  write(path: string, text: string): Promise<void>;
  /** Runs Node in the folder of the app and returns its output. */
  node(args: string[], env?: Record<string, string>): Promise<string>;
  /** Runs the app's drizzle-kit. */
  drizzleKit(...args: string[]): Promise<string>;
  run(command: string, args: string[], env?: Record<string, string>): Promise<string>;
  /** Starts Node without waiting for its end. */
  spawn(args: string[]): ReturnType<typeof spawn>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ScratchOptions {
  /** More fields of its package.json. */
  readonly manifest?: object;
  /** More packages for a linked app: names in the repository's node_modules, or names with paths. */
  readonly links?: string[] | ReadonlyMap<string, string>;
}

/** Creates an app with an empty `node_modules`, for tests that run `npm install`. */
export async function emptyApp({ manifest = {} }: ScratchOptions = {}): Promise<ScratchApp> {
  const folder = await temporaryFolder();
  const write = async (path: string, text: string) => {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  };
  await write('package.json', JSON.stringify({ name: 'app', private: true, ...manifest }));
  const run = (command: string, args: string[], env?: Record<string, string>) =>
    execute(command, args, folder, env);
  return {
    folder,
    write,
    run,
    node: (args, env) => run(process.execPath, args, env),
    drizzleKit: (...args) => run(process.execPath, ['node_modules/drizzle-kit/bin.cjs', ...args]),
    spawn: (args) =>
      spawn(process.execPath, args, { cwd: folder, stdio: ['pipe', 'pipe', 'inherit'] }),
    [Symbol.asyncDispose]: () => removeFolder(folder),
  };
}

/**
 * Creates an app with the package unpacked in its `node_modules`, beside links to packages of this repository, so
 * that nothing is downloaded.
 */
export async function linkedApp(
  { tarball }: Package,
  drizzle: DrizzleVersion,
  options: ScratchOptions = {},
): Promise<ScratchApp> {
  const app = await emptyApp({ manifest: { type: 'module', ...options.manifest } });
  const modules = join(app.folder, 'node_modules');
  const own = join(modules, 'connect-drizzle');
  await mkdir(own, { recursive: true });
  await execute('tar', ['-xzf', tarball, '-C', own, '--strip-components=1'], app.folder);
  const { links: more = [] } = options;
  const installed = (name: string): [string, string] => [name, join(root, 'node_modules', name)];
  const links = new Map(linked.map(installed));
  const drizzleFolder = drizzle === '1.0' ? installIn('test/drizzle-v1') : root;
  for (const name of ['drizzle-orm', 'drizzle-kit']) {
    links.set(name, join(drizzleFolder, 'node_modules', name));
  }
  for (const [name, path] of Array.isArray(more) ? more.map(installed) : more)
    links.set(name, path);
  for (const [name, target] of links) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(await realpath(target), join(modules, name), 'dir');
  }
  return app;
}

async function temporaryFolder(): Promise<string> {
  return realpath(await mkdtemp(join(tmpdir(), 'connect-drizzle-app-')));
}

function removeFolder(folder: string): Promise<void> {
  return rm(folder, { recursive: true, force: true, maxRetries: 3 });
}

function execute(
  command: string,
  args: string[],
  cwd: string,
  env: Record<string, string> = {},
): Promise<string> {
  // The variables of the test runner would change what an app does.
  const { NODE_ENV: _, NODE_OPTIONS: __, VITEST: ___, ...inherited } = process.env;
  return new Promise((resolve, reject) => {
    execFile(
      command,
      args,
      { cwd, env: { ...inherited, ...env }, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error)
          reject(
            new Error(`${command} ${args.join(' ')} failed:\n${stdout}${stderr}`, { cause: error }),
          );
        else resolve(stdout);
      },
    );
  });
}
