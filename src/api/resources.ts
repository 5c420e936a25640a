import type {
  CiliumNetworkPolicy,
  ClusterNetworkPolicy,
  EndpointSlice,
  ConfigMap,
  KubeObject,
  Lease,
  Namespace,
  NetworkPolicy,
  Pod,
  Role,
  RoleBinding,
  Secret,
  SelfSubjectReview,
  Service,
  ServiceAccount,
  SubjectAccessReview,
  TokenRequest,
  TokenReview,
} from './objects.ts';
import type { Approval } from './approval.ts';
import type { AccessReview } from './access-review.ts';
import type { AutomationIdentity } from './automation-identity.ts';
import type { ClusterKillSwitch } from './cluster-kill-switch.ts';
import type { EvidenceSegment } from './evidence-segment.ts';
import type { GuardrailPolicy } from './guardrail-policy.ts';
import type { KillSwitch } from './kill-switch.ts';
import type { Workflow } from './workflow.ts';
import type { WorkflowRevision } from './workflow-revision.ts';
import { GROUP, VERSION } from './names.ts';

/** Where a kind is served: what a request's path is made of. `T` is the object's type. */
export interface Resource<T extends KubeObject = KubeObject> {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
  /** Never present; carries `T`. */
  readonly object?: T;
}

/** Of a kind that isn't among {@link resources}, too: another project's. */
export function defineResource<T extends KubeObject>(
  group: string,
  version: string,
  kind: string,
  plural: string,
  namespaced = true,
): Resource<T> {
  return Object.freeze({ group, version, kind, plural, namespaced });
}

function admission(kind: string, plural: string): Resource {
  return defineResource('admissionregistration.k8s.io', 'v1', kind, plural, false);
}

export const resources = {
  workflows: defineResource<Workflow>(GROUP, VERSION, 'Workflow', 'automationworkflows'),
  automationIdentities: defineResource<AutomationIdentity>(
    GROUP,
    VERSION,
    'AutomationIdentity',
    'automationidentities',
  ),
  killSwitches: defineResource<KillSwitch>(GROUP, VERSION, 'KillSwitch', 'killswitches'),
  clusterKillSwitches: defineResource<ClusterKillSwitch>(
    GROUP,
    VERSION,
    'ClusterKillSwitch',
    'clusterkillswitches',
    false,
  ),
  guardrailPolicies: defineResource<GuardrailPolicy>(
    GROUP,
    VERSION,
    'GuardrailPolicy',
    'guardrailpolicies',
    false,
  ),
  approvals: defineResource<Approval>(GROUP, VERSION, 'Approval', 'approvals'),
  accessReviews: defineResource<AccessReview>(GROUP, VERSION, 'AccessReview', 'accessreviews'),
  evidenceSegments: defineResource<EvidenceSegment>(
    GROUP,
    VERSION,
    'EvidenceSegment',
    'evidencesegments',
  ),
  workflowRevisions: defineResource<WorkflowRevision>(
    GROUP,
    VERSION,
    'WorkflowRevision',
    'workflowrevisions',
  ),
  configMaps: defineResource<ConfigMap>('', 'v1', 'ConfigMap', 'configmaps'),
  namespaces: defineResource<Namespace>('', 'v1', 'Namespace', 'namespaces', false),
  serviceAccounts: defineResource<ServiceAccount>('', 'v1', 'ServiceAccount', 'serviceaccounts'),
  /** What is created on the subresource `token` of a ServiceAccount. */
  tokenRequests: defineResource<TokenRequest>('', 'v1', 'ServiceAccount', 'serviceaccounts'),
  secrets: defineResource<Secret>('', 'v1', 'Secret', 'secrets'),
  pods: defineResource<Pod>('', 'v1', 'Pod', 'pods'),
  bindings: defineResource('', 'v1', 'Binding', 'bindings'),
  roles: defineResource<Role>('rbac.authorization.k8s.io', 'v1', 'Role', 'roles'),
  roleBindings: defineResource<RoleBinding>(
    'rbac.authorization.k8s.io',
    'v1',
    'RoleBinding',
    'rolebindings',
  ),
  clusterRoles: defineResource<Role>(
    'rbac.authorization.k8s.io',
    'v1',
    'ClusterRole',
    'clusterroles',
    false,
  ),
  clusterRoleBindings: defineResource<RoleBinding>(
    'rbac.authorization.k8s.io',
    'v1',
    'ClusterRoleBinding',
    'clusterrolebindings',
    false,
  ),
  networkPolicies: defineResource<NetworkPolicy>(
    'networking.k8s.io',
    'v1',
    'NetworkPolicy',
    'networkpolicies',
  ),
  /** Of other projects; they may not be installed. */
  ciliumNetworkPolicies: defineResource<CiliumNetworkPolicy>(
    'cilium.io',
    'v2',
    'CiliumNetworkPolicy',
    'ciliumnetworkpolicies',
  ),
  ciliumClusterwideNetworkPolicies: defineResource<CiliumNetworkPolicy>(
    'cilium.io',
    'v2',
    'CiliumClusterwideNetworkPolicy',
    'ciliumclusterwidenetworkpolicies',
    false,
  ),
  clusterNetworkPolicies: defineResource<ClusterNetworkPolicy>(
    'policy.networking.k8s.io',
    'v1alpha2',
    'ClusterNetworkPolicy',
    'clusternetworkpolicies',
    false,
  ),
  services: defineResource<Service>('', 'v1', 'Service', 'services'),
  endpointSlices: defineResource<EndpointSlice>(
    'discovery.k8s.io',
    'v1',
    'EndpointSlice',
    'endpointslices',
  ),
  deployments: defineResource('apps', 'v1', 'Deployment', 'deployments'),
  statefulSets: defineResource('apps', 'v1', 'StatefulSet', 'statefulsets'),
  daemonSets: defineResource('apps', 'v1', 'DaemonSet', 'daemonsets'),
  replicaSets: defineResource('apps', 'v1', 'ReplicaSet', 'replicasets'),
  jobs: defineResource('batch', 'v1', 'Job', 'jobs'),
  cronJobs: defineResource('batch', 'v1', 'CronJob', 'cronjobs'),
  subjectAccessReviews: defineResource<SubjectAccessReview>(
    'authorization.k8s.io',
    'v1',
    'SubjectAccessReview',
    'subjectaccessreviews',
    false,
  ),
  leases: defineResource<Lease>('coordination.k8s.io', 'v1', 'Lease', 'leases'),
  selfSubjectReviews: defineResource<SelfSubjectReview>(
    'authentication.k8s.io',
    'v1',
    'SelfSubjectReview',
    'selfsubjectreviews',
    false,
  ),
  tokenReviews: defineResource<TokenReview>(
    'authentication.k8s.io',
    'v1',
    'TokenReview',
    'tokenreviews',
    false,
  ),
  events: defineResource('events.k8s.io', 'v1', 'Event', 'events'),
  validatingPolicies: admission('ValidatingAdmissionPolicy', 'validatingadmissionpolicies'),
  validatingBindings: admission(
    'ValidatingAdmissionPolicyBinding',
    'validatingadmissionpolicybindings',
  ),
  mutatingPolicies: admission('MutatingAdmissionPolicy', 'mutatingadmissionpolicies'),
  mutatingBindings: admission('MutatingAdmissionPolicyBinding', 'mutatingadmissionpolicybindings'),
} as const;

/** `v1` or `group/version`, as objects carry it. */
export function apiVersionOf({ group, version }: Resource): string {
  return group === '' ? version : `${group}/${version}`;
}

/** What an event about an object names. Caches leave its kind out, as items of a list come. */
export function subjectOf(of: Resource, { metadata }: KubeObject): KubeObject {
  return { apiVersion: apiVersionOf(of), kind: of.kind, metadata };
}
