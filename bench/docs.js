/**
 * Writes the figures into docs/performance.md, between its markers, and draws docs/performance.svg.
 *
 * @module
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { drawChart } from './chart.js';
import { markdown, TABLES } from './report.js';

const PAGE = new URL('../docs/performance.md', import.meta.url);
const CHART = new URL('../docs/performance.svg', import.meta.url);

/**
 * @param {import('./result.js').Result} result
 * @returns {Promise<string[]>} the files written
 */
export async function writeDocs(result) {
  const page = await readFile(PAGE, 'utf8');
  const written = page.replaceAll(
    /(<!-- bench:(\w+) -->\n)[\s\S]*?(<!-- \/bench -->)/g,
    (_block, start, name, end) => `${start}\n${blockOf(name, result)}\n${end}`,
  );
  await writeFile(PAGE, written);
  await writeFile(CHART, drawChart(result));
  return [PAGE, CHART].map((url) => fileURLToPath(url));
}

/**
 * @param {string} name
 * @param {import('./result.js').Result} result
 */
function blockOf(name, result) {
  const build = TABLES[name];
  if (build === undefined) throw new Error(`docs/performance.md: there is no table ${name}`);
  const tables = build(result);
  if (tables.length === 0) return '*Not measured yet.*\n';
  return tables
    .map((table) => `${tables.length === 1 ? '' : `**${table.title}**\n\n`}${markdown(table)}\n`)
    .join('\n');
}
