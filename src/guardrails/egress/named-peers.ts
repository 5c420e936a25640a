import { BlockList, isIP } from 'node:net';
import { annotation } from '../../api/names.ts';
import type {
  EndpointSlice,
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  Service,
} from '../../api/objects.ts';
import { metadataAddresses } from '../../api/workflow.ts';
import { contains } from './addresses.ts';
import {
  alreadyGranted,
  dnsRule,
  namespaceNameLabel,
  singleAddress,
  type EgressRule,
  type NamedPeers,
  type ResolvedHost,
} from './rules.ts';

/** A Service and where it leads, as far as both can be read. */
export interface LookedUp {
  service: Service | undefined;
  slices: readonly EndpointSlice[];
}

/** What named peers come to now; one that can't be told is left out. */
export function namedPeersOf({ api, dns }: { api: LookedUp; dns: LookedUp }): NamedPeers {
  const KubeAPI = kubeAPIRules(api);
  const DNS = dnsRules(dns);
  return { ...(KubeAPI !== undefined && { KubeAPI }), ...(DNS !== undefined && { DNS }) };
}

/** Whether an address is that of the API server, of the DNS, or of their Services. */
export function isOfCluster({ KubeAPI = [], DNS = [] }: NamedPeers, address: string): boolean {
  return [...KubeAPI, ...DNS].some(({ to = [] }) =>
    to.some(({ ipBlock }) => ipBlock !== undefined && contains(ipBlock.cidr, address)),
  );
}

/** More addresses than any API server or cluster DNS has; beyond, somebody else wrote them. */
const maxAddresses = 64;

/**
 * The API server: its own addresses, and that of its Service, for network plug-ins that look at a
 * connection before it is redirected, which the NetworkPolicy API leaves open.
 *
 * @returns `undefined` where no address is known: the caller keeps what it knew
 */
function kubeAPIRules({ service, slices }: LookedUp): EgressRule[] | undefined {
  const endpoints = slices.flatMap((slice) => endpointRules(slice));
  if (endpoints.length === 0) return undefined;
  const ports = (service?.spec?.ports ?? []).map(({ port }): NetworkPolicyPort => ({
    protocol: 'TCP',
    port,
  }));
  return bounded([...endpoints, ...serviceRules(service, ports)]);
}

/**
 * What the cluster's DNS has beside {@link dnsRule}: the address of its Service, which NodeLocal
 * DNSCache answers on, too; its pods, where they carry other labels or listen on other ports; the
 * addresses behind it, where it has no pods.
 *
 * @returns `undefined` where nothing is known: the caller keeps what it knew
 */
function dnsRules({ service, slices }: LookedUp): EgressRule[] | undefined {
  const { spec, metadata } = service ?? {};
  if (spec === undefined || metadata === undefined || spec.type === 'ExternalName')
    return undefined;
  const asked = (spec.ports ?? []).filter(({ port }) => port === 53);
  if (asked.length === 0) return undefined;
  const names = new Set(asked.map(({ name = '' }) => name));
  const isDNS = ({ name = '' }: { name?: string }): boolean => names.has(name);
  const own = serviceRules(service, dnsRule.ports ?? []);
  if (spec.selector === undefined || Object.keys(spec.selector).length === 0) {
    const behind = slices.flatMap((slice) => endpointRules(slice, isDNS));
    return behind.length === 0 ? undefined : bounded([...own, ...behind]);
  }
  const ports = distinctPorts(slices.flatMap((slice) => slice.ports ?? []).filter(isDNS));
  const pods: EgressRule = {
    to: [
      {
        namespaceSelector: {
          matchLabels: { [namespaceNameLabel]: metadata.namespace ?? 'kube-system' },
        },
        podSelector: { matchLabels: spec.selector },
      },
    ],
    ports: ports.length === 0 ? (dnsRule.ports ?? []) : ports,
  };
  const isCovered =
    JSON.stringify(dnsRule.to?.[0]) === JSON.stringify(pods.to?.[0]) &&
    pods.ports?.every(({ port }) => port === 53);
  return bounded(isCovered ? own : [...own, pods]);
}

/**
 * What a policy of ours says that named peers were last known to be, as far as it still stands by
 * that: whatever somebody wrote into the annotation, it grants nothing.
 */
export function lastKnown(policy: NetworkPolicy | undefined): NamedPeers {
  const text = policy?.metadata.annotations?.[annotation.namedPeers];
  if (policy === undefined || text === undefined) return {};
  const standing = policy.spec.egress ?? [];
  const from = policy.spec.ingress?.flatMap(({ from: peers = [] }) => peers) ?? [];
  const known = parsed(text);
  const rulesOf = (name: string): EgressRule[] => {
    const rules: unknown = Reflect.get(known, name);
    return Array.isArray(rules) ? rules.filter(isRule) : [];
  };
  const DNS = alreadyGranted(rulesOf('DNS'), standing, []);
  const KubeAPI = rulesOf('KubeAPI').filter(
    (rule) =>
      alreadyGranted([rule], standing, []).length > 0 ||
      (rule.to ?? []).every((peer) => from.some((one) => isSame(one, peer))),
  );
  const hosts = hostsIn(known, standing);
  return {
    ...(DNS.length > 0 && { DNS }),
    ...(KubeAPI.length > 0 && { KubeAPI }),
    ...(Object.keys(hosts).length > 0 && { hosts }),
  };
}

/** Those whose addresses, all of them and no others, are the peers of one rule. */
function hostsIn(
  known: object,
  standing: readonly EgressRule[],
): Readonly<Record<string, ResolvedHost>> {
  const hosts: unknown = Reflect.get(known, 'hosts');
  if (typeof hosts !== 'object' || hosts === null) return {};
  return Object.fromEntries(
    Object.entries(hosts).filter((entry: [string, unknown]): entry is [string, ResolvedHost] => {
      const [, host] = entry;
      if (!isResolved(host)) return false;
      const to = host.addresses.map((address) => ({ ipBlock: { cidr: singleAddress(address) } }));
      return standing.some((rule) => isSame(rule.to, to));
    }),
  );
}

function isResolved(value: unknown): value is ResolvedHost {
  if (typeof value !== 'object' || value === null) return false;
  const addresses: unknown = Reflect.get(value, 'addresses');
  return (
    typeof Reflect.get(value, 'since') === 'string' &&
    Array.isArray(addresses) &&
    addresses.length > 0 &&
    addresses.every((address) => typeof address === 'string' && isIP(address) !== 0)
  );
}

function parsed(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

function isRule(value: unknown): value is EgressRule {
  if (typeof value !== 'object' || value === null) return false;
  const { to, ports } = value as { to?: unknown; ports?: unknown };
  return Array.isArray(to) && to.length > 0 && Array.isArray(ports) && ports.length > 0;
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/** A rule for the addresses of a slice, on the ports that it has. */
function endpointRules(
  { endpoints = [], ports: all = [] }: EndpointSlice,
  isMeant: (port: { name?: string }) => boolean = () => true,
): EgressRule[] {
  const ports = distinctPorts(all.filter(isMeant));
  const addresses = endpoints
    .filter(({ conditions }) => conditions?.ready !== false)
    .flatMap((endpoint) => endpoint.addresses ?? []);
  const to = peersOf(addresses);
  return to.length === 0 || ports.length === 0 ? [] : [{ to, ports }];
}

function serviceRules(service: Service | undefined, ports: NetworkPolicyPort[]): EgressRule[] {
  const to = peersOf(service?.spec?.clusterIPs ?? []);
  return to.length === 0 || ports.length === 0 ? [] : [{ to, ports }];
}

/** Single addresses, in one order. Nobody's metadata service is let in by an EndpointSlice. */
function peersOf(addresses: readonly string[]): NetworkPolicyPeer[] {
  return [...new Set(addresses)]
    .filter((address) => isIP(address) !== 0 && !refused.check(address, familyOf(address)))
    .toSorted()
    .map((address) => ({ ipBlock: { cidr: singleAddress(address) } }));
}

const familyOf = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 4 ? 'ipv4' : 'ipv6');

const refused = new BlockList();
for (const address of metadataAddresses) refused.addAddress(address, familyOf(address));

function distinctPorts(
  ports: readonly { protocol?: string; port?: number }[],
): NetworkPolicyPort[] {
  const found = new Map<string, NetworkPolicyPort>();
  for (const { protocol = 'TCP', port } of ports) {
    if (port === undefined || (protocol !== 'TCP' && protocol !== 'UDP')) continue;
    found.set(`${protocol} ${String(port).padStart(5, '0')}`, { protocol, port });
  }
  return [...found].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, port]) => port);
}

function bounded(rules: EgressRule[]): EgressRule[] | undefined {
  const count = rules.reduce((sum, { to = [] }) => sum + to.length, 0);
  return count > maxAddresses ? undefined : rules;
}
