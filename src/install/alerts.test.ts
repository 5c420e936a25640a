import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { metricsReference } from '../observability/metrics.ts';
import { alertGroups, ruleGroups } from './alerts.ts';
import { dashboard, dashboardRows } from './dashboard.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const rules = alertGroups.flatMap((group) => group.rules);
const panels = dashboardRows.flatMap((row) => row.panels);

function expectMetrics(expr: string): void {
  // What a rule records has colons in its name, and rests on metrics itself.
  const names = expr.match(/[\w:]*automation_guardrails_[\w:]+/g) ?? [];
  expect(names.length).toBeGreaterThan(0);
  const metrics = names.filter((name) => !name.includes(':'));
  for (const metric of metrics) {
    // A histogram is served under three names.
    const name = metric.replace(/_(bucket|sum|count)$/, '');
    expect(metricsReference()).toContain(`## ${name}\n`);
  }
}

describe('the alerts', () => {
  it.each(rules)('speak of metrics that there are: $alert', ({ expr }) => expectMetrics(expr));

  it('rest on what is recorded before it is read', () => {
    const recorded = new Set<string>();
    for (const rule of ruleGroups.flatMap((group) => group.rules)) {
      for (const [name] of rule.expr.matchAll(/automation:automation_guardrails_[\w:]+/g)) {
        expect(recorded).toContain(name);
      }
      if ('record' in rule) recorded.add(rule.record);
    }
    expect(recorded.size).toBeGreaterThan(5);
  });

  it.each(rules)(
    'lead to a runbook that speaks of them: $alert',
    async ({ alert, annotations }) => {
      const runbook = await readFile(path.join(root, annotations.runbook), 'utf8');
      expect(runbook).toContain(`\`${alert}\``);
      // How to go back, whatever it was.
      expect(runbook).toMatch(/^## (Undo|Release it)$/m);
    },
  );

  it('have a name each', () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  });
});

describe('the dashboard', () => {
  it.each(panels)('speaks of metrics that there are: $title', ({ queries }) => {
    for (const { expr } of queries) expectMetrics(expr);
  });

  it('shows everything, and nothing above another', () => {
    const { panels: placed } = dashboard() as {
      panels: {
        id: number;
        type: string;
        gridPos: { x: number; y: number; w: number; h: number };
      }[];
    };
    expect(placed.filter(({ type }) => type !== 'row')).toHaveLength(panels.length);
    expect(new Set(placed.map(({ id }) => id)).size).toBe(placed.length);
    const cells = placed.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, cell) => `${x + (cell % w)},${y + Math.floor(cell / w)}`),
    );
    expect(new Set(cells).size).toBe(cells.length);
    expect(placed.every(({ gridPos: { x, w } }) => x + w <= 24)).toBe(true);
  });
});
