import { clusterProbePolicyName, isDeniedBy, probePolicyName } from '../../admission/index.ts';
import { annotation } from '../../api/names.ts';
import type { ClusterKillSwitch } from '../../api/cluster-kill-switch.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';

/** Answer of the fence to the probe. */
export type FenceAnswer = 'Denied' | 'Allowed' | 'Unknown';

/**
 * Asks the API server whether the fence of a KillSwitch stands, by a dry run that the policy which
 * denies pods also denies, under its own name. Nothing is stored, and no token or pod is asked for
 * that could come into being if the fence were open.
 */
export async function probeFence(
  client: KubeClient,
  killSwitch: KillSwitch,
  signal: AbortSignal,
): Promise<FenceAnswer> {
  return ask(client, resources.killSwitches, killSwitch, probePolicyName, signal);
}

/** The same of the fence of a ClusterKillSwitch. */
export async function probeClusterFence(
  client: KubeClient,
  clusterKillSwitch: ClusterKillSwitch,
  signal: AbortSignal,
): Promise<FenceAnswer> {
  const { clusterKillSwitches } = resources;
  return ask(client, clusterKillSwitches, clusterKillSwitch, clusterProbePolicyName, signal);
}

async function ask(
  client: KubeClient,
  resource: Resource,
  { metadata: { name, namespace } }: KubeObject,
  policy: string,
  signal: AbortSignal,
): Promise<FenceAnswer> {
  try {
    await client.mergePatch(
      resource,
      { name, ...(namespace !== undefined && { namespace }) },
      { metadata: { annotations: { [annotation.probe]: 'fence' } } },
      { dryRun: true, signal },
    );
    return 'Allowed';
  } catch (error) {
    // Whatever keeps it from answering must not keep anything from being stopped.
    const isDenied = error instanceof ApiError && isDeniedBy(error.message, policy);
    return isDenied ? 'Denied' : 'Unknown';
  }
}
