import { label, MANAGED_BY } from '../../api/names.ts';
import type { KubeObject, ObjectMeta, PolicyRule, Role, RoleBinding } from '../../api/objects.ts';
import type { ReadStore } from '../../runtime/store.ts';

/**
 * Which bindings of RBAC reach which ServiceAccounts, by indexes, so that a change of one binding or
 * role concerns those identities alone that it reaches.
 */

/** A ServiceAccount. */
export interface Account {
  namespace: string;
  name: string;
}

const allServiceAccounts = 'system:serviceaccounts';
const allAuthenticated = 'system:authenticated';
const userPrefix = 'system:serviceaccount:';

/**
 * What stands for a subject in the index: `namespace/name` of a ServiceAccount, or the name of a
 * group of ServiceAccounts; `undefined` where it reaches none. As the authorizer has it
 * (`appliesToUser` in `k8s.io/kubernetes`, pkg/registry/rbac/validation): by kind alone, whatever
 * the subject's API group, and a ServiceAccount without a namespace is one of the binding's.
 */
function reachOf(
  { kind, name, namespace = '' }: NonNullable<RoleBinding['subjects']>[number],
  bindingNamespace: string,
): string | undefined {
  switch (kind) {
    case 'ServiceAccount': {
      const of = namespace === '' ? bindingNamespace : namespace;
      return of === '' ? undefined : `${of}/${name}`;
    }
    case 'User': {
      const [of = '', account = '', more] = name.startsWith(userPrefix)
        ? name.slice(userPrefix.length).split(':')
        : [];
      return of === '' || account === '' || more !== undefined ? undefined : `${of}/${account}`;
    }
    case 'Group': {
      const isOfAccounts =
        name === allAuthenticated ||
        name === allServiceAccounts ||
        name.startsWith(`${allServiceAccounts}:`);
      return isOfAccounts ? name : undefined;
    }
    default:
      return undefined;
  }
}

/** All that stands in the index for subjects that reach an account. */
function reachesOf({ namespace, name }: Account): string[] {
  return [
    `${namespace}/${name}`,
    `${allServiceAccounts}:${namespace}`,
    allServiceAccounts,
    allAuthenticated,
  ];
}

/** What its role is found by: `Role/namespace/name` or `ClusterRole/name`. */
function roleOf({ metadata, roleRef }: RoleBinding): string {
  return roleRef.kind === 'Role'
    ? `Role/${metadata.namespace ?? ''}/${roleRef.name}`
    : `${roleRef.kind}/${roleRef.name}`;
}

/** Indexes of a cache of bindings. */
export const bindingIndexes = {
  reach: (binding: RoleBinding): readonly string[] => [
    ...new Set(
      (binding.subjects ?? []).flatMap(
        (subject) => reachOf(subject, binding.metadata.namespace ?? '') ?? [],
      ),
    ),
  ],
  role: (binding: RoleBinding): readonly string[] =>
    bindingIndexes.reach(binding).length === 0 ? [] : [roleOf(binding)],
};

/**
 * What is kept of a binding. Of those that the operator didn't make nothing but which role they give
 * to which ServiceAccounts: others are the most of what a cluster has.
 */
export function projectBinding(object: KubeObject): RoleBinding {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the API server serves
  const binding = object as RoleBinding;
  if (isManaged(binding)) return binding;
  const { metadata, roleRef, subjects = [] } = binding;
  return {
    metadata: projectMetadata(metadata),
    roleRef: { apiGroup: roleRef.apiGroup, kind: roleRef.kind, name: roleRef.name },
    subjects: subjects
      .filter((subject) => reachOf(subject, metadata.namespace ?? '') !== undefined)
      .map(({ kind, name, namespace }) => ({
        kind,
        name,
        ...(namespace !== undefined && { namespace }),
      })),
  };
}

/** What is kept of a role: of those that the operator didn't make, the rules alone. */
export function projectRole(object: KubeObject): Role {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the API server serves
  const role = object as Role;
  if (isManaged(role)) return role;
  return { metadata: projectMetadata(role.metadata), rules: role.rules ?? [] };
}

function isManaged({ metadata }: KubeObject): boolean {
  return metadata.labels?.[label.managedBy] === MANAGED_BY;
}

function projectMetadata({ name, namespace, uid, resourceVersion }: ObjectMeta): ObjectMeta {
  return {
    name,
    ...(namespace !== undefined && { namespace }),
    ...(uid !== undefined && { uid }),
    ...(resourceVersion !== undefined && { resourceVersion }),
  };
}

/** Caches of RBAC; those of bindings have {@link bindingIndexes}. */
export interface RbacStores {
  roleBindings: Pick<ReadStore<RoleBinding>, 'byIndex'>;
  clusterRoleBindings: Pick<ReadStore<RoleBinding>, 'byIndex'>;
  roles: Pick<ReadStore<Role>, 'get'>;
  clusterRoles: Pick<ReadStore<Role>, 'get'>;
}

/** The bindings that reach an account, each once. Takes as long as there are such bindings. */
export function bindingsReaching(
  account: Account,
  { roleBindings, clusterRoleBindings }: Pick<RbacStores, 'roleBindings' | 'clusterRoleBindings'>,
): RoleBinding[] {
  const reaches = reachesOf(account);
  return [
    ...new Set(
      [roleBindings, clusterRoleBindings].flatMap((store) =>
        reaches.flatMap((reach) => store.byIndex('reach', reach)),
      ),
    ),
  ];
}

/** The rules that a binding gives; `undefined` where its role doesn't exist. */
export function rulesGivenBy(
  binding: RoleBinding,
  { roles, clusterRoles }: Pick<RbacStores, 'roles' | 'clusterRoles'>,
): readonly PolicyRule[] | undefined {
  const { metadata, roleRef } = binding;
  if (roleRef.kind === 'ClusterRole') return clusterRoles.get(roleRef.name)?.rules;
  return roles.get(`${metadata.namespace ?? ''}/${roleRef.name}`)?.rules;
}

/** By which of an account's names a binding reaches it: its own, or that of a group. */
export function reachedThrough(binding: RoleBinding, account: Account): string | undefined {
  const reached = new Set(bindingIndexes.reach(binding));
  return reachesOf(account).find((reach) => reached.has(reach));
}

/** Where identities are looked up. */
export type Identities<T> = Pick<ReadStore<T>, 'get' | 'byIndex' | 'list'>;

/**
 * The identities that a binding reaches.
 *
 * @param identities by `namespace/name`, indexed by `namespace`
 */
export function identitiesReachedBy<T extends KubeObject>(
  binding: RoleBinding,
  identities: Identities<T>,
): T[] {
  const reaches = bindingIndexes.reach(binding);
  if (reaches.includes(allServiceAccounts) || reaches.includes(allAuthenticated)) {
    return [...identities.list()];
  }
  return reaches.flatMap((reach) =>
    reach.startsWith(`${allServiceAccounts}:`)
      ? [...identities.byIndex('namespace', reach.slice(allServiceAccounts.length + 1))]
      : (identities.get(reach) ?? []),
  );
}

/** The identities that have a role by some binding. */
export function identitiesGiven<T extends KubeObject>(
  { metadata }: Role,
  { roleBindings, clusterRoleBindings }: Pick<RbacStores, 'roleBindings' | 'clusterRoleBindings'>,
  identities: Identities<T>,
): T[] {
  const { namespace, name } = metadata;
  const role = namespace === undefined ? `ClusterRole/${name}` : `Role/${namespace}/${name}`;
  return [roleBindings, clusterRoleBindings].flatMap((store) =>
    store.byIndex('role', role).flatMap((binding) => identitiesReachedBy(binding, identities)),
  );
}
