import { beforeEach, describe, expect, it } from 'vitest';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation, API_VERSION, label, MANAGED_BY } from '../api/names.ts';
import { keyOf, type Condition, type NetworkPolicy, type Pod } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Workflow, WorkflowSpec } from '../api/workflow.ts';
import { workloadKinds, workloadResources, type Workload } from '../api/workload.ts';
import type { NamedPeers } from '../guardrails/egress/rules.ts';
import { HostResolver } from '../guardrails/egress/host-resolver.ts';
import {
  PlugInPolicies,
  plugInKeys,
  plugInKinds,
  othersOfPlugIn,
  projectPlugIn,
  seenPlugInResources,
  type PlugInCache,
} from '../guardrails/egress/plug-in-policies.ts';
import type { PlugInPolicy } from '../guardrails/egress/plug-in.ts';
import { EgressTeardown } from '../guardrails/egress/teardown.ts';
import { GoneRuns } from '../guardrails/limits/gone-runs.ts';
import { MemoryClient } from '../guardrails/identity/memory-client.testing.ts';
import { silentLogger } from '../observability/logger.ts';
import { Applier } from '../runtime/applier.ts';
import type { ReconcileResult } from '../runtime/controller.ts';
import { ApiError } from '../runtime/errors.ts';
import type { Change } from '../runtime/list-watch.ts';
import { mergeStores } from '../runtime/merged-store.ts';
import { StatusWriter } from '../runtime/status-writer.ts';
import { ObjectStore } from '../runtime/store.ts';
import { isGuarded } from '../guardrails/requirements.ts';
import { PolicyInForce } from './policy-in-force.ts';
import { RequesterRights } from './requester.ts';
import { notRequired } from './workflow-approval.ts';
import { keysFor, WorkflowController } from './workflow.ts';
import { peerNamespaces, policyIndexes } from './workflow-indexes.ts';

const key = { namespace: 'billing', name: 'poster' };
const complete: WorkflowSpec = {
  owner: { team: 'finance', contact: 'a@example.com', escalation: 'b@example.com' },
  targets: [{ group: 'apps', kind: 'Deployment', name: 'web' }],
  egress: [{ cidr: '203.0.113.10/32', ports: [{ port: 443, protocol: 'TCP' }], reason: 'ERP' }],
};

function condition(type: string, status: Condition['status'], reason: string): Condition {
  return { type, status, reason, message: `${reason}.`, lastTransitionTime: '' };
}

class Cluster {
  now = Date.UTC(2030, 0, 1);
  readonly client = new MemoryClient(() => this.now);
  readonly events: string[] = [];
  readonly held = new Map<string, string>();
  labelsPods: boolean | undefined = true;
  namedPeers: NamedPeers = {};
  /** Kinds of policies that the network plug-in brings. */
  served: readonly string[] | undefined = [];
  /** What the DNS answers. */
  readonly dns = new Map<string, readonly string[] | Error>();
  refused: number | undefined;
  lookedUp = Promise.withResolvers<void>();
  hosts = this.resolver();
  readonly breaches: string[] = [];
  readonly goneRuns = new GoneRuns();
  readonly #controller: WorkflowController;

  constructor() {
    const { client } = this;
    const record =
      (type: string) =>
      (_about: unknown, reason: string, message: string): void => {
        this.events.push(`${type} ${reason}: ${message}`);
      };
    const plugIn = new PlugInPolicies(seenPlugInResources.map((one) => this.#cacheOf(one)));
    this.#controller = new WorkflowController({
      client,
      applier: new Applier({ client }),
      statusWriter: new StatusWriter({ client }),
      events: { normal: record('Normal'), warning: record('Warning') },
      metrics: {
        setHeld: (kind, object, reason) => {
          if (reason === undefined) this.held.delete(`${kind} ${object}`);
          else this.held.set(`${kind} ${object}`, reason);
        },
        setEgress: () => undefined,
        countLimitBreach: (limit) => this.breaches.push(limit),
      },
      workflows: client.storeOf(resources.workflows),
      identities: client.storeOf(resources.automationIdentities),
      namespaces: client.storeOf(resources.namespaces),
      killSwitches: client.storeOf(resources.killSwitches),
      networkPolicies: client.storeOf(resources.networkPolicies, policyIndexes),
      workloads: mergeStores(
        workloadKinds.map((kind) =>
          // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as the tests put them
          client.storeOf(workloadResources[kind] as Resource<Workload>, {
            namespace: ({ metadata }) => [metadata.namespace],
          }),
        ),
      ),
      approvals: { of: () => notRequired },
      requester: new RequesterRights(client),
      policy: new PolicyInForce({
        guardrailPolicies: client.storeOf(resources.guardrailPolicies),
        namespaces: client.storeOf(resources.namespaces),
        clock: () => this.now,
      }),
      pods: client.storeOf(resources.pods, {
        identity: (pod) => [`${pod.metadata.namespace}/${pod.spec?.serviceAccountName}`],
      }),
      labelsPods: () => this.labelsPods,
      namedPeers: () => this.namedPeers,
      plugIn,
      teardown: new EgressTeardown({
        client,
        applier: new Applier({ client }),
        events: { normal: record('Normal') },
        metrics: { setEgressLeft: () => undefined },
        identities: client.storeOf(resources.automationIdentities),
        networkPolicies: client.storeOf(resources.networkPolicies, policyIndexes),
        pods: client.storeOf(resources.pods, {
          identity: (pod) => [`${pod.metadata.namespace}/${pod.spec?.serviceAccountName}`],
        }),
        plugIn,
        isKilled: () => client.all(resources.killSwitches).length > 0,
        clock: () => this.now,
      }),
      hosts: { look: (host, before) => this.hosts.look(host, before) },
      refused: { of: () => this.refused },
      goneRuns: this.goneRuns,
      clock: () => this.now,
    });
  }

  /** One of a process that has just started. */
  resolver(): HostResolver {
    const resolver = new HostResolver({
      ask: async (host, family) => {
        const answer = this.dns.get(host) ?? [];
        if (answer instanceof Error) throw answer;
        return answer
          .filter((address) => address.includes(':') === (family === 6))
          .map((address) => ({ address, ttl: 60 }));
      },
      isRefused: () => false,
      logger: silentLogger(),
      clock: () => this.now,
    });
    resolver.onChange(() => this.lookedUp.resolve());
    return resolver;
  }

  /** Asks for what is due, waits for the answer, and works on it. */
  async resolve(): Promise<string[]> {
    this.lookedUp = Promise.withResolvers();
    const { writes } = await this.reconcile();
    await this.lookedUp.promise;
    return [...writes, ...(await this.reconcile()).writes];
  }

  #cacheOf(resource: Resource<PlugInPolicy>): PlugInCache {
    const indexes = { workflow: plugInKeys, others: othersOfPlugIn };
    const store = this.client.storeOf(resource, indexes);
    const isServed = (): boolean | undefined => this.served?.includes(resource.kind);
    return {
      resource,
      get isServed() {
        return isServed();
      },
      hasSynced: true,
      byIndex: (index, value) => store.byIndex(index, value),
    };
  }

  plugIn(resource: Resource<PlugInPolicy>): PlugInPolicy[] {
    return this.client.all(resource);
  }

  /** Everything that a Workflow needs. */
  provision(): void {
    this.guard('prod');
    this.identify(condition('Ready', 'True', 'Provisioned'));
    this.run(workload());
    this.declare(complete);
  }

  guard(environment: string | undefined): void {
    const labels = environment === undefined ? {} : { [label.environment]: environment };
    this.client.put(resources.namespaces, { metadata: { name: 'billing', labels } });
  }

  identify(...conditions: Condition[]): void {
    this.client.put<AutomationIdentity>(resources.automationIdentities, {
      metadata: key,
      spec: {},
      ...(conditions.length > 0 && { status: { conditions } }),
    });
  }

  run(object: Workload): void {
    this.client.put(workloadResources[object.kind], object);
  }

  declare(spec: unknown, annotations: Record<string, string> = {}): void {
    const before = this.client.find(resources.workflows, key);
    this.client.put(resources.workflows, {
      ...before,
      metadata: { ...before?.metadata, ...key, uid: 'uid-1', generation: 1, annotations },
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the API server may hold
      spec: spec as WorkflowSpec,
    });
  }

  engage(fields: Partial<KillSwitch['metadata']> = {}): void {
    this.client.put(resources.killSwitches, {
      metadata: { ...key, creationTimestamp: '2030-01-01T00:00:00Z', ...fields },
      spec: { workflow: 'poster', reason: 'posts twice', engagedBy: 'alice' },
    });
  }

  /** @returns the writes that it made */
  async reconcile(): Promise<{ result: ReconcileResult; writes: string[] }> {
    this.client.writes.length = 0;
    const result = await this.#controller.reconcile('billing/poster', {
      signal: new AbortController().signal,
      correlationId: 'x',
      log: silentLogger(),
    });
    const writes = this.client.writes.map(({ verb, kind }) => `${verb} ${kind}`);
    return { result, writes };
  }

  get workflow(): Workflow {
    const found = this.client.find(resources.workflows, key);
    if (found === undefined) throw new Error('no Workflow');
    return found;
  }

  condition(type: string): Condition | undefined {
    return this.workflow.status?.conditions?.find((item) => item.type === type);
  }

  get policies(): NetworkPolicy[] {
    return this.client.all(resources.networkPolicies);
  }

  get rules(): number[] {
    return this.policies.map(({ spec }) => spec.egress?.length ?? 0);
  }
}

function workload({
  kind = 'Deployment',
  name = 'web',
  ...fields
}: Partial<Workload> & { name?: string } = {}): Workload {
  return {
    kind,
    metadata: { name, namespace: 'billing', uid: `uid-${name}`, labels: { app: name } },
    serviceAccountName: 'poster',
    podLabels: { app: name },
    secretNames: [],
    ...(kind === 'Deployment' && { podSelector: { matchLabels: { app: name } } }),
    isPaused: false,
    isRolledOut: true,
    codeDigest: '',
    finished: false,
    scaleDeletesVolumes: false,
    ...fields,
  };
}

function policyWith(metadata: Partial<NetworkPolicy['metadata']>): NetworkPolicy {
  return {
    metadata: { name: 'p', namespace: 'billing', ...metadata },
    spec: { podSelector: {}, policyTypes: [] },
  };
}

const identityPods = { matchLabels: { [label.identity]: 'poster' } };

let cluster: Cluster;

beforeEach(() => {
  cluster = new Cluster();
  cluster.provision();
});

describe('a complete Workflow', () => {
  it('gets its egress, and says so', async () => {
    await cluster.reconcile();
    expect(cluster.rules).toEqual([2]);
    expect(cluster.workflow.status).toEqual({
      observedGeneration: 1,
      conditions: [
        {
          type: 'Ready',
          status: 'True',
          reason: 'Provisioned',
          message: 'Its targets run as its identity, and reach DNS and the allowlist alone.',
          lastTransitionTime: '2030-01-01T00:00:00Z',
          observedGeneration: 1,
        },
        expect.objectContaining({ type: 'Held', status: 'False', reason: 'Complete' }),
        expect.objectContaining({ type: 'Approved', status: 'True', reason: 'NotRequired' }),
        expect.objectContaining({ type: 'RequesterAllowed', reason: 'RequesterUnknown' }),
        expect.objectContaining({ type: 'Stopped', status: 'False', reason: 'NotEngaged' }),
        expect.objectContaining({ type: 'EgressDeclared', status: 'True', reason: 'Declared' }),
        expect.objectContaining({ type: 'EgressEnforced', status: 'Unknown', reason: 'NotProbed' }),
        expect.objectContaining({ type: 'EgressWidened', status: 'False', reason: 'AsListed' }),
        expect.objectContaining({ type: 'UnusualDestinations', status: 'Unknown' }),
      ],
      targets: { total: 1, running: 1, stopped: 0, missing: 0 },
    });
    expect(cluster.events).toEqual([
      `Normal EgressChanged: NetworkPolicies: created ${cluster.policies[0]?.metadata.name}.`,
      'Normal Ready: Its targets run as its identity, and reach DNS and the allowlist alone.',
    ]);
  });

  it('is left alone when nothing changed', async () => {
    await cluster.reconcile();
    cluster.events.length = 0;
    expect(await cluster.reconcile()).toEqual({ result: {}, writes: [] });
    expect(cluster.events).toEqual([]);
  });

  it('is left alone when it is being deleted, or gone', async () => {
    cluster.client.put(resources.workflows, {
      ...cluster.workflow,
      metadata: { ...cluster.workflow.metadata, deletionTimestamp: '2030-01-01T00:00:00Z' },
    });
    expect((await cluster.reconcile()).writes).toEqual([]);
    cluster.client.remove(resources.workflows, key);
    expect((await cluster.reconcile()).writes).toEqual([]);
  });

  it('is left alone when its namespace is going', async () => {
    cluster.client.put(resources.namespaces, {
      metadata: { name: 'billing', deletionTimestamp: '2030-01-01T00:00:00Z' },
    });
    expect((await cluster.reconcile()).writes).toEqual([]);
  });

  it('takes what matches its selector, also what comes later, and what runs of a CronJob', async () => {
    cluster.labelsPods = false;
    const selector = { matchLabels: { team: 'finance' } };
    cluster.client.remove(resources.deployments, { namespace: 'billing', name: 'web' });
    cluster.declare({
      ...complete,
      targets: [
        { group: 'batch', kind: 'CronJob', selector },
        { group: 'batch', kind: 'CronJob', name: 'nightly' },
      ],
    });
    const labels = { team: 'finance' };
    const nightly = workload({ kind: 'CronJob', name: 'nightly' });
    cluster.run({ ...nightly, metadata: { ...nightly.metadata, labels } });
    await cluster.reconcile();
    expect(cluster.policies).toHaveLength(2);

    const hourly = workload({ kind: 'CronJob', name: 'hourly', isPaused: true });
    cluster.run({ ...hourly, metadata: { ...hourly.metadata, labels } });
    const run = workload({ kind: 'Job', name: 'nightly-1', podLabels: { app: 'before' } });
    const owner = { apiVersion: 'batch/v1', kind: 'CronJob', name: 'nightly', uid: 'uid-nightly' };
    cluster.run({
      ...run,
      metadata: { ...run.metadata, ownerReferences: [{ ...owner, controller: true }] },
    });
    cluster.now += 2_000;
    await cluster.reconcile();
    const apps = cluster.policies.map(({ spec }) => spec.podSelector.matchLabels?.['app']);
    expect(new Set(apps)).toEqual(new Set([undefined, 'before', 'hourly', 'nightly']));
    expect(cluster.workflow.status?.targets).toEqual({
      total: 2,
      running: 1,
      stopped: 1,
      missing: 0,
    });
    expect(cluster.condition('Ready')?.message).not.toContain("isn't a target");
  });

  it('has no policy for each run of a CronJob whose pods have no labels', async () => {
    const owner = { apiVersion: 'batch/v1', kind: 'CronJob', name: 'nightly', uid: 'uid-nightly' };
    const run = workload({
      kind: 'Job',
      name: 'nightly-1',
      podLabels: { 'batch.kubernetes.io/job-name': 'nightly-1' },
    });
    cluster.run(workload({ kind: 'CronJob', name: 'nightly' }));
    cluster.run({
      ...run,
      metadata: { ...run.metadata, ownerReferences: [{ ...owner, controller: true }] },
    });
    cluster.declare({
      ...complete,
      targets: [{ group: 'batch', kind: 'CronJob', name: 'nightly' }],
    });
    cluster.labelsPods = false;
    await cluster.reconcile();
    expect(cluster.policies.map(({ spec }) => spec.podSelector)).toEqual([
      identityPods,
      { matchLabels: { app: 'nightly' } },
    ]);
  });

  it('has a policy that its former pods still need looked at again', async () => {
    cluster.labelsPods = false;
    await cluster.reconcile();
    cluster.run(workload({ podSelector: { matchLabels: { app: 'new' } } }));
    cluster.client.put(resources.pods, { metadata: { name: 'web-1', namespace: 'billing' } });
    expect((await cluster.reconcile()).result).toEqual({ requeueAfterMs: 10_000 });
    expect(cluster.policies).toHaveLength(3);
  });

  it('has one policy, by the label of its identity, and others while pods lack that', async () => {
    const pod = { metadata: { name: 'web-1', namespace: 'billing' } };
    cluster.client.put(resources.pods, { ...pod, spec: { serviceAccountName: 'poster' } });
    await cluster.reconcile();
    expect(cluster.policies.map(({ spec }) => spec.podSelector)).toEqual([
      identityPods,
      { matchLabels: { app: 'web' } },
    ]);
    cluster.client.remove(resources.pods, pod.metadata);
    expect((await cluster.reconcile()).writes).toContain('delete NetworkPolicy');
    expect(cluster.policies.map(({ spec }) => spec.podSelector)).toEqual([identityPods]);
  });

  it('has an entry withdrawn when it ends, and says so once', async () => {
    const [erp] = complete.egress ?? [];
    const entry = { cidr: '198.51.100.0/24', reason: 'a migration' };
    const egress = [erp, { ...entry, expires: '2030-01-01T00:30:00Z' }];
    cluster.declare({ ...complete, egress });
    expect((await cluster.reconcile()).result).toEqual({ requeueAfterMs: 1_800_000 });
    expect(cluster.rules).toEqual([3]);

    cluster.now += 1_800_000;
    cluster.events.length = 0;
    await cluster.reconcile();
    expect(cluster.rules).toEqual([2]);
    expect(cluster.condition('EgressDeclared')).toMatchObject({
      status: 'True',
      reason: 'EntriesExpired',
      message: expect.stringContaining('198.51.100.0/24 (2030-01-01T00:30:00Z)'),
    });
    expect(cluster.events).toContainEqual(expect.stringContaining('Warning EntriesExpired'));
    cluster.events.length = 0;
    expect(await cluster.reconcile()).toEqual({ result: {}, writes: [] });
    expect(cluster.events).toEqual([]);
  });

  it('says which policies of others let its pods reach more, until they are gone', async () => {
    await cluster.reconcile();
    const foreign = (name: string, spec: Partial<NetworkPolicy['spec']>): NetworkPolicy => ({
      metadata: { name, namespace: 'billing' },
      spec: { podSelector: {}, policyTypes: ['Egress'], ...spec },
    });
    const dns = cluster.policies[0]?.spec.egress?.slice(0, 1) ?? [];
    cluster.client.put(resources.networkPolicies, foreign('dns', { egress: dns }));
    cluster.client.put(resources.networkPolicies, foreign('deny', { egress: [] }));
    expect((await cluster.reconcile()).writes).toEqual([]);

    const app = { matchLabels: { app: 'web' } };
    const open = foreign('open', { podSelector: app, egress: [{ ports: [{ port: 443 }] }] });
    cluster.client.put(resources.networkPolicies, open);
    cluster.events.length = 0;
    await cluster.reconcile();
    expect(cluster.condition('EgressWidened')).toMatchObject({
      status: 'True',
      reason: 'PoliciesOfOthers',
      message: expect.stringContaining('open (everywhere on TCP 443).'),
    });
    expect(cluster.condition('Ready')?.status).toBe('True');
    expect(cluster.events).toEqual([expect.stringContaining('Warning EgressWidened')]);

    cluster.client.remove(resources.networkPolicies, open.metadata);
    cluster.events.length = 0;
    await cluster.reconcile();
    expect(cluster.events).toEqual([expect.stringContaining('Normal EgressAsListed')]);
  });

  it('names policies of the network plug-in that let its pods reach more', async () => {
    await cluster.reconcile();
    const spec = { endpointSelector: {}, egress: [{ toCIDR: ['192.0.2.0/24'] }] };
    for (const [resource, namespace] of [
      [resources.ciliumNetworkPolicies, 'billing'],
      [resources.ciliumNetworkPolicies, 'elsewhere'],
      [resources.ciliumClusterwideNetworkPolicies, undefined],
    ] as const) {
      const labels = { [label.workflow]: 'poster' };
      const metadata = { name: 'open', labels, ...(namespace !== undefined && { namespace }) };
      const object = { metadata: { ...metadata, managedFields: [] }, spec, status: {} };
      const kept = projectPlugIn(object);
      expect(Object.keys(kept.metadata)).not.toContain('labels');
      cluster.client.put(resource, kept);
    }
    await cluster.reconcile();
    expect(cluster.condition('EgressWidened')?.message).toContain(
      ': CiliumClusterwideNetworkPolicy open (192.0.2.0/24), CiliumNetworkPolicy open (192.0.2.0/24).',
    );
    // They are nobody's to take away.
    await cluster.client.delete(resources.workflows, key);
    await cluster.client.delete(resources.automationIdentities, key);
    expect((await cluster.reconcile()).writes).toEqual(['delete NetworkPolicy']);
  });

  it('takes no policy for its own that only looks like it', async () => {
    await cluster.reconcile();
    const [own] = cluster.policies;
    if (own === undefined) throw new Error('no policy');
    const { annotations: _, uid: __, ...metadata } = own.metadata;
    const spec = { ...own.spec, egress: [{}] };
    cluster.client.put(resources.networkPolicies, {
      metadata: { ...metadata, name: 'forged' },
      spec,
    });
    await cluster.reconcile();
    expect(cluster.condition('EgressWidened')).toMatchObject({
      status: 'True',
      message: expect.stringContaining('forged (everywhere).'),
    });
  });

  it('takes no policy for its own that knows its UID, and lacks what nobody else may write', async () => {
    await cluster.reconcile();
    const { uid = '' } = cluster.workflow.metadata;
    cluster.client.put(resources.networkPolicies, {
      metadata: {
        name: 'forged',
        namespace: 'billing',
        annotations: { [annotation.ownerUid]: uid },
      },
      spec: { podSelector: {}, policyTypes: ['Egress'], egress: [{}] },
    });
    await cluster.reconcile();
    expect(cluster.condition('EgressWidened')?.message).toContain('forged (everywhere).');
  });

  it('takes away what claims to be its own, and is none that it plans', async () => {
    await cluster.reconcile();
    const [own] = cluster.policies;
    if (own === undefined) throw new Error('no policy');
    const { uid: _, ...metadata } = own.metadata;
    const spec = { ...own.spec, egress: [{}] };
    cluster.client.put(resources.networkPolicies, {
      metadata: { ...metadata, name: 'forged' },
      spec,
    });
    expect((await cluster.reconcile()).writes).toContain('delete NetworkPolicy');
    expect(cluster.policies.map(({ metadata: { name } }) => name)).toEqual([own.metadata.name]);
  });

  it('is as wide as its pods, whatever their template says', async () => {
    const labels = { [label.identity]: 'poster', debug: 'yes' };
    cluster.client.put(resources.networkPolicies, {
      metadata: { name: 'debug', namespace: 'billing' },
      spec: {
        podSelector: { matchLabels: { debug: 'yes' } },
        policyTypes: ['Egress'],
        egress: [{}],
      },
    });
    await cluster.reconcile();
    expect(cluster.condition('EgressWidened')?.status).toBe('False');
    const pod = { metadata: { name: 'web-1', namespace: 'billing', labels } };
    cluster.client.put(resources.pods, { ...pod, spec: { serviceAccountName: 'poster' } });
    await cluster.reconcile();
    expect(cluster.condition('EgressWidened')?.status).toBe('True');
  });

  it('says which addresses it could not look up, and keeps those that it knew', async () => {
    const to = [{ ipBlock: { cidr: '192.0.2.1/32' } }];
    cluster.namedPeers = { KubeAPI: [{ to, ports: [{ protocol: 'TCP', port: 6443 }] }] };
    cluster.declare({ ...complete, egress: [{ peer: 'KubeAPI', reason: 'its own API' }] });
    await cluster.reconcile();
    expect(cluster.condition('EgressDeclared')?.reason).toBe('Declared');

    cluster.namedPeers = {};
    expect((await cluster.reconcile()).writes).toEqual(['patch Workflow']);
    expect(cluster.rules).toEqual([2]);
    expect(cluster.condition('EgressDeclared')).toMatchObject({
      status: 'False',
      reason: 'PeersUnknown',
      message: expect.stringContaining('The addresses of KubeAPI'),
    });
  });

  it('takes over the policies of its predecessor of the same name, and not what these allowed', async () => {
    await cluster.reconcile();
    const [before] = cluster.policies;
    await cluster.client.delete(resources.workflows, key);
    expect((await cluster.reconcile()).writes).toEqual([]);
    // Another one, which is held.
    cluster.client.put(resources.workflows, {
      metadata: { ...key, uid: 'uid-of-another' },
      spec: { ...complete, owner: undefined },
    });
    await cluster.reconcile();
    const [after, ...others] = cluster.policies;
    expect(others).toEqual([]);
    expect(after?.metadata.uid).toBe(before?.metadata.uid);
    expect(after?.metadata.annotations?.[annotation.ownerUid]).toBe('uid-of-another');
    expect(before?.spec.egress).toHaveLength(2);
    expect(after?.spec.egress).toHaveLength(1);
  });

  it('has what ends withdrawn in time, also when it was deleted', async () => {
    const end = '2030-01-01T00:10:00Z';
    const ports = [{ port: 443, protocol: 'TCP' as const }];
    cluster.declare({
      ...complete,
      egress: [
        { cidr: '203.0.113.10/32', ports, reason: 'ERP' },
        { cidr: '203.0.113.10/32', ports, reason: 'the same, for a while', expires: end },
        { cidr: '192.0.2.0/24', reason: 'a migration', expires: end },
        { cidr: '198.51.100.0/24', reason: 'another', expires: '2030-01-01T00:20:00Z' },
      ],
      ingress: [{ cidr: '192.0.2.0/24', reason: 'a migration', expires: '2030-01-01T00:20:00Z' }],
    });
    await cluster.reconcile();
    await cluster.client.delete(resources.workflows, key);
    const first = await cluster.reconcile();
    expect(first).toMatchObject({ writes: [], result: { requeueAfterMs: 600_000 } });
    cluster.now += 600_000;
    const second = await cluster.reconcile();
    expect(second).toMatchObject({
      writes: ['apply NetworkPolicy'],
      result: { requeueAfterMs: 600_000 },
    });
    const spec = (): string => JSON.stringify(cluster.policies[0]?.spec);
    expect(cluster.policies[0]?.spec.egress).toHaveLength(3);
    expect(cluster.policies[0]?.spec.ingress).toHaveLength(1);
    expect(spec()).toContain('203.0.113.10/32');
    expect(JSON.stringify(cluster.policies[0]?.spec.egress)).not.toContain('192.0.2.0/24');
    cluster.now += 600_000;
    await cluster.reconcile();
    expect(cluster.policies[0]?.spec.egress).toHaveLength(2);
    expect(cluster.policies[0]?.spec.ingress).toEqual([]);
    expect((await cluster.reconcile()).writes).toEqual([]);
  });

  it('leaves policies with a reference to its predecessor to the garbage collector', async () => {
    const owner = { apiVersion: API_VERSION, kind: 'Workflow', name: 'poster', uid: 'uid-0' };
    const before = cluster.client.put(
      resources.networkPolicies,
      policyWith({
        labels: { [label.managedBy]: MANAGED_BY, [label.workflow]: 'poster' },
        ownerReferences: [{ ...owner, controller: true }],
      }),
    );
    await cluster.reconcile();
    expect(cluster.policies).toContain(before);
  });

  it('counts a target that does not exist yet, and is not held for it', async () => {
    cluster.client.remove(resources.deployments, { namespace: 'billing', name: 'web' });
    await cluster.reconcile();
    expect(cluster.workflow.status?.targets).toMatchObject({ total: 1, missing: 1 });
    expect(cluster.condition('Held')?.status).toBe('False');
    expect(cluster.condition('Ready')).toMatchObject({
      status: 'True',
      message: expect.stringContaining("Targets that don't exist yet: Deployment web."),
    });
  });

  it('says what runs as its identity outside of its targets', async () => {
    for (let index = 0; index < 7; index++) cluster.run(workload({ name: `stray-${index}` }));
    await cluster.reconcile();
    expect(cluster.condition('Ready')?.message).toContain(
      "isn't a target: Deployment stray-0, Deployment stray-1, Deployment stray-2, Deployment stray-3, Deployment stray-4 and 2 more.",
    );
  });
});

describe('a Workflow is held', () => {
  it.each<{ what: string; break: () => void; reason: string; says: string }>([
    {
      what: 'the owner is missing',
      break: () => cluster.declare({ ...complete, owner: { team: ' ', contact: 'a' } }),
      reason: 'OwnerMissing',
      says: 'Missing spec.owner.team, spec.owner.escalation.',
    },
    {
      what: 'the namespace is not guarded',
      break: () => cluster.guard(undefined),
      reason: 'NamespaceNotGuarded',
      says: `kubectl label namespace billing ${label.environment}=prod`,
    },
    {
      what: 'there is no identity of its name',
      break: () => cluster.client.remove(resources.automationIdentities, key),
      reason: 'IdentityMissing',
      says: 'Missing AutomationIdentity poster in namespace billing',
    },
    {
      what: 'its identity is held',
      break: () =>
        cluster.identify(
          condition('Ready', 'False', 'OwnerMissing'),
          condition('Held', 'True', 'OwnerMissing'),
        ),
      reason: 'IdentityHeld',
      says: 'AutomationIdentity poster is held: OwnerMissing.',
    },
    {
      what: 'its identity is not ready',
      break: () => cluster.identify(condition('Ready', 'False', 'ForeignObject')),
      reason: 'IdentityNotReady',
      says: "AutomationIdentity poster isn't ready: ForeignObject.",
    },
    {
      what: 'a target runs as another',
      break: () => cluster.run(workload({ serviceAccountName: 'default' })),
      reason: 'TargetRunsAsAnother',
      says: 'Deployment web (as default). Set serviceAccountName: poster in their pod templates.',
    },
    {
      what: 'pods of a target cannot be selected',
      break: () => {
        cluster.labelsPods = false;
        cluster.run(workload({ podSelector: {} }));
      },
      reason: 'PodsNotSelectable',
      says: 'No policy can select the pods of Deployment web',
    },
    {
      what: 'a destination is in another environment',
      break: () => {
        cluster.client.put(resources.namespaces, {
          metadata: { name: 'data', labels: { [label.environment]: 'test' } },
        });
        cluster.declare({ ...complete, egress: [{ namespace: 'data', reason: 'x' }] });
      },
      reason: 'OtherEnvironment',
      says: 'In a namespace of another environment than prod, and not allowed: namespace data.',
    },
    ...['0.0.0.0/0', '64.0.0.0/2', '::/0', '169.254.0.0/16', 'fd00:ec2::/32'].map((cidr) => ({
      what: `a destination is too wide: ${cidr}`,
      break: () => cluster.declare({ ...complete, egress: [{ cidr, reason: 'x' }] }),
      reason: 'DestinationRefused',
      says: `Too wide, or with the metadata address of a cloud inside: ${cidr}.`,
    })),
    {
      what: 'the spec cannot be read',
      break: () => cluster.declare({ ...complete, egress: [{ cidr: 7 }] }),
      reason: 'SpecMalformed',
      says: "Can't be read: spec.egress.0.cidr, spec.egress.0.reason.",
    },
    {
      what: 'an entry has no peer',
      break: () => cluster.declare({ ...complete, egress: [{ reason: 'everything' }] }),
      reason: 'SpecMalformed',
      says: "Can't be read: spec.egress[0].",
    },
    {
      what: 'a target selects everything',
      break: () =>
        cluster.declare({
          ...complete,
          targets: [{ group: 'apps', kind: 'Deployment', selector: { matchLabels: {} } }],
        }),
      reason: 'SpecMalformed',
      says: "Can't be read: spec.targets[0].",
    },
  ])('when $what', async ({ break: act, reason, says }) => {
    act();
    await cluster.reconcile();
    const held = { status: 'True', reason, message: expect.stringContaining(says) };
    expect(cluster.condition('Held')).toMatchObject(held);
    expect(cluster.condition('Ready')).toMatchObject({ ...held, status: 'False' });
    expect(cluster.held).toEqual(new Map([['Workflow billing/poster', reason]]));
    expect(cluster.rules.every((count) => count === 1)).toBe(true);
    expect(cluster.events.filter((event) => event.startsWith('Warning'))).toEqual([
      expect.stringContaining(`Warning Held: `),
    ]);
    cluster.events.length = 0;
    expect((await cluster.reconcile()).writes).toEqual([]);
    expect(cluster.events).toEqual([]);
  });

  it('with the whole list, when several things are missing', async () => {
    cluster.client.remove(resources.automationIdentities, key);
    cluster.guard(' ');
    await cluster.reconcile();
    expect(cluster.condition('Held')).toMatchObject({ reason: 'Incomplete' });
    expect(cluster.condition('Held')?.message).toMatch(/environment.*AutomationIdentity/);
    expect(cluster.policies).toEqual([]);
  });

  it('once for a namespace that holds its identity as well', async () => {
    cluster.guard(undefined);
    cluster.identify(condition('Held', 'True', 'NamespaceNotGuarded'));
    await cluster.reconcile();
    expect(cluster.condition('Held')?.reason).toBe('NamespaceNotGuarded');
  });

  it('whatever its spec is', async () => {
    for (const spec of [undefined, null, 7, 'text', [], { targets: 'all' }, { targets: [null] }]) {
      cluster.declare(spec);
      await cluster.reconcile();
      expect(cluster.condition('Held')?.status).toBe('True');
    }
    expect(cluster.policies).toEqual([]);
  });

  it('and keeps what it has, but gets nothing new', async () => {
    await cluster.reconcile();
    cluster.guard(undefined);
    cluster.declare({
      ...complete,
      egress: [...(complete.egress ?? []), { cidr: '198.51.100.0/24', reason: 'more' }],
    });
    await cluster.reconcile();
    expect(cluster.rules).toEqual([2]);
    cluster.guard('prod');
    await cluster.reconcile();
    expect(cluster.rules).toEqual([3]);
    expect(cluster.events).toContain('Normal NoLongerHeld: Nothing is missing.');
    expect(cluster.held).toEqual(new Map());
  });

  it('not while its identity is new, but gets nothing until that is ready', async () => {
    cluster.identify();
    await cluster.reconcile();
    expect(cluster.rules).toEqual([1]);
    expect(cluster.condition('Held')?.status).toBe('False');
    expect(cluster.condition('Ready')).toMatchObject({ status: 'False', reason: 'Provisioning' });
    expect(cluster.events.filter((event) => event.startsWith('Warning'))).toEqual([]);
    cluster.identify(condition('Ready', 'True', 'Provisioned'));
    await cluster.reconcile();
    expect(cluster.rules).toEqual([2]);
    expect(cluster.condition('Ready')?.status).toBe('True');
  });
});

describe('a credential in a target', () => {
  const secretHints = [{ place: 'container main, env TOKEN', looksLike: 'a GitHub token' }];
  const targeted = async (risk: Workflow['spec']['risk'], fields: Partial<Workload>) => {
    cluster.declare({ ...complete, risk });
    cluster.run(workload({ secretHints, ...fields }));
    await cluster.reconcile();
    return [cluster.condition('SecretInSpec'), cluster.condition('Held')].map(
      (found) => found && `${found.status} ${found.reason}`,
    );
  };

  it('warns where the risk is low, and holds where it is not', async () => {
    expect(await targeted('Low', {})).toEqual(['True CredentialFound', 'False Complete']);
    expect(cluster.condition('SecretInSpec')?.message).toContain(
      'Deployment web, container main, env TOKEN (looks like a GitHub token)',
    );
    expect(await targeted('Medium', {})).toEqual(['True CredentialFound', 'True SecretInSpec']);
    expect(cluster.workflow.status?.holds?.map(({ reason }) => reason)).toContain('SecretInSpec');
  });

  it('is none where somebody said why, and says so when it is gone', async () => {
    const metadata = workload().metadata;
    const annotations = { [annotation.allowSecretInSpec]: 'a public key' };
    expect(await targeted('Low', { metadata: { ...metadata, annotations } })).toEqual([
      undefined,
      'False Complete',
    ]);
    await targeted('Low', {});
    expect(await targeted('Low', { secretHints: [] })).toEqual([
      'False NoneFound',
      'False Complete',
    ]);
  });
});

it('kube-system is never guarded', () => {
  const labels = { [label.environment]: 'prod' };
  expect(isGuarded({ metadata: { name: 'billing', labels } })).toBe(true);
  expect(isGuarded({ metadata: { name: 'kube-system', labels } })).toBe(false);
});

describe('a stopped Workflow', () => {
  beforeEach(async () => {
    await cluster.reconcile();
    cluster.events.length = 0;
  });

  it('says who stopped it, when and why, and reaches nothing any more', async () => {
    cluster.engage();
    cluster.identify(condition('Ready', 'False', 'KillSwitchEngaged'));
    cluster.declare({
      ...complete,
      egress: [...(complete.egress ?? []), { cidr: '198.51.100.0/24', reason: 'more' }],
    });
    await cluster.reconcile();
    const why = {
      reason: 'KillSwitchEngaged',
      message:
        'Engaged by alice at 2030-01-01T00:00:00Z: "posts twice". To release it, as another person: kubectl guardrails release poster -n billing --reason "…"',
    };
    expect(cluster.condition('Stopped')).toMatchObject({ status: 'True', ...why });
    expect(cluster.condition('Ready')).toMatchObject({ status: 'False', ...why });
    expect(cluster.condition('Held')?.status).toBe('False');
    expect(cluster.rules).toEqual([0]);
    expect(cluster.events).toEqual([
      expect.stringContaining('Normal EgressChanged'),
      'Warning KillSwitchEngaged: Engaged by alice: posts twice',
    ]);
  });

  it('has its egress back as soon as the fence is lifted', async () => {
    cluster.engage();
    await cluster.reconcile();
    cluster.engage({ labels: { [label.releasing]: 'true' } });
    await cluster.reconcile();
    expect(cluster.rules).toEqual([2]);
    expect(cluster.condition('Stopped')?.reason).toBe('Releasing');
  });

  it('is stopped by the annotation alone', async () => {
    cluster.declare(complete, {
      [annotation.killSwitch]: 'posts twice',
      [annotation.killSwitchEngagedBy]: 'alice',
    });
    await cluster.reconcile();
    expect(cluster.condition('Stopped')).toMatchObject({
      status: 'True',
      reason: 'KillSwitchEngaged',
      message: expect.stringContaining('Engaged by alice: "posts twice".'),
    });
    // The latch follows, and tells the same again.
    cluster.engage();
    cluster.events.length = 0;
    await cluster.reconcile();
    expect(cluster.events).toEqual([expect.stringContaining('Normal EgressChanged')]);
  });

  it('stays stopped while it is being released', async () => {
    cluster.engage();
    await cluster.reconcile();
    cluster.events.length = 0;
    cluster.engage({ annotations: { [annotation.release]: 'x', [annotation.releasedBy]: 'bob' } });
    await cluster.reconcile();
    expect(cluster.events).toEqual([]);
    expect(cluster.condition('Stopped')).toMatchObject({
      status: 'True',
      reason: 'Releasing',
      message: expect.stringContaining('bob asked for it'),
    });
    expect(cluster.condition('Ready')?.status).toBe('False');

    cluster.client.remove(resources.killSwitches, key);
    cluster.events.length = 0;
    await cluster.reconcile();
    expect(cluster.condition('Stopped')).toMatchObject({ status: 'False', reason: 'NotEngaged' });
    expect(cluster.events).toEqual([
      expect.stringContaining('Normal EgressChanged'),
      expect.stringContaining('Normal Ready'),
    ]);
  });

  it('has its counts written once a second at most', async () => {
    const both = [
      ...complete.targets,
      { group: 'apps', kind: 'Deployment', name: 'web-2' },
    ] as const;
    cluster.run(workload({ name: 'web-2' }));
    cluster.declare({ ...complete, targets: both });
    cluster.engage();
    await cluster.reconcile();

    cluster.now += 400;
    cluster.run(workload({ isPaused: true }));
    expect(await cluster.reconcile()).toEqual({ result: { requeueAfterMs: 600 }, writes: [] });
    cluster.run(workload({ name: 'web-2', isPaused: true }));
    cluster.now += 600;
    expect(await cluster.reconcile()).toEqual({ result: {}, writes: ['patch Workflow'] });
    expect(cluster.workflow.status?.targets).toMatchObject({ running: 0, stopped: 2 });
    expect(await cluster.reconcile()).toEqual({ result: {}, writes: [] });
  });
});

it('says what its pods are refused, once, as long as that grows little', async () => {
  cluster.provision();
  await cluster.reconcile();
  expect(cluster.condition('UnusualDestinations')).toMatchObject({ status: 'Unknown' });
  for (const [refused, status] of [
    [0, 'False'],
    [20, 'True'],
  ] as const) {
    cluster.refused = refused;
    await cluster.reconcile();
    expect(cluster.condition('UnusualDestinations')).toMatchObject({ status });
  }
  cluster.refused = 49;
  expect((await cluster.reconcile()).writes).toEqual([]);
  expect(cluster.events.filter((event) => event.includes('PacketsRefused'))).toHaveLength(1);
});

describe('a Workflow with hosts', () => {
  const host = {
    host: 'api.example.com',
    ports: [{ port: 443, protocol: 'TCP' as const }],
    reason: 'API',
  };
  const looked = { ...host, resolve: true };
  const [ciliumKind, clusterKind] = plugInKinds.map(({ resource }) => resource);
  const cilium = (): PlugInPolicy[] => (ciliumKind === undefined ? [] : cluster.plugIn(ciliumKind));
  const admin = (): PlugInPolicy[] =>
    clusterKind === undefined ? [] : cluster.plugIn(clusterKind);
  const addresses = (): unknown[] =>
    cluster.policies.flatMap(({ spec }) =>
      (spec.egress ?? []).slice(1).map(({ to }) => to?.map(({ ipBlock }) => ipBlock?.cidr)),
    );

  beforeEach(() => cluster.provision());

  it('is held where no policy knows names, and says what to do', async () => {
    cluster.declare({ ...complete, egress: [host] });
    await cluster.reconcile();
    expect(cluster.condition('Held')).toMatchObject({ reason: 'HostsNotSupported' });
    expect(cluster.condition('Held')?.message).toContain('add resolve: true');
    cluster.served = undefined;
    await cluster.reconcile();
    expect(cluster.condition('Held')?.message).toContain("It isn't known");
  });

  it.each([
    ['CiliumNetworkPolicy', cilium],
    ['ClusterNetworkPolicy', admin],
  ])('has them by a %s, which denies at a kill and goes with the last host', async (kind, live) => {
    cluster.served = [kind];
    cluster.declare({ ...complete, egress: [looked] });
    const { writes } = await cluster.reconcile();
    // What allows stands before the NetworkPolicy changes.
    expect(writes).toEqual([`create ${kind}`, 'create NetworkPolicy', 'patch Workflow']);
    expect(JSON.stringify(live())).toContain('api.example.com');
    expect(addresses()).toEqual([]);
    expect((await cluster.reconcile()).writes).toEqual([]);

    cluster.engage();
    await cluster.reconcile();
    expect(JSON.stringify(live())).not.toContain('api.example.com');
    expect(JSON.stringify(live()[0]?.spec)).toMatch(/egressDeny":\[\{"toEntities|"action":"Deny"/);
    const { uid } = live()[0]?.metadata ?? {};
    cluster.engage({ labels: { [label.releasing]: 'true' } });
    await cluster.reconcile();
    expect(JSON.stringify(live())).toContain('api.example.com');
    expect(live()[0]?.metadata.uid).toBe(uid);

    cluster.declare(complete);
    await cluster.reconcile();
    expect(live()).toEqual([]);
  });

  it('has what another kind allowed until it is allowed anew', async () => {
    cluster.served = ['ClusterNetworkPolicy'];
    cluster.declare({ ...complete, egress: [host] });
    await cluster.reconcile();
    cluster.served = ['CiliumNetworkPolicy', 'ClusterNetworkPolicy'];
    const { writes } = await cluster.reconcile();
    expect(writes).toEqual(['create CiliumNetworkPolicy', 'delete ClusterNetworkPolicy']);
  });

  it('leaves nothing behind once nothing runs as its identity, unless a kill holds', async () => {
    cluster.served = ['ClusterNetworkPolicy'];
    cluster.declare({ ...complete, egress: [host] });
    cluster.engage();
    await cluster.reconcile();
    await cluster.client.delete(resources.workflows, key);
    expect((await cluster.reconcile()).writes).toEqual([]);
    expect(admin()).toHaveLength(1);
    await cluster.client.delete(resources.killSwitches, key);
    expect((await cluster.reconcile()).writes).toEqual([]);
    await cluster.client.delete(resources.automationIdentities, key);
    expect((await cluster.reconcile()).writes).toEqual([
      'delete ClusterNetworkPolicy',
      'delete NetworkPolicy',
    ]);
  });

  it('leaves nothing of its predecessor of the same name', async () => {
    cluster.served = ['ClusterNetworkPolicy'];
    cluster.declare({ ...complete, egress: [host] });
    await cluster.reconcile();
    const { name } = admin()[0]?.metadata ?? {};
    cluster.client.put(resources.workflows, {
      ...cluster.workflow,
      metadata: { ...cluster.workflow.metadata, uid: 'uid-2' },
    });
    await cluster.reconcile();
    expect(admin().map(({ metadata }) => metadata.name)).not.toContain(name);
    expect(admin()).toHaveLength(1);
  });

  it('has their addresses looked up where it asks for that, and says how many there are', async () => {
    cluster.dns.set('api.example.com', ['203.0.113.8', '2001:db8::8']);
    cluster.declare({ ...complete, egress: [looked] });
    await cluster.resolve();
    expect(addresses()).toEqual([['2001:db8::8/128', '203.0.113.8/32']]);
    expect(cluster.condition('EgressDeclared')).toMatchObject({ status: 'True' });
    expect(cluster.workflow.status?.resolvedHosts).toEqual([
      { host: 'api.example.com', addresses: 2, lastChanged: '2030-01-01T00:00:00Z' },
    ]);
    cluster.now += 60_000;
    await cluster.reconcile();
    await new Promise(setImmediate);
    expect((await cluster.reconcile()).writes).toEqual([]);
  });

  it('keeps addresses for a while, and all that it knew where a lookup fails or leads inside', async () => {
    cluster.dns.set('api.example.com', ['203.0.113.8']);
    cluster.declare({ ...complete, egress: [looked] });
    await cluster.resolve();
    cluster.dns.set('api.example.com', ['203.0.113.9']);
    cluster.now += 60_000;
    await cluster.resolve();
    expect(addresses()).toEqual([['203.0.113.8/32', '203.0.113.9/32']]);
    cluster.now += 11 * 60_000;
    await cluster.resolve();
    expect(addresses()).toEqual([['203.0.113.9/32']]);

    for (const answer of [new Error('no server'), [], ['169.254.169.254', '10.0.0.1', '::1']]) {
      cluster.dns.set('api.example.com', answer);
      cluster.now += 60 * 60_000;
      const writes = await cluster.resolve();
      expect(writes).not.toContain('apply NetworkPolicy');
      expect(addresses()).toEqual([['203.0.113.9/32']]);
      expect(cluster.condition('EgressDeclared')).toMatchObject({ reason: 'HostsUnresolved' });
    }
    expect(cluster.condition('EgressDeclared')?.message).toContain('leads to 169.254.169.254');
  });

  it('keeps them over a restart, also while nothing new is granted', async () => {
    cluster.dns.set('api.example.com', ['203.0.113.8']);
    cluster.declare({ ...complete, egress: [looked] });
    await cluster.resolve();
    cluster.hosts = cluster.resolver();
    cluster.dns.set('api.example.com', new Error('no server'));
    await cluster.resolve();
    expect(addresses()).toEqual([['203.0.113.8/32']]);

    cluster.guard(undefined);
    cluster.dns.set('api.example.com', ['203.0.113.9']);
    cluster.dns.set('new.example.com', ['203.0.113.10']);
    cluster.declare({ ...complete, egress: [looked, { ...looked, host: 'new.example.com' }] });
    cluster.now += 60_000;
    await cluster.resolve();
    await cluster.reconcile();
    expect(addresses()).toEqual([['203.0.113.8/32', '203.0.113.9/32']]);
  });

  it('believes of an annotation only what its policy allows', async () => {
    cluster.dns.set('api.example.com', ['203.0.113.8']);
    cluster.declare({ ...complete, egress: [looked] });
    await cluster.resolve();
    const [policy] = cluster.policies;
    if (policy === undefined) throw new Error('no policy');
    const hosts = { 'api.example.com': { addresses: ['198.51.100.1'], since: 'x' } };
    cluster.client.put(resources.networkPolicies, {
      ...policy,
      metadata: {
        ...policy.metadata,
        annotations: {
          ...policy.metadata.annotations,
          [annotation.namedPeers]: JSON.stringify({ hosts }),
        },
      },
    });
    cluster.hosts = cluster.resolver();
    cluster.dns.set('api.example.com', new Error('no server'));
    await cluster.resolve();
    expect(addresses()).toEqual([]);
  });
});

describe('a Workflow with limits', () => {
  const run = (name: string): void => {
    const creationTimestamp = new Date(cluster.now).toISOString();
    const cronJob = { apiVersion: 'batch/v1', kind: 'CronJob', name: 'nightly', uid: 'uid-2' };
    const ownerReferences = [{ ...cronJob, controller: true }];
    const own = { name, namespace: 'billing', uid: `uid-${name}` };
    const metadata = { ...own, creationTimestamp, ownerReferences };
    cluster.run({ ...workload({ kind: 'Job', name }), metadata });
  };

  beforeEach(async () => {
    cluster.declare({ ...complete, limits: { maxRunsPerHour: 2, onBreach: 'Hold' } });
    await cluster.reconcile();
  });

  it('says so, and is held when one is breached', async () => {
    expect(cluster.condition('LimitBreached')).toMatchObject({ reason: 'WithinLimits' });
    for (const name of ['a', 'b', 'c']) run(name);
    cluster.events.length = 0;
    const { writes } = await cluster.reconcile();
    expect(writes).toEqual(['patch Workflow']);
    const text = 'maxRunsPerHour: 3 runs were created within an hour, and 2 may be.';
    expect(cluster.condition('LimitBreached')).toMatchObject({
      status: 'True',
      reason: 'TooManyRunsPerHour',
    });
    expect(cluster.condition('Held')).toMatchObject({ status: 'True', reason: 'LimitBreached' });
    for (const type of ['LimitBreached', 'Held', 'Ready']) {
      expect(cluster.condition(type)?.message).toContain(text);
    }
    expect(cluster.breaches).toEqual(['maxRunsPerHour']);
    expect(cluster.events).toEqual([
      expect.stringContaining('Warning Held'),
      expect.stringContaining(`Warning LimitBreached: ${text}`),
    ]);
    expect((await cluster.reconcile()).writes).toEqual(['patch Workflow']);
    expect(cluster.workflow.metadata.labels).toEqual({ [label.limitBreached]: 'true' });
    expect((await cluster.reconcile()).writes).toEqual([]);
    expect(cluster.breaches).toHaveLength(1);
  });

  it('has what is counted written once a second at most', async () => {
    run('a');
    const { result, writes } = await cluster.reconcile();
    expect(writes).toEqual([]);
    expect(result.requeueAfterMs).toBe(1_000);
    cluster.now += 1_000;
    expect((await cluster.reconcile()).writes).toEqual(['patch Workflow']);
    expect(cluster.workflow.status?.runs?.perMinute?.created).toEqual([1]);
  });

  it('gets its egress all the same where its marks can not be written', async () => {
    for (const name of ['a', 'b', 'c']) run(name);
    await cluster.reconcile();
    cluster.client.remove(resources.networkPolicies, {
      namespace: 'billing',
      name: cluster.policies[0]?.metadata.name ?? '',
    });
    cluster.client.beforeWrite = ({ kind, subresource }) => {
      if (kind === 'Workflow' && subresource === undefined) {
        throw new ApiError('forbidden', { status: 403, reason: 'Forbidden' });
      }
    };
    await expect(cluster.reconcile()).rejects.toThrow('forbidden');
    expect(cluster.condition('Ready')?.message).toContain('It is tried again: forbidden');
    expect(cluster.workflow.status?.runs?.breaches).toHaveLength(1);
  });
});

describe('when something goes wrong', () => {
  it('a NetworkPolicy of somebody else is left alone, told, and looked at again', async () => {
    await cluster.reconcile();
    const [policy] = cluster.policies;
    if (policy === undefined) throw new Error('no policy');
    cluster.client.remove(resources.networkPolicies, policy.metadata);
    const foreign = { ...policy, metadata: { name: policy.metadata.name, namespace: 'billing' } };
    const stored = cluster.client.put(resources.networkPolicies, foreign);

    const { result } = await cluster.reconcile();
    expect(result).toEqual({ requeueAfterMs: 60_000 });
    expect(cluster.policies).toEqual([stored]);
    expect(cluster.condition('Ready')).toMatchObject({ status: 'False', reason: 'ForeignObject' });
    expect(cluster.condition('Held')?.status).toBe('False');
    expect(cluster.events.at(-1)).toContain('Warning ForeignObject: NetworkPolicy');
    await expect(cluster.reconcile()).resolves.toMatchObject({ writes: ['create NetworkPolicy'] });
  });

  it('an error of the API server is told and tried again', async () => {
    const failure = new ApiError('etcd is on fire', { status: 500 });
    cluster.client.beforeWrite = ({ kind }) => {
      if (kind === 'NetworkPolicy') throw failure;
    };
    await expect(cluster.reconcile()).rejects.toBe(failure);
    expect(cluster.condition('Ready')).toMatchObject({
      reason: 'ApplyFailed',
      message: 'It is tried again: etcd is on fire',
    });
  });

  it('a conflict tells nothing, and is planned anew', async () => {
    const conflict = new ApiError('changed', { status: 409, reason: 'Conflict' });
    cluster.client.beforeWrite = ({ kind }) => {
      if (kind === 'NetworkPolicy') throw conflict;
    };
    await expect(cluster.reconcile()).rejects.toBe(conflict);
    expect(cluster.workflow.status).toBeUndefined();
  });

  it('a Workflow that goes while it is looked at is no error', async () => {
    cluster.client.beforeWrite = ({ kind }) => {
      if (kind === 'Workflow') throw new ApiError('gone', { status: 404, reason: 'NotFound' });
    };
    await expect(cluster.reconcile()).resolves.toMatchObject({ result: {} });
    expect(cluster.events).not.toContainEqual(expect.stringContaining('Ready'));
  });

  it('messages stay short, however much is wrong', async () => {
    const names = Array.from({ length: 200 }, (_, index) => `${'x'.repeat(50)}-${index}`);
    for (const name of names) cluster.run(workload({ name, serviceAccountName: 'default' }));
    cluster.declare({
      ...complete,
      targets: names.map((name) => ({ group: 'apps', kind: 'Deployment', name })),
    });
    await cluster.reconcile();
    expect(cluster.condition('Held')?.message).toContain('and 195 more');
    expect(JSON.stringify(cluster.workflow.status).length).toBeLessThan(4096);
  });
});

describe('a change concerns', () => {
  const workflows = new ObjectStore<Workflow>({
    namespace: ({ metadata }) => [metadata.namespace ?? ''],
    peerNamespace: peerNamespaces,
  });
  const put = (name: string, spec: unknown, namespace = 'billing'): unknown =>
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the API server may hold
    workflows.set({ metadata: { name, namespace }, spec: spec as WorkflowSpec });
  put('poster', {});
  put('by-name', { targets: [{ kind: 'Deployment', name: 'web' }] });
  put('by-kind', { targets: [{ kind: 'StatefulSet', name: 'web' }] });
  put('by-label', { targets: [{ kind: 'Deployment', selector: { matchLabels: { app: 'web' } } }] });
  put('by-nothing', { targets: [{ kind: 'Deployment', selector: { matchLabels: {} } }] });
  put('broken', { targets: [null, 7, { kind: 'Deployment', selector: 'all' }] });
  put('elsewhere', { targets: [{ kind: 'Deployment', name: 'web' }] }, 'other');

  const concerned = (change: Change<Workload>): string[] => keysFor.workload(change, workflows);
  const [web, other] = [workload(), workload({ serviceAccountName: 'x', name: 'other' })];

  it('of a workload the Workflows that it runs as and those that name or select it', () => {
    expect(concerned({ type: 'added', object: web })).toEqual([
      'billing/poster',
      'billing/by-name',
      'billing/by-label',
    ]);
    expect(concerned({ type: 'deleted', object: other })).toEqual([]);
  });

  it('of a workload that goes as it was, too', () => {
    expect(concerned({ type: 'deleted', object: web, previous: web })).toHaveLength(3);
  });

  it('of a workload also those that it was a target of', () => {
    const labels = { app: 'none' };
    const relabelled = { ...web, metadata: { ...web.metadata, labels }, serviceAccountName: 'x' };
    expect(concerned({ type: 'updated', object: relabelled, previous: web })).toEqual([
      'billing/poster',
      'billing/by-name',
      'billing/by-label',
    ]);
  });

  it.each<{ what: string; previous: Workload; object: Workload; isHeard: boolean }>([
    {
      what: 'a rollout',
      previous: web,
      object: { ...web, restartedAt: '2026-05-01T12:00:00Z' },
      isHeard: false,
    },
    { what: 'a stop', previous: web, object: { ...web, isPaused: true }, isHeard: true },
    { what: 'new pod labels', previous: web, object: { ...web, podLabels: {} }, isHeard: true },
  ])('of a workload nobody, unless it matters: $what', ({ previous, object, isHeard }) => {
    expect(concerned({ type: 'updated', object, previous }).length > 0).toBe(isHeard);
  });

  it('of a NetworkPolicy of others all Workflows of the namespace, once', () => {
    const policy = policyWith({ name: 'theirs' });
    const all = workflows.byIndex('namespace', 'billing').map(keyOf);
    for (const type of ['added', 'deleted'] as const) {
      const change = { type, object: policy, previous: policy };
      expect(keysFor.networkPolicy(change, workflows)).toEqual(all);
    }
    const relabelled = { ...policy, metadata: { ...policy.metadata, labels: { a: 'b' } } };
    const change = { object: relabelled, previous: policy };
    expect(keysFor.networkPolicy({ type: 'updated', ...change }, workflows)).toEqual([]);
  });

  it('of a pod the Workflow that it runs as, where a policy could select it', () => {
    const pod = (labels: Record<string, string>): Pod => ({
      metadata: { name: 'web-1', namespace: 'billing', labels },
      spec: { serviceAccountName: 'poster' },
    });
    const [plain, labelled] = [pod({}), pod({ [label.identity]: 'poster' })];
    const policies = new ObjectStore<NetworkPolicy>(policyIndexes);
    const keys = (change: Change<Pod>): string[] => keysFor.pod(change, workflows, policies);
    expect(keys({ type: 'deleted', object: plain })).toEqual(['billing/poster']);
    expect(keys({ type: 'added', object: labelled })).toEqual([]);
    policies.set(policyWith({ name: 'theirs' }));
    expect(keys({ type: 'added', object: labelled })).toEqual(['billing/poster']);
    expect(keys({ type: 'updated', object: labelled, previous: labelled })).toEqual([]);
  });

  it('of another object the Workflows that depend on it', () => {
    const metadata = { name: 'poster', namespace: 'billing' };
    const owner = { apiVersion: API_VERSION, kind: 'Workflow', name: 'poster', uid: 'uid-1' };
    const spec = { workflow: 'poster', reason: 'x' };
    const labels = { [label.managedBy]: MANAGED_BY, [label.workflow]: 'poster' };
    const ownerReferences = [{ ...owner, controller: true }];
    expect([
      keysFor.workflow({ metadata, spec: { targets: [] } }),
      keysFor.identity({ metadata, spec: {} }),
      keysFor.killSwitch({ metadata, spec }, workflows),
      policyIndexes.workflow(policyWith({ ownerReferences })),
      policyIndexes.workflow(policyWith({ ownerReferences, labels })),
      policyIndexes.workflow(policyWith({ labels })),
    ]).toEqual(Array.from({ length: 6 }, () => ['billing/poster']));
    expect(
      policyIndexes.workflow(policyWith({ ownerReferences: [{ ...owner, kind: 'X' }] })),
    ).toEqual([]);
    put('reader', { egress: [null, { namespace: 'other' }], ingress: 7 });
    expect(keysFor.namespace({ metadata: { name: 'other' } }, workflows)).toEqual([
      'other/elsewhere',
      'billing/reader',
    ]);
  });
});
