import type { Finding } from '../api/conditions.ts';
import type { NetworkPolicy, Pod } from '../api/objects.ts';
import type { EgressProbe, WorkflowSpec } from '../api/workflow.ts';
import { declaredFinding } from '../guardrails/egress/findings.ts';
import { lastKnown } from '../guardrails/egress/named-peers.ts';
import { planEgress, type EgressPlan } from '../guardrails/egress/plan.ts';
import { hasOwnPodLabels } from '../guardrails/egress/pod-selector.ts';
import {
  planPlugIn,
  type PlugInKind,
  type PlugInPlan,
  type PlugInPolicy,
} from '../guardrails/egress/plug-in.ts';
import { enforcedFinding } from '../guardrails/egress/probe.ts';
import type { NamedPeers } from '../guardrails/egress/rules.ts';
import { unusualFinding } from '../guardrails/egress/refused.ts';
import {
  podLabelsOf,
  type PlugInWidening,
  widenedBy,
  widenedFinding,
  type Widening,
} from '../guardrails/egress/widened.ts';
import { widenedByPlugIn } from '../guardrails/egress/widened-by-plug-in.ts';
import type { PlugInPolicies } from '../guardrails/egress/plug-in-policies.ts';
import type { Labels } from '../guardrails/egress/evaluate.ts';
import { isGuarded, type Problem } from '../guardrails/requirements.ts';
import { isMadeFor } from '../runtime/applier.ts';
import { isEgressClosed, isWithheld, type WorkflowView } from './workflow-findings.ts';
import type { ApprovalState } from './workflow-approval.ts';
import { hasEnded, usesKubeAPI } from './workflow-indexes.ts';

/** What is known of a Workflow and of its egress. */
export interface Observation extends WorkflowView {
  /** `undefined` where it can't be read: then nothing is changed. */
  spec: WorkflowSpec | undefined;
  /** Its own; also what one of its name left behind. */
  policies: readonly NetworkPolicy[];
  /** Policies of its namespace that may select its pods; some of its own may be among them. */
  others: readonly NetworkPolicy[];
  /** Pods that run as the identity. */
  pods: readonly Pod[];
  /** Every such pod carries the label of the identity, and every new one will. */
  isCertain: boolean;
  /** What could be looked up of named peers. */
  named: NamedPeers;
  /** Its own policies of the network plug-in's kind. */
  plugIn: readonly PlugInPolicy[];
  /** The kind that these are written in; `undefined` where it isn't known (yet). */
  plugInKind: PlugInKind | 'None' | undefined;
  /** Policies of others of these kinds that may select its pods. */
  plugInOfOthers: ReturnType<PlugInPolicies['others']>;
  /** Packets that policies refused of late; `undefined` where nobody counts. */
  refused: number | undefined;
  /** The last result of a pod that tried whether policies are enforced. */
  probe: EgressProbe | undefined;
  approval: ApprovalState;
}

/** @returns `undefined` where the spec can't be read: then nothing is changed */
export function planOf(view: Observation, missing: readonly Problem[]): EgressPlan | undefined {
  const { workflow, spec, targets, namespace, policies, allowlist, hosts } = view;
  if (spec === undefined) return undefined;
  return planEgress({
    workflow,
    entries: hosts.others,
    ingress: allowlist.ingress,
    named: { ...view.named, hosts: hosts.resolved },
    workloads: [
      ...view.foundByOwnLabels,
      ...(view.isCertain ? [] : targets.runs.filter(hasOwnPodLabels)),
    ],
    live: policies,
    isWithheld: isWithheld(view, missing),
    isClosed: isEgressClosed(view),
    isGuarded: isGuarded(namespace),
  });
}

/** @returns `undefined` where the spec, or the kind, isn't known: then nothing is changed */
export function planOfPlugIn(
  view: Observation,
  missing: readonly Problem[],
): PlugInPlan | undefined {
  const { workflow, spec, namespace, hosts, named, plugIn, plugInKind } = view;
  if (spec === undefined || plugInKind === undefined || plugInKind === 'None') return undefined;
  return planPlugIn({
    kind: plugInKind,
    workflow,
    entries: hosts.byPlugIn,
    dns: named.DNS ?? [],
    live: plugIn,
    isWithheld: isWithheld(view, missing),
    isClosed: isEgressClosed(view),
    isGuarded: isGuarded(namespace),
  });
}

/**
 * The conditions `EgressDeclared`, `EgressEnforced`, and `EgressWidened` and `UnusualDestinations`,
 * which are true when it is bad.
 *
 * @param problems what keeps the policies from standing
 * @param now milliseconds since the epoch
 */
export function egressFindings(
  view: Observation,
  plan: EgressPlan | undefined,
  missing: readonly Problem[],
  problems: readonly Problem[],
  now: number,
): Finding[] {
  const { egress, ingress, expired } = view.allowlist;
  return [
    declaredFinding({
      destinations: egress.length,
      sources: ingress.length,
      expired,
      unknownPeers: unknownPeers(view),
      unresolved: view.hosts.unresolved,
      pending: view.hosts.pending,
      isWithheld: isWithheld(view, missing),
      isClosed: isEgressClosed(view),
      problems: [...missing, ...problems],
    }),
    enforcedFinding(view.workflow.metadata.name, view.probe, now),
    widenedFinding(wideningsOf(view, plan), plugInWideningsOf(view, plan)),
    unusualFinding(view.refused),
  ];
}

/** Named peers that could not be looked up, of those that it uses. */
function unknownPeers({ workflow, policies, named }: Observation): string[] {
  const knewDNS = policies.some((policy) => lastKnown(policy).DNS !== undefined);
  return [
    ...(named.DNS === undefined && knewDNS ? ['DNS'] : []),
    ...(named.KubeAPI === undefined && usesKubeAPI(workflow) ? ['KubeAPI'] : []),
  ];
}

/** What policies of others let its pods reach beyond its own. */
function wideningsOf(view: Observation, plan: EgressPlan | undefined): Widening[] {
  const foreign = view.others.filter((policy) => !isMadeFor(policy, view.workflow));
  if (foreign.length === 0) return [];
  const { namespace = '' } = view.workflow.metadata;
  return widenedBy({ namespace, pods: labelsOf(view), own: ownOf(view, plan), others: foreign });
}

/** What policies of network plug-ins let its pods reach beyond its own. */
function plugInWideningsOf(view: Observation, plan: EgressPlan | undefined): PlugInWidening[] {
  const { cilium, cluster } = view.plugInOfOthers;
  if (cilium.length + cluster.length === 0) return [];
  const { name, namespace = '' } = view.workflow.metadata;
  return widenedByPlugIn({
    name,
    namespace,
    namespaceLabels: view.namespace?.metadata.labels ?? {},
    pods: labelsOf(view),
    own: ownOf(view, plan),
    hosts: view.hosts.byPlugIn,
    cilium,
    cluster,
  });
}

function labelsOf({ workflow, targets, pods }: Observation): Labels[] {
  return podLabelsOf(
    workflow.metadata.name,
    [...targets.workloads, ...targets.runs, ...targets.untargeted],
    pods.filter((pod) => !hasEnded(pod)),
  );
}

function ownOf({ policies }: Observation, plan: EgressPlan | undefined): readonly NetworkPolicy[] {
  return plan?.policies.map(({ desired }) => desired) ?? policies;
}
