import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PolicyRule } from '../../api/objects.ts';
import { areCovered, intersectRules, rulesOf } from './rules.ts';

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

describe('areCovered', () => {
  it('never calls covered what allows more', () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 3 }), fc.array(rule, { maxLength: 3 }), (a, b) => {
        if (!areCovered(a, b)) return;
        for (const request of requests)
          if (allows(a, request)) expect(allows(b, request)).toBe(true);
      }),
    );
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
