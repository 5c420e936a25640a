import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { label } from '../../api/names.ts';
import type { KubeObject, NetworkPolicy } from '../../api/objects.ts';
import type { EgressEntry } from '../../api/workflow.ts';
import { contains } from './addresses.ts';
import { mayConnect, type Connection } from './evaluate.ts';
import { dnsRule, type EgressRule } from './rules.ts';
import { widenedByPlugIn, type PlugInWideningRequest } from './widened-by-plug-in.ts';

const namespace = 'billing';
const labels = { [label.identity]: 'poster', app: 'poster' };
const erp: EgressRule = {
  to: [{ ipBlock: { cidr: '203.0.113.0/24' } }],
  ports: [{ protocol: 'TCP', port: 443 }],
};

function own(egress: EgressRule[]): NetworkPolicy {
  return {
    metadata: { name: 'poster-egress', namespace },
    spec: { podSelector: {}, policyTypes: ['Egress'], egress },
  };
}

const request: PlugInWideningRequest = {
  name: 'poster',
  namespace,
  namespaceLabels: { 'kubernetes.io/metadata.name': namespace, team: 'finance' },
  pods: [labels],
  own: [own([dnsRule, erp])],
  hosts: [],
  cilium: [],
  cluster: [],
};

type Foreign = KubeObject & { spec: object };

const cilium = (spec: object, of: string | undefined = namespace): Foreign => ({
  metadata: { name: 'theirs', ...(of !== undefined && { namespace: of }) },
  spec: { endpointSelector: {}, ...spec },
});
const clusterwide = (spec: object): Foreign => ({
  metadata: { name: 'theirs' },
  spec: { endpointSelector: {}, ...spec },
});
const tcp = (...ports: string[]): object[] => [
  { ports: ports.map((port) => ({ port, protocol: 'TCP' })) },
];
const dnsPods = { 'k8s:io.kubernetes.pod.namespace': 'kube-system', 'k8s:k8s-app': 'kube-dns' };
const dnsPorts = [
  { ports: [{ port: '53', protocol: 'ANY' }], rules: { dns: [{ matchPattern: '*' }] } },
];

function wordsOf(changes: Partial<PlugInWideningRequest>): string | undefined {
  const [found, ...others] = widenedByPlugIn({ ...request, ...changes });
  expect(others).toEqual([]);
  return found && `${found.policy}: ${found.words.join('; ')}`;
}

describe('a CiliumNetworkPolicy of somebody else', () => {
  // As docs.cilium.io/en/stable/security/policy/language describes the fields.
  it.each<[string, object, string | undefined]>([
    ['an empty rule denies', { egress: [{}] }, undefined],
    ['no rule', { egress: [] }, undefined],
    ['what only denies', { egressDeny: [{ toEntities: ['all'] }] }, undefined],
    ['what only lets in', { ingress: [{ fromEntities: ['all'] }] }, undefined],
    [
      'what is listed',
      { egress: [{ toCIDR: ['203.0.113.8/32'], toPorts: tcp('443') }] },
      undefined,
    ],
    ['another port', { egress: [{ toCIDR: ['203.0.113.8/32'], toPorts: tcp('80') }] }, 'TCP 80'],
    ['all ports', { egress: [{ toCIDR: ['203.0.113.8/32'] }] }, '203.0.113.8/32'],
    [
      'port 0, which is all',
      { egress: [{ toCIDR: ['203.0.113.8/32'], toPorts: tcp('0') }] },
      'TCP',
    ],
    ['a wider network', { egress: [{ toCIDR: ['203.0.0.0/16'], toPorts: tcp('443') }] }, '203.0'],
    [
      'a wider one but for what is not listed',
      {
        egress: [
          {
            toCIDRSet: [{ cidr: '203.0.112.0/23', except: ['203.0.112.0/24'] }],
            toPorts: tcp('443'),
          },
        ],
      },
      undefined,
    ],
    [
      'a range of ports',
      {
        egress: [
          {
            toCIDR: ['203.0.113.8/32'],
            toPorts: [{ ports: [{ port: '443', endPort: 444, protocol: 'TCP' }] }],
          },
        ],
      },
      'TCP 443-444',
    ],
    [
      'a group of networks',
      { egress: [{ toCIDRSet: [{ cidrGroupRef: 'x' }] }] },
      'a group of networks',
    ],
    [
      'the DNS, by its proxy',
      { egress: [{ toEndpoints: [{ matchLabels: dnsPods }], toPorts: dnsPorts }] },
      undefined,
    ],
    [
      'more of those pods',
      { egress: [{ toEndpoints: [{ matchLabels: dnsPods }] }] },
      'k8s-app In kube-dns',
    ],
    ['pods of its namespace', { egress: [{ toEndpoints: [{}] }] }, 'all pods of its namespace'],
    ['ports of everywhere', { egress: [{ toPorts: tcp('443') }] }, 'everywhere on TCP 443'],
    ['everything', { egress: [{ toEntities: ['all'] }] }, 'everywhere'],
    ['the world', { egress: [{ toEntities: ['world'], toPorts: tcp('443') }] }, '0.0.0.0/0'],
    ['the cluster', { egress: [{ toEntities: ['cluster'] }] }, 'nodes of the cluster'],
    [
      'the API server',
      { egress: [{ toEntities: ['kube-apiserver'] }] },
      'the entity kube-apiserver',
    ],
    ['a name', { egress: [{ toFQDNs: [{ matchName: 'example.com' }] }] }, 'example.com'],
    ['a pattern', { egress: [{ toFQDNs: [{ matchPattern: '*.example.com' }] }] }, '*.example.com'],
    ['ICMP', { egress: [{ icmps: [{ fields: [{ type: 8 }] }] }] }, 'ICMP'],
    ['Services', { egress: [{ toServices: [{ k8sService: {} }] }] }, 'toServices'],
    ['what we do not know', { egress: [{ toSomething: [{}] }] }, 'toSomething'],
    ['an entity of nothing', { egress: [{ toEntities: ['none'] }] }, undefined],
    ['nonsense', { egress: [null, 'x', { toCIDR: 'x' }] }, undefined],
  ])('%s', (_what, spec, words) => {
    const found = wordsOf({ cilium: [cilium(spec)] });
    if (words === undefined) expect(found).toBeUndefined();
    else expect(found).toContain(words);
  });

  const everything = { egress: [{ toEntities: ['all'] }] };
  it.each<[string, object | undefined, boolean]>([
    ['all', {}, true],
    ['a label', { matchLabels: { app: 'poster' } }, true],
    ['a label of Kubernetes', { matchLabels: { 'k8s:app': 'poster' } }, true],
    ['a label of any source', { matchLabels: { 'any:app': 'poster' } }, true],
    ['another value', { matchLabels: { app: 'web' } }, false],
    ['its namespace', { matchLabels: { 'k8s:io.kubernetes.pod.namespace': namespace } }, true],
    ['another namespace', { matchLabels: { 'io.kubernetes.pod.namespace': 'x' } }, false],
    [
      'a label of its namespace',
      { matchLabels: { 'io.cilium.k8s.namespace.labels.team': 'finance' } },
      true,
    ],
    ['another one of it', { matchLabels: { 'io.cilium.k8s.namespace.labels.team': 'x' } }, false],
    [
      'its ServiceAccount',
      { matchLabels: { 'io.cilium.k8s.policy.serviceaccount': 'poster' } },
      true,
    ],
    ['another one', { matchLabels: { 'io.cilium.k8s.policy.serviceaccount': 'web' } }, false],
    [
      'a cluster, which nobody knows here',
      { matchLabels: { 'io.cilium.k8s.policy.cluster': 'a' } },
      true,
    ],
    [
      'what it is not',
      { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['poster'] }] },
      false,
    ],
    ['what it has', { matchExpressions: [{ key: 'k8s:app', operator: 'Exists' }] }, true],
    ['what it lacks', { matchExpressions: [{ key: 'x', operator: 'DoesNotExist' }] }, true],
    ['nodes', undefined, false],
  ])('concerns its pods where it selects %s', (_what, endpointSelector, isFound) => {
    for (const policy of [cilium(everything), clusterwide(everything)]) {
      Object.assign(policy.spec, { endpointSelector });
      expect(widenedByPlugIn({ ...request, cilium: [policy] })).toHaveLength(isFound ? 1 : 0);
    }
  });

  it('may say several things at once', () => {
    const { metadata } = cilium({});
    const specs = [everything, { egress: [{ toCIDR: ['192.0.2.0/24'] }] }].map((spec) => ({
      endpointSelector: {},
      ...spec,
    }));
    const policy: KubeObject & { specs: object[] } = { metadata, specs };
    expect(wordsOf({ cilium: [policy] })).toBe(
      'CiliumNetworkPolicy theirs: everywhere; 192.0.2.0/24',
    );
  });

  it('of the whole cluster reaches pods of all namespaces', () => {
    const spec = { egress: [{ toEndpoints: [{ matchLabels: { app: 'db' } }] }] };
    expect(wordsOf({ cilium: [clusterwide(spec)] })).toBe(
      'CiliumClusterwideNetworkPolicy theirs: pods with app In db of all namespaces',
    );
  });

  it.each<[EgressEntry['ports'], object[], boolean]>([
    [undefined, [], true],
    [undefined, tcp('443'), true],
    [[{ port: 443, protocol: 'TCP' }], tcp('443'), true],
    [[{ port: 443, protocol: 'TCP' }], tcp('80'), false],
    [[{ port: 443, protocol: 'TCP' }], [], false],
  ])(
    'allows no more than the list with a name on ports %j: %j is %s',
    (ports, toPorts, isListed) => {
      const host = { host: 'example.com', reason: 'x', ...(ports !== undefined && { ports }) };
      const spec = { egress: [{ toFQDNs: [{ matchName: 'example.com' }], toPorts }] };
      expect(wordsOf({ cilium: [cilium(spec)], hosts: [host] }) === undefined).toBe(isListed);
    },
  );
});

let made = 0;
const admin = (priority: number, egress: object[], rest: object = {}): Foreign => ({
  metadata: { name: `theirs-${made++}` },
  spec: { tier: 'Admin', priority, subject: { namespaces: {} }, egress, ...rest },
});
const to = (action: string, ...networks: string[]): object => ({ action, to: [{ networks }] });
const on = (port: object): object => ({ protocols: [{ tcp: { destinationPort: port } }] });

describe('a ClusterNetworkPolicy of somebody else', () => {
  // As network-policy-api describes the fields of v1alpha2.
  it.each<[string, KubeObject[], string | undefined]>([
    ['accepts', [admin(5, [to('Accept', '10.0.0.0/8')])], '10.0.0.0/8'],
    [
      'accepts what is listed',
      [admin(5, [{ ...to('Accept', '203.0.113.0/25'), ...on({ number: 443 }) }])],
      undefined,
    ],
    [
      'accepts another port',
      [
        admin(5, [
          { ...to('Accept', '203.0.113.0/25'), ...on({ range: { start: 443, end: 444 } }) },
        ]),
      ],
      'TCP 443-444',
    ],
    ['denies', [admin(5, [to('Deny', '10.0.0.0/8')])], undefined],
    ['passes to NetworkPolicies', [admin(5, [to('Pass', '10.0.0.0/8')])], undefined],
    [
      'of the tier that comes last',
      [admin(5, [to('Accept', '10.0.0.0/8')], { tier: 'Baseline' })],
      undefined,
    ],
    [
      'accepts behind its own deny',
      [admin(5, [to('Deny', '10.0.0.0/8'), to('Accept', '10.1.0.0/16')])],
      undefined,
    ],
    [
      'accepts before its own deny',
      [admin(5, [to('Accept', '10.1.0.0/16'), to('Deny', '10.0.0.0/8')])],
      '10.1.0.0/16',
    ],
    [
      'accepts behind its own pass',
      [admin(5, [to('Pass', '10.0.0.0/8'), to('Accept', '10.1.0.0/16')])],
      undefined,
    ],
    [
      'accepts behind one that denies',
      [admin(4, [to('Deny', '10.0.0.0/8')]), admin(5, [to('Accept', '10.1.0.0/16')])],
      undefined,
    ],
    [
      'accepts beside one that denies',
      [admin(5, [to('Deny', '10.0.0.0/8')]), admin(5, [to('Accept', '10.1.0.0/16')])],
      '10.1.0.0/16',
    ],
    [
      'accepts behind a part',
      [admin(4, [to('Deny', '10.1.0.0/17')]), admin(5, [to('Accept', '10.1.0.0/16')])],
      '10.1.0.0/16',
    ],
    [
      'accepts behind a deny that we cannot read',
      [admin(5, [{ ...to('Deny', '10.0.0.0/8'), later: {} }, to('Accept', '10.1.0.0/16')])],
      '10.1.0.0/16',
    ],
    [
      'accepts behind a deny for others',
      [
        admin(4, [to('Deny', '10.0.0.0/8')], {
          subject: { namespaces: { matchLabels: { team: 'x' } } },
        }),
        admin(5, [to('Accept', '10.1.0.0/16')]),
      ],
      '10.1.0.0/16',
    ],
    [
      'accepts pods',
      [admin(5, [{ action: 'Accept', to: [{ namespaces: {} }] }])],
      'all pods of all namespaces',
    ],
    [
      'accepts some pods',
      [
        admin(5, [
          {
            action: 'Accept',
            to: [{ pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: 'db' } } } }],
          },
        ]),
      ],
      'app In db',
    ],
    ['accepts nodes', [admin(5, [{ action: 'Accept', to: [{ nodes: {} }] }])], 'nodes'],
    [
      'accepts names',
      [admin(5, [{ action: 'Accept', to: [{ domainNames: ['example.com'] }] }])],
      'example.com',
    ],
    [
      'accepts what we do not know',
      [admin(5, [{ action: 'Accept', to: [{ later: {} }] }])],
      'unknown',
    ],
    [
      'is for other pods',
      [
        admin(5, [to('Accept', '10.0.0.0/8')], {
          subject: {
            pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: 'web' } } },
          },
        }),
      ],
      undefined,
    ],
  ])('%s', (_what, cluster, words) => {
    const found = wordsOf({ cluster });
    if (words === undefined) expect(found).toBeUndefined();
    else expect(found).toContain(words);
  });
});

// A small world, whose addresses stand for all of each part.
const cidrs = ['10.0.0.0/8', '10.0.0.0/9', '10.128.0.0/9', '10.1.0.0/16', '192.0.2.0/24'];
const addresses = ['10.0.0.1', '10.1.0.1', '10.200.0.1', '192.0.2.1', '198.51.100.1'];
const network = fc.constantFrom(...cidrs);
const number = fc.integer({ min: 1, max: 3 });
const world: Connection[] = addresses.flatMap((address) =>
  [1, 2, 3, 4].map((port) => ({ other: { address }, protocol: 'TCP', port })),
);
const allowedHere = fc.array(fc.record({ cidr: network, port: number }), { maxLength: 3 });
const ownOf = (some: readonly { cidr: string; port: number }[]): NetworkPolicy =>
  own(
    some.map(({ cidr, port }) => ({
      to: [{ ipBlock: { cidr } }],
      ports: [{ protocol: 'TCP', port }],
    })),
  );
const pod = { namespace, labels };

describe('what is found of all connections at once', () => {
  const parts = fc.array(
    fc.record({ cidr: network, except: fc.option(network), port: fc.option(number) }),
    { minLength: 1, maxLength: 3 },
  );

  it('is what one of them shows: Cilium', () => {
    fc.assert(
      fc.property(parts, allowedHere, (some, listed) => {
        const egress = some.map(({ cidr, except, port }) => ({
          ...(except === null ? { toCIDR: [cidr] } : { toCIDRSet: [{ cidr, except: [except] }] }),
          toPorts: port === null ? tcp('0') : tcp(String(port)),
        }));
        const isMore = world.some(
          (connection) =>
            some.some(
              ({ cidr, except, port }) =>
                contains(cidr, connection.other.address ?? '') &&
                !(except !== null && contains(except, connection.other.address ?? '')) &&
                (port === null || port === connection.port),
            ) && !mayConnect([ownOf(listed)], pod, connection),
        );
        const found = widenedByPlugIn({
          ...request,
          own: [ownOf(listed)],
          cilium: [cilium({ egress })],
        });
        expect(found.length > 0).toBe(isMore);
      }),
      { numRuns: 300 },
    );
  });

  it('is what one of them shows: ClusterNetworkPolicies, of which the first decides', () => {
    const rule = fc.record({
      action: fc.constantFrom('Accept', 'Deny', 'Pass'),
      cidr: network,
      port: fc.option(number),
    });
    const policies = fc.array(fc.array(rule, { minLength: 1, maxLength: 3 }), { maxLength: 4 });
    fc.assert(
      fc.property(policies, allowedHere, (some, listed) => {
        const accepted = world.filter((connection) => {
          const first = some
            .flat()
            .find(
              ({ cidr, port }) =>
                contains(cidr, connection.other.address ?? '') &&
                (port === null || port === connection.port),
            );
          return first?.action === 'Accept' && !mayConnect([ownOf(listed)], pod, connection);
        });
        const cluster = some.map((rules, priority) =>
          admin(
            priority,
            rules.map(({ action, cidr, port }) => ({
              ...to(action, cidr),
              ...(port === null ? { protocols: [{ tcp: {} }] } : on({ number: port })),
            })),
          ),
        );
        // In an order of their own.
        const found = widenedByPlugIn({
          ...request,
          own: [ownOf(listed)],
          cluster: cluster.toReversed(),
        });
        expect(found.length > 0).toBe(accepted.length > 0);
      }),
      { numRuns: 300 },
    );
  });

  it('counts as more where it would take too long, and takes no longer', () => {
    const toCIDR = Array.from(
      { length: 2_000 },
      (_, index) => `10.${index >> 8}.${index & 255}.0/24`,
    );
    const spec = { egress: [{ toCIDR, toPorts: tcp('443') }] };
    const many = Array.from({ length: 600 }, () => cilium(spec));
    const listed = toCIDR.slice(0, 200).map((cidr) => ({ to: [{ ipBlock: { cidr } }] }));
    expect(widenedByPlugIn({ ...request, own: [own(listed)], cilium: many })).toHaveLength(1);
  });
});
