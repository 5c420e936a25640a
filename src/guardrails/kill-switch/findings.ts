import type { Finding } from '../../api/conditions.ts';
import { maxRemaining, type KillSwitchStatus, type Remaining } from '../../api/kill-switch.ts';
import { label } from '../../api/names.ts';
import type { Pod } from '../../api/objects.ts';
import type { Workload } from '../../api/workload.ts';
import { some } from '../wording.ts';
import type { FenceAnswer } from './fence.ts';
import type { ForeignStop } from './foreign.ts';
import { isPausable, nameOf } from './plan.ts';
import { effectiveFindings, isUnanswered } from './rungs.ts';

export interface StopProgress {
  namespace: string;
  /** The namespace carries the environment label, so that the policies are bound to it. */
  guarded: boolean;
  fence: FenceAnswer;
  /** Workloads are paused by patch, because admission rewrites nothing. */
  byPatch?: boolean;
  /** Every workload that the KillSwitch covers. */
  workloads: readonly Workload[];
  /** Pods that are still there, live ones only; `undefined` where they couldn't be listed. */
  pods: readonly Pod[] | undefined;
  /** What it has of other projects' kinds, beside the workloads. */
  foreign?: Pick<ForeignStop, 'total' | 'running' | 'unlisted'>;
  /** The rungs after these, as conditions. */
  rungs: readonly Finding[];
  /** Milliseconds since the epoch. */
  now: number;
}

/** The rungs of the ladder as conditions, then `Effective`, and `Ready` last. */
export function stopFindings(progress: StopProgress): Finding[] {
  const rungs = [
    fencedFinding(progress),
    pausedFinding(progress),
    podsGoneFinding(progress),
    ...progress.rungs,
  ];
  return [...rungs, ...effectiveFindings(rungs)];
}

/**
 * The numbers beside the conditions.
 *
 * @param remaining what could still be used, the most urgent first
 */
export function stopCounts(
  { workloads, foreign, pods }: Pick<StopProgress, 'workloads' | 'foreign' | 'pods'>,
  remaining: readonly Remaining[],
): Pick<KillSwitchStatus, 'workloads' | 'pods' | 'remaining'> {
  const { total = 0, running = [] } = foreign ?? {};
  const paused = workloads.filter((workload) => !isPausable(workload)).length;
  return {
    workloads: { total: workloads.length + total, paused: paused + total - running.length },
    pods: { remaining: pods?.length ?? 0 },
    ...(remaining.length > 0 && { remaining: remaining.slice(0, maxRemaining) }),
  };
}

function fencedFinding({ namespace, guarded, fence }: StopProgress): Finding {
  if (!guarded) {
    return {
      type: 'Fenced',
      status: 'False',
      reason: 'NamespaceNotGuarded',
      message: `No policy denies new pods, because the namespace isn't guarded. To guard it: kubectl label namespace ${namespace} ${label.environment}=prod.`,
    };
  }
  switch (fence) {
    case 'Denied':
      return {
        type: 'Fenced',
        status: 'True',
        reason: 'ProbeDenied',
        message: 'Admission denies new pods and tokens of this automation; proven by a dry run.',
      };
    case 'Allowed':
      return {
        type: 'Fenced',
        status: 'False',
        reason: 'ProbeAllowed',
        message:
          'A dry run was not denied: the admission policies are missing or not in force yet. To install them: kubectl apply -k config/admission.',
      };
    case 'Unknown':
      return {
        type: 'Fenced',
        status: 'Unknown',
        reason: 'ProbeFailed',
        message:
          'The API server did not answer the dry run that proves the fence; it is tried again.',
      };
  }
}

function pausedFinding({ workloads, foreign, byPatch = false }: StopProgress): Finding {
  const running = [...workloads.filter(isPausable).map(nameOf), ...(foreign?.running ?? [])];
  const total = workloads.length + (foreign?.total ?? 0);
  if (running.length > 0) {
    return {
      type: 'Paused',
      status: 'False',
      reason: 'Pausing',
      message: `${running.length} of ${total} workloads still have to be paused: ${some(running)}.`,
    };
  }
  const unlisted = foreign?.unlisted ?? [];
  if (unlisted.length > 0) {
    return {
      type: 'Paused',
      status: 'Unknown',
      reason: 'KindsNotListed',
      message: `No pod of them starts, but whether they are paused isn't known: ${some(unlisted)}.`,
    };
  }
  return {
    type: 'Paused',
    status: 'True',
    reason: 'AllPaused',
    message: `${total} workloads are covered, none of them active.${byPatch ? byPatchNote : ''}`,
  };
}

const byPatchNote =
  ' Paused by patch, because admission rewrites nothing here: a write that would start one is refused instead, and what it asked for is not kept.';

function podsGoneFinding({ pods, now }: StopProgress): Finding {
  if (pods === undefined) {
    return {
      type: 'PodsGone',
      status: 'Unknown',
      reason: 'PodsNotListed',
      message: "The pods couldn't be listed; it is tried again.",
    };
  }
  const unanswered = pods.filter((pod) => isUnanswered(pod, now));
  if (unanswered.length > 0 && unanswered.length === pods.length) {
    return {
      type: 'PodsGone',
      status: 'Unknown',
      reason: 'NodeSilent',
      message: `Nobody answers for ${unanswered.length} pods that were told to go: ${some(unanswered.map(nameOf))}. Look at their nodes; a process on one that is cut off may still run.`,
    };
  }
  return pods.length === 0
    ? { type: 'PodsGone', status: 'True', reason: 'NoPodsLeft', message: 'No pod of it is left.' }
    : {
        type: 'PodsGone',
        status: 'False',
        reason: 'PodsTerminating',
        message: `${pods.length} pods are still terminating: ${some(pods.map(nameOf))}.`,
      };
}

export interface ReleaseProgress {
  lifted: boolean;
  releasedBy: string;
  /** The ClusterKillSwitch that stops it as well: while it does, the fence stays. */
  stoppedBy?: string;
  /** What of the identities has to be back before workloads start, in sentences. */
  awaited?: readonly string[];
  /** Kind and name of the workloads that still have to be put back. */
  waiting: readonly string[];
}

/** Conditions of a KillSwitch that is being released; it is deleted when nothing waits. */
export function releaseFindings(progress: ReleaseProgress): Finding[] {
  const by = `Release asked for by ${progress.releasedBy}.`;
  const { awaited = [], stoppedBy } = progress;
  const waitsForFence =
    stoppedBy === undefined
      ? 'Waiting until the fence is lifted on the API server.'
      : `The ClusterKillSwitch ${stoppedBy} stops it; release that first.`;
  const message = !progress.lifted
    ? `${by} ${waitsForFence}`
    : awaited.length > 0
      ? `${by} ${awaited.slice(0, 5).join(' ')}`
      : `${by} ${progress.waiting.length} workloads still have to be put back${progress.waiting.length > 0 ? `: ${some(progress.waiting)}` : ''}.`;
  return [
    {
      type: 'Fenced',
      status: progress.lifted ? 'False' : 'True',
      reason: progress.lifted ? 'Lifted' : 'Lifting',
      message: progress.lifted ? 'The fence is lifted; proven by a dry run.' : message,
    },
    { type: 'Ready', status: 'False', reason: 'Releasing', message },
  ];
}
