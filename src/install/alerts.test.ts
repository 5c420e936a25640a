import { access } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { metricsReference } from '../observability/metrics.ts';
import { alertGroups } from './alerts.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const rules = alertGroups.flatMap((group) => group.rules);

describe('the alerts', () => {
  it.each(rules)('speak of metrics that there are: $alert', ({ expr }) => {
    const metrics = expr.match(/automation_guardrails_\w+/g) ?? [];
    expect(metrics.length).toBeGreaterThan(0);
    for (const metric of metrics) expect(metricsReference()).toContain(`## ${metric}\n`);
  });

  it.each(rules)('lead to a runbook: $alert', async ({ annotations }) => {
    await access(path.join(root, annotations.runbook));
  });

  it('have a name each', () => {
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  });
});
