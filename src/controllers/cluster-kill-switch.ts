import { isDeepStrictEqual } from 'node:util';
import type { ClusterKillSwitch, ClusterKillSwitchStatus } from '../api/cluster-kill-switch.ts';
import { conditionsFrom, isTrue } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { label } from '../api/names.ts';
import type { Namespace } from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import {
  isByWorkflow,
  isMember,
  memberOf,
  partingOf,
  reached,
  releaseOf,
  releaseReport,
  selectedBy,
  stopReport,
  stopReportByWorkflow,
  takeOver,
  withUncovered,
  type ClusterReport,
  type ClusterView,
  type Selected,
} from '../guardrails/kill-switch/cluster.ts';
import { fencedWorkflows } from '../guardrails/kill-switch/cluster-fence.ts';
import { probeClusterFence } from '../guardrails/kill-switch/fence.ts';
import {
  isLeaving,
  isReleaseAsked,
  isReleasing,
  releaserOf,
} from '../guardrails/kill-switch/plan.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { ApiError, isAlreadyExists, isConflict, isNotFound } from '../runtime/errors.ts';
import { assertAllDone, forEachBounded } from '../runtime/parallel.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';
import { notKept, saysRelease, type KeepEvidence } from './kill-switch.ts';

export interface ClusterKillSwitchControllerOptions {
  client: KubeClient;
  statusWriter: StatusWriter;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  clusterKillSwitches: ReadStore<ClusterKillSwitch>;
  killSwitches: ReadStore<KillSwitch>;
  namespaces: ReadStore<Namespace>;
  workflows: Pick<ReadStore<Workflow>, 'get' | 'list'>;
  /** Whether the operator acts in a namespace. Where it doesn't, nothing but the fence stops anything. */
  covers: (namespace: string) => boolean;
  operatorNamespace: string;
  /** {@link KeepEvidence} */
  keepEvidence?: KeepEvidence;
  /** Requests in flight at a time. */
  parallelism: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Stops many namespaces by one object. Its fence is the API server's and needs no operator; this
 * engages a KillSwitch in each namespace, which stops what runs, and releases those with it. Of an
 * owner or a risk, it lists the Workflows in the status, which is the fence, and engages one for each. A KillSwitch that
 * somebody engaged there himself stays when the cluster's goes. Every step is a function of what
 * stands in the API, so it runs on every replica without leadership.
 */
export class ClusterKillSwitchController implements Reconciler {
  readonly name = 'cluster-kill-switch';
  readonly #options: ClusterKillSwitchControllerOptions;

  constructor(options: ClusterKillSwitchControllerOptions) {
    this.#options = options;
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const { client, clusterKillSwitches } = this.#options;
    if (clusterKillSwitches.get(key) === undefined) return {};
    // It stops or starts things, so it rests on the API server's word.
    const clusterKillSwitch = await client.get(
      resources.clusterKillSwitches,
      { name: key },
      { signal: context.signal },
    );
    if (clusterKillSwitch === undefined) return {};
    return isReleaseAsked(clusterKillSwitch)
      ? this.#release(clusterKillSwitch, context)
      : this.#stop(clusterKillSwitch, context);
  }

  async #stop(
    asked: ClusterKillSwitch,
    { signal, log }: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { client, parallelism, covers } = this.#options;
    const selected = selectedBy(this.#view(asked));
    const fencing = isByWorkflow(asked) ? await this.#fence(asked, selected, signal) : { asked };
    // It was released meanwhile.
    if (fencing === undefined) return { retry: true };
    const { asked: clusterKillSwitch, error } = fencing;
    const missing = selected.filter(
      ({ namespace, killSwitch }) =>
        covers(namespace) && (killSwitch === undefined || isLeaving(killSwitch)),
    );
    const [fence, engaged] = await Promise.all([
      probeClusterFence(client, clusterKillSwitch, signal),
      forEachBounded(missing, parallelism, (one) => this.#engage(clusterKillSwitch, one, signal)),
    ]);
    if (missing.length > 0) {
      log.warn('Kill switches engaged for a ClusterKillSwitch', {
        killSwitches: missing.length,
        engagedBy: clusterKillSwitch.spec.engagedBy,
      });
    }
    const uncovered = selected.flatMap(({ namespace }) => (covers(namespace) ? [] : [namespace]));
    const report = withUncovered(
      isByWorkflow(clusterKillSwitch)
        ? stopReportByWorkflow(fence, clusterKillSwitch.status?.fenced, selected)
        : stopReport(fence, selected),
      [...new Set(uncovered)],
    );
    await this.#report(clusterKillSwitch, report);
    assertAllDone(engaged, 'engage kill switches');
    if (error !== undefined) throw error;
    const isReady = report.findings.some(
      ({ type, status }) => type === 'Ready' && status === 'True',
    );
    // What changes in a namespace wakes the key by itself; an API server that lags doesn't.
    return fence === 'Denied' || isReady ? { requeueAfterMs: checkMs } : { retry: true };
  }

  /**
   * One write, by which admission refuses what runs as any of them. It adds to what the API server
   * has, on exactly that version: another replica may add what this one's caches don't know yet.
   *
   * @returns what stands now, and why not all stands in it; `undefined`: it isn't engaged any more
   */
  async #fence(
    asked: ClusterKillSwitch,
    selected: readonly Selected[],
    signal: AbortSignal,
    tries = fenceTries,
  ): Promise<{ asked: ClusterKillSwitch; error?: ApiError } | undefined> {
    const { client } = this.#options;
    const { name, uid, resourceVersion } = asked.metadata;
    const before = asked.status?.fenced ?? {};
    const fenced = fencedWorkflows(before, selected, this.#members(asked));
    if (isDeepStrictEqual(before, fenced)) return { asked };
    try {
      const written = await client.mergePatch(
        resources.clusterKillSwitches,
        { name },
        { metadata: { uid, resourceVersion }, status: { fenced } },
        { subresource: 'status', signal },
      );
      return { asked: written };
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // What is refused must not keep the KillSwitches away.
      if (!isConflict(error) || tries <= 1) return { asked, error };
    }
    const now = await client.get(resources.clusterKillSwitches, { name }, { signal });
    if (now === undefined || now.metadata.uid !== uid || isReleaseAsked(now)) return undefined;
    return this.#fence(now, selected, signal, tries - 1);
  }

  /** What is being released there is taken over. */
  async #engage(
    clusterKillSwitch: ClusterKillSwitch,
    { namespace, name, killSwitch: standing }: Selected,
    signal: AbortSignal,
  ): Promise<void> {
    const { client, events } = this.#options;
    try {
      if (standing === undefined) {
        const member = memberOf(clusterKillSwitch, namespace, name);
        await client.create(resources.killSwitches, member, { signal });
        return;
      }
      await client.mergePatch(
        resources.killSwitches,
        { namespace, name: standing.metadata.name },
        takeOver(clusterKillSwitch, standing),
        { signal },
      );
      events.warning(
        subjectOf(resources.killSwitches, standing),
        'ReleaseCancelled',
        `The ClusterKillSwitch ${clusterKillSwitch.metadata.name} stops it again.`,
      );
    } catch (error) {
      // Another replica was faster, or somebody stopped it himself; or it went just now.
      if (!isAlreadyExists(error) && !isConflict(error) && !isNotFound(error)) throw error;
    }
  }

  async #release(
    clusterKillSwitch: ClusterKillSwitch,
    { signal, log }: ReconcileContext,
  ): Promise<ReconcileResult> {
    const { client, parallelism, namespaces, workflows, events } = this.#options;
    const { keepEvidence = notKept } = this.#options;
    const { name, uid = '', resourceVersion } = clusterKillSwitch.metadata;
    if (!saysRelease(clusterKillSwitch) && !(await keepEvidence(clusterKillSwitch, signal))) {
      return { retry: true };
    }
    const releasing = isReleasing(clusterKillSwitch)
      ? clusterKillSwitch
      : await client.mergePatch(
          resources.clusterKillSwitches,
          { name },
          { metadata: { uid, resourceVersion, labels: { [label.releasing]: 'true' } } },
          { signal },
        );
    const isLifted = (await probeClusterFence(client, releasing, signal)) === 'Allowed';
    if (!isLifted) {
      await this.#report(releasing, releaseReport(releasing, false, this.#members(releasing)));
      return { retry: true };
    }
    // A cache may lag behind a member that another replica made a moment ago.
    const listed = await client.list(resources.killSwitches, {
      labelSelector: `${label.clusterKillSwitch}=${name}`,
      signal,
    });
    const members = listed.filter((killSwitch) => isMember(releasing, killSwitch));
    const view = this.#view(releasing);
    const outcomes = await forEachBounded(members, parallelism, async (member) => {
      const { namespace = '' } = member.metadata;
      const workflow = workflows.get(`${namespace}/${member.metadata.name}`);
      const parting = partingOf(member, namespaces.get(namespace), workflow, view);
      if (parting.to === 'Wait') return;
      const patch =
        parting.to === 'Release'
          ? releaseOf(releasing, member)
          : {
              metadata: {
                uid: member.metadata.uid,
                labels: { [label.clusterKillSwitch]: parting.to.metadata.name },
              },
            };
      try {
        await client.mergePatch(
          resources.killSwitches,
          { namespace, name: member.metadata.name },
          patch,
          { signal },
        );
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    });
    if (members.length > 0) {
      await this.#report(releasing, releaseReport(releasing, true, members));
      assertAllDone(outcomes, 'release kill switches');
      // Each that goes wakes the key by itself.
      return { requeueAfterMs: releaseCheckMs };
    }
    if (!(await keepEvidence(releasing, signal))) return { retry: true };
    const isOurs = await client.delete(resources.clusterKillSwitches, { name }, { uid, signal });
    if (!isOurs) return {};
    const releasedBy = releaserOf(releasing);
    log.warn('ClusterKillSwitch released', { releasedBy });
    events.normal(
      subjectOf(resources.clusterKillSwitches, releasing),
      'Released',
      `Released by ${releasedBy}.`,
    );
    return {};
  }

  #view(clusterKillSwitch: ClusterKillSwitch): ClusterView {
    const { clusterKillSwitches, namespaces, workflows, killSwitches, operatorNamespace } =
      this.#options;
    return {
      clusterKillSwitch,
      others: [...clusterKillSwitches.list()].filter(
        ({ metadata }) => metadata.name !== clusterKillSwitch.metadata.name,
      ),
      namespaces: namespaces.list(),
      workflows: workflows.list(),
      killSwitchOf: (namespace, name) => killSwitches.get(`${namespace}/${name}`),
      operatorNamespace,
    };
  }

  #members(clusterKillSwitch: ClusterKillSwitch): KillSwitch[] {
    return [...this.#options.killSwitches.list()].filter((killSwitch) =>
      isMember(clusterKillSwitch, killSwitch),
    );
  }

  async #report(
    clusterKillSwitch: ClusterKillSwitch,
    { findings, counts }: ClusterReport,
  ): Promise<void> {
    const { statusWriter, events, clock } = this.#options;
    const { generation } = clusterKillSwitch.metadata;
    const before = clusterKillSwitch.status?.conditions;
    const status: ClusterKillSwitchStatus = {
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions: conditionsFrom(findings, before, generation, clock()),
      ...counts,
    };
    try {
      await statusWriter.write(resources.clusterKillSwitches, clusterKillSwitch, status);
    } catch (error) {
      if (isNotFound(error)) return;
      throw error;
    }
    const about = subjectOf(resources.clusterKillSwitches, clusterKillSwitch);
    const lost = findings.find(({ reason }) => reason === 'ProbeAllowed');
    if (lost !== undefined && isTrue(before, 'Fenced')) {
      events.warning(about, 'FenceLost', lost.message);
    }
    for (const { type, message } of reached(clusterKillSwitch, findings)) {
      events.normal(about, type, message);
    }
  }
}

/** How often the fence is asked whether it still stands, and whether a namespace was missed. */
const checkMs = 60_000;
/** While members are released, in case that an event is lost. */
const releaseCheckMs = 5_000;
/** Writes of one look that other replicas may overtake. */
const fenceTries = 5;
