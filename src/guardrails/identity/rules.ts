import type { PolicyRule } from '../../api/objects.ts';
import type { Permission } from '../../api/automation-identity.ts';

/** The rules of a Role that grants exactly `permissions`, in their order. */
export function rulesOf(permissions: readonly Permission[]): PolicyRule[] {
  return permissions.map(({ apiGroups, resources, resourceNames = [], verbs }) => ({
    apiGroups,
    resources,
    ...(resourceNames.length > 0 && { resourceNames }),
    verbs,
  }));
}

/**
 * What `wanted` and `granted` both allow, so that replacing `granted` by it only ever takes away.
 * Wanted rules that are granted as they are stay as they are: what equals itself isn't rewritten.
 */
export function intersectRules(
  wanted: readonly PolicyRule[],
  granted: readonly PolicyRule[],
): PolicyRule[] {
  const kept = wanted.filter((rule) => granted.some((other) => covers(other, rule)));
  for (const rule of wanted) {
    for (const other of granted) {
      const part = intersection(rule, other);
      if (part !== undefined && !kept.some((standing) => covers(standing, part))) kept.push(part);
    }
  }
  return kept;
}

/**
 * Whether each of `rules` is allowed by one rule of `granted`. A rule that takes two of them to
 * cover counts as not covered.
 */
export function areCovered(rules: readonly PolicyRule[], granted: readonly PolicyRule[]): boolean {
  return rules.every((rule) => granted.some((other) => covers(other, rule)));
}

function covers(outer: PolicyRule, inner: PolicyRule): boolean {
  return (
    contains(outer.apiGroups, inner.apiGroups) &&
    contains(outer.resources, inner.resources) &&
    contains(outer.verbs, inner.verbs) &&
    (isUnnamed(outer) || (!isUnnamed(inner) && contains(outer.resourceNames, inner.resourceNames)))
  );
}

function intersection(a: PolicyRule, b: PolicyRule): PolicyRule | undefined {
  const apiGroups = common(a.apiGroups, b.apiGroups);
  const resources = common(a.resources, b.resources);
  const verbs = common(a.verbs, b.verbs);
  if (apiGroups.length === 0 || resources.length === 0 || verbs.length === 0) return undefined;
  if (isUnnamed(a) && isUnnamed(b)) return { apiGroups, resources, verbs };
  const resourceNames = isUnnamed(a)
    ? (b.resourceNames ?? [])
    : isUnnamed(b)
      ? (a.resourceNames ?? [])
      : a.resourceNames?.filter((name) => b.resourceNames?.includes(name));
  // An empty list would mean every name.
  if (resourceNames === undefined || resourceNames.length === 0) return undefined;
  return { apiGroups, resources, resourceNames: [...resourceNames], verbs };
}

/** No names at all means every name. */
function isUnnamed({ resourceNames }: PolicyRule): boolean {
  return resourceNames === undefined || resourceNames.length === 0;
}

function contains(outer: readonly string[] = [], inner: readonly string[] = []): boolean {
  return outer.includes('*') || inner.every((item) => outer.includes(item));
}

function common(a: readonly string[] = [], b: readonly string[] = []): string[] {
  if (b.includes('*')) return [...a];
  if (a.includes('*')) return [...b];
  return a.filter((item) => b.includes(item));
}
