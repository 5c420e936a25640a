/** An operator that acts in listed namespaces alone, with its rights in those. */
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Condition } from '../../src/api/objects.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation } from '../operator/automation.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitUntilGone,
} from '../operator/cluster.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const root = path.dirname(path.dirname(import.meta.dirname));
const overlay = path.join(root, 'config/overlays/namespaced');
const account = 'system:serviceaccount:automation-guardrails:automation-guardrails';

let controlPlane: ControlPlane;
let operator: OperatorProcess;

/** Of a namespace in which people deploy, too. */
const legacy = (namespace: string): object[] => [
  {
    apiVersion: 'v1',
    kind: 'ServiceAccount',
    metadata: { name: 'legacy', namespace },
    automountServiceAccountToken: false,
  },
  {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'legacy', namespace },
    spec: {
      replicas: 1,
      selector: { matchLabels: { app: 'legacy' } },
      template: {
        metadata: {
          labels: { app: 'legacy', 'automationguardrails.dev/identity': 'legacy' },
        },
        spec: {
          serviceAccountName: 'legacy',
          containers: [{ name: 'main', image: 'registry.example/legacy:1' }],
        },
      },
    },
  },
];

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  await kubectlOk(controlPlane, ['create', 'namespace', 'finance']);
  await kubectlOk(controlPlane, ['apply', '--server-side', '-k', overlay]);
  // As whoever narrows an installation that acts everywhere.
  for (const [kind, ...names] of [
    ['clusterrolebinding', 'automation-guardrails-operator', 'automation-guardrails-grantable'],
    ['clusterrole', 'automation-guardrails-operator'],
  ] as const) {
    await kubectlOk(controlPlane, ['delete', kind, ...names]);
  }
  operator = await startOperator({ kubeconfigPath, args: ['--namespaces=finance'] });
}, 600_000);

afterAll(async () => {
  await operator?.stop();
  await controlPlane?.stop();
});

const kill = (namespace: string, workflow: string): object => ({
  apiVersion: 'automationguardrails.dev/v1alpha1',
  kind: 'KillSwitch',
  metadata: { name: workflow, namespace },
  spec: { workflow, reason: 'runaway' },
});

const release = (what: string): Promise<string> =>
  kubectlOk(
    controlPlane,
    ['annotate', ...what.split(' '), 'automationguardrails.dev/release=fixed'],
    bob,
  );

const replicasOf = async (name: string, namespace: string): Promise<number | undefined> =>
  (await getObject<{ spec: { replicas?: number } }>(controlPlane, 'deployment', name, namespace))
    ?.spec.replicas;

describe('in a listed namespace', () => {
  const workflow = { kind: 'awf', name: 'invoice', namespace: 'finance' };

  it('everything is granted, stopped and put back', async () => {
    await controlPlane.apply(automation({ namespace: 'finance' }));
    await waitForCondition(controlPlane, workflow, 'Ready');
    await controlPlane.apply([kill('finance', 'invoice')]);
    const killSwitch = { ...workflow, kind: 'ksw' };
    await waitForCondition(controlPlane, killSwitch, 'Effective');
    expect(await replicasOf('invoice-poster', 'finance')).toBe(0);
    await release('ksw/invoice -n=finance');
    await waitUntilGone(controlPlane, killSwitch);
    expect(await replicasOf('invoice-poster', 'finance')).toBe(3);
    await waitForCondition(controlPlane, workflow, 'Ready');
  });
});

describe('in another namespace that is guarded', () => {
  const namespace = 'sales';

  it('what asks for something is held for that, and nothing is granted', async () => {
    await controlPlane.apply([...automation({ namespace }), ...legacy(namespace)]);
    for (const kind of ['awf', 'aid']) {
      const held = await waitFor(`${kind} to be held for its namespace`, async () => {
        const found = await waitForCondition(
          controlPlane,
          { kind, name: 'invoice', namespace },
          'Held',
        );
        return found.reason === 'NamespaceNotCovered' && found;
      });
      expect(held.message).toContain('sales is none of them');
    }
    expect(await getObject(controlPlane, 'serviceaccount', 'invoice', namespace)).toBeUndefined();
    expect(await listObjects(controlPlane, 'networkpolicies', namespace)).toEqual([]);
  });

  it('a kill is fenced by admission, and says that nobody stops what runs', async () => {
    const untilRunning = async (): Promise<boolean> => {
      const pods = await listObjects<{ metadata: { labels?: object } }>(
        controlPlane,
        'pods',
        namespace,
      );
      return pods.some(({ metadata }) => JSON.stringify(metadata.labels).includes('legacy'));
    };
    await waitFor('its pod', untilRunning);
    await controlPlane.apply([kill(namespace, 'legacy')]);
    const killSwitch = { kind: 'ksw', name: 'legacy', namespace };
    await waitForCondition(controlPlane, killSwitch, 'Fenced');
    const ready = await waitForCondition(controlPlane, killSwitch, 'Ready', 'False');
    expect(ready.reason).toBe('NamespaceNotCovered');
    const pod = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'try', namespace },
      spec: { serviceAccountName: 'legacy', containers: [{ name: 'main', image: 'x' }] },
    });
    const tried = await controlPlane.kubectl(['create', '--dry-run=server', '-f', '-'], {
      input: pod,
    });
    expect(tried.stderr).toContain('kill switch: runaway');
    expect(await replicasOf('legacy', namespace)).toBe(1);
    expect(await untilRunning()).toBe(true);
  });

  it('a ClusterKillSwitch over both stops the listed one, and does not pass for complete', async () => {
    await controlPlane.apply([
      {
        apiVersion: 'automationguardrails.dev/v1alpha1',
        kind: 'ClusterKillSwitch',
        metadata: { name: 'tests' },
        spec: { environments: ['test'], reason: 'incident' },
      },
    ]);
    const inFinance = { kind: 'ksw', name: 'namespace', namespace: 'finance' };
    await waitForCondition(controlPlane, inFinance, 'Ready');
    const ready = await waitFor(
      'the ClusterKillSwitch to have seen that',
      async () => {
        const text = await kubectlOk(controlPlane, ['get', 'cksw', 'tests', '-o=json']);
        const { status } = JSON.parse(text) as { status?: { conditions?: Condition[] } };
        return status?.conditions?.find(
          ({ type, message }) => type === 'Ready' && message.includes('in 1 of 2'),
        );
      },
      { timeoutMs: 120_000 },
    );
    expect(ready.status).toBe('False');
    expect(ready.message).toContain("doesn't act in sales");
    expect(await getObject(controlPlane, 'ksw', 'namespace', namespace)).toBeUndefined();
    await release('cksw/tests');
    await waitUntilGone(controlPlane, inFinance);
    await waitFor(
      'the ClusterKillSwitch to be gone',
      async () => (await controlPlane.kubectl(['get', 'cksw', 'tests'])).code !== 0,
      { timeoutMs: 120_000 },
    );
  });
});

describe('the rights of such an operator', () => {
  it.each([
    ['get', 'secrets', true],
    ['create', 'secrets', true],
    ['create', 'serviceaccounts/token', true],
    ['patch', 'deployments.apps', true],
    ['delete', 'pods', true],
    ['patch', 'namespaces', true],
    ['create', 'killswitches.automationguardrails.dev', true],
    // What it reads, it reads everywhere.
    ['list', 'secrets', false],
  ])('%s %s: in the listed namespace alone', async (verb, resource, isAllowed) => {
    const ask = async (namespace: string): Promise<string> => {
      const asked = ['auth', 'can-i', verb, resource, `-n=${namespace}`, `--as=${account}`];
      return (await controlPlane.kubectl(asked)).stdout.trim();
    };
    expect(await ask('finance')).toBe(isAllowed ? 'yes' : 'no');
    expect(await ask('sales')).toBe('no');
    expect(await ask('kube-system')).toBe('no');
  });

  it('let it write in its own namespace what is its own alone, its token stolen or not', async () => {
    const own = { namespace: 'automation-guardrails' };
    const tryTo = (object: object): ReturnType<ControlPlane['kubectl']> =>
      controlPlane.kubectl(['create', '--dry-run=server', '-f', '-', `--as=${account}`], {
        input: JSON.stringify({ apiVersion: 'v1', ...object }),
      });
    const labels = { 'automationguardrails.dev/copies': 'recorded' };
    const record = await tryTo({
      kind: 'ConfigMap',
      metadata: { ...own, name: 'vault-copies-1', labels },
    });
    expect(record.stderr).toBe('');
    const token = await tryTo({
      kind: 'Secret',
      type: 'kubernetes.io/service-account-token',
      metadata: {
        ...own,
        name: 'token',
        annotations: { 'kubernetes.io/service-account.name': 'default' },
      },
    });
    expect(token.stderr).toContain('the operator writes Secrets of the type Opaque');
  });

  it('are enough for all that it tried', () => {
    const refused = operator.logs.filter((line) => /forbidden|"status":403/i.test(line));
    expect(refused).toEqual([]);
  });
});
