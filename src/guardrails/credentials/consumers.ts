import { annotation } from '../../api/names.ts';
import { workloadResources, type Workload, type WorkloadKind } from '../../api/workload.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isConflict, isNotFound } from '../../runtime/errors.ts';
import { clockErrorMs, parseTime } from './secret.ts';

/** Kinds whose pods are replaced when their template changes. */
const rolledOut: ReadonlySet<WorkloadKind> = new Set(['Deployment', 'StatefulSet', 'DaemonSet']);

/**
 * Whether a workload's pods may still hold the value that a rotation replaced, and a new rollout
 * gives them the current one. Jobs and CronJobs aren't restarted: a run ends by itself, and the
 * next one reads anew; a ReplicaSet doesn't replace its pods. What runs no pods reads anew when it starts.
 *
 * @param rotatedAt milliseconds since the epoch
 * @param now milliseconds since the epoch
 */
export function needsRestart(workload: Workload, rotatedAt: number, now: number): boolean {
  const { kind, metadata, isPaused, restartedAt } = workload;
  if (!rolledOut.has(kind)) return false;
  if (metadata.deletionTimestamp !== undefined || isPaused) return false;
  const created = parseTime(metadata.creationTimestamp);
  if (created !== undefined && created > rotatedAt) return false;
  const restarted = parseTime(restartedAt);
  // A time in the future was left by a clock that has been set back since.
  return restarted === undefined || restarted < rotatedAt || restarted > now + clockErrorMs;
}

/**
 * Starts a rollout by a new annotation of the pod template. Asked for twice, it happens once: the
 * value is the time of the rotation.
 *
 * @returns whether the workload was still there
 */
export async function restart(
  client: KubeClient,
  { kind, metadata: { namespace, name, uid } }: Workload,
  rotatedAt: number,
  signal: AbortSignal,
): Promise<boolean> {
  const restartedAt = new Date(rotatedAt).toISOString();
  const annotations = { [annotation.restartedAt]: restartedAt };
  try {
    await client.mergePatch(
      workloadResources[kind],
      { namespace, name },
      { metadata: { uid }, spec: { template: { metadata: { annotations } } } },
      { signal },
    );
    return true;
  } catch (error) {
    // Gone, or another object by that name: it reads the current value by itself.
    if (isNotFound(error) || isConflict(error)) return false;
    throw error;
  }
}
