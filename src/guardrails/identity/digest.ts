import { createHash } from 'node:crypto';
import type { PolicyRule } from '../../api/objects.ts';
import type { Grant } from './effective.ts';

/**
 * Digest of what an identity may do: the declared rules, and what others grant beyond them, by where
 * it holds. The order of rules, and of what is in them, doesn't matter, nor by which binding
 * something is granted.
 *
 * @param unread plural names of the kinds that could not be listed: what they grant isn't known
 * @returns `sha256:` and 64 hexadecimal digits
 */
export function digestOf(
  declared: readonly PolicyRule[],
  beyond: readonly Grant[],
  unread: readonly string[],
): string {
  const places = Map.groupBy(beyond, ({ namespace }) => namespace ?? '*');
  const content = [
    canonicalRules(declared).map(textOf),
    [...places]
      .toSorted(([a], [b]) => compare(a, b))
      .map(([place, grants]) => [
        place,
        canonicalRules(grants.flatMap(({ rules }) => rules)).map(textOf),
      ]),
    [...unread].toSorted(compare),
  ];
  return `sha256:${createHash('sha256').update(JSON.stringify(content)).digest('hex')}`;
}

/** The same rules for the same content: sorted, each once. */
export function canonicalRules(rules: readonly PolicyRule[]): PolicyRule[] {
  const byText = new Map(
    rules.map((rule) => {
      const canonical = canonicalRule(rule);
      return [textOf(canonical), canonical] as const;
    }),
  );
  return [...byText].toSorted(([a], [b]) => compare(a, b)).map(([, rule]) => rule);
}

function canonicalRule(rule: PolicyRule): PolicyRule {
  const { apiGroups = [], resources = [], resourceNames = [], nonResourceURLs = [], verbs } = rule;
  return {
    ...(apiGroups.length > 0 && { apiGroups: sorted(apiGroups) }),
    ...(resources.length > 0 && { resources: sorted(resources) }),
    ...(resourceNames.length > 0 && { resourceNames: sorted(resourceNames) }),
    ...(nonResourceURLs.length > 0 && { nonResourceURLs: sorted(nonResourceURLs) }),
    verbs: sorted(verbs),
  };
}

function textOf(rule: PolicyRule): string {
  return JSON.stringify(rule);
}

function sorted(items: readonly string[]): string[] {
  return [...new Set(items)].toSorted(compare);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
