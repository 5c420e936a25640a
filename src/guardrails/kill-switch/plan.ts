import { isTrue, type Finding } from '../../api/conditions.ts';
import { annotation, label } from '../../api/names.ts';
import { wholeNamespaceName, type KillSwitch } from '../../api/kill-switch.ts';
import { splitKey, type KubeObject, type Pod } from '../../api/objects.ts';
import { pauses, type Workload } from '../../api/workload.ts';
import type { ReadStore } from '../../runtime/store.ts';
import { effectiveFindings, isUnanswered } from './rungs.ts';

/**
 * What the kill switch of one Workflow, or of a namespace, is doing. It is a function of what stands in the API alone,
 * so that any replica, at any time, comes to the same answer.
 */
export type Phase =
  /** Nothing is engaged. */
  | 'Idle'
  /** The annotation stands, and no KillSwitch exists yet: create it. */
  | 'Latch'
  /** Engaged: keep everything stopped. */
  | 'Stop'
  /** The annotation came back while a release was under way: the kill wins. */
  | 'CancelRelease'
  /** Somebody with the right to do so asked for release. */
  | 'Release';

export function phaseOf(
  killSwitch: KillSwitch | undefined,
  carriers: readonly (KubeObject | undefined)[],
): Phase {
  const annotated = carriers.some(isEngaging);
  if (killSwitch === undefined) return annotated ? 'Latch' : 'Idle';
  if (!isReleaseAsked(killSwitch)) return 'Stop';
  return annotated ? 'CancelRelease' : 'Release';
}

/**
 * Admission stamps who asks, and refuses who engaged. Where it wasn't in force there is no stamp,
 * and then nobody is known to be a second person.
 */
function isReleaseAsked({ metadata, spec }: KillSwitch): boolean {
  const { annotations = {} } = metadata;
  if (isReleasing({ metadata, spec })) return true;
  const by = annotations[annotation.releasedBy];
  if (annotations[annotation.release] === undefined || by === undefined) return false;
  return by !== spec.engagedBy || annotations[annotation.breakGlass] !== undefined;
}

/** Whether an object carries the annotation that engages. */
export function isEngaging(carrier: KubeObject | undefined): boolean {
  return carrier?.metadata.annotations?.[annotation.killSwitch] !== undefined;
}

/** Whether a KillSwitch stands for the annotation, and the annotation may go by now. */
export function isLatched({ metadata }: KubeObject): boolean {
  return metadata.labels?.[label.latched] !== undefined;
}

/**
 * The KillSwitch that latches the annotation of a Workflow, an AutomationIdentity or (it has no
 * namespace of its own) a Namespace. Its name follows from what carries the annotation, so that
 * every replica creates the same one. An annotation without a stamp (admission wasn't in force
 * when it was written) engages all the same: unknown means stop.
 */
export function latchOf(carrier: KubeObject): KillSwitch {
  const { name, namespace, annotations = {} } = carrier.metadata;
  const reason = annotations[annotation.killSwitch]?.trim();
  const isNamespace = namespace === undefined;
  return {
    metadata: {
      name: isNamespace ? wholeNamespaceName : name,
      namespace: isNamespace ? name : namespace,
    },
    spec: {
      ...(isNamespace ? { wholeNamespace: true } : { workflow: name }),
      reason: (reason === undefined || reason === '' ? 'no reason given' : reason).slice(0, 1024),
      engagedBy: annotations[annotation.killSwitchEngagedBy] ?? 'unknown',
    },
  };
}

/** Whether a KillSwitch stops what runs as a ServiceAccount of its namespace. */
export function covers({ spec }: KillSwitch, serviceAccountName: string): boolean {
  return spec.wholeNamespace === true || spec.workflow === serviceAccountName;
}

/**
 * The Workflows, or AutomationIdentities, that a KillSwitch stops.
 *
 * @param store indexed by `namespace`
 */
export function coveredIn<T>(
  store: Pick<ReadStore<T>, 'get' | 'byIndex'>,
  { metadata: { namespace = '' }, spec }: KillSwitch,
): readonly T[] {
  if (spec.workflow === undefined) return store.byIndex('namespace', namespace);
  const one = store.get(`${namespace}/${spec.workflow}`);
  return one === undefined ? [] : [one];
}

/**
 * The KillSwitch that a Workflow or AutomationIdentity (`namespace/name`) is stopped by: its own or
 * its namespace's, and of the two one that isn't being released.
 */
export function killSwitchOver(
  killSwitches: Pick<ReadStore<KillSwitch>, 'get'>,
  key: string,
): KillSwitch | undefined {
  const { namespace = '' } = splitKey(key);
  const both = [killSwitches.get(key), killSwitches.get(`${namespace}/${wholeNamespaceName}`)];
  return both.find((one) => one !== undefined && !isReleasing(one)) ?? both[0] ?? both[1];
}

/**
 * Whether what a KillSwitch took away is put back by now: it is being released, and nothing says
 * that the fence still stands, which would refuse it.
 */
export function isLifted(killSwitch: KillSwitch): boolean {
  return isReleasing(killSwitch) && !isTrue(killSwitch.status?.conditions, 'Fenced');
}

/** Whether the fence of a KillSwitch is being lifted, or is lifted. */
export function isReleasing({ metadata }: KillSwitch): boolean {
  return metadata.labels?.[label.releasing] !== undefined;
}

/**
 * Whether a workload would start or keep pods, and can be paused. A StatefulSet that deletes its
 * volumes when scaled is never scaled: its pods are denied and deleted, which stops it as well.
 */
export function isPausable(workload: Workload): boolean {
  const { metadata, isPaused, scaleDeletesVolumes, finished } = workload;
  return metadata.deletionTimestamp === undefined && !isPaused && !scaleDeletesVolumes && !finished;
}

/**
 * Whether a workload has to be touched: to be paused, or, where it is stopped by its pods alone,
 * to be told at the release, when our annotation goes: its controller has backed off from creating
 * pods by then, and looks again at once when its object changes.
 */
export function isToBeTouched(killSwitch: KillSwitch, workload: Workload): boolean {
  if (isPausable(workload)) return true;
  const { annotations, deletionTimestamp } = workload.metadata;
  return (
    workload.scaleDeletesVolumes &&
    !workload.isPaused &&
    deletionTimestamp === undefined &&
    annotations?.[annotation.touch] !== freezeNonce(killSwitch)
  );
}

/** What release puts back into a paused workload, as its annotations hold it. */
export interface Restore {
  annotation: string;
  /** The annotation's text, for a JSON Patch `test`. */
  text: string;
  /** The text is a value that admission could have written. */
  isValid: boolean;
  /** Nothing is to be put back: it was paused before, or its owner asked for that meanwhile. */
  staysPaused: boolean;
}

/**
 * Goes by the workload's own kind of value: an annotation that belongs to another kind, whoever
 * wrote it, restores nothing.
 */
export function restoreOf({ kind, metadata }: Workload): Restore | undefined {
  const { restore, values, paused } = pauses[kind];
  const text = metadata.annotations?.[restore];
  if (text === undefined) return undefined;
  return {
    annotation: restore,
    text,
    isValid: new RegExp(values).test(text),
    staysPaused: text === paused,
  };
}

/** Whether a workload stands at the value that its restore annotation asks for, or runs anyway. */
export function isRestored({ isPaused }: Workload, { staysPaused }: Restore): boolean {
  return !isPaused || staysPaused;
}

/** The touch that asks admission to freeze: the same for every replica, so that a repeat is harmless. */
export function freezeNonce(killSwitch: KillSwitch): string {
  return killSwitch.metadata.uid ?? '';
}

/** The touch that asks admission to thaw. It must differ from the one that stands: it counts on. */
export function thawNonce(killSwitch: KillSwitch, workload: Workload): string {
  const prefix = thawPrefix(killSwitch);
  const standing = workload.metadata.annotations?.[annotation.touch];
  const count = standing?.startsWith(prefix) ? Number(standing.slice(prefix.length)) : 0;
  return `${prefix}${Number.isSafeInteger(count) ? count + 1 : 1}`;
}

/** Whether a touch asked admission to thaw. */
export function isThawNonce(killSwitch: KillSwitch, touch: string | undefined): boolean {
  return touch?.startsWith(thawPrefix(killSwitch)) === true;
}

function thawPrefix({ metadata }: KillSwitch): string {
  return `${metadata.uid ?? ''}.release.`;
}

/** Whether this kill paused or touched the workload, whoever it runs as by now. */
export function isHeldBy(killSwitch: KillSwitch, workload: Workload): boolean {
  const touch = workload.metadata.annotations?.[annotation.touch];
  if (touch?.startsWith(killSwitch.metadata.uid ?? '\0') === true) return true;
  return covers(killSwitch, workload.serviceAccountName) && restoreOf(workload) !== undefined;
}

/** A pod that has ended on its own holds nothing that must be stopped; it stays, for its logs. */
export function isLive(pod: Pod): boolean {
  return pod.status?.phase !== 'Succeeded' && pod.status?.phase !== 'Failed';
}

/** A pod that nothing creates again. */
export function isBare({ metadata }: Pod): boolean {
  return metadata.ownerReferences?.some(({ controller }) => controller === true) !== true;
}

/** Finalizer by which the Job controller counts a pod that goes as a failure of its Job. */
export const jobTrackingFinalizer = 'batch.kubernetes.io/job-tracking';

/**
 * Seconds of grace for a pod: its own, but never more than the cap, since a pod may ask for a
 * year; never below one, because 0 removes the object while its processes may still run.
 */
export function graceOf(pod: Pod, capSeconds: number): number {
  return Math.max(1, Math.min(pod.spec?.terminationGracePeriodSeconds ?? 30, capSeconds));
}

/** Answer of the fence to the probe. */
export type FenceAnswer = 'Denied' | 'Allowed' | 'Unknown';

/**
 * Whether a pod still has to be told: to go, or, if it is going with a grace period above the cap,
 * to go sooner; or to lose the finalizer by which it would count as a failure of its Job.
 */
export function isToBeDeleted(pod: Pod, capSeconds: number): boolean {
  const { deletionTimestamp, deletionGracePeriodSeconds = 0 } = pod.metadata;
  if (deletionTimestamp === undefined) return isLive(pod);
  return isTracked(pod) || (isLive(pod) && deletionGracePeriodSeconds > capSeconds);
}

/** Whether the Job controller would count the pod's end as a failure. */
export function isTracked({ metadata }: Pod): boolean {
  return metadata.finalizers?.includes(jobTrackingFinalizer) === true;
}

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
  foreign?: {
    total: number;
    /** Kind and name of those that still run. */
    running: readonly string[];
    /** Why a kind could not be listed, one sentence each. */
    unlisted: readonly string[];
  };
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
  /** What of the identities has to be back before workloads start, in sentences. */
  awaited?: readonly string[];
  /** Kind and name of the workloads that still have to be put back. */
  waiting: readonly string[];
}

/** Conditions of a KillSwitch that is being released; it is deleted when nothing waits. */
export function releaseFindings(progress: ReleaseProgress): Finding[] {
  const by = `Release asked for by ${progress.releasedBy}.`;
  const { awaited = [] } = progress;
  const message = !progress.lifted
    ? `${by} Waiting until the fence is lifted on the API server.`
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

/** Kind and name of an object, or its name alone. */
export function nameOf({ kind, metadata }: KubeObject): string {
  return kind === undefined ? metadata.name : `${kind} ${metadata.name}`;
}

/** The first few, so that a message stays readable at any number of objects. */
export function some(names: readonly string[], most = 5): string {
  const first = names.slice(0, most).join(', ');
  return names.length > most ? `${first} and ${names.length - most} more` : first;
}
