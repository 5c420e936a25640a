import { createHash } from 'node:crypto';
import { annotation, label, MANAGED_BY } from '../../api/names.ts';
import type { LabelSelector, NetworkPolicy } from '../../api/objects.ts';
import type { EgressEntry, IngressEntry, Workflow } from '../../api/workflow.ts';
import { isMadeForExactly } from '../../runtime/applier.ts';
import type { Problem } from '../requirements.ts';
import { some } from '../wording.ts';
import type { Workload } from '../../api/workload.ts';
import { expiriesOf, type Expiries } from './expiries.ts';
import { lastKnown } from './named-peers.ts';
import { identitySelector, namesPods, normalSelector, podSelectorOf } from './pod-selector.ts';
import {
  alreadyGranted,
  asEgress,
  asIngress,
  dnsRule,
  egressRulesOf,
  ingressRulesOf,
  rulesOf,
  type EgressRule,
  type NamedPeers,
} from './rules.ts';

export interface EgressRequest {
  workflow: Workflow;
  /** The allowlist. */
  entries: readonly EgressEntry[];
  /** Who may connect to the pods. */
  ingress?: readonly IngressEntry[];
  /** What could be looked up of named peers. */
  named?: NamedPeers;
  /**
   * Whose pods are found by labels of their own, beside those that carry the label of the identity:
   * where that label isn't certain to be there.
   */
  workloads: readonly Workload[];
  /** The Workflow's policies, as far as they are ours; also what one of its name left behind. */
  live: readonly NetworkPolicy[];
  /** Nothing is granted that isn't there yet. */
  isWithheld: boolean;
  /** Its kill switch is engaged: nothing is allowed, not even DNS, and no policy goes. */
  isClosed?: boolean;
  /** The namespace is guarded; in another one, nothing is created. */
  isGuarded: boolean;
}

export interface PlannedPolicy {
  desired: NetworkPolicy;
  /** What stands under that name. */
  live: NetworkPolicy | undefined;
}

export interface EgressPlan {
  /** Those that don't stand yet come first: a pod that changes over is never without one. */
  policies: readonly PlannedPolicy[];
  /**
   * Ours, for pods that aren't the targets' any more. They go when the others stand and no such
   * pod runs; until then they are as `desired` says.
   */
  obsolete: readonly PlannedPolicy[];
}

/** More distinct selectors than a Workflow can have targets. */
const maxPolicies = 256;

/**
 * One policy for the pods that carry the label of the identity, and one for each distinct selector
 * of the workloads. Each is the default deny of both directions, DNS and the whole allowlist in one
 * object, which the API server replaces at once: no moment has one part without the others.
 *
 * While withheld, a policy allows of the allowlist what it allows already, a new one DNS alone, and
 * none is removed (within bounds): without its policy a pod may reach everything. What a Workflow of
 * the same name was granted before it isn't granted to this one.
 */
export function planEgress(request: EgressRequest): EgressPlan {
  const { workflow, workloads, live, isWithheld, isClosed = false, isGuarded } = request;
  const standing = new Map(live.map((policy) => [policy.metadata.name, policy]));

  const policies: PlannedPolicy[] = [];
  for (const [name, selector] of namedSelectors(workflow.metadata.name, workloads)) {
    const before = standing.get(name);
    standing.delete(name);
    if (before === undefined && !isGuarded) continue;
    const rules = allowedBy(request, before, isWithheld);
    policies.push({ desired: policyOf(workflow, name, selector, rules, before), live: before });
  }

  const obsolete = [...standing.values()].map((policy): PlannedPolicy => {
    const rules = allowedBy(request, policy, true);
    const selector = normalSelector(policy.spec.podSelector);
    const desired = policyOf(workflow, policy.metadata.name, selector, rules, policy);
    return { desired, live: policy };
  });
  const kept =
    isWithheld || isClosed
      ? // Somebody emptied a selector of ours: now it is for pods that were never meant.
        obsolete.filter(({ desired }) => namesPods(desired.spec.podSelector)).slice(0, maxPolicies)
      : [];
  return {
    policies: [
      ...policies.filter((policy) => policy.live === undefined),
      ...policies.filter((policy) => policy.live !== undefined),
      ...kept,
    ],
    obsolete: obsolete.filter((policy) => !kept.includes(policy)),
  };
}

/** What a policy allows, in both directions, and the named peers that it is made of. */
interface Allowed {
  egress: EgressRule[];
  ingress: EgressRule[];
  named: NamedPeers;
  /** Of both, what ends. */
  expiries: Expiries;
}

const nothing: Allowed = { egress: [], ingress: [], named: {}, expiries: {} };

function allowedBy(
  { workflow, entries, ingress = [], named: found = {}, isClosed = false }: EgressRequest,
  standingPolicy: NetworkPolicy | undefined,
  isWithheld: boolean,
): Allowed {
  if (isClosed) return nothing;
  const isOwn = standingPolicy !== undefined && isMadeForExactly(standingPolicy, workflow);
  const live = isOwn ? standingPolicy : undefined;
  const before = lastKnown(live);
  const usesAPI = [...entries, ...ingress].some(({ peer }) => peer === 'KubeAPI');
  const { DNS, KubeAPI } = { ...before, ...found };
  const hosts = hostsOf(entries, { ...before.hosts, ...found.hosts });
  const named: NamedPeers = {
    ...(DNS !== undefined && DNS.length > 0 && { DNS }),
    ...(usesAPI && KubeAPI !== undefined && { KubeAPI }),
    ...(Object.keys(hosts).length > 0 && { hosts }),
  };
  const wantedIngress = ingressRulesOf(ingress, named);
  const expiries = expiriesOf(
    [
      ...entries.map((entry) => ({
        entry,
        direction: 'egress' as const,
        rules: egressRulesOf(entry, named),
      })),
      ...ingress.map((entry) => ({
        entry,
        direction: 'ingress' as const,
        rules: ingressRulesOf([entry], named),
      })),
    ],
    [dnsRule, ...(named.DNS ?? [])],
  );
  if (!isWithheld) {
    return { egress: rulesOf(entries, named), ingress: wantedIngress, named, expiries };
  }
  const standing = live?.spec.egress ?? [];
  // A peer that was granted moves with its addresses, also while nothing new is granted.
  const followed = entries.filter(
    (entry) =>
      entry.host !== undefined &&
      alreadyGranted(egressRulesOf(entry, before), standing, []).length > 0,
  );
  const kept: NamedPeers = {
    ...(named.DNS !== undefined && { DNS: named.DNS }),
    ...(before.KubeAPI !== undefined && named.KubeAPI !== undefined && { KubeAPI: named.KubeAPI }),
    ...(followed.length > 0 && { hosts: hostsOf(followed, hosts) }),
  };
  const wanted = rulesOf(
    entries.filter((entry) => entry.host === undefined || followed.includes(entry)),
    { ...named, ...kept },
  );
  const moved = new Set(
    followed.flatMap((entry) => egressRulesOf(entry, kept)).map((rule) => JSON.stringify(rule)),
  );
  const always = [
    dnsRule,
    ...(kept.DNS ?? []),
    ...(kept.KubeAPI ?? []),
    ...wanted.filter((rule) => moved.has(JSON.stringify(rule))),
  ];
  return {
    egress: alreadyGranted(wanted, standing, always),
    ingress: keptIngress(wantedIngress, live),
    named: kept,
    expiries,
  };
}

/** Of the addresses that are known, those of hosts that the entries have looked up. */
function hostsOf(
  entries: readonly EgressEntry[],
  known: NonNullable<NamedPeers['hosts']>,
): NonNullable<NamedPeers['hosts']> {
  return Object.fromEntries(
    entries.flatMap(({ host, resolve }) => {
      const resolved = host === undefined || resolve !== true ? undefined : known[host];
      return host === undefined || resolved === undefined ? [] : [[host, resolved]];
    }),
  );
}

/** A policy that says nothing of a direction allows all of it. */
function keptIngress(wanted: EgressRule[], live: NetworkPolicy | undefined): EgressRule[] {
  if (live === undefined) return [];
  if (!live.spec.policyTypes.includes('Ingress')) return wanted;
  return alreadyGranted(wanted, asEgress(live.spec.ingress ?? []), []);
}

/** The same policies, for the same pods, that allow nothing. */
export function closedPolicies(
  workflow: Pick<Workflow, 'metadata'>,
  live: readonly NetworkPolicy[],
): PlannedPolicy[] {
  return live.map((policy) => ({
    desired: policyOf(
      workflow,
      policy.metadata.name,
      normalSelector(policy.spec.podSelector),
      nothing,
      policy,
    ),
    live: policy,
  }));
}

/** What has to be put right before the targets' pods can be given their egress. */
export function whatEgressMisses(workloads: readonly Workload[]): Problem[] {
  return [podsNotSelectable(workloads), tooManyPodSelectors(workloads)].flatMap(
    (problem) => problem ?? [],
  );
}

function podsNotSelectable(workloads: readonly Workload[]): Problem | undefined {
  const nameless = workloads.filter((workload) => podSelectorOf(workload) === undefined);
  if (nameless.length === 0) return undefined;
  const names = nameless.map(({ kind, metadata }) => `${kind} ${metadata.name}`);
  return {
    reason: 'PodsNotSelectable',
    message: `No policy can select the pods of ${some(names)} without selecting others: give the pod template a label that only its pods have, and whatever has a selector matchLabels in it.`,
  };
}

function tooManyPodSelectors(workloads: readonly Workload[]): Problem | undefined {
  const { size } = distinctSelectors(workloads);
  if (size <= maxPolicies) return undefined;
  return {
    reason: 'TooManyPodSelectors',
    message: `The targets' pods have ${size} different sets of labels, and at most ${maxPolicies} are possible: give the pods of all targets a label in common, or split the Workflow.`,
  };
}

/** By canonical text, in its order. */
function distinctSelectors(workloads: readonly Workload[]): Map<string, LabelSelector> {
  const selectors = new Map<string, LabelSelector>();
  for (const workload of workloads) {
    const selector = podSelectorOf(workload);
    if (selector !== undefined) selectors.set(JSON.stringify(selector), selector);
  }
  return new Map([...selectors].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * Name of the policy for each selector: a function of both, so that every replica, at any time,
 * comes to the same. Whoever writes labels whose digests begin alike gets longer ones.
 */
function namedSelectors(
  workflowName: string,
  workloads: readonly Workload[],
): Map<string, LabelSelector> {
  const named = new Map<string, LabelSelector>();
  const identity = identitySelector(workflowName);
  const selectors = distinctSelectors(workloads);
  selectors.delete(JSON.stringify(identity));
  for (const [text, selector] of [
    [JSON.stringify(identity), identity] as const,
    ...[...selectors].slice(0, maxPolicies),
  ]) {
    const digest = createHash('sha256').update(text).digest('hex');
    let length = 8;
    while (named.has(`${workflowName}-egress-${digest.slice(0, length)}`)) length += 8;
    named.set(`${workflowName}-egress-${digest.slice(0, length)}`, selector);
  }
  return named;
}

function policyOf(
  { metadata }: Pick<Workflow, 'metadata'>,
  name: string,
  podSelector: LabelSelector,
  { egress, ingress, named, expiries }: Allowed,
  live: NetworkPolicy | undefined,
): NetworkPolicy {
  // An apply leaves an annotation that it doesn't mention.
  const hasExpiries =
    Object.keys(expiries).length > 0 ||
    live?.metadata.annotations?.[annotation.egressExpiries] !== undefined;

  return {
    metadata: {
      name,
      ...(metadata.namespace !== undefined && { namespace: metadata.namespace }),
      labels: { [label.managedBy]: MANAGED_BY, [label.workflow]: metadata.name },
      // No reference: the garbage collector would take it before the pods that it holds back.
      annotations: {
        [annotation.ownerUid]: metadata.uid ?? '',
        ...(Object.keys(named).length > 0 && { [annotation.namedPeers]: JSON.stringify(named) }),
        ...(hasExpiries && { [annotation.egressExpiries]: JSON.stringify(expiries) }),
      },
    },
    spec: {
      podSelector,
      policyTypes: ['Egress', 'Ingress'],
      egress,
      ingress: asIngress(ingress),
    },
  };
}
