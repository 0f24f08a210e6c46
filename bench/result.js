/**
 * The stored result: JSON lines, one for each row, so that a new run is a readable diff.
 *
 * @module
 */
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

export const KEPT = fileURLToPath(new URL('./results.jsonl', import.meta.url));

/** @typedef {Awaited<ReturnType<typeof import('./bench.js').runSections>>} Result */

/**
 * @param {string} path of what `--json` printed or `--write-docs` kept
 * @returns {Promise<Result>}
 */
export async function readResult(path) {
  const text = await readFile(path, 'utf8');
  if (text.startsWith('{\n')) return JSON.parse(text);
  const result = {};
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const { section, ...row } = JSON.parse(line);
    if (section === 'meta') result.meta = row;
    else if (section === 'cost' || section === 'propagation') {
      result.sync ??= { cost: [], propagation: [] };
      result.sync[section].push(row);
    } else {
      result[section] ??= [];
      result[section].push(row);
    }
  }
  return /** @type {Result} */ (result);
}

/**
 * Stores a result. Keeps the sections that were not part of this run.
 *
 * @param {Result} result
 * @returns {Promise<Result>} the stored result
 */
export async function writeResult(result) {
  const earlier = existsSync(KEPT) ? await readResult(KEPT) : { meta: {} };
  const kept = {
    ...earlier,
    ...result,
    meta: {
      ...earlier.meta,
      ...result.meta,
      measured: { ...earlier.meta.measured, ...result.meta.measured },
      versions: { ...earlier.meta.versions, ...result.meta.versions },
      missing: { ...earlier.meta.missing, ...result.meta.missing },
    },
  };
  const { meta, sync, ...sections } = kept;
  const lines = [{ section: 'meta', ...meta }];
  for (const [section, rows] of Object.entries({ ...sections, ...sync })) {
    for (const row of rows) lines.push({ section, ...row });
  }
  await writeFile(KEPT, lines.map((line) => `${JSON.stringify(line, rounded)}\n`).join(''));
  return readResult(KEPT);
}

/**
 * @param {string} _key
 * @param {unknown} value
 */
function rounded(_key, value) {
  return typeof value === 'number' && !Number.isInteger(value)
    ? Number(value.toPrecision(4))
    : value;
}
