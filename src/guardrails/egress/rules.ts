import { isDeepStrictEqual } from 'node:util';
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../../api/objects.ts';
import type { EgressEntry } from '../../api/workflow.ts';

export type EgressRule = NonNullable<NetworkPolicy['spec']['egress']>[number];

/** On every Namespace, with its name; nobody can change it. */
const namespaceNameLabel = 'kubernetes.io/metadata.name';

/**
 * What every automation may reach: the cluster's DNS, by UDP and, for answers that don't fit into
 * a datagram, TCP. NodeLocal DNSCache answers on the node's own link-local address, which no pod
 * selector matches (kubernetes/kubernetes#70555).
 */
export const dnsRule: EgressRule = {
  to: [
    {
      namespaceSelector: { matchLabels: { [namespaceNameLabel]: 'kube-system' } },
      podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
    },
    { ipBlock: { cidr: '169.254.20.10/32' } },
  ],
  ports: [
    { protocol: 'UDP', port: 53 },
    { protocol: 'TCP', port: 53 },
  ],
};

/** DNS, then a rule for each entry of the allowlist, each once. */
export function rulesOf(entries: readonly EgressEntry[]): EgressRule[] {
  const rules = new Map([dnsRule, ...entries.flatMap(ruleOf)].map((rule) => [key(rule), rule]));
  return [...rules.values()];
}

/** One rule, or none: without a peer it would allow every destination. */
function ruleOf(entry: EgressEntry): EgressRule[] {
  const peer = peerOf(entry);
  if (peer === undefined) return [];
  const ports = entry.ports?.map(({ protocol, port, endPort }): NetworkPolicyPort => ({
    protocol,
    port,
    ...(endPort !== undefined && { endPort }),
  }));
  return [{ to: [peer], ...(ports !== undefined && ports.length > 0 && { ports }) }];
}

/** The one peer of an entry; `undefined` where it names none, or more than one. */
export function peerOf({
  cidr,
  except,
  namespace,
  podSelector,
}: EgressEntry): NetworkPolicyPeer | undefined {
  const labels = podSelector?.matchLabels;
  if (labels !== undefined && Object.keys(labels).length === 0) return undefined;
  const pods = labels === undefined ? {} : { podSelector: { matchLabels: labels } };
  if (cidr === undefined) {
    if (except !== undefined) return undefined;
    if (namespace === undefined) return labels === undefined ? undefined : pods;
    return { namespaceSelector: { matchLabels: { [namespaceNameLabel]: namespace } }, ...pods };
  }
  if (namespace !== undefined || labels !== undefined) return undefined;
  return {
    ipBlock: {
      cidr,
      ...(except !== undefined && except.length > 0 && { except: except.toSorted() }),
    },
  };
}

/**
 * Those of the wanted rules that a policy grants already, and DNS. A rule counts as granted where
 * the policy allows its peer on all of its ports, by one rule or by several.
 */
export function alreadyGranted(
  wanted: readonly EgressRule[],
  standing: readonly EgressRule[],
): EgressRule[] {
  return wanted.filter((rule) => rule === dnsRule || isGranted(rule, standing));
}

function isGranted(wanted: EgressRule, standing: readonly EgressRule[]): boolean {
  const ofPeer = standing.filter(({ to }) => isDeepStrictEqual(to, wanted.to));
  if (ofPeer.some(({ ports = [] }) => ports.length === 0)) return true;
  const granted = ofPeer.flatMap(({ ports = [] }) => ports);
  return (
    wanted.ports !== undefined &&
    wanted.ports.every((port) => granted.some((range) => covers(range, port)))
  );
}

function covers(range: NetworkPolicyPort, wanted: NetworkPolicyPort): boolean {
  if (range.protocol !== wanted.protocol) return false;
  if (range.port === undefined) return true;
  if (wanted.port === undefined) return false;
  const first = wanted.port;
  const last = wanted.endPort ?? first;
  return range.port <= first && last <= (range.endPort ?? range.port);
}

function key(rule: EgressRule): string {
  return JSON.stringify(rule);
}
