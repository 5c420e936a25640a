import { annotation } from '../../api/names.ts';
import { timestamp } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { resources } from '../../api/resources.ts';
import { projectWorkload, workloadResources, type Workload } from '../../api/workload.ts';
import type { JsonPatchOperation, KubeClient } from '../../runtime/client.ts';
import { ApiError, isNotFound } from '../../runtime/errors.ts';
import { isRestored, restoreOf, thawNonce } from './plan.ts';

/** What became of one workload. */
export type RestoreResult =
  /** Back at what its owner asked for, and free of our annotations. */
  | { state: 'Restored'; value: number | boolean | undefined }
  /** A fence that is still in force on some API server rewrote the write: try again. */
  | { state: 'Fenced' }
  /** Nothing to do, or no longer there. */
  | { state: 'Gone' }
  | { state: 'Unrestorable'; why: string };

export interface RestoreOptions {
  client: KubeClient;
  /** Milliseconds since the epoch. */
  now: number;
  signal: AbortSignal;
}

/**
 * Puts one workload back. Value first, by a touch that admission answers, so that the field stays
 * with its owner; then, only once the API server's answer shows the value, the annotations that
 * held it are dropped. A crash between the two leaves a workload that runs and is cleaned next
 * time. Every write names the UID and the restore value that it was planned for.
 */
export async function restoreWorkload(
  killSwitch: KillSwitch,
  cached: Workload,
  options: RestoreOptions,
): Promise<RestoreResult> {
  const { client, signal } = options;
  const resource = workloadResources[cached.kind];
  const key = { namespace: cached.metadata.namespace, name: cached.metadata.name };
  const live = await client.get(resource, key, { signal });
  if (live === undefined || live.metadata.uid !== cached.metadata.uid) return { state: 'Gone' };

  let workload = projectWorkload(cached.kind, live);
  const restore = restoreOf(workload);
  if (restore !== undefined && !isRestored(workload, restore)) {
    if (restore.value === undefined) {
      return {
        state: 'Unrestorable',
        why: `${restore.annotation} isn't a value that admission wrote`,
      };
    }
    if (workload.serviceAccountName !== killSwitch.spec.workflow) {
      return {
        state: 'Unrestorable',
        why: `it now runs as ${workload.serviceAccountName}; it asked for ${restore.text}`,
      };
    }
    if (workload.kind === 'CronJob') await skipMissedRuns(workload, options);
    const thawed = await write(
      client,
      workload,
      [
        { op: 'test', path: pointer(restore.annotation), value: restore.text },
        { op: 'add', path: pointer(annotation.touch), value: thawNonce(killSwitch, workload) },
      ],
      signal,
    );
    if (thawed === undefined) return { state: 'Fenced' };
    workload = thawed;
    const after = restoreOf(workload);
    if (after !== undefined && !isRestored(workload, after)) return { state: 'Fenced' };
  }

  const cleaned = await write(client, workload, dropOurs(workload), signal);
  if (cleaned === undefined) return { state: 'Fenced' };
  return { state: 'Restored', value: cleaned.replicas ?? cleaned.suspend };
}

/**
 * A CronJob that comes back would at once start the last run that it missed: its controller looks
 * for schedules since `lastScheduleTime`. Moving that to now means that the next run is the next
 * one on the schedule.
 */
async function skipMissedRuns(
  { metadata: { namespace, name } }: Workload,
  { client, now, signal }: RestoreOptions,
): Promise<void> {
  await client.mergePatch(
    resources.cronJobs,
    { namespace, name },
    { status: { lastScheduleTime: timestamp(now) } },
    { subresource: 'status', signal },
  );
}

const heldAnnotations = [
  annotation.restoreReplicas,
  annotation.restoreSuspend,
  annotation.touch,
] as const;

function dropOurs({ metadata: { annotations = {} } }: Workload): JsonPatchOperation[] {
  return heldAnnotations.flatMap((name): JsonPatchOperation[] => {
    const value = annotations[name];
    if (value === undefined) return [];
    return [
      { op: 'test', path: pointer(name), value },
      { op: 'remove', path: pointer(name) },
    ];
  });
}

/**
 * One JSON Patch on exactly the object that it was planned for.
 *
 * @returns what the API server stored, or `undefined` where a `test` failed or admission refused:
 * the object changed, or the fence still stands, and the whole step is to be planned again.
 */
async function write(
  client: KubeClient,
  workload: Workload,
  operations: JsonPatchOperation[],
  signal: AbortSignal,
): Promise<Workload | undefined> {
  if (operations.length === 0) return workload;
  const { namespace, name, uid } = workload.metadata;
  try {
    const stored = await client.jsonPatch(
      workloadResources[workload.kind],
      { namespace, name },
      [{ op: 'test', path: '/metadata/uid', value: uid }, ...operations],
      { signal },
    );
    return projectWorkload(workload.kind, stored);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    if (error instanceof ApiError && [403, 409, 422].includes(error.status)) return undefined;
    throw error;
  }
}

/** JSON Pointer of an annotation (RFC 6901: `~` and `/` are escaped). */
function pointer(name: string): string {
  return `/metadata/annotations/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}
