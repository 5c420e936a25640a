import {
  automationIdentitySpecSchema,
  type AutomationIdentity,
  type AutomationIdentitySpec,
} from '../../api/automation-identity.ts';
import type { Finding } from '../../api/conditions.ts';
import {
  annotation,
  API_VERSION,
  grantableRole,
  identityRole,
  label,
  MANAGED_BY,
} from '../../api/names.ts';
import type {
  Namespace,
  ObjectMeta,
  PolicyRule,
  Role,
  RoleBinding,
  ServiceAccount,
} from '../../api/objects.ts';
import {
  fieldOf,
  isBlank,
  namespaceNotGuarded,
  ownerMissing,
  type Problem,
} from '../requirements.ts';
import type { KeptServiceAccount } from './kept.ts';
import { withoutRefused } from './refused.ts';
import { areCovered, intersectRules, rulesOf, ruleText, subtractRules } from './rules.ts';

/**
 * Reads a spec that may be anything.
 *
 * @returns the spec, or where it stands malformed and how
 */
export function readSpec({
  spec,
}: AutomationIdentity): { spec: AutomationIdentitySpec } | { malformed: string } {
  const { success, data, error } = automationIdentitySpecSchema.safeParse(spec);
  if (success) return { spec: data };
  const places = error.issues.slice(0, 5).map(({ path }) => ['spec', ...path].join('.'));
  return { malformed: [...new Set(places)].join(', ') };
}

interface Subject {
  identity: AutomationIdentity;
  /** `undefined` where it isn't known (yet). */
  namespace: Namespace | undefined;
  /** The condition `Approved` of the Workflow of the same name; absent where there is none. */
  approved?: Finding | undefined;
}

/** What an identity needs before anything is granted to it. This list is the specification. */
const requirements: readonly ((subject: Subject) => Problem | undefined)[] = [
  specMalformed,
  ({ identity }) => ownerMissing(identity.spec),
  purposeMissing,
  ({ identity, namespace }) => namespaceNotGuarded(namespace, identity.metadata),
  workflowNotApproved,
];

/** Everything that is missing, in the order of the list; empty when nothing is held. */
export function whatIsMissing(subject: Subject): Problem[] {
  return requirements.flatMap((requirement) => requirement(subject) ?? []);
}

function workflowNotApproved({ approved }: Subject): Problem | undefined {
  if (approved === undefined || approved.status === 'True') return undefined;
  return { reason: 'NotApproved', message: `Its Workflow isn't approved: ${approved.message}` };
}

function specMalformed({ identity }: Subject): Problem | undefined {
  const read = readSpec(identity);
  if ('spec' in read) return undefined;
  return { reason: 'SpecMalformed', message: `Can't be read: ${read.malformed}.` };
}

function purposeMissing({ identity }: Subject): Problem | undefined {
  if (!isBlank(fieldOf(identity.spec, 'purpose'))) return undefined;
  return { reason: 'PurposeMissing', message: 'Missing spec.purpose.' };
}

/** Name, labels and controller reference of something that belongs to the identity. */
export function childMetadata({ metadata }: AutomationIdentity, name: string): ObjectMeta {
  return {
    name,
    ...(metadata.namespace !== undefined && { namespace: metadata.namespace }),
    labels: { [label.managedBy]: MANAGED_BY, [label.identity]: metadata.name },
    ownerReferences: [
      {
        apiVersion: API_VERSION,
        kind: 'AutomationIdentity',
        name: metadata.name,
        uid: metadata.uid ?? '',
        controller: true,
      },
    ],
  };
}

/**
 * Name of the RoleBinding by which admission knows the ServiceAccount of an identity. No identity
 * has a dot in its name, so no RoleBinding of permissions has this name.
 */
export function markNameOf(identity: string): string {
  return `${identity}.identity`;
}

/** What stands, as far as it is ours by its controller reference. */
export interface IdentityChildren {
  mark?: RoleBinding | undefined;
  serviceAccount?: ServiceAccount | undefined;
  role?: Role | undefined;
  roleBinding?: RoleBinding | undefined;
}

/** What should stand. A part that is absent: isn't created, and `remove` says if it has to go. */
export interface IdentityPlan {
  /** Says to admission that the ServiceAccount is an identity's. */
  mark?: RoleBinding;
  serviceAccount?: ServiceAccount;
  role?: Role;
  roleBinding?: RoleBinding;
  /** Ours, and no longer wanted: the binding goes before the Role that it grants. */
  remove: { roleBinding: boolean; role: boolean };
  /** What of the spec is left out, and why. */
  problems: Problem[];
}

/** What a plan depends on beside the spec and what stands. */
export interface Circumstances {
  /** Something is missing, or a kill stands. */
  withheld: boolean;
  /**
   * Approval is all that is missing. Pods wait for that at a gate, and can't be made without a
   * ServiceAccount; it grants nothing.
   */
  awaitsApproval?: boolean;
  /**
   * Admission isn't bound to the namespace, and has the operator make no RoleBinding there: a mark
   * that is gone comes back once it is.
   */
  isUnguarded?: boolean;
  /** The most that can be granted to any identity; `undefined` while that isn't known. */
  grantable: readonly PolicyRule[] | undefined;
  /** What others had on a ServiceAccount that a kill deleted. */
  kept?: KeptServiceAccount | undefined;
}

/**
 * A ServiceAccount whose token no pod mounts unasked, one Role, one RoleBinding.
 *
 * A kill deletes the ServiceAccount. The release makes it anew, with what others had on it; also
 * while withheld, since it grants nothing and was there.
 *
 * While `withheld`, nothing is granted that doesn't stand yet, and permissions only shrink; so they
 * do while the spec asks for more than can be granted, which the operator itself may well hold. A
 * binding never stands without the ServiceAccount, since whoever created one of that name would
 * inherit it. The mark that makes it known to admission only restricts: once it stands, it stays
 * until the identity goes.
 */
export function planIdentity(
  identity: AutomationIdentity,
  spec: AutomationIdentitySpec,
  live: IdentityChildren,
  { withheld, awaitsApproval = false, isUnguarded = false, grantable, kept }: Circumstances,
): IdentityPlan {
  const metadata = childMetadata(identity, identity.metadata.name);
  const restored = live.serviceAccount === undefined ? kept : undefined;
  const stands = live.serviceAccount !== undefined || restored !== undefined;
  const hasAccount = !withheld || awaitsApproval || stands;

  const { permissions, problem } = withoutRefused(spec.permissions ?? [], identity.metadata.name);
  const asked = rulesOf(permissions);
  const beyond = grantable === undefined ? [] : subtractRules(asked, grantable);
  const wanted = beyond.length === 0 ? asked : intersectRules(asked, grantable ?? []);
  const shrinksOnly = withheld || grantable === undefined || beyond.length > 0;
  const rules = shrinksOnly ? intersectRules(wanted, live.role?.rules ?? []) : wanted;
  const hasRole = rules.length > 0;

  const mayBind = !withheld || binds(live.roleBinding, identity);
  const hasBinding = hasAccount && hasRole && mayBind;

  return {
    ...(((hasAccount && !isUnguarded) || live.mark !== undefined) && {
      // Until the ServiceAccount is back, what it will get stays written down.
      mark: markOf(identity, live.serviceAccount === undefined ? keptTextOn(live.mark) : undefined),
    }),
    ...(hasAccount && { serviceAccount: serviceAccountOf(metadata, restored) }),
    ...(hasRole && { role: { metadata, rules } }),
    ...(hasBinding && {
      roleBinding: roleBindingOf(metadata, { kind: 'Role', name: metadata.name }, identity),
    }),
    remove: {
      roleBinding: !hasBinding && live.roleBinding !== undefined,
      role: !hasRole && live.role !== undefined,
    },
    problems: [
      ...(problem === undefined ? [] : [problem]),
      ...notGrantable(beyond),
      ...(grantable === undefined && !areCovered(asked, rules) ? [notKnown] : []),
    ],
  };
}

const notKnown: Problem = {
  reason: 'GrantableNotRead',
  message: `What can be granted here isn't known: the operator hasn't read the ClusterRole ${grantableRole}, or may not list ClusterRoles.`,
};

/** Rules that a message names. */
const maxNamed = 5;

function notGrantable(beyond: readonly PolicyRule[]): Problem[] {
  if (beyond.length === 0) return [];
  const more = beyond.length > maxNamed ? `; and ${beyond.length - maxNamed} more` : '';
  const named = beyond
    .slice(0, maxNamed)
    .map((rule) => ruleText(rule))
    .join('; ');
  return [
    {
      reason: 'PermissionsNotGrantable',
      message: `Beyond what can be granted here: ${named}${more}. Take that out of spec.permissions, or let an administrator add it to the chart's value grantable (the ClusterRole ${grantableRole}).`,
    },
  ];
}

/** While killed, an identity has nothing but its mark: it only restricts. */
export function planKilled(identity: AutomationIdentity): IdentityPlan {
  return { mark: markOf(identity), remove: { roleBinding: false, role: false }, problems: [] };
}

/**
 * While a review has its access revoked: nothing but its mark, which bears what others had on the
 * ServiceAccount.
 *
 * @param kept text of the annotation; `undefined` where there is nothing to keep
 */
export function planRevoked(
  identity: AutomationIdentity,
  live: IdentityChildren,
  kept: string | undefined,
): IdentityPlan {
  return {
    // Without either, the ServiceAccount may be somebody else's, which is never marked.
    ...((live.mark ?? live.serviceAccount) !== undefined && { mark: markOf(identity, kept) }),
    remove: { roleBinding: live.roleBinding !== undefined, role: live.role !== undefined },
    problems: [],
  };
}

/** What a mark bears of a ServiceAccount that was taken away, as {@link writeKept} wrote it. */
export function keptTextOn(mark: RoleBinding | undefined): string | undefined {
  return mark?.metadata.annotations?.[annotation.restoreServiceAccount];
}

function markOf(identity: AutomationIdentity, kept?: string): RoleBinding {
  const metadata = childMetadata(identity, markNameOf(identity.metadata.name));
  const marked = {
    ...metadata,
    ...(kept !== undefined && { annotations: { [annotation.restoreServiceAccount]: kept } }),
  };
  return roleBindingOf(marked, { kind: 'ClusterRole', name: identityRole }, identity);
}

function serviceAccountOf(
  metadata: ObjectMeta,
  { labels, annotations, imagePullSecrets }: KeptServiceAccount = {},
): ServiceAccount {
  return {
    metadata: {
      ...metadata,
      labels: { ...labels, ...metadata.labels },
      ...(annotations !== undefined && { annotations }),
    },
    automountServiceAccountToken: false,
    ...(imagePullSecrets !== undefined && { imagePullSecrets }),
  };
}

function roleBindingOf(
  metadata: ObjectMeta,
  role: { kind: 'Role' | 'ClusterRole'; name: string },
  { metadata: { name, namespace } }: AutomationIdentity,
): RoleBinding {
  return {
    metadata,
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', ...role },
    subjects: [{ kind: 'ServiceAccount', name, ...(namespace !== undefined && { namespace }) }],
  };
}

/** Whether the binding already grants something to this identity's ServiceAccount. */
function binds(binding: RoleBinding | undefined, { metadata }: AutomationIdentity): boolean {
  return (binding?.subjects ?? []).some(
    ({ kind, name, namespace }) =>
      kind === 'ServiceAccount' && name === metadata.name && namespace === metadata.namespace,
  );
}
