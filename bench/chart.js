/**
 * The charts of docs/performance.md, drawn by ECharts on the server. They follow the reader's colour scheme.
 *
 * @module
 */
import { BarChart, LineChart } from 'echarts/charts';
import { GridComponent, LegendComponent, TitleComponent } from 'echarts/components';
import * as echarts from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';
import { pageTitle } from './report.js';

echarts.use([BarChart, LineChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);

const WIDTH = 960;
const HEADER_HEIGHT = 64;
const COLUMNS = 2;

const RATE_PANEL_HEIGHT = 250;
const BAR_HEIGHT = 20;

const LATENCY_PANEL_HEIGHT = 340;

/** The colours of lines and bars are visible on both backgrounds. */
const COLOURS = {
  background: '#ffffff',
  text: '#24292f',
  grid: '#d8dee4',
  ours: '#4f8a2b',
  pgSimple: '#c4622d',
  limit: '#8c959f',
  peer: '#5b7fa6',
};

/** The dark replacements for colours that depend on the scheme. */
const DARK = {
  [COLOURS.background]: '#0d1117',
  [COLOURS.text]: '#e6edf3',
  [COLOURS.grid]: '#30363d',
};

/** Not in the chart: they have no database, and the bars of the others would be too small. */
const WITHOUT_SERVER = ['MemoryStore', 'session-pouchdb-store'];

/**
 * Draws the maximum number of sessions per second of each store.
 *
 * @param {import('./result.js').Result} result
 * @returns {string} SVG
 */
export function drawRates(result) {
  const panels = ratePanels(result);
  const place = placeOf(RATE_PANEL_HEIGHT);
  return render(HEADER_HEIGHT + Math.ceil(panels.length / COLUMNS) * RATE_PANEL_HEIGHT, {
    title: titles(
      'Sessions per second: longer is better',
      `Postgres ${result.meta.postgres.version}, every set flushed to disk; Redis in memory; ${result.meta.machine.cores} cores`,
      panels,
      place,
    ),
    grid: panels.map((_, i) => ({
      left: place(i).left + 176,
      top: place(i).top + 32,
      width: WIDTH / COLUMNS - 250,
      height: RATE_PANEL_HEIGHT - 48,
    })),
    xAxis: panels.map((_, i) => ({ gridIndex: i, type: 'value', show: false })),
    yAxis: panels.map(({ rows }, i) => ({
      gridIndex: i,
      type: 'category',
      inverse: true,
      data: rows.map(({ contender }) => contender),
      axisLine: { show: false },
      axisTick: { show: false },
      axisLabel: { color: COLOURS.text },
    })),
    series: panels.map(({ rows }, i) => ({
      type: 'bar',
      xAxisIndex: i,
      yAxisIndex: i,
      barWidth: BAR_HEIGHT,
      label: {
        show: true,
        position: 'right',
        color: COLOURS.text,
        formatter: ({ value }) => Math.round(value).toLocaleString('en-US'),
      },
      data: rows.map(({ contender, rate }) => ({
        value: Math.round(rate),
        itemStyle: { color: barColour(contender), borderRadius: [0, 3, 3, 0] },
      })),
    })),
  });
}

/**
 * Draws a page's latency against the rate at which requests arrive.
 *
 * @param {import('./result.js').Result} result
 * @returns {string | undefined} SVG; undefined if it was not measured
 */
export function drawLatencies({ arrivals = [] }) {
  if (arrivals.length === 0) return undefined;
  const panels = [...new Set(arrivals.map(({ route }) => route))].map((route) => {
    const rows = arrivals.filter((row) => row.route === route);
    return { title: `${pageTitle(rows[0])}: milliseconds`, rows };
  });
  const place = placeOf(LATENCY_PANEL_HEIGHT);
  const axis = {
    axisLabel: { color: COLOURS.text },
    axisLine: { lineStyle: { color: COLOURS.text } },
    axisTick: { lineStyle: { color: COLOURS.text } },
    nameTextStyle: { color: COLOURS.text },
    splitLine: { lineStyle: { color: COLOURS.grid } },
  };
  const lines = panels.flatMap(({ rows }, panel) =>
    [...new Set(rows.map(({ contender }) => contender))].flatMap((contender) =>
      ['p99', 'p50'].map((percentile) => ({
        type: 'line',
        name: contender,
        xAxisIndex: panel,
        yAxisIndex: panel,
        color: lineColour(contender),
        lineStyle: { width: 2, type: percentile === 'p99' ? 'solid' : [5, 4] },
        symbol: 'circle',
        symbolSize: percentile === 'p99' ? 6 : 4,
        data: rows
          .filter((row) => row.contender === contender)
          .map((row) => [row.perSecond, row[percentile]]),
      })),
    ),
  );
  return render(HEADER_HEIGHT + LATENCY_PANEL_HEIGHT + 48, {
    title: titles(
      'Latency of a page: lower is better',
      'Solid: p99, dashed: p50. Requests arrive at a fixed rate, however late the answers are.',
      panels,
      place,
    ),
    legend: {
      data: [...new Set(lines.map(({ name }) => name))],
      bottom: 8,
      textStyle: { color: COLOURS.text },
      itemWidth: 32,
      itemGap: 40,
    },
    grid: panels.map((_, i) => ({
      left: place(i).left + 70,
      top: place(i).top + 48,
      width: WIDTH / COLUMNS - 100,
      height: LATENCY_PANEL_HEIGHT - 96,
    })),
    xAxis: panels.map((_, i) => ({
      ...axis,
      gridIndex: i,
      type: 'value',
      name: 'requests per second',
      nameLocation: 'middle',
      nameGap: 28,
      splitLine: { show: false },
    })),
    yAxis: panels.map((_, i) => ({
      ...axis,
      gridIndex: i,
      type: 'log',
    })),
    series: lines,
  });
}

/**
 * @param {number} height
 * @param {object} option of ECharts
 * @returns {string} SVG
 */
function render(height, option) {
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  chart.setOption({
    animation: false,
    backgroundColor: COLOURS.background,
    textStyle: {
      fontFamily: 'system-ui, -apple-system, Segoe UI, sans-serif',
      color: COLOURS.text,
    },
    ...option,
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  // A rule of a style sheet has priority over an attribute.
  const rules = Object.entries(DARK).flatMap(([light, dark]) =>
    ['fill', 'stroke'].map((attribute) => `[${attribute}="${light}"] { ${attribute}: ${dark} }`),
  );
  const style = `<style>@media (prefers-color-scheme: dark) { ${rules.join(' ')} }</style>`;
  return `${svg.replace(/^<svg[^>]*>/, (start) => `${start}\n${style}`)}\n`;
}

/** @param {number} panelHeight */
function placeOf(panelHeight) {
  return (/** @type {number} */ i) => ({
    left: (i % COLUMNS) * (WIDTH / COLUMNS),
    top: HEADER_HEIGHT + Math.floor(i / COLUMNS) * panelHeight,
  });
}

/**
 * @param {string} text
 * @param {string} subtext
 * @param {readonly { title: string }[]} panels
 * @param {ReturnType<typeof placeOf>} place
 */
function titles(text, subtext, panels, place) {
  return [
    {
      text,
      subtext,
      left: 16,
      top: 10,
      itemGap: 6,
      textStyle: { color: COLOURS.text },
      subtextStyle: { color: COLOURS.text },
    },
    ...panels.map(({ title }, i) => ({
      text: title,
      left: place(i).left + 16,
      top: place(i).top + 8,
      textStyle: { fontSize: 13, color: COLOURS.text },
    })),
  ];
}

/** @param {import('./result.js').Result} result */
function ratePanels({ micro = [], express = [] }) {
  const panels = ['get', 'touch', 'set', 'set new'].map((operation) => ({
    title: `${operation}, 64 callers, 200 bytes`,
    rows: micro.filter(
      (row) =>
        row.operation === operation &&
        row.callers === 64 &&
        row.bytes === 200 &&
        !WITHOUT_SERVER.includes(row.contender),
    ),
  }));
  const busy = express.filter(({ connections }) => connections === 64);
  for (const route of new Set(busy.map((row) => row.route))) {
    const rows = busy.filter((row) => row.route === route);
    panels.push({ title: `Express 5, ${route} route, 64 connections: requests`, rows });
  }
  return panels.filter(({ rows }) => rows.length > 0);
}

/** @param {string} contender */
function barColour(contender) {
  if (contender === 'connect-drizzle') return COLOURS.ours;
  const isLimit = contender.includes('by hand') || contender === 'bare store';
  return isLimit ? COLOURS.limit : COLOURS.peer;
}

/** @param {string} contender */
function lineColour(contender) {
  if (contender === 'connect-drizzle') return COLOURS.ours;
  return contender === 'connect-pg-simple' ? COLOURS.pgSimple : COLOURS.limit;
}
