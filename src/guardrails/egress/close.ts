import type { NetworkPolicy } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import type { Applier } from '../../runtime/applier.ts';
import { assertAllDone, forEachBounded } from '../../runtime/parallel.ts';
import { closedPolicies } from './plan.ts';
import { namesPods } from './pod-selector.ts';

/** Whether a policy lets nothing out, not even DNS, and nothing in. */
export function isClosed({ spec }: NetworkPolicy): boolean {
  const { policyTypes, egress = [], ingress = [] } = spec;
  return (
    policyTypes.includes('Egress') &&
    policyTypes.includes('Ingress') &&
    egress.length + ingress.length === 0
  );
}

/**
 * Closes the policies of a Workflow: from then on they allow nothing. One whose selector somebody
 * has emptied is for the pods of the whole namespace by now; closed, it would cut off everybody, so
 * it goes.
 *
 * @param live those of it that are ours
 * @returns names of those that were changed
 * @throws ApiError for what a retry may cure
 */
export async function closeEgress(
  workflow: Pick<Workflow, 'metadata'>,
  live: readonly NetworkPolicy[],
  { applier, signal }: { applier: Applier; signal: AbortSignal },
): Promise<string[]> {
  const named = live.filter(({ spec }) => namesPods(spec.podSelector));
  const closed = await forEachBounded(closedPolicies(workflow, named), 8, (policy) =>
    applier.ensure(resources.networkPolicies, policy.desired, policy.live, {
      signal,
      // A kill waits for no answer that it has no use for.
      isChange: true,
    }),
  );
  const emptied = live.filter((policy) => !named.includes(policy));
  const removed = await forEachBounded(emptied, 8, (policy) =>
    applier.remove(resources.networkPolicies, policy, { signal }),
  );
  assertAllDone(closed, 'close egress');
  assertAllDone(removed, 'remove policies without a selector');
  return closed.flatMap((outcome) =>
    'result' in outcome && outcome.result.action !== 'none'
      ? [outcome.item.desired.metadata.name]
      : [],
  );
}
