import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { label } from '../../api/names.ts';
import type { LabelSelector, NetworkPolicy, NetworkPolicyPeer } from '../../api/objects.ts';
import type { EgressEntry, Workflow } from '../../api/workflow.ts';
import { contains, rangeOf } from './addresses.ts';
import { mayConnect, type Connection, type Labels } from './evaluate.ts';
import { planEgress } from './plan.ts';
import { boxesOfRule, isInside, subtract, type Box } from './region.ts';
import { dnsRule, type EgressRule } from './rules.ts';
import { widenedBy, widenedFinding, wordsOf } from './widened.ts';

const namespace = 'billing';
const own = { [label.identity]: 'poster' };
const pod = { namespace, labels: own };

function policy(
  name: string,
  egress: EgressRule[],
  podSelector: LabelSelector = {},
): NetworkPolicy {
  return {
    metadata: { name, namespace },
    spec: { podSelector, policyTypes: ['Egress'], egress },
  };
}

// A small world, in which everything overlaps with everything.

const cidrs = [
  '10.0.0.0/8',
  '10.0.0.0/9',
  '10.128.0.0/9',
  '10.1.0.0/16',
  '10.1.0.0/17',
  '10.1.2.3/32',
  '2001:db8::/32',
  '2001:db8::/33',
  '::/0',
  '0.0.0.0/0',
];
const addresses = [
  '10.0.0.1',
  '10.1.2.3',
  '10.1.2.4',
  '10.1.255.1',
  '10.200.0.1',
  '192.0.2.1',
  '2001:db8::1',
  '2001:db8:ffff::1',
  '::1',
];

const key = fc.constantFrom('a', 'b');
const value = fc.constantFrom('1', '2', '3');
const expression = fc
  .record({
    key,
    operator: fc.constantFrom('In', 'NotIn', 'Exists', 'DoesNotExist'),
    values: fc.array(value, { minLength: 1, maxLength: 2 }),
  })
  .map(({ values, ...rest }) => ({ ...rest, ...(rest.operator.endsWith('In') && { values }) }));
const selector: fc.Arbitrary<LabelSelector> = fc.record(
  {
    matchLabels: fc.dictionary(key, value, { maxKeys: 2 }),
    matchExpressions: fc.array(expression, { maxLength: 2 }),
  },
  { requiredKeys: [] },
);
const nameSelector = fc
  .constantFrom(namespace, 'data')
  .map((name): LabelSelector => ({ matchLabels: { 'kubernetes.io/metadata.name': name } }));

const ipBlock = fc
  .tuple(fc.constantFrom(...cidrs), fc.array(fc.constantFrom(...cidrs), { maxLength: 2 }))
  .map(([cidr, except]) => {
    const [first = 0n, last = 0n] = rangeOf(cidr) ?? [];
    const inside = except.filter((network) => {
      const [from = 0n, to = 0n] = rangeOf(network) ?? [];
      return first <= from && to <= last && network !== cidr;
    });
    return { ipBlock: { cidr, ...(inside.length > 0 && { except: inside }) } };
  });
const peer: fc.Arbitrary<NetworkPolicyPeer> = fc.oneof(
  ipBlock,
  fc.record({ podSelector: selector }),
  fc.record({ namespaceSelector: fc.oneof(selector, nameSelector) }),
  fc.record({ namespaceSelector: fc.oneof(selector, nameSelector), podSelector: selector }),
);
const port = fc.oneof(
  fc.record({ protocol: fc.constantFrom('TCP', 'UDP', 'SCTP') }, { requiredKeys: [] }),
  fc
    .record({
      protocol: fc.constantFrom('TCP', 'UDP'),
      port: fc.integer({ min: 1, max: 4 }),
      more: fc.nat(2),
    })
    .map(({ more, ...rest }) => ({ ...rest, ...(more > 0 && { endPort: rest.port + more }) })),
  fc.record({ protocol: fc.constantFrom('TCP', 'UDP'), port: fc.constantFrom('web', 'db') }),
);
const rule = fc.record(
  { to: fc.array(peer, { maxLength: 2 }), ports: fc.array(port, { maxLength: 2 }) },
  { requiredKeys: [] },
) as fc.Arbitrary<EgressRule>;
const rulesOfSome = fc.array(rule, { maxLength: 4 });

const labels: fc.Arbitrary<Labels> = fc.dictionary(key, value, { maxKeys: 2 });
const other = fc.oneof(
  fc.record({ address: fc.constantFrom(...addresses) }),
  fc.record({
    address: fc.constantFrom(...addresses),
    pod: fc.record({
      namespace: fc.constantFrom(namespace, 'data', 'else'),
      labels,
      namespaceLabels: labels,
    }),
  }),
);
const connection: fc.Arbitrary<Connection> = fc
  .record({
    other,
    protocol: fc.constantFrom('TCP', 'UDP', 'SCTP'),
    port: fc.integer({ min: 1, max: 7 }),
    portName: fc.constantFrom(undefined, 'web', 'db', 'else'),
  })
  .map(({ portName, ...rest }) => ({
    ...rest,
    // Only pods have names for their ports.
    ...(portName !== undefined && 'pod' in rest.other && { portName }),
  })) as fc.Arbitrary<Connection>;
const connections = fc.array(connection, { minLength: 20, maxLength: 40 });

/** Some connection in a box: the proof that it isn't empty. */
function witness(box: Box): Connection {
  const sides = new Map(box);
  const textOf = (name: string): string | undefined => {
    const side = sides.get(name);
    if (side === undefined || !('values' in side)) return undefined;
    if (!side.isAllBut) return [...side.values][0];
    const fresh = ['1', '2', '3', 'other', 'another'].find((text) => !side.values.has(text));
    return fresh;
  };
  const labelsOf = (of: string): Record<string, string> =>
    Object.fromEntries(
      [...sides.keys()]
        .filter((name) => name.startsWith(`${of} `))
        .flatMap((name) => {
          const text = textOf(name);
          return text === undefined || text === '\u0000' ? [] : [[name.slice(of.length + 1), text]];
        }),
    );
  const address = sides.get('address');
  const first = address !== undefined && 'ranges' in address ? address.ranges[0]?.[0] : 0n;
  const number = first ?? 0n;
  const ports = sides.get('port');
  const { 'kubernetes.io/metadata.name': name = 'nowhere', ...namespaceLabels } =
    labelsOf('namespace');
  // A side that asks for a label to be absent is met by leaving it out, as is one for no name.
  const portName = sides.has('port name') ? textOf('port name') : undefined;
  const isPod = textOf('kind') !== 'outside' && (sides.has('kind') || portName !== undefined);
  return {
    other: {
      address: addressAt(number),
      ...(isPod && { pod: { namespace: name, namespaceLabels, labels: labelsOf('pod') } }),
    },
    protocol: (textOf('protocol') ?? 'TCP') as Connection['protocol'],
    port: Number((ports !== undefined && 'ranges' in ports ? ports.ranges[0]?.[0] : 1n) ?? 1n),
    ...(portName !== undefined && portName !== '\u0000' && { portName }),
  };
}

function addressAt(position: bigint): string {
  if (position < 1n << 32n) {
    return [24n, 16n, 8n, 0n].map((shift) => (position >> shift) & 255n).join('.');
  }
  const number = position - (1n << 32n);
  return [112n, 96n, 80n, 64n, 48n, 32n, 16n, 0n]
    .map((shift) => ((number >> shift) & 0xffffn).toString(16))
    .join(':');
}

describe('regions', () => {
  it('of a rule are the connections that the rule allows', () => {
    fc.assert(
      fc.property(rule, connections, (one, some) => {
        const boxes = boxesOfRule(one, namespace);
        for (const item of some) {
          expect(boxes.some((box) => isInside(box, item))).toBe(
            mayConnect([policy('p', [one])], pod, item),
          );
        }
      }),
      { numRuns: 300 },
    );
  });

  it('are subtracted exactly', () => {
    fc.assert(
      fc.property(rule, rulesOfSome, connections, (one, others, some) => {
        const boxes = boxesOfRule(one, namespace);
        const less = others.flatMap((item) => boxesOfRule(item, namespace));
        const rest = subtract(boxes, less);
        const isIn = (list: readonly Box[], item: Connection): boolean =>
          list.some((box) => isInside(box, item));
        for (const item of some) {
          expect(isIn(rest, item)).toBe(isIn(boxes, item) && !isIn(less, item));
        }
      }),
      { numRuns: 300 },
    );
  });

  it('are too much rather than too little, when the budget ends', () => {
    const wide = boxesOfRule({}, namespace);
    const many = Array.from({ length: 200 }, (_, index) =>
      boxesOfRule(
        { ports: [{ port: 2 * index + 1 }], to: [{ ipBlock: { cidr: `10.0.${index}.0/24` } }] },
        namespace,
      ),
    ).flat();
    expect(subtract(wide, [...many, ...wide], { steps: 1_000 })).not.toEqual([]);
    expect(subtract(wide, [...many, ...wide])).toEqual([]);
  });
});

describe('widenedBy', () => {
  it('finds each rule that allows more, with a connection to prove it, and no other', () => {
    fc.assert(
      fc.property(rulesOfSome, rulesOfSome, connections, (mine, theirs, some) => {
        const ours = policy('own', mine);
        const foreign = policy('foreign', theirs);
        const found = widenedBy({ namespace, pods: [own], own: [ours], others: [foreign] });
        const reported = found.flatMap(({ rules }) => rules);
        for (const one of theirs) {
          const alone = policy('foreign', [one]);
          if (!reported.includes(one)) {
            for (const item of some) {
              if (mayConnect([alone], pod, item)) expect(mayConnect([ours], pod, item)).toBe(true);
            }
            continue;
          }
          const [rest] = subtract(
            boxesOfRule(one, namespace),
            mine.flatMap((item) => boxesOfRule(item, namespace)),
          );
          if (rest === undefined) throw new Error('nothing is left of what was reported');
          const proof = witness(rest);
          expect([proof, mayConnect([alone], pod, proof), mayConnect([ours], pod, proof)]).toEqual([
            proof,
            true,
            false,
          ]);
        }
      }),
      { numRuns: 500 },
    );
  });

  const erp: EgressRule = {
    to: [{ ipBlock: { cidr: '203.0.113.0/24', except: ['203.0.113.128/25'] } }],
    ports: [{ protocol: 'TCP', port: 443 }],
  };
  const ours = policy('own', [dnsRule, erp], { matchLabels: own });
  const found = (...others: NetworkPolicy[]): string[] =>
    widenedBy({ namespace, pods: [own, { ...own, app: 'web' }], own: [ours], others }).map(
      ({ policy: { metadata } }) => metadata.name,
    );

  it.each<{ what: string; egress: EgressRule[]; selector?: LabelSelector; isWider: boolean }>([
    { what: 'default deny', egress: [], isWider: false },
    { what: 'the same', egress: [erp, dnsRule], isWider: false },
    {
      what: 'half of a network',
      egress: [{ ...erp, to: [{ ipBlock: { cidr: '203.0.113.0/25' } }] }],
      isWider: false,
    },
    {
      what: 'what is excepted',
      egress: [{ ...erp, to: [{ ipBlock: { cidr: '203.0.113.0/24' } }] }],
      isWider: true,
    },
    {
      what: 'one port more',
      egress: [{ ...erp, ports: [{ port: 443, endPort: 444 }] }],
      isWider: true,
    },
    // A pod in that network may have the name on any port.
    { what: 'a name of a port', egress: [{ ...erp, ports: [{ port: 'https' }] }], isWider: true },
    { what: 'everything', egress: [{}], isWider: true },
    {
      what: 'everything, for other pods',
      egress: [{}],
      selector: { matchLabels: { app: 'else' } },
      isWider: false,
    },
    {
      what: 'everything, for some of its pods',
      egress: [{}],
      selector: { matchLabels: { app: 'web' } },
      isWider: true,
    },
    {
      what: 'DNS of any namespace',
      egress: [
        {
          to: [{ namespaceSelector: {}, podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } } }],
          ports: dnsRule.ports ?? [],
        },
      ],
      isWider: true,
    },
  ])('$what: $isWider', ({ egress, selector: podSelector = {}, isWider }) => {
    expect(found(policy('theirs', egress, podSelector))).toEqual(isWider ? ['theirs'] : []);
  });

  it('says it of everybody who does it, in few words', () => {
    const others = Array.from({ length: 9 }, (_, index) =>
      policy(`p-${index}`, [
        {
          to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } }],
          ports: [
            { port: 1, endPort: 9 },
            { port: 'web', protocol: 'UDP' },
          ],
        },
      ]),
    );
    const widenings = widenedBy({ namespace, pods: [own], own: [ours], others });
    const finding = widenedFinding(widenings);
    expect(finding).toMatchObject({ type: 'EgressWidened', status: 'True' });
    expect(finding.message).toContain(
      'p-0 (10.0.0.0/8 except 10.1.0.0/16 on TCP 1-9, UDP web), p-1',
    );
    expect(finding.message).toContain('and 4 more');
    expect(finding.message.length).toBeLessThan(2_048);
    expect(widenedFinding([]).status).toBe('False');
  });

  it('takes what is too much to compare for wider, and is done soon', () => {
    const to = Array.from({ length: 5_000 }, (_, index) => ({
      ipBlock: { cidr: `203.0.113.${index % 128}/32` },
    }));
    const names = Array.from({ length: 600 }, (_, index) => `p-${index}`);
    expect(found(policy('big', [{ ...erp, to }]))).toEqual([]);
    const ports = Array.from({ length: 50 }, () => ({ port: 443 }));
    expect(found(policy('bigger', [{ to, ports }]))).toEqual(['bigger']);
    expect(found(...names.map((name) => policy(name, [erp])))).toHaveLength(100);
  });

  it('names pods and namespaces by what they are selected by', () => {
    const words = wordsOf({
      to: [
        { podSelector: {} },
        {
          namespaceSelector: {
            matchExpressions: [{ key: 'team', operator: 'In', values: ['a', 'b'] }],
          },
          podSelector: { matchLabels: { app: 'db' } },
        },
      ],
    });
    expect(words).toBe(
      'all pods of its namespace, pods with app=db of namespaces with team In a|b',
    );
  });
});

describe('the policies of any Workflow', () => {
  const workflow: Workflow = {
    metadata: { name: 'poster', namespace, uid: 'uid-1' },
    spec: { targets: [] },
  };
  const narrow = cidrs.filter((cidr) => !cidr.endsWith('/0'));
  const ports = fc.array(
    fc
      .record({
        protocol: fc.constantFrom('TCP' as const, 'UDP' as const),
        port: fc.integer({ min: 1, max: 4 }),
        more: fc.nat(2),
      })
      .map(({ more, ...rest }) => ({ ...rest, ...(more > 0 && { endPort: rest.port + more }) })),
    { minLength: 1, maxLength: 2 },
  );
  const entry = fc
    .tuple(
      fc.oneof(
        fc.constantFrom(...narrow).map((cidr) => ({ cidr })),
        fc.constant('10.0.0.0/8').map((cidr) => ({ cidr, except: ['10.1.0.0/16'] })),
        fc.constantFrom('data', namespace).map((name) => ({ namespace: name })),
        fc.tuple(fc.constantFrom('data', 'else'), key, value).map(([name, of, is]) => ({
          namespace: name,
          podSelector: { matchLabels: { [of]: is } },
        })),
        fc.constant({ peer: 'SameNamespace' as const }),
        fc.constant({ peer: 'KubeAPI' as const }),
        fc.constantFrom('known.example', 'unknown.example').map((host) => ({
          host,
          resolve: true,
        })),
        // Its own kind of policy allows it, or none.
        fc.constant({ host: 'known.example' }),
      ),
      fc.option(ports, { nil: undefined }),
    )
    .map(([where, some]): EgressEntry => ({
      ...where,
      ...(some !== undefined && !('peer' in where && where.peer === 'KubeAPI') && { ports: some }),
      reason: 'x',
    }));
  const named = {
    KubeAPI: [
      {
        to: [{ ipBlock: { cidr: '192.0.2.1/32' } }],
        ports: [{ protocol: 'TCP' as const, port: 6 }],
      },
    ],
    hosts: { 'known.example': { addresses: ['10.1.2.3', '192.0.2.1'], since: 'x' } },
  };

  /** What an entry says, read as a person would. */
  function lists(
    item: EgressEntry,
    { other: { address = '', pod: to }, protocol, port: number }: Connection,
  ): boolean {
    const isPort =
      item.ports?.some(
        ({ protocol: of, port: first, endPort = first }) =>
          of === protocol && first <= number && number <= endPort,
      ) ?? true;
    if (item.peer === 'KubeAPI')
      return address === '192.0.2.1' && protocol === 'TCP' && number === 6;
    if (!isPort) return false;
    if (item.host !== undefined) {
      const known = named.hosts['known.example'].addresses;
      return item.resolve === true && item.host === 'known.example' && known.includes(address);
    }
    if (item.peer === 'SameNamespace') return to?.namespace === namespace;
    if (item.cidr !== undefined) {
      return (
        contains(item.cidr, address) && !(item.except ?? []).some((not) => contains(not, address))
      );
    }
    const wanted = Object.entries(item.podSelector?.matchLabels ?? {});
    return to?.namespace === item.namespace && wanted.every(([of, is]) => to?.labels[of] === is);
  }

  it('allow exactly its allowlist and DNS', () => {
    const dns: Connection[] = (['UDP', 'TCP'] as const).map((protocol) => ({
      other: {
        address: '10.96.0.10',
        pod: { namespace: 'kube-system', labels: { 'k8s-app': 'kube-dns' }, namespaceLabels: {} },
      },
      protocol,
      port: 53,
    }));
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 5 }), connections, (entries, some) => {
        const plan = planEgress({
          workflow,
          entries,
          named,
          workloads: [],
          live: [],
          isWithheld: false,
          isGuarded: true,
        });
        const policies = plan.policies.map(({ desired }) => desired);
        for (const item of some) {
          const isListed = entries.some((one) => lists(one, item));
          expect([item, mayConnect(policies, pod, item)]).toEqual([item, isListed]);
        }
        for (const item of dns) expect(mayConnect(policies, pod, item)).toBe(true);
      }),
      { numRuns: 300 },
    );
  });
});
