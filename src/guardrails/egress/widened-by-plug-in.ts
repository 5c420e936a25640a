import { isDeepStrictEqual } from 'node:util';
import type { KubeObject, NetworkPolicy, NetworkPolicyPort } from '../../api/objects.ts';
import type { EgressEntry } from '../../api/workflow.ts';
import { isolating, type Labels } from './evaluate.ts';
import {
  ciliumPartsOf,
  clusterPartOf,
  type ForeignRule,
  type Subject,
  type TierRule,
} from './foreign-rules.ts';
import { boxesOfPolicies, boxesOfRule, subtract, type Box } from './region.ts';
import { wordsOf, type PlugInWidening } from './widened.ts';

export interface PlugInWideningRequest {
  /** Of the Workflow: the name of its ServiceAccount, too. */
  name: string;
  namespace: string;
  namespaceLabels: Labels;
  /** Labels of the pods of one automation, each set once. */
  pods: readonly Labels[];
  /** The automation's own NetworkPolicies. */
  own: readonly NetworkPolicy[];
  /** Hosts of its allowlist that a policy of the plug-in allows. */
  hosts: readonly EgressEntry[];
  /** Cilium's policies of others, of the namespace and of the cluster. */
  cilium: readonly KubeObject[];
  /** ClusterNetworkPolicies of others. */
  cluster: readonly KubeObject[];
}

/** What anybody may write must not keep the operator from its other work. */
const limits = { policies: 500, pods: 1_000, steps: 500_000 } as const;

const stepsOfPart = 20;

/**
 * Which policies of network plug-ins let pods of an automation reach more than its own do: exactly,
 * for networks, ports and selectors; what these policies can say beyond NetworkPolicies counts as
 * more, and so does what wasn't compared within the limits. What denies is looked at only where
 * it comes first for certain: in ClusterNetworkPolicies.
 */
export function widenedByPlugIn(request: PlugInWideningRequest): PlugInWidening[] {
  const cilium = request.cilium.flatMap((policy) =>
    ciliumPartsOf(policy).map((part) => ({ ...part, name: nameOfCilium(policy) })),
  );
  const cluster = request.cluster.flatMap((policy) => {
    const part = clusterPartOf(policy);
    return part === undefined
      ? []
      : [{ ...part, name: `ClusterNetworkPolicy ${policy.metadata.name}` }];
  });
  if (cilium.length + cluster.length === 0) return [];
  const found = new Map<string, Set<string>>();
  const add = (name: string, words: readonly string[]): void => {
    if (words.length === 0) return;
    found.set(name, (found.get(name) ?? new Set<string>()).union(new Set(words)));
  };
  const budget = { steps: limits.steps };
  for (const { members, allowed } of groupsOf(request)) {
    for (const { name, selects, rules } of cilium.slice(0, limits.policies)) {
      if (!members.some(selects)) continue;
      add(
        name,
        rules.flatMap((rule) => moreThan(rule, allowed, request, budget)),
      );
    }
    for (const part of cluster.slice(0, limits.policies)) {
      const touched = members.filter(part.selects);
      if (touched.length === 0) continue;
      const earlier = cluster.slice(0, limits.policies).filter((one) => touched.every(one.selects));
      part.rules.forEach((rule, index) => {
        if (rule.action === 'Deny' || rule.action === 'Pass') return;
        const before = [
          ...earlier.flatMap((one) => one.rules.filter(({ priority }) => priority < rule.priority)),
          ...part.rules.slice(0, index),
        ];
        const decided = [...taken(before, request.namespace), ...allowed];
        add(part.name, moreThan(rule, decided, request, budget));
      });
    }
  }
  const isCut = request.pods.length > limits.pods;
  for (const all of [cilium, cluster]) {
    for (const { name } of all.slice(isCut ? 0 : limits.policies)) {
      if (!found.has(name)) add(name, ['not compared']);
    }
  }
  return [...found].map(([policy, words]) => ({ policy, words: [...words] }));
}

interface Group {
  members: readonly Subject[];
  /** What the own policies allow to all of them. */
  allowed: readonly Box[];
}

/** Pods for which the same of the own policies hold. */
function groupsOf({ name, namespace, namespaceLabels, pods, own }: PlugInWideningRequest): Group[] {
  const subjects = pods
    .slice(0, limits.pods)
    .map((podLabels) => ({ namespace, namespaceLabels, serviceAccountName: name, podLabels }));
  const ownOf = ({ podLabels: labels }: Subject): NetworkPolicy[] =>
    isolating(own, { namespace, labels }, 'Egress');
  const groups = Map.groupBy(subjects, (subject) =>
    ownOf(subject)
      .map(({ metadata }) => metadata.name)
      .join(),
  );
  return [...groups.values()].map((members) => {
    const [first] = members;
    return { members, allowed: boxesOfPolicies(first === undefined ? [] : ownOf(first)) };
  });
}

/** What an earlier rule denies, or leaves to NetworkPolicies, for certain. */
function taken(rules: readonly TierRule[], namespace: string): Box[] {
  return rules
    .filter(({ action, isExact }) => isExact && (action === 'Deny' || action === 'Pass'))
    .flatMap((rule) => rule.rules.flatMap((one) => boxesOfRule(one, namespace)));
}

function moreThan(
  { rules, beyond, hosts }: ForeignRule,
  allowed: readonly Box[],
  { namespace, hosts: listed }: PlugInWideningRequest,
  budget: { steps: number },
): string[] {
  const wider = rules.filter((rule) => {
    const { to = [], ports = [] } = rule;
    budget.steps -= stepsOfPart * (to.length + 1) * (ports.length + 1);
    if (budget.steps <= 0) return true;
    return subtract(boxesOfRule(rule, namespace), allowed, budget).length > 0;
  });
  const unlisted = hosts.filter(({ name, ports }) => !isListed(name, ports, listed));
  return [...wider.map(wordsOf), ...unlisted.map(({ name }) => name), ...beyond];
}

/** By exactly that name, on all of these ports. */
function isListed(
  name: string,
  ports: readonly NetworkPolicyPort[],
  listed: readonly EgressEntry[],
): boolean {
  const same = listed.filter(({ host }) => host === name);
  if (same.some(({ ports: all = [] }) => all.length === 0)) return true;
  const allowed = same.flatMap(({ ports: some = [] }) => some);
  return (
    ports.length > 0 &&
    ports.every(({ protocol = 'TCP', port, endPort }) =>
      allowed.some((one) =>
        isDeepStrictEqual(
          [one.protocol, one.port, one.endPort ?? one.port],
          [protocol, port, endPort ?? port],
        ),
      ),
    )
  );
}

function nameOfCilium({ metadata: { name, namespace } }: KubeObject): string {
  const kind = namespace === undefined ? 'CiliumClusterwideNetworkPolicy' : 'CiliumNetworkPolicy';
  return `${kind} ${name}`;
}
