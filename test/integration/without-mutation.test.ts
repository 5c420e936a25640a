/** Kubernetes 1.35 serves no MutatingAdmissionPolicy: the same guarantees by denial. */
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { findHelm, runHelm } from '../install/helm.ts';
import { kubectlOk } from '../operator/cluster.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const chart = path.join(root, 'charts/automation-guardrails');
const folder = path.join(root, 'config/without-mutation');

let controlPlane: ControlPlane;
let helm: string;

beforeAll(async () => {
  [controlPlane, helm] = await Promise.all([
    startControlPlane({ version: '1.35', controllerManagerQps: 500 }),
    findHelm((line) => console.log(line)),
  ]);
}, 600_000);

afterAll(async () => {
  await controlPlane?.stop();
});

async function policies(): Promise<string[]> {
  const kinds = 'validatingadmissionpolicies,validatingadmissionpolicybindings';
  const text = await kubectlOk(controlPlane, ['get', kinds, '-o=name']);
  return text.split('\n').filter((name) => name.includes('automation-guardrails-'));
}

describe('installing where mutation is not served', () => {
  it('is Kubernetes 1.35, without MutatingAdmissionPolicy', async () => {
    const version = await kubectlOk(controlPlane, ['version', '-o=json']);
    expect(version).toContain('"gitVersion": "v1.35.4"');
    const served = await kubectlOk(controlPlane, [
      'get',
      '--raw=/apis/admissionregistration.k8s.io/v1',
    ]);
    expect(served).toContain('ValidatingAdmissionPolicy');
    expect(served).not.toContain('MutatingAdmissionPolicy');
  });

  it('works with the kustomization of its own', async () => {
    await waitFor(
      'the apply',
      async () =>
        (await controlPlane.kubectl(['apply', '--server-side', `-k=${folder}`])).code === 0,
      { timeoutMs: 60_000 },
    );
    const installed = await policies();
    expect(installed.length).toBeGreaterThan(20);
    await kubectlOk(controlPlane, ['delete', `-k=${folder}`, '--wait=false']);
    await waitFor('everything to be gone', async () => {
      const { code } = await controlPlane.kubectl(['get', 'namespace', 'automation-guardrails']);
      return code !== 0 && (await policies()).length === 0;
    });
  });

  it('works with the chart, which asks the API server', async () => {
    const flags = ['--namespace=guardrails', '--create-namespace'];
    const { code, output } = await runHelm(helm, controlPlane, ['install', 'ag', chart, ...flags]);
    expect(code, output).toBe(0);
    expect((await policies()).length).toBeGreaterThan(20);
  });

  it.each([
    ['always', true],
    ['never', false],
  ])('goes by the value admission.mutation=%s', async (value, expected) => {
    const set = `--set=admission.mutation=${value}`;
    const { code, output } = await runHelm(helm, controlPlane, ['template', 'ag', chart, set]);
    expect(code, output).toBe(0);
    expect(output.includes('kind: MutatingAdmissionPolicy')).toBe(expected);
    expect(output).toContain('kind: ValidatingAdmissionPolicy');
  });

  it('refuses another value of admission.mutation', async () => {
    const set = '--set=admission.mutation=perhaps';
    const { code, output } = await runHelm(helm, controlPlane, ['template', 'ag', chart, set]);
    expect(code).not.toBe(0);
    expect(output).toContain('auto, always or never');
  });
});
