import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'vitest';
import { startPostgres } from '../postgres.js';

test('starts a server, writes a file and waits', async () => {
  await startPostgres({ durable: false });
  await writeFile(join(await mkdtemp(join(tmpdir(), 'connect-drizzle-')), 'file'), 'text');
  process.stdout.write('It waits now.\n');
  await new Promise(() => {});
});
