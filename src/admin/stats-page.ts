/**
 * The page with numbers about the table and about the store in this process.
 *
 * @module
 */
import type { StoreStats } from '../lifecycle/stats.js';
import { type Html, html } from './html.js';
import { numberText, type Page, page, sizeText } from './layout.js';
import type { Expiries, Totals } from './totals.js';

export interface StatsView {
  readonly totals: Totals;
  readonly stats: StoreStats;
}

export function statsPage({ totals, stats }: StatsView): Page {
  const { isEstimate } = totals;
  return page(
    { root: './', title: 'Statistics', current: 'statistics' },
    html`<div class="head"><h1>Statistics</h1></div>
<section class="card" aria-labelledby="table-title">
  <h2 id="table-title">The table</h2>
  <p class="lead">${isEstimate ? 'Estimated from a sample of the table.' : 'Counted.'} At most a minute old.</p>
  <dl class="facts">
    ${fact('Live', numberText(totals.live, isEstimate))}
    ${fact('Expired, not deleted yet', numberText(totals.expired, isEstimate))}
    ${fact('Ended, not deleted yet', numberText(totals.revoked, isEstimate))}
    ${fact('Size with indexes', sizeText(totals.bytes))}
    ${fact('Index on (created_at, id)', totals.hasIndex ? 'Yes' : 'No')}
  </dl>
</section>
<section class="card" aria-labelledby="expiries-title">
  <h2 id="expiries-title">When live sessions expire</h2>
  <p class="lead">If they are not used again: a visit may move the expiry of a session.${totals.expiries.length > 0 && legend(totals)}</p>
  ${totals.expiries.length === 0 ? html`<p class="empty">There are no live sessions.</p>` : chart(totals)}
</section>
<section class="card" aria-labelledby="store-title">
  <h2 id="store-title">The store in this process</h2>
  <p class="lead">Counted since it was created.</p>
  <dl class="facts">
    ${Object.entries(STATS).map(([name, label]) => fact(label, statText(Reflect.get(stats, name))))}
  </dl>
</section>`,
  );
}

const STATS = {
  hits: 'Reads answered by the cache',
  misses: 'Reads that missed the cache',
  cached: 'Sessions in the cache',
  sync: 'Changes of other processes',
  statements: 'Statements',
  rows: 'Rows in these statements',
  largestBatch: 'Largest batch',
  retries: 'Retries',
  merges: 'Merged saves',
  dropped: 'Skipped saves of ended sessions',
  unreadable: 'Reads of unreadable sessions',
  pruned: 'Sessions deleted after expiry',
} satisfies Record<keyof StoreStats, string>;

function statText(value: unknown): string {
  if (typeof value === 'number') return numberText(value);
  if (value === 'up') return 'Received';
  return value === 'down' ? 'Not received now' : 'Not received: sync is off';
}

function fact(name: string, value: string): Html {
  return html`<div><dt>${name}</dt><dd>${value}</dd></div>`;
}

const WIDTH = 720;
const HEIGHT = 180;
const GAP = 3;

/** A chart, and a table for screen readers. */
function chart({ expiries, isEstimate }: Totals): Html {
  const most = Math.max(1, ...expiries.map(({ sessions }) => sessions));
  const step = WIDTH / expiries.length;
  const width = Math.min(step - GAP, 60);
  const bars = expiries.map(({ sessions }, at) => {
    const height = sessions === 0 ? 0 : Math.max(2, (sessions / most) * HEIGHT);
    return html`<rect x="${(at * step).toFixed(1)}" y="${(HEIGHT - height).toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" rx="2"/>`;
  });
  const first = expiries[0];
  const last = expiries.at(-1);
  return html`<figure class="chart">
  <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true">${bars}</svg>
  <figcaption><span>${first && dateText(first.from)}</span><span>${last && rangeEnd(last)}</span></figcaption>
</figure>
<details class="numbers"><summary>Show the numbers</summary>
<table>
  <thead><tr><th scope="col">From (UTC)</th><th scope="col">Until</th><th scope="col">Sessions</th></tr></thead>
  <tbody>${expiries.map(
    (bar) =>
      html`<tr><td>${dateText(bar.from)}</td><td>${bar.until === null ? 'later' : dateText(bar.until)}</td><td>${numberText(bar.sessions, isEstimate)}</td></tr>`,
  )}</tbody>
</table></details>`;
}

/** Returns a text that explains the bars. */
function legend({ expiries, isEstimate }: Totals): string {
  const [first] = expiries;
  const hours = ((first?.until ?? 0) - (first?.from ?? 0)) / 3_600_000;
  const width = hours % 24 === 0 ? `${hours / 24} days` : `${hours} hours`;
  const most = numberText(Math.max(...expiries.map(({ sessions }) => sessions)), isEstimate);
  const unit = width.startsWith('1 ') ? width.slice(2, -1) : width;
  return ` Each bar is ${unit === width ? width : `one ${unit}`}; the highest has ${most}.`;
}

function rangeEnd({ from, until }: Expiries): string {
  return until === null ? `after ${dateText(from)}` : dateText(until);
}

function dateText(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16).replace('T', ' ');
}
