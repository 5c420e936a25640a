import type { Resource } from '../../api/resources.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { notedPatch, type Holdable } from './plan.ts';

/**
 * Takes an acknowledgement away that stands in the status.
 *
 * @returns whether something was written: the change brings the object back
 */
export async function clearNoted(
  client: Pick<KubeClient, 'mergePatch'>,
  resource: Resource,
  object: Holdable,
  signal: AbortSignal,
): Promise<boolean> {
  const patch = notedPatch(object);
  if (patch === undefined) return false;
  const { name, namespace = '' } = object.metadata;
  await client.mergePatch(resource, { namespace, name }, patch, { signal });
  return true;
}
