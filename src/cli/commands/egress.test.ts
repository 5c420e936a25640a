import { describe, expect, it } from 'vitest';
import { label } from '../../api/names.ts';
import type { KubeObject, NetworkPolicy } from '../../api/objects.ts';
import type { Workflow } from '../../api/workflow.ts';
import { planEgress } from '../../guardrails/egress/plan.ts';
import { cilium, clusterNetworkPolicy } from '../../guardrails/egress/plug-in.ts';
import { egressRows } from './egress.ts';

const workflow: Workflow = {
  metadata: { name: 'invoice', namespace: 'finance', uid: 'uid-1' },
  spec: {
    owner: { team: 'finance-automation' },
    targets: [],
    egress: [
      {
        cidr: '203.0.113.0/24',
        except: ['203.0.113.9/32'],
        ports: [{ port: 443, protocol: 'TCP' }],
        reason: 'ERP',
      },
      { namespace: 'data', reason: 'a migration', expires: '2030-01-01T00:00:00Z' },
      { peer: 'KubeAPI', reason: 'its own API' },
    ],
  },
};
const own = planEgress({
  workflow,
  entries: workflow.spec.egress ?? [],
  named: {
    KubeAPI: [
      { to: [{ ipBlock: { cidr: '192.0.2.1/32' } }], ports: [{ protocol: 'TCP', port: 6443 }] },
    ],
  },
  workloads: [],
  live: [],
  isWithheld: false,
  isGuarded: true,
}).policies.map(({ desired }) => desired);

function foreign(name: string, spec: Partial<NetworkPolicy['spec']>): NetworkPolicy {
  return {
    metadata: { name, namespace: 'finance' },
    spec: { podSelector: {}, policyTypes: ['Egress'], ...spec },
  };
}

const pods = [{ [label.identity]: 'invoice', app: 'web' }];

describe('the effective allowlist', () => {
  it.each([cilium, clusterNetworkPolicy])('has the hosts that a policy allows', (kind) => {
    const host = { host: '*.example.com', ports: [{ port: 443, protocol: 'TCP' as const }] };
    const entry = { ...host, reason: 'API' };
    const named = { ...workflow, spec: { ...workflow.spec, egress: [entry] } };
    const view = { workflow: named, policies: [], pods };
    const allow = kind.allow({ workflow: named, entries: [entry], dns: [] });
    expect(egressRows({ ...view, plugIn: allow })).toEqual([
      {
        destination: '*.example.com',
        ports: 'TCP 443',
        source: allow.metadata.name,
        reason: 'API',
        owner: 'finance-automation',
        expires: '',
      },
    ]);
    expect(egressRows({ ...view, plugIn: kind.deny(named) })).toEqual([]);
  });

  it('says of each destination who listed it, and why', () => {
    const rows = egressRows({ workflow, policies: own, pods });
    const source = own[0]?.metadata.name;
    expect(rows.slice(2)).toEqual([
      {
        destination: '203.0.113.0/24 except 203.0.113.9/32',
        ports: 'TCP 443',
        source,
        reason: 'ERP',
        owner: 'finance-automation',
        expires: '',
      },
      {
        destination: 'all pods of namespaces with kubernetes.io/metadata.name=data',
        ports: 'all',
        source,
        reason: 'a migration',
        owner: 'finance-automation',
        expires: '2030-01-01T00:00:00Z',
      },
      {
        destination: '192.0.2.1/32',
        ports: 'TCP 6443',
        source,
        reason: 'its own API',
        owner: 'finance-automation',
        expires: '',
      },
    ]);
    expect(rows[0]).toMatchObject({ ports: 'UDP 53, TCP 53', expires: '' });
  });

  it('has what others allow its pods last, and nothing of what they allow other pods', () => {
    const policies = [
      foreign('open', { egress: [{ ports: [{ port: 80 }] }] }),
      foreign('elsewhere', { podSelector: { matchLabels: { app: 'x' } }, egress: [{}] }),
      foreign('deny', { egress: [] }),
      ...own,
    ];
    expect(egressRows({ workflow, policies, pods }).at(-1)).toEqual({
      destination: 'everywhere',
      ports: 'TCP 80',
      source: 'open',
      reason: 'not of the allowlist',
      owner: '',
      expires: '',
    });
    expect(egressRows({ workflow, policies, pods })).toHaveLength(6);
  });

  it('has what policies of network plug-ins of others allow', () => {
    const spec = {
      endpointSelector: {},
      egress: [
        { toCIDR: ['10.0.0.0/8'], toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] },
        { toFQDNs: [{ matchName: 'example.com' }] },
        { toEntities: ['host'] },
      ],
    };
    const tier = {
      tier: 'Admin',
      priority: 1,
      subject: { namespaces: { matchLabels: { team: 'finance' } } },
      egress: [
        { action: 'Deny', to: [{ networks: ['192.0.2.0/24'] }] },
        { action: 'Accept', to: [{ networks: ['198.51.100.0/24'] }] },
      ],
    };
    const policies: { kind: string; policy: KubeObject & { spec: object } }[] = [
      {
        kind: 'CiliumNetworkPolicy',
        policy: { metadata: { name: 'theirs', namespace: 'finance' }, spec },
      },
      { kind: 'ClusterNetworkPolicy', policy: { metadata: { name: 'theirs' }, spec: tier } },
    ];
    const others = { policies, namespaceLabels: { team: 'finance' } };
    const rows = egressRows({ workflow, policies: own, pods, others }).slice(-4);
    expect(rows.map(({ destination, ports, source }) => [destination, ports, source])).toEqual([
      ['10.0.0.0/8', 'TCP 80', 'CiliumNetworkPolicy theirs'],
      ['example.com', 'all', 'CiliumNetworkPolicy theirs'],
      ['the entity host', 'all', 'CiliumNetworkPolicy theirs'],
      ['198.51.100.0/24', 'all', 'ClusterNetworkPolicy theirs'],
    ]);
    const elsewhere = egressRows({
      workflow,
      policies: own,
      pods,
      others: { policies, namespaceLabels: {} },
    });
    expect(elsewhere.map(({ source }) => source)).not.toContain('ClusterNetworkPolicy theirs');
  });

  it('says what is still allowed although nobody lists it any more', () => {
    const fewer = { ...workflow, spec: { ...workflow.spec, egress: [] } };
    expect(egressRows({ workflow: fewer, policies: own, pods }).at(-1)?.reason).toBe(
      'no longer listed',
    );
  });
});
