import { PROBE_NAMESPACE } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import {
  anchorsRole,
  childrenRole,
  grantableRole,
  identityRole,
  leaderElectionRole,
  limitedOperatorRole,
  namespaceOperatorRole,
  operatorRole,
  ownNamespaceRole,
  userRoles,
  type RoleDefinition,
} from './rbac.ts';

const prefix = 'automation-guardrails';

/** Roles of an installation, in the order in which they are listed everywhere. */
export const roles: readonly RoleDefinition[] = [
  operatorRole,
  leaderElectionRole,
  anchorsRole,
  grantableRole,
  identityRole,
  childrenRole,
  limitedOperatorRole,
  namespaceOperatorRole,
  ownNamespaceRole,
  ...userRoles.map((role) => ({ ...role, forPeople: true })),
];

/** RBAC of the installation in namespace `automation-guardrails`, as the kustomization has it. */
export function rbacManifests(): KubeObject[] {
  const bound = [operatorRole, leaderElectionRole, anchorsRole, grantableRole, childrenRole];
  return [
    ...roles.filter(({ limited }) => limited === undefined).map(roleManifest),
    ...bound.map(bindingManifest),
  ];
}

/** RBAC of an operator that acts in listed namespaces alone, beside what it needs in each. */
export function limitedRbacManifests(): KubeObject[] {
  const inProbe = inNamespace(namespaceOperatorRole, PROBE_NAMESPACE);
  return [
    ...roles.filter(({ limited }) => limited !== undefined).map(roleManifest),
    bindingManifest(limitedOperatorRole),
    bindingManifest(ownNamespaceRole),
    inProbe,
  ];
}

/** What an operator that acts in listed namespaces alone needs in each of them. */
export function namespaceRbacManifests(): KubeObject[] {
  return [inNamespace(namespaceOperatorRole), inNamespace(grantableRole)];
}

/** A ClusterRole, bound in one namespace. @param namespace without it, whatever it is applied to */
function inNamespace(role: RoleDefinition, namespace?: string): KubeObject {
  const { metadata: of, ...manifest } = bindingManifest(role);
  const { labels } = of;
  return {
    ...manifest,
    kind: 'RoleBinding',
    metadata: {
      name: of.name,
      ...(namespace !== undefined && { namespace }),
      ...(labels && { labels }),
    },
  };
}

function roleManifest({
  name,
  description,
  namespaced = false,
  rules,
}: RoleDefinition): KubeObject {
  return {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: namespaced ? 'Role' : 'ClusterRole',
    metadata: {
      ...metadata(name, namespaced),
      annotations: { 'automationguardrails.dev/description': description },
    },
    rules,
  } as KubeObject;
}

function bindingManifest({
  name,
  namespaced = false,
  subjects = [{ kind: 'ServiceAccount', name: prefix, namespace: prefix }],
}: RoleDefinition): KubeObject {
  return {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: namespaced ? 'RoleBinding' : 'ClusterRoleBinding',
    metadata: metadata(name, namespaced),
    roleRef: {
      apiGroup: 'rbac.authorization.k8s.io',
      kind: namespaced ? 'Role' : 'ClusterRole',
      name: `${prefix}-${name}`,
    },
    subjects,
  } as KubeObject;
}

function metadata(name: string, namespaced: boolean): KubeObject['metadata'] {
  return {
    name: `${prefix}-${name}`,
    ...(namespaced && { namespace: prefix }),
    labels: { 'app.kubernetes.io/name': prefix },
  };
}
