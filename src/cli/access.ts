import type { PolicyRule, RoleBinding } from '../api/objects.ts';

/** Something that RBAC allows, or not. */
export interface Access {
  verb: string;
  group: string;
  resource: string;
  /** Absent: of an object that has no name yet. */
  name?: string;
}

/** Whether a rule allows it; as the API server's authorizer has it. */
export function ruleAllows(rule: PolicyRule, { verb, group, resource, name }: Access): boolean {
  const { apiGroups = [], resources = [], resourceNames = [], verbs } = rule;
  const has = (list: readonly string[], value: string): boolean =>
    list.includes('*') || list.includes(value);
  return (
    has(verbs, verb) &&
    has(apiGroups, group) &&
    has(resources, resource) &&
    (resourceNames.length === 0 || (name !== undefined && resourceNames.includes(name)))
  );
}

/** Somebody whom RBAC lets do something, and by which binding. */
export interface Holder {
  kind: string;
  /** `namespace/name` of a ServiceAccount. */
  subject: string;
  binding: string;
  role: string;
}

/**
 * Whom bindings let do all of it; whoever gets the parts by several bindings, too.
 *
 * @param rulesOf the rules of a binding's role; empty where it doesn't exist
 */
export function holdersOf(
  accesses: readonly Access[],
  bindings: readonly RoleBinding[],
  rulesOf: (binding: RoleBinding) => readonly PolicyRule[],
): Holder[] {
  const bySubject = new Map<string, { holder: Holder; held: Set<Access> }>();
  for (const binding of bindings) {
    const rules = rulesOf(binding);
    const held = accesses.filter((access) => rules.some((rule) => ruleAllows(rule, access)));
    if (held.length === 0) continue;
    const { metadata, roleRef, subjects = [] } = binding;
    const kind = metadata.namespace === undefined ? 'ClusterRoleBinding' : 'RoleBinding';
    for (const { kind: subjectKind, name, namespace = metadata.namespace } of subjects) {
      const subject = subjectKind === 'ServiceAccount' ? `${namespace ?? ''}/${name}` : name;
      const key = `${subjectKind} ${subject}`;
      const known = bySubject.get(key) ?? {
        holder: {
          kind: subjectKind,
          subject,
          binding: `${kind}/${metadata.name}`,
          role: `${roleRef.kind}/${roleRef.name}`,
        },
        held: new Set(),
      };
      for (const access of held) known.held.add(access);
      bySubject.set(key, known);
    }
  }
  return [...bySubject.values()]
    .filter(({ held }) => held.size === accesses.length)
    .map(({ holder }) => holder)
    .toSorted((a, b) => `${a.kind} ${a.subject}`.localeCompare(`${b.kind} ${b.subject}`));
}
