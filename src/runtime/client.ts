import type { KubeObject } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';

export interface ObjectKey {
  namespace?: string;
  name: string;
}

export interface ListOptions {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  signal?: AbortSignal;
}

export interface WriteOptions {
  /** Validates and admits, stores nothing. */
  dryRun?: boolean;
  /** `status`, `scale`, `token`, … */
  subresource?: string;
  signal?: AbortSignal;
}

export interface DeleteOptions {
  /** Precondition: the object with exactly this UID. */
  uid?: string;
  /** Seconds. */
  gracePeriodSeconds?: number;
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
  signal?: AbortSignal;
}

export interface JsonPatchOperation {
  op: 'add' | 'remove' | 'replace' | 'test';
  path: string;
  value?: unknown;
}

/** What controllers may ask of the API server. Every call is bounded in time. */
export interface KubeClient {
  /** The object, or `undefined` where the server answers 404. */
  get<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    options?: { signal?: AbortSignal },
  ): Promise<T | undefined>;
  /** All pages of a list, in one array, from the server's current state. */
  list<T extends KubeObject>(resource: Resource<T>, options?: ListOptions): Promise<T[]>;
  /** POST. Throws {@link ApiError} with status 409 and reason `AlreadyExists` where it exists. */
  create<T extends KubeObject>(resource: Resource<T>, body: T, options?: WriteOptions): Promise<T>;
  /**
   * Server-side apply under our field manager, with force. A `resourceVersion` in the body makes
   * it conditional (409 `Conflict`).
   */
  apply<T extends KubeObject>(resource: Resource<T>, body: T, options?: WriteOptions): Promise<T>;
  /** JSON merge patch under our field manager. */
  mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: object,
    options?: WriteOptions,
  ): Promise<T>;
  /** RFC 6902 patch under our field manager. */
  jsonPatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: JsonPatchOperation[],
    options?: WriteOptions,
  ): Promise<T>;
  /** `false` where the object is already gone (404) or is another one (409 on the UID). */
  delete(resource: Resource, key: ObjectKey, options?: DeleteOptions): Promise<boolean>;
}
