import { conditionOf, isTrue } from '../api/conditions.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation, label } from '../api/names.ts';
import { keyOf, splitKey, type KubeObject, type Namespace, type Pod } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { RevokedTokens } from '../guardrails/credentials/revoked-tokens.ts';
import type { SecretStore } from '../guardrails/secret-store/store.ts';
import type { Workflow } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { Carriers } from '../guardrails/kill-switch/carriers.ts';
import { clusterKillSwitchOver } from '../guardrails/kill-switch/cluster.ts';
import { Contests } from '../guardrails/kill-switch/contested.ts';
import { probeFence } from '../guardrails/kill-switch/fence.ts';
import {
  releaseFindings,
  stopCounts,
  stopFindings,
  type ReleaseProgress,
  type StopProgress,
} from '../guardrails/kill-switch/findings.ts';
import type { ForeignKind } from '../guardrails/kill-switch/foreign-kinds.ts';
import { ForeignWorkloads, isQuiet } from '../guardrails/kill-switch/foreign.ts';
import { heldBack } from '../guardrails/kill-switch/held-back.ts';
import { Ladder, type LadderOptions, type LadderStores } from '../guardrails/kill-switch/ladder.ts';
import type { Pausing } from '../guardrails/kill-switch/pausing.ts';
import {
  coveredIn,
  isEngaging,
  isLatched,
  isLive,
  isPausable,
  isReleasing,
  latchOf,
  nameOf,
  phaseOf,
  releaserOf,
  runsUnder,
} from '../guardrails/kill-switch/plan.ts';
import { pokeOwners } from '../guardrails/kill-switch/pokes.ts';
import { listHeldWorkloads, restoreWorkload } from '../guardrails/kill-switch/restore.ts';
import { awaitIdentities, handOverKept, isStillStopped } from '../guardrails/kill-switch/return.ts';
import { remainingPods } from '../guardrails/kill-switch/rungs.ts';
import { deletePods, findPods, pauseWorkloads } from '../guardrails/kill-switch/stop.ts';
import { isGuarded } from '../guardrails/requirements.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isAlreadyExists, isNotFound } from '../runtime/errors.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import { assertAllDone, forEachBounded } from '../runtime/parallel.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';
import { KillSwitchReport, type KillSwitchMetrics } from './kill-switch-report.ts';

export interface KillSwitchControllerOptions {
  client: KubeClient;
  statusWriter: StatusWriter;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  metrics: KillSwitchMetrics;
  killSwitches: ReadStore<KillSwitch>;
  workflows: ReadStore<Workflow>;
  identities: ReadStore<AutomationIdentity>;
  namespaces: ReadStore<Namespace>;
  operatorNamespace: string;
  ladder: LadderStores;
  /** Policies that deny what others allow. */
  plugIn: LadderOptions['plugIn'];
  /** Shared with the identities, whose controller withdraws tokens too. */
  revokedTokens: RevokedTokens;
  /** Where copies of credentials are. */
  secretStore: Pick<SecretStore, 'withdraw' | 'placeOf'>;
  /** Indexed by `namespace` and `identity` (`namespace/serviceAccountName`). */
  workloads: IndexedStore<Workload>;
  /** Indexed by `namespace` and `identity` (`namespace/serviceAccountName`). */
  pods: IndexedStore<Pod>;
  pausing: Pausing;
  /** Whether workloads are paused by patch, because admission rewrites nothing. */
  pausesByPatch: () => boolean;
  /** {@link KeepEvidence} */
  keepEvidence?: KeepEvidence;
  /** Kinds of other projects that are paused as well. */
  foreignKinds: readonly ForeignKind[];
  /** Requests in flight at a time, for one kill. */
  parallelism: number;
  /** Longest grace that a pod gets, in seconds. */
  podGraceSeconds: number;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Stops and releases, one key (`namespace/name` of a KillSwitch) at a time: latch, prove the fence,
 * pause workloads, delete pods, take away what else could be used; on release lift the fence, prove
 * that, wait for the identities, put workloads back, delete the KillSwitch last. Every step is a
 * function of what stands in the API, so it runs on every replica without leadership, and a repeat
 * or a crash changes nothing.
 *
 * Here is the order of the steps; each is in `guardrails/kill-switch`, and what is told of them in
 * {@link KillSwitchReport}.
 */
export class KillSwitchController implements Reconciler {
  readonly name = 'kill-switch';
  readonly #options: KillSwitchControllerOptions;
  readonly #carriers: Carriers;
  readonly #contests: Contests;
  readonly #foreign: ForeignWorkloads;
  readonly #ladder: Ladder;
  readonly #report: KillSwitchReport;

  constructor(options: KillSwitchControllerOptions) {
    const { client, clock, metrics, parallelism, workloads } = options;
    this.#options = options;
    const report = new KillSwitchReport(options);
    this.#report = report;
    this.#carriers = new Carriers(options);
    const { ladder: stores, plugIn, revokedTokens: revoked, secretStore } = options;
    this.#ladder = new Ladder({
      client,
      stores,
      plugIn,
      revoked,
      secretStore,
      operatorNamespace: options.operatorNamespace,
      clock,
    });
    this.#contests = new Contests({
      clock,
      onPausedAgain: (kind) => metrics.countContestedWrite(kind),
    });
    this.#foreign = new ForeignWorkloads({
      client,
      clock,
      kinds: options.foreignKinds,
      workloads,
      parallelism,
      onEnded: (killSwitch, names) => report.endedForGood(killSwitch, names),
    });
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const { client, killSwitches } = this.#options;
    const { signal } = context;
    const cached = killSwitches.get(key);
    if (phaseOf(cached, this.#carriers.cached(key)) === 'Idle') {
      this.#foreign.forget(key);
      return {};
    }
    if (cached !== undefined && this.#isSettled(key, cached)) {
      // Nothing is left to do, as long as the fence stands: somebody may take policies away.
      const fence = await probeFence(client, cached, signal);
      const foreign = await this.#foreign.stop(cached, context);
      if (fence === 'Denied' && isQuiet(foreign)) return { requeueAfterMs: fenceCheckMs };
    }

    // What follows stops or starts things, so it rests on the API server's word, not on a cache
    // that may lag behind a release.
    const { namespace = '', name } = splitKey(key);
    const [killSwitch, engaging] = await Promise.all([
      client.get(resources.killSwitches, { namespace, name }, { signal }),
      this.#carriers.engaging(key, signal),
    ]);
    switch (phaseOf(killSwitch, engaging)) {
      case 'Idle':
        this.#foreign.forget(key);
        return {};
      case 'Latch':
        return this.#latch(engaging, context);
      case 'CancelRelease':
        return this.#cancelRelease(killSwitch, engaging, context);
      case 'Stop':
        return this.#stop(killSwitch, engaging, context);
      case 'Release':
        this.#foreign.forget(key);
        return this.#release(killSwitch, context);
    }
  }

  /** Engaged, proven and reported, with nothing new to stop: the steady state of a kill. */
  #isSettled(key: string, killSwitch: KillSwitch): boolean {
    const carriers = this.#carriers.cached(key);
    const workloads = this.#workloadsOf(killSwitch);
    const { status } = this.#contests.finding(workloads);
    return (
      phaseOf(killSwitch, carriers) === 'Stop' &&
      carriers.filter(isEngaging).every(isLatched) &&
      isTrue(killSwitch.status?.conditions, 'Ready') &&
      this.#isGuarded(killSwitch) &&
      isTrue(killSwitch.status?.conditions, 'Contested') === (status === 'True') &&
      !workloads.some(isPausable) &&
      !this.#podsOf(killSwitch).some(isLive) &&
      this.#ladder.isQuiet(killSwitch)
    );
  }

  async #latch(
    engaging: readonly KubeObject[],
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    const [first] = engaging;
    if (first === undefined) return {};
    const { client } = this.#options;
    try {
      const latched = await client.create(resources.killSwitches, latchOf(first), {
        signal: context.signal,
      });
      const { engagedBy = 'unknown', reason } = latched.spec;
      context.log.warn('Kill switch engaged by annotation', { engagedBy, reason });
      return await this.#stop(latched, engaging, context);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      return { retry: true };
    }
  }

  async #stop(
    killSwitch: KillSwitch | undefined,
    engaging: readonly KubeObject[],
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    if (killSwitch === undefined) return {};
    const { client, clock, pausing, parallelism, podGraceSeconds } = this.#options;
    const { signal } = context;
    const { namespace = '' } = killSwitch.metadata;
    const contests = this.#contests;
    const stopOptions = { client, pausing, parallelism, podGraceSeconds, contests, signal };
    const guarded = this.#isGuarded(killSwitch);
    if (!guarded) {
      // Without a fence whatever is deleted comes back: nothing would be stopped, only disturbed.
      const workloads = this.#workloadsOf(killSwitch);
      const pods = this.#podsOf(killSwitch).filter(isLive);
      const unguarded = { namespace, guarded, fence: 'Allowed', workloads, pods } as const;
      const findings = stopFindings({ ...unguarded, rungs: [], now: clock() });
      await this.#report.progress(killSwitch, findings, stopCounts(unguarded, []), context.log);
      return {};
    }

    const probing = probeFence(client, killSwitch, signal);
    // Pausing and pods wait for none of it; a failure is met where they are awaited.
    const beside = Promise.all([
      this.#foreign.stop(killSwitch, context),
      this.#ladder.climb(killSwitch, probing, context),
    ]);
    beside.catch(() => undefined);
    const [fence, paused] = await Promise.all([
      probing,
      pauseWorkloads(killSwitch, this.#workloadsOf(killSwitch), stopOptions),
      this.#carriers.markLatched(engaging, context),
    ]);
    const stored = new Map(
      paused.flatMap((outcome) =>
        'result' in outcome && outcome.result !== undefined
          ? [[outcome.item.metadata.uid, outcome.result] as const]
          : [],
      ),
    );
    const workloads = this.#workloadsOf(killSwitch).map(
      (workload) => stored.get(workload.metadata.uid) ?? workload,
    );
    const pods = await findPods(killSwitch, this.#podsOf(killSwitch), stopOptions, context);
    const deleted = await deletePods(pods ?? [], stopOptions);
    this.#report.podsDeleted(killSwitch, deleted);
    const [foreign, climb] = await beside;
    const progress: StopProgress = {
      namespace,
      guarded,
      fence,
      byPatch: this.#options.pausesByPatch(),
      workloads,
      pods,
      foreign,
      rungs: climb.findings,
      now: clock(),
    };
    const findings = [contests.finding(workloads), ...stopFindings(progress)];
    const counts = stopCounts(progress, [...remainingPods(pods ?? []), ...climb.remaining]);
    await this.#report.progress(climb.killSwitch, findings, counts, context.log);
    this.#report.notKept(climb.killSwitch, climb.cut);
    assertAllDone(paused, 'pause workloads');
    assertAllDone(deleted, 'delete pods');
    assertAllDone(
      climb.errors.map((error) => ({ item: killSwitch, error })),
      'take away what could be used',
    );
    const ready = findings.some(({ type, status }) => type === 'Ready' && status === 'True');
    if (ready) return { requeueAfterMs: fenceCheckMs };
    // A fence that isn't proven or a workload that isn't paused was met by an API server that
    // lags; pods that end wake the key by themselves.
    const isLagging =
      fence !== 'Denied' ||
      workloads.some(isPausable) ||
      foreign.running.length > 0 ||
      climb.isLagging;
    if (isLagging || pods === undefined) return { retry: true };
    const lookAgainMs = pods.length > 0 || !isQuiet(foreign) ? podsCheckMs : fenceCheckMs;
    return { requeueAfterMs: Math.min(lookAgainMs, climb.dueMs ?? lookAgainMs) };
  }

  async #cancelRelease(
    killSwitch: KillSwitch | undefined,
    engaging: readonly KubeObject[],
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    if (killSwitch === undefined) return {};
    const { namespace = '', name, uid, resourceVersion } = killSwitch.metadata;
    const engaged = await this.#options.client.mergePatch(
      resources.killSwitches,
      { namespace, name },
      {
        metadata: {
          uid,
          // What was decided on; somebody may ask for another release meanwhile.
          resourceVersion,
          labels: { [label.releasing]: null },
          annotations: {
            [annotation.release]: null,
            [annotation.releasedBy]: null,
            [annotation.breakGlass]: null,
          },
        },
      },
      { signal: context.signal },
    );
    this.#report.releaseCancelled(killSwitch, context.log);
    return this.#stop(engaged, engaging, context);
  }

  async #release(
    killSwitch: KillSwitch | undefined,
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    if (killSwitch === undefined) return {};
    const { client, clock, parallelism, pausing, keepEvidence = notKept } = this.#options;
    const { signal, log } = context;
    const { namespace = '', name, uid = '' } = killSwitch.metadata;
    if (!saysRelease(killSwitch)) {
      if (!(await keepEvidence(killSwitch, signal))) return { retry: true };
      // That took its time, in which somebody may have engaged it again.
      const engaging = await this.#carriers.engaging(keyOf(killSwitch), signal);
      if (engaging.length > 0) return { retry: true };
    }
    const releasedBy = releaserOf(killSwitch);
    const over = await this.#clusterKillSwitchOver(killSwitch, signal);
    if (over !== undefined) {
      // That one takes this over; until then what it stops stays stopped.
      const stopped = { lifted: false, releasedBy, stoppedBy: over.metadata.name, waiting: [] };
      await this.#report.progress(killSwitch, releaseFindings(stopped), {}, log);
      return { retry: true };
    }
    const releasing = isReleasing(killSwitch)
      ? killSwitch
      : await this.#beginRelease(killSwitch, context);
    const report = (progress: Omit<ReleaseProgress, 'releasedBy'>): Promise<void> =>
      this.#report.progress(releasing, releaseFindings({ ...progress, releasedBy }), {}, log);

    const lifted = (await probeFence(client, releasing, signal)) === 'Allowed';
    if (!lifted) {
      await report({ lifted, waiting: [] });
      return { retry: true };
    }
    const listed = await client.list(resources.killSwitches, { namespace, signal });
    const others = listed.filter(({ metadata }) => metadata.name !== name);
    const identities = coveredIn(this.#options.ladder.identities, releasing);
    const awaited = await awaitIdentities(releasing, identities, others, {
      client,
      now: clock(),
      signal,
    });
    if (awaited.length > 0) {
      await report({ lifted, awaited, waiting: [] });
      // An identity that changes wakes the key by itself.
      return { requeueAfterMs: identityCheckMs };
    }
    const engaged = others.filter((other) => !isReleasing(other));
    const paused = await listHeldWorkloads(client, releasing, engaged, signal);

    const outcomes = await forEachBounded(paused, parallelism, (workload) =>
      restoreWorkload(releasing, workload, { client, pausing, now: clock(), signal }),
    );
    const unrestorable = outcomes.flatMap(({ item, ...outcome }) =>
      'result' in outcome && outcome.result.state === 'Unrestorable'
        ? [{ name: nameOf(item), why: outcome.result.why }]
        : [],
    );
    if (unrestorable.length < paused.length) {
      // Whatever was put back is looked at once more, before the KillSwitch goes.
      const waiting = outcomes.flatMap((outcome) =>
        'result' in outcome && outcome.result.state !== 'Waiting' ? [] : [nameOf(outcome.item)],
      );
      if (waiting.length > 0) await report({ lifted, waiting });
      assertAllDone(outcomes, 'restore workloads');
      return { retry: true };
    }

    const foreign = await this.#foreign.release(releasing, engaged, signal);
    if (foreign.waiting.length > 0) {
      await report({ lifted, waiting: foreign.waiting });
      return { retry: true };
    }
    const objects = [...this.#workloadsOf(releasing), ...foreign.objects];
    await pokeOwners(objects, { client, now: clock(), parallelism }, context);

    await handOverKept(releasing, others, { client, signal });
    if (!(await keepEvidence(releasing, signal))) return { retry: true };
    const isFree = ({ metadata }: KubeObject): boolean => !isStillStopped(others, metadata.name);
    const held = heldBack(
      coveredIn(this.#options.ladder.workflows, releasing).filter(isFree),
      identities.filter(isFree),
    );
    const isOurs = await client.delete(
      resources.killSwitches,
      { namespace, name },
      { uid, signal },
    );
    // Another replica was faster, and told.
    if (!isOurs) return {};
    this.#report.released(releasing, {
      carriers: this.#carriers.cached(keyOf(releasing)),
      notRestored: [...unrestorable, ...foreign.notRestored],
      held,
      workloads: this.#workloadsOf(releasing),
      log,
    });
    return {};
  }

  /**
   * The ClusterKillSwitch that stops it as well, as the API server has it. A fence that is being
   * lifted is lifted: by the release of a ClusterKillSwitch, or by who broke the glass.
   */
  async #clusterKillSwitchOver(
    killSwitch: KillSwitch,
    signal: AbortSignal,
  ): Promise<ClusterKillSwitch | undefined> {
    if (isReleasing(killSwitch)) return undefined;
    const { client, namespaces, workflows, operatorNamespace } = this.#options;
    const { namespace = '' } = killSwitch.metadata;
    // No kill waits for a cache of theirs, which may be empty still.
    const others = await client
      .list(resources.clusterKillSwitches, { signal })
      .catch((error: unknown) => {
        // The kind isn't served.
        if (isNotFound(error)) return [];
        throw error;
      });
    return clusterKillSwitchOver(
      killSwitch,
      namespaces.get(namespace),
      workflows.get(keyOf(killSwitch)),
      { others, operatorNamespace },
    );
  }

  /** From here on the fence is lifted: the policies go by the label. */
  async #beginRelease(
    killSwitch: KillSwitch,
    { signal, log }: ReconcileContext,
  ): Promise<KillSwitch> {
    const { namespace = '', name, uid, resourceVersion } = killSwitch.metadata;
    const releasing = await this.#options.client.mergePatch(
      resources.killSwitches,
      { namespace, name },
      { metadata: { uid, resourceVersion, labels: { [label.releasing]: 'true' } } },
      { signal },
    );
    log.warn('Kill switch is being released', { releasedBy: releaserOf(killSwitch) });
    return releasing;
  }

  #isGuarded({ metadata }: KillSwitch): boolean {
    return isGuarded(this.#options.namespaces.get(metadata.namespace ?? ''));
  }

  #workloadsOf(killSwitch: KillSwitch): readonly Workload[] {
    return runsUnder(killSwitch, this.#options.workloads);
  }

  #podsOf(killSwitch: KillSwitch): readonly Pod[] {
    return runsUnder(killSwitch, this.#options.pods);
  }
}

/**
 * Writes down what a kill says, before its release takes that away, and before it goes.
 *
 * @returns whether the release may go on
 */
export type KeepEvidence = (
  kill: KillSwitch | ClusterKillSwitch,
  signal: AbortSignal,
) => Promise<boolean>;

/** Its status tells of the release, and no more how far the kill came. */
export function saysRelease({ status }: KillSwitch | ClusterKillSwitch): boolean {
  return conditionOf(status?.conditions, 'Ready')?.reason === 'Releasing';
}

/** Where no evidence is kept. */
export const notKept: KeepEvidence = () => Promise.resolve(true);

/** How often the fence of a kill that is settled is asked whether it still stands. */
const fenceCheckMs = 60_000;
/** While pods end, in case that the event of the last one is lost. */
const podsCheckMs = 5000;
/** While a release waits for an identity, in case that an event is lost. */
const identityCheckMs = 2000;
