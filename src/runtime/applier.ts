import { isDeepStrictEqual } from 'node:util';
import { annotation, API_VERSION, label, MANAGED_BY } from '../api/names.ts';
import type { KubeObject, ObjectMeta, OwnerReference, RoleBinding } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';
import type { KubeClient } from './client.ts';
import { dropOldest } from './bounded-map.ts';
import { digestsOf, printOf, whoChanged, type Change, type Drift } from './drift.ts';
import { ApiError, isAlreadyExists } from './errors.ts';

/** An object of that name exists, and it isn't ours: it is left alone. */
export class ForeignObjectError extends Error {
  readonly code = 'FOREIGN_OBJECT';
  override readonly name = 'ForeignObjectError';

  constructor(resource: Resource, { metadata: { namespace, name } }: KubeObject) {
    const place = namespace === undefined ? '' : ` in namespace ${namespace}`;
    const flag = namespace === undefined ? '' : ` -n ${namespace}`;
    super(
      `${resource.kind} ${name}${place} exists already and wasn't made by this operator; it is left alone. Rename or delete it: kubectl${flag} delete ${resource.plural} ${name}`,
    );
  }
}

export type ApplyAction = 'none' | 'created' | 'updated';

export interface EnsureOptions {
  /**
   * Write only over the version that `live` is, or only where there is none if `live` is
   * `undefined`: for what mustn't be written twice, such as a generated value.
   */
  ifUnchanged?: boolean;
  /** What differs is a change of the plan: nobody asks who else may have made the difference. */
  isChange?: boolean;
  signal?: AbortSignal;
}

export interface ApplierOptions {
  client: KubeClient;
  /** Told of each object that somebody else changed and that was repaired. It must not throw. */
  onDrift?: (drift: Drift) => void;
}

/** What became of one object. */
export interface Ensured<T extends KubeObject> {
  action: ApplyAction;
  object: T;
}

/**
 * Brings children to the state that a plan wants. Whose an object is, its controller reference
 * says, or, of what outlives its owner, a mark: by UID, since a name proves nothing. It is created by
 * POST, which can't overwrite anything, and
 * repaired by server-side apply on exactly the UID that was seen; when nothing differs, nothing is
 * written.
 */
export class Applier {
  readonly #client: KubeClient;
  readonly #onDrift: ApplierOptions['onDrift'];
  /** Prints of the plans that stood, by UID: what differs from the same plan isn't a new plan. */
  readonly #stood = new Map<string, string>();

  constructor({ client, onDrift }: ApplierOptions) {
    this.#client = client;
    this.#onDrift = onDrift;
  }

  /**
   * What is being deleted is left to go: `none`, and its end is a change that brings the caller
   * back. An object whose `roleRef` differs is deleted and created, because the API server doesn't
   * let it change.
   *
   * @param desired with a controller reference or a mark, and with all fields inside lists and selectors:
   *   there, what the API server or somebody else adds counts as a difference
   * @param live what a cache has of it; `undefined` where it knows none
   * @throws ForeignObjectError where an object of that name belongs to somebody else
   * @throws ApiError 409 where the object isn't the one any more that was seen: plan anew
   */
  async ensure<T extends KubeObject>(
    resource: Resource<T>,
    desired: T,
    live: T | undefined,
    options: EnsureOptions = {},
  ): Promise<Ensured<T>> {
    if (ownerOf(desired) === undefined) {
      throw new TypeError(`${resource.kind} ${desired.metadata.name} is planned without an owner`);
    }
    if (live === undefined) return await this.#create(resource, desired, options);
    if (!hasSameOwner(desired, live)) throw new ForeignObjectError(resource, desired);
    if (isLeftAlone(desired, live)) return this.#standing(desired, live);
    if (!hasSameRole(desired, live)) {
      await this.remove(resource, live, signalOf(options));
      return await this.#create(resource, desired, options);
    }
    return await this.#update(resource, desired, live, options);
  }

  /**
   * Asks the API server whether the name of an object is free, or the object ours already; writes
   * nothing.
   *
   * @throws ForeignObjectError where an object of that name belongs to somebody else
   */
  async assertNotForeign(
    resource: Resource,
    desired: KubeObject,
    options: { signal?: AbortSignal } = {},
  ): Promise<void> {
    const live = await this.#client.get(resource, desired.metadata, signalOf(options));
    if (live !== undefined && !hasSameOwner(desired, live)) {
      throw new ForeignObjectError(resource, desired);
    }
  }

  /**
   * Deletes exactly this object, and nothing that came to its name since. One that is being deleted
   * already isn't deleted again.
   *
   * @returns whether it was still there
   */
  async remove(
    resource: Resource,
    { metadata: { namespace, name, uid, deletionTimestamp } }: KubeObject,
    options: { signal?: AbortSignal } = {},
  ): Promise<boolean> {
    if (uid === undefined) {
      throw new TypeError(`${resource.kind} ${name} can't be deleted without its UID`);
    }
    if (deletionTimestamp !== undefined) return true;
    return await this.#client.delete(
      resource,
      namespace === undefined ? { name } : { namespace, name },
      { ...options, uid, propagationPolicy: 'Background' },
    );
  }

  async #create<T extends KubeObject>(
    resource: Resource<T>,
    desired: T,
    options: EnsureOptions,
  ): Promise<Ensured<T>> {
    const bounded = signalOf(options);
    try {
      const object = await this.#client.create(resource, desired, bounded);
      this.#stands(desired, object);
      return { action: 'created', object };
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const live = await this.#client.get(resource, desired.metadata, bounded);
      // Gone between the two answers, or another one than was planned for: the caller plans anew.
      if (live === undefined) throw error;
      if (!hasSameOwner(desired, live)) throw new ForeignObjectError(resource, desired);
      if (isLeftAlone(desired, live)) return this.#standing(desired, live);
      if (options.ifUnchanged === true || !hasSameRole(desired, live)) throw error;
      return await this.#update(resource, desired, live, options);
    }
  }

  async #update<T extends KubeObject>(
    resource: Resource<T>,
    desired: T,
    live: T,
    options: EnsureOptions,
  ): Promise<Ensured<T>> {
    const { uid, resourceVersion } = live.metadata;
    if (uid === undefined || (options.ifUnchanged === true && resourceVersion === undefined)) {
      throw new TypeError(`${resource.kind} ${live.metadata.name} is known without UID or version`);
    }
    // An apply creates what is gone, and forces its way over whatever else has the name. With the
    // UID, the API server refuses both.
    const metadata: ObjectMeta = {
      ...desired.metadata,
      uid,
      ...(options.ifUnchanged === true && resourceVersion !== undefined && { resourceVersion }),
    };
    // Whoever changed it is forgotten with the repair.
    const changed = await this.#whoChanged(resource, desired, live, options);
    try {
      const body = { ...desired, metadata };
      const applied = await this.#client.apply(resource, body, signalOf(options));
      const object = await this.#withoutReference(resource, desired, applied, options);
      this.#stands(desired, object);
      // Nobody tells of what has no namespace: events and evidence are in that of the owner.
      const marked = metadata.namespace === undefined ? undefined : markedOwnerOf(desired);
      const owner = controllerOf(desired) ?? marked;
      if (changed !== undefined && owner !== undefined) {
        this.#onDrift?.({ resource, object, owner, ...changed, ...digestsOf(desired, live) });
      }
      return { action: 'updated', object };
    } catch (error) {
      throw isOtherUid(error) ? new ApiError(error.message, replaced) : error;
    }
  }

  #standing<T extends KubeObject>(desired: T, live: T): Ensured<T> {
    this.#stands(desired, live);
    return { action: 'none', object: live };
  }

  #stands(desired: KubeObject, { metadata: { uid } }: KubeObject): void {
    if (this.#onDrift === undefined || uid === undefined) return;
    this.#stood.set(uid, printOf(desired));
    dropOldest(this.#stood, maxStood);
  }

  /** The garbage collector would take what has a reference together with its owner. */
  async #withoutReference<T extends KubeObject>(
    resource: Resource<T>,
    desired: T,
    applied: T,
    options: EnsureOptions,
  ): Promise<T> {
    const { uid, ownerReferences = [] } = applied.metadata;
    if (controllerOf(desired) !== undefined || controllerOf(applied) === undefined) return applied;
    const others = ownerReferences.filter(({ controller }) => controller !== true);
    const patch = { metadata: { uid, ownerReferences: others.length > 0 ? others : null } };
    return await this.#client.mergePatch(resource, applied.metadata, patch, signalOf(options));
  }

  /** A repair doesn't depend on the answer. */
  async #whoChanged(
    resource: Resource,
    desired: KubeObject,
    live: KubeObject,
    { isChange = false, ...options }: EnsureOptions,
  ): Promise<Change | undefined> {
    if (this.#onDrift === undefined || isChange) return undefined;
    try {
      const stored = await this.#client.get(resource, live.metadata, {
        ...signalOf(options),
        metadataOnly: true,
      });
      const { uid = '', resourceVersion, managedFields = [] } = stored?.metadata ?? {};
      if (uid !== live.metadata.uid) return undefined;
      // A cache that lags shows what stood before the plan.
      const isTaken =
        resourceVersion !== undefined &&
        resourceVersion === live.metadata.resourceVersion &&
        this.#stood.get(uid) === printOf(desired);
      return (
        whoChanged(desired, live, managedFields) ??
        (isTaken ? { manager: undefined, changedAt: undefined } : undefined)
      );
    } catch {
      return undefined;
    }
  }
}

/** Objects that are remembered: 150 bytes each. */
const maxStood = 100_000;

const replaced = { status: 409, reason: 'Conflict' };

/** What is a conflict to us, the API server's validation calls a change of a fixed field. */
function isOtherUid(error: unknown): error is ApiError {
  return (
    error instanceof ApiError && error.status === 422 && error.message.includes('metadata.uid')
  );
}

/** The reference by which the garbage collector and we know whose an object is. */
export function controllerOf({
  metadata,
}: Pick<KubeObject, 'metadata'>): OwnerReference | undefined {
  return metadata.ownerReferences?.find(({ controller }) => controller === true);
}

/** Whether an object belongs to another one by its controller reference: by UID, not by name. */
export function isControlledBy(
  object: Pick<KubeObject, 'metadata'>,
  { metadata: { uid } }: Pick<KubeObject, 'metadata'>,
): boolean {
  return uid !== undefined && controllerOf(object)?.uid === uid;
}

/**
 * Whether an object was made for a Workflow, or for one of its name before it: a name has one at a
 * time. By labels that admission lets nobody else write; or, of an earlier version, by its reference.
 */
export function isMadeFor(
  object: Pick<KubeObject, 'metadata'>,
  workflow: Pick<KubeObject, 'metadata'>,
): boolean {
  if (controllerOf(object) !== undefined) return isControlledBy(object, workflow);
  const { namespace, labels } = object.metadata;
  if (!isLeftBehind(object) || labels?.[label.workflow] !== workflow.metadata.name) return false;
  return namespace === undefined
    ? isMadeForExactly(object, workflow)
    : namespace === workflow.metadata.namespace;
}

/** Whether it was made for this very Workflow, by UID. */
export function isMadeForExactly(
  object: Pick<KubeObject, 'metadata'>,
  { metadata: { uid } }: Pick<KubeObject, 'metadata'>,
): boolean {
  return uid !== undefined && ownerOf(object) === uid;
}

/** Whether an object is one of ours that the garbage collector doesn't take with its owner. */
export function isLeftBehind(object: Pick<KubeObject, 'metadata'>): boolean {
  const { labels, annotations } = object.metadata;
  return (
    controllerOf(object) === undefined &&
    labels?.[label.managedBy] === MANAGED_BY &&
    annotations?.[annotation.ownerUid] !== undefined
  );
}

/** As its own label and annotation say. */
function markedOwnerOf({ metadata }: KubeObject): OwnerReference | undefined {
  const uid = metadata.annotations?.[annotation.ownerUid];
  const name = metadata.labels?.[label.workflow];
  return uid === undefined || name === undefined
    ? undefined
    : { apiVersion: API_VERSION, kind: 'Workflow', name, uid };
}

/** UID of what an object belongs to: by its controller reference, or by its mark where it has none. */
function ownerOf(object: Pick<KubeObject, 'metadata'>): string | undefined {
  return controllerOf(object)?.uid ?? object.metadata.annotations?.[annotation.ownerUid];
}

function signalOf({ signal }: EnsureOptions): { signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

function hasSameOwner(desired: KubeObject, live: KubeObject): boolean {
  const controller = controllerOf(desired)?.uid;
  if (controller !== undefined) return controller !== '' && controllerOf(live)?.uid === controller;
  const { uid = '', name = '' } = markedOwnerOf(desired) ?? {};
  const { namespace } = desired.metadata;
  const owner = { metadata: { name, uid, ...(namespace !== undefined && { namespace }) } };
  // One whose labels somebody took is repaired; nothing but a repair may follow from the UID alone.
  return uid !== '' && (isMadeFor(live, owner) || isMadeForExactly(live, owner));
}

function isLeftAlone(desired: KubeObject, live: KubeObject): boolean {
  return live.metadata.deletionTimestamp !== undefined || holds(desired, live);
}

function hasSameRole(desired: KubeObject, live: KubeObject): boolean {
  const wanted = (desired as Partial<RoleBinding>).roleRef;
  return wanted === undefined || isSame(wanted, (live as Partial<RoleBinding>).roleRef);
}

/**
 * Whether everything that `desired` says holds of `live`. An object, its metadata, its `spec` and
 * its `data` may have more fields than we set. Inside those fields nothing may be added: one more
 * label makes a selector miss pods, one more field makes a rule of a policy wider. The API server
 * treats them alike: applying a selector or a list of rules replaces it whole.
 */
function holds(desired: KubeObject, live: KubeObject): boolean {
  const { apiVersion: _, kind: __, metadata, ...rest } = desired;
  return (
    holdsOfMetadata(metadata, live.metadata) &&
    (controllerOf(desired) !== undefined || controllerOf(live) === undefined) &&
    isWithin(rest, live, (wanted, found) =>
      isRecord(wanted)
        ? isWithin(wanted, isRecord(found) ? found : {}, isSame)
        : isSame(wanted, found),
    )
  );
}

function holdsOfMetadata(desired: ObjectMeta, live: ObjectMeta): boolean {
  const { labels = {}, annotations = {}, ownerReferences = [], finalizers = [] } = desired;
  return (
    isWithin(labels, live.labels ?? {}, isSame) &&
    isWithin(annotations, live.annotations ?? {}, isSame) &&
    finalizers.every((finalizer) => live.finalizers?.includes(finalizer)) &&
    ownerReferences.every((wanted) => live.ownerReferences?.some((found) => isSame(wanted, found)))
  );
}

function isWithin(
  desired: object,
  live: object,
  matches: (wanted: unknown, found: unknown) => boolean,
): boolean {
  return Object.entries(desired).every(([field, wanted]) =>
    wanted === undefined ? true : matches(wanted, Reflect.get(live, field)),
  );
}

/** Equal, where absent, `null` and an empty list are the same, as they are to the API server. */
function isSame(wanted: unknown, found: unknown): boolean {
  const [a, b] = [present(wanted), present(found)];
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((item, index) => isSame(item, b[index]));
  }
  if (!isRecord(a) || !isRecord(b)) return isDeepStrictEqual(a, b);
  const fields = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...fields].every((field) => isSame(a[field], b[field]));
}

function present(value: unknown): unknown {
  return value === null || (Array.isArray(value) && value.length === 0) ? undefined : value;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
