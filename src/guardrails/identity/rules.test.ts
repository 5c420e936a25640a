import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PolicyRule } from '../../api/objects.ts';
import { areCovered, intersectRules, rulesOf, subtractRules } from './rules.ts';

const subset = (...items: string[]) => fc.subarray(items, { minLength: 1 });

const rule = fc.record(
  {
    apiGroups: subset('', 'apps'),
    resources: subset('pods', 'secrets', '*'),
    verbs: subset('get', 'list', 'delete'),
    resourceNames: subset('one', 'two'),
  },
  { requiredKeys: ['apiGroups', 'resources', 'verbs'] },
);

function has(list: readonly string[] = [], item: string): boolean {
  return list.includes(item) || list.includes('*');
}

/** What RBAC answers to one request. */
function allows(rules: readonly PolicyRule[], request: string[]): boolean {
  const [group = '', resource = '', verb = '', name = ''] = request;
  return rules.some(
    ({ apiGroups, resources, verbs, resourceNames }) =>
      has(apiGroups, group) &&
      has(resources, resource) &&
      has(verbs, verb) &&
      (resourceNames === undefined || resourceNames.length === 0 || resourceNames.includes(name)),
  );
}

const requests = ['', 'apps'].flatMap((group) =>
  ['pods', 'secrets', 'nodes'].flatMap((resource) =>
    ['get', 'list', 'delete'].flatMap((verb) =>
      ['one', 'two', 'three'].map((name) => [group, resource, verb, name]),
    ),
  ),
);

describe('intersectRules', () => {
  it('allows exactly what both allow', () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 4 }), fc.array(rule, { maxLength: 4 }), (a, b) => {
        const both = intersectRules(a, b);
        for (const request of requests) {
          expect(allows(both, request)).toBe(allows(a, request) && allows(b, request));
        }
      }),
    );
  });

  it('leaves what is granted in full as it is, so that nothing is rewritten', () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 4 }), (rules) => {
        expect(intersectRules(rules, rules)).toEqual(rules);
      }),
    );
  });

  it('settles: applied to its own result it changes nothing', () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 4 }), fc.array(rule, { maxLength: 4 }), (a, b) => {
        const once = intersectRules(a, b);
        expect(intersectRules(a, once)).toEqual(once);
      }),
    );
  });
});

/** Every shape of rule in a small universe. */
const anyRule: fc.Arbitrary<PolicyRule> = fc.oneof(
  fc.record(
    {
      apiGroups: subset('', 'apps', '*'),
      resources: subset('pods', 'pods/exec', 'pods/log', '*', '*/exec'),
      verbs: subset('get', 'create', '*'),
      resourceNames: subset('one', 'two'),
    },
    { requiredKeys: ['apiGroups', 'resources', 'verbs'] },
  ),
  fc.record({
    nonResourceURLs: subset('/api', '/api/*', '/apis', '/a*', '*'),
    verbs: subset('get', 'post', '*'),
  }),
);

const rules = fc.array(anyRule, { maxLength: 4 });

/** As the API server compares, one combination at a time. */
function allCombinations({
  apiGroups = [],
  resources = [],
  resourceNames = [],
  nonResourceURLs = [],
  verbs,
}: PolicyRule): PolicyRule[] {
  const names = resourceNames.length === 0 ? [[]] : resourceNames.map((name) => [name]);
  return verbs.flatMap((verb) => [
    ...apiGroups.flatMap((group) =>
      resources.flatMap((resource) =>
        names.map((one) => ({
          apiGroups: [group],
          resources: [resource],
          ...(one.length > 0 && { resourceNames: one }),
          verbs: [verb],
        })),
      ),
    ),
    ...nonResourceURLs.map((path) => ({ nonResourceURLs: [path], verbs: [verb] })),
  ]);
}

/** What RBAC covers of one combination, straight from its rules. */
function coversOne(owner: PolicyRule, one: PolicyRule): boolean {
  if (!has(owner.verbs, one.verbs[0]!)) return false;
  const path = one.nonResourceURLs?.[0];
  if (path !== undefined) {
    return (owner.nonResourceURLs ?? []).some(
      (known) => known === path || (known.endsWith('*') && path.startsWith(known.slice(0, -1))),
    );
  }
  const [resource = ''] = one.resources ?? [];
  const subresource = resource.split('/')[1];
  const { resourceNames: names = [] } = owner;
  const [name] = one.resourceNames ?? [];
  return (
    has(owner.apiGroups, one.apiGroups![0]!) &&
    (has(owner.resources, resource) ||
      (subresource !== undefined && (owner.resources ?? []).includes(`*/${subresource}`))) &&
    (names.length === 0 || (name !== undefined && names.includes(name)))
  );
}

describe('subtractRules', () => {
  it('leaves exactly the combinations that no granted rule covers', () => {
    fc.assert(
      fc.property(rules, rules, (wanted, granted) => {
        const textOf = (list: PolicyRule[]): string[] =>
          [...new Set(list.flatMap(allCombinations).map((one) => JSON.stringify(one)))].toSorted();
        const uncovered = wanted
          .flatMap(allCombinations)
          .filter((one) => !granted.some((owner) => coversOne(owner, one)));
        expect(textOf(subtractRules(wanted, granted))).toEqual(textOf(uncovered));
        expect(areCovered(wanted, granted)).toBe(uncovered.length === 0);
      }),
      { numRuns: 1_000 },
    );
  });

  it('leaves nothing of what is granted', () => {
    fc.assert(
      fc.property(rules, rules, (granted, more) => {
        expect(subtractRules(granted, [...more, ...granted])).toEqual([]);
      }),
    );
  });

  it('says of a rule that grants nothing that nothing is left', () => {
    expect(subtractRules([{ apiGroups: [''], resources: [], verbs: ['get'] }], [])).toEqual([]);
  });

  it('ends where a rule falls into ever more pieces, and then says too much rather than too little', () => {
    const items = Array.from({ length: 200 }, (_, index) => `r${index}`);
    const wide = { apiGroups: items, resources: items, resourceNames: items, verbs: items };
    const diagonal = items.map((item) => ({
      apiGroups: [item],
      resources: [item],
      resourceNames: [item],
      verbs: [item],
    }));
    const left = subtractRules([wide], diagonal);
    expect(left.length).toBeGreaterThan(0);
    expect(areCovered([wide], [...left, ...diagonal])).toBe(true);
  });
});

describe('rulesOf', () => {
  it('makes one rule of each permission, in order, without its reason', () => {
    const permission = { apiGroups: [''], resources: ['pods'], verbs: ['get'], reason: 'because' };
    expect(rulesOf([{ ...permission, resourceNames: ['a'] }, permission])).toEqual([
      { apiGroups: [''], resources: ['pods'], resourceNames: ['a'], verbs: ['get'] },
      { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
    ]);
  });
});
