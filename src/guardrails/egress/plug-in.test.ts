import { describe, expect, it } from 'vitest';
import { label } from '../../api/names.ts';
import type { EgressEntry, Workflow } from '../../api/workflow.ts';
import {
  cilium,
  clusterNetworkPolicy,
  planPlugIn,
  type PlugInKind,
  type PlugInPolicy,
  type PlugInRequest,
} from './plug-in.ts';

const workflow: Workflow = {
  metadata: { name: 'poster', namespace: 'billing', uid: 'uid-1' },
  spec: { targets: [] },
};

function entry(host: string, ...ports: [first: number, last?: number][]): EgressEntry {
  return {
    host,
    reason: 'A test.',
    ...(ports.length > 0 && {
      ports: ports.map(([port, endPort]) => ({
        protocol: 'TCP' as const,
        port,
        ...(endPort !== undefined && { endPort }),
      })),
    }),
  };
}

function plan(kind: PlugInKind, fields: Partial<PlugInRequest> = {}) {
  return planPlugIn({
    kind,
    workflow,
    entries: [],
    dns: [],
    live: [],
    isWithheld: false,
    isClosed: false,
    isGuarded: true,
    ...fields,
  });
}

const wild = entry('*.example.org');
const api = entry('api.example.com', [443], [8000, 8010]);

describe('a CiliumNetworkPolicy', () => {
  it('allows names, has the DNS proxy learn them, and denies the metadata service', () => {
    const service = {
      to: [{ ipBlock: { cidr: '10.96.0.10/32' } }],
      ports: [{ protocol: 'UDP' as const, port: 53 }],
    };
    const { desired } = plan(cilium, { entries: [api, wild], dns: [service] });
    const rules = { dns: [{ matchPattern: '*' }] };
    const ports = [
      { port: '53', protocol: 'UDP' },
      { port: '53', protocol: 'TCP' },
    ];
    expect(desired?.metadata).toMatchObject({ name: 'poster-egress', namespace: 'billing' });
    expect(desired?.spec).toEqual({
      endpointSelector: { matchLabels: { [label.identity]: 'poster' } },
      egress: [
        {
          toEndpoints: [
            {
              matchLabels: {
                'k8s:k8s-app': 'kube-dns',
                'k8s:io.kubernetes.pod.namespace': 'kube-system',
              },
            },
          ],
          toPorts: [{ ports, rules }],
        },
        { toCIDR: ['169.254.20.10/32'], toPorts: [{ ports, rules }] },
        { toCIDR: ['10.96.0.10/32'], toPorts: [{ ports: ports.slice(0, 1), rules }] },
        {
          toFQDNs: [{ matchName: 'api.example.com' }],
          toPorts: [
            {
              ports: [
                { port: '443', protocol: 'TCP' },
                { port: '8000', endPort: 8010, protocol: 'TCP' },
              ],
            },
          ],
        },
        { toFQDNs: [{ matchPattern: '*.example.org' }] },
      ],
      egressDeny: [{ toCIDR: ['169.254.169.254/32', 'fd00:ec2::254/128', 'fd20:ce::254/128'] }],
      ingressDeny: [],
    });
  });
});

describe('a ClusterNetworkPolicy', () => {
  it('denies the metadata service, then accepts names, for the pods of one identity', () => {
    const { desired } = plan(clusterNetworkPolicy, { entries: [api, wild, entry('b.example')] });
    expect(desired?.metadata.namespace).toBe(undefined);
    expect(desired?.spec).toEqual({
      tier: 'Admin',
      priority: 1000,
      subject: {
        pods: {
          namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'billing' } },
          podSelector: { matchLabels: { [label.identity]: 'poster' } },
        },
      },
      egress: [
        {
          action: 'Deny',
          name: 'metadata',
          to: [{ networks: ['169.254.169.254/32', 'fd00:ec2::254/128', 'fd20:ce::254/128'] }],
        },
        {
          action: 'Accept',
          to: [{ domainNames: ['api.example.com'] }],
          protocols: [
            { tcp: { destinationPort: { number: 443 } } },
            { tcp: { destinationPort: { range: { start: 8000, end: 8010 } } } },
          ],
        },
        { action: 'Accept', to: [{ domainNames: ['*.example.org', 'b.example'] }] },
      ],
      ingress: [],
    });
  });

  it('says when it has no room for all', () => {
    const same = Array.from({ length: 128 }, (_, index) => entry(`h${index}.example.com`, [443]));
    expect(clusterNetworkPolicy.tooMany(same)).toBe(undefined);
    const own = same.map((_, index) => entry(`h${index}.example.com`, [index + 1]));
    expect(clusterNetworkPolicy.tooMany(own)).toContain('these take 128');
  });
});

describe.each([
  ['CiliumNetworkPolicy', cilium],
  ['ClusterNetworkPolicy', clusterNetworkPolicy],
])('the one %s of a Workflow', (_, kind) => {
  const allow = kind.allow({ workflow, entries: [api, wild], dns: [] });
  const deny = kind.deny(workflow);
  const standing = (policy: PlugInPolicy): PlugInPolicy[] => [policy];

  it('is none without hosts', () => {
    expect(plan(kind)).toMatchObject({ desired: undefined, obsolete: [] });
    expect(plan(kind, { live: standing(allow) }).obsolete).toEqual([allow]);
  });

  it('is for that Workflow, and found by it', () => {
    expect(kind.workflowOf(allow)).toBe('billing/poster');
    expect([kind.isDeny(allow), kind.isDeny(deny)]).toEqual([false, true]);
    expect(deny.metadata).toEqual(allow.metadata);
  });

  it('leaves no field of what it was before, as an apply would that mentions none', () => {
    const fields = ({ spec }: PlugInPolicy): string[] => Object.keys(spec).toSorted();
    expect(fields(allow)).toEqual(fields(deny));
  });

  it('keeps what it allows while nothing is granted, and loses what is taken out', () => {
    const more = entry('more.example.com');
    const wider = entry('api.example.com', [443], [22]);
    const held = { live: standing(allow), isWithheld: true };
    expect(plan(kind, { ...held, entries: [api, wild, more] }).desired).toEqual(allow);
    expect(plan(kind, { ...held, entries: [wider, wild] }).desired).toEqual(
      kind.allow({ workflow, entries: [wild], dns: [] }),
    );
    expect(plan(kind, { isWithheld: true, entries: [api] }).desired).toBe(undefined);
    expect(plan(kind, { isGuarded: false, entries: [api] }).desired).toBe(undefined);
  });

  it('denies at a kill, also where there was none, and nothing of that stays', () => {
    const closed = { isClosed: true, isWithheld: true };
    expect(plan(kind, { ...closed, entries: [api], live: standing(allow) })).toMatchObject({
      desired: deny,
      live: allow,
    });
    expect(plan(kind, closed).desired).toEqual(deny);
    expect(plan(kind, { live: standing(deny), isWithheld: true, entries: [api] })).toMatchObject({
      desired: undefined,
      obsolete: [deny],
    });
  });
});
