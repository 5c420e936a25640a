import type { EgressEntry, WorkflowStatus } from '../api/workflow.ts';
import type { HostResolver } from '../guardrails/egress/host-resolver.ts';
import type { PlugInKind } from '../guardrails/egress/plug-in.ts';
import type { NamedPeers, ResolvedHost } from '../guardrails/egress/rules.ts';
import type { Problem } from '../guardrails/requirements.ts';
import { some } from '../guardrails/wording.ts';

/** How the hosts of an allowlist are allowed in this cluster. */
export interface HostsView {
  /** Entries that NetworkPolicies say. */
  others: readonly EgressEntry[];
  /** Entries that a policy of the network plug-in's own kind says. */
  byPlugIn: readonly EgressEntry[];
  /** Addresses of hosts that are looked up. */
  resolved: NonNullable<NamedPeers['hosts']>;
  status: NonNullable<WorkflowStatus['resolvedHosts']>;
  /** Hosts that can't be looked up, and why. */
  unresolved: readonly string[];
  /** Hosts that are looked up for the first time. */
  pending: readonly string[];
  /** What keeps hosts from being allowed at all. */
  problems: readonly Problem[];
  /** Milliseconds until the next of them is to be looked up. */
  dueMs: number | undefined;
}

/**
 * @param before what policies say that hosts were last known to be
 * @param kind of policies that know names; `undefined` where that isn't known (yet)
 */
export function hostsView(
  egress: readonly EgressEntry[],
  kind: PlugInKind | 'None' | undefined,
  before: Readonly<Record<string, ResolvedHost>>,
  resolver: Pick<HostResolver, 'look'>,
): HostsView {
  const named = egress.filter(({ host }) => host !== undefined);
  const isByPlugIn = kind !== undefined && kind !== 'None';
  const looked = isByPlugIn ? [] : named.filter(({ resolve }) => resolve === true);
  const hosts = [...new Set(looked.flatMap(({ host }) => host ?? []))];
  const views = hosts.map((host) => ({ host, view: resolver.look(host, before[host]) }));
  return {
    others: isByPlugIn ? egress.filter(({ host }) => host === undefined) : egress,
    byPlugIn: isByPlugIn ? named : [],
    resolved: Object.fromEntries(
      views.flatMap(({ host, view: { resolved } }) =>
        resolved === undefined ? [] : [[host, resolved]],
      ),
    ),
    status: views.map(({ host, view: { resolved } }) => ({
      host,
      addresses: resolved?.addresses.length ?? 0,
      ...(resolved !== undefined && { lastChanged: resolved.since }),
    })),
    unresolved: views.flatMap(({ host, view: { problem } }) =>
      problem === undefined ? [] : [`${host} ${problem}`],
    ),
    pending: views.flatMap(({ host, view: { isPending } }) => (isPending ? [host] : [])),
    problems: problemsOf(named, kind),
    dueMs: views.length === 0 ? undefined : Math.min(...views.map(({ view }) => view.dueMs)),
  };
}

function problemsOf(
  named: readonly EgressEntry[],
  kind: PlugInKind | 'None' | undefined,
): Problem[] {
  if (kind !== undefined && kind !== 'None') {
    const tooMany = kind.tooMany(named);
    if (tooMany === undefined) return [];
    const message = `Too many hosts: ${tooMany}. Give entries the same ports, or split the Workflow.`;
    return [{ reason: 'TooManyHosts', message }];
  }
  const without = named.flatMap(({ host, resolve }) =>
    host === undefined || resolve === true ? [] : [host],
  );
  if (without.length === 0) return [];
  const list = some([...new Set(without)]);
  const message =
    kind === undefined
      ? `It isn't known whether the network plug-in knows names, so hosts aren't allowed yet: ${list}. If this stays, see that the operator may list ciliumnetworkpolicies.cilium.io and clusternetworkpolicies.policy.networking.k8s.io.`
      : `The network plug-in knows no names (neither CiliumNetworkPolicy nor ClusterNetworkPolicy is served), so hosts can't be allowed: ${list}. List their networks as cidr, or add resolve: true to have the operator look their addresses up.`;
  return [{ reason: 'HostsNotSupported', message }];
}
