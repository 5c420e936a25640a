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

/** A rotation whose consumers are to be restarted. */
export interface Rollover {
  /** Milliseconds since the epoch. */
  rotatedAt: number;
  /** Whoever references its Secret. */
  consumers: readonly Workload[];
  /** How many of them may restart at a time. */
  atOnce: number;
}

/** Who is restarted now, and who later. */
export interface RestartPlan {
  /** Each with the time of the rotation that it is restarted for, in ms since the epoch. */
  now: Map<Workload, number>;
  /** They wait until others are available again. */
  later: Workload[];
  /** They were restarted, and aren't available yet. */
  underWay: Workload[];
}

/**
 * Who is restarted now: once for all rotations that it waits for, and for none of them more than
 * may be at once. Those whose pods are available come first: who fails anyway holds up no other.
 *
 * @param now milliseconds since the epoch
 */
export function planRestarts(
  rollovers: readonly Rollover[],
  isLeftAlone: (workload: Workload) => boolean,
  now: number,
): RestartPlan {
  const waiting = new Map<Workload, Rollover[]>();
  const underWay = new Set<Workload>();
  const free = new Map<Rollover, number>();
  for (const rollover of rollovers) {
    const { rotatedAt, consumers, atOnce } = rollover;
    const due = consumers.filter((one) => !isLeftAlone(one) && needsRestart(one, rotatedAt, now));
    for (const one of due) waiting.set(one, [...(waiting.get(one) ?? []), rollover]);
    const restarting = consumers.filter(
      (one) =>
        !due.includes(one) && !one.isPaused && !one.isRolledOut && wasRestarted(one, rotatedAt),
    );
    for (const one of restarting) underWay.add(one);
    free.set(rollover, atOnce - restarting.length);
  }
  const plan: RestartPlan = { now: new Map(), later: [], underWay: [...underWay] };
  for (const [one, of] of [...waiting].toSorted(([a], [b]) => compare(a, b))) {
    if (of.some((rollover) => (free.get(rollover) ?? 0) <= 0)) {
      plan.later.push(one);
      continue;
    }
    for (const rollover of of) free.set(rollover, (free.get(rollover) ?? 0) - 1);
    plan.now.set(one, Math.max(...of.map(({ rotatedAt }) => rotatedAt)));
  }
  return plan;
}

/** Always the same order, so that a look at a stale cache chooses whom the look before chose. */
function compare(a: Workload, b: Workload): number {
  if (a.isRolledOut !== b.isRolledOut) return a.isRolledOut ? -1 : 1;
  const key = ({ kind, metadata }: Workload): string => `${kind} ${metadata.name}`;
  return key(a) < key(b) ? -1 : 1;
}

function wasRestarted({ restartedAt }: Workload, rotatedAt: number): boolean {
  const restarted = parseTime(restartedAt);
  return restarted !== undefined && restarted >= rotatedAt;
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
