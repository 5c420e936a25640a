import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PolicyRule } from '../../api/objects.ts';
import { canonicalRules, digestOf } from './digest.ts';
import type { Grant } from './effective.ts';

const words = (...from: string[]) => fc.uniqueArray(fc.constantFrom(...from), { minLength: 1 });

const anyRule: fc.Arbitrary<PolicyRule> = fc.record({
  apiGroups: words('', 'apps'),
  resources: words('configmaps', 'pods', 'secrets'),
  resourceNames: fc.uniqueArray(fc.constantFrom('a', 'b')),
  verbs: words('get', 'list', 'watch'),
});

const grant = (name: string, namespace: string | undefined, rules: PolicyRule[]): Grant => ({
  binding: { kind: 'ClusterRoleBinding', name },
  role: { kind: 'ClusterRole', name: 'view' },
  through: 'finance/poster',
  namespace,
  rules,
});

const reads: PolicyRule = { apiGroups: [''], resources: ['pods'], verbs: ['get', 'list'] };
const writes: PolicyRule = { apiGroups: [''], resources: ['pods'], verbs: ['patch'] };

describe('digestOf', () => {
  it('is the same in whatever order the same is declared', () => {
    fc.assert(
      fc.property(fc.array(anyRule), fc.infiniteStream(fc.nat()), (rules, order) => {
        const shuffle = <T>(items: readonly T[]): T[] =>
          items
            .map((item) => [order.next().value ?? 0, item] as const)
            .toSorted(([a], [b]) => a - b)
            .map(([, item]) => item);
        const shuffled = shuffle(rules).map(({ apiGroups, resources, resourceNames, verbs }) => ({
          verbs: shuffle(verbs),
          apiGroups: shuffle(apiGroups ?? []),
          resources: shuffle(resources ?? []),
          resourceNames: shuffle(resourceNames ?? []),
        }));
        expect(digestOf([...shuffled, ...rules], [], [])).toBe(digestOf(rules, [], []));
        expect(canonicalRules(canonicalRules(rules))).toEqual(canonicalRules(rules));
      }),
    );
  });

  it.each<[string, string]>([
    ['another verb', digestOf([{ ...reads, verbs: ['get'] }], [], [])],
    ['a name', digestOf([{ ...reads, resourceNames: ['one'] }], [], [])],
    ['another rule', digestOf([reads, writes], [], [])],
    ['nothing', digestOf([], [], [])],
    ['the same, granted by others', digestOf([], [grant('x', undefined, [reads])], [])],
    ['more, granted by others', digestOf([reads], [grant('x', undefined, [writes])], [])],
    ['more in one namespace', digestOf([reads], [grant('x', 'finance', [writes])], [])],
    ['more in another one', digestOf([reads], [grant('x', 'sales', [writes])], [])],
    ['what could not be listed', digestOf([reads], [], ['clusterroles'])],
  ])('differs with what is allowed: %s', (_, other) => {
    expect(other).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(other).not.toBe(digestOf([reads], [], []));
  });

  it('tells each of those from the others, and not by which binding it is granted', () => {
    const [one, two] = [grant('x', 'sales', [reads]), grant('y', 'sales', [writes])];
    expect(digestOf([], [one, two], [])).toBe(
      digestOf([], [grant('z', 'sales', [writes, reads])], []),
    );
    expect(digestOf([], [one], [])).not.toBe(digestOf([], [{ ...one, namespace: undefined }], []));
  });
});
