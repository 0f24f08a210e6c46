/**
 * The chart of docs/performance.md, an SVG drawn by ECharts on the server.
 *
 * @module
 */
import { BarChart } from 'echarts/charts';
import { GridComponent, TitleComponent } from 'echarts/components';
import * as echarts from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';

echarts.use([BarChart, GridComponent, TitleComponent, SVGRenderer]);

const WIDTH = 960;
const PANEL_HEIGHT = 250;
const HEADER_HEIGHT = 64;
const COLUMNS = 2;
const BAR_HEIGHT = 20;

const COLOURS = { ours: '#4f7d1f', limit: '#b8b8b8', peer: '#5b7fa6', text: '#24292f' };

/** Not in the chart: no database behind them, so that the others would be too small to see. */
const WITHOUT_SERVER = ['MemoryStore', 'session-pouchdb-store'];

/**
 * @param {import('./result.js').Result} result
 * @returns {string} SVG
 */
export function drawChart(result) {
  const panels = panelsOf(result);
  const lines = Math.ceil(panels.length / COLUMNS);
  const height = HEADER_HEIGHT + lines * PANEL_HEIGHT;
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height });
  const place = (i) => ({
    left: (i % COLUMNS) * (WIDTH / COLUMNS),
    top: HEADER_HEIGHT + Math.floor(i / COLUMNS) * PANEL_HEIGHT,
  });
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    textStyle: {
      fontFamily: 'system-ui, -apple-system, Segoe UI, sans-serif',
      color: COLOURS.text,
    },
    title: [
      {
        text: 'Sessions per second: longer is better',
        subtext: `Postgres ${result.meta.postgres.version}, every set flushed to disk; Redis in memory; ${result.meta.machine.cores} cores`,
        left: 16,
        top: 10,
        itemGap: 6,
      },
      ...panels.map(({ title }, i) => ({
        text: title,
        left: place(i).left + 16,
        top: place(i).top + 8,
        textStyle: { fontSize: 13 },
      })),
    ],
    grid: panels.map((_, i) => ({
      left: place(i).left + 150,
      top: place(i).top + 32,
      width: WIDTH / COLUMNS - 230,
      height: PANEL_HEIGHT - 48,
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
        itemStyle: { color: colourOf(contender), borderRadius: [0, 3, 3, 0] },
      })),
    })),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return `${svg}\n`;
}

/** @param {import('./result.js').Result} result */
function panelsOf({ micro = [], express = [] }) {
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
  for (const route of new Set(express.map((row) => row.route))) {
    const rows = express.filter((row) => row.route === route);
    panels.push({ title: `Express 5, ${route} route: requests`, rows });
  }
  return panels.filter(({ rows }) => rows.length > 0);
}

/** @param {string} contender */
function colourOf(contender) {
  if (contender === 'connect-drizzle') return COLOURS.ours;
  return contender.includes('by hand') ? COLOURS.limit : COLOURS.peer;
}
