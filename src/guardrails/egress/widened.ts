import type { Finding } from '../../api/conditions.ts';
import { label } from '../../api/names.ts';
import type {
  LabelSelector,
  NetworkPolicy,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  Pod,
} from '../../api/objects.ts';
import type { Workload } from '../../api/workload.ts';
import { clip, some } from '../wording.ts';
import { isolating, type Labels, type PodIdentity } from './evaluate.ts';
import { boxesOfPolicies, boxesOfRule, subtract, type Box } from './region.ts';
import type { EgressRule } from './rules.ts';

export interface WideningRequest {
  namespace: string;
  /** Labels of the pods of one automation, each set once. */
  pods: readonly Labels[];
  /** The automation's own policies. */
  own: readonly NetworkPolicy[];
  /** All others of the namespace. */
  others: readonly NetworkPolicy[];
}

/** A policy of somebody else that allows more than the automation's own do. */
export interface Widening {
  policy: NetworkPolicy;
  /** Those of its rules that do. */
  rules: readonly EgressRule[];
}

/** A policy of somebody else, of a network plug-in's kind, that allows more. */
export interface PlugInWidening {
  /** Kind and name. */
  policy: string;
  /** What it allows more, in words. */
  words: readonly string[];
}

/** What anybody may write into a namespace must not keep the operator from its other work. */
const limits = { policies: 500, steps: 500_000 } as const;

/** What it takes to read a peer or a port, in steps. */
const stepsOfPart = 20;

/**
 * Which policies of others let pods of an automation reach more than its own do. Policies add up:
 * whatever one of them allows, is allowed. A rule counts where it allows any connection that none of
 * the own rules allows, to any destination that may exist: exactly, for networks, ports and
 * selectors. Beyond the limits, a rule counts unless it was found not to.
 */
export function widenedBy({ namespace, pods, own, others }: WideningRequest): Widening[] {
  const allowing = others.filter(
    ({ spec }) => spec.policyTypes.includes('Egress') && (spec.egress ?? []).length > 0,
  );
  if (allowing.length === 0) return [];
  const groups = groupsOf(namespace, pods, own);
  const budget = { steps: limits.steps };
  const allowsMore = (rule: EgressRule, allowed: readonly Box[]): boolean => {
    const { to = [], ports = [] } = rule;
    budget.steps -= stepsOfPart * (to.length + 1) * (ports.length + 1);
    if (budget.steps <= 0) return true;
    return subtract(boxesOfRule(rule, namespace), allowed, budget).length > 0;
  };
  return allowing.flatMap((policy, index) => {
    const rules = policy.spec.egress ?? [];
    if (index >= limits.policies) return [{ policy, rules }];
    const touched = groups.filter(({ members }) =>
      members.some((pod) => isolating([policy], pod, 'Egress').length > 0),
    );
    const more = rules.filter((rule) => touched.some(({ allowed }) => allowsMore(rule, allowed())));
    return more.length === 0 ? [] : [{ policy, rules: more }];
  });
}

/** Pods for which the same of the own policies hold, with what these allow, computed when asked. */
function groupsOf(
  namespace: string,
  pods: readonly Labels[],
  own: readonly NetworkPolicy[],
): { members: PodIdentity[]; allowed: () => readonly Box[] }[] {
  const identities = pods.map((labels) => ({ namespace, labels }));
  const groups = Map.groupBy(identities, (pod) =>
    isolating(own, pod, 'Egress')
      .map(({ metadata }) => metadata.name)
      .join(),
  );
  return [...groups.values()].map((members) => {
    const [first] = members;
    let boxes: readonly Box[] | undefined;
    const allowed = (): readonly Box[] =>
      (boxes ??= boxesOfPolicies(first === undefined ? [] : isolating(own, first, 'Egress')));
    return { members, allowed };
  });
}

/**
 * Labels of the pods of an identity, each set once: those of its pods, and those that its workloads
 * will give to more of them.
 *
 * @param workloads that may run as it
 */
export function podLabelsOf(
  name: string,
  workloads: Iterable<Pick<Workload, 'serviceAccountName' | 'podLabels'>>,
  pods: readonly Pick<Pod, 'metadata'>[],
): Labels[] {
  const own = { [label.identity]: name };
  const all: Labels[] = [own];
  for (const { serviceAccountName, podLabels } of workloads) {
    if (serviceAccountName === name) all.push({ ...podLabels, ...own });
  }
  all.push(...pods.map(({ metadata }) => metadata.labels ?? own));
  return [...new Map(all.map((labels) => [JSON.stringify(labels), labels])).values()];
}

/** The condition `EgressWidened`, which is true when it is bad. */
export function widenedFinding(
  widenings: readonly Widening[],
  ofPlugIn: readonly PlugInWidening[] = [],
): Finding {
  const type = 'EgressWidened';
  if (widenings.length + ofPlugIn.length === 0) {
    const message = 'No policy of others lets its pods reach more than the allowlist.';
    return { type, status: 'False', reason: 'AsListed', message };
  }
  const named = [
    ...widenings.map(({ policy, rules }) => ({
      policy: policy.metadata.name,
      words: rules.map(wordsOf),
    })),
    ...ofPlugIn,
  ]
    .map(({ policy, words }) => `${policy} (${clip(some(words, 3), 256)})`)
    .toSorted();
  const message = `Policies add up, and those of others let its pods reach more than the allowlist: ${some(named)}. Delete them, or have their selector leave out the pods of this automation.`;
  return { type, status: 'True', reason: 'PoliciesOfOthers', message };
}

/** A rule in a few words: where to, and on which ports. */
export function wordsOf({ to = [], ports = [] }: EgressRule): string {
  const where = to.length === 0 ? 'everywhere' : some(to.map(peerWords), 3);
  return ports.length === 0 ? where : `${where} on ${some(ports.map(portWords), 4)}`;
}

export function peerWords({ ipBlock, namespaceSelector, podSelector }: NetworkPolicyPeer): string {
  if (ipBlock !== undefined) {
    const { cidr, except = [] } = ipBlock;
    return except.length === 0 ? cidr : `${cidr} except ${some(except, 3)}`;
  }
  const pods = selectorWords('pods', podSelector);
  if (namespaceSelector === undefined) return `${pods} of its namespace`;
  return `${pods} of ${selectorWords('namespaces', namespaceSelector)}`;
}

export function portWords({ protocol = 'TCP', port, endPort }: NetworkPolicyPort): string {
  if (port === undefined) return protocol;
  return `${protocol} ${port}${endPort === undefined || endPort === port ? '' : `-${endPort}`}`;
}

function selectorWords(
  of: string,
  { matchLabels = {}, matchExpressions = [] }: LabelSelector = {},
): string {
  const parts = [
    ...Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`),
    ...matchExpressions.map(
      ({ key, operator, values = [] }) =>
        `${key} ${operator}${values.length === 0 ? '' : ` ${values.join('|')}`}`,
    ),
  ];
  return parts.length === 0 ? `all ${of}` : `${of} with ${some(parts, 3)}`;
}
