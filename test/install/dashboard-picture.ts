/**
 * Photographs a rendering of the dashboard's panels. The queries are the dashboard's own, and a real
 * Prometheus answers them; the data is made up, and the drawing isn't Grafana's.
 *
 * Usage: node test/install/dashboard-picture.ts   (writes docs/images/dashboard.png)
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { dashboard, dashboardRows, type Panel } from '../../src/install/dashboard.ts';
import { freePort } from '../control-plane/control-plane.ts';
import { SupervisedProcess } from '../control-plane/process.ts';
import { waitFor } from '../control-plane/wait.ts';
import { startBrowser } from './browser.ts';
import { openMetrics } from './dashboard-data.ts';
import { runProgram } from './helm.ts';
import { findPrometheus } from './prometheus.ts';

const root = path.dirname(path.dirname(import.meta.dirname));

interface Answer {
  metric: Record<string, string>;
  value?: [number, string];
  values?: [number, string][];
}

interface Place {
  type: string;
  title: string;
  gridPos: { x: number; y: number; w: number; h: number };
}

const UNIT = { width: 50, height: 25, gap: 8 };
const HOURS = 6;
const colors = [
  '#7eb26d',
  '#eab839',
  '#6ed0e0',
  '#ef843c',
  '#e24d42',
  '#1f78c1',
  '#ba43a9',
  '#b7b7ff',
];

async function draw(
  ask: (at: string, parameters: Record<string, string>) => Promise<Answer[]>,
  end: number,
): Promise<string> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of our own making
  const { panels: places } = dashboard() as { panels: Place[] };
  const byTitle = new Map(
    dashboardRows.flatMap((row) => row.panels).map((panel) => [panel.title, panel]),
  );
  const boxes = await Promise.all(
    places.map(async ({ type, title, gridPos: { x, y, w, h } }) => {
      const style = `left:${x * UNIT.width}px;top:${y * (UNIT.height + UNIT.gap)}px;width:${w * UNIT.width - UNIT.gap}px;height:${h * (UNIT.height + UNIT.gap) - UNIT.gap}px`;
      // A row and a panel may share a title.
      const panel = type === 'row' ? undefined : byTitle.get(title);
      if (panel === undefined) return `<h2 style="${style}">${escape(title)}</h2>`;
      const range = { start: String(end - HOURS * 3600), end: String(end), step: '60' };
      const answers = await Promise.all(
        panel.queries.map(async ({ expr: query, legend }) => {
          const found =
            panel.kind === 'timeseries'
              ? await ask('query_range', { query, ...range })
              : await ask('query', { query, time: String(end) });
          return found.map((answer) => ({ ...answer, name: nameOf(answer, legend) }));
        }),
      );
      return `<section style="${style}"><h3>${escape(title)}</h3>${inside(panel, answers.flat(), w)}</section>`;
    }),
  );
  const bottom =
    Math.max(...places.map(({ gridPos: { y, h } }) => y + h)) * (UNIT.height + UNIT.gap);
  return `<!doctype html><meta charset="utf-8"><style>
body{margin:0;padding:16px;background:#111217;color:#d0d3da;font:13px/1.35 "Liberation Sans",Arial,sans-serif;width:${24 * UNIT.width}px}
header{margin:0 0 14px}header b{font-size:20px;color:#fff}header span{color:#9a9ea8;margin-left:12px}
main{position:relative;height:${bottom}px}section,h2{position:absolute;box-sizing:border-box;margin:0}
h2{font-size:15px;line-height:${UNIT.height}px;color:#fff}section{background:#181b20;border:1px solid #26292f;border-radius:3px;padding:8px 10px;overflow:hidden}
h3{margin:0;font-size:12px;font-weight:600;color:#c3c7d0;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.stat{font-size:40px;font-weight:600;text-align:center;line-height:84px}table{border-collapse:collapse;width:100%;margin-top:6px}
td,th{text-align:left;padding:4px 8px;border-bottom:1px solid #26292f}th{color:#8ab4f8;font-weight:600}svg text{fill:#9a9ea8;font-size:11px}polyline,line{shape-rendering:crispEdges}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:11px;max-height:32px;overflow:hidden}.legend i{display:inline-block;width:10px;height:3px;margin:0 5px 3px 0}
</style><header><b>Automation Guardrails</b><span>Last 6 hours. The panels of config/grafana/dashboard.json, answered by Prometheus from made-up data; a rendering, not Grafana.</span></header><main>${boxes.join('')}</main>`;
}

function nameOf({ metric }: Answer, legend: string | undefined): string {
  return legend?.replaceAll(/\{\{(\w+)\}\}/g, (_, label: string) => metric[label] ?? '') ?? '';
}

function inside(panel: Panel, answers: (Answer & { name: string })[], columns: number): string {
  switch (panel.kind) {
    case 'stat': {
      const value = Number(answers[0]?.value?.[1] ?? NaN);
      return `<div class="stat" style="color:${colorOf(panel, value)}">${inUnit(value, panel.unit)}</div>`;
    }
    case 'table':
      return table(panel, answers);
    case 'timeseries':
      return chart(panel, answers, columns * UNIT.width - UNIT.gap - 22);
    default:
      return panel.kind satisfies never;
  }
}

function colorOf({ thresholds = [] }: Panel, value: number): string {
  const passed = thresholds.findLast(({ from }) => value >= from);
  return { green: '#73bf69', yellow: '#fade2a', red: '#f2495c' }[passed?.color ?? 'green'];
}

function table({ unit }: Panel, answers: Answer[]): string {
  const labels = [...new Set(answers.flatMap(({ metric }) => Object.keys(metric)))];
  const rows = answers
    .toSorted((a, b) => Number(b.value?.[1]) - Number(a.value?.[1]))
    .map(({ metric, value }) => [
      ...labels.map((label) => metric[label] ?? ''),
      inUnit(Number(value?.[1]), unit),
    ]);
  const cells = (tag: string, texts: string[]): string =>
    `<tr>${texts.map((text) => `<${tag}>${escape(text)}</${tag}>`).join('')}</tr>`;
  return `<table>${cells('th', [...labels, 'for'])}${rows.map((row) => cells('td', row)).join('')}</table>`;
}

function chart({ unit }: Panel, answers: (Answer & { name: string })[], width: number): string {
  const height = 172;
  const left = 52;
  const points = answers.map(({ values = [] }) =>
    values
      .map(([at, text]) => ({ at, value: Number(text) }))
      .filter(({ value }) => Number.isFinite(value)),
  );
  const all = points.flat();
  const first = Math.min(...all.map(({ at }) => at));
  const last = Math.max(...all.map(({ at }) => at));
  const top = Math.max(...all.map(({ value }) => value), 0) * 1.1 || 1;
  const x = (at: number): number =>
    left + ((at - first) / (last - first || 1)) * (width - left - 4);
  const y = (value: number): number => height - 20 - (value / top) * (height - 32);
  const grid = [0, 0.25, 0.5, 0.75, 1].map((part) => {
    const at = y(top * part);
    return `<line x1="${left}" x2="${width}" y1="${at}" y2="${at}" stroke="#26292f"/><text x="${left - 6}" y="${at + 4}" text-anchor="end">${inUnit(top * part, unit)}</text>`;
  });
  const hours = Array.from({ length: HOURS + 1 }, (_, index) => {
    const at = first + ((last - first) * index) / HOURS;
    const anchor = index === HOURS ? 'end' : 'middle';
    return `<text x="${x(at)}" y="${height - 4}" text-anchor="${anchor}">${index === HOURS ? 'now' : `-${HOURS - index} h`}</text>`;
  });
  const lines = points.map((line, index) => {
    const vertices = line.map(({ at, value }) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    return `<polyline points="${vertices.join(' ')}" fill="none" stroke="${colors[index % colors.length]}" stroke-width="1.6"/>`;
  });
  const legend = answers.map(
    ({ name }, index) =>
      `<span><i style="background:${colors[index % colors.length]}"></i>${escape(name)}</span>`,
  );
  return `<svg width="${width}" height="${height}">${grid.join('')}${hours.join('')}${lines.join('')}</svg><div class="legend">${legend.join('')}</div>`;
}

function inUnit(value: number, unit: Panel['unit']): string {
  if (Number.isNaN(value)) return 'no data';
  const round = (number: number): string => String(Number(number.toPrecision(3)));
  switch (unit) {
    case 's': {
      const steps = [
        [86_400, 'd'],
        [3600, 'h'],
        [60, 'min'],
        [1, 's'],
      ] as const;
      const [size, name] = steps.find(([from]) => value >= from) ?? [0.001, 'ms'];
      return value === 0 ? '0' : `${round(value / size)} ${name}`;
    }
    case 'bytes':
      return `${Math.round(value / 2 ** 20)} MiB`;
    case 'percentunit':
      return `${round(value * 100)} %`;
    case 'reqps':
      return `${round(value)}/s`;
    case undefined:
      return round(value);
    default:
      return unit satisfies never;
  }
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}

async function photograph(html: string, file: string): Promise<void> {
  const browser = await startBrowser();
  try {
    const page = await browser.newPage({ viewport: { width: 24 * UNIT.width + 24, height: 900 } });
    await page.setContent(html);
    await mkdir(path.dirname(file), { recursive: true });
    await page.screenshot({ path: file, fullPage: true });
  } finally {
    await browser.close();
  }
}

const folder = await mkdtemp(path.join(os.tmpdir(), 'automation-guardrails-picture-'));
const { prometheus, promtool } = await findPrometheus(console.log);
// A moment that is always the same makes a picture that is.
const end = Date.UTC(2026, 0, 30, 12) / 1000;
const data = path.join(folder, 'data');
const samples = path.join(folder, 'samples.txt');
await writeFile(samples, openMetrics(end));
const nowhere = { kubeconfigPath: path.join(folder, 'none') };
const filled = await runProgram(promtool, nowhere, [
  'tsdb',
  'create-blocks-from',
  'openmetrics',
  samples,
  data,
]);
if (filled.code !== 0) throw new Error(filled.output);
const config = path.join(folder, 'prometheus.yaml');
await writeFile(config, '{}');
const url = `127.0.0.1:${await freePort()}`;
const server = new SupervisedProcess({
  name: 'prometheus',
  program: prometheus,
  args: [
    `--config.file=${config}`,
    `--storage.tsdb.path=${data}`,
    '--storage.tsdb.retention.time=100y',
    `--web.listen-address=${url}`,
  ],
  cwd: folder,
  env: process.env,
  logPath: path.join(folder, 'prometheus.log'),
});
try {
  await waitFor('Prometheus', async () => (await fetch(`http://${url}/-/ready`)).ok, {
    timeoutMs: 60_000,
  });
  const html = await draw(async (at, parameters) => {
    const response = await fetch(
      `http://${url}/api/v1/${at}?${new URLSearchParams(parameters).toString()}`,
    );
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- Prometheus' own format
    const body = (await response.json()) as { data?: { result: Answer[] }; error?: string };
    if (body.data === undefined) throw new Error(`${parameters['query']}: ${body.error}`);
    return body.data.result;
  }, end);
  await photograph(html, path.join(root, 'docs/images/dashboard.png'));
} finally {
  await server.stop('SIGTERM', 5000);
  await rm(folder, { recursive: true, force: true });
}
