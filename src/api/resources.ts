import type {
  KubeObject,
  Lease,
  Namespace,
  NetworkPolicy,
  Pod,
  Role,
  RoleBinding,
  Secret,
  SelfSubjectReview,
  ServiceAccount,
  SubjectAccessReview,
} from './objects.ts';
import type { AutomationIdentity } from './automation-identity.ts';
import type { KillSwitch } from './kill-switch.ts';
import type { Workflow } from './workflow.ts';
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

function resource<T extends KubeObject>(
  group: string,
  version: string,
  kind: string,
  plural: string,
  namespaced = true,
): Resource<T> {
  return Object.freeze({ group, version, kind, plural, namespaced });
}

function admission(kind: string, plural: string): Resource {
  return resource('admissionregistration.k8s.io', 'v1', kind, plural, false);
}

export const resources = {
  workflows: resource<Workflow>(GROUP, VERSION, 'Workflow', 'automationworkflows'),
  automationIdentities: resource<AutomationIdentity>(
    GROUP,
    VERSION,
    'AutomationIdentity',
    'automationidentities',
  ),
  killSwitches: resource<KillSwitch>(GROUP, VERSION, 'KillSwitch', 'killswitches'),
  namespaces: resource<Namespace>('', 'v1', 'Namespace', 'namespaces', false),
  serviceAccounts: resource<ServiceAccount>('', 'v1', 'ServiceAccount', 'serviceaccounts'),
  secrets: resource<Secret>('', 'v1', 'Secret', 'secrets'),
  pods: resource<Pod>('', 'v1', 'Pod', 'pods'),
  bindings: resource('', 'v1', 'Binding', 'bindings'),
  roles: resource<Role>('rbac.authorization.k8s.io', 'v1', 'Role', 'roles'),
  roleBindings: resource<RoleBinding>(
    'rbac.authorization.k8s.io',
    'v1',
    'RoleBinding',
    'rolebindings',
  ),
  networkPolicies: resource<NetworkPolicy>(
    'networking.k8s.io',
    'v1',
    'NetworkPolicy',
    'networkpolicies',
  ),
  deployments: resource('apps', 'v1', 'Deployment', 'deployments'),
  statefulSets: resource('apps', 'v1', 'StatefulSet', 'statefulsets'),
  daemonSets: resource('apps', 'v1', 'DaemonSet', 'daemonsets'),
  replicaSets: resource('apps', 'v1', 'ReplicaSet', 'replicasets'),
  jobs: resource('batch', 'v1', 'Job', 'jobs'),
  cronJobs: resource('batch', 'v1', 'CronJob', 'cronjobs'),
  subjectAccessReviews: resource<SubjectAccessReview>(
    'authorization.k8s.io',
    'v1',
    'SubjectAccessReview',
    'subjectaccessreviews',
    false,
  ),
  leases: resource<Lease>('coordination.k8s.io', 'v1', 'Lease', 'leases'),
  selfSubjectReviews: resource<SelfSubjectReview>(
    'authentication.k8s.io',
    'v1',
    'SelfSubjectReview',
    'selfsubjectreviews',
    false,
  ),
  events: resource('events.k8s.io', 'v1', 'Event', 'events'),
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
