import { isDeepStrictEqual } from 'node:util';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { conditionsFrom, type Finding } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import type { CountedLimit } from '../api/limits.ts';
import { annotation } from '../api/names.ts';
import {
  keyOf,
  splitKey,
  stampOf,
  type KubeObject,
  type Namespace,
  type NetworkPolicy,
  type Pod,
} from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { Workflow, WorkflowSpec, WorkflowStatus } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { recorded } from '../guardrails/approval/plan.ts';
import { allowlistOf } from '../guardrails/egress/allowlist.ts';
import { applyEgress, type EgressOutcome } from '../guardrails/egress/apply.ts';
import type { EgressPlan } from '../guardrails/egress/plan.ts';
import type { HostResolver } from '../guardrails/egress/host-resolver.ts';
import { lastKnown } from '../guardrails/egress/named-peers.ts';
import type { RefusedConnections } from '../guardrails/egress/refused.ts';
import type { PlugInPolicies } from '../guardrails/egress/plug-in-policies.ts';
import { latestOf, validForMs } from '../guardrails/egress/probe.ts';
import type { EgressTeardown } from '../guardrails/egress/teardown.ts';
import type { NamedPeers } from '../guardrails/egress/rules.ts';
import { killSwitchOver } from '../guardrails/kill-switch/plan.ts';
import type { GoneRuns } from '../guardrails/limits/gone-runs.ts';
import { LimitKeeper, type Count } from '../guardrails/limits/keeper.ts';
import type { EventRecorder } from '../observability/events.ts';
import { isMadeFor, type Applier } from '../runtime/applier.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isConflict, isNotFound } from '../runtime/errors.ts';
import type { Change } from '../runtime/list-watch.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';
import { clearNoted } from '../guardrails/holds/note.ts';
import { acknowledgedNow, holdsOf } from '../guardrails/holds/plan.ts';
import { applyFailed, heldReason, type Problem } from '../guardrails/requirements.ts';
import { some } from '../guardrails/wording.ts';
import { egressFindings, planOf, planOfPlugIn, type Observation } from './workflow-egress.ts';
import {
  transitionsOf,
  whatIsMissing,
  workflowFindings,
  type WorkflowView,
} from './workflow-findings.ts';
import type { PolicyInForce } from './policy-in-force.ts';
import type { RequesterRights } from './requester.ts';
import type { WorkflowApprovals } from './workflow-approval.ts';
import { hostsView } from './workflow-hosts.ts';
import { hasEnded, isLabelled, policyIndexes } from './workflow-indexes.ts';
import { isStopped, isTargetOf, readSpec, resolveTargets } from './workflow-targets.ts';

/** What this controller reports to the metrics. */
export interface WorkflowMetrics {
  /** @param reason `undefined` where nothing is held */
  setHeld(kind: string, key: string, reason: string | undefined): void;
  /** @param findings its conditions of egress; `undefined` where it is gone */
  setEgress(key: string, findings: readonly Finding[] | undefined): void;
  countLimitBreach(limit: CountedLimit): void;
}

export interface WorkflowControllerOptions {
  /** Writes only while this process leads. */
  client: Pick<KubeClient, 'list' | 'get' | 'create' | 'mergePatch'>;
  /** Writes only while this process leads. */
  applier: Applier;
  statusWriter: StatusWriter;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  metrics: WorkflowMetrics;
  workflows: ReadStore<Workflow>;
  identities: ReadStore<AutomationIdentity>;
  namespaces: ReadStore<Namespace>;
  killSwitches: ReadStore<KillSwitch>;
  /** All, indexed by {@link policyIndexes}. */
  networkPolicies: ReadStore<NetworkPolicy>;
  /** Indexed by `namespace`. */
  workloads: IndexedStore<Workload>;
  approvals: Pick<WorkflowApprovals, 'of'>;
  policy: Pick<PolicyInForce, 'ofWorkflow'>;
  requester: Pick<RequesterRights, 'ofWorkflow'>;
  /** Indexed by `identity` (`namespace/serviceAccountName`). */
  pods: Pick<ReadStore<Pod>, 'byIndex'>;
  /** Whether admission labels new pods with their identity; `undefined` where it isn't known. */
  labelsPods: () => boolean | undefined;
  /** What named peers come to now. */
  namedPeers: () => NamedPeers;
  /** Policies of the network plug-in's own kind. */
  plugIn: Pick<PlugInPolicies, 'kind' | 'of' | 'others' | 'ensure' | 'remove'>;
  /** Takes away what Workflows left behind. */
  teardown: Pick<EgressTeardown, 'reconcile' | 'forget'>;
  /** Addresses of hosts that nothing but the operator can look up. */
  hosts: Pick<HostResolver, 'look'>;
  /** What policies refused, as the network plug-in counts it. */
  refused: Pick<RefusedConnections, 'of'>;
  /** Jobs that were deleted, perhaps before they were counted. */
  goneRuns: Pick<GoneRuns, 'of' | 'forget'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Which keys (`namespace/name` of a Workflow) a change of another object concerns. */
export const keysFor = {
  workflow: (workflow: Workflow): string[] => [keyOf(workflow)],

  /**
   * Those in it, and those whose allowlist names it.
   *
   * @param workflows indexed by `namespace` and `peerNamespace`
   */
  namespace: ({ metadata }: Namespace, workflows: Pick<ReadStore<Workflow>, 'byIndex'>): string[] =>
    ['namespace', 'peerNamespace'].flatMap((index) =>
      workflows.byIndex(index, metadata.name).map(keyOf),
    ),

  /**
   * The Workflow that it runs as: of a pod without the label of its identity always, of others where
   * policies of others could select it; also of one that is gone, where it left policies behind.
   *
   * @param policies indexed by {@link policyIndexes}
   */
  pod: (
    { type, object, previous }: Change<Pod>,
    workflows: Pick<ReadStore<Workflow>, 'get'>,
    policies: { byIndex: (index: string, value: string) => readonly KubeObject[] },
  ): string[] => {
    const { namespace = '', labels } = object.metadata;
    const key = `${namespace}/${object.spec?.serviceAccountName ?? ''}`;
    if (workflows.get(key) === undefined) {
      const isOver = type === 'deleted' || hasEnded(object);
      return isOver && policies.byIndex('workflow', key).length > 0 ? [key] : [];
    }
    if (!isLabelled(object) || object.egressProbe !== undefined) return [key];
    if (policies.byIndex('others', namespace).length === 0) return [];
    return type === 'updated' && isDeepStrictEqual(labels, previous?.metadata.labels) ? [] : [key];
  },

  identity: (identity: AutomationIdentity): string[] => [keyOf(identity)],

  /** @param workflows indexed by `namespace` */
  killSwitch: (
    { metadata, spec }: KillSwitch,
    workflows: Pick<ReadStore<Workflow>, 'byIndex'>,
  ): string[] =>
    spec.workflow === undefined
      ? workflows.byIndex('namespace', metadata.namespace ?? '').map(keyOf)
      : [`${metadata.namespace ?? ''}/${spec.workflow}`],

  /**
   * The one that it belongs to, and where its rules changed and others may be selected by it, all of
   * its namespace.
   *
   * @param workflows indexed by `namespace`
   */
  networkPolicy: (
    { type, object, previous }: Change<NetworkPolicy>,
    workflows: Pick<ReadStore<Workflow>, 'byIndex'>,
  ): string[] => {
    const versions = previous === undefined ? [object] : [previous, object];
    const own = versions.flatMap(policyIndexes.workflow);
    const concernsOthers =
      versions.some((policy) => policyIndexes.others(policy).length > 0) &&
      (type !== 'updated' || !isDeepStrictEqual(object.spec, previous?.spec));
    const all = concernsOthers
      ? workflows.byIndex('namespace', object.metadata.namespace ?? '').map(keyOf)
      : [];
    return [...new Set([...own, ...all])];
  },

  /**
   * The Workflow that it runs as, and those that it was or is a target of. None for a change that
   * no guardrail looks at, such as the progress of a rollout.
   *
   * @param workflows indexed by `namespace`
   */
  workload: (
    { type, object, previous }: Change<Workload>,
    workflows: Pick<ReadStore<Workflow>, 'byIndex'>,
  ): string[] => {
    const isSame =
      type === 'updated' &&
      previous !== undefined &&
      isDeepStrictEqual(aspectsOf(previous), aspectsOf(object));
    if (isSame) return [];
    const versions = previous === undefined ? [object] : [previous, object];
    return workflows
      .byIndex('namespace', object.metadata.namespace)
      .filter(({ metadata, spec }) =>
        versions.some(
          (workload) =>
            workload.serviceAccountName === metadata.name ||
            targetsOf(spec).some((target) => isTargetOf(target, workload)),
        ),
      )
      .map(keyOf);
  },
};

/**
 * Whether a change is of numbers in the status alone: the workload runs or rests, and nothing that
 * a policy depends on differs. It can wait, so that a thousand of them are counted together.
 */
export function isOfCountsAlone({ type, object, previous }: Change<Workload>): boolean {
  return (
    type === 'updated' &&
    previous !== undefined &&
    isDeepStrictEqual(
      { ...aspectsOf(previous), isStopped: undefined },
      { ...aspectsOf(object), isStopped: undefined },
    )
  );
}

/** What the guardrails of a Workflow look at. */
function aspectsOf(workload: Workload): object {
  const { metadata, serviceAccountName, podLabels, podSelector, codeDigest, finished } = workload;
  const { secretHints } = workload;
  const { uid, labels, deletionTimestamp, ownerReferences } = metadata;
  return {
    uid,
    labels,
    deletionTimestamp,
    ownerReferences,
    serviceAccountName,
    podLabels,
    podSelector,
    codeDigest,
    secretHints,
    allowsSecret: metadata.annotations?.[annotation.allowSecretInSpec],
    changedBy: stampOf(workload),
    finished,
    isStopped: isStopped(workload),
  };
}

/** Total: it takes whatever the API server has stored. */
function targetsOf(spec: Partial<WorkflowSpec> | undefined): WorkflowSpec['targets'] {
  const targets: unknown = spec?.targets;
  return Array.isArray(targets)
    ? targets.filter((target) => typeof target === 'object' && target !== null)
    : [];
}

/** What is seen before the runs are counted. */
interface Observed extends Omit<Observation, 'ledger' | 'requester'> {
  /** Its runs. */
  jobs: readonly Workload[];
}

/**
 * Counts the runs of each Workflow with limits, gives the pods of its targets their egress, and says
 * in its status whether all of its guardrails are in place, what it lacks, and whether it is stopped. While something is missing, or
 * its kill switch is engaged, nothing is granted that doesn't stand yet.
 *
 * It must not run before the caches have synced: what they don't know yet counts as missing.
 */
export class WorkflowController implements Reconciler {
  readonly name = 'workflow';
  readonly #options: WorkflowControllerOptions;
  readonly #limits: LimitKeeper;
  /** When the counts of each Workflow were last written; milliseconds since the epoch. */
  readonly #countedAt = new Map<string, number>();

  constructor(options: WorkflowControllerOptions) {
    this.#options = options;
    this.#limits = new LimitKeeper(options);
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const observed = this.#observe(key);
    if (observed === undefined) {
      this.#countedAt.delete(key);
      this.#options.metrics.setHeld('Workflow', key, undefined);
      this.#options.metrics.setEgress(key, undefined);
      // One that is about to go has its policies until it is gone.
      if (this.#options.workflows.get(key) !== undefined) return {};
      return await this.#options.teardown.reconcile(key, context);
    }
    const { client, clock, teardown } = this.#options;
    const { workflows } = resources;
    teardown.forget(key);
    if (await clearNoted(client, workflows, observed.workflow, context.signal)) return {};
    const counting = await this.#countRuns(observed, context);
    if (counting === 'marked') return {};
    const { count } = counting;
    const { workflow, spec } = observed;
    const requester = await this.#options.requester.ofWorkflow(workflow, spec, context.signal);
    const observation = { ...observed, ledger: count.ledger, requester };
    const missing = whatIsMissing(observation);
    const plan = planOf(observation, missing);
    const egress = await this.#keepEgress(observation, plan, missing, context);
    if (egress.errors.some(isConflict)) throw egress.errors.find(isConflict);

    const errors = [...egress.errors, ...counting.errors];
    const problems = [...egress.problems, ...errors.map(applyFailed)];
    const now = clock();
    const ofEgress = egressFindings(observation, plan, missing, problems, now);
    this.#options.metrics.setEgress(key, ofEgress);
    const findings = [...workflowFindings(observation, missing, problems), ...ofEgress];
    const recountMs = await this.#report({ ...observation, count }, missing, findings, context);
    if (errors.length > 0) throw errors[0];

    const { nextExpiryMs } = observation.allowlist;
    const probeMs = validForMs(observation.probe, now);
    const delays = [
      ...[recountMs, count.recheckAfterMs, requester.againMs].flatMap((delay) => delay ?? []),
      ...(egress.isWaiting ? [podsCheckMs] : []),
      ...(egress.problems.length > 0 ? [unwatchedMs] : []),
      ...this.#untilItExpires(observation),
      ...[nextExpiryMs, probeMs, observation.hosts.dueMs].flatMap((ms) =>
        ms === undefined ? [] : [Math.min(ms, longestWaitMs)],
      ),
    ];
    return delays.length === 0 ? {} : { requeueAfterMs: Math.min(...delays) };
  }

  #untilItExpires({ approval, policy }: Observation): number[] {
    return [approval.changesAt, policy.changesAt].flatMap((at) =>
      at === undefined ? [] : [Math.min(Math.max(at - this.#options.clock(), 0), longestWaitMs)],
    );
  }

  #observe(key: string): Observed | undefined {
    const {
      workflows,
      identities,
      namespaces,
      killSwitches,
      networkPolicies,
      workloads,
      pods,
      clock,
    } = this.#options;
    const workflow = workflows.get(key);
    const approval = this.#options.approvals.of(key);
    if (workflow === undefined || approval === undefined) return undefined;
    if (workflow.metadata.deletionTimestamp !== undefined) return undefined;
    const { namespace: namespaceName = '' } = splitKey(key);
    const namespace = namespaces.get(namespaceName);
    // Nothing can be created there any more, and all that stands is about to go.
    if (namespace?.metadata.deletionTimestamp !== undefined) return undefined;
    const read = readSpec(workflow);
    const spec = 'spec' in read ? read.spec : undefined;
    const neighbours = workloads.byIndex('namespace', namespaceName);
    const targets = resolveTargets(workflow, spec?.targets ?? [], neighbours);
    const running = pods.byIndex('identity', key);
    const labelled = networkPolicies.byIndex('workflow', key);
    const labels = this.#options.labelsPods() === true;
    const isCertain = labels && running.every((pod) => isLabelled(pod) || hasEnded(pod));
    const allowlist = allowlistOf({
      egress: spec?.egress ?? [],
      ingress: spec?.ingress ?? [],
      namespace,
      namespaceOf: (name) => namespaces.get(name),
      now: clock(),
    });
    const policies = labelled.filter((policy) => isMadeFor(policy, workflow));
    const { plugIn, hosts } = this.#options;
    const before = Object.assign({}, ...policies.map((policy) => lastKnown(policy).hosts ?? {}));
    return {
      workflow,
      spec,
      malformed: 'spec' in read ? [] : read.malformed,
      targets,
      isLabelled: labels,
      foundByOwnLabels: isCertain
        ? targets.workloads.filter(
            ({ serviceAccountName }) => serviceAccountName !== workflow.metadata.name,
          )
        : targets.workloads,
      allowlist,
      hosts: hostsView(allowlist.egress, plugIn.kind, before, hosts),
      plugIn: plugIn.of(workflow),
      plugInKind: plugIn.kind,
      plugInOfOthers: plugIn.others(namespaceName),
      refused: this.#options.refused.of(
        namespaceName,
        neighbours
          .filter(({ serviceAccountName }) => serviceAccountName === workflow.metadata.name)
          .map(({ metadata: { name } }) => name),
      ),
      namespace,
      identity: identities.get(key),
      killSwitch: killSwitchOver(killSwitches, key),
      policies,
      others: [...new Set([...labelled, ...networkPolicies.byIndex('others', namespaceName)])],
      pods: running,
      isCertain,
      named: this.#options.namedPeers(),
      probe: latestOf(workflow.status?.egressProbe, running),
      approval,
      approved: approval.finding,
      approvers: approval.people ?? [],
      policy: this.#options.policy.ofWorkflow(workflow, spec),
      jobs: neighbours.filter(
        ({ kind, serviceAccountName }) =>
          kind === 'Job' && serviceAccountName === workflow.metadata.name,
      ),
    };
  }

  /** @returns `marked` where that was written first: the change brings the key back */
  async #countRuns(
    observed: Observed,
    context: ReconcileContext,
  ): Promise<{ count: Count; errors: unknown[] } | 'marked'> {
    const { workflow, jobs } = observed;
    try {
      if (await this.#limits.mark(workflow, context)) return 'marked';
      const killSwitch = this.#options.killSwitches.get(keyOf(workflow));
      return { count: await this.#limits.count(observed, jobs, killSwitch, context), errors: [] };
    } catch (error) {
      if (isConflict(error)) throw error;
      // The other guardrails go on.
      return { count: { ledger: workflow.status?.runs, crossed: [], runs: [] }, errors: [error] };
    }
  }

  async #keepEgress(
    observation: Observation,
    plan: EgressPlan | undefined,
    missing: readonly Problem[],
    { signal, log }: ReconcileContext,
  ): Promise<EgressOutcome> {
    if (plan === undefined) return nothingApplied;
    const { client, applier, events, plugIn } = this.#options;
    const { workflow } = observation;
    const serviceAccountName = workflow.metadata.name;
    // What is allowed by another kind from now on, is so before a NetworkPolicy stops to.
    const beyond = planOfPlugIn(observation, missing);
    const ensured =
      beyond === undefined
        ? { changed: [], problems: [], errors: [] }
        : await plugIn.ensure(beyond, { applier, signal });
    const applied = await applyEgress(plan, { client, applier, serviceAccountName, signal });
    const isInPlace = ensured.errors.length + ensured.problems.length === 0;
    const gone =
      beyond === undefined || !isInPlace
        ? { changed: [], problems: [], errors: [] }
        : await plugIn.remove(beyond.obsolete, { applier, signal });
    const outcome: EgressOutcome = {
      ...applied,
      updated: [...applied.updated, ...ensured.changed],
      removed: [...applied.removed, ...gone.changed],
      problems: [...applied.problems, ...ensured.problems],
      errors: [...applied.errors, ...ensured.errors, ...gone.errors],
    };
    const { created, updated, removed } = outcome;
    if (created.length + updated.length + removed.length > 0) {
      log.info('Egress changed', { created, updated, removed });
      events.normal(subjectOf(resources.workflows, workflow), 'EgressChanged', changesOf(outcome));
    }
    return outcome;
  }

  /** @returns milliseconds after which the counts can be written; `undefined`: they stand */
  async #report(
    observation: Observation & { count: Count },
    missing: readonly Problem[],
    findings: readonly Finding[],
    { signal }: ReconcileContext,
  ): Promise<number | undefined> {
    const { statusWriter, events, metrics, clock } = this.#options;
    const { workflow, targets, count, requester } = observation;
    const key = keyOf(workflow);
    const { generation } = workflow.metadata;
    const before = workflow.status;
    const now = clock();
    const holds = holdsOf(missing, workflow, now);
    const status: WorkflowStatus = {
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions: conditionsFrom(findings, before?.conditions, generation, now),
      ...(holds.length > 0 && { holds }),
      targets: countsOf(targets),
      ...revisionStatus(observation),
      ...(observation.probe !== undefined && { egressProbe: observation.probe }),
      ...(observation.hosts.status.length > 0 && { resolvedHosts: observation.hosts.status }),
      ...(count.ledger !== undefined && { runs: count.ledger }),
      ...(requester.digest !== undefined && { requester: requester.digest }),
    };
    metrics.setHeld('Workflow', key, heldReason(missing));

    const counts = { targets: before?.targets, ...(before?.runs && { runs: before.runs }) };
    const isCountOnly = isDeepStrictEqual({ ...status, ...counts }, before);
    const waitMs = Math.min(
      (this.#countedAt.get(key) ?? -Infinity) - now + countsDelayMs,
      countsDelayMs,
    );
    if (isCountOnly && waitMs > 0) {
      return isDeepStrictEqual(status, before) ? undefined : waitMs;
    }
    try {
      const isWritten = await statusWriter.write(resources.workflows, workflow, status, signal);
      if (isWritten) this.#countedAt.set(key, now);
      this.#limits.stored(count);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
    for (const { limit } of count.crossed) metrics.countLimitBreach(limit);
    const told = [...transitionsOf(observation, findings), ...acknowledgedNow(workflow, holds)];
    for (const { type, reason, message } of told) {
      events[type](subjectOf(resources.workflows, workflow), reason, message);
    }
    return undefined;
  }
}

/** What the API server refuses may be let in later, for reasons that aren't watched. */
const unwatchedMs = 60_000;
/** Pods whose policy waits for their end aren't watched. */
const podsCheckMs = 10_000;
/** Longer ones are begun anew: a clock may be set meanwhile, and no timer of Node's holds a month. */
const longestWaitMs = 3_600_000;
/**
 * Milliseconds in which changes of counts are gathered, and after which counts alone are written
 * again: a kill changes as many of them as it stops.
 */
export const countsDelayMs = 1_000;

const nothingApplied: EgressOutcome = {
  created: [],
  updated: [],
  removed: [],
  problems: [],
  errors: [],
  isWaiting: false,
};

/** What is to be approved, and what was last; that stays until something else is. */
function revisionStatus({ workflow, approval }: Observation): Pick<WorkflowStatus, 'revision'> {
  const { revision, required, approvers, finding } = approval;
  if (revision === undefined) return {};
  const isApproved = finding.status === 'True';
  const approved = isApproved ? recorded(revision) : workflow.status?.revision?.approved;
  const { digest } = revision;
  return {
    revision: {
      digest,
      required,
      ...(approvers !== undefined && { approvers }),
      ...(approved !== undefined && { approved }),
    },
  };
}

function countsOf({ workloads, missing }: WorkflowView['targets']): WorkflowStatus['targets'] & {} {
  const stopped = workloads.filter(isStopped).length;
  return {
    total: workloads.length + missing.length,
    running: workloads.length - stopped,
    stopped,
    missing: missing.length,
  };
}

function changesOf({ created, updated, removed }: EgressOutcome): string {
  const parts = Object.entries({ created, updated, removed }).flatMap(([verb, names]) => {
    if (names.length === 0) return [];
    return [`${verb} ${some(names)}`];
  });
  return `NetworkPolicies: ${parts.join('; ')}.`;
}
