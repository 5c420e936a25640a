import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { annotation, label, MANAGED_BY } from '../../api/names.ts';
import type {
  CiliumNetworkPolicy,
  CiliumPortRule,
  ClusterNetworkPolicy,
  ClusterNetworkPolicyProtocol,
  ClusterNetworkPolicyRule,
  ObjectMeta,
} from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import { metadataAddresses, type EgressEntry, type Workflow } from '../../api/workflow.ts';
import { isMadeForExactly } from '../../runtime/applier.ts';
import { dnsRule, namespaceNameLabel, singleAddress, type EgressRule } from './rules.ts';

/**
 * Policies of kinds that only some network plug-ins know, and that can do two things more than
 * NetworkPolicies: allow names, and deny what another policy allows. Of each Workflow at most one
 * exists: it allows the hosts, or, at a kill, denies everything; one write turns it round. So each
 * of the two says an empty list of what only the other one has, which is as good as none: a
 * server-side apply leaves what it doesn't mention, if that came with the creation.
 */

/** Whose it is. */
type Owner = Pick<Workflow, 'metadata'>;

/** A policy of such a kind. */
export type PlugInPolicy = CiliumNetworkPolicy | ClusterNetworkPolicy;

/** What a policy that knows names has to allow. */
export interface AllowRequest {
  workflow: Workflow;
  /** Entries of the allowlist with a host. */
  entries: readonly EgressEntry[];
  /** What the cluster's DNS has beside the usual. */
  dns: readonly EgressRule[];
}

/** How policies of one kind are written. */
export interface PlugInKind {
  readonly resource: Resource<PlugInPolicy>;
  /** More hosts of one Workflow than a policy has room for; `undefined` where all fit. */
  tooMany(entries: readonly EgressEntry[]): string | undefined;
  allow(request: AllowRequest): PlugInPolicy;
  deny(workflow: Owner): PlugInPolicy;
  /** Whether a policy allows an entry, on all of its ports. */
  grants(policy: PlugInPolicy, entry: EgressEntry): boolean;
  /** Key (`namespace/name`) of the Workflow that a policy is for. */
  workflowOf(policy: PlugInPolicy): string | undefined;
  isDeny(policy: PlugInPolicy): boolean;
}

const labelsOf = ({ metadata }: Owner): Record<string, string> => ({
  [label.managedBy]: MANAGED_BY,
  [label.workflow]: metadata.name,
});

/** Nobody's name leads to what hands out the node's credentials. */
const metadataNetworks = metadataAddresses.map(singleAddress);

/**
 * `cilium.io/v2`. A deny counts more than every allow, of NetworkPolicies too
 * (docs.cilium.io/en/stable/security/policy/deny). Names are learnt from what the pods ask the DNS:
 * that takes a rule for DNS of its own, beside those that allow it already
 * (docs.cilium.io/en/stable/security/policy/language/#dns-based).
 */
export const cilium: PlugInKind = {
  resource: resources.ciliumNetworkPolicies,
  tooMany: () => undefined,
  allow: ({ workflow, entries, dns }) => ({
    ...ciliumMeta(workflow),
    spec: {
      ...ciliumSubject(workflow),
      egress: [...[dnsRule, ...dns].flatMap(ciliumDns), ...entries.map(ciliumRule)],
      egressDeny: [{ toCIDR: metadataNetworks }],
      ingressDeny: [],
    },
  }),
  deny: (workflow) => ({
    ...ciliumMeta(workflow),
    spec: {
      ...ciliumSubject(workflow),
      egress: [],
      egressDeny: [{ toEntities: ['all'] }],
      ingressDeny: [{ fromEntities: ['all'] }],
    },
  }),
  grants: ({ spec }, entry) =>
    'endpointSelector' in spec &&
    (spec.egress ?? []).some((rule) => isDeepStrictEqual(rule, ciliumRule(entry))),
  workflowOf: ({ metadata }) => {
    const name = metadata.labels?.[label.workflow];
    return name === undefined ? undefined : `${metadata.namespace ?? ''}/${name}`;
  },
  isDeny: ({ spec }) =>
    'endpointSelector' in spec && isDeepStrictEqual(spec.egressDeny, [{ toEntities: ['all'] }]),
};

function ciliumMeta(workflow: Owner): { metadata: ObjectMeta } {
  const { name, namespace, uid = '' } = workflow.metadata;
  return {
    metadata: {
      name: `${name}-egress`,
      ...(namespace !== undefined && { namespace }),
      labels: labelsOf(workflow),
      annotations: { [annotation.ownerUid]: uid },
    },
  };
}

function ciliumSubject({ metadata }: Owner): Pick<CiliumNetworkPolicy['spec'], 'endpointSelector'> {
  return { endpointSelector: { matchLabels: { [label.identity]: metadata.name } } };
}

function ciliumRule({ host = '', ports = [] }: EgressEntry): CiliumRule {
  return {
    toFQDNs: [host.startsWith('*') ? { matchPattern: host } : { matchName: host }],
    ...(ports.length > 0 && { toPorts: ciliumPorts(ports) }),
  };
}

type CiliumRule = NonNullable<CiliumNetworkPolicy['spec']['egress']>[number];

/** Has the DNS proxy look at what the pods ask, of pods and of addresses. */
function ciliumDns({ to = [], ports = [] }: EgressRule): CiliumRule[] {
  const toPorts = ciliumPorts(ports).map((rule) => ({
    ...rule,
    rules: { dns: [{ matchPattern: '*' }] },
  }));
  return to.flatMap(({ podSelector, namespaceSelector, ipBlock }): CiliumRule[] => {
    if (ipBlock !== undefined) return [{ toCIDR: [ipBlock.cidr], toPorts }];
    const namespace = namespaceSelector?.matchLabels?.[namespaceNameLabel];
    if (namespace === undefined) return [];
    const matchLabels = {
      ...Object.fromEntries(
        Object.entries(podSelector?.matchLabels ?? {}).map(([key, value]) => [`k8s:${key}`, value]),
      ),
      'k8s:io.kubernetes.pod.namespace': namespace,
    };
    return [{ toEndpoints: [{ matchLabels }], toPorts }];
  });
}

/** Ports of one rule at most (`cilium.io/v2`). */
const ciliumMaxPorts = 40;

function ciliumPorts(
  ports: readonly {
    protocol?: string | undefined;
    port?: number | string | undefined;
    endPort?: number | undefined;
  }[],
): CiliumPortRule[] {
  const all = ports.map(({ protocol = 'TCP', port = 0, endPort }) => ({
    port: String(port),
    ...(endPort !== undefined && { endPort }),
    protocol,
  }));
  return chunks(all, ciliumMaxPorts).map((some) => ({ ports: some }));
}

/** Of the tier `Admin`: other allows of an administrator, and what he denies, come before. */
const allowPriority = 1000;
/** Before everything of anybody. */
const denyPriority = 0;
/** Rules of a policy, names and ports of a rule at most (`policy.networking.k8s.io/v1alpha2`). */
const maxItems = 25;

/**
 * `policy.networking.k8s.io/v1alpha2`, whose field `domainNames` is experimental. Policies of the
 * tier `Admin` decide before NetworkPolicies do.
 */
export const clusterNetworkPolicy: PlugInKind = {
  resource: resources.clusterNetworkPolicies,
  tooMany: (entries) => {
    const { length } = acceptRules(entries);
    return length < maxItems
      ? undefined
      : `a ClusterNetworkPolicy has room for ${maxItems - 1} sets of ports with ${maxItems} hosts each, and these take ${length}`;
  },
  allow: ({ workflow, entries }) => ({
    metadata: clusterMeta(workflow),
    spec: {
      tier: 'Admin',
      priority: allowPriority,
      ...clusterSubject(workflow),
      egress: [
        { action: 'Deny', name: 'metadata', to: [{ networks: metadataNetworks }] },
        ...acceptRules(entries),
      ],
      ingress: [],
    },
  }),
  deny: (workflow) => ({
    metadata: clusterMeta(workflow),
    spec: {
      tier: 'Admin',
      priority: denyPriority,
      ...clusterSubject(workflow),
      egress: [{ action: 'Deny', name: 'all', to: [{ networks: ['0.0.0.0/0', '::/0'] }] }],
      ingress: [{ action: 'Deny', name: 'all', from: [{ namespaces: {} }] }],
    },
  }),
  grants: ({ spec }, entry) =>
    'tier' in spec &&
    acceptRules([entry]).every(({ to: [{ domainNames = [] } = {}], protocols }) =>
      (spec.egress ?? []).some(
        (rule) =>
          rule.action === 'Accept' &&
          isDeepStrictEqual(rule.protocols, protocols) &&
          domainNames.every((name) => rule.to.some((peer) => peer.domainNames?.includes(name))),
      ),
    ),
  workflowOf: ({ metadata, spec }) => {
    const name = metadata.labels?.[label.workflow];
    const namespace =
      'subject' in spec
        ? spec.subject.pods.namespaceSelector.matchLabels?.[namespaceNameLabel]
        : undefined;
    return name === undefined || namespace === undefined ? undefined : `${namespace}/${name}`;
  },
  isDeny: ({ spec }) => 'tier' in spec && spec.priority === denyPriority,
};

/** It has no namespace: it is named after that, too. */
function clusterMeta(workflow: Owner): ObjectMeta {
  const { name, namespace = '', uid = '' } = workflow.metadata;
  const digest = createHash('sha256').update(`${namespace}/${name}/${uid}`).digest('hex');
  return {
    name: `${MANAGED_BY}-egress-${digest.slice(0, 20)}`,
    labels: labelsOf(workflow),
    annotations: { [annotation.ownerUid]: uid },
  };
}

function clusterSubject({
  metadata: { name, namespace = '' },
}: Owner): Pick<ClusterNetworkPolicy['spec'], 'subject'> {
  return {
    subject: {
      pods: {
        namespaceSelector: { matchLabels: { [namespaceNameLabel]: namespace } },
        podSelector: { matchLabels: { [label.identity]: name } },
      },
    },
  };
}

function acceptRules(entries: readonly EgressEntry[]): ClusterNetworkPolicyRule[] {
  const byPorts = Map.groupBy(entries, ({ ports = [] }) => JSON.stringify(ports));
  return [...byPorts.values()].flatMap((same) => {
    const hosts = [...new Set(same.flatMap(({ host }) => host ?? []))];
    const protocols = (same[0]?.ports ?? []).map(protocolOf);
    const some = protocols.length === 0 ? [undefined] : chunks(protocols, maxItems);
    return chunks(hosts, maxItems).flatMap((domainNames) =>
      some.map((of): ClusterNetworkPolicyRule => ({
        action: 'Accept',
        to: [{ domainNames }],
        ...(of !== undefined && { protocols: of }),
      })),
    );
  });
}

function protocolOf({
  protocol,
  port,
  endPort = port,
}: NonNullable<EgressEntry['ports']>[number]): ClusterNetworkPolicyProtocol {
  const destinationPort =
    endPort === port ? { number: port } : { range: { start: port, end: endPort } };
  switch (protocol) {
    case 'TCP':
      return { tcp: { destinationPort } };
    case 'UDP':
      return { udp: { destinationPort } };
    case 'SCTP':
      return { sctp: { destinationPort } };
  }
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) =>
    items.slice(index * size, (index + 1) * size),
  );
}

/** What has to be known to plan the policy of a Workflow. */
export interface PlugInRequest extends AllowRequest {
  kind: PlugInKind;
  /** Those of the Workflow, of any kind, as far as they are ours. */
  live: readonly PlugInPolicy[];
  /** Nothing is granted that isn't there yet. */
  isWithheld: boolean;
  /** Its kill switch is engaged: everything is denied. */
  isClosed: boolean;
  /** In another namespace, nothing is created. */
  isGuarded: boolean;
}

/** The policy that has to stand, and those that have to go. */
export interface PlugInPlan {
  kind: PlugInKind;
  /** `undefined`: none is needed. */
  desired: PlugInPolicy | undefined;
  /** What stands under its name. */
  live: PlugInPolicy | undefined;
  /** They go when the other one stands. */
  obsolete: readonly PlugInPolicy[];
}

/** The one policy of a Workflow beyond NetworkPolicies, if it needs one. */
export function planPlugIn(request: PlugInRequest): PlugInPlan {
  const { kind, workflow, entries, live, isWithheld, isClosed, isGuarded } = request;
  const { name } = kind.deny(workflow).metadata;
  const standing = live.find((policy) => policy.metadata.name === name && isOfKind(kind, policy));
  const others = live.filter((policy) => policy !== standing);
  if (standing === undefined && !isGuarded) {
    return { kind, desired: undefined, live: undefined, obsolete: others };
  }
  if (isClosed) return { kind, desired: kind.deny(workflow), live: standing, obsolete: others };
  const granted = isWithheld
    ? entries.filter(
        (entry) =>
          standing !== undefined &&
          isMadeForExactly(standing, workflow) &&
          kind.grants(standing, entry),
      )
    : entries;
  if (granted.length === 0) return { kind, desired: undefined, live: undefined, obsolete: live };
  return {
    kind,
    desired: kind.allow({ ...request, entries: granted }),
    live: standing,
    obsolete: others,
  };
}

/** Whether a policy is one of that kind: one of them has namespaces, the other none. */
export function isOfKind({ resource }: PlugInKind, { metadata }: PlugInPolicy): boolean {
  return resource.namespaced === (metadata.namespace !== undefined);
}
