import { annotation } from '../../api/names.ts';
import { timestamp } from '../../api/conditions.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import {
  isFollower,
  projectWorkload,
  workloadKinds,
  workloadResources,
  type Workload,
} from '../../api/workload.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { isInvalid, messageOf } from '../../runtime/errors.ts';
import { dropAnnotations, patchExactly, pointer } from '../../runtime/json-patch.ts';
import { ownsPause } from './contested.ts';
import { disownOperations, type Pausing } from './pausing.ts';
import { covers, isHeldBy, isRestored, restoreOf, type Restore } from './plan.ts';

/** What became of one workload. */
export type RestoreResult =
  /** Back at what its owner asked for, and free of our annotations. */
  | { state: 'Restored' }
  /** It changed, or a fence that is still in force somewhere rewrote the write: look again. */
  | { state: 'Waiting' }
  | { state: 'Unrestorable'; why: string };

export interface RestoreOptions {
  client: KubeClient;
  pausing: Pausing;
  /** Milliseconds since the epoch. */
  now: number;
  signal: AbortSignal;
}

/**
 * Puts one workload back. Value first; then, only once the API server's answer shows the value, the
 * annotations that held it are dropped. A crash between the two leaves a workload that runs and is cleaned next
 * time. Every write names the UID and the restore value that it was planned for.
 *
 * @param held as {@link listHeldWorkloads} has it
 */
export async function restoreWorkload(
  killSwitch: KillSwitch,
  held: Workload,
  options: RestoreOptions,
): Promise<RestoreResult> {
  try {
    return await restore(killSwitch, held, options);
  } catch (error) {
    // Such as one with so many annotations that none more fits: it must not keep a release from its end.
    if (!isInvalid(error)) throw error;
    return {
      state: 'Unrestorable',
      why: `the API server takes no change of it: ${messageOf(error)}`,
    };
  }
}

async function restore(
  killSwitch: KillSwitch,
  held: Workload,
  options: RestoreOptions,
): Promise<RestoreResult> {
  const { client, pausing, signal } = options;
  const asked = restoreOf(held);
  let stored: KubeObject | undefined;
  if (asked !== undefined && !isRestored(held, asked)) {
    const why = unrestorable(killSwitch, held, asked);
    if (why !== undefined) return { state: 'Unrestorable', why };
    if (held.kind === 'CronJob') await skipMissedRuns(held, options);
    stored = await patchExactly(
      client,
      workloadResources[held.kind],
      held,
      [
        {
          op: 'test',
          path: pointer('metadata', 'annotations', asked.annotation),
          value: asked.text,
        },
        ...(await pausing.resume(killSwitch, held, asked, signal)),
      ],
      signal,
    );
    const thawed = stored && projectWorkload(held.kind, stored);
    const after = thawed && restoreOf(thawed);
    if (thawed === undefined || (after !== undefined && !isRestored(thawed, after))) {
      return { state: 'Waiting' };
    }
  }
  stored ??= await client.get(workloadResources[held.kind], held.metadata, { signal });
  if (stored === undefined) return { state: 'Waiting' };
  const operations = [
    ...dropAnnotations(stored, heldAnnotations),
    ...disownOperations(stored, (fields) => ownsPause(held.kind, fields)),
  ];
  if (operations.length === 0) return { state: 'Restored' };
  const resource = workloadResources[held.kind];
  const cleaned = await patchExactly(client, resource, held, operations, signal);
  return { state: cleaned === undefined ? 'Waiting' : 'Restored' };
}

function unrestorable(
  killSwitch: KillSwitch,
  { serviceAccountName }: Workload,
  { annotation: name, text, isValid }: Restore,
): string | undefined {
  if (!isValid) return `${name} isn't a value that admission wrote`;
  if (covers(killSwitch, serviceAccountName)) return undefined;
  return `it runs as ${serviceAccountName} by now; it asked for ${text}`;
}

/**
 * Workloads that the kill still holds and no other one covers, as the API server has them now: a
 * cache that lags must not let a release leave one behind, nor wake what another kill has stopped.
 *
 * @param engaged the other KillSwitches of the namespace that aren't being released
 */
export async function listHeldWorkloads(
  client: KubeClient,
  killSwitch: KillSwitch,
  engaged: readonly KillSwitch[],
  signal: AbortSignal,
): Promise<Workload[]> {
  const { namespace = '' } = killSwitch.metadata;
  const lists = await Promise.all(
    workloadKinds.map(async (kind) => {
      const objects = await client.list(workloadResources[kind], { namespace, signal });
      return objects.map((object) => projectWorkload(kind, object));
    }),
  );
  return lists
    .flat()
    .filter((workload) => !isFollower(workload) && isHeldBy(killSwitch, workload))
    .filter((workload) => !engaged.some((other) => covers(other, workload.serviceAccountName)));
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
  annotation.restoreStopped,
  annotation.touch,
] as const;
