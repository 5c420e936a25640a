import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { keyOf, type KubeObject } from '../../src/api/objects.ts';
import type { JsonPatchOperation } from '../../src/runtime/client.ts';
import { ApiError } from '../../src/runtime/errors.ts';

/** An object as it lies in storage: whatever its kind has, by name. */
export interface StoredObject extends KubeObject {
  metadata: KubeObject['metadata'] & { uid: string; resourceVersion: string; generation: number };
  spec?: unknown;
  status?: unknown;
  [field: string]: unknown;
}

/** One change of one object, in the order of versions. */
export interface StorageEvent {
  version: number;
  /** `group/version/plural`. */
  collection: string;
  object: StoredObject | undefined;
  previous: StoredObject | undefined;
}

/** Changes that are kept for watches; older ones are gone, as after a compaction. */
const maxEvents = 20_000;

/** What etcd and the API server's registry do: one counter for all versions, conflicts, history. */
export class FakeStorage {
  readonly #collections = new Map<string, Map<string, StoredObject>>();
  readonly #listeners = new Set<(event: StorageEvent) => void>();
  #events: StorageEvent[] = [];
  #version = 100;
  #compacted = 0;

  get version(): number {
    return this.#version;
  }

  get(collection: string, key: string): StoredObject | undefined {
    return this.#collections.get(collection)?.get(key);
  }

  /** Sorted by key. */
  list(collection: string): StoredObject[] {
    const objects = this.#collections.get(collection) ?? new Map<string, StoredObject>();
    return [...objects.entries()].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([, o]) => o);
  }

  /** @throws ApiError `AlreadyExists` */
  create(collection: string, body: KubeObject, dryRun = false): StoredObject {
    const existing = this.get(collection, keyOf(body));
    if (existing !== undefined) {
      throw new ApiError(`${collection} "${body.metadata.name}" already exists`, {
        status: 409,
        reason: 'AlreadyExists',
      });
    }
    const object: StoredObject = {
      ...structuredClone(body),
      metadata: {
        ...structuredClone(body.metadata),
        uid: randomUUID(),
        creationTimestamp: '2026-01-01T00:00:00Z',
        resourceVersion: '',
        generation: 1,
      },
    };
    return dryRun ? object : this.#commit(collection, object, undefined);
  }

  /**
   * Replaces what is there by what `change` makes of it. Nothing happens where that is the same.
   *
   * @throws ApiError `NotFound`; `Conflict` where the new object carries another version or UID
   */
  update(
    collection: string,
    key: string,
    change: (current: StoredObject) => KubeObject,
    dryRun = false,
  ): StoredObject {
    const previous = this.#require(collection, key);
    const next = structuredClone(change(structuredClone(previous)));
    const { uid, resourceVersion } = next.metadata;
    if (
      (uid !== undefined && uid !== previous.metadata.uid) ||
      (resourceVersion !== undefined && resourceVersion !== previous.metadata.resourceVersion)
    ) {
      throw conflict(key);
    }
    const { creationTimestamp, deletionTimestamp, generation } = previous.metadata;
    const object: StoredObject = {
      ...next,
      metadata: {
        ...next.metadata,
        uid: previous.metadata.uid,
        resourceVersion: previous.metadata.resourceVersion,
        ...(creationTimestamp !== undefined && { creationTimestamp }),
        ...(deletionTimestamp !== undefined && { deletionTimestamp }),
        generation,
      },
    };
    if (isDeepStrictEqual(object, previous)) return previous;
    if (!isDeepStrictEqual(object.spec, previous.spec)) object.metadata.generation += 1;
    if (dryRun) return object;
    if (deletionTimestamp !== undefined && (object.metadata.finalizers ?? []).length === 0) {
      return this.#drop(collection, key, previous);
    }
    return this.#commit(collection, object, previous);
  }

  /**
   * Deletes, or marks as being deleted what has finalizers.
   *
   * @throws ApiError `NotFound`; `Conflict` where a precondition fails
   */
  delete(
    collection: string,
    key: string,
    preconditions: { uid?: string; resourceVersion?: string } = {},
    dryRun = false,
  ): StoredObject {
    const previous = this.#require(collection, key);
    const { uid = previous.metadata.uid } = preconditions;
    const { resourceVersion = previous.metadata.resourceVersion } = preconditions;
    if (uid !== previous.metadata.uid || resourceVersion !== previous.metadata.resourceVersion) {
      throw conflict(key);
    }
    if (dryRun) return previous;
    if ((previous.metadata.finalizers ?? []).length === 0) {
      return this.#drop(collection, key, previous);
    }
    if (previous.metadata.deletionTimestamp !== undefined) return previous;
    const object = structuredClone(previous);
    object.metadata.deletionTimestamp = '2026-01-01T00:00:00Z';
    object.metadata.generation += 1;
    return this.#commit(collection, object, previous);
  }

  /** Forgets all history: watches and continued lists from older versions are answered with 410. */
  compact(): void {
    this.#events = [];
    this.#compacted = this.#version;
  }

  isCompacted(version: number): boolean {
    return version < this.#compacted;
  }

  /** What happened in a collection after a version. */
  since(collection: string, version: number): StorageEvent[] {
    return this.#events.filter(
      (event) => event.collection === collection && event.version > version,
    );
  }

  /** @returns ends it */
  onEvent(listener: (event: StorageEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #require(collection: string, key: string): StoredObject {
    const found = this.get(collection, key);
    if (found !== undefined) return found;
    throw new ApiError(`${collection} "${key}" not found`, { status: 404, reason: 'NotFound' });
  }

  #commit(
    collection: string,
    object: StoredObject,
    previous: StoredObject | undefined,
  ): StoredObject {
    this.#version += 1;
    object.metadata.resourceVersion = String(this.#version);
    const objects = this.#collections.get(collection) ?? new Map<string, StoredObject>();
    this.#collections.set(collection, objects.set(keyOf(object), object));
    this.#publish({ version: this.#version, collection, object, previous });
    return object;
  }

  #drop(collection: string, key: string, previous: StoredObject): StoredObject {
    this.#version += 1;
    this.#collections.get(collection)?.delete(key);
    this.#publish({ version: this.#version, collection, object: undefined, previous });
    return previous;
  }

  #publish(event: StorageEvent): void {
    this.#events.push(event);
    if (this.#events.length > maxEvents) {
      const gone = this.#events.splice(0, maxEvents / 2);
      this.#compacted = gone.at(-1)?.version ?? this.#compacted;
    }
    for (const listener of this.#listeners) listener(event);
  }
}

function conflict(key: string): ApiError {
  return new ApiError(`Operation cannot be fulfilled on "${key}": the object has been modified`, {
    status: 409,
    reason: 'Conflict',
  });
}

/** RFC 7386. */
export function mergePatched(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch;
  const result: Record<string, unknown> = isRecord(target) ? { ...target } : {};
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) delete result[field];
    else result[field] = mergePatched(result[field], value);
  }
  return result;
}

/** RFC 6902, without `move` and `copy`. @throws ApiError 422 */
export function jsonPatched(target: unknown, patch: readonly JsonPatchOperation[]): unknown {
  const root = { root: structuredClone(target) };
  for (const { op, path, value } of patch) {
    const segments = path
      .split('/')
      .slice(1)
      .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = segments.pop() ?? 'root';
    let parent: unknown = path === '' ? root : root.root;
    for (const segment of segments) parent = child(parent, segment, path);
    applyOperation(op, parent, last, value, path);
  }
  return root.root;
}

function applyOperation(
  op: JsonPatchOperation['op'],
  parent: unknown,
  field: string,
  value: unknown,
  path: string,
): void {
  if (op === 'test') {
    // As in the API server, `null` tests that there is nothing.
    const isAbsent = isRecord(parent) && !(field in parent);
    if (isAbsent && value === null) return;
    if (isDeepStrictEqual(child(parent, field, path), value)) return;
    throw invalid(`test of ${path} failed`);
  }
  if (op === 'replace' || op === 'remove') child(parent, field, path);
  if (Array.isArray(parent)) {
    const index = field === '-' ? parent.length : Number(field);
    if (op === 'add') parent.splice(index, 0, value);
    if (op === 'replace') parent[index] = value;
    if (op === 'remove') parent.splice(index, 1);
    return;
  }
  if (!isRecord(parent)) throw invalid(`${path} leads nowhere`);
  if (op === 'add' || op === 'replace') parent[field] = value;
  if (op === 'remove') delete parent[field];
}

function child(parent: unknown, field: string, path: string): unknown {
  const isContainer = isRecord(parent) || Array.isArray(parent);
  const value: unknown = isContainer ? Reflect.get(parent, field) : undefined;
  if (value === undefined) throw invalid(`${path} leads nowhere`);
  return value;
}

function invalid(message: string): ApiError {
  return new ApiError(message, { status: 422, reason: 'Invalid' });
}

/**
 * Server-side apply in little: what this manager applied before and doesn't any more goes, what it
 * applies now is set; lists are replaced whole.
 */
export function applied(live: unknown, before: unknown, now: unknown): unknown {
  if (!isRecord(now)) return now;
  const result: Record<string, unknown> = isRecord(live) ? { ...live } : {};
  if (isRecord(before)) {
    for (const field of Object.keys(before)) if (!(field in now)) delete result[field];
  }
  for (const [field, value] of Object.entries(now)) {
    result[field] = applied(result[field], isRecord(before) ? before[field] : undefined, value);
  }
  return result;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
