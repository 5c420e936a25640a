import { conditionsFrom, isTrue, type Finding } from '../api/conditions.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import {
  maxRemaining,
  wholeNamespaceName,
  type KillSwitch,
  type KillSwitchStatus,
} from '../api/kill-switch.ts';
import { annotation, label } from '../api/names.ts';
import { keyOf, splitKey, type KubeObject, type Namespace, type Pod } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import type { Workload } from '../api/workload.ts';
import { Contests } from '../guardrails/kill-switch/contested.ts';
import { probeFence } from '../guardrails/kill-switch/fence.ts';
import { Ladder, type Climb, type LadderStores } from '../guardrails/kill-switch/ladder.ts';
import {
  coveredIn,
  covers,
  isBare,
  isEngaging,
  isLatched,
  isLive,
  isPausable,
  isReleasing,
  isToBeDeleted,
  latchOf,
  nameOf,
  phaseOf,
  releaseFindings,
  some,
  stopFindings,
} from '../guardrails/kill-switch/plan.ts';
import {
  releaseForeign,
  stopForeign,
  type ForeignRelease,
  type ForeignStop,
} from '../guardrails/kill-switch/foreign.ts';
import {
  isInScope,
  type ForeignKind,
  type Scope,
} from '../guardrails/kill-switch/foreign-kinds.ts';
import { ownersOf, poke } from '../guardrails/kill-switch/pokes.ts';
import { listHeldWorkloads, restoreWorkload } from '../guardrails/kill-switch/restore.ts';
import type { Pausing } from '../guardrails/kill-switch/pausing.ts';
import { awaitIdentities, handOverKept } from '../guardrails/kill-switch/return.ts';
import { remainingPods } from '../guardrails/kill-switch/rungs.ts';
import { deletePods, listLivePods, pauseWorkloads } from '../guardrails/kill-switch/stop.ts';
import { isGuarded } from '../guardrails/requirements.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isAlreadyExists, isNotFound } from '../runtime/errors.ts';
import { assertAllDone, forEachBounded, type Outcome } from '../runtime/parallel.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { ReadStore } from '../runtime/store.ts';

/** What was found of other projects' kinds, and when. */
interface ForeignLook extends ForeignStop {
  uid: string | undefined;
  /** Milliseconds since the epoch. */
  at: number;
}

/** What the kill switch reports to the metrics. */
export interface KillSwitchMetrics {
  /** Seconds from the engagement until a rung of the ladder was reached. */
  observeStop(rung: string, seconds: number): void;
  /** A workload that something had woken was paused again. */
  countContestedWrite(kind: string): void;
  /** A release without a second person or without an operator. */
  countBreakGlass(): void;
}

export interface KillSwitchControllerOptions {
  client: KubeClient;
  statusWriter: StatusWriter;
  events: EventRecorder;
  metrics: KillSwitchMetrics;
  killSwitches: ReadStore<KillSwitch>;
  workflows: ReadStore<Workflow>;
  identities: ReadStore<AutomationIdentity>;
  namespaces: ReadStore<Namespace>;
  ladder: LadderStores;
  /** Indexed by `namespace` and `identity` (`namespace/serviceAccountName`). */
  workloads: IndexedStore<Workload>;
  /** Indexed by `namespace` and `identity` (`namespace/serviceAccountName`). */
  pods: IndexedStore<Pod>;
  pausing: Pausing;
  /** Whether workloads are paused by patch, because admission rewrites nothing. */
  pausesByPatch: () => boolean;
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
 */
export class KillSwitchController implements Reconciler {
  readonly name = 'kill-switch';
  readonly #options: KillSwitchControllerOptions;
  readonly #contests: Contests;
  /** By key, of engaged ones. */
  readonly #foreign = new Map<string, ForeignLook>();
  readonly #ladder: Ladder;

  constructor(options: KillSwitchControllerOptions) {
    this.#options = options;
    this.#ladder = new Ladder({
      client: options.client,
      stores: options.ladder,
      clock: options.clock,
    });
    this.#contests = new Contests({
      clock: options.clock,
      onPausedAgain: (kind) => options.metrics.countContestedWrite(kind),
    });
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const { client, killSwitches } = this.#options;
    const { signal } = context;
    const cached = killSwitches.get(key);
    if (phaseOf(cached, this.#carriersOf(key)) === 'Idle') return {};
    if (cached !== undefined && this.#isSettled(key, cached)) {
      // Nothing is left to do, as long as the fence stands: somebody may take policies away.
      const fence = await probeFence(client, cached, signal);
      const foreign = await this.#stopForeign(cached, context);
      if (fence === 'Denied' && isQuiet(foreign)) return { requeueAfterMs: fenceCheckMs };
    }

    // What follows stops or starts things, so it rests on the API server's word, not on a cache
    // that may lag behind a release.
    const { namespace = '', name } = splitKey(key);
    const [killSwitch, ...carriers] = await Promise.all([
      client.get(resources.killSwitches, { namespace, name }, { signal }),
      ...(name === wholeNamespaceName
        ? [client.get(resources.namespaces, { name: namespace }, { signal })]
        : [
            client.get(resources.workflows, { namespace, name }, { signal }),
            client.get(resources.automationIdentities, { namespace, name }, { signal }),
          ]),
    ]);
    const engaging = carriers.filter((one) => one !== undefined).filter(isEngaging);
    switch (phaseOf(killSwitch, engaging)) {
      case 'Idle':
        this.#foreign.delete(key);
        return {};
      case 'Latch':
        return this.#latch(engaging, context);
      case 'CancelRelease':
        return this.#cancelRelease(killSwitch, engaging, context);
      case 'Stop':
        return this.#stop(killSwitch, engaging, context);
      case 'Release':
        this.#foreign.delete(key);
        return this.#release(killSwitch, context);
    }
  }

  /** Engaged, proven and reported, with nothing new to stop: the steady state of a kill. */
  #isSettled(key: string, killSwitch: KillSwitch): boolean {
    const carriers = this.#carriersOf(key);
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
      await this.#report(context, killSwitch, findings, {
        workloads: countsOf(workloads),
        pods: { remaining: pods.length },
      });
      return {};
    }

    const probing = probeFence(client, killSwitch, signal);
    // Pausing and pods wait for none of it; a failure is met where they are awaited.
    const beside = Promise.all([
      this.#stopForeign(killSwitch, context),
      this.#ladder.climb(killSwitch, probing, context),
    ]);
    beside.catch(() => undefined);
    const [fence, paused] = await Promise.all([
      probing,
      pauseWorkloads(killSwitch, this.#workloadsOf(killSwitch), stopOptions),
      this.#markLatched(engaging, context),
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
    const pods = await this.#remainingPods(killSwitch, context);
    const deleted = await deletePods(pods ?? [], stopOptions);
    this.#announceBarePods(killSwitch, deleted);
    const [foreign, climb] = await beside;
    const byPatch = this.#options.pausesByPatch();
    const progress = { namespace, guarded, fence, byPatch, workloads, pods, foreign, now: clock() };
    const findings = [
      contests.finding(workloads),
      ...stopFindings({ ...progress, rungs: climb.findings }),
    ];
    const left = [...remainingPods(pods ?? []), ...climb.remaining].slice(0, maxRemaining);
    await this.#report(context, climb.killSwitch, findings, {
      workloads: countsOf(workloads, foreign),
      pods: { remaining: pods?.length ?? 0 },
      ...(left.length > 0 && { remaining: left }),
    });
    this.#warnOfLoss(climb);
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

  #warnOfLoss({ killSwitch, cut }: Climb): void {
    if (cut.length === 0) return;
    this.#options.events.warning(
      source(resources.killSwitches, killSwitch),
      'NotKept',
      `What others had on these ServiceAccounts is too much to be kept, and doesn't come back with the release: ${some(cut)}.`,
    );
  }

  /** `undefined` where the API server doesn't answer: unknown is never gone. */
  async #remainingPods(
    killSwitch: KillSwitch,
    { signal, log }: ReconcileContext,
  ): Promise<readonly Pod[] | undefined> {
    const { client, podGraceSeconds } = this.#options;
    const cached = this.#podsOf(killSwitch).filter(
      (pod) => isLive(pod) || isToBeDeleted(pod, podGraceSeconds),
    );
    if (cached.length > 0) return cached;
    try {
      return await listLivePods(client, killSwitch, signal);
    } catch (error) {
      log.warn('Pods of a kill could not be listed', { error });
      return undefined;
    }
  }

  /** They aren't watched, so they are looked at once a minute, and at once where one still runs. */
  async #stopForeign(
    killSwitch: KillSwitch,
    { signal, log }: ReconcileContext,
  ): Promise<ForeignStop> {
    const key = keyOf(killSwitch);
    const { client, clock, events, foreignKinds, parallelism } = this.#options;
    const { uid } = killSwitch.metadata;
    const last = this.#foreign.get(key);
    const isFresh = last?.uid === uid && clock() - (last?.at ?? 0) < foreignCheckMs;
    if (last !== undefined && isFresh && last.running.length === 0) return last;
    const options = { client, kinds: foreignKinds, parallelism, signal };
    const found = await stopForeign(killSwitch, this.#scopeOf(killSwitch), options);
    this.#foreign.set(key, { ...found, uid, at: clock() });
    if (found.unlisted.length > 0) {
      log.warn('Kinds of other projects could not be listed', { kinds: found.unlisted });
    }
    if (found.ended.length > 0) {
      events.warning(
        source(resources.killSwitches, killSwitch),
        'NotRestored',
        `Stopped for good; the release doesn't resume: ${some(found.ended, 10)}.`,
      );
    }
    return found;
  }

  #scopeOf(killSwitch: KillSwitch): Scope {
    const stopped = new Set(this.#workloadsOf(killSwitch).map(nameOf));
    return {
      covers: (serviceAccountName) => covers(killSwitch, serviceAccountName),
      isStopped: (kind, name) => stopped.has(`${kind} ${name}`),
    };
  }

  #announceBarePods(killSwitch: KillSwitch, deleted: readonly Outcome<Pod, void>[]): void {
    const bare = deleted.filter(
      (outcome) =>
        'result' in outcome &&
        isBare(outcome.item) &&
        outcome.item.metadata.deletionTimestamp === undefined,
    );
    if (bare.length === 0) return;
    const names = bare.map(({ item }) => `Pod ${item.metadata.name}`);
    this.#options.events.warning(
      source(resources.killSwitches, killSwitch),
      'NotRestored',
      `Deleted, and nothing creates them again: ${some(names, 10)}.`,
    );
  }

  async #cancelRelease(
    killSwitch: KillSwitch | undefined,
    engaging: readonly KubeObject[],
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    if (killSwitch === undefined) return {};
    const { client, events } = this.#options;
    const { namespace = '', name, uid, resourceVersion } = killSwitch.metadata;
    const engaged = await client.mergePatch(
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
    context.log.warn('Release cancelled: the kill switch was engaged again');
    events.warning(
      source(resources.killSwitches, killSwitch),
      'ReleaseCancelled',
      'The kill-switch annotation was set again while the release was under way; it stays engaged.',
    );
    return this.#stop(engaged, engaging, context);
  }

  async #release(
    killSwitch: KillSwitch | undefined,
    context: ReconcileContext,
  ): Promise<ReconcileResult> {
    if (killSwitch === undefined) return {};
    const { client, clock, events, parallelism, pausing } = this.#options;
    const { signal } = context;
    const { namespace = '', name, uid = '', resourceVersion } = killSwitch.metadata;
    const { annotations = {} } = killSwitch.metadata;
    const releasedBy = annotations[annotation.releasedBy] ?? 'unknown';

    let releasing = killSwitch;
    if (!isReleasing(killSwitch)) {
      releasing = await client.mergePatch(
        resources.killSwitches,
        { namespace, name },
        { metadata: { uid, resourceVersion, labels: { [label.releasing]: 'true' } } },
        { signal },
      );
      context.log.warn('Kill switch is being released', { releasedBy });
    }

    const lifted = (await probeFence(client, releasing, signal)) === 'Allowed';
    if (!lifted) {
      const findings = releaseFindings({ lifted, releasedBy, waiting: [] });
      await this.#report(context, releasing, findings, {});
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
      const findings = releaseFindings({ lifted, releasedBy, awaited, waiting: [] });
      await this.#report(context, releasing, findings, {});
      // An identity that changes wakes the key by itself.
      return { requeueAfterMs: identityCheckMs };
    }
    const engaged = others.filter((other) => !isReleasing(other));
    const held = await listHeldWorkloads(client, releasing, engaged, signal);

    const outcomes = await forEachBounded(held, parallelism, (workload) =>
      restoreWorkload(releasing, workload, { client, pausing, now: clock(), signal }),
    );
    const unrestorable = outcomes.flatMap((outcome) =>
      'result' in outcome && outcome.result.state === 'Unrestorable'
        ? [{ workload: outcome.item, why: outcome.result.why }]
        : [],
    );
    if (unrestorable.length < held.length) {
      // Whatever was put back is looked at once more, before the KillSwitch goes.
      const waiting = outcomes.flatMap((outcome) =>
        'result' in outcome && outcome.result.state !== 'Waiting' ? [] : [outcome.item],
      );
      if (waiting.length > 0) {
        const findings = releaseFindings({ lifted, releasedBy, waiting: waiting.map(nameOf) });
        await this.#report(context, releasing, findings, {});
      }
      assertAllDone(outcomes, 'restore workloads');
      return { retry: true };
    }

    const foreign = await this.#releaseForeign(releasing, engaged, context);
    if (foreign.waiting.length > 0) {
      const findings = releaseFindings({ lifted, releasedBy, waiting: foreign.waiting });
      await this.#report(context, releasing, findings, {});
      return { retry: true };
    }
    await this.#pokeOwners([...this.#workloadsOf(releasing), ...foreign.objects], context);

    await handOverKept(releasing, others, { client, signal });
    const isOurs = await client.delete(
      resources.killSwitches,
      { namespace, name },
      { uid, signal },
    );
    // Another replica was faster, and told.
    if (!isOurs) return {};
    this.#announceRelease(releasing, releasedBy, [
      ...unrestorable.map(({ workload, why }) => ({ name: nameOf(workload), why })),
      ...foreign.notRestored,
    ]);
    context.log.warn('Kill switch released', { releasedBy });
    for (const about of this.#carriersOf(`${namespace}/${name}`)) {
      const message = `Released by ${releasedBy}: ${annotations[annotation.release] ?? ''}`;
      events.normal(about, 'KillSwitchReleased', message);
    }
    return {};
  }

  async #releaseForeign(
    killSwitch: KillSwitch,
    engaged: readonly KillSwitch[],
    { signal }: ReconcileContext,
  ): Promise<ForeignRelease> {
    const { client, foreignKinds, parallelism } = this.#options;
    const others = engaged.map((other) => this.#scopeOf(other));
    return releaseForeign(
      killSwitch,
      this.#scopeOf(killSwitch),
      (kind, object) => others.some((scope) => isInScope(kind, object, scope)),
      { client, kinds: foreignKinds, parallelism, signal },
    );
  }

  /** Nothing depends on it: whoever can't be asked finds out by himself, later. */
  async #pokeOwners(
    objects: readonly KubeObject[],
    { signal, log }: ReconcileContext,
  ): Promise<void> {
    const { client, clock, parallelism } = this.#options;
    const owners = ownersOf(objects);
    const outcomes = await poke(client, owners, { now: clock(), parallelism, signal });
    for (const outcome of outcomes) {
      if (!('error' in outcome) || isNotFound(outcome.error)) continue;
      const { tool, name } = outcome.item;
      log.info('A GitOps tool could not be asked to reconcile', {
        tool,
        owner: name,
        error: outcome.error,
      });
    }
  }

  #announceRelease(
    killSwitch: KillSwitch,
    releasedBy: string,
    unrestorable: readonly { name: string; why: string }[],
  ): void {
    const { events, metrics } = this.#options;
    const about = source(resources.killSwitches, killSwitch);
    const brokenFor = killSwitch.metadata.annotations?.[annotation.breakGlass];
    if (brokenFor !== undefined) {
      metrics.countBreakGlass();
      events.warning(about, 'BreakGlass', `${releasedBy} broke the glass: ${brokenFor}`);
    }
    for (const { name, why } of unrestorable) {
      events.warning(about, 'NotRestored', `${name} was not put back: ${why}.`);
    }
    const born = this.#workloadsOf(killSwitch).filter(
      ({ metadata, isPaused }) =>
        isPaused && metadata.annotations?.[annotation.bornSuspended] !== undefined,
    );
    if (born.length > 0) {
      const names = born.slice(0, 10).map(({ metadata }) => metadata.name);
      events.warning(
        about,
        'JobsNotStarted',
        `${born.length} Jobs were created during the kill and stay suspended after the release by ${releasedBy}: ${names.join(', ')}. Start one: kubectl patch job NAME --type=merge -p '{"spec":{"suspend":false}}'`,
      );
    }
  }

  async #report(
    { log }: ReconcileContext,
    killSwitch: KillSwitch,
    findings: readonly Finding[],
    counts: Pick<KillSwitchStatus, 'workloads' | 'pods' | 'remaining'>,
  ): Promise<void> {
    const { statusWriter, clock, events, metrics } = this.#options;
    const previous = killSwitch.status?.conditions;
    const { generation, creationTimestamp } = killSwitch.metadata;
    const conditions = conditionsFrom(findings, previous, generation, clock());
    const status: KillSwitchStatus = {
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions,
      ...counts,
    };
    try {
      await statusWriter.write(resources.killSwitches, killSwitch, status);
    } catch (error) {
      if (isNotFound(error)) return;
      throw error;
    }
    const engagedAt = Date.parse(creationTimestamp ?? '');
    const about = source(resources.killSwitches, killSwitch);
    for (const { type, status: now, reason, message } of conditions) {
      const before = previous?.find((condition) => condition.type === type);
      if (before?.status === now && before.reason === reason) continue;
      log.info('Kill switch condition changed', {
        condition: type,
        status: now,
        reason,
        detail: message,
      });
      if (type === 'Fenced' && before?.status === 'True' && reason === 'ProbeAllowed') {
        events.warning(about, 'FenceLost', message);
      }
      if (now !== 'True' || before?.status === 'True') continue;
      if (type === 'Contested') {
        events.warning(about, 'Contested', message);
        continue;
      }
      events.normal(about, type, message);
      // What is woken and paused again reaches no rung for the first time.
      if (Number.isFinite(engagedAt) && !isTrue(conditions, 'Contested')) {
        metrics.observeStop(type, Math.max(0, clock() - engagedAt) / 1000);
      }
    }
  }

  #isGuarded({ metadata }: KillSwitch): boolean {
    return isGuarded(this.#options.namespaces.get(metadata.namespace ?? ''));
  }

  #workloadsOf(killSwitch: KillSwitch): readonly Workload[] {
    return this.#options.workloads.byIndex(...coveredBy(killSwitch));
  }

  #podsOf(killSwitch: KillSwitch): readonly Pod[] {
    return this.#options.pods.byIndex(...coveredBy(killSwitch));
  }

  /** What can carry the annotation that this KillSwitch latches, as the caches know it. */
  #carriersOf(key: string): readonly KubeObject[] {
    const { workflows, identities, namespaces } = this.#options;
    const { namespace = '', name } = splitKey(key);
    const carriers =
      name === wholeNamespaceName
        ? [carrier(resources.namespaces, namespaces.get(namespace))]
        : [
            carrier(resources.workflows, workflows.get(key)),
            carrier(resources.automationIdentities, identities.get(key)),
          ];
    return carriers.filter((object) => object !== undefined);
  }

  /** Whoever engaged may take the annotation away from now on: the KillSwitch stands. */
  async #markLatched(
    engaging: readonly KubeObject[],
    { signal, log }: ReconcileContext,
  ): Promise<void> {
    const outcomes = await forEachBounded(
      engaging.filter((object) => !isLatched(object)),
      this.#options.parallelism,
      async ({ kind, metadata: { namespace, name, uid } }) => {
        const resource = carrierKinds.find((one) => one.kind === kind) ?? resources.namespaces;
        const key = { ...(namespace !== undefined && { namespace }), name };
        await this.#options.client.mergePatch(
          resource,
          key,
          { metadata: { uid, labels: { [label.latched]: 'true' } } },
          { signal },
        );
      },
    );
    for (const { error } of outcomes.filter((outcome) => 'error' in outcome)) {
      // Gone, or without the annotation by now; anything else is met again by the next look.
      log.info('What engaged could not be marked as latched', { error });
    }
  }
}

const carrierKinds: readonly Resource[] = [
  resources.workflows,
  resources.automationIdentities,
  resources.namespaces,
];

/** An index of workloads and pods, and the value under which a KillSwitch finds its own. */
function coveredBy({ metadata, spec }: KillSwitch): ['namespace' | 'identity', string] {
  const { namespace = '' } = metadata;
  return spec.workflow === undefined
    ? ['namespace', namespace]
    : ['identity', `${namespace}/${spec.workflow}`];
}

function carrier(resource: Resource, object: KubeObject | undefined): KubeObject | undefined {
  return object === undefined ? undefined : source(resource, object);
}

/** How often the fence of a kill that is settled is asked whether it still stands. */
const fenceCheckMs = 60_000;
/** Below the former, so that each look at a settled kill is one at other projects' kinds. */
const foreignCheckMs = 50_000;
/** While pods end, in case that the event of the last one is lost. */
const podsCheckMs = 5000;
/** While a release waits for an identity, in case that an event is lost. */
const identityCheckMs = 2000;

function countsOf(
  workloads: readonly Workload[],
  foreign?: ForeignStop,
): { total: number; paused: number } {
  const paused = workloads.filter((workload) => !isPausable(workload)).length;
  const { total = 0, running = [] } = foreign ?? {};
  return { total: workloads.length + total, paused: paused + total - running.length };
}

function isQuiet({ running, unlisted }: ForeignStop): boolean {
  return running.length === 0 && unlisted.length === 0;
}

function source({ group, version, kind }: Resource, { metadata }: KubeObject): KubeObject {
  return { apiVersion: group === '' ? version : `${group}/${version}`, kind, metadata };
}
