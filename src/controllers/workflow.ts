import { isDeepStrictEqual } from 'node:util';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { conditionsFrom } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import type { CountedLimit } from '../api/limits.ts';
import { API_VERSION, label } from '../api/names.ts';
import { keyOf, splitKey, type Namespace, type NetworkPolicy } from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { Workflow, WorkflowSpec, WorkflowStatus } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { applyEgress, type EgressOutcome } from '../guardrails/egress/apply.ts';
import { planEgress } from '../guardrails/egress/plan.ts';
import { hasOwnPodLabels } from '../guardrails/egress/pod-selector.ts';
import { killSwitchOver } from '../guardrails/kill-switch/plan.ts';
import type { GoneRuns } from '../guardrails/limits/gone-runs.ts';
import { LimitKeeper, type Count } from '../guardrails/limits/keeper.ts';
import type { EventRecorder } from '../observability/events.ts';
import { controllerOf, isControlledBy, type Applier } from '../runtime/applier.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isConflict, isNotFound } from '../runtime/errors.ts';
import type { Change } from '../runtime/list-watch.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';
import { applyFailed, heldReason, isGuarded, type Problem } from '../guardrails/requirements.ts';
import { some } from '../guardrails/wording.ts';
import {
  isEgressClosed,
  isWithheld,
  transitionsOf,
  whatIsMissing,
  workflowFindings,
  type WorkflowView,
} from './workflow-findings.ts';
import { isStopped, isTargetOf, readSpec, resolveTargets } from './workflow-targets.ts';

/** What this controller reports to the metrics. */
export interface WorkflowMetrics {
  /** @param reason `undefined` where nothing is held */
  setHeld(kind: string, key: string, reason: string | undefined): void;
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
  /** Managed ones, indexed by `workflow` (`namespace/name`). */
  networkPolicies: ReadStore<NetworkPolicy>;
  /** Indexed by `namespace`. */
  workloads: IndexedStore<Workload>;
  /** Jobs that were deleted, perhaps before they were counted. */
  goneRuns: Pick<GoneRuns, 'of' | 'forget'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Which keys (`namespace/name` of a Workflow) a change of another object concerns. */
export const keysFor = {
  workflow: (workflow: Workflow): string[] => [keyOf(workflow)],

  /** @param workflows indexed by `namespace` */
  namespace: ({ metadata }: Namespace, workflows: Pick<ReadStore<Workflow>, 'byIndex'>): string[] =>
    workflows.byIndex('namespace', metadata.name).map(keyOf),

  identity: (identity: AutomationIdentity): string[] => [keyOf(identity)],

  /** @param workflows indexed by `namespace` */
  killSwitch: (
    { metadata, spec }: KillSwitch,
    workflows: Pick<ReadStore<Workflow>, 'byIndex'>,
  ): string[] =>
    spec.workflow === undefined
      ? workflows.byIndex('namespace', metadata.namespace ?? '').map(keyOf)
      : [`${metadata.namespace ?? ''}/${spec.workflow}`],

  /** By the controller reference, and by the label, in case that somebody took the reference away. */
  networkPolicy: (policy: NetworkPolicy): string[] => {
    const { namespace = '', labels } = policy.metadata;
    const owner = controllerOf(policy);
    const names = [
      owner?.kind === 'Workflow' && owner.apiVersion === API_VERSION ? owner.name : undefined,
      labels?.[label.workflow],
    ];
    return [...new Set(names.flatMap((name) => name ?? []))].map((name) => `${namespace}/${name}`);
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
  const { metadata, serviceAccountName, podLabels, podSelector, finished } = workload;
  const { uid, labels, deletionTimestamp, ownerReferences } = metadata;
  return {
    uid,
    labels,
    deletionTimestamp,
    ownerReferences,
    serviceAccountName,
    podLabels,
    podSelector,
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

interface Observation extends Omit<WorkflowView, 'ledger'> {
  /** `undefined` where it can't be read: then nothing is changed. */
  spec: WorkflowSpec | undefined;
  /** Ours by their controller reference. */
  policies: readonly NetworkPolicy[];
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
      return {};
    }
    const counting = await this.#countRuns(observed, context);
    if (counting === 'marked') return {};
    const { count } = counting;
    const observation = { ...observed, ledger: count.ledger };
    const missing = whatIsMissing(observation);
    const egress = await this.#keepEgress(observation, missing, context);
    if (egress.errors.some(isConflict)) throw egress.errors.find(isConflict);

    const errors = [...egress.errors, ...counting.errors];
    const problems = [...egress.problems, ...errors.map(applyFailed)];
    const recountMs = await this.#report({ ...observation, count }, missing, problems, context);
    if (errors.length > 0) throw errors[0];

    const delays = [
      ...[recountMs, count.recheckAfterMs].flatMap((delay) => delay ?? []),
      ...(egress.isWaiting ? [podsCheckMs] : []),
      ...(egress.problems.length > 0 ? [unwatchedMs] : []),
    ];
    return delays.length === 0 ? {} : { requeueAfterMs: Math.min(...delays) };
  }

  #observe(key: string): Observation | undefined {
    const { workflows, identities, namespaces, killSwitches, networkPolicies, workloads } =
      this.#options;
    const workflow = workflows.get(key);
    if (workflow === undefined || workflow.metadata.deletionTimestamp !== undefined) {
      return undefined;
    }
    const { namespace: namespaceName = '' } = splitKey(key);
    const namespace = namespaces.get(namespaceName);
    // Nothing can be created there any more, and all that stands is about to go.
    if (namespace?.metadata.deletionTimestamp !== undefined) return undefined;
    const read = readSpec(workflow);
    const spec = 'spec' in read ? read.spec : undefined;
    const neighbours = workloads.byIndex('namespace', namespaceName);
    return {
      workflow,
      spec,
      malformed: 'spec' in read ? [] : read.malformed,
      targets: resolveTargets(workflow, spec?.targets ?? [], neighbours),
      namespace,
      identity: identities.get(key),
      killSwitch: killSwitchOver(killSwitches, key),
      policies: networkPolicies
        .byIndex('workflow', key)
        .filter((policy) => isControlledBy(policy, workflow)),
      jobs: neighbours.filter(
        ({ kind, serviceAccountName }) =>
          kind === 'Job' && serviceAccountName === workflow.metadata.name,
      ),
    };
  }

  /** @returns `marked` where that was written first: the change brings the key back */
  async #countRuns(
    observed: Observation,
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
    observation: Observation & WorkflowView,
    missing: readonly Problem[],
    { signal, log }: ReconcileContext,
  ): Promise<EgressOutcome> {
    const { workflow, spec, targets, namespace, policies } = observation;
    if (spec === undefined) return nothingApplied;
    const { client, applier, events } = this.#options;
    const plan = planEgress({
      workflow,
      entries: spec.egress ?? [],
      workloads: [...targets.workloads, ...targets.runs.filter(hasOwnPodLabels)],
      live: policies,
      isWithheld: isWithheld(observation, missing),
      isClosed: isEgressClosed(observation),
      isGuarded: isGuarded(namespace),
    });
    const serviceAccountName = workflow.metadata.name;
    const outcome = await applyEgress(plan, { client, applier, serviceAccountName, signal });
    const { created, updated, removed } = outcome;
    if (created.length + updated.length + removed.length > 0) {
      log.info('Egress changed', { created, updated, removed });
      events.normal(subjectOf(resources.workflows, workflow), 'EgressChanged', changesOf(outcome));
    }
    return outcome;
  }

  /** @returns milliseconds after which the counts can be written; `undefined`: they stand */
  async #report(
    observation: Observation & WorkflowView & { count: Count },
    missing: readonly Problem[],
    problems: readonly Problem[],
    { signal }: ReconcileContext,
  ): Promise<number | undefined> {
    const { statusWriter, events, metrics, clock } = this.#options;
    const { workflow, targets, count } = observation;
    const key = keyOf(workflow);
    const { generation } = workflow.metadata;
    const before = workflow.status;
    const findings = workflowFindings(observation, missing, problems);
    const now = clock();
    const status: WorkflowStatus = {
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions: conditionsFrom(findings, before?.conditions, generation, now),
      targets: countsOf(targets),
      ...(count.ledger !== undefined && { runs: count.ledger }),
    };
    metrics.setHeld('Workflow', key, heldReason(missing));

    const counts = { targets: before?.targets, ...(before?.runs && { runs: before.runs }) };
    const isCountOnly = isDeepStrictEqual({ ...status, ...counts }, before);
    const waitMs = Math.min((this.#countedAt.get(key) ?? -Infinity) - now + countsMs, countsMs);
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
    for (const { type, reason, message } of transitionsOf(observation, findings)) {
      events[type](subjectOf(resources.workflows, workflow), reason, message);
    }
    return undefined;
  }
}

/** Foreign objects aren't watched. */
const unwatchedMs = 60_000;
/** Pods whose policy waits for their end aren't watched. */
const podsCheckMs = 10_000;
/** Counts alone are written at most this often: a kill changes as many of them as it stops. */
const countsMs = 1_000;

const nothingApplied: EgressOutcome = {
  created: [],
  updated: [],
  removed: [],
  problems: [],
  errors: [],
  isWaiting: false,
};

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
