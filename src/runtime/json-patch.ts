import type { KubeObject } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';
import type { JsonPatchOperation, KubeClient } from './client.ts';
import { ApiError, isInvalid } from './errors.ts';

/** JSON Pointer to a field, from the root of the object (RFC 6901: `~` and `/` are escaped). */
export function pointer(...fields: readonly string[]): string {
  return fields.map((field) => `/${field.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
}

/** Takes annotations away, each with the value that was seen; of what isn't there, nothing. */
export function dropAnnotations(
  { metadata: { annotations = {} } }: KubeObject,
  names: readonly string[],
): JsonPatchOperation[] {
  return names.flatMap((name): JsonPatchOperation[] => {
    const value = annotations[name];
    if (value === undefined) return [];
    const path = pointer('metadata', 'annotations', name);
    return [
      { op: 'test', path, value },
      { op: 'remove', path },
    ];
  });
}

/**
 * One JSON Patch on exactly the object that it was planned for.
 *
 * @returns what the API server stored, or `undefined` where a `test` failed, admission refused, or
 * the object is gone: the whole step is to be planned again
 * @throws ApiError for everything else, such as an object that would be larger than one may be
 */
export async function patchExactly(
  client: KubeClient,
  resource: Resource,
  { metadata: { namespace = '', name, uid } }: KubeObject,
  operations: readonly JsonPatchOperation[],
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  try {
    return await client.jsonPatch(
      resource,
      { namespace, name },
      [{ op: 'test', path: '/metadata/uid', value: uid }, ...operations],
      { signal },
    );
  } catch (error) {
    if (isInvalid(error)) throw error;
    if (error instanceof ApiError && [403, 404, 409, 422].includes(error.status)) return undefined;
    throw error;
  }
}
