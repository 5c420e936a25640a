import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { dump } from 'js-yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { annotation, label } from '../../src/api/names.ts';
import type { KubeObject } from '../../src/api/objects.ts';
import {
  startControlPlane,
  type ControlPlane,
  type KubectlResult,
} from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import { findHelm, runProgram } from '../install/helm.ts';
import { automation, automationPods } from '../operator/automation.ts';
import {
  getObject,
  installGuardrails,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';
import { Incident } from '../operator/incident.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';
import { Witness, type Pod } from '../operator/witness.ts';
import { Api } from './admission/api.ts';

interface Workload extends KubeObject {
  kind: string;
  spec: {
    replicas?: number;
    suspend?: boolean;
    targets?: object[];
    template?: { spec: { containers: { image: string }[] } };
  };
}

const name = 'invoice';
/** What a pipeline runs as where nobody wanted to think about its rights: a cluster-admin. */
const pipeline = 'system:serviceaccount:ci:pipeline';

let controlPlane: ControlPlane;
let helm: string;
let operators: OperatorProcess[] = [];
let admin: Api;
let incident: Incident;
let witness: Witness;

beforeAll(async () => {
  [controlPlane, helm] = await Promise.all([
    startControlPlane({ controllerManagerQps: 500 }),
    findHelm((line) => console.log(line)),
  ]);
  const kubeconfigPath = await installGuardrails(controlPlane);
  operators = [await startOperator({ kubeconfigPath }), await startOperator({ kubeconfigPath })];
  admin = Api.asAdmin(controlPlane);
  incident = await Incident.handledBy(controlPlane, admin);
  witness = await Witness.of(controlPlane, name);
  await controlPlane.apply([
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'pipeline' },
      roleRef: {
        apiGroup: 'rbac.authorization.k8s.io',
        kind: 'ClusterRole',
        name: 'cluster-admin',
      },
      subjects: [{ kind: 'ServiceAccount', name: 'pipeline', namespace: 'ci' }],
    },
  ]);
}, 600_000);

afterAll(async () => {
  await witness?.stop();
  await admin?.close();
  await Promise.all(operators.map((operator) => operator.stop()));
  await controlPlane?.stop();
});

/** As the pipeline. */
function git(args: readonly string[], manifests: readonly object[] = []): Promise<KubectlResult> {
  return controlPlane.kubectl(args, {
    as: pipeline,
    input: manifests.map((manifest) => dump(manifest)).join('---\n'),
  });
}

async function gitOk(args: readonly string[], manifests: readonly object[] = []): Promise<void> {
  const { code, stderr } = await git(args, manifests);
  expect(code, stderr).toBe(0);
}

const apply = ['apply', '--server-side', '--field-manager=pipeline', '-f', '-'] as const;

/** What the pipeline wants: the automation, with other numbers. */
function desired(
  namespace: string,
  { deployment, statefulSet }: { deployment: number; statefulSet: number },
  image = 'registry.example/automation:2',
): Workload[] {
  const manifests = automation({ namespace, name }) as Workload[];
  for (const { kind, spec } of manifests) {
    if (kind === 'Deployment') spec.replicas = deployment;
    if (kind === 'StatefulSet') spec.replicas = statefulSet;
    if (kind !== 'Deployment' && kind !== 'StatefulSet') continue;
    for (const container of spec.template?.spec.containers ?? []) container.image = image;
  }
  return manifests;
}

const only = (manifests: Workload[], ...kinds: string[]): Workload[] =>
  manifests.filter(({ kind }) => kinds.includes(kind));

/** The pods beside those of Deployment and StatefulSet, which have 3 and 2 at first. */
const otherPods = automationPods - 5;

async function runs(namespace: string, count: number): Promise<void> {
  await waitFor(
    `${count} running pods in ${namespace}`,
    async () => {
      const pods = await listObjects<Pod>(controlPlane, 'pods', namespace);
      const are = pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
      return are.length === count && are.every(({ status }) => status?.phase === 'Running');
    },
    { timeoutMs: 120_000 },
  );
}

async function provision(namespace: string): Promise<void> {
  await gitOk(apply, automation({ namespace, name }));
  await waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'Ready');
  await runs(namespace, automationPods);
}

async function kill(namespace: string): Promise<void> {
  await incident.engage({ namespace, name });
  await incident.reached({ namespace, name }, 'Ready');
}

async function release(namespace: string): Promise<void> {
  await incident.askForRelease({ namespace, name });
  await incident.released({ namespace, name });
}

async function stored(kind: string, component: string, namespace: string): Promise<Workload> {
  const found = await getObject<Workload>(controlPlane, kind, `${name}-${component}`, namespace);
  if (found === undefined) throw new Error(`there is no ${kind} ${component} in ${namespace}`);
  return found;
}

async function everythingIsStopped(namespace: string): Promise<void> {
  expect(await witness.offenders(namespace)).toEqual([]);
  expect((await stored('deployment', 'poster', namespace)).spec.replicas).toBe(0);
  expect((await stored('statefulset', 'store', namespace)).spec.replicas).toBe(0);
  expect((await stored('cronjob', 'import', namespace)).spec.suspend).toBe(true);
}

async function imageOf(kind: string, component: string, namespace: string): Promise<string> {
  const { spec } = await stored(kind, component, namespace);
  return spec.template?.spec.containers[0]?.image ?? '';
}

describe('a kill, and a pipeline that applies by force', () => {
  const namespace = 'by-apply';

  it('keeps everything stopped, and takes in what the pipeline wants', async () => {
    await provision(namespace);
    await kill(namespace);
    const wanted = desired(namespace, { deployment: 5, statefulSet: 3 });
    for (let round = 0; round < 3; round++) {
      await gitOk([...apply, '--force-conflicts'], wanted);
      await everythingIsStopped(namespace);
    }
    expect(await imageOf('deployment', 'poster', namespace)).toBe('registry.example/automation:2');
  });

  it('runs that after the release', async () => {
    await release(namespace);
    expect(witness.createdWhileFenced(namespace)).toEqual([]);
    await runs(namespace, 5 + 3 + otherPods);
    expect((await stored('cronjob', 'import', namespace)).spec.suspend).not.toBe(true);
  });

  it('leaves the fields with the pipeline: its next apply, without force, meets no conflict', async () => {
    await gitOk(
      apply,
      only(
        desired(namespace, { deployment: 1, statefulSet: 4 }),
        'Deployment',
        'StatefulSet',
        'CronJob',
      ),
    );
    await runs(namespace, 1 + 4 + otherPods);
  });
});

describe('a kill, and a cluster-admin who replaces', () => {
  const namespace = 'by-replace';
  const wanted = only(
    desired(namespace, { deployment: 6, statefulSet: 1 }),
    'Deployment',
    'StatefulSet',
    'CronJob',
  );

  it('keeps the workloads stopped', async () => {
    await provision(namespace);
    await kill(namespace);
    await gitOk(['replace', '-f', '-'], wanted);
    await everythingIsStopped(namespace);
  });

  it('is not ended by a replace of the Workflow and the identity', async () => {
    const [workflow] = only(desired(namespace, { deployment: 6, statefulSet: 1 }), 'Workflow');
    if (workflow === undefined) throw new Error('no Workflow');
    await gitOk(
      ['replace', '-f', '-'],
      [
        {
          ...workflow,
          spec: {
            ...workflow.spec,
            targets: [{ group: 'apps', kind: 'Deployment', name: 'another' }],
          },
        },
        ...only(desired(namespace, { deployment: 6, statefulSet: 1 }), 'AutomationIdentity'),
      ],
    );
    await gitOk(['replace', '-f', '-'], wanted);
    await everythingIsStopped(namespace);
    await gitOk(['replace', '-f', '-'], [workflow]);
  });

  it('is not ended by a replace of the KillSwitch', async () => {
    const engaged = await getObject<KubeObject & { spec: object }>(
      controlPlane,
      'ksw',
      name,
      namespace,
    );
    if (engaged === undefined) throw new Error('no KillSwitch');
    const { metadata, spec } = engaged;
    const type = { apiVersion: 'automationguardrails.dev/v1alpha1', kind: 'KillSwitch' };
    const bare = { name, namespace };
    const forgeries: object[] = [
      { ...type, metadata: bare, spec: { ...spec, workflow: 'another' } },
      { ...type, metadata: { ...bare, labels: { [label.releasing]: 'true' } }, spec },
      { ...type, metadata: { ...bare, annotations: { [annotation.release]: 'by Git' } }, spec },
    ];
    for (const forgery of forgeries) {
      for (const force of [[], ['--force', '--grace-period=0']]) {
        const { code, stderr } = await git(['replace', ...force, '-f', '-'], [forgery]);
        expect(code, stderr).not.toBe(0);
      }
    }
    const after = await getObject<KubeObject>(controlPlane, 'ksw', name, namespace);
    expect(after?.metadata.uid).toBe(metadata.uid);
    await everythingIsStopped(namespace);
  });

  it('runs what was replaced last after the release', async () => {
    await release(namespace);
    expect(witness.createdWhileFenced(namespace)).toEqual([]);
    await runs(namespace, 6 + 1 + otherPods);
  });
});

describe('a kill, and a pipeline that deletes and creates', () => {
  const namespace = 'by-recreation';
  const wanted = desired(namespace, { deployment: 4, statefulSet: 3 });

  it('stops what was created anew: workloads, Workflow and identity', async () => {
    await provision(namespace);
    await kill(namespace);
    for (const kinds of [
      ['Deployment', 'StatefulSet', 'CronJob'],
      ['Workflow'],
      ['AutomationIdentity'],
    ]) {
      const manifests = only(wanted, ...kinds);
      await gitOk(['delete', '--wait', '--timeout=180s', '-f', '-'], manifests);
      await gitOk(['create', '-f', '-'], manifests);
      await everythingIsStopped(namespace);
    }
    await incident.reached({ namespace, name }, 'Ready');
    await everythingIsStopped(namespace);
  });

  it('keeps its namespace: neither deleted, nor unguarded by a new one of that name', async () => {
    const { code, stderr } = await git(['delete', 'namespace', namespace, '--wait=false']);
    expect(code).not.toBe(0);
    expect(stderr).toContain('kill switch');
    const unguarded = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } };
    expect((await git(['replace', '-f', '-'], [unguarded])).code).not.toBe(0);
    await everythingIsStopped(namespace);
  });

  it('runs what was created last after the release', async () => {
    await release(namespace);
    expect(witness.createdWhileFenced(namespace)).toEqual([]);
    await waitForCondition(controlPlane, { kind: 'awf', name, namespace }, 'Ready');
    await runs(namespace, 4 + 3 + otherPods);
  });
});

describe('a kill, and Helm', () => {
  const namespace = 'by-helm';
  const helmRelease = 'invoice';

  async function upgrade(values: Record<string, number | string>): Promise<void> {
    const chart = path.join(controlPlane.dataDir, 'chart');
    await writeChart(chart, namespace);
    const sets = Object.entries(values).map(([key, value]) => `--set=${key}=${value}`);
    const { code, output } = await runProgram(helm, controlPlane, [
      'upgrade',
      '--install',
      helmRelease,
      chart,
      `--namespace=${namespace}`,
      ...sets,
    ]);
    expect(code, output).toBe(0);
  }

  it('lets an upgrade through, and starts nothing of it', async () => {
    const without = automation({ namespace, name }) as Workload[];
    await gitOk(apply, only(without, 'Namespace', 'AutomationIdentity', 'Workflow'));
    await upgrade({ deployment: 3, statefulSet: 2, image: 1 });
    await runs(namespace, 5);
    await kill(namespace);
    await upgrade({ deployment: 5, statefulSet: 3, image: 2 });
    await everythingIsStopped(namespace);
    expect(await imageOf('deployment', 'poster', namespace)).toBe('registry.example/automation:2');
    const note = await getObject<{ data: { image: string } }>(
      controlPlane,
      'configmap',
      'note',
      namespace,
    );
    expect(note?.data.image).toBe('2');
  });

  it('runs that upgrade after the release', async () => {
    await release(namespace);
    expect(witness.createdWhileFenced(namespace)).toEqual([]);
    await runs(namespace, 5 + 3);
  });

  it('leaves the fields with Helm: the next upgrade with other numbers meets no conflict', async () => {
    await upgrade({ deployment: 2, statefulSet: 1, image: 2 });
    await runs(namespace, 2 + 1);
  });
});

/** The automation's workloads as a chart, and a ConfigMap that no kill touches. */
async function writeChart(folder: string, namespace: string): Promise<void> {
  await mkdir(path.join(folder, 'templates'), { recursive: true });
  await writeFile(
    path.join(folder, 'Chart.yaml'),
    dump({ apiVersion: 'v2', name: 'invoice', version: '1.0.0' }),
  );
  const image = 'registry.example/automation:IMAGE';
  const workloads = only(
    desired(namespace, { deployment: 1001, statefulSet: 1002 }, image),
    'Deployment',
    'StatefulSet',
    'CronJob',
  );
  const note = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'note', namespace },
    data: { image: 'NOTE' },
  };
  const text = [...workloads, note].map((manifest) => dump(manifest)).join('---\n');
  await writeFile(
    path.join(folder, 'templates', 'automation.yaml'),
    text
      .replace('replicas: 1001', 'replicas: {{ .Values.deployment }}')
      .replace('replicas: 1002', 'replicas: {{ .Values.statefulSet }}')
      .replaceAll('IMAGE', '{{ .Values.image }}')
      .replace('NOTE', '{{ .Values.image | quote }}'),
  );
}
