import { selectsLabels } from './pod-selector.ts';
import { contains } from './addresses.ts';
import { namespaceNameLabel } from './rules.ts';
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../../api/objects.ts';

/*
 * What NetworkPolicies mean, as kubernetes.io/docs/concepts/services-networking/network-policies and
 * the API reference of networking.k8s.io/v1 have it: for one pod and one connection, in the simplest
 * way. What is said of all connections at once is checked against this.
 */

export type Labels = Readonly<Record<string, string>>;

/** A pod as policies see it. */
export interface PodIdentity {
  namespace: string;
  labels: Labels;
}

/** The other end of a connection: an address, and the pod that has it, if one has. */
export interface OtherEnd {
  address?: string;
  pod?: PodIdentity & { namespaceLabels: Labels };
}

export interface Connection {
  other: OtherEnd;
  protocol: 'TCP' | 'UDP' | 'SCTP';
  /** Of the destination. */
  port: number;
  /** Name of that port in the destination's pod. */
  portName?: string;
}

/** Whether the policies of its namespace let a pod open a connection. */
export function mayConnect(
  policies: readonly NetworkPolicy[],
  pod: PodIdentity,
  connection: Connection,
): boolean {
  const mine = isolating(policies, pod, 'Egress');
  if (mine.length === 0) return true;
  return mine.some(({ metadata, spec }) =>
    (spec.egress ?? []).some(({ to, ports }) =>
      allows({ peers: to, ports }, connection, metadata.namespace ?? ''),
    ),
  );
}

/** Whether the policies of its namespace let a pod accept a connection. */
export function mayAccept(
  policies: readonly NetworkPolicy[],
  pod: PodIdentity,
  connection: Connection,
): boolean {
  const mine = isolating(policies, pod, 'Ingress');
  if (mine.length === 0) return true;
  return mine.some(({ metadata, spec }) =>
    (spec.ingress ?? []).some(({ from, ports }) =>
      allows({ peers: from, ports }, connection, metadata.namespace ?? ''),
    ),
  );
}

/** Policies that isolate a pod in a direction: nothing but what one of them allows is allowed. */
export function isolating(
  policies: readonly NetworkPolicy[],
  { namespace, labels }: PodIdentity,
  direction: 'Egress' | 'Ingress',
): NetworkPolicy[] {
  return policies.filter(
    ({ metadata, spec }) =>
      metadata.namespace === namespace &&
      spec.policyTypes.includes(direction) &&
      selectsLabels(spec.podSelector, labels),
  );
}

interface Rule {
  peers: readonly NetworkPolicyPeer[] | undefined;
  ports: readonly NetworkPolicyPort[] | undefined;
}

/** An absent or empty list of peers is every peer, one of ports every port. */
function allows(
  { peers = [], ports = [] }: Rule,
  connection: Connection,
  namespace: string,
): boolean {
  return (
    (peers.length === 0 || peers.some((peer) => isPeer(peer, connection.other, namespace))) &&
    (ports.length === 0 || ports.some((port) => isPort(port, connection)))
  );
}

function isPeer(
  { ipBlock, namespaceSelector, podSelector = {} }: NetworkPolicyPeer,
  { address, pod }: OtherEnd,
  namespace: string,
): boolean {
  if (ipBlock !== undefined) {
    const { cidr, except = [] } = ipBlock;
    return (
      address !== undefined &&
      contains(cidr, address) &&
      !except.some((network) => contains(network, address))
    );
  }
  if (pod === undefined || !selectsLabels(podSelector, pod.labels)) return false;
  return namespaceSelector === undefined
    ? pod.namespace === namespace
    : selectsLabels(namespaceSelector, {
        [namespaceNameLabel]: pod.namespace,
        ...pod.namespaceLabels,
      });
}

function isPort(
  { protocol = 'TCP', port, endPort }: NetworkPolicyPort,
  connection: Connection,
): boolean {
  if (protocol !== connection.protocol) return false;
  if (port === undefined) return true;
  if (typeof port === 'string') return port === connection.portName;
  return port <= connection.port && connection.port <= (endPort ?? port);
}
