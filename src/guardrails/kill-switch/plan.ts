import { isTrue } from '../../api/conditions.ts';
import type { ClusterKillSwitch } from '../../api/cluster-kill-switch.ts';
import { annotation, label } from '../../api/names.ts';
import { wholeNamespaceName, type KillSwitch } from '../../api/kill-switch.ts';
import { splitKey, type KubeObject, type Pod } from '../../api/objects.ts';
import { pauses, type Workload } from '../../api/workload.ts';
import type { ReadStore } from '../../runtime/store.ts';

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
 * Whether a release is asked for by somebody who may.
 *
 * Admission stamps who asks, and refuses who engaged. Where it wasn't in force there is no stamp,
 * and then nobody is known to be a second person.
 */
export function isReleaseAsked(killSwitch: KillSwitch | ClusterKillSwitch): boolean {
  const { metadata, spec } = killSwitch;
  const { annotations = {} } = metadata;
  if (isReleasing(killSwitch)) return true;
  const by = annotations[annotation.releasedBy];
  if (annotations[annotation.release] === undefined || by === undefined) return false;
  return by !== spec.engagedBy || annotations[annotation.breakGlass] !== undefined;
}

/** The authenticated user who asked for the release, as admission stamped it. */
export function releaserOf({ metadata }: KubeObject): string {
  return metadata.annotations?.[annotation.releasedBy] ?? 'unknown';
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
 * The workloads, or pods, that a KillSwitch stops.
 *
 * @param store indexed by `namespace` and `identity` (`namespace/serviceAccountName`)
 */
export function runsUnder<T>(
  { metadata: { namespace = '' }, spec }: KillSwitch,
  store: Pick<ReadStore<T>, 'byIndex'>,
): readonly T[] {
  return spec.workflow === undefined
    ? store.byIndex('namespace', namespace)
    : store.byIndex('identity', `${namespace}/${spec.workflow}`);
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

/** Whether the release of a KillSwitch was asked for, by whomever, or is under way. */
export function isLeaving({ metadata }: KubeObject): boolean {
  return isReleasing({ metadata }) || metadata.annotations?.[annotation.release] !== undefined;
}

/** Whether the fence of a KillSwitch is being lifted, or is lifted. */
export function isReleasing({ metadata }: KubeObject): boolean {
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

/** Kind and name of an object, or its name alone. */
export function nameOf({ kind, metadata }: KubeObject): string {
  return kind === undefined ? metadata.name : `${kind} ${metadata.name}`;
}
