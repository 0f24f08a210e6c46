/**
 * Opens a PGlite in a folder that already contains the lock.
 *
 * @module
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { PGlite, PGliteOptions } from '@electric-sql/pglite';

/** Opens the database in a folder, or creates it; `create` is `PGlite.create`. */
export async function createInFolder(
  folder: string,
  create: (options: PGliteOptions) => Promise<PGlite>,
): Promise<PGlite> {
  const { exitCode } = process;
  try {
    return await create({ dataDir: folder });
  } catch (error) {
    if (existsSync(join(folder, 'PG_VERSION'))) throw error;
    // PGlite 0.3 creates a database only in an empty folder, but copies one into any folder. When it
    // fails, it sets the exit code of the process.
    process.exitCode = exitCode;
    const inMemory = await create({});
    const loadDataDir = await inMemory.dumpDataDir('none').finally(() => inMemory.close());
    return create({ dataDir: folder, loadDataDir });
  }
}
