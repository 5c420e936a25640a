import { conditionOf, conditionsFrom, isTrue, type Finding } from '../api/conditions.ts';
import type { KillSwitch, KillSwitchStatus } from '../api/kill-switch.ts';
import { annotation } from '../api/names.ts';
import type { Condition, KubeObject, Pod } from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { Workload } from '../api/workload.ts';
import { isBare, releaserOf } from '../guardrails/kill-switch/plan.ts';
import type { HeldBack } from '../guardrails/kill-switch/held-back.ts';
import { some } from '../guardrails/wording.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { Logger } from '../observability/logger.ts';
import { isNotFound } from '../runtime/errors.ts';
import type { Outcome } from '../runtime/parallel.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';

/** What the kill switch reports to the metrics. */
export interface KillSwitchMetrics {
  /** Seconds from the engagement until a rung of the ladder was reached. */
  observeStop(rung: string, seconds: number): void;
  /** A workload that something had woken was paused again. */
  countContestedWrite(kind: string): void;
  /** A release without a second person or without an operator. */
  countBreakGlass(): void;
}

export interface KillSwitchReportOptions {
  statusWriter: StatusWriter;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  metrics: Pick<KillSwitchMetrics, 'observeStop' | 'countBreakGlass'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Tells people and metrics what became of a kill: by the status of its KillSwitch, by events, and
 * in the log. Decides nothing.
 */
export class KillSwitchReport {
  readonly #options: KillSwitchReportOptions;

  constructor(options: KillSwitchReportOptions) {
    this.#options = options;
  }

  /**
   * How far it is. What changed is told once, after it is written down.
   *
   * @param killSwitch as the API server has it
   * @throws ApiError 409 where it changed in the meantime: look again
   */
  async progress(
    killSwitch: KillSwitch,
    findings: readonly Finding[],
    counts: Pick<KillSwitchStatus, 'workloads' | 'pods' | 'remaining'>,
    log: Logger,
  ): Promise<void> {
    const { statusWriter, clock } = this.#options;
    const { generation } = killSwitch.metadata;
    const previous = killSwitch.status?.conditions;
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
    for (const condition of conditions) {
      const { type, status: now, reason, message } = condition;
      const before = conditionOf(previous, type);
      if (before?.status === now && before.reason === reason) continue;
      log.info('Kill switch condition changed', {
        condition: type,
        status: now,
        reason,
        detail: message,
      });
      this.#changed(killSwitch, condition, before, isTrue(conditions, 'Contested'));
    }
  }

  #changed(
    killSwitch: KillSwitch,
    { type, status, reason, message }: Condition,
    before: Condition | undefined,
    isContested: boolean,
  ): void {
    const { clock, events, metrics } = this.#options;
    const about = subjectOf(resources.killSwitches, killSwitch);
    if (type === 'Fenced' && before?.status === 'True' && reason === 'ProbeAllowed') {
      events.warning(about, 'FenceLost', message);
    }
    if (status !== 'True' || before?.status === 'True') return;
    if (type === 'Contested') {
      events.warning(about, 'Contested', message);
      return;
    }
    events.normal(about, type, message);
    const engagedAt = Date.parse(killSwitch.metadata.creationTimestamp ?? '');
    // What is woken and paused again reaches no rung for the first time.
    if (Number.isFinite(engagedAt) && !isContested) {
      metrics.observeStop(type, Math.max(0, clock() - engagedAt) / 1000);
    }
  }

  /**
   * Of the pods that were deleted just now, those that nothing creates again.
   *
   * @param deleted as they were before
   */
  podsDeleted(killSwitch: KillSwitch, deleted: readonly Outcome<Pod, void>[]): void {
    const bare = deleted.filter(
      (outcome) =>
        'result' in outcome &&
        isBare(outcome.item) &&
        outcome.item.metadata.deletionTimestamp === undefined,
    );
    if (bare.length === 0) return;
    const names = bare.map(({ item }) => `Pod ${item.metadata.name}`);
    this.#options.events.warning(
      subjectOf(resources.killSwitches, killSwitch),
      'NotRestored',
      `Deleted, and nothing creates them again: ${some(names, 10)}.`,
    );
  }

  /** @param names kind and name of what was stopped just now, and no release resumes */
  endedForGood(killSwitch: KillSwitch, names: readonly string[]): void {
    this.#options.events.warning(
      subjectOf(resources.killSwitches, killSwitch),
      'NotRestored',
      `Stopped for good; the release doesn't resume: ${some(names, 10)}.`,
    );
  }

  /** @param accounts names of ServiceAccounts of which not everything could be kept */
  notKept(killSwitch: KillSwitch, accounts: readonly string[]): void {
    if (accounts.length === 0) return;
    this.#options.events.warning(
      subjectOf(resources.killSwitches, killSwitch),
      'NotKept',
      `What others had on these ServiceAccounts is too much to be kept, and doesn't come back with the release: ${some(accounts)}.`,
    );
  }

  /** The annotation that engages came back before the release was through. */
  releaseCancelled(killSwitch: KillSwitch, log: Logger): void {
    log.warn('Release cancelled: the kill switch was engaged again');
    this.#options.events.warning(
      subjectOf(resources.killSwitches, killSwitch),
      'ReleaseCancelled',
      'The kill-switch annotation was set again while the release was under way; it stays engaged.',
    );
  }

  /** It is over: by whom, and what stays as it is. */
  released(
    killSwitch: KillSwitch,
    { carriers, notRestored, held, workloads, log }: Released,
  ): void {
    const { events, metrics } = this.#options;
    const about = subjectOf(resources.killSwitches, killSwitch);
    const releasedBy = releaserOf(killSwitch);
    const { annotations = {} } = killSwitch.metadata;
    const brokenFor = annotations[annotation.breakGlass];
    if (brokenFor !== undefined) {
      metrics.countBreakGlass();
      events.warning(about, 'BreakGlass', `${releasedBy} broke the glass: ${brokenFor}`);
    }
    for (const { name, why } of notRestored) {
      events.warning(about, 'NotRestored', `${name} was not put back: ${why}.`);
    }
    if (held.length > 0) {
      const names = held.map(({ name, lacks, reason }) => `${lacks} of ${name} (${reason})`);
      events.warning(
        about,
        'NotRestored',
        `Held, and so not put back before the hold ends: ${some(names, 10)}.`,
      );
    }
    const born = workloads.filter(
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
    log.warn('Kill switch released', { releasedBy });
    for (const carrier of carriers) {
      const message = `Released by ${releasedBy}: ${annotations[annotation.release] ?? ''}`;
      events.normal(carrier, 'KillSwitchReleased', message);
    }
  }
}

/** What stands at the end of a release. */
export interface Released {
  /** What carried the annotation, or could have. */
  carriers: readonly KubeObject[];
  notRestored: readonly { name: string; why: string }[];
  /** What isn't granted again while it is held. */
  held: readonly HeldBack[];
  /** Every workload that was covered. */
  workloads: readonly Workload[];
  log: Logger;
}
