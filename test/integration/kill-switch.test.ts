import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  startControlPlane,
  type ControlPlane,
  type KubectlOptions,
} from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitForPods,
  waitUntilGone,
} from '../operator/cluster.ts';
import { endStateOf } from '../operator/end-state.ts';
import {
  startOperator,
  startReplicas,
  type OperatorProcess,
} from '../operator/operator-process.ts';

let controlPlane: ControlPlane;
let kubeconfigPath: string;
/** Two replicas, as installed: every test runs against both. */
let operators: OperatorProcess[] = [];

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  kubeconfigPath = await installGuardrails(controlPlane);
  operators = await startReplicas({ kubeconfigPath });
});

afterAll(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  await controlPlane?.stop();
});

async function provision(namespace: string): Promise<void> {
  await controlPlane.apply(automation({ namespace }));
  await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
  await podsRun(namespace, automationPods);
}

const podsRun = (namespace: string, count: number): Promise<void> =>
  waitForPods(controlPlane, namespace, count);

const annotate = (kind: string, namespace: string, value: string): Promise<string> =>
  kubectlOk(controlPlane, ['annotate', kind, 'invoice', `-n=${namespace}`, value]);

/** Refused until the API server's own watch has seen that nothing engages any more. */
async function release(
  namespace: string,
  name = 'invoice',
  { marks = ['release=fixed'], who = bob }: { marks?: string[]; who?: KubectlOptions } = {},
): Promise<void> {
  const asked = marks.map((mark) => `automationguardrails.dev/${mark}`);
  await waitFor('the release to be accepted', async () => {
    const args = ['annotate', 'ksw', name, `-n=${namespace}`, ...asked];
    return (await controlPlane.kubectl(args, who)).code === 0;
  });
}

function withoutSecrets(state: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(state).filter(([key]) => !key.startsWith('Secret/')));
}

async function stopped(namespace: string): Promise<void> {
  await waitForCondition(controlPlane, { kind: 'ksw', name: 'invoice', namespace }, 'Ready');
}

const released = (namespace: string, name = 'invoice'): Promise<void> =>
  waitUntilGone(controlPlane, { kind: 'ksw', name, namespace });

describe('a kill by annotation', () => {
  const namespace = 'by-annotation';

  it('stops every kind, survives the removal of the annotation, and comes back exactly', async () => {
    await provision(namespace);
    const before = await endStateOf(controlPlane, namespace);

    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch=runaway');
    await stopped(namespace);
    const killSwitch = await getObject<{ spec: object }>(controlPlane, 'ksw', 'invoice', namespace);
    expect(killSwitch?.spec).toEqual({
      workflow: 'invoice',
      reason: 'runaway',
      engagedBy: 'admin',
    });
    expect(await listObjects(controlPlane, 'pods', namespace)).toEqual([]);
    const during = (await endStateOf(controlPlane, namespace)) as Record<
      string,
      {
        spec: {
          replicas?: number;
          suspend?: boolean;
          template?: { spec: { nodeSelector?: Record<string, string> } };
        };
      }
    >;
    expect(during['Deployment/invoice-poster']?.spec.replicas).toBe(0);
    expect(during['StatefulSet/invoice-store']?.spec.replicas).toBe(0);
    expect(during['ReplicaSet/invoice-worker']?.spec.replicas).toBe(0);
    expect(during['DaemonSet/invoice-agent']?.spec.template?.spec.nodeSelector).toEqual({
      'automationguardrails.dev/stopped': 'true',
    });
    expect(during['CronJob/invoice-import']?.spec.suspend).toBe(true);
    expect(during['Job/invoice-backfill']?.spec.suspend).toBe(true);

    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch-');
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Stopped');
    expect(await listObjects(controlPlane, 'pods', namespace)).toEqual([]);

    await release(namespace);
    await released(namespace);
    await podsRun(namespace, automationPods);
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
    // Its credentials were withdrawn, and have new values.
    await waitFor('all to be as before', async () => {
      expect(withoutSecrets(await endStateOf(controlPlane, namespace))).toEqual(
        withoutSecrets(before),
      );
      return true;
    });
  });

  it('did not count the pods of the Job as failures', async () => {
    const status = await waitFor('the Job to be active', async () => {
      const job = await getObject<{ status: { failed?: number; active?: number } }>(
        controlPlane,
        'job',
        'invoice-backfill',
        namespace,
      );
      return job?.status.active === 1 ? job.status : undefined;
    });
    expect(status.failed ?? 0).toBe(0);
  });
});

describe('a kill by KillSwitch', () => {
  const namespace = 'by-object';
  const manifest = {
    apiVersion: 'automationguardrails.dev/v1alpha1',
    kind: 'KillSwitch',
    metadata: { name: 'invoice', namespace },
    spec: { workflow: 'invoice', reason: 'runaway' },
  };

  it('is stamped with the authenticated user, whatever was written', async () => {
    await provision(namespace);
    await kubectlOk(controlPlane, ['create', '-f', '-'], {
      input: JSON.stringify(manifest),
      as: 'alice',
      asGroups: ['system:masters'],
    });
    await stopped(namespace);
    const killSwitch = await getObject<{ spec: { engagedBy: string } }>(
      controlPlane,
      'ksw',
      'invoice',
      namespace,
    );
    expect(killSwitch?.spec.engagedBy).toBe('alice');
  });

  it('is released by nobody who engaged it, and by no ServiceAccount', async () => {
    for (const as of ['alice', 'system:serviceaccount:by-object:ci']) {
      const { code, stderr } = await controlPlane.kubectl(
        ['annotate', 'ksw', 'invoice', `-n=${namespace}`, 'automationguardrails.dev/release=fixed'],
        { as, asGroups: ['system:masters'] },
      );
      expect(code, stderr).not.toBe(0);
    }
    const { code } = await controlPlane.kubectl(['delete', 'ksw', 'invoice', `-n=${namespace}`]);
    expect(code).not.toBe(0);
  });

  it('runs what the pipeline asked for meanwhile, and leaves the field with the pipeline', async () => {
    const [deployment] = automation({ namespace }).filter(
      (object) => (object as { kind: string }).kind === 'Deployment',
    ) as { spec: { replicas: number } }[];
    deployment!.spec.replicas = 5;
    await controlPlane.apply([deployment!]);
    const stored = await getObject<{ spec: { replicas: number } }>(
      controlPlane,
      'deployment',
      'invoice-poster',
      namespace,
    );
    expect(stored?.spec.replicas).toBe(0);

    await release(namespace);
    await released(namespace);
    await podsRun(namespace, automationPods + 2);
    deployment!.spec.replicas = 2;
    const { code, stderr } = await controlPlane.kubectl(['apply', '--server-side', '-f', '-'], {
      input: JSON.stringify(deployment),
    });
    expect(code, stderr).toBe(0);
  });
});

describe('a StatefulSet that deletes its volumes when scaled', () => {
  it('is stopped by its pods alone, and keeps its count', async () => {
    const namespace = 'keeps-volumes';
    const manifests = automation({ namespace }) as {
      kind: string;
      spec: Record<string, unknown>;
    }[];
    for (const manifest of manifests) {
      if (manifest.kind !== 'StatefulSet') continue;
      manifest.spec['persistentVolumeClaimRetentionPolicy'] = {
        whenScaled: 'Delete',
        whenDeleted: 'Retain',
      };
    }
    await controlPlane.apply(manifests);
    await podsRun(namespace, automationPods);
    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch=runaway');
    await stopped(namespace);
    expect(await listObjects(controlPlane, 'pods', namespace)).toEqual([]);
    const set = await getObject<{ spec: { replicas: number } }>(
      controlPlane,
      'statefulset',
      'invoice-store',
      namespace,
    );
    expect(set?.spec.replicas).toBe(2);
  });
});

describe('a kill while an operator is killed', () => {
  it('is completed by the other replica, and by a new one', async () => {
    const namespace = 'one-dies';
    await provision(namespace);
    const [first] = operators;
    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch=runaway');
    first?.kill();
    await first?.exited;
    await stopped(namespace);
    operators[0] = await startOperator({ kubeconfigPath });
    expect(await listObjects(controlPlane, 'pods', namespace)).toEqual([]);
  });
});

describe('engaging again during a release', () => {
  it('cancels the release', async () => {
    const namespace = 'engaged-again';
    await provision(namespace);
    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch=runaway');
    await stopped(namespace);
    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch-');
    await release(namespace);
    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch=again');
    await waitFor(
      'the kill to stand again',
      async () => {
        const killSwitch = await getObject<{
          metadata: { annotations?: Record<string, string>; labels?: Record<string, string> };
          status?: { conditions?: { type: string; status: string }[] };
        }>(controlPlane, 'ksw', 'invoice', namespace);
        const isReady = killSwitch?.status?.conditions?.some(
          ({ type, status }) => type === 'Ready' && status === 'True',
        );
        return (
          isReady === true &&
          killSwitch?.metadata.annotations?.['automationguardrails.dev/release'] === undefined &&
          killSwitch?.metadata.labels?.['automationguardrails.dev/releasing'] === undefined
        );
      },
      { timeoutMs: 120_000 },
    );
    await podsRun(namespace, 0);
  });
});

describe('a kill by the annotation on an AutomationIdentity', () => {
  it('is latched under the name of the Workflow, and released by breaking the glass', async () => {
    const namespace = 'by-identity';
    await provision(namespace);
    await annotate('aid', namespace, 'automationguardrails.dev/kill-switch=runaway');
    await stopped(namespace);
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Stopped');
    await podsRun(namespace, 0);
    await waitFor('the annotation to be latched', async () => {
      const { code } = await controlPlane.kubectl([
        'annotate',
        'aid',
        'invoice',
        `-n=${namespace}`,
        'automationguardrails.dev/kill-switch-',
      ]);
      return code === 0;
    });
    await release(namespace, 'invoice', {
      marks: ['release=nobody else is here', 'break-glass=nobody else is here'],
      who: {},
    });
    await released(namespace);
    await podsRun(namespace, automationPods);
    await waitFor('the event of the broken glass', async () => {
      const events = await kubectlOk(controlPlane, [
        'get',
        'events.events.k8s.io',
        `-n=${namespace}`,
        '-o=jsonpath={.items[?(@.reason=="BreakGlass")].note}',
      ]);
      return events.includes('admin broke the glass: nobody else is here');
    });
  });
});

describe('a kill of a whole namespace', () => {
  const namespace = 'whole';
  const annotateNamespace = (value: string): Promise<string> =>
    kubectlOk(controlPlane, ['annotate', 'namespace', namespace, value]);

  it('stops what runs in it as whatever account', async () => {
    await provision(namespace);
    const web = { app: 'web' };
    await controlPlane.apply([
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'web', namespace },
        spec: {
          replicas: 2,
          selector: { matchLabels: web },
          template: {
            metadata: { labels: web },
            spec: { containers: [{ name: 'main', image: 'registry.example/web:1' }] },
          },
        },
      },
    ]);
    await podsRun(namespace, automationPods + 2);
    await annotateNamespace('automationguardrails.dev/kill-switch=everything pays twice');
    const whole = { kind: 'ksw', name: 'namespace', namespace };
    await waitForCondition(controlPlane, whole, 'Ready');
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Stopped');
    await podsRun(namespace, 0);
  });

  it('gives back what no other kill covers', async () => {
    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch=runaway');
    await stopped(namespace);
    await waitFor('the annotation to be latched', async () => {
      const { code } = await controlPlane.kubectl([
        'annotate',
        'namespace',
        namespace,
        'automationguardrails.dev/kill-switch-',
      ]);
      return code === 0;
    });
    await release(namespace, 'namespace');
    await released(namespace, 'namespace');
    await podsRun(namespace, 2);
    await waitForCondition(controlPlane, { kind: 'ksw', name: 'invoice', namespace }, 'Ready');

    await annotate('awf', namespace, 'automationguardrails.dev/kill-switch-');
    await release(namespace);
    await released(namespace);
    await podsRun(namespace, automationPods + 2);
    await waitForCondition(controlPlane, { kind: 'awf', name: 'invoice', namespace }, 'Ready');
  });
});
