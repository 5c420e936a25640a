import { describe, expect, it } from 'vitest';
import { label } from '../../api/names.ts';
import type { Namespace } from '../../api/objects.ts';
import type { EgressEntry } from '../../api/workflow.ts';
import { allowlistOf, wordOf, type Allowlist, type AllowlistRequest } from './allowlist.ts';

const now = Date.UTC(2030, 0, 1);

function namespace(name: string, environment?: string): Namespace {
  const labels = environment === undefined ? {} : { [label.environment]: environment };
  return { metadata: { name, labels } };
}

const namespaces = [
  namespace('prod-data', 'prod'),
  namespace('test-data', 'test'),
  namespace('shared'),
  namespace('blank', ' '),
];

function of(
  entries: readonly Omit<EgressEntry, 'reason'>[],
  fields: Partial<AllowlistRequest> = {},
): Allowlist {
  return allowlistOf({
    egress: entries.map((entry) => ({ ...entry, reason: 'x' })),
    ingress: [],
    namespace: namespace('billing', 'prod'),
    namespaceOf: (name) => namespaces.find(({ metadata }) => metadata.name === name),
    now,
    ...fields,
  });
}

describe('entries end', () => {
  it('at their time, in either direction, and the next one is known', () => {
    const expires = (offset: number): { expires: string } => ({
      expires: new Date(now + offset).toISOString(),
    });
    const list = of(
      [
        { cidr: '203.0.113.1/32', ...expires(0) },
        { cidr: '203.0.113.2/32', ...expires(5_000) },
        { cidr: '203.0.113.3/32' },
      ],
      {
        ingress: [
          { peer: 'SameNamespace', reason: 'x', ...expires(-1) },
          { peer: 'KubeAPI', reason: 'x', ...expires(3_000) },
        ],
      },
    );
    expect(list.egress.map(wordOf)).toEqual(['203.0.113.2/32', '203.0.113.3/32']);
    expect(list.ingress.map(wordOf)).toEqual(['KubeAPI']);
    expect(list.nextExpiryMs).toBe(3_000);
    expect(list.expired).toEqual([
      '203.0.113.1/32 (2030-01-01T00:00:00.000Z)',
      'SameNamespace (2029-12-31T23:59:59.999Z)',
    ]);
    expect(list.problems).toEqual([]);
  });

  it('also where the time cannot be read', () => {
    expect(of([{ cidr: '203.0.113.1/32', expires: 'soon' }]).egress).toEqual([]);
  });

  it('and are not complained about afterwards', () => {
    const expires = '2029-01-01T00:00:00Z';
    const list = of([
      { cidr: '0.0.0.0/0', expires },
      { namespace: 'test-data', expires },
    ]);
    expect(list.problems).toEqual([]);
  });
});

describe('a namespace', () => {
  it.each([
    { name: 'prod-data', isIn: true },
    { name: 'test-data', isIn: false },
    { name: 'shared', isIn: true },
    { name: 'blank', isIn: true },
    { name: 'not-there', isIn: true },
  ])('$name is in: $isIn', ({ name, isIn }) => {
    const list = of([{ namespace: name }]);
    expect(list.egress).toHaveLength(isIn ? 1 : 0);
    expect(list.problems.map(({ reason }) => reason)).toEqual(isIn ? [] : ['OtherEnvironment']);
    const ingress = [{ namespace: name, reason: 'x' }];
    expect(of([], { ingress }).ingress).toHaveLength(isIn ? 1 : 0);
  });

  it('is of no other environment than one that has none itself', () => {
    expect(
      of([{ namespace: 'test-data' }], { namespace: namespace('billing') }).egress,
    ).toHaveLength(1);
  });
});

describe('a network', () => {
  it.each<{ cidr: string; except?: string[]; isTooWide: boolean }>([
    { cidr: '10.0.0.0/8', isTooWide: false },
    { cidr: '10.0.0.0/7', isTooWide: true },
    { cidr: '0.0.0.0/0', isTooWide: true },
    { cidr: '128.0.0.0/1', isTooWide: true },
    { cidr: '2600::/16', isTooWide: false },
    { cidr: '2000::/3', isTooWide: true },
    { cidr: '169.254.0.0/16', isTooWide: true },
    { cidr: '169.254.0.0/16', except: ['169.254.170.0/24'], isTooWide: true },
    { cidr: '169.254.0.0/16', except: ['169.254.169.0/24'], isTooWide: false },
    { cidr: '169.254.20.10/32', isTooWide: false },
    { cidr: 'fd00::/16', isTooWide: true },
    { cidr: 'fd00::/16', except: ['fd00:ec2::254/128'], isTooWide: false },
  ])('$cidr except $except is too wide: $isTooWide', ({ isTooWide, ...entry }) => {
    const list = of([entry]);
    expect(list.problems.map(({ reason }) => reason)).toEqual(
      isTooWide ? ['DestinationRefused'] : [],
    );
    // It holds, and what stands stays.
    expect(list.egress).toHaveLength(1);
  });
});
