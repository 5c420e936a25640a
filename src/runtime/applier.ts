import { isDeepStrictEqual } from 'node:util';
import type { KubeObject, OwnerReference, RoleBinding } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';
import type { KubeClient } from './client.ts';
import { isAlreadyExists } from './errors.ts';

/** An object of that name exists, and it isn't ours: it is left alone. */
export class ForeignObjectError extends Error {
  readonly code = 'FOREIGN_OBJECT';
  override readonly name = 'ForeignObjectError';

  constructor(resource: Resource, { metadata }: KubeObject) {
    super(
      `${resource.kind} ${metadata.name} exists already and wasn't made by this operator; it is left alone. Rename or delete it: kubectl -n ${metadata.namespace ?? ''} delete ${resource.plural} ${metadata.name}`,
    );
  }
}

export type ApplyAction = 'none' | 'created' | 'updated';

export interface EnsureOptions {
  /** Write only over the version that `live` is (409 otherwise). */
  ifUnchanged?: boolean;
  signal?: AbortSignal;
}

/**
 * Brings children to the state that a plan wants. Whose an object is, its controller reference
 * says, by UID: a name proves nothing. It is created by POST, which can't overwrite anything, and
 * repaired by server-side apply; when nothing differs, nothing is written.
 */
export class Applier {
  readonly #client: KubeClient;

  constructor({ client }: { client: KubeClient }) {
    this.#client = client;
  }

  /**
   * @param live what a cache has of it; `undefined` where it knows none
   * @throws ForeignObjectError where an object of that name belongs to somebody else
   */
  async ensure<T extends KubeObject>(
    resource: Resource<T>,
    desired: T,
    live: T | undefined,
    options: EnsureOptions = {},
  ): Promise<{ action: ApplyAction; object: T }> {
    const { signal } = options;
    const bounded = signal === undefined ? {} : { signal };
    let current = live;
    if (current === undefined) {
      try {
        const created = await this.#client.create(resource, desired, bounded);
        return { action: 'created', object: created };
      } catch (error) {
        if (!isAlreadyExists(error)) throw error;
      }
      current = await this.#client.get(resource, desired.metadata, bounded);
      // Gone between the two answers: whoever calls plans anew.
      if (current === undefined) return this.ensure(resource, desired, undefined, options);
    }
    if (!hasSameOwner(desired, current)) throw new ForeignObjectError(resource, desired);
    // What is being deleted can't be repaired; its end brings us back.
    if (current.metadata.deletionTimestamp !== undefined)
      return { action: 'none', object: current };
    if (isSubset(desired, current)) return { action: 'none', object: current };
    if (rolesDiffer(desired, current)) {
      await this.remove(resource, current, bounded);
      return this.ensure(resource, desired, undefined, options);
    }
    const { resourceVersion } = current.metadata;
    const body =
      options.ifUnchanged === true && resourceVersion !== undefined
        ? { ...desired, metadata: { ...desired.metadata, resourceVersion } }
        : desired;
    return { action: 'updated', object: await this.#client.apply(resource, body, bounded) };
  }

  /** Deletes exactly this object. @returns whether it was still there */
  remove(
    resource: Resource,
    { metadata: { namespace, name, uid } }: KubeObject,
    options: { signal?: AbortSignal } = {},
  ): Promise<boolean> {
    const key = namespace === undefined ? { name } : { namespace, name };
    return this.#client.delete(resource, key, {
      ...options,
      ...(uid !== undefined && { uid }),
      propagationPolicy: 'Background',
    });
  }
}

/** The reference by which the garbage collector and we know whose an object is. */
export function controllerOf({ metadata }: KubeObject): OwnerReference | undefined {
  return metadata.ownerReferences?.find(({ controller }) => controller === true);
}

function hasSameOwner(desired: KubeObject, live: KubeObject): boolean {
  const owner = controllerOf(desired)?.uid;
  return owner !== undefined && controllerOf(live)?.uid === owner;
}

/** `roleRef` can't be changed: the API server wants another object for another role. */
function rolesDiffer(desired: KubeObject, live: KubeObject): boolean {
  const wanted = (desired as Partial<RoleBinding>).roleRef;
  return wanted !== undefined && !isDeepStrictEqual(wanted, (live as Partial<RoleBinding>).roleRef);
}

/**
 * Whether everything that `desired` says already holds of `live`. Objects may have more fields,
 * arrays must be the same, and what is undefined says nothing.
 */
export function isSubset(desired: unknown, live: unknown): boolean {
  if (desired === undefined) return true;
  if (Array.isArray(desired)) {
    return (
      Array.isArray(live) &&
      live.length === desired.length &&
      desired.every((item, index) => isSubset(item, live[index]))
    );
  }
  if (typeof desired !== 'object' || desired === null) return desired === live;
  if (typeof live !== 'object' || live === null) return isEmpty(desired) && live === undefined;
  return Object.entries(desired).every(([key, value]) =>
    isSubset(value, (live as Record<string, unknown>)[key]),
  );
}

/** The API server doesn't send back an empty map or object that it was sent. */
function isEmpty(value: object): boolean {
  return Object.values(value).every((item) => item === undefined);
}
