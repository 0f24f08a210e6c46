import { mkdtemp, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BuildOptions, build } from 'esbuild';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** Bundles sources of this repository into a module for Node, without their packages. */
export async function bundleForNode(
  outfile: string,
  source: Pick<BuildOptions, 'entryPoints' | 'stdin'>,
): Promise<void> {
  await build({
    ...source,
    absWorkingDir: root,
    outfile,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    packages: 'external',
    logLevel: 'error',
  });
}

let folder: Promise<string> | undefined;
let programs = 0;

/** Creates the folder for programs, which finds this repository's packages. The run's folder contains it. */
async function createFolder(): Promise<string> {
  const created = await mkdtemp(join(tmpdir(), 'connect-drizzle-programs-'));
  await symlink(join(root, 'node_modules'), join(created, 'node_modules'), 'dir');
  return created;
}

/**
 * Bundles a program in which `connect-drizzle` is this repository's, and returns its path. A process of it starts
 * in a fifth of the CPU time that it takes with a loader for TypeScript.
 * @param source a file in this folder, or the text of a module
 */
export async function bundleProgram(source: { file: string } | { text: string }): Promise<string> {
  folder ??= createFolder();
  programs += 1;
  const name = `program-${programs}.mjs`;
  const outfile = join(await folder, name);
  await bundleForNode(
    outfile,
    'file' in source
      ? { entryPoints: [join('test/support', source.file)] }
      : { stdin: { contents: source.text, resolveDir: root, loader: 'ts' } },
  );
  return outfile;
}
