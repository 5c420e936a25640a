import { approvalByPolicy, approvalRequired } from '../admission/index.ts';
import type { Approval } from '../api/approval.ts';
import { annotation, approvalGate, label } from '../api/names.ts';
import { splitKey, type Namespace, type Pod } from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { defaultQuorums, type Workflow } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { isPerRun, quorumOf, superseded } from '../guardrails/approval/plan.ts';
import {
  decideRun,
  isPartOf,
  sentenceOf,
  waitingRuns,
  type RunDecision,
  type WaitingRun,
} from '../guardrails/approval/runs.ts';
import { selectsWorkflow } from '../guardrails/kill-switch/cluster.ts';
import {
  isEngaging,
  isLifted,
  isReleasing,
  killSwitchOver,
} from '../guardrails/kill-switch/plan.ts';
import { isGuarded } from '../guardrails/requirements.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { JsonPatchOperation, KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isNotFound } from '../runtime/errors.ts';
import { patchExactly, pointer } from '../runtime/json-patch.ts';
import { assertAllDone, forEachBounded } from '../runtime/parallel.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { ReadStore } from '../runtime/store.ts';
import type { ApprovalState, WorkflowApprovals } from './workflow-approval.ts';

export interface ApprovalControllerOptions {
  /** Writes only while this process leads. */
  client: KubeClient;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  state: Pick<WorkflowApprovals, 'of'>;
  workflows: Pick<ReadStore<Workflow>, 'get'>;
  namespaces: Pick<ReadStore<Namespace>, 'get'>;
  killSwitches: Pick<ReadStore<KillSwitch>, 'get'>;
  clusterKillSwitches: Pick<ReadStore<ClusterKillSwitch>, 'list'>;
  operatorNamespace: string;
  /** Indexed by `workflow` (`namespace/name`). */
  approvals: Pick<ReadStore<Approval>, 'byIndex'>;
  /** Indexed by `identity` (`namespace/serviceAccountName`). */
  pods: Pick<ReadStore<Pod>, 'byIndex'>;
  /** Indexed by `identity` (`namespace/serviceAccountName`). */
  workloads: Pick<IndexedStore<Workload>, 'byIndex'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** Requests of one look that are under way at a time. */
const parallelism = 8;

/** Decisions that one look deletes at most: pods that are to start wait for its end. */
const maxDeletions = 500;

/** What is stopped, or was refused, is looked at again. */
const againMs = 5_000;

/** No timer of Node's holds a month. */
const longestMs = 3_600_000;

/**
 * Starts the pods of each Workflow that are approved, and no others: it takes the gate away that
 * admission gave them. It also deletes decisions that count no more. What it did not do before a
 * crash, it finds again.
 *
 * It must not run before the caches have synced.
 */
export class ApprovalController implements Reconciler {
  readonly name = 'approval';
  readonly #options: ApprovalControllerOptions;
  /** UIDs of pods that it was said of why they aren't started, as long as they wait. */
  readonly #told = new Map<string, ReadonlySet<string>>();
  /** UIDs of runs that it was said of that they wait, as long as they do. */
  readonly #asked = new Map<string, ReadonlySet<string>>();
  /** UIDs of decisions that were deleted, as long as the cache has them. */
  readonly #deleted = new Map<string, Set<string>>();

  constructor(options: ApprovalControllerOptions) {
    this.#options = options;
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const workflow = this.#options.workflows.get(key);
    const known = this.#options.state.of(key);
    const delays: number[] = [];
    if (workflow === undefined || known === undefined) {
      this.#told.delete(key);
      this.#asked.delete(key);
    } else {
      delays.push(...(await this.#start(key, workflow, known, context)));
      await this.#keepMark(workflow, known.required, context.signal);
    }
    // Last: what can't be deleted keeps nothing from starting.
    if (await this.#prune(key, workflow, known, context.signal)) delays.push(0);
    return delays.length === 0 ? {} : { requeueAfterMs: Math.min(longestMs, ...delays) };
  }

  /** @returns milliseconds after which there may be more to start */
  async #start(
    key: string,
    workflow: Workflow,
    { mayStart, finding, isHeldBack = false, changesAt, approvers }: ApprovalState,
    context: ReconcileContext,
  ): Promise<number[]> {
    const { clock, pods } = this.#options;
    const waiting = pods
      .byIndex('identity', key)
      .filter(
        ({ codeDigest, metadata }) => codeDigest !== undefined && !metadata.deletionTimestamp,
      );
    const isApproved = ({ codeDigest = '' }: Pod): boolean =>
      mayStart === 'everything' || mayStart.has(codeDigest);
    const others = waiting.filter((pod) => !isApproved(pod));
    const isStopped = this.#isStopped(key, workflow);
    const runs =
      isPerRun(workflow) && !isStopped
        ? await this.#decideRuns(key, workflow, { waiting, approvers }, context)
        : [];
    const strays = new Set(
      runs.flatMap(({ run }) => run.pods.filter((pod) => !isPartOf(run, pod))),
    );
    // Until then, approval is what they wait for.
    if (finding.status === 'True' && !isHeldBack) this.#explain(key, others, strays);
    else this.#told.delete(key);
    const mayRun = new Set(
      runs.flatMap(({ run, isApproved: may }) =>
        may ? run.pods.filter((pod) => !strays.has(pod)) : [],
      ),
    );
    const approved = waiting.filter(
      (pod) => isApproved(pod) && (!isPerRun(workflow) || mayRun.has(pod)),
    );
    const lifted = isStopped ? 0 : await this.#lift(workflow, approved, context);
    return [changesAt, ...runs.map((run) => run.changesAt)]
      .flatMap((at) => (at === undefined ? [] : [Math.max(at - clock(), 0)]))
      .concat(
        lifted < approved.length || (isStopped && isPerRun(workflow) && waiting.length > 0)
          ? [againMs]
          : [],
      );
  }

  /** Which runs may start; those that may not, are stopped. */
  async #decideRuns(
    key: string,
    workflow: Workflow,
    { waiting, approvers }: { waiting: readonly Pod[] } & Pick<ApprovalState, 'approvers'>,
    context: ReconcileContext,
  ): Promise<{ run: WaitingRun; isApproved: boolean; changesAt: number | undefined }[]> {
    const { approvals, workloads, clock, events } = this.#options;
    const jobs = workloads.byIndex('identity', key).filter(({ kind }) => kind === 'Job');
    const decided = waitingRuns(waiting, jobs).map((run) => {
      const ofWorkflow = approvals.byIndex('workflow', key);
      const decision = decideRun(workflow, run, ofWorkflow, approvers, clock());
      return { run, decision, sentence: sentenceOf(workflow, run, decision) };
    });
    const asked = this.#asked.get(key);
    for (const { run, decision, sentence } of decided) {
      if (decision.outcome !== 'Waiting' || asked?.has(run.uid) === true) continue;
      events.normal(subjectOf(resources.workflows, workflow), 'RunAwaitsApproval', sentence);
    }
    if (decided.length === 0) this.#asked.delete(key);
    else this.#asked.set(key, new Set(decided.map(({ run }) => run.uid)));
    const stopped = decided.filter(
      ({ decision: { outcome } }) => outcome === 'Rejected' || outcome === 'TimedOut',
    );
    const outcomes = await forEachBounded(
      stopped,
      parallelism,
      async ({ run, decision, sentence }) => {
        if (!(await stopRun(this.#options.client, run, sentence, context.signal))) return;
        context.log.info('A run that is not approved was stopped', { run: run.name });
        const { reason } = refusalOf(run, decision);
        events.warning(subjectOf(resources.workflows, workflow), reason, sentence);
      },
    );
    assertAllDone(outcomes, 'stop what is rejected');
    return decided.map(({ run, decision }) => ({
      run,
      isApproved: decision.outcome === 'Approved',
      changesAt: decision.changesAt,
    }));
  }

  /** @returns how many pods were started */
  async #lift(
    workflow: Workflow,
    pods: readonly Pod[],
    { signal, log }: ReconcileContext,
  ): Promise<number> {
    const { client } = this.#options;
    const outcomes = await forEachBounded(pods, parallelism, (pod) => lift(client, pod, signal));
    const lifted = outcomes.filter((outcome) => 'result' in outcome && outcome.result).length;
    if (lifted > 0) {
      log.info('Approved pods started', { pods: lifted });
      const what = lifted === 1 ? 'A pod' : `${lifted} pods`;
      this.#options.events.normal(
        subjectOf(resources.workflows, workflow),
        'PodsStarted',
        `${what} of what is approved may start.`,
      );
    }
    assertAllDone(outcomes, 'start what is approved');
    return lifted;
  }

  /** Where admission wasn't there to set it, no pod is gated: any write makes it look. */
  async #keepMark(
    { metadata, ...workflow }: Workflow,
    required: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, namespaces } = this.#options;
    const { namespace = '', name, uid, labels, deletionTimestamp } = metadata;
    const isByRisk = quorumOf(workflow, defaultQuorums) > 0;
    const mark = isByRisk ? approvalRequired : approvalByPolicy;
    const isMarked = labels?.[label.approval] === mark;
    if ((required === 0 && !isByRisk) || isMarked || deletionTimestamp !== undefined) return;
    if (!isGuarded(namespaces.get(namespace))) return;
    await client.mergePatch(
      resources.workflows,
      { namespace, name },
      { metadata: { uid, labels: { [label.approval]: mark } } },
      { signal },
    );
  }

  /** What a kill switch stops isn't started; the fence would refuse it. */
  #isStopped(key: string, workflow: Workflow): boolean {
    const { killSwitches, clusterKillSwitches, namespaces, operatorNamespace } = this.#options;
    const killSwitch = killSwitchOver(killSwitches, key);
    const { namespace = '' } = splitKey(key);
    // Before the KillSwitch of this one among thousands stands.
    const isByCluster = [...clusterKillSwitches.list()].some(
      (one) =>
        !isReleasing(one) &&
        selectsWorkflow(one, workflow, namespaces.get(namespace), operatorNamespace),
    );
    return (
      isByCluster ||
      (killSwitch !== undefined && !isLifted(killSwitch)) ||
      isEngaging(workflow) ||
      isEngaging(namespaces.get(namespace))
    );
  }

  /** Says once of each pod why it isn't started. */
  #explain(key: string, others: readonly Pod[], strays: ReadonlySet<Pod>): void {
    const told = this.#told.get(key);
    const all = [...new Set([...others, ...strays])];
    for (const pod of all) {
      if (told?.has(pod.metadata.uid ?? '') === true) continue;
      this.#options.events.warning(
        subjectOf(resources.pods, pod),
        'PodNotApproved',
        strays.has(pod)
          ? 'It runs something else than the pod template of its Job says, and is not started: the approval of a run is for that.'
          : 'It runs what no approved pod template says, and is not started: let it be made from a target of the Workflow, as that stands there.',
      );
    }
    if (all.length === 0) this.#told.delete(key);
    else this.#told.set(key, new Set(all.map(({ metadata }) => metadata.uid ?? '')));
  }

  /** @returns whether there is more to delete */
  async #prune(
    key: string,
    workflow: Workflow | undefined,
    known: ApprovalState | undefined,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { approvals, client, pods, workloads } = this.#options;
    const current = [
      known?.revision?.digest,
      workflow?.status?.revision?.digest,
      workflow?.status?.revision?.approved?.digest,
    ];
    const runs = [
      ...workloads.byIndex('identity', key).filter(({ finished }) => !finished),
      ...pods.byIndex('identity', key),
    ].flatMap(({ metadata }) => metadata.uid ?? []);
    const all = approvals.byIndex('workflow', key);
    const deleted = this.#deletedOf(key, all);
    const surplus = superseded(all, current, new Set(runs)).filter(
      ({ metadata: { uid = '' } }) => !deleted.has(uid),
    );
    const outcomes = await forEachBounded(
      surplus.slice(0, maxDeletions),
      parallelism,
      ({ metadata: { namespace = '', name, uid } }) =>
        client.delete(
          resources.approvals,
          { namespace, name },
          { ...(uid !== undefined && { uid }), signal },
        ),
    );
    for (const { item, ...outcome } of outcomes) {
      if ('result' in outcome && item.metadata.uid !== undefined) deleted.add(item.metadata.uid);
    }
    if (deleted.size > 0) this.#deleted.set(key, deleted);
    assertAllDone(outcomes, 'delete decisions that count no more');
    return surplus.length > maxDeletions;
  }

  /** Those that were deleted of which the cache hasn't heard yet: none is asked for twice. */
  #deletedOf(key: string, all: readonly Approval[]): Set<string> {
    const before = this.#deleted.get(key);
    this.#deleted.delete(key);
    if (before === undefined) return new Set();
    return new Set(all.flatMap(({ metadata: { uid = '' } }) => (before.has(uid) ? [uid] : [])));
  }
}

/**
 * Takes the gate away from exactly this pod, once. What it runs can't have changed since: admission
 * refuses that.
 *
 * @returns whether it stood there, and nothing refused it
 */
async function lift(client: KubeClient, pod: Pod, signal: AbortSignal): Promise<boolean> {
  const gates = pod.spec?.schedulingGates ?? [];
  const path = pointer(
    'spec',
    'schedulingGates',
    String(gates.findIndex(({ name }) => name === approvalGate)),
  );
  const operations: JsonPatchOperation[] = [
    { op: 'test', path, value: { name: approvalGate } },
    { op: 'remove', path },
  ];
  return (await patchExactly(client, resources.pods, pod, operations, signal)) !== undefined;
}

/** What is said of a run that may not start. */
function refusalOf({ kind }: WaitingRun, { outcome }: RunDecision): { reason: string } {
  if (outcome === 'Rejected') return { reason: 'RunRejected' };
  return kind === 'Job' ? { reason: 'JobApprovalTimedOut' } : { reason: 'PodApprovalTimedOut' };
}

/**
 * Keeps a run from starting: a Job is suspended, and its controller deletes its pods; a pod that
 * belongs to nothing is deleted. What another workload made anew would ask again, so it waits on.
 *
 * @returns whether anything was written
 */
async function stopRun(
  client: Pick<KubeClient, 'mergePatch' | 'delete'>,
  { job, kind, pods }: WaitingRun,
  sentence: string,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    if (kind === 'Pod') {
      const alone = pods.filter(({ metadata }) => (metadata.ownerReferences ?? []).length === 0);
      for (const { metadata } of alone) {
        const { namespace = '', name, uid } = metadata;
        await client.delete(
          resources.pods,
          { namespace, name },
          { ...(uid !== undefined && { uid }), signal },
        );
      }
      return alone.length > 0;
    }
    if (job === undefined || job.isPaused || job.finished) return false;
    const { namespace, name, uid } = job.metadata;
    await client.mergePatch(
      resources.jobs,
      { namespace, name },
      {
        metadata: { uid, annotations: { [annotation.runRejected]: sentence } },
        spec: { suspend: true },
      },
      { signal },
    );
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

/** Which keys (`namespace/name` of a Workflow) a pod that waits concerns. */
export function keysForPod({ metadata, spec, codeDigest }: Pod): string[] {
  if (codeDigest === undefined) return [];
  return [`${metadata.namespace ?? ''}/${spec?.serviceAccountName ?? ''}`];
}
