/**
 * Writes the figures into docs/performance.md, between its markers, and draws its charts.
 *
 * @module
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { drawLatencies, drawRates } from './chart.js';
import { markdown, TABLES } from './report.js';

const PAGE = new URL('../docs/performance.md', import.meta.url);
const RATES = new URL('../docs/performance.svg', import.meta.url);
const LATENCIES = new URL('../docs/latency.svg', import.meta.url);

const CHART = '![Latency of a page by arrival rate, for three stores](latency.svg)\n';
const NOT_MEASURED =
  '*No run of this section is kept. `npm run bench -- --write-docs` measures it.*\n';

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
  await writeFile(RATES, drawRates(result));
  const latencies = drawLatencies(result);
  if (latencies !== undefined) await writeFile(LATENCIES, latencies);
  return [PAGE, RATES, ...(latencies === undefined ? [] : [LATENCIES])].map((url) =>
    fileURLToPath(url),
  );
}

/**
 * @param {string} name
 * @param {import('./result.js').Result} result
 */
function blockOf(name, result) {
  if (name === 'chart') return result.arrivals ? CHART : NOT_MEASURED;
  const build = TABLES[name];
  if (build === undefined) throw new Error(`docs/performance.md: there is no table ${name}`);
  const tables = build(result);
  if (tables.length === 0) return NOT_MEASURED;
  return tables
    .map((table) => `${tables.length === 1 ? '' : `**${table.title}**\n\n`}${markdown(table)}\n`)
    .join('\n');
}
