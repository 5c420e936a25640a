import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import {
  bob,
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
  waitForPods,
  waitUntilEstablished,
  waitUntilGone,
} from '../operator/cluster.ts';
import { foreignCrds, manifestOf, type ForeignCrd } from '../operator/foreign-crds.ts';
import { startOperator, type OperatorProcess } from '../operator/operator-process.ts';

const robots: ForeignCrd = {
  group: 'example.com',
  version: 'v1',
  kind: 'Robot',
  plural: 'robots',
  spec: { mode: { type: 'string' } },
  hasStatus: true,
};

const catalogue = `
- group: example.com
  version: v1
  kind: Robot
  plural: robots
  serviceAccountPath: spec.template.spec.serviceAccountName
  path: spec.mode
  pausedValue: "Off"
`;

const guardrails = 'automationguardrails.dev';

let controlPlane: ControlPlane;
let folder: string;
let operator: OperatorProcess;

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  const kubeconfigPath = await installGuardrails(controlPlane);
  folder = await mkdtemp(path.join(os.tmpdir(), 'catalogue-'));
  const file = path.join(folder, 'catalogue.yaml');
  await writeFile(file, catalogue);
  await controlPlane.apply([
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'catalogue' },
      rules: [
        { apiGroups: ['example.com'], resources: ['robots'], verbs: ['get', 'list', 'patch'] },
      ],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRoleBinding',
      metadata: { name: 'catalogue' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'catalogue' },
      subjects: [{ kind: 'ServiceAccount', name: guardrailsAccount, namespace: guardrailsAccount }],
    },
  ]);
  operator = await startOperator({ kubeconfigPath, args: [`--catalogue=${file}`] });
});

const guardrailsAccount = 'automation-guardrails';

afterAll(async () => {
  await operator?.stop();
  await controlPlane?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

interface Item {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace: string;
    uid?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
  spec: Record<string, unknown>;
  status?: Record<string, unknown>;
}

function template(app: string, serviceAccountName = 'invoice', restartPolicy = 'Always'): object {
  return {
    metadata: { labels: { app } },
    spec: {
      serviceAccountName,
      restartPolicy,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: 'main', image: 'registry.example/automation:1' }],
    },
  };
}

function selected(app: string, serviceAccountName = 'invoice'): object {
  return { selector: { matchLabels: { app } }, template: template(app, serviceAccountName) };
}

function item(
  apiVersion: string,
  kind: string,
  [namespace, name]: readonly [string, string],
  spec: object,
  metadata: object = {},
): Item {
  return {
    apiVersion,
    kind,
    metadata: { name, namespace, ...metadata },
    spec: spec as Record<string, unknown>,
  };
}

async function namespaceWith(namespace: string, objects: readonly object[]): Promise<void> {
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [`${guardrails}/environment`]: 'test' } },
    },
    ...['invoice', 'other'].map((name) => ({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name, namespace },
    })),
    ...objects,
  ]);
}

async function kill(namespace: string, name = 'invoice'): Promise<void> {
  const subject = name === 'namespace' ? { wholeNamespace: true } : { workflow: name };
  await kubectlOk(controlPlane, ['create', '-f', '-'], {
    input: JSON.stringify({
      apiVersion: `${guardrails}/v1alpha1`,
      kind: 'KillSwitch',
      metadata: { name, namespace },
      spec: { ...subject, reason: 'runaway' },
    }),
  });
  // Its ServiceAccount is no identity's, so the kill is never effective as a whole.
  for (const rung of ['Paused', 'PodsGone']) {
    await waitForCondition(controlPlane, { kind: 'ksw', name, namespace }, rung);
  }
}

async function release(namespace: string, name = 'invoice'): Promise<void> {
  await kubectlOk(
    controlPlane,
    ['annotate', 'ksw', name, `-n=${namespace}`, `${guardrails}/release=fixed`],
    bob,
  );
  await waitUntilGone(controlPlane, { kind: 'ksw', name, namespace });
}

const podsRun = (namespace: string, count: number): Promise<void> =>
  waitForPods(controlPlane, namespace, count);

/** Messages of the events with a reason. */
async function eventsOf(namespace: string, reason: string): Promise<string> {
  const events = await listObjects<{ reason: string; note: string }>(
    controlPlane,
    'events.events.k8s.io',
    namespace,
  );
  return events
    .filter((event) => event.reason === reason)
    .map(({ note }) => note)
    .join('\n');
}

async function applyAs(manager: string, objects: readonly object[]): Promise<string> {
  return kubectlOk(
    controlPlane,
    ['apply', '--server-side', `--field-manager=${manager}`, '-f', '-'],
    { input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }) },
  );
}

const typeOf = ({ apiVersion, kind }: Item): string => {
  const crd = [...foreignCrds, robots].find(
    (one) => one.kind === kind && `${one.group}/${one.version}` === apiVersion,
  );
  return crd === undefined ? kind.toLowerCase() : `${crd.plural}.${crd.group}`;
};

async function live(object: Item): Promise<Item> {
  const { name, namespace } = object.metadata;
  const found = await getObject<Item>(controlPlane, typeOf(object), name, namespace);
  if (found === undefined) throw new Error(`${object.kind} ${name} is gone`);
  return found;
}

/** Field managers of an object. */
async function managersOf(object: Item): Promise<string[]> {
  const { name, namespace } = object.metadata;
  const text = await kubectlOk(controlPlane, [
    'get',
    typeOf(object),
    name,
    `-n=${namespace}`,
    '--show-managed-fields',
    '-o=json',
  ]);
  const { metadata } = JSON.parse(text) as {
    metadata: { managedFields: { manager: string }[] };
  };
  return metadata.managedFields.map(({ manager }) => manager);
}

/** What its owner sees of it. */
async function substance(object: Item): Promise<unknown> {
  const { metadata, spec } = await live(object);
  const { annotations = {}, labels } = metadata;
  return { name: metadata.name, labels, annotations, spec };
}

describe('before any kind of another project is installed', () => {
  it('a kill and a release need none of them', async () => {
    const namespace = 'none-installed';
    const work = item('apps/v1', 'Deployment', [namespace, 'work'], {
      replicas: 1,
      ...selected('work'),
    });
    await namespaceWith(namespace, [work]);
    await podsRun(namespace, 1);
    await kill(namespace);
    await podsRun(namespace, 0);
    await release(namespace);
    await podsRun(namespace, 1);
    expect(await eventsOf(namespace, 'NotRestored')).toBe('');
  });
});

describe('kinds of other projects', () => {
  const namespace = 'foreign';
  const runsAs = (name: string): object => ({ template: template('x', name) });
  const keda = 'autoscaling.keda.sh/paused';

  /** Each that can be put back: as its owner writes it, and where its pause stands. */
  const restorable = (suffix: string, account: string): Item[] => [
    item('argoproj.io/v1alpha1', 'Rollout', [namespace, `rollout-${suffix}`], {
      replicas: 3,
      ...runsAs(account),
    }),
    item('argoproj.io/v1alpha1', 'Rollout', [namespace, `rollout-by-default-${suffix}`], {
      ...runsAs(account),
    }),
    item('argoproj.io/v1alpha1', 'CronWorkflow', [namespace, `cron-${suffix}`], {
      schedule: '0 3 * * *',
      workflowSpec: { serviceAccountName: account },
    }),
    item('keda.sh/v1alpha1', 'ScaledJob', [namespace, `jobs-${suffix}`], {
      jobTargetRef: runsAs(account),
    }),
    item('example.com/v1', 'Robot', [namespace, `robot-${suffix}`], {
      mode: 'Fast',
      ...runsAs(account),
    }),
    item('keda.sh/v1alpha1', 'ScaledObject', [namespace, `scaled-${suffix}`], {
      scaleTargetRef: { name: `work-${suffix}` },
    }),
    item('keda.sh/v1alpha1', 'ScaledObject', [namespace, `scaled-rollout-${suffix}`], {
      scaleTargetRef: {
        apiVersion: 'argoproj.io/v1alpha1',
        kind: 'Rollout',
        name: `rollout-${suffix}`,
      },
    }),
  ];
  const ending: Item[] = [
    item('argoproj.io/v1alpha1', 'Workflow', [namespace, 'run'], {
      serviceAccountName: 'invoice',
    }),
    item('argoproj.io/v1alpha1', 'Workflow', [namespace, 'run-by-template'], {
      serviceAccountName: 'other',
      templates: [{ name: 'main', serviceAccountName: 'invoice' }],
    }),
    item('tekton.dev/v1', 'PipelineRun', [namespace, 'pipeline'], {
      taskRunTemplate: { serviceAccountName: 'invoice' },
    }),
    item('tekton.dev/v1', 'TaskRun', [namespace, 'task'], { serviceAccountName: 'invoice' }),
  ];
  const over = item('argoproj.io/v1alpha1', 'Workflow', [namespace, 'over'], {
    serviceAccountName: 'invoice',
  });
  const asleep: Item[] = [
    item('argoproj.io/v1alpha1', 'Rollout', [namespace, 'asleep'], {
      replicas: 0,
      ...runsAs('invoice'),
    }),
    item('argoproj.io/v1alpha1', 'CronWorkflow', [namespace, 'asleep'], {
      suspend: true,
      workflowSpec: { serviceAccountName: 'invoice' },
    }),
    item(
      'keda.sh/v1alpha1',
      'ScaledObject',
      [namespace, 'asleep'],
      { scaleTargetRef: { name: 'work-mine' } },
      { annotations: { [keda]: 'true' } },
    ),
    item('example.com/v1', 'Robot', [namespace, 'asleep'], { mode: 'Off', ...runsAs('invoice') }),
  ];
  const others = [
    ...restorable('others', 'other'),
    item('argoproj.io/v1alpha1', 'Workflow', [namespace, 'others'], {
      serviceAccountName: 'other',
    }),
  ];
  const mine = restorable('mine', 'invoice');
  const all = [...mine, ...ending, ...asleep, ...others];
  const before = new Map<Item, unknown>();

  beforeAll(async () => {
    const crds = [...foreignCrds, robots];
    await controlPlane.apply(crds.map(manifestOf));
    await waitUntilEstablished(
      controlPlane,
      crds.map(({ plural, group }) => `crd/${plural}.${group}`),
    );
    await namespaceWith(
      namespace,
      ['mine', 'others'].map((suffix) =>
        item('apps/v1', 'Deployment', [namespace, `work-${suffix}`], {
          replicas: 1,
          ...selected(`work-${suffix}`, suffix === 'mine' ? 'invoice' : 'other'),
        }),
      ),
    );
    await podsRun(namespace, 2);
    await applyAs('gitops', [...all, { ...over, status: { phase: 'Succeeded' } }]);
    for (const object of all) before.set(object, await substance(object));
    await kill(namespace);
  });

  it.each(mine)('are paused, and keep what stood there: $kind $metadata.name', async (object) => {
    const { metadata, spec } = await live(object);
    const { annotations = {} } = metadata;
    const [value, kept] = {
      Rollout: [spec['replicas'], object.spec['replicas'] ?? null],
      CronWorkflow: [spec['suspend'], null],
      ScaledJob: [annotations[keda], null],
      ScaledObject: [annotations[keda], null],
      Robot: [spec['mode'], 'Fast'],
    }[object.kind] ?? ['unknown kind', undefined];
    expect([0, true, 'true', 'Off']).toContain(value);
    expect(JSON.parse(annotations[`${guardrails}/restore-value`] ?? '')).toBe(kept);
  });

  it('that can only be ended are ended, and named', async () => {
    const values = [];
    for (const object of ending) values.push((await live(object)).spec);
    expect(values).toMatchObject([
      { shutdown: 'Terminate' },
      { shutdown: 'Terminate' },
      { status: 'Cancelled' },
      { status: 'TaskRunCancelled' },
    ]);
    for (const spec of values) expect(spec).not.toHaveProperty('suspend');
    // Each look that ends some of them tells of those.
    const told = await waitFor('the events', async () => {
      const notes = await eventsOf(namespace, 'NotRestored');
      const isAll = ending.every(({ kind, metadata }) =>
        notes.includes(`${kind} ${metadata.name}`),
      );
      return isAll && notes;
    });
    expect(told).not.toContain('Workflow over');
  });

  it('that are over, paused before, or of others are left alone', async () => {
    for (const object of [...asleep, ...others]) {
      expect(await substance(object)).toEqual(before.get(object));
    }
    expect((await live(over)).spec).not.toHaveProperty('shutdown');
  });

  it('stay with their owners, who can apply at any time', async () => {
    for (const object of mine) {
      expect(await managersOf(object)).toEqual(['gitops']);
    }
    const [rollout] = mine;
    await applyAs('gitops', [{ ...rollout, spec: { ...rollout?.spec, replicas: 7 } }]);
  });

  it('come back exactly, with what their owners asked for meanwhile', async () => {
    await release(namespace);
    const [rollout, ...rest] = mine;
    for (const object of [...rest, ...asleep, ...others]) {
      expect(await substance(object)).toEqual(before.get(object));
    }
    expect((await live(rollout!)).spec['replicas']).toBe(7);
    expect((await live(rollout!)).metadata.annotations ?? {}).toEqual({});
    await podsRun(namespace, 2);
  });

  it('are not woken that had been ended', async () => {
    const [run] = ending;
    expect((await live(run!)).spec['shutdown']).toBe('Terminate');
  });

  it('do not conflict with the next apply of their owners', async () => {
    const [rollout, , , , robot] = mine;
    await applyAs('gitops', [
      { ...rollout, spec: { ...rollout?.spec, replicas: 5 } },
      { ...robot, spec: { ...robot?.spec, mode: 'Slow' } },
    ]);
    expect((await live(rollout!)).spec['replicas']).toBe(5);
    for (const object of mine) {
      expect(await managersOf(object)).toEqual(['gitops']);
    }
  });
});

describe('a value that nobody kept', () => {
  it('restores nothing, and is named', async () => {
    const namespace = 'planted';
    const robot = item('example.com/v1', 'Robot', [namespace, 'robot'], {
      mode: 'Fast',
      template: template('x'),
    });
    await namespaceWith(namespace, [robot]);
    await kill(namespace);
    await kubectlOk(controlPlane, [
      'annotate',
      '--overwrite',
      'robots.example.com/robot',
      `-n=${namespace}`,
      `${guardrails}/restore-value={"mode":"Fast"}`,
    ]);
    await release(namespace);
    expect((await live(robot)).spec['mode']).toBe('Off');
    const told = await waitFor('the event', () => eventsOf(namespace, 'NotRestored'));
    expect(told).toContain('Robot robot was not put back');
  });
});

describe('two kill switches over one object', () => {
  it('leave it paused until the last one is released', async () => {
    const namespace = 'overlapping';
    const robot = (name: string, account: string): Item =>
      item('example.com/v1', 'Robot', [namespace, name], {
        mode: 'Fast',
        template: template('x', account),
      });
    const [mine, other] = [robot('mine', 'invoice'), robot('other', 'other')];
    await namespaceWith(namespace, [mine, other]);
    await kill(namespace);
    expect((await live(other)).spec['mode']).toBe('Fast');
    await kill(namespace, 'namespace');
    expect((await live(other)).spec['mode']).toBe('Off');

    await release(namespace, 'namespace');
    expect((await live(mine)).spec['mode']).toBe('Off');
    expect((await live(other)).spec['mode']).toBe('Fast');
    await release(namespace);
    expect((await live(mine)).spec['mode']).toBe('Fast');
    expect((await live(mine)).metadata.annotations ?? {}).not.toHaveProperty([
      `${guardrails}/restore-value`,
    ]);
  });
});

describe('a Knative Service', () => {
  it('is stopped by its Deployment, and nothing is written to it', async () => {
    const namespace = 'knative';
    const service = item('serving.knative.dev/v1', 'Service', [namespace, 'hello'], {
      template: template('hello'),
    });
    const deployment = item(
      'apps/v1',
      'Deployment',
      [namespace, 'hello-00001-deployment'],
      { replicas: 2, ...selected('hello') },
      { labels: { 'serving.knative.dev/service': 'hello' } },
    );
    await namespaceWith(namespace, [service, deployment]);
    await podsRun(namespace, 2);
    const { metadata } = await live(service);
    await kill(namespace);
    await podsRun(namespace, 0);
    // Its autoscaler scales the Deployment by a patch.
    await kubectlOk(controlPlane, [
      'patch',
      'deployment/hello-00001-deployment',
      `-n=${namespace}`,
      '--type=json',
      '-p=[{"op":"replace","path":"/spec/replicas","value":4}]',
    ]);
    expect((await live(deployment)).spec['replicas']).toBe(0);
    await release(namespace);
    await podsRun(namespace, 4);
    expect((await live(service)).metadata).toEqual(metadata);
  });
});

describe('a Deployment under a HorizontalPodAutoscaler', () => {
  it('is paused again when that scales it, and goes on after the release', async () => {
    const namespace = 'autoscaled';
    const work = item('apps/v1', 'Deployment', [namespace, 'work'], {
      replicas: 2,
      ...selected('work'),
    });
    const scaler = item('autoscaling/v2', 'HorizontalPodAutoscaler', [namespace, 'work'], {
      scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name: 'work' },
      minReplicas: 2,
      maxReplicas: 5,
      metrics: [
        {
          type: 'Resource',
          resource: { name: 'cpu', target: { type: 'Utilization', averageUtilization: 50 } },
        },
      ],
    });
    await namespaceWith(namespace, [work, scaler]);
    await podsRun(namespace, 2);
    await kill(namespace);
    await kubectlOk(controlPlane, ['scale', 'deployment/work', '--replicas=3', `-n=${namespace}`]);
    await waitFor('it to be paused again', async () => (await live(work)).spec['replicas'] === 0);
    await podsRun(namespace, 0);
    await release(namespace);
    await podsRun(namespace, 3);
    const { spec } = await live(scaler);
    await kubectlOk(controlPlane, [
      'patch',
      'hpa/work',
      `-n=${namespace}`,
      '--type=merge',
      `-p=${JSON.stringify({ spec: { ...spec, minReplicas: 4 } })}`,
    ]);
    await podsRun(namespace, 4);
  });
});

describe('Jobs, CronJobs and bare pods', () => {
  const namespace = 'runs';
  const pod = item(
    'v1',
    'Pod',
    [namespace, 'by-hand'],
    (template('by-hand') as { spec: object }).spec,
  );
  const job = item('batch/v1', 'Job', [namespace, 'backfill'], {
    parallelism: 2,
    completions: 2,
    template: template('backfill', 'invoice', 'Never'),
  });
  const cronJob = item('batch/v1', 'CronJob', [namespace, 'nightly'], {
    schedule: '0 3 1 1 *',
    jobTemplate: { spec: { template: template('nightly', 'invoice', 'Never') } },
  });

  it('are all stopped', async () => {
    await namespaceWith(namespace, [pod, job, cronJob]);
    await kubectlOk(controlPlane, [
      'create',
      'job',
      'nightly-1',
      '--from=cronjob/nightly',
      `-n=${namespace}`,
    ]);
    await podsRun(namespace, 4);
    await kill(namespace);
    await podsRun(namespace, 0);
    const run = { ...job, metadata: { ...job.metadata, name: 'nightly-1' } };
    for (const object of [job, run, cronJob]) {
      expect((await live(object)).spec['suspend']).toBe(true);
    }
  });

  it('come back without a failure that nobody had; a bare pod does not, and is named', async () => {
    await release(namespace);
    await podsRun(namespace, 3);
    const { status, spec } = await live(job);
    expect(spec['suspend']).toBe(false);
    expect(status?.['failed'] ?? 0).toBe(0);
    const told = await waitFor('the event', () => eventsOf(namespace, 'NotRestored'));
    expect(told).toBe('Deleted, and nothing creates them again: Pod by-hand.');
  });
});

describe('a StatefulSet that deletes its volumes when it is scaled down', () => {
  const namespace = 'volumes';
  const replicas = 2;
  const claims = ['data-store-0', 'data-store-1'];
  const store = item('apps/v1', 'StatefulSet', [namespace, 'store'], {
    replicas,
    serviceName: 'store',
    podManagementPolicy: 'Parallel',
    persistentVolumeClaimRetentionPolicy: { whenScaled: 'Delete', whenDeleted: 'Retain' },
    ...selected('store'),
    volumeClaimTemplates: [
      {
        metadata: { name: 'data' },
        spec: {
          accessModes: ['ReadWriteOnce'],
          storageClassName: 'kept-by-hand',
          resources: { requests: { storage: '1Gi' } },
        },
      },
    ],
  });

  async function boundClaims(): Promise<(string | undefined)[]> {
    const found = await listObjects<Item>(controlPlane, 'persistentvolumeclaims', namespace);
    return found
      .filter(
        ({ status, metadata }) =>
          status?.['phase'] === 'Bound' && !('deletionTimestamp' in metadata),
      )
      .map(({ metadata }) => metadata.uid);
  }

  it('keeps them through a kill, whoever scales it, and a release', async () => {
    const volumes = claims.map((name) => ({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: `${namespace}-${name}` },
      spec: {
        capacity: { storage: '1Gi' },
        accessModes: ['ReadWriteOnce'],
        storageClassName: 'kept-by-hand',
        persistentVolumeReclaimPolicy: 'Retain',
        claimRef: { namespace, name },
        csi: { driver: 'volumes.example.com', volumeHandle: name },
      },
    }));
    await namespaceWith(namespace, [...volumes, store]);
    await podsRun(namespace, replicas);
    const before = await waitFor('the volumes', async () => {
      const uids = await boundClaims();
      return uids.length === replicas && uids;
    });

    await kill(namespace);
    await podsRun(namespace, 0);
    // Its removal wakes the controller, which has backed off by the release.
    expect((await live(store)).metadata.annotations).toHaveProperty([`${guardrails}/touch`]);
    for (const args of [
      ['scale', 'statefulset/store', '--replicas=0'],
      ['scale', 'statefulset/store', '--replicas=1'],
    ]) {
      const { code, stderr } = await controlPlane.kubectl([...args, `-n=${namespace}`]);
      expect(code).not.toBe(0);
      expect(stderr).toContain('could delete volumes');
    }
    await controlPlane.apply([{ ...store, spec: { ...store.spec, replicas: 0 } }]);
    expect((await live(store)).spec['replicas']).toBe(replicas);
    expect(await boundClaims()).toEqual(before);

    await release(namespace);
    await podsRun(namespace, replicas);
    expect(await boundClaims()).toEqual(before);
    expect((await live(store)).metadata.annotations ?? {}).not.toHaveProperty([
      `${guardrails}/touch`,
    ]);
  });
});

describe('GitOps tools, after a release', () => {
  it('are asked to look again, each once', async () => {
    const namespace = 'gitops';
    const flux = 'kustomize.toolkit.fluxcd.io';
    const helm = 'helm.toolkit.fluxcd.io';
    const deployment = (name: string, metadata: object): Item =>
      item(
        'apps/v1',
        'Deployment',
        [namespace, name],
        { replicas: 1, ...selected(name) },
        metadata,
      );
    const application = (name: string, status: object = {}): Item => ({
      ...item('argoproj.io/v1alpha1', 'Application', [namespace, name], {}),
      status: status as Record<string, unknown>,
    });
    const owners = {
      kustomization: item(`${flux}/v1`, 'Kustomization', [namespace, 'apps'], {}),
      helmRelease: item(`${helm}/v2`, 'HelmRelease', [namespace, 'chart'], {}),
      tracked: application('tracked'),
      labelled: application('labelled', {
        resources: [{ group: 'apps', kind: 'Deployment', namespace, name: 'labelled' }],
      }),
    };
    const bystanders = [application('by-name'), application('copied')];
    await namespaceWith(namespace, [
      ...Object.values(owners),
      ...bystanders,
      deployment('kustomized', {
        labels: { [`${flux}/name`]: 'apps', [`${flux}/namespace`]: namespace },
      }),
      deployment('charted', {
        labels: { [`${helm}/name`]: 'chart', [`${helm}/namespace`]: namespace },
      }),
      deployment('tracked', {
        annotations: {
          'argocd.argoproj.io/tracking-id': `tracked:apps/Deployment:${namespace}/tracked`,
        },
      }),
      deployment('labelled', { labels: { 'app.kubernetes.io/instance': 'labelled' } }),
      deployment('helm-by-hand', { labels: { 'app.kubernetes.io/instance': 'by-name' } }),
      deployment('copy', {
        annotations: {
          'argocd.argoproj.io/tracking-id': `copied:apps/Deployment:${namespace}/original`,
        },
      }),
    ]);
    await podsRun(namespace, 6);
    await kill(namespace);
    await release(namespace);
    const asked = async (object: Item): Promise<Record<string, string>> =>
      (await live(object)).metadata.annotations ?? {};
    for (const object of [owners.kustomization, owners.helmRelease]) {
      expect(
        Date.parse((await asked(object))['reconcile.fluxcd.io/requestedAt'] ?? ''),
      ).toBeGreaterThan(0);
    }
    for (const object of [owners.tracked, owners.labelled]) {
      expect(await asked(object)).toMatchObject({ 'argocd.argoproj.io/refresh': 'normal' });
    }
    for (const object of bystanders) {
      expect(await asked(object)).not.toHaveProperty(['argocd.argoproj.io/refresh']);
    }
  });
});
