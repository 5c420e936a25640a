import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';
import type { KubeClient } from './client.ts';

/** Writes the status of our own kinds, and only when it says something new. */
export class StatusWriter {
  readonly #client: KubeClient;

  constructor({ client }: { client: KubeClient }) {
    this.#client = client;
  }

  /**
   * Makes `status` the object's whole status, on exactly the version that it was computed from.
   *
   * @returns whether anything was written
   * @throws ApiError 409 where the object changed in the meantime: compute it again; 404 where it
   *   is gone
   */
  async write(
    resource: Resource,
    object: KubeObject & { status?: object },
    status: object,
    signal?: AbortSignal,
  ): Promise<boolean> {
    const patch = difference(fieldsOf(object.status ?? {}), fieldsOf(asStored(status)));
    if (Object.keys(patch).length === 0) return false;
    const { namespace, name, uid, resourceVersion } = object.metadata;
    await this.#client.mergePatch(
      resource,
      namespace === undefined ? { name } : { namespace, name },
      { metadata: { uid, resourceVersion }, status: patch },
      { subresource: 'status', ...(signal !== undefined && { signal }) },
    );
    return true;
  }
}

type Fields = Readonly<Record<string, unknown>>;

/**
 * The merge patch (RFC 7396) that turns `current` into `wanted`. A merge patch keeps what it doesn't
 * name, on every level, so what is gone is named with `null`.
 */
function difference(current: Fields, wanted: Fields): Fields {
  const patch: Record<string, unknown> = {};
  for (const key of Object.keys(current)) {
    if (!isPresent(wanted[key]) && isPresent(current[key])) patch[key] = null;
  }
  for (const [key, value] of Object.entries(wanted)) {
    const before = current[key];
    if (!isPresent(value) || isDeepStrictEqual(before, value)) continue;
    if (!isFields(before) || !isFields(value)) {
      patch[key] = value;
      continue;
    }
    const inner = difference(before, value);
    if (Object.keys(inner).length > 0) patch[key] = inner;
  }
  return patch;
}

/** What a value becomes on its way to the API server and back. */
function asStored(value: object): unknown {
  return JSON.parse(JSON.stringify(value));
}

function isPresent(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function fieldsOf(value: unknown): Fields {
  return isFields(value) ? value : {};
}
