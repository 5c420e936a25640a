import { canary, canaryServiceAccounts } from '../admission/index.ts';
import { identityRole, label, MANAGED_BY, PROBE_NAMESPACE } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { probeRole } from './rbac.ts';

const labels = { 'app.kubernetes.io/name': MANAGED_BY };
const name = `${MANAGED_BY}-${probeRole.name}`;

/**
 * The namespace of the standing probe, in which nothing can run, and what the operator may do
 * there. The KillSwitch in it is the operator's: it can't come before its CRD and the policies
 * that stamp it, and no pipeline should prune it.
 */
export function probeManifests(): KubeObject[] {
  const metadata = { name, namespace: PROBE_NAMESPACE, labels };
  const apiGroup = 'rbac.authorization.k8s.io';
  return [
    object('v1', 'Namespace', {
      metadata: {
        name: PROBE_NAMESPACE,
        labels: {
          ...labels,
          [label.environment]: 'probe',
          'pod-security.kubernetes.io/enforce': 'restricted',
        },
      },
    }),
    object('v1', 'ResourceQuota', {
      metadata,
      // Whatever becomes of the policies: a request that should have been refused ends here.
      spec: { hard: { pods: '0', secrets: '0' } },
    }),
    ...canaryServiceAccounts.map((account) =>
      object('v1', 'ServiceAccount', {
        metadata: { name: account, namespace: PROBE_NAMESPACE, labels },
        automountServiceAccountToken: false,
      }),
    ),
    object('rbac.authorization.k8s.io/v1', 'Role', {
      metadata: {
        ...metadata,
        annotations: { 'automationguardrails.dev/description': probeRole.description },
      },
      rules: probeRole.rules,
    }),
    object('rbac.authorization.k8s.io/v1', 'RoleBinding', {
      metadata,
      roleRef: { apiGroup, kind: 'Role', name },
      subjects: [{ kind: 'ServiceAccount', name: MANAGED_BY, namespace: MANAGED_BY }],
    }),
    // As the operator marks the ServiceAccount of an identity.
    object('rbac.authorization.k8s.io/v1', 'RoleBinding', {
      metadata: { name: canary.managed, namespace: PROBE_NAMESPACE, labels },
      roleRef: { apiGroup, kind: 'ClusterRole', name: identityRole },
      subjects: [{ kind: 'ServiceAccount', name: canary.managed, namespace: PROBE_NAMESPACE }],
    }),
  ];
}

function object(
  apiVersion: string,
  kind: string,
  fields: { metadata: KubeObject['metadata']; [field: string]: unknown },
): KubeObject {
  return { apiVersion, kind, ...fields };
}
