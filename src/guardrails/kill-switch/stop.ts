import { setTimeout as delay } from 'node:timers/promises';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { Pod } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { projectWorkload, type Workload } from '../../api/workload.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { ReconcileContext } from '../../runtime/controller.ts';
import { isConflict, isNotFound } from '../../runtime/errors.ts';
import { forEachBounded, type Outcome } from '../../runtime/parallel.ts';
import type { Contests } from './contested.ts';
import type { Pausing } from './pausing.ts';
import {
  graceOf,
  isLive,
  isPausable,
  isToBeTouched,
  isToBeDeleted,
  isTracked,
  jobTrackingFinalizer,
} from './plan.ts';

export interface StopOptions {
  client: KubeClient;
  pausing: Pausing;
  /** Requests in flight at a time. */
  parallelism: number;
  /** Longest grace that a pod gets, in seconds. */
  podGraceSeconds: number;
  /** What was woken too often waits before it is paused again. */
  contests: Pick<Contests, 'isDue' | 'told'>;
  signal: AbortSignal;
}

/** How often one workload is touched ahead of the others, and the first pause between. */
const triesAhead = 5;
const firstPauseMs = 5;
/** How long the others wait for it at most. */
const aheadMs = 250;

/**
 * Pauses every workload that would start pods. The answer is what the API server stored; a workload
 * that it still shows running was met by a server whose fence isn't in force yet. So one workload
 * goes ahead: while the API server hasn't read the KillSwitch, touching the others would only have
 * to be done again. They wait for it no longer than a moment, whatever becomes of it.
 */
export async function pauseWorkloads(
  killSwitch: KillSwitch,
  workloads: readonly Workload[],
  { pausing, parallelism, contests, signal }: StopOptions,
): Promise<Outcome<Workload, Workload | undefined>[]> {
  const [first, ...others] = workloads.filter(
    (workload) => isToBeTouched(killSwitch, workload) && contests.isDue(workload),
  );
  if (first === undefined) return [];
  const pause = async (workload: Workload, tries: number): Promise<Workload | undefined> => {
    for (let tried = 1; ; tried++) {
      const answer = await pausing.pause(killSwitch, workload, signal);
      if (answer === undefined) return undefined;
      const stored = projectWorkload(workload.kind, answer.stored);
      if (tried === tries || !isPausable(stored)) {
        contests.told(workload, answer);
        return stored;
      }
      await delay(firstPauseMs * 2 ** (tried - 1), undefined, { signal });
    }
  };
  const ahead = forEachBounded([first], 1, (workload) => pause(workload, triesAhead));
  if (others.length > 0) await within(aheadMs, ahead);
  const outcomes = await forEachBounded(others, parallelism, (workload) => pause(workload, 1));
  return [...(await ahead), ...outcomes];
}

/** Resolves when the work is done, or after the time; the work never rejects. */
async function within(milliseconds: number, work: Promise<unknown>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, milliseconds);
  await Promise.race([work, late.promise]);
  clearTimeout(timer);
}

/**
 * Deletes pods, each by UID and with a capped grace period. A pod of a Job first loses the
 * finalizer by which the Job controller would count it as a failure: that is what this controller
 * does itself when a Job is suspended, only that it does so at its own rate limit.
 */
export function deletePods(
  pods: readonly Pod[],
  { client, parallelism, podGraceSeconds, signal }: StopOptions,
): Promise<Outcome<Pod, void>[]> {
  const affected = pods.filter((pod) => isToBeDeleted(pod, podGraceSeconds));
  return forEachBounded(affected, parallelism, async (pod) => {
    const { namespace = '', name, uid = '' } = pod.metadata;
    try {
      if (isTracked(pod)) await dropJobTracking(client, pod, signal);
    } finally {
      // Somebody's webhook may refuse the update: what runs ends all the same.
      if (isLive(pod)) {
        await client.delete(
          resources.pods,
          { namespace, name },
          { uid, gracePeriodSeconds: graceOf(pod, podGraceSeconds), signal },
        );
      }
    }
  });
}

async function dropJobTracking(client: KubeClient, pod: Pod, signal: AbortSignal): Promise<void> {
  const key = { namespace: pod.metadata.namespace ?? '', name: pod.metadata.name };
  for (let attempt = 0; attempt < 5; attempt++) {
    const live = await client.get(resources.pods, key, { signal });
    const { uid, resourceVersion, finalizers } = live?.metadata ?? {};
    if (uid !== pod.metadata.uid || finalizers?.includes(jobTrackingFinalizer) !== true) return;
    try {
      await client.mergePatch(
        resources.pods,
        key,
        {
          metadata: {
            uid,
            resourceVersion,
            finalizers: finalizers.filter((finalizer) => finalizer !== jobTrackingFinalizer),
          },
        },
        { signal },
      );
      return;
    } catch (error) {
      if (isNotFound(error)) return;
      if (!isConflict(error)) throw error;
    }
  }
}

/**
 * Pods of a kill that aren't gone yet: as the cache has them, and where it has none, as the API
 * server does, since a cache may lag.
 *
 * @param cached every pod that the KillSwitch covers
 * @returns `undefined` where the API server doesn't answer: unknown is never gone
 */
export async function findPods(
  killSwitch: KillSwitch,
  cached: readonly Pod[],
  { client, podGraceSeconds }: Pick<StopOptions, 'client' | 'podGraceSeconds'>,
  { signal, log }: Pick<ReconcileContext, 'signal' | 'log'>,
): Promise<readonly Pod[] | undefined> {
  const known = cached.filter((pod) => isLive(pod) || isToBeDeleted(pod, podGraceSeconds));
  if (known.length > 0) return known;
  try {
    return await listLivePods(client, killSwitch, signal);
  } catch (error) {
    log.warn('Pods of a kill could not be listed', { error });
    return undefined;
  }
}

/** Live pods that a KillSwitch covers, as the API server has them, not as a cache remembers them. */
async function listLivePods(
  client: KubeClient,
  { metadata, spec }: KillSwitch,
  signal: AbortSignal,
): Promise<Pod[]> {
  const pods = await client.list(resources.pods, {
    namespace: metadata.namespace ?? '',
    ...(spec.workflow !== undefined && {
      fieldSelector: `spec.serviceAccountName=${spec.workflow}`,
    }),
    signal,
  });
  return pods.filter(isLive);
}
