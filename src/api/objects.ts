import { annotation } from './names.ts';
import type { EgressProbe } from './workflow.ts';

/** The parts of Kubernetes objects that the operator reads and writes, as they stand in JSON. */

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface ObjectMeta {
  name: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  /** RFC 3339. */
  creationTimestamp?: string;
  /** RFC 3339. */
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
  finalizers?: string[];
  managedFields?: {
    manager?: string;
    operation?: string;
    subresource?: string;
    /** RFC 3339: its last change. */
    time?: string;
    fieldsV1?: object;
  }[];
}

/** As much of the metadata as says which object it is, and which version: nothing that grows. */
export function bareMetadata(metadata: ObjectMeta): ObjectMeta {
  const { name, namespace, uid, resourceVersion, generation } = metadata;
  const { creationTimestamp, deletionTimestamp } = metadata;
  return {
    name,
    ...(namespace !== undefined && { namespace }),
    ...(uid !== undefined && { uid }),
    ...(resourceVersion !== undefined && { resourceVersion }),
    ...(generation !== undefined && { generation }),
    ...(creationTimestamp !== undefined && { creationTimestamp }),
    ...(deletionTimestamp !== undefined && { deletionTimestamp }),
  };
}

export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
}

/** A condition as in the Kubernetes API conventions (`metav1.Condition`). */
export interface Condition {
  type: string;
  status: 'True' | 'False' | 'Unknown';
  /** CamelCase, stable, documented in docs/reference/conditions.md. */
  reason: string;
  message: string;
  /** RFC 3339; changes only with `status`. */
  lastTransitionTime: string;
  observedGeneration?: number;
}

export interface LabelSelector {
  matchLabels?: Record<string, string>;
  matchExpressions?: { key: string; operator: string; values?: string[] }[];
}

export interface Namespace extends KubeObject {
  status?: { phase?: string };
}

export interface ServiceAccount extends KubeObject {
  automountServiceAccountToken?: boolean;
  imagePullSecrets?: { name?: string }[];
}

/** Asks for a token of the ServiceAccount that `metadata` names; nothing is stored. */
export interface TokenRequest extends KubeObject {
  spec: {
    audiences: string[];
    expirationSeconds: number;
    boundObjectRef: { apiVersion: string; kind: string; name: string; uid: string };
  };
  status?: {
    token?: string;
    /** RFC 3339. */
    expirationTimestamp?: string;
  };
}

/** Asks the API server whose a token is; it has no name, and nothing is stored. */
export interface TokenReview extends KubeObject {
  spec: {
    token: string;
    /** Absent: the API server's own. */
    audiences?: string[];
  };
  /** Without a user, where it isn't authenticated. */
  status?: { authenticated?: boolean; user?: { username?: string; uid?: string } };
}

/** Asks the API server what somebody may do; it has no name, and nothing is stored. */
/** What an access review asks about. */
export interface ResourceAttributes {
  namespace: string;
  verb: string;
  group: string;
  resource: string;
  subresource?: string;
  name?: string;
}

export interface SubjectAccessReview extends KubeObject {
  spec: {
    user: string;
    groups: string[];
    resourceAttributes: ResourceAttributes;
  };
  status?: { allowed?: boolean };
}

export interface PolicyRule {
  apiGroups?: string[];
  resources?: string[];
  resourceNames?: string[];
  nonResourceURLs?: string[];
  verbs: string[];
}

/** A Role or a ClusterRole. */
export interface Role extends KubeObject {
  rules?: PolicyRule[];
}

/** A RoleBinding or a ClusterRoleBinding. */
export interface RoleBinding extends KubeObject {
  roleRef: { apiGroup: string; kind: string; name: string };
  subjects?: { kind: string; name: string; namespace?: string; apiGroup?: string }[];
}

export interface Secret extends KubeObject {
  type?: string;
  /** Base64. */
  data?: Record<string, string>;
}

export interface ConfigMap extends KubeObject {
  data?: Record<string, string>;
}

export interface NetworkPolicyPeer {
  ipBlock?: { cidr: string; except?: string[] };
  namespaceSelector?: LabelSelector;
  podSelector?: LabelSelector;
}

export interface NetworkPolicyPort {
  /** TCP, where it is absent. */
  protocol?: 'TCP' | 'UDP' | 'SCTP';
  /** All ports, where it is absent; a name is one of the destination's container ports. */
  port?: number | string;
  endPort?: number;
}

export interface NetworkPolicy extends KubeObject {
  spec: {
    podSelector: LabelSelector;
    policyTypes: ('Egress' | 'Ingress')[];
    egress?: { to?: NetworkPolicyPeer[]; ports?: NetworkPolicyPort[] }[];
    ingress?: { from?: NetworkPolicyPeer[]; ports?: NetworkPolicyPort[] }[];
  };
}

/** Ports of a CiliumNetworkPolicy, and what Cilium's DNS proxy learns names from. */
export interface CiliumPortRule {
  ports: { port: string; endPort?: number; protocol: string }[];
  rules?: { dns: { matchPattern: string }[] };
}

/** Of `cilium.io/v2`, as far as we write it. */
export interface CiliumNetworkPolicy extends KubeObject {
  spec: {
    endpointSelector: LabelSelector;
    egress?: {
      toFQDNs?: { matchName?: string; matchPattern?: string }[];
      toEndpoints?: LabelSelector[];
      toCIDR?: string[];
      toPorts?: CiliumPortRule[];
    }[];
    egressDeny?: { toEntities?: string[]; toCIDR?: string[] }[];
    ingressDeny?: { fromEntities: string[] }[];
  };
}

type ClusterNetworkPolicyPort = {
  destinationPort: { number: number } | { range: { start: number; end: number } };
};

/** A port of a ClusterNetworkPolicy, under the name of its protocol. */
export type ClusterNetworkPolicyProtocol =
  | { tcp: ClusterNetworkPolicyPort }
  | { udp: ClusterNetworkPolicyPort }
  | { sctp: ClusterNetworkPolicyPort };

/** One egress rule of a ClusterNetworkPolicy. */
export interface ClusterNetworkPolicyRule {
  action: 'Accept' | 'Deny' | 'Pass';
  name?: string;
  to: { networks?: string[]; domainNames?: string[] }[];
  protocols?: ClusterNetworkPolicyProtocol[];
}

/** Of `policy.networking.k8s.io/v1alpha2`, as far as we write it. */
export interface ClusterNetworkPolicy extends KubeObject {
  spec: {
    tier: 'Admin' | 'Baseline';
    priority: number;
    subject: { pods: { namespaceSelector: LabelSelector; podSelector: LabelSelector } };
    egress?: ClusterNetworkPolicyRule[];
    ingress?: { action: 'Deny'; name?: string; from: { namespaces: LabelSelector }[] }[];
  };
}

export interface Service extends KubeObject {
  spec?: {
    type?: string;
    clusterIPs?: string[];
    selector?: Record<string, string>;
    ports?: { name?: string; protocol?: string; port: number }[];
  };
}

export interface EndpointSlice extends KubeObject {
  addressType?: string;
  endpoints?: { addresses?: string[]; conditions?: { ready?: boolean } }[];
  ports?: { name?: string; protocol?: string; port?: number }[];
}

export interface PodTemplate {
  metadata?: { labels?: Record<string, string>; annotations?: Record<string, string> };
  spec?: {
    serviceAccountName?: string;
    nodeSelector?: Record<string, string>;
    [field: string]: unknown;
  };
}

/** How a pod holds the values of generated credentials. */
export interface PodSecrets {
  /** Names of Secrets that it read when it started: environment, subPath, whatever isn't a volume. */
  readOnce: string[];
  /** Names of Secrets that it has in volumes alone, which follow. */
  followed: string[];
  /** Value of our `restarted-at` annotation, which it has from its template. */
  restartedAt?: string;
}

export interface Pod extends KubeObject {
  spec?: {
    serviceAccountName?: string;
    nodeName?: string;
    terminationGracePeriodSeconds?: number;
    schedulingGates?: { name: string }[];
  };
  status?: {
    phase?: string;
    reason?: string;
    /** RFC 3339: when its node began with it. */
    startTime?: string;
    conditions?: { lastTransitionTime?: string }[];
    containerStatuses?: {
      state?: { terminated?: { exitCode?: number; reason?: string; finishedAt?: string } };
    }[];
  };
  /** Of the cache alone: how it ended, where it has; of its containers the worst. */
  end?: { at?: string; exitCode?: number; reason?: string };
  /** Of the cache alone: which generated credentials it holds. */
  secrets?: PodSecrets;
  /** Of the cache alone, and of a pod that waits for approval alone: digest of what it runs. */
  codeDigest?: string;
  /** Of the cache alone: what it found, where it tried whether NetworkPolicies are enforced. */
  egressProbe?: EgressProbe;
}

export interface Lease extends KubeObject {
  spec?: {
    holderIdentity?: string;
    leaseDurationSeconds?: number;
    /** RFC 3339 with microseconds. */
    acquireTime?: string;
    /** RFC 3339 with microseconds. */
    renewTime?: string;
    leaseTransitions?: number;
  };
}

/** `namespace/name` of an object, or `name` where it has no namespace. */
export function keyOf(object: KubeObject): string {
  const { namespace, name } = object.metadata;
  return namespace === undefined ? name : `${namespace}/${name}`;
}

/** The user whom admission stamped as the last who changed the spec; `undefined` without a stamp. */
export function stampOf({ metadata }: Pick<KubeObject, 'metadata'>): string | undefined {
  return metadata.annotations?.[annotation.changedBy];
}

/** Splits what {@link keyOf} made. */
export function splitKey(key: string): { namespace?: string; name: string } {
  const slash = key.indexOf('/');
  return slash < 0 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/** Asks the API server who it takes the asker for. */
export interface SelfSubjectReview extends KubeObject {
  status?: { userInfo?: { username?: string; groups?: string[] } };
}
