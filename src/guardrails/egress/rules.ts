import { isIP } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../../api/objects.ts';
import type { EgressEntry, IngressEntry } from '../../api/workflow.ts';

export type EgressRule = NonNullable<NetworkPolicy['spec']['egress']>[number];
export type IngressRule = NonNullable<NetworkPolicy['spec']['ingress']>[number];

/** An entry of the allowlist, of either direction. */
export type Entry = EgressEntry | IngressEntry;

/** What named peers come to in this cluster; one that isn't there could not be looked up. */
export type NamedPeers = Readonly<Partial<Record<'KubeAPI' | 'DNS', readonly EgressRule[]>>> & {
  /** Addresses of hosts that the operator looks up. */
  readonly hosts?: Readonly<Record<string, ResolvedHost>>;
};

/** What a host was resolved to. */
export interface ResolvedHost {
  /** In one order, each once; never empty. */
  readonly addresses: readonly string[];
  /** When they last changed; RFC 3339. */
  readonly since: string;
}

/** On every Namespace, with its name; nobody can change it. */
export const namespaceNameLabel = 'kubernetes.io/metadata.name';

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

/** DNS, then the rules of each entry of the allowlist, each once. */
export function rulesOf(entries: readonly EgressEntry[], named: NamedPeers = {}): EgressRule[] {
  return distinct([
    dnsRule,
    ...(named.DNS ?? []),
    ...entries.flatMap((entry) => egressRulesOf(entry, named)),
  ]);
}

/** The rules of each entry of the allowlist for connections to the pods, each once. */
export function ingressRulesOf(
  entries: readonly IngressEntry[],
  named: NamedPeers = {},
): EgressRule[] {
  return distinct(
    entries.flatMap((entry) => {
      if (entry.peer !== 'KubeAPI') return ruleOf(entry);
      const from = distinct((named.KubeAPI ?? []).flatMap(({ to = [] }) => to));
      return from.length === 0 ? [] : [{ to: from, ...portsOf(entry) }];
    }),
  );
}

/** The rules of one entry; none where its peer is one that could not be looked up. */
export function egressRulesOf(entry: EgressEntry, named: NamedPeers): readonly EgressRule[] {
  if (entry.host !== undefined) return hostRules(entry, named.hosts?.[entry.host]);
  switch (entry.peer) {
    case 'KubeAPI':
      return named.KubeAPI ?? [];
    case 'DNS':
      return [dnsRule, ...(named.DNS ?? [])];
    case 'SameNamespace':
    case undefined:
      return ruleOf(entry);
  }
}

/** Its addresses, for an entry that has the operator look them up; a policy knows no names. */
function hostRules(entry: EgressEntry, resolved: ResolvedHost | undefined): EgressRule[] {
  if (entry.resolve !== true || resolved === undefined) return [];
  const to = resolved.addresses.map((address) => ({ ipBlock: { cidr: singleAddress(address) } }));
  return to.length === 0 ? [] : [{ to, ...portsOf(entry) }];
}

/** An address as the network that has it alone. */
export function singleAddress(address: string): string {
  return `${address}/${isIP(address) === 4 ? 32 : 128}`;
}

/** Both directions are planned alike; only their names in a policy differ. */
export function asIngress(rules: readonly EgressRule[]): IngressRule[] {
  return rules.map(({ to, ...rest }) => ({ ...(to !== undefined && { from: to }), ...rest }));
}

/** The other way round. */
export function asEgress(rules: readonly IngressRule[]): EgressRule[] {
  return rules.map(({ from, ...rest }) => ({ ...(from !== undefined && { to: from }), ...rest }));
}

/** One rule, or none: without a peer it would allow every destination. */
function ruleOf(entry: Entry): EgressRule[] {
  const peer = peerOf(entry);
  return peer === undefined ? [] : [{ to: [peer], ...portsOf(entry) }];
}

function portsOf({ ports = [] }: Entry): { ports?: NetworkPolicyPort[] } {
  if (ports.length === 0) return {};
  return {
    ports: ports.map(({ protocol, port, endPort }) => ({
      protocol,
      port,
      ...(endPort !== undefined && { endPort }),
    })),
  };
}

/** Whether an entry names exactly one peer; another one could come to mean everything. */
export function namesOnePeer(entry: Entry): boolean {
  const { peer, cidr, except, namespace, podSelector, expires } = entry;
  if (expires !== undefined && Number.isNaN(Date.parse(expires))) return false;
  const host = 'host' in entry ? entry.host : undefined;
  if (peer === undefined && host === undefined) return peerOf(entry) !== undefined;
  return (
    (peer === undefined || host === undefined) &&
    [cidr, except, namespace, podSelector].every((field) => field === undefined)
  );
}

/** The one peer of an entry; `undefined` where it names none, more than one, or one by name. */
function peerOf({
  peer,
  cidr,
  except,
  namespace,
  podSelector,
}: Entry): NetworkPolicyPeer | undefined {
  if (peer !== undefined) return peer === 'SameNamespace' ? { podSelector: {} } : undefined;
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
 * Those of the wanted rules that a policy grants already, and those that are always granted. A rule
 * counts as granted where the policy allows its peers on all of its ports, by one rule or by several.
 *
 * @param always by reference, of the wanted ones
 */
export function alreadyGranted(
  wanted: readonly EgressRule[],
  standing: readonly EgressRule[],
  always: readonly EgressRule[] = [dnsRule],
): EgressRule[] {
  return wanted.filter((rule) => always.includes(rule) || isGranted(rule, standing));
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
  if ((range.protocol ?? 'TCP') !== (wanted.protocol ?? 'TCP')) return false;
  if (range.port === undefined) return true;
  if (typeof range.port === 'string' || typeof wanted.port === 'string') {
    return range.port === wanted.port;
  }
  if (wanted.port === undefined) return false;
  const first = wanted.port;
  const last = wanted.endPort ?? first;
  return range.port <= first && last <= (range.endPort ?? range.port);
}

function distinct<T>(items: readonly T[]): T[] {
  return [...new Map(items.map((item) => [JSON.stringify(item), item])).values()];
}
