import type { Pod } from '../../api/objects.ts';
import { parseTime } from './secret.ts';

/**
 * Time after which a mounted volume shows another value: the kubelet's sync period of a minute and
 * the life of its cache, which is as long, where neither is configured otherwise.
 */
export const volumeSyncMs = 2 * 60_000;

/** Time after an overlap in which its end may be put off without anybody being told. */
export const convergenceMs = 3_600_000;

/**
 * The running pods that may still hold the value before: those that read it when they started, and
 * started before its successor was published; and those that have it mounted, until that follows.
 *
 * @param pods that reference the Secret
 * @param rotatedAt milliseconds since the epoch
 * @param now milliseconds since the epoch
 */
export function holdouts(
  pods: readonly Pod[],
  secretName: string,
  rotatedAt: number,
  now: number,
): Pod[] {
  return pods.filter((pod) => {
    if (!isRunning(pod, now) || startedAfter(pod, rotatedAt)) return false;
    return pod.secrets?.readOnce.includes(secretName) === true || now < rotatedAt + volumeSyncMs;
  });
}

/** One that wasn't started reads the current value; one whose grace is over is as good as gone. */
function isRunning({ metadata, status }: Pod, now: number): boolean {
  const isOver = status?.phase === 'Succeeded' || status?.phase === 'Failed';
  const endsAt = parseTime(metadata.deletionTimestamp);
  return !isOver && status?.startTime !== undefined && (endsAt === undefined || now < endsAt);
}

/** Start times have whole seconds only; what a restart wrote to the template is exact. */
function startedAfter({ secrets, status }: Pod, rotatedAt: number): boolean {
  const restartedAt = parseTime(secrets?.restartedAt);
  const startedAt = parseTime(status?.startTime);
  return (
    (restartedAt !== undefined && restartedAt >= rotatedAt) ||
    (startedAt !== undefined && startedAt > rotatedAt)
  );
}
