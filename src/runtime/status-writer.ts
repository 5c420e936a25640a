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
   * @throws ApiError 409 where the object changed in the meantime: compute it again
   */
  async write(
    resource: Resource,
    object: KubeObject & { status?: object },
    status: object,
    signal?: AbortSignal,
  ): Promise<boolean> {
    const wanted = JSON.parse(JSON.stringify(status)) as Record<string, unknown>;
    const current = (object.status ?? {}) as Record<string, unknown>;
    if (isDeepStrictEqual(wanted, current)) return false;
    const { namespace, name, uid, resourceVersion } = object.metadata;
    const gone = Object.keys(current).filter((key) => !(key in wanted));
    await this.#client.mergePatch(
      resource,
      namespace === undefined ? { name } : { namespace, name },
      {
        metadata: { uid, resourceVersion },
        status: { ...wanted, ...Object.fromEntries(gone.map((key) => [key, null])) },
      },
      { subresource: 'status', ...(signal !== undefined && { signal }) },
    );
    return true;
  }
}
