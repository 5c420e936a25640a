import { isDeniedBy, probePolicyName } from '../../admission/index.ts';
import { annotation } from '../../api/names.ts';
import type { KillSwitch } from '../../api/kill-switch.ts';
import { resources } from '../../api/resources.ts';
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
  const { namespace = '', name } = killSwitch.metadata;
  try {
    await client.mergePatch(
      resources.killSwitches,
      { namespace, name },
      { metadata: { annotations: { [annotation.probe]: 'fence' } } },
      { dryRun: true, signal },
    );
    return 'Allowed';
  } catch (error) {
    // Whatever keeps it from answering must not keep anything from being stopped.
    const isDenied = error instanceof ApiError && isDeniedBy(error.message, probePolicyName);
    return isDenied ? 'Denied' : 'Unknown';
  }
}
