import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { annotation, label, MANAGED_BY } from '../../api/names.ts';
import type {
  LabelSelector,
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
} from '../../api/objects.ts';
import type { EgressEntry, IngressEntry, Workflow } from '../../api/workflow.ts';
import type { Workload, WorkloadKind } from '../../api/workload.ts';
import { planEgress, whatEgressMisses, type EgressPlan, type EgressRequest } from './plan.ts';
import { namesPods, podSelectorOf, selectorText } from './pod-selector.ts';
import { alreadyGranted, dnsRule, rulesOf, type NamedPeers } from './rules.ts';

const workflow: Workflow = {
  metadata: { name: 'poster', namespace: 'billing', uid: 'uid-1' },
  spec: { targets: [] },
};

function workload(fields: Partial<Workload> = {}): Workload {
  return {
    kind: 'Deployment',
    metadata: { name: 'web', namespace: 'billing', uid: 'uid-web' },
    serviceAccountName: 'poster',
    podLabels: { app: 'web' },
    secretNames: [],
    isPaused: false,
    isRolledOut: true,
    codeDigest: '',
    finished: false,
    scaleDeletesVolumes: false,
    ...fields,
  };
}

const erp: EgressEntry = {
  cidr: '203.0.113.10/32',
  ports: [{ port: 443, protocol: 'TCP' }],
  reason: 'ERP',
};

function request(fields: Partial<EgressRequest> = {}): EgressRequest {
  return {
    workflow,
    entries: [erp],
    workloads: [workload()],
    live: [],
    isWithheld: false,
    isGuarded: true,
    ...fields,
  };
}

const named: NamedPeers = {
  KubeAPI: [
    { to: [{ ipBlock: { cidr: '192.0.2.1/32' } }], ports: [{ protocol: 'TCP', port: 6443 }] },
  ],
};
const api: EgressEntry = { peer: 'KubeAPI', reason: 'its own API' };

/** As the API server would have it after the plan was applied. */
function applied({ policies, obsolete }: EgressPlan, isRetired = true): NetworkPolicy[] {
  return [...policies, ...(isRetired ? [] : obsolete)].map(({ desired }) => desired);
}

describe('pods of a target', () => {
  const generated = {
    'controller-uid': 'u',
    'batch.kubernetes.io/controller-uid': 'u',
    'job-name': 'run',
    'batch.kubernetes.io/job-name': 'run',
  };

  it.each<{ what: string; of: Partial<Workload>; selector: LabelSelector | undefined }>([
    {
      what: 'a Deployment, by its own selector',
      of: { podSelector: { matchLabels: { app: 'web' } }, podLabels: { app: 'web', version: '2' } },
      selector: { matchLabels: { app: 'web' } },
    },
    {
      what: 'a StatefulSet with expressions',
      of: {
        kind: 'StatefulSet',
        podSelector: {
          matchExpressions: [
            { key: 'tier', operator: 'NotIn', values: ['b', 'a', 'b'] },
            { key: 'app', operator: 'Exists' },
          ],
        },
      },
      selector: {
        matchExpressions: [
          { key: 'app', operator: 'Exists' },
          { key: 'tier', operator: 'NotIn', values: ['a', 'b'] },
        ],
      },
    },
    {
      what: 'a Deployment whose selector only excludes',
      of: { podSelector: { matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] } },
      selector: undefined,
    },
    {
      what: 'a Deployment whose selector is empty',
      of: { podSelector: {} },
      selector: undefined,
    },
    {
      what: 'a CronJob, by the labels of its pods',
      of: { kind: 'CronJob', podLabels: { b: '2', a: '1' } },
      selector: { matchLabels: { a: '1', b: '2' } },
    },
    {
      what: 'a CronJob without labels',
      of: { kind: 'CronJob', podLabels: {} },
      selector: undefined,
    },
    {
      what: 'a Job, without what the API server added',
      of: { kind: 'Job', podLabels: { app: 'run', ...generated } },
      selector: { matchLabels: { app: 'run' } },
    },
    {
      what: 'a Job without own labels, by its name and not by its UID',
      of: { kind: 'Job', podLabels: generated },
      selector: { matchLabels: { 'batch.kubernetes.io/job-name': 'run' } },
    },
    {
      what: 'a Job without any labels',
      of: { kind: 'Job', podLabels: {} },
      selector: undefined,
    },
  ])('are selected of $what', ({ of, selector }) => {
    expect(podSelectorOf(workload(of))).toEqual(selector);
    const misses = whatEgressMisses([workload(of)]).map(({ reason }) => reason);
    expect(misses).toEqual(selector === undefined ? ['PodsNotSelectable'] : []);
  });

  it('can be asked for in a request', () => {
    const selector = {
      matchLabels: { app: 'web', 'a.io/b': '' },
      matchExpressions: [
        { key: 'x', operator: 'In', values: ['1', '2'] },
        { key: 'y', operator: 'NotIn', values: ['3'] },
        { key: 'z', operator: 'Exists' },
        { key: 'w', operator: 'DoesNotExist' },
      ],
    };
    expect(selectorText(selector)).toBe('app=web,a.io/b=,x in (1,2),y notin (3),z,!w');
  });

  it('may not have more different labels than there can be policies', () => {
    const many = Array.from({ length: 257 }, (_, index) =>
      workload({ podSelector: { matchLabels: { app: `web-${index}` } } }),
    );
    expect(whatEgressMisses(many)).toMatchObject([{ reason: 'TooManyPodSelectors' }]);
    expect(whatEgressMisses(many.slice(1))).toEqual([]);
    expect(planEgress(request({ workloads: many, isWithheld: true })).policies).toHaveLength(257);
  });
});

describe('rules', () => {
  it.each<{ what: string; entry: Omit<EgressEntry, 'reason'>; peer: NetworkPolicyPeer }>([
    {
      what: 'a network without its exceptions',
      entry: { cidr: '10.0.0.0/8', except: ['10.2.0.0/16', '10.1.0.0/16'] },
      peer: { ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16', '10.2.0.0/16'] } },
    },
    {
      what: 'all pods of a namespace',
      entry: { namespace: 'data' },
      peer: { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'data' } } },
    },
    {
      what: 'some pods of a namespace',
      entry: { namespace: 'data', podSelector: { matchLabels: { app: 'db' } } },
      peer: {
        namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'data' } },
        podSelector: { matchLabels: { app: 'db' } },
      },
    },
    {
      what: 'pods of its own namespace',
      entry: { podSelector: { matchLabels: { app: 'db' } } },
      peer: { podSelector: { matchLabels: { app: 'db' } } },
    },
  ])('name $what', ({ entry, peer }) => {
    expect(rulesOf([{ ...entry, reason: 'x' }])).toEqual([dnsRule, { to: [peer] }]);
  });

  it('keep protocol and range of the ports', () => {
    const ports = [
      { port: 8000, endPort: 8010, protocol: 'TCP' as const },
      { port: 53, protocol: 'UDP' as const },
    ];
    expect(rulesOf([{ ...erp, ports }])[1]?.ports).toEqual(ports);
  });

  it('allow DNS by UDP and TCP, to the cluster and to the cache on the node', () => {
    expect(rulesOf([])).toEqual([
      {
        to: [
          {
            namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
            podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
          },
          { ipBlock: { cidr: '169.254.20.10/32' } },
        ],
        ports: [
          { protocol: 'UDP', port: 53 },
          { protocol: 'TCP', port: 53 },
        ],
      },
    ]);
  });

  it.each<{ what: string; entry: Omit<EgressEntry, 'reason'> }>([
    { what: 'no peer', entry: {} },
    { what: 'an empty selector', entry: { namespace: 'data', podSelector: { matchLabels: {} } } },
    { what: 'two peers', entry: { cidr: '10.0.0.0/8', namespace: 'data' } },
    { what: 'exceptions of nothing', entry: { namespace: 'data', except: ['10.0.0.0/8'] } },
  ])('leave out an entry with $what: it could allow everything', ({ entry }) => {
    expect(rulesOf([{ ...entry, reason: 'x' }])).toEqual([dnsRule]);
  });

  it('say the same thing once', () => {
    expect(rulesOf([erp, { ...erp, reason: 'again' }])).toHaveLength(2);
  });

  it.each<{ what: string; standing: EgressEntry['ports']; isKept: boolean }>([
    { what: 'all ports', standing: undefined, isKept: true },
    { what: 'the same port', standing: [{ port: 443, protocol: 'TCP' }], isKept: true },
    {
      what: 'a range around it',
      standing: [{ port: 1, endPort: 443, protocol: 'TCP' }],
      isKept: true,
    },
    {
      what: 'a range below',
      standing: [{ port: 1, endPort: 442, protocol: 'TCP' }],
      isKept: false,
    },
    { what: 'another protocol', standing: [{ port: 443, protocol: 'UDP' }], isKept: false },
  ])('count as granted where $what of the peer were: $isKept', ({ standing, isKept }) => {
    const { ports: _, ...peer } = erp;
    const before = rulesOf([{ ...peer, ...(standing !== undefined && { ports: standing }) }]);
    expect(alreadyGranted(rulesOf([erp]), before)).toHaveLength(isKept ? 2 : 1);
  });
});

describe('planEgress', () => {
  it('puts default deny, DNS and allowlist into one object of the Workflow', () => {
    const [policy, ...others] = applied(planEgress(request({ workloads: [] })));
    expect(others).toEqual([]);
    expect(policy).toEqual({
      metadata: {
        name: expect.stringMatching(/^poster-egress-[0-9a-f]{8}$/),
        namespace: 'billing',
        labels: { [label.managedBy]: MANAGED_BY, [label.workflow]: 'poster' },
        annotations: { [annotation.ownerUid]: 'uid-1' },
      },
      spec: {
        podSelector: { matchLabels: { [label.identity]: 'poster' } },
        policyTypes: ['Egress', 'Ingress'],
        egress: [
          dnsRule,
          {
            to: [{ ipBlock: { cidr: '203.0.113.10/32' } }],
            ports: [{ protocol: 'TCP', port: 443 }],
          },
        ],
        ingress: [],
      },
    });
  });

  it('lets in who is listed, by the same peers', () => {
    const ingress: IngressEntry[] = [
      { peer: 'SameNamespace', reason: 'metrics' },
      { namespace: 'web', ports: [{ port: 8080, protocol: 'TCP' }], reason: 'front end' },
      { peer: 'KubeAPI', ports: [{ port: 8443, protocol: 'TCP' }], reason: 'webhook' },
    ];
    const [policy] = applied(planEgress(request({ workloads: [], ingress, named })));
    expect(policy?.spec.ingress).toEqual([
      { from: [{ podSelector: {} }] },
      {
        from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'web' } } }],
        ports: [{ protocol: 'TCP', port: 8080 }],
      },
      {
        from: [{ ipBlock: { cidr: '192.0.2.1/32' } }],
        ports: [{ protocol: 'TCP', port: 8443 }],
      },
    ]);
  });

  it('has one policy for all targets whose pods have the same labels', () => {
    const cronJob = workload({ kind: 'CronJob', podLabels: { app: 'web' } });
    const other = workload({ kind: 'CronJob', podLabels: { app: 'other' } });
    expect(planEgress(request({ workloads: [workload(), cronJob] })).policies).toHaveLength(2);
    expect(planEgress(request({ workloads: [workload(), other] })).policies).toHaveLength(3);
  });

  it('keeps apart labels that were made so that their digests begin alike', () => {
    // sha256 of both selectors begins with f80baa91.
    const alike = ['web-24698', 'web-43342'].map((app) => workload({ podLabels: { app } }));
    const names = applied(planEgress(request({ workloads: alike })))
      .slice(1)
      .map(({ metadata }) => metadata.name);
    expect(names).toEqual([
      'poster-egress-f80baa91',
      expect.stringMatching(/^poster-egress-f80baa91[0-9a-f]{8}$/),
    ]);
  });

  it('gives new pods their policy before it takes the old one away', () => {
    const live = applied(planEgress(request()));
    const swapped = request({ live, workloads: [workload({ podLabels: { app: 'new' } })] });
    const { policies, obsolete } = planEgress(swapped);
    expect(policies.map((policy) => policy.live)).toEqual([undefined, live[0]]);
    expect(obsolete.map((policy) => policy.live)).toEqual([live[1]]);
  });

  it('removes nothing while withheld', () => {
    const live = applied(planEgress(request()));
    const { policies, obsolete } = planEgress(request({ live, workloads: [], isWithheld: true }));
    expect(policies.map((policy) => policy.desired)).toEqual(live);
    expect(obsolete).toEqual([]);
  });

  it('gives a new policy DNS alone while withheld', () => {
    const [policy] = applied(planEgress(request({ isWithheld: true })));
    expect(policy?.spec.egress).toEqual([dnsRule]);
  });

  it('narrows while withheld, and never widens', () => {
    const live = applied(
      planEgress(request({ entries: [erp, { namespace: 'data', reason: 'x' }] })),
    );
    const entries: EgressEntry[] = [{ cidr: '198.51.100.0/24', reason: 'new' }, erp];
    const [policy] = applied(planEgress(request({ live, entries, isWithheld: true })));
    expect(policy?.spec.egress).toEqual(rulesOf([erp]));
  });

  it('creates nothing in a namespace that is not guarded, and keeps what stands', () => {
    const fields = { isWithheld: true, isGuarded: false };
    expect(planEgress(request(fields)).policies).toEqual([]);
    const live = applied(planEgress(request()));
    expect(applied(planEgress(request({ ...fields, live })))).toEqual(live);
  });

  it('lets go of a policy whose selector was emptied, also while withheld', () => {
    const [own, ...live] = applied(planEgress(request())).map((policy) => ({
      ...policy,
      spec: { ...policy.spec, podSelector: {} },
    }));
    const { policies, obsolete } = planEgress(request({ live, workloads: [], isWithheld: true }));
    expect(policies.map(({ desired }) => desired.metadata.name)).toEqual([own?.metadata.name]);
    expect(obsolete.map((policy) => policy.live)).toEqual(live);
  });
});

describe('the addresses of a named peer', () => {
  const moved: NamedPeers = {
    KubeAPI: [
      { to: [{ ipBlock: { cidr: '192.0.2.2/32' } }], ports: [{ protocol: 'TCP', port: 6443 }] },
    ],
  };
  const fields = { workloads: [], entries: [api] };
  const live = applied(planEgress(request({ ...fields, named })));
  const next = (more: Partial<EgressRequest>): NetworkPolicy[] =>
    applied(planEgress(request({ ...fields, live, ...more })));

  it('follow what is looked up, also while nothing new is granted', () => {
    for (const isWithheld of [false, true]) {
      expect(next({ named: moved, isWithheld })[0]?.spec.egress).toEqual([
        dnsRule,
        ...(moved.KubeAPI ?? []),
      ]);
    }
  });

  it('stay as they were last known when nothing can be looked up', () => {
    expect(next({ named: {} })).toEqual(live);
    expect(next({ named: {}, isWithheld: true })).toEqual(live);
  });

  it('are nothing where they were never known, and never everything', () => {
    expect(next({ live: [], named: {} })[0]?.spec.egress).toEqual([dnsRule]);
  });

  it('are nothing new while nothing is granted', () => {
    const before = applied(planEgress(request({ workloads: [], entries: [] })));
    const now = next({ live: before, named, isWithheld: true });
    expect(now[0]?.spec.egress).toEqual([dnsRule]);
    expect(next({ live: now, named: {}, isWithheld: true })).toEqual(now);
  });

  it.each([
    '{',
    '7',
    'null',
    '{"KubeAPI":7}',
    '{"KubeAPI":[{}]}',
    '{"KubeAPI":[{"to":[{"ipBlock":{"cidr":"0.0.0.0/0"}}],"ports":[{"protocol":"TCP","port":1}]}]}',
  ])('are not what somebody wrote into the annotation: %s', (text) => {
    const forged = live.map((policy) => ({
      ...policy,
      metadata: { ...policy.metadata, annotations: { [annotation.namedPeers]: text } },
    }));
    expect(next({ live: forged, named: {} })[0]?.spec.egress).toEqual([dnsRule]);
  });
});

// What follows asks the plans as the network would: may this pod open this connection?

const peers: NetworkPolicyPeer[] = [
  { ipBlock: { cidr: '10.0.0.0/8' } },
  { ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } },
  { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'data' } } },
];
const peerEntries: Omit<EgressEntry, 'reason'>[] = [
  { cidr: '10.0.0.0/8' },
  { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] },
  { namespace: 'data' },
];
const protocols = ['TCP', 'UDP'] as const;
const portNumbers = [1, 2, 3, 4];

const port = fc
  .record({
    protocol: fc.constantFrom(...protocols),
    port: fc.constantFrom(...portNumbers),
    extra: fc.option(fc.nat(3), { nil: undefined }),
  })
  .map(({ protocol, port: first, extra }) => ({
    protocol,
    port: first,
    ...(extra !== undefined && { endPort: first + extra }),
  }));

const entry = fc
  .record({
    peer: fc.nat(peerEntries.length - 1),
    ports: fc.option(fc.array(port, { minLength: 1, maxLength: 3 }), { nil: undefined }),
  })
  .map(({ peer, ports }) => ({
    ...peerEntries[peer],
    reason: 'x',
    ...(ports !== undefined && { ports }),
  }));
const entries = fc.array(entry, { maxLength: 4 });

const labels = fc.dictionary(fc.constantFrom('a', 'b'), fc.constantFrom('1', '2'), { maxKeys: 2 });
const podUniverse = [undefined, '1', '2'].flatMap((a) =>
  [undefined, '1', '2'].map((b) => ({
    ...(a !== undefined && { a }),
    ...(b !== undefined && { b }),
  })),
);

const expression = fc.record({
  key: fc.constantFrom('a', 'b'),
  operator: fc.constantFrom('In', 'NotIn', 'Exists', 'DoesNotExist'),
  value: fc.constantFrom('1', '2'),
});
const selector = fc
  .record({ matchLabels: labels, expressions: fc.array(expression, { maxLength: 2 }) })
  .map(({ matchLabels, expressions }) => ({
    matchLabels,
    matchExpressions: expressions.map(({ key, operator, value }) => ({
      key,
      operator,
      ...(operator.endsWith('In') && { values: [value] }),
    })),
  }));

const target = fc
  .record({
    kind: fc.constantFrom<WorkloadKind>('Deployment', 'StatefulSet', 'Job', 'CronJob'),
    podLabels: labels,
    podSelector: selector,
  })
  .map(({ kind, podLabels, podSelector }) =>
    workload({
      kind,
      podLabels: kind === 'Job' ? { ...podLabels, 'controller-uid': 'u' } : podLabels,
      ...((kind === 'Deployment' || kind === 'StatefulSet') && { podSelector }),
    }),
  );
const workloads = fc.array(target, { maxLength: 4 });

function selects(
  { matchLabels = {}, matchExpressions = [] }: LabelSelector,
  pod: Record<string, string>,
): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => pod[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = pod[key];
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value);
        case 'NotIn':
          return value === undefined || !values.includes(value);
        case 'Exists':
          return value !== undefined;
        default:
          return value === undefined;
      }
    })
  );
}

function includesPort(ports: NetworkPolicyPort[] | EgressEntry['ports'], flow: Flow): boolean {
  return (
    ports === undefined ||
    ports.some(
      ({ protocol, port: first, endPort = Number(first) }) =>
        protocol === flow.protocol && Number(first) <= flow.port && flow.port <= endPort,
    )
  );
}

interface Flow {
  peer: NetworkPolicyPeer;
  protocol: string;
  port: number;
}
const flows: Flow[] = peers.flatMap((peer) =>
  protocols.flatMap((protocol) => portNumbers.map((number) => ({ peer, protocol, port: number }))),
);

/** Connections that the policies allow a pod; all, where none selects it. */
function allowed(policies: readonly NetworkPolicy[], pod: Record<string, string>): Set<Flow> {
  const mine = policies.filter(({ spec }) => selects(spec.podSelector, pod));
  if (mine.length === 0) return new Set(flows);
  const rules = mine.flatMap(({ spec }) => spec.egress ?? []);
  return new Set(
    flows.filter((flow) =>
      rules.some(
        ({ to = [], ports }) =>
          to.some((peer) => JSON.stringify(peer) === JSON.stringify(flow.peer)) &&
          includesPort(ports, flow),
      ),
    ),
  );
}

function listed(allowlist: readonly EgressEntry[]): Set<Flow> {
  return new Set(
    flows.filter((flow) =>
      allowlist.some(({ ports, ...rest }) => {
        const index = peerEntries.findIndex(
          (candidate) => JSON.stringify({ ...candidate, reason: 'x' }) === JSON.stringify(rest),
        );
        return peers[index] === flow.peer && includesPort(ports, flow);
      }),
    ),
  );
}

function targetOf(pod: Record<string, string>, targets: readonly Workload[]): boolean {
  return targets.some(({ kind, podLabels, podSelector }) => {
    if (podSelector !== undefined) return selects(podSelector, pod);
    const { 'controller-uid': _, ...own } = podLabels;
    return kind === 'Job' || kind === 'CronJob' ? selects({ matchLabels: own }, pod) : false;
  });
}

describe('for any Workflow', () => {
  it('a policy selects the pods of targets alone, and never a whole namespace', () => {
    fc.assert(
      fc.property(workloads, entries, fc.boolean(), (targets, allowlist, isWithheld) => {
        const plan = planEgress(request({ workloads: targets, entries: allowlist, isWithheld }));
        for (const { spec } of applied(plan)) {
          expect(namesPods(spec.podSelector)).toBe(true);
          expect(selects(spec.podSelector, {})).toBe(false);
          for (const pod of podUniverse) {
            if (selects(spec.podSelector, pod)) expect(targetOf(pod, targets)).toBe(true);
          }
        }
      }),
    );
  });

  it('every pod of a target that can be selected gets the allowlist, exactly', () => {
    fc.assert(
      fc.property(workloads, entries, (targets, allowlist) => {
        const policies = applied(planEgress(request({ workloads: targets, entries: allowlist })));
        const selectable = targets.filter((item) => podSelectorOf(item) !== undefined);
        for (const pod of podUniverse) {
          if (targetOf(pod, selectable)) expect(allowed(policies, pod)).toEqual(listed(allowlist));
        }
      }),
    );
  });

  it('a rule always names its peers', () => {
    fc.assert(
      fc.property(workloads, entries, fc.boolean(), (targets, allowlist, isWithheld) => {
        const plan = planEgress(request({ workloads: targets, entries: allowlist, isWithheld }));
        for (const { spec } of applied(plan)) {
          expect(spec.policyTypes).toEqual(['Egress', 'Ingress']);
          expect(spec.egress?.[0]).toBe(dnsRule);
          for (const { to = [] } of spec.egress ?? []) expect(to).not.toEqual([]);
        }
      }),
    );
  });

  const change = fc.record({ before: workloads, after: workloads, was: entries, is: entries });

  it('what is withheld allows no pod more than what stood, nor more than the allowlist', () => {
    fc.assert(
      fc.property(change, ({ before, after, was, is }) => {
        const live = applied(planEgress(request({ workloads: before, entries: was })));
        const next = { workloads: after, entries: is, live };
        const withheld = applied(planEgress(request({ ...next, isWithheld: true })));
        const granted = applied(planEgress(request(next)));
        for (const pod of podUniverse) {
          const now = allowed(withheld, pod);
          expect(now.difference(allowed(live, pod))).toEqual(new Set());
          expect(now.difference(allowed(granted, pod))).toEqual(new Set());
        }
      }),
    );
  });

  it('no moment of a change allows a pod of a target more than before or after', () => {
    fc.assert(
      fc.property(change, ({ before, after, was, is }) => {
        const live = applied(planEgress(request({ workloads: before, entries: was })));
        const { policies, obsolete } = planEgress(request({ workloads: after, entries: is, live }));
        const now = new Map(live.map((policy) => [policy.metadata.name, policy]));
        const selectable = after.filter((item) => podSelectorOf(item) !== undefined);
        const check = (): void => {
          for (const pod of podUniverse) {
            if (!targetOf(pod, selectable)) continue;
            const most = new Set([...allowed(live, pod), ...listed(is)]);
            expect(allowed([...now.values()], pod).difference(most)).toEqual(new Set());
          }
        };
        for (const { desired } of policies) {
          now.set(desired.metadata.name, desired);
          check();
        }
        for (const { desired } of obsolete) {
          now.delete(desired.metadata.name);
          check();
        }
        for (const pod of podUniverse) {
          if (targetOf(pod, selectable)) {
            expect(allowed([...now.values()], pod)).toEqual(listed(is));
          }
        }
      }),
    );
  });

  it('a plan that was applied has nothing left to do', () => {
    fc.assert(
      fc.property(workloads, entries, fc.boolean(), (targets, allowlist, isWithheld) => {
        const fields = { workloads: targets, entries: allowlist, isWithheld };
        const first = applied(planEgress(request(fields)));
        const again = planEgress(request({ ...fields, live: first.toReversed() }));
        expect(again.obsolete).toEqual([]);
        for (const { desired, live } of again.policies) expect(desired).toEqual(live);
      }),
    );
  });
});
