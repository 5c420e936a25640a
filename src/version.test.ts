import { readFileSync } from 'node:fs';
import { load } from 'js-yaml';
import { expect, it } from 'vitest';
import { version } from './version.ts';

function read(file: string): string {
  return readFileSync(new URL(`../${file}`, import.meta.url), 'utf8');
}

it('is the version of the package, of the chart and of its image', () => {
  const chart = load(read('charts/automation-guardrails/Chart.yaml')) as Record<string, string>;
  expect(JSON.parse(read('package.json'))).toMatchObject({ version });
  expect(chart).toMatchObject({ version, appVersion: version });
  expect(read('config/operator/deployment.yaml')).toContain(`automation-guardrails:${version}\n`);
});
