import { beforeEach, describe, expect, it } from 'vitest';
import { annotation, label, MANAGED_BY } from '../../api/names.ts';
import type { KubeObject, NetworkPolicy } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import { silentLogger, type Logger } from '../../observability/logger.ts';
import { Applier } from '../../runtime/applier.ts';
import type { GetOptions, ObjectKey } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import type { ReconcileResult } from '../../runtime/controller.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { expiriesOf } from './expiries.ts';
import { cilium } from './plug-in.ts';
import { PlugInPolicies, plugInKeys } from './plug-in-policies.ts';
import type { EgressRule } from './rules.ts';
import { EgressTeardown, keeperOf, type Keeper } from './teardown.ts';

const of = { namespace: 'billing', name: 'poster' };
const key = 'billing/poster';
const workflow = { metadata: { ...of, uid: 'uid-1' } };

let client: MemoryClient;
let events: string[];
let logged: (object | undefined)[];
let left: Map<string, Keeper>;
let isKilled: boolean;
let teardown: EgressTeardown;

/** One of a process that has just started. */
function started(): EgressTeardown {
  const { resource } = cilium;
  const all = client.storeOf(resource, { workflow: plugInKeys });
  return new EgressTeardown({
    client,
    applier: new Applier({ client }),
    events: { normal: (_about, reason, message) => events.push(`${reason} ${message}`) },
    metrics: {
      setEgressLeft: (workflowKey, keeper) => {
        if (keeper === undefined) left.delete(workflowKey);
        else left.set(workflowKey, keeper);
      },
    },
    identities: client.storeOf(resources.automationIdentities),
    networkPolicies: client.storeOf(resources.networkPolicies, {
      workflow: ({ metadata: { namespace, labels } }) => [
        `${namespace}/${labels?.[label.workflow]}`,
      ],
    }),
    pods: client.storeOf(resources.pods, {
      identity: ({ metadata, spec }) => [`${metadata.namespace}/${spec?.serviceAccountName}`],
    }),
    plugIn: new PlugInPolicies([
      {
        resource,
        isServed: true,
        hasSynced: true,
        byIndex: (index, value) => all.byIndex(index, value),
      },
    ]),
    isKilled: () => isKilled,
    clock: () => 0,
  });
}

function policy(name: string, metadata: Partial<NetworkPolicy['metadata']> = {}): NetworkPolicy {
  return {
    metadata: {
      name,
      namespace: of.namespace,
      labels: { [label.managedBy]: MANAGED_BY, [label.workflow]: of.name },
      annotations: { [annotation.ownerUid]: 'uid-1' },
      ...metadata,
    },
    spec: { podSelector: {}, policyTypes: ['Egress'], egress: [] },
  };
}

function reconcile(): Promise<ReconcileResult> {
  const { signal } = new AbortController();
  const log: Logger = { ...silentLogger(), info: (_message, fields) => logged.push(fields) };
  return teardown.reconcile(key, { signal, correlationId: 'test', log });
}

function names(): string[] {
  return [
    ...client.all(resources.networkPolicies),
    ...client.all(resources.ciliumNetworkPolicies),
  ].map(({ metadata }) => metadata.name);
}

const pod = {
  metadata: { ...of, name: 'poster-1' },
  spec: { serviceAccountName: 'poster' },
  status: { phase: 'Running' },
};

beforeEach(() => {
  client = new MemoryClient(() => 0);
  events = [];
  logged = [];
  left = new Map();
  isKilled = false;
  teardown = started();
  client.put(resources.networkPolicies, policy('poster-egress-1'));
  client.put(resources.networkPolicies, policy('poster-egress-2'));
  client.put(cilium.resource, cilium.deny(workflow));
});

describe('keeperOf', () => {
  const nothing = { pods: 0, hasIdentity: false, hasAccount: false, isKilled: false };

  it.each<[string, Partial<Parameters<typeof keeperOf>[0]>, Keeper | undefined]>([
    ['nothing', {}, undefined],
    ['a pod', { pods: 1 }, 'Pods'],
    ['an identity', { hasIdentity: true, hasAccount: true }, 'Identity'],
    ['a ServiceAccount of somebody else', { hasAccount: true }, 'ServiceAccount'],
    ['both', { pods: 2, hasIdentity: true }, 'Pods'],
    ['a kill', { isKilled: true }, 'KillSwitch'],
  ])('with %s', (_what, remains, keeper) => {
    expect(keeperOf({ ...nothing, ...remains })).toBe(keeper);
  });
});

describe('the policies that a Workflow left behind', () => {
  it('stay as they are while its pods run, and go with the last', async () => {
    client.put(resources.pods, pod);
    const before = client.all(resources.networkPolicies);
    await reconcile();
    await reconcile();
    expect(client.all(resources.networkPolicies)).toEqual(before);
    expect(client.writes).toEqual([]);
    expect([...left]).toEqual([[key, 'Pods']]);
    expect(logged).toEqual([{ keeper: 'Pods', policies: 3 }]);
    // Once for each policy.
    expect(events).toEqual(
      Array.from({ length: 2 }, () => expect.stringContaining('pods still run as its identity')),
    );

    client.remove(resources.pods, pod.metadata);
    expect(await reconcile()).toEqual({});
    expect(names()).toEqual([]);
    expect([...left]).toEqual([]);
    expect(client.writes.map(({ kind }) => kind)).toEqual([
      'CiliumNetworkPolicy',
      'NetworkPolicy',
      'NetworkPolicy',
    ]);
  });

  it('stay while more pods could start', async () => {
    client.put(resources.automationIdentities, { metadata: of, spec: {} });
    await reconcile();
    expect([...left.values()]).toEqual(['Identity']);
    client.remove(resources.automationIdentities, of);
    const labels = { [label.managedBy]: MANAGED_BY };
    client.put(resources.serviceAccounts, { metadata: { ...of, labels } });
    expect(await reconcile()).toEqual({ requeueAfterMs: 10_000 });
    expect(names()).toHaveLength(3);
    client.remove(resources.serviceAccounts, of);
    await reconcile();
    expect(names()).toEqual([]);
  });

  it('stay for a ServiceAccount of that name, whoever made it: a CronJob has no pod between two runs', async () => {
    client.put(resources.serviceAccounts, { metadata: of });
    expect(await reconcile()).toEqual({ requeueAfterMs: 60_000 });
    expect(client.writes).toEqual([]);
    expect([...left.values()]).toEqual(['ServiceAccount']);
    expect(events).toEqual(
      Array.from({ length: 2 }, () => expect.stringContaining('that the operator did not make')),
    );
    client.remove(resources.serviceAccounts, of);
    await reconcile();
    expect(names()).toEqual([]);
    expect([...left]).toEqual([]);
  });

  it('allow no longer what has ended, whatever they stay for', async () => {
    client.put(resources.serviceAccounts, { metadata: of });
    const rule = (cidr: string): EgressRule => ({ to: [{ ipBlock: { cidr } }] });
    const entry = (cidr: string, expires: string): Parameters<typeof expiriesOf>[0][number] => ({
      entry: { cidr, reason: 'x', expires },
      direction: 'egress',
      rules: [rule(cidr)],
    });
    const ends = expiriesOf(
      [
        entry('192.0.2.1/32', '1970-01-01T00:00:00Z'),
        entry('192.0.2.2/32', '1970-01-01T00:00:30Z'),
      ],
      [],
    );
    const annotations = {
      [annotation.ownerUid]: 'uid-1',
      [annotation.egressExpiries]: JSON.stringify(ends),
    };
    const { metadata, spec } = policy('poster-egress-1', { annotations });
    const egress = [rule('192.0.2.1/32'), rule('192.0.2.2/32')];
    client.put(resources.networkPolicies, { metadata, spec: { ...spec, egress } });
    expect(await reconcile()).toEqual({ requeueAfterMs: 30_000 });
    const aged = client.find(resources.networkPolicies, metadata);
    expect(aged?.spec.egress).toEqual([rule('192.0.2.2/32')]);
  });

  it('wait for a pod that started while its ServiceAccount went', async () => {
    const get = client.get.bind(client);
    client.get = async <T extends KubeObject>(
      resource: Resource<T>,
      ...rest: [ObjectKey, GetOptions?]
    ): Promise<T | undefined> => {
      const found = await get(resource, ...rest);
      if (resource.kind === 'ServiceAccount') client.put(resources.pods, pod);
      return found;
    };
    expect(await reconcile()).toEqual({ requeueAfterMs: 10_000 });
    expect(client.writes).toEqual([]);
  });

  it('stay while a KillSwitch stands, whose end may not be told', async () => {
    isKilled = true;
    expect(await reconcile()).toEqual({ requeueAfterMs: 60_000 });
    expect(names()).toHaveLength(3);
    expect([...left.values()]).toEqual(['KillSwitch']);
  });

  it("are left to a Workflow that the caches don't know yet", async () => {
    client.put(resources.workflows, { ...workflow, spec: { targets: [] } });
    expect(await reconcile()).toEqual({ requeueAfterMs: 10_000 });
    expect(client.writes).toEqual([]);
  });

  it("wait for pods that the caches don't know yet", async () => {
    client.put(resources.pods, { ...pod, spec: { serviceAccountName: 'poster-of-another-cache' } });
    expect(await reconcile()).toEqual({ requeueAfterMs: 10_000 });
    expect(client.writes).toEqual([]);
  });

  it('go from wherever a process ended that took them away', async () => {
    for (let writes = 0; writes < 3; writes++) {
      let done = 0;
      client.beforeWrite = () => {
        if (done++ === 1) throw new ApiError('gone', { status: 503, reason: 'x' });
      };
      const before = names().length;
      await reconcile().catch((error: unknown) => expect(error).toBeInstanceOf(ApiError));
      expect(names().length).toBeLessThan(before);
      teardown = started();
      if (names().length === 0) break;
    }
    expect(names()).toEqual([]);
  });

  it('are none of somebody else', async () => {
    const others = [
      policy('theirs', { labels: { [label.workflow]: 'poster' } }),
      policy('unmarked', { annotations: {} }),
    ];
    for (const one of others) client.put(resources.networkPolicies, one);
    await reconcile();
    expect(names()).toEqual(['theirs', 'unmarked']);
  });
});
