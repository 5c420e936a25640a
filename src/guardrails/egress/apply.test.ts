import { beforeEach, describe, expect, it } from 'vitest';
import { annotation, label } from '../../api/names.ts';
import type { KubeObject, NetworkPolicy, Pod } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import type { EgressEntry, Workflow } from '../../api/workflow.ts';
import type { Workload } from '../../api/workload.ts';
import { Applier } from '../../runtime/applier.ts';
import type { ListOptions } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import { MemoryClient } from '../identity/memory-client.testing.ts';
import { applyEgress, type EgressOutcome } from './apply.ts';
import { planEgress } from './plan.ts';
import { dnsRule, rulesOf, type EgressRule, type NamedPeers } from './rules.ts';

/** Remembers what was asked for of the pods. */
class PodClient extends MemoryClient {
  readonly asked: ListOptions[] = [];

  override async list<T extends KubeObject>(
    resource: Resource<T>,
    options: ListOptions = {},
  ): Promise<T[]> {
    this.asked.push(options);
    return super.list(resource);
  }
}

const workflow: Workflow = {
  metadata: { name: 'poster', namespace: 'billing', uid: 'uid-1' },
  spec: { targets: [] },
};
const erp: EgressEntry = { cidr: '203.0.113.10/32', reason: 'ERP' };

function workload(app: string): Workload {
  return {
    kind: 'Deployment',
    metadata: { name: app, namespace: 'billing', uid: `uid-${app}` },
    serviceAccountName: 'poster',
    podLabels: { app },
    podSelector: { matchLabels: { app } },
    secretNames: [],
    isPaused: false,
    isRolledOut: true,
    codeDigest: '',
    finished: false,
    scaleDeletesVolumes: false,
  };
}

let client: PodClient;

beforeEach(() => {
  client = new PodClient(() => 0);
});

function live(): NetworkPolicy[] {
  return client.all(resources.networkPolicies);
}

/** The policies that select by labels of the pods' own, beside the one for the identity. */
function byOwnLabels(): NetworkPolicy[] {
  return live().filter(({ spec }) => spec.podSelector.matchLabels?.[label.identity] === undefined);
}

/** Plans on what stands and applies it. */
function apply(
  apps: readonly string[],
  entries: readonly EgressEntry[] = [erp],
  isWithheld = false,
): Promise<EgressOutcome> {
  const plan = planEgress({
    workflow,
    entries,
    workloads: apps.map(workload),
    live: live(),
    isWithheld,
    isGuarded: true,
  });
  return applyEgress(plan, {
    client,
    applier: new Applier({ client }),
    serviceAccountName: 'poster',
    signal: new AbortController().signal,
  });
}

function verbs(): string[] {
  return client.writes.splice(0).map(({ verb }) => verb);
}

function appsWithPolicy(): string[] {
  return byOwnLabels()
    .map(({ spec }) => spec.podSelector.matchLabels?.['app'] ?? '')
    .toSorted((a, b) => a.localeCompare(b));
}

const pod: Pod = { metadata: { name: 'web-1', namespace: 'billing' } };

describe('applyEgress', () => {
  it('creates what is missing, then has nothing to do', async () => {
    const outcome = await apply(['web', 'jobs']);
    expect(outcome.created).toHaveLength(3);
    expect(verbs()).toEqual(['create', 'create', 'create']);
    expect(await apply(['web', 'jobs'])).toMatchObject({ created: [], updated: [], removed: [] });
    expect(verbs()).toEqual([]);
  });

  it('writes new policies first, then changed ones, then takes the obsolete away', async () => {
    await apply(['web', 'old']);
    verbs();
    const outcome = await apply(['web', 'new'], []);
    expect(verbs()).toEqual(['create', 'apply', 'apply', 'delete']);
    expect(outcome).toMatchObject({ isWaiting: false, problems: [], errors: [] });
    expect([outcome.created, outcome.updated, outcome.removed].map(({ length }) => length)).toEqual(
      [1, 2, 1],
    );
    expect(appsWithPolicy()).toEqual(['new', 'web']);
  });

  it.each<{ what: string; edit: (spec: NetworkPolicy['spec']) => NetworkPolicy['spec'] }>([
    { what: 'a rule more', edit: (spec) => ({ ...spec, egress: [...(spec.egress ?? []), {}] }) },
    { what: 'no rules', edit: (spec) => ({ ...spec, egress: [] }) },
    { what: 'one direction less', edit: (spec) => ({ ...spec, policyTypes: ['Ingress'] }) },
    { what: 'who may connect', edit: (spec) => ({ ...spec, ingress: [{}] }) },
    {
      what: 'a longer range of ports',
      edit: (spec) => ({
        ...spec,
        egress: [{ ...dnsRule, ports: [{ protocol: 'UDP', port: 53, endPort: 99 }] }],
      }),
    },
    {
      what: 'a selector that misses the pods',
      edit: (spec) => ({ ...spec, podSelector: { matchLabels: { app: 'web', x: 'y' } } }),
    },
  ])('repairs a policy that was edited: $what', async ({ edit }) => {
    await apply(['web']);
    const [policy] = byOwnLabels();
    if (policy === undefined) throw new Error('no policy');
    client.put(resources.networkPolicies, { ...policy, spec: edit(policy.spec) });
    expect((await apply(['web'])).updated).toHaveLength(1);
    expect(byOwnLabels().map(({ spec }) => spec)).toEqual([policy.spec]);
  });

  it('leaves an object of another owner alone, says so, and keeps what it would replace', async () => {
    await apply(['old']);
    await apply(['old', 'web']);
    const web = live().find(({ spec }) => spec.podSelector.matchLabels?.['app'] === 'web');
    if (web === undefined) throw new Error('no policy');
    const foreign = { ...web, metadata: { name: web.metadata.name, namespace: 'billing' } };
    client.remove(resources.networkPolicies, web.metadata);
    client.put(resources.networkPolicies, foreign);
    const ours = live().filter(({ metadata }) => metadata.labels !== undefined);
    verbs();

    const plan = planEgress({
      workflow,
      entries: [erp],
      workloads: [workload('web')],
      live: ours,
      isWithheld: false,
      isGuarded: true,
    });
    const outcome = await applyEgress(plan, {
      client,
      applier: new Applier({ client }),
      serviceAccountName: 'poster',
      signal: new AbortController().signal,
    });
    expect(outcome.problems).toMatchObject([{ reason: 'ForeignObject' }]);
    expect(outcome).toMatchObject({ errors: [], removed: [], isWaiting: true });
    expect(verbs()).toEqual(['create']);
    expect(appsWithPolicy()).toEqual(['old', 'web']);
  });

  it('keeps a policy while pods that it holds back still run, without what left the allowlist', async () => {
    await apply(['web', 'old'], [erp, { namespace: 'data', reason: 'x' }]);
    client.put(resources.pods, pod);
    const outcome = await apply(['web']);
    expect(outcome).toMatchObject({ removed: [], isWaiting: true });
    expect(appsWithPolicy()).toEqual(['old', 'web']);
    for (const { spec } of live()) expect(spec.egress).toEqual(rulesOf([erp]));
    expect(client.asked).toMatchObject([
      {
        namespace: 'billing',
        labelSelector: 'app=old,automationguardrails.dev/identity!=poster',
        fieldSelector:
          'spec.serviceAccountName=poster,status.phase!=Succeeded,status.phase!=Failed',
      },
    ]);

    client.remove(resources.pods, pod.metadata);
    expect(await apply(['web'])).toMatchObject({ isWaiting: false });
    expect(appsWithPolicy()).toEqual(['web']);
  });

  it('takes nothing away when the pods cannot be listed', async () => {
    await apply(['old']);
    const failure = new ApiError('down', { status: 500 });
    client.list = () => Promise.reject(failure);
    expect(await apply(['web'])).toMatchObject({ errors: [failure], removed: [] });
    expect(appsWithPolicy()).toEqual(['old', 'web']);
  });

  it('goes on with the others when one fails, and takes nothing away', async () => {
    await apply(['old']);
    const failure = new ApiError('down', { status: 500 });
    client.beforeWrite = () => {
      client.beforeWrite = () => undefined;
      throw failure;
    };
    expect(await apply(['a', 'b'])).toMatchObject({
      errors: [failure],
      created: [expect.any(String)],
      removed: [],
    });
    expect(appsWithPolicy()).toContain('old');
  });

  it('closes what has a rule that the API server refuses, rather than leave it open', async () => {
    const refuse = new ApiError('NetworkPolicy is invalid: spec.egress[1]', {
      status: 422,
      reason: 'Invalid',
    });
    client.afterWrite = ({ name }) => {
      const policy = client.find(resources.networkPolicies, { namespace: 'billing', name });
      if ((policy?.spec.egress ?? []).length < 2) return;
      client.remove(resources.networkPolicies, { namespace: 'billing', name });
      throw refuse;
    };
    const outcome = await apply(['web']);
    expect(outcome.problems).toMatchObject([
      { reason: 'EgressRefused', message: expect.stringContaining('spec.egress[1]') },
      { reason: 'EgressRefused' },
    ]);
    expect(outcome.errors).toEqual([]);
    expect(live().map(({ spec }) => spec.egress)).toEqual([[dnsRule], [dnsRule]]);
  });
});

describe('a thousand Workflows with 20 entries each', () => {
  const entries = Array.from({ length: 19 }, (_, index): EgressEntry => ({
    cidr: `203.0.${index}.0/24`,
    except: [`203.0.${index}.128/25`],
    ports: [{ port: 443, protocol: 'TCP' }],
    reason: 'ERP',
  }));
  const address = (cidr: string): EgressRule[] => [
    { to: [{ ipBlock: { cidr } }], ports: [{ protocol: 'TCP', port: 53 }] },
  ];
  const workflows = Array.from({ length: 1_000 }, (_, index): Workflow => ({
    metadata: { name: `w-${index}`, namespace: 'billing', uid: `uid-${index}` },
    spec: {
      targets: [],
      // One in ten talks to the API server.
      egress: [
        ...entries,
        index % 10 === 0 ? { peer: 'KubeAPI', reason: 'x' } : { ...erp, cidr: '198.51.100.0/24' },
      ],
    },
  }));

  /** @returns how many policies were written */
  async function applyAll(named: NamedPeers): Promise<number> {
    client.writes.length = 0;
    const standing = Map.groupBy(
      live(),
      ({ metadata }) => metadata.annotations?.[annotation.ownerUid],
    );
    const applier = new Applier({ client });
    for (const one of workflows) {
      const plan = planEgress({
        workflow: one,
        entries: one.spec.egress ?? [],
        named,
        workloads: [],
        live: standing.get(one.metadata.uid) ?? [],
        isWithheld: false,
        isGuarded: true,
      });
      const { signal } = new AbortController();
      await applyEgress(plan, { client, applier, serviceAccountName: one.metadata.name, signal });
    }
    return client.writes.length;
  }

  it('write nothing at rest, and of a change only what depends on it', async () => {
    const before = { DNS: address('10.96.0.10/32'), KubeAPI: address('192.0.2.1/32') };
    expect(await applyAll(before)).toBe(1_000);
    expect(await applyAll(before)).toBe(0);
    // What can't be looked up stays.
    expect(await applyAll({})).toBe(0);
    const moved = { ...before, KubeAPI: address('192.0.2.2/32') };
    expect(await applyAll(moved)).toBe(100);
    expect(await applyAll({ ...moved, DNS: address('10.96.0.11/32') })).toBe(1_000);
    expect(client.asked).toEqual([]);
  });
});
