import { stampOfGroups } from '../admission/changed-by.ts';
import { annotation, GROUP } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { JsonPatchOperation, KubeClient } from '../runtime/client.ts';
import { pointer } from '../runtime/json-patch.ts';

/** A part of an object that is replaced as a whole. */
export interface Place {
  /** As it was looked at. */
  object: KubeObject;
  resource: Resource;
  /** Fields down to what is replaced. */
  path: readonly string[];
  /** Whether admission asks for the name of who changes it. */
  isStamped: boolean;
}

/** Who writes. */
export interface Author {
  name: string;
  groups: readonly string[];
}

/** As the API server knows the user. */
export async function authorOf(client: Pick<KubeClient, 'create'>): Promise<Author> {
  const review = await client.create(resources.selfSubjectReviews, { metadata: { name: '' } });
  const { username = '', groups = [] } = review.status?.userInfo ?? {};
  return { name: username, groups };
}

/** What an author writes of himself where admission writes nothing: his groups on our kinds alone. */
export function stampsOf(
  { name, groups }: Author,
  { group }: Resource,
): Readonly<Record<string, string>> {
  return {
    [annotation.changedBy]: name,
    ...(group === GROUP && { [annotation.changedByGroups]: stampOfGroups(groups) }),
  };
}

/**
 * Replaces what stands in a place, if the spec is still the one that was looked at: the operator may
 * write a status meanwhile. Where admission writes nothing, who changes something writes who he is.
 *
 * @param more annotations to write with it
 * @throws ApiError where somebody changed it meanwhile, or the user may not
 */
export async function writeAt(
  client: Pick<KubeClient, 'jsonPatch'>,
  { object, resource, path, isStamped }: Place,
  value: object,
  author: Author,
  more: Readonly<Record<string, string>> = {},
): Promise<void> {
  const { namespace = '', name, uid, resourceVersion, generation, annotations } = object.metadata;
  const added = { ...(isStamped && stampsOf(author, resource)), ...more };
  const whole: JsonPatchOperation[] = [{ op: 'add', path: '/metadata/annotations', value: added }];
  const each = Object.entries(added).map(([key, text]): JsonPatchOperation => ({
    op: 'add',
    path: pointer('metadata', 'annotations', key),
    value: text,
  }));
  const isWhole = annotations === undefined && Object.keys(added).length > 0;
  // To write the first annotations would take those away that came meanwhile.
  const unchanged: JsonPatchOperation =
    isWhole || generation === undefined
      ? { op: 'test', path: '/metadata/resourceVersion', value: resourceVersion }
      : { op: 'test', path: '/metadata/generation', value: generation };
  await client.jsonPatch(resource, { namespace, name }, [
    { op: 'test', path: '/metadata/uid', value: uid },
    unchanged,
    { op: 'replace', path: pointer(...path), value },
    ...(isWhole ? whole : each),
  ]);
}
