import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { KillSwitch } from '../../src/api/kill-switch.ts';
import { annotation, label } from '../../src/api/names.ts';
import {
  keyOf,
  type Condition,
  type KubeObject,
  type NetworkPolicy,
  type Pod,
} from '../../src/api/objects.ts';
import { resources, type Resource } from '../../src/api/resources.ts';
import type { Workflow } from '../../src/api/workflow.ts';
import {
  workloadCache,
  workloadKinds,
  workloadResources,
  type Workload,
} from '../../src/api/workload.ts';
import { keysFor, WorkflowController } from '../../src/controllers/workflow.ts';
import {
  peerNamespaces,
  policyIndexes,
  projectPolicy,
} from '../../src/controllers/workflow-indexes.ts';
import { dnsRule, rulesOf } from '../../src/guardrails/egress/rules.ts';
import { RequesterRights } from '../../src/controllers/requester.ts';
import { notRequired } from '../../src/controllers/workflow-approval.ts';
import { podIdentity, projectPod } from '../../src/guardrails/kill-switch/pods.ts';
import { PlugInPolicies } from '../../src/guardrails/egress/plug-in-policies.ts';
import { EgressTeardown } from '../../src/guardrails/egress/teardown.ts';
import { GoneRuns } from '../../src/guardrails/limits/gone-runs.ts';
import { EventRecorder } from '../../src/observability/events.ts';
import { silentLogger } from '../../src/observability/logger.ts';
import { Metrics } from '../../src/observability/metrics.ts';
import { Applier } from '../../src/runtime/applier.ts';
import { ApiServerClient } from '../../src/runtime/client.ts';
import { Controller } from '../../src/runtime/controller.ts';
import { PooledKubeConfig } from '../../src/runtime/kube-config.ts';
import { ListWatch, type ListWatchOptions } from '../../src/runtime/list-watch.ts';
import { mergeStores } from '../../src/runtime/merged-store.ts';
import { StatusWriter } from '../../src/runtime/status-writer.ts';
import { startControlPlane, type ControlPlane } from '../control-plane/control-plane.ts';
import { waitFor } from '../control-plane/wait.ts';
import {
  getObject,
  installGuardrails,
  kubectlOk,
  listObjects,
  waitForCondition,
} from '../operator/cluster.ts';

const name = 'poster';
const logger = silentLogger();
const metrics = new Metrics({ version: 'test' });

let labelsPods = true;
let controlPlane: ControlPlane;
let operator: RunningOperator;

interface RunningOperator {
  policies: ListWatch<NetworkPolicy>;
  /** Looks at one Workflow now, beside the queue. */
  reconcile(namespace: string): Promise<unknown>;
  enqueue(namespace: string): void;
  stop(): Promise<void>;
}

/** This controller, its caches and its queue, with the operator's own rights. */
async function startOperator(kubeconfig: string): Promise<RunningOperator> {
  const stopping = new AbortController();
  const kubeConfig = new PooledKubeConfig().load({ kubeconfig });
  const client = new ApiServerClient({ kubeConfig, userAgent: 'workflow-test', metrics });
  const events = new EventRecorder({ client, logger, instance: 'workflow-test' });

  const caches: Pick<ListWatch<KubeObject>, 'run' | 'whenSynced'>[] = [];
  const watch = <T extends KubeObject>(
    resource: Resource<T>,
    options: Partial<ListWatchOptions<T>> = {},
  ): ListWatch<T> => {
    const cache = new ListWatch<T>({ client, metrics, logger, resource, ...options });
    caches.push(cache);
    return cache;
  };
  const workflows = watch(resources.workflows, {
    indexes: {
      namespace: ({ metadata }) => [metadata.namespace ?? ''],
      peerNamespace: peerNamespaces,
    },
  });
  const identities = watch(resources.automationIdentities);
  const namespaces = watch(resources.namespaces);
  const killSwitches = watch(resources.killSwitches);
  const networkPolicies = watch<NetworkPolicy>(resources.networkPolicies, {
    project: projectPolicy,
    indexes: policyIndexes,
  });
  const pods = watch<Pod>(resources.pods, {
    project: projectPod,
    indexes: { identity: (pod) => [podIdentity(pod)] },
  });
  const workloads = workloadKinds.map((kind) =>
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it stores what it projects
    watch(workloadResources[kind] as Resource<Workload>, workloadCache(kind)),
  );

  const applier = new Applier({ client });
  const plugIn = new PlugInPolicies([]);
  const reconciler = new WorkflowController({
    client,
    applier,
    statusWriter: new StatusWriter({ client }),
    events,
    metrics,
    workflows: workflows.store,
    identities: identities.store,
    namespaces: namespaces.store,
    killSwitches: killSwitches.store,
    networkPolicies: networkPolicies.store,
    workloads: mergeStores(workloads.map(({ store }) => store)),
    approvals: { of: () => notRequired },
    requester: new RequesterRights(client),
    policy: {
      ofWorkflow: () => ({ tier: 'test', finding: undefined, missing: [], changesAt: undefined }),
    },
    pods: pods.store,
    labelsPods: () => labelsPods,
    namedPeers: () => ({}),
    plugIn,
    teardown: new EgressTeardown({
      client,
      applier,
      events,
      metrics,
      identities: identities.store,
      networkPolicies: networkPolicies.store,
      pods: pods.store,
      plugIn,
      isKilled: () => false,
      clock: Date.now,
    }),
    hosts: {
      look: () => ({ resolved: undefined, problem: undefined, isPending: true, dueMs: 60_000 }),
    },
    refused: { of: () => undefined },
    goneRuns: new GoneRuns(),
    clock: Date.now,
  });
  const controller = new Controller({ reconciler, workers: 4, metrics, logger, maxDelayMs: 500 });
  const enqueueAll = (keys: string[]): void => keys.forEach((key) => controller.enqueue(key));
  workflows.onChange(({ object }) => enqueueAll(keysFor.workflow(object)));
  identities.onChange(({ object }) => enqueueAll(keysFor.identity(object)));
  killSwitches.onChange(({ object }) => enqueueAll(keysFor.killSwitch(object, workflows.store)));
  namespaces.onChange(({ object }) => enqueueAll(keysFor.namespace(object, workflows.store)));
  pods.onChange((change) =>
    enqueueAll(keysFor.pod(change, workflows.store, networkPolicies.store)),
  );
  networkPolicies.onChange((change) => enqueueAll(keysFor.networkPolicy(change, workflows.store)));
  for (const cache of workloads) {
    cache.onChange((change) => enqueueAll(keysFor.workload(change, workflows.store)));
  }

  const watching = Promise.all(caches.map((cache) => cache.run(stopping.signal)));
  await Promise.all(caches.map((cache) => cache.whenSynced()));
  const working = controller.run(stopping.signal, [...workflows.store.list()].map(keyOf));
  return {
    policies: networkPolicies,
    reconcile: (namespace) =>
      reconciler.reconcile(`${namespace}/${name}`, {
        signal: stopping.signal,
        correlationId: 'test',
        log: logger,
      }),
    enqueue: (namespace) => controller.enqueue(`${namespace}/${name}`),
    stop: async () => {
      stopping.abort();
      await Promise.all([working, watching]);
      await events.flush();
      await kubeConfig.closeConnections();
    },
  };
}

beforeAll(async () => {
  controlPlane = await startControlPlane({ controllerManagerQps: 500 });
  operator = await startOperator(await installGuardrails(controlPlane));
});

afterAll(async () => {
  await operator?.stop();
  await controlPlane?.stop();
});

const owner = { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' };
const deployment = { group: 'apps', kind: 'Deployment', name: 'web' } as const;
const cronJob = { group: 'batch', kind: 'CronJob', name: 'nightly' } as const;
const erp = {
  cidr: '203.0.113.0/24',
  except: ['203.0.113.128/25'],
  ports: [{ port: 443, protocol: 'TCP' as const }],
  reason: 'ERP',
};
const database = {
  namespace: 'data',
  podSelector: { matchLabels: { app: 'db' } },
  ports: [{ port: 5432, endPort: 5440, protocol: 'TCP' as const }],
  reason: 'its own records',
};
const archive = { cidr: '2001:db8::/32', reason: 'archive' };
const complete: Workflow['spec'] = {
  owner,
  targets: [deployment, cronJob],
  egress: [erp, database, archive],
};

const own = 'automationguardrails.dev/v1alpha1';

function workflow(namespace: string, spec: Partial<Workflow['spec']> = {}): object {
  const metadata = { name, namespace };
  return { apiVersion: own, kind: 'Workflow', metadata, spec: { ...complete, ...spec } };
}

function podTemplate(labels: object, restartPolicy = 'Never') {
  return {
    metadata: { labels },
    spec: {
      serviceAccountName: name,
      restartPolicy,
      containers: [{ name: 'main', image: 'registry.example/automation:1' }],
    },
  };
}

function web(namespace: string): object {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: 'web', namespace },
    spec: {
      replicas: 0,
      selector: { matchLabels: { app: 'web' } },
      template: podTemplate({ app: 'web' }, 'Always'),
    },
  };
}

function nightly(namespace: string, labels: object = { app: 'nightly' }): object {
  return {
    apiVersion: 'batch/v1',
    kind: 'CronJob',
    metadata: { name: 'nightly', namespace },
    spec: { schedule: '0 3 1 1 *', jobTemplate: { spec: { template: podTemplate(labels) } } },
  };
}

async function guard(namespace: string, environment: string | undefined): Promise<void> {
  const value = environment === undefined ? `${label.environment}-` : `${label.environment}=prod`;
  await kubectlOk(controlPlane, ['label', 'namespace', namespace, '--overwrite', value]);
}

/** A ready identity, as its own controller would leave it. */
async function identify(namespace: string): Promise<void> {
  await controlPlane.apply([
    {
      apiVersion: own,
      kind: 'AutomationIdentity',
      metadata: { name, namespace },
      spec: { purpose: 'posts invoices', owner },
    },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
  ]);
  const ready = {
    type: 'Ready',
    status: 'True',
    reason: 'Provisioned',
    message: 'There.',
    lastTransitionTime: '2030-01-01T00:00:00Z',
  };
  await kubectlOk(controlPlane, [
    'patch',
    'aid',
    name,
    `-n=${namespace}`,
    '--type=merge',
    '--subresource=status',
    `--patch=${JSON.stringify({ status: { conditions: [ready] } })}`,
  ]);
}

async function provision(namespace: string, apps: readonly string[] = []): Promise<void> {
  await controlPlane.apply([
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
    },
  ]);
  await identify(namespace);
  await controlPlane.apply([web(namespace), nightly(namespace), workflow(namespace)]);
  await becomes(namespace, 'Ready', 'True');
  await settles(namespace, apps, [erp, database, archive]);
}

function becomes(namespace: string, type: string, status: string): Promise<Condition> {
  return waitForCondition(controlPlane, { kind: 'awf', name, namespace }, type, status);
}

function policiesOf(namespace: string): Promise<NetworkPolicy[]> {
  return listObjects<NetworkPolicy>(controlPlane, 'networkpolicies', namespace);
}

/** Resource versions of the Workflow and its policies. */
async function versionsIn(namespace: string): Promise<unknown[]> {
  const found = await getObject<Workflow>(controlPlane, 'awf', name, namespace);
  const policies = await policiesOf(namespace);
  return [found, ...policies].map((object) => object?.metadata.resourceVersion);
}

/** The one for the pods with the label of the identity, or for those of an app. */
async function policyOf(namespace: string, app = ''): Promise<NetworkPolicy> {
  const policies = await policiesOf(namespace);
  const found = policies.find(({ spec }) => appOf(spec) === app);
  if (found === undefined) throw new Error(`no policy for ${app}`);
  return found;
}

/** Until those of the identity and of these apps have exactly this egress, in the API and in the operator's cache. */
async function settles(
  namespace: string,
  apps: readonly string[],
  egress: Parameters<typeof rulesOf>[0],
  options = {},
): Promise<void> {
  const selectors = [{ [label.identity]: name }, ...apps.map((app) => ({ app }))];
  const wanted = selectors.map((matchLabels) => ({
    podSelector: { matchLabels },
    policyTypes: ['Egress', 'Ingress'],
    egress: rulesOf(egress),
  }));
  await waitFor(
    `policies of ${apps.join(' and ')} in ${namespace}`,
    async () => {
      const live = await policiesOf(namespace);
      const found = live
        .map(({ spec }) => spec)
        .toSorted((a, b) => appOf(a).localeCompare(appOf(b)));
      const isCached = live.every(
        ({ metadata }) =>
          operator.policies.store.get(`${namespace}/${metadata.name}`)?.metadata.resourceVersion ===
          metadata.resourceVersion,
      );
      return isCached && isDeepStrictEqual(found, wanted);
    },
    { timeoutMs: 120_000, ...options },
  );
}

function appOf({ podSelector }: NetworkPolicy['spec']): string {
  return podSelector.matchLabels?.['app'] ?? '';
}

describe('a complete Workflow', () => {
  const namespace = 'provisioned';

  it('gets one policy for all pods of its identity, and is ready', async () => {
    await provision(namespace);
    const found = await getObject<Workflow>(controlPlane, 'awf', name, namespace);
    expect(found?.status).toMatchObject({
      observedGeneration: 1,
      targets: { total: 2, running: 1, stopped: 1, missing: 0 },
    });
    const policy = await policyOf(namespace);
    expect(policy.metadata).toMatchObject({
      name: expect.stringMatching(/^poster-egress-[0-9a-f]{8}$/),
      labels: { [label.workflow]: name },
      annotations: { [annotation.ownerUid]: found?.metadata.uid },
    });
  });

  it('is not written to again when nothing changed', async () => {
    const before = await versionsIn(namespace);
    for (let times = 0; times < 3; times++) await operator.reconcile(namespace);
    expect(await versionsIn(namespace)).toEqual(before);
  });

  it('tells what happened once', async () => {
    const told = await waitFor('the events', async () => {
      const events = await listObjects<{ reason: string; regarding: { name: string } }>(
        controlPlane,
        'events.v1.events.k8s.io',
        namespace,
      );
      const reasons = events
        .filter(({ regarding }) => regarding.name === name)
        .map(({ reason }) => reason);
      return reasons.includes('Ready') && reasons;
    });
    expect(told.filter((reason) => reason === 'Ready')).toEqual(['Ready']);
    expect(told).toContain('EgressChanged');
  });

  it.each([
    {
      what: 'all destinations added',
      patch: [{ op: 'add', path: '/spec/egress/-', value: {} }],
    },
    {
      what: 'a longer range of ports',
      patch: [{ op: 'add', path: '/spec/egress/1/ports/0/endPort', value: 65_535 }],
    },
    {
      what: 'a selector that misses the pods',
      patch: [{ op: 'add', path: '/spec/podSelector/matchLabels/x', value: 'y' }],
    },
    {
      what: 'one direction less',
      patch: [{ op: 'remove', path: '/spec/policyTypes/0' }],
    },
    {
      what: 'everybody let in',
      patch: [{ op: 'add', path: '/spec/ingress', value: [{}] }],
    },
    {
      what: 'without its label',
      patch: [{ op: 'remove', path: '/metadata/labels' }],
    },
  ])('has an edited policy repaired: $what', async ({ patch }) => {
    const { metadata } = await policyOf(namespace);
    await kubectlOk(controlPlane, [
      'patch',
      'networkpolicy',
      metadata.name,
      `-n=${namespace}`,
      '--type=json',
      `--patch=${JSON.stringify(patch)}`,
    ]);
    await settles(namespace, [], [erp, database, archive]);
    const repaired = await waitFor('its label', async () => {
      const policy = await policyOf(namespace);
      return policy.metadata.labels?.[label.workflow] === name && policy;
    });
    expect(repaired.metadata.uid).toBe(metadata.uid);
  });

  it('has a deleted policy back', async () => {
    const { metadata } = await policyOf(namespace);
    await kubectlOk(controlPlane, ['delete', 'netpol', metadata.name, `-n=${namespace}`]);
    await settles(namespace, [], [erp, database, archive]);
  });

  it('follows its allowlist', async () => {
    await controlPlane.apply([workflow(namespace, { egress: [erp] })]);
    await settles(namespace, [], [erp]);
    await controlPlane.apply([workflow(namespace)]);
    await settles(namespace, [], [erp, database, archive]);
  });

  it('leaves its policies behind when it is deleted, until nothing can start as its identity', async () => {
    const [before] = await policiesOf(namespace);
    await kubectlOk(controlPlane, ['delete', 'awf', name, `-n=${namespace}`]);
    const told = await waitFor('the event', async () => {
      const events = await listObjects<{ reason: string; message: string }>(
        controlPlane,
        'events',
        namespace,
      );
      return events.find(({ reason }) => reason === 'EgressKept');
    });
    expect(told.message).toContain('its AutomationIdentity is there yet');
    expect(await policiesOf(namespace)).toEqual([before]);
    await kubectlOk(controlPlane, ['delete', 'sa', name, `-n=${namespace}`]);
    await kubectlOk(controlPlane, ['delete', 'aid', name, `-n=${namespace}`]);
    await kubectlOk(controlPlane, ['delete', 'pods,deploy,cronjob', '--all', `-n=${namespace}`]);
    await waitFor('its policies to go', async () => (await policiesOf(namespace)).length === 0);
  });
});

describe('where admission labels no pods', () => {
  const namespace = 'relabelled';
  beforeAll(() => {
    labelsPods = false;
  });
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'nightly-before', namespace, labels: { app: 'renamed' } },
    spec: podTemplate({}).spec,
  };

  it('the new policy stands before the old one goes', async () => {
    await provision(namespace, ['nightly', 'web']);
    const seen: string[] = [];
    operator.policies.onChange(({ type, object }) => {
      if (object.metadata.namespace !== namespace) return;
      seen.push(`${type} ${appOf(object.spec)}`);
    });
    await controlPlane.apply([nightly(namespace, { app: 'renamed' })]);
    await settles(namespace, ['renamed', 'web'], [erp, database, archive]);
    await waitFor('the end of the old one to be seen', () => seen.length > 1);
    expect(seen).toEqual(['added renamed', 'deleted nightly']);
  });

  it('the old policy stays while pods with the old labels run', async () => {
    // Without the label of its identity, as from before the namespace was guarded.
    await guard(namespace, undefined);
    await controlPlane.apply([pod]);
    await guard(namespace, 'prod');
    await controlPlane.apply([nightly(namespace)]);
    await settles(namespace, ['nightly', 'renamed', 'web'], [erp, database, archive]);
    await controlPlane.apply([workflow(namespace, { egress: [erp] })]);
    await settles(namespace, ['nightly', 'renamed', 'web'], [erp]);
    await kubectlOk(controlPlane, ['delete', 'pod', pod.metadata.name, `-n=${namespace}`]);
    await settles(namespace, ['nightly', 'web'], [erp]);
  });
});

describe('where admission comes to label pods', () => {
  const namespace = 'upgraded';

  it('the policies by own labels stay until the last pod without the label is gone', async () => {
    // It runs from before the namespace was guarded, and can't be told apart by its owner.
    await controlPlane.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
    ]);
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'web-before', namespace, labels: { app: 'web' } },
      spec: { ...podTemplate({}).spec, automountServiceAccountToken: false },
    };
    await controlPlane.apply([
      { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
      pod,
    ]);
    labelsPods = true;
    await provision(namespace, ['nightly', 'web']);
    await kubectlOk(controlPlane, ['delete', 'pod', 'web-before', `-n=${namespace}`]);
    await settles(namespace, [], [erp, database, archive]);
  });
});

describe('a NetworkPolicy of somebody else under the same name', () => {
  const namespace = 'foreign';

  it('is left alone and told of', async () => {
    await provision('foreign-names');
    const { metadata } = await policyOf('foreign-names');
    const foreign = {
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: metadata.name, namespace },
      spec: { podSelector: { matchLabels: { app: 'theirs' } }, policyTypes: ['Ingress'] },
    };
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: namespace, labels: { [label.environment]: 'prod' } },
      },
      foreign,
    ]);
    const before = await policyOf(namespace, 'theirs');
    await identify(namespace);
    await controlPlane.apply([web(namespace), nightly(namespace), workflow(namespace)]);
    const ready = await waitFor('the condition', async () => {
      const condition = await becomes(namespace, 'Ready', 'False');
      return condition.reason === 'ForeignObject' && condition;
    });
    expect(ready.message).toContain(metadata.name);
    await operator.reconcile(namespace);
    expect(await policyOf(namespace, 'theirs')).toEqual(before);
  });

  it('is replaced by ours when it is gone', async () => {
    const { metadata } = await policyOf(namespace, 'theirs');
    await kubectlOk(controlPlane, ['delete', 'netpol', metadata.name, `-n=${namespace}`]);
    // It isn't watched; the operator looks again once a minute.
    operator.enqueue(namespace);
    await becomes(namespace, 'Ready', 'True');
    await settles(namespace, [], [erp, database, archive]);
  });
});

describe('a Workflow that is held', () => {
  const namespace = 'held';

  it('keeps what it has, narrows, and gets nothing new', async () => {
    await provision(namespace);
    await guard(namespace, undefined);
    const held = await becomes(namespace, 'Held', 'True');
    expect(held.reason).toBe('NamespaceNotGuarded');
    await controlPlane.apply([
      workflow(namespace, { egress: [{ cidr: '198.51.100.0/24', reason: 'more' }, archive, erp] }),
    ]);
    await settles(namespace, [], [archive, erp]);

    await guard(namespace, 'prod');
    await becomes(namespace, 'Ready', 'True');
    await settles(namespace, [], [{ cidr: '198.51.100.0/24', reason: 'more' }, archive, erp]);
  });

  it('is closed but for DNS where it is new', async () => {
    await controlPlane.apply([
      {
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: 'closed', labels: { [label.environment]: 'prod' } },
      },
      web('closed'),
      nightly('closed'),
      workflow('closed'),
    ]);
    await waitFor('the identity to be missed', async () => {
      const held = await becomes('closed', 'Held', 'True');
      return held.reason === 'IdentityMissing';
    });
    await settles('closed', [], []);
    expect((await policyOf('closed')).spec.egress).toEqual([dnsRule]);
    await identify('closed');
    await settles('closed', [], [erp, database, archive]);
  });
});

describe('a Workflow that is stopped', () => {
  const namespace = 'stopped';

  it('says who stopped it and why, and reaches nothing any more', async () => {
    await provision(namespace);
    await kubectlOk(controlPlane, ['create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: own,
        kind: 'KillSwitch',
        metadata: { name, namespace },
        spec: { workflow: name, reason: 'posts twice' },
      } satisfies KillSwitch),
    });
    const stopped = await becomes(namespace, 'Stopped', 'True');
    expect(stopped).toMatchObject({
      reason: 'KillSwitchEngaged',
      message: expect.stringMatching(/^Engaged by admin at .*: "posts twice"\./),
    });
    expect(await becomes(namespace, 'Ready', 'False')).toMatchObject({
      reason: 'KillSwitchEngaged',
    });
    await waitFor('its policies to be closed', async () => {
      const policies = await policiesOf(namespace);
      return policies.every(({ spec }) => (spec.egress ?? []).length === 0);
    });
  });
});
