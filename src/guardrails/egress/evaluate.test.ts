import { describe, expect, it } from 'vitest';
import type { NetworkPolicy } from '../../api/objects.ts';
import { contains, rangeOf } from './addresses.ts';
import {
  mayAccept,
  mayConnect,
  type Connection,
  type OtherEnd,
  type PodIdentity,
} from './evaluate.ts';

/*
 * Written anew from the cases of
 * - "Network Policies" in the Kubernetes documentation
 *   (kubernetes.io/docs/concepts/services-networking/network-policies), and
 * - the suite by which network plug-ins are tested, kubernetes/kubernetes
 *   test/e2e/network/netpol/network_policy.go: three namespaces x, y, z with the pods a, b, c each.
 */

type Spec = Partial<NetworkPolicy['spec']>;

function policy(spec: Spec, namespace = 'x'): NetworkPolicy {
  return {
    metadata: { name: 'policy', namespace },
    spec: { podSelector: {}, policyTypes: ['Egress'], ...spec },
  };
}

const addresses: Record<string, string> = {
  'x/a': '10.0.1.1',
  'x/b': '10.0.1.2',
  'y/a': '10.0.2.1',
  'y/b': '10.0.2.2',
  'z/a': '10.0.3.1',
};

function pod(name: string, labels: Record<string, string> = {}): PodIdentity {
  const [namespace = '', own = ''] = name.split('/');
  return { namespace, labels: { pod: own, ...labels } };
}

function end(name: string, labels: Record<string, string> = {}, ns = {}): OtherEnd {
  const identity = pod(name, labels);
  const namespaceLabels = { ns: identity.namespace, ...ns };
  const address = addresses[name];
  return { pod: { ...identity, namespaceLabels }, ...(address !== undefined && { address }) };
}

function to(other: OtherEnd, fields: Partial<Connection> = {}): Connection {
  return { other, protocol: 'TCP', port: 80, ...fields };
}

const outside = (address: string): OtherEnd => ({ address });

describe('egress', () => {
  it.each<{
    what: string;
    specs: Spec[];
    from?: string;
    allowed: Connection[];
    denied: Connection[];
  }>([
    {
      what: 'a pod that no policy selects is not isolated',
      specs: [{ podSelector: { matchLabels: { pod: 'b' } }, egress: [] }],
      allowed: [to(end('y/a')), to(outside('192.0.2.1')), to(end('x/b'), { protocol: 'SCTP' })],
      denied: [],
    },
    {
      what: 'a policy of ingress isolates nobody outwards',
      specs: [{ policyTypes: ['Ingress'], ingress: [] }],
      allowed: [to(end('y/a'))],
      denied: [],
    },
    {
      what: 'default deny: no rule, nothing allowed',
      specs: [{ egress: [] }],
      allowed: [],
      denied: [to(end('x/b')), to(end('y/a')), to(outside('192.0.2.1'))],
    },
    {
      what: 'allow all: an empty rule',
      specs: [{ egress: [{}] }],
      allowed: [to(end('y/a')), to(outside('2001:db8::1'), { protocol: 'UDP', port: 1 })],
      denied: [],
    },
    {
      what: 'policies add up, and allow all prevails over default deny',
      specs: [{ egress: [] }, { egress: [{}] }],
      allowed: [to(end('y/a'))],
      denied: [],
    },
    {
      what: 'pods of the own namespace by their labels',
      specs: [{ egress: [{ to: [{ podSelector: { matchLabels: { pod: 'b' } } }] }] }],
      allowed: [to(end('x/b'))],
      denied: [to(end('x/a')), to(end('y/b')), to(outside('10.0.1.2'))],
    },
    {
      what: 'an empty podSelector is all pods of the own namespace',
      specs: [{ egress: [{ to: [{ podSelector: {} }] }] }],
      allowed: [to(end('x/b'))],
      denied: [to(end('y/b')), to(outside('192.0.2.1'))],
    },
    {
      what: 'an empty namespaceSelector is all pods of all namespaces, and nothing outside',
      specs: [{ egress: [{ to: [{ namespaceSelector: {} }] }] }],
      allowed: [to(end('x/b')), to(end('y/a'))],
      denied: [to(outside('192.0.2.1'))],
    },
    {
      what: 'a namespace by the label of its name',
      specs: [
        {
          egress: [
            {
              to: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'y' } } }],
            },
          ],
        },
      ],
      allowed: [to(end('y/a'))],
      denied: [to(end('x/a')), to(end('z/a'))],
    },
    {
      what: 'namespaces by an expression',
      specs: [
        {
          egress: [
            {
              to: [
                {
                  namespaceSelector: {
                    matchExpressions: [{ key: 'ns', operator: 'NotIn', values: ['x'] }],
                  },
                },
              ],
            },
          ],
        },
      ],
      allowed: [to(end('y/a')), to(end('z/a'))],
      denied: [to(end('x/b'))],
    },
    {
      what: 'pod and namespace in one peer: both must hold',
      specs: [
        {
          egress: [
            {
              to: [
                {
                  namespaceSelector: { matchLabels: { ns: 'y' } },
                  podSelector: { matchLabels: { pod: 'a' } },
                },
              ],
            },
          ],
        },
      ],
      allowed: [to(end('y/a'))],
      denied: [to(end('y/b')), to(end('x/a')), to(end('z/a'))],
    },
    {
      what: 'pod and namespace in two peers: one of them must',
      specs: [
        {
          egress: [
            {
              to: [
                { namespaceSelector: { matchLabels: { ns: 'y' } } },
                { podSelector: { matchLabels: { pod: 'b' } } },
              ],
            },
          ],
        },
      ],
      allowed: [to(end('y/a')), to(end('y/b')), to(end('x/b'))],
      denied: [to(end('x/a')), to(end('z/a'))],
    },
    {
      what: 'a server by its address',
      specs: [{ egress: [{ to: [{ ipBlock: { cidr: '10.0.2.1/32' } }] }] }],
      allowed: [to(end('y/a')), to(outside('10.0.2.1'))],
      denied: [to(end('y/b'))],
    },
    {
      what: 'a network but for an exception',
      specs: [
        { egress: [{ to: [{ ipBlock: { cidr: '10.0.2.0/24', except: ['10.0.2.2/32'] } }] }] },
      ],
      allowed: [to(end('y/a'))],
      denied: [to(end('y/b')), to(end('z/a'))],
    },
    {
      what: 'an address that one policy excepts and another allows is allowed',
      specs: [
        { egress: [{ to: [{ ipBlock: { cidr: '10.0.2.0/24', except: ['10.0.2.2/32'] } }] }] },
        { egress: [{ to: [{ ipBlock: { cidr: '10.0.2.2/32' } }] }] },
      ],
      allowed: [to(end('y/b'))],
      denied: [],
    },
    {
      what: 'one port',
      specs: [{ egress: [{ ports: [{ port: 80 }] }] }],
      allowed: [to(end('y/a'))],
      denied: [to(end('y/a'), { port: 81 }), to(end('y/a'), { protocol: 'UDP' })],
    },
    {
      what: 'a range of ports, both ends inside',
      specs: [{ egress: [{ ports: [{ port: 32_000, endPort: 32_768, protocol: 'TCP' }] }] }],
      allowed: [32_000, 32_500, 32_768].map((port) => to(end('y/a'), { port })),
      denied: [31_999, 32_769].map((port) => to(end('y/a'), { port })),
    },
    {
      what: 'all ports of a protocol',
      specs: [{ egress: [{ ports: [{ protocol: 'UDP' }] }] }],
      allowed: [to(end('y/a'), { protocol: 'UDP', port: 9 })],
      denied: [to(end('y/a')), to(end('y/a'), { protocol: 'SCTP' })],
    },
    {
      what: 'SCTP is not TCP',
      specs: [{ egress: [{ ports: [{ port: 80, protocol: 'SCTP' }] }] }],
      allowed: [to(end('y/a'), { protocol: 'SCTP' })],
      denied: [to(end('y/a'))],
    },
    {
      what: 'a port by the name that it has in the pod',
      specs: [{ egress: [{ ports: [{ port: 'serve-80-tcp' }] }] }],
      allowed: [to(end('y/a'), { portName: 'serve-80-tcp' })],
      denied: [to(end('y/a')), to(end('y/a'), { port: 81, portName: 'serve-81-tcp' })],
    },
    {
      what: 'peers and ports of one rule must both hold, of two rules one',
      specs: [
        {
          egress: [
            { to: [{ podSelector: { matchLabels: { pod: 'b' } } }], ports: [{ port: 80 }] },
            { to: [{ namespaceSelector: { matchLabels: { ns: 'y' } } }], ports: [{ port: 81 }] },
          ],
        },
      ],
      allowed: [to(end('x/b')), to(end('y/a'), { port: 81 })],
      denied: [to(end('x/b'), { port: 81 }), to(end('y/a'))],
    },
  ])('$what', ({ specs, allowed, denied }) => {
    const policies = specs.map((spec) => policy(spec));
    for (const connection of allowed) {
      expect([connection, mayConnect(policies, pod('x/a'), connection)]).toEqual([
        connection,
        true,
      ]);
    }
    for (const connection of denied) {
      expect([connection, mayConnect(policies, pod('x/a'), connection)]).toEqual([
        connection,
        false,
      ]);
    }
  });

  it('a policy of another namespace is none of it', () => {
    expect(mayConnect([policy({ egress: [] }, 'y')], pod('x/a'), to(end('z/a')))).toBe(true);
  });

  it('follows the labels of the pods and of their namespaces', () => {
    const updated = { matchLabels: { ns2: 'updated' } };
    const one = [policy({ egress: [{ to: [{ namespaceSelector: updated }] }] })];
    expect(mayConnect(one, pod('x/a'), to(end('y/a')))).toBe(false);
    expect(mayConnect(one, pod('x/a'), to(end('y/a', {}, { ns2: 'updated' })))).toBe(true);
    const isolated = [policy({ podSelector: { matchLabels: { target: 'isolated' } }, egress: [] })];
    expect(mayConnect(isolated, pod('x/a'), to(end('y/a')))).toBe(true);
    expect(mayConnect(isolated, pod('x/a', { target: 'isolated' }), to(end('y/a')))).toBe(false);
  });
});

describe('ingress', () => {
  const fromB = { from: [{ podSelector: { matchLabels: { pod: 'b' } } }] };

  it('is a direction of its own', () => {
    const both = policy({
      policyTypes: ['Egress', 'Ingress'],
      ingress: [fromB],
      egress: [{ ports: [{ port: 80 }] }],
    });
    const accepts = (name: string, port: number): boolean =>
      mayAccept([both], pod('x/a'), to(end(name), { port }));
    expect([accepts('x/b', 80), accepts('x/b', 81), accepts('y/b', 80)]).toEqual([
      true,
      true,
      false,
    ]);
    expect(mayConnect([both], pod('x/a'), to(end('y/a'), { port: 81 }))).toBe(false);
  });

  it('is open where policies are for the other direction alone', () => {
    expect(mayAccept([policy({ egress: [] })], pod('x/a'), to(end('y/a')))).toBe(true);
  });

  it('is closed by default deny, and open by allow all', () => {
    const types: Spec = { policyTypes: ['Ingress'] };
    const deny = policy({ ...types, ingress: [] });
    const allow = policy({ ...types, ingress: [{}] });
    expect(mayAccept([deny], pod('x/a'), to(end('x/b')))).toBe(false);
    expect(mayAccept([deny, allow], pod('x/a'), to(outside('192.0.2.1')))).toBe(true);
  });
});

describe('addresses', () => {
  it.each<[cidr: string, inside: string[], outside: string[]]>([
    ['10.0.0.0/8', ['10.0.0.0', '10.255.255.255'], ['9.255.255.255', '11.0.0.0', '::a00:0']],
    ['10.1.2.3/8', ['10.0.0.0'], ['11.0.0.0']],
    ['0.0.0.0/0', ['0.0.0.0', '255.255.255.255'], ['::', '::1']],
    ['::/0', ['::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'], ['0.0.0.0']],
    ['2001:db8::/32', ['2001:db8::1', '2001:db8:ffff::'], ['2001:db9::', '2001:db7:ffff::']],
    ['fe80::1/128', ['fe80::1', 'FE80:0:0:0:0:0:0:1'], ['fe80::2']],
    ['::ffff:192.0.2.0/120', ['::ffff:192.0.2.7', '::ffff:c000:0207'], ['192.0.2.7']],
  ])('of %s', (cidr, inside, out) => {
    for (const address of inside)
      expect([address, contains(cidr, address)]).toEqual([address, true]);
    for (const address of out) expect([address, contains(cidr, address)]).toEqual([address, false]);
  });

  it.each(['', '10.0.0.0', '10.0.0.0/33', '::/129', 'x/8', '10.0.0.0/-1', '10.0.0/8'])(
    'are none of %j',
    (cidr) => {
      expect(rangeOf(cidr)).toBeUndefined();
    },
  );
});
