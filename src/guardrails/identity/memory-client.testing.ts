/* oxlint-disable typescript/no-unsafe-type-assertion -- a path holds what was stored for its kind */
import { isDeepStrictEqual } from 'node:util';
import { keyOf, type KubeObject, type ObjectMeta } from '../../api/objects.ts';
import type { Resource } from '../../api/resources.ts';
import type {
  DeleteOptions,
  GetOptions,
  JsonPatchOperation,
  KubeClient,
  ObjectKey,
  WriteOptions,
} from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import type { ReadStore } from '../../runtime/store.ts';

/** A write as the fake API server saw it. */
export interface Write {
  verb: 'create' | 'apply' | 'patch' | 'delete';
  kind: string;
  name: string;
  subresource: string | undefined;
}

/**
 * As much of an API server as one controller's unit tests need, in memory: names, UIDs, resource
 * versions and their preconditions, merge patches. No admission, no garbage collector.
 */
export class MemoryClient implements KubeClient {
  readonly writes: Write[] = [];
  readonly gets: { kind: string; name: string; metadataOnly: boolean }[] = [];
  /** Called before a write takes effect, and after; what it throws is the caller's answer. */
  beforeWrite: (write: Write) => void = () => undefined;
  afterWrite: (write: Write) => void = () => undefined;
  readonly #clock: () => number;
  readonly #objects = new Map<string, KubeObject>();
  #version = 0;

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** Puts an object there as somebody else's write would. */
  put<T extends KubeObject>(resource: Resource<T>, object: T): T {
    const key = pathOf(resource, object.metadata);
    const before = this.#objects.get(key);
    return this.#store(key, {
      ...object,
      metadata: {
        ...object.metadata,
        uid: object.metadata.uid ?? before?.metadata.uid ?? `uid-${this.#version + 1}`,
        creationTimestamp:
          object.metadata.creationTimestamp ??
          before?.metadata.creationTimestamp ??
          new Date(this.#clock()).toISOString().replace(/\.\d+/, ''),
      },
    });
  }

  find<T extends KubeObject>(resource: Resource<T>, key: ObjectKey): T | undefined {
    return this.#objects.get(pathOf(resource, key)) as T | undefined;
  }

  all<T extends KubeObject>(resource: Resource<T>): T[] {
    return [...this.#objects]
      .filter(([path]) => path.startsWith(`${resource.plural} `))
      .map(([, object]) => object as T);
  }

  /** A cache that is always up to date. */
  storeOf<T extends KubeObject>(
    resource: Resource<T>,
    indexes: Record<string, (object: T) => readonly string[]> = {},
  ): ReadStore<T> {
    const all = (): T[] => this.all(resource);
    return {
      get: (key) => all().find((object) => keyOf(object) === key),
      list: all,
      byIndex: (index, value) => all().filter((object) => indexes[index]?.(object).includes(value)),
      get size() {
        return all().length;
      },
    };
  }

  async get<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    { metadataOnly = false }: GetOptions = {},
  ): Promise<T | undefined> {
    const found = structuredClone(this.find(resource, key));
    this.gets.push({ kind: resource.kind, name: key.name, metadataOnly });
    return metadataOnly && found !== undefined ? ({ metadata: found.metadata } as T) : found;
  }

  async list<T extends KubeObject>(resource: Resource<T>): Promise<T[]> {
    return structuredClone(this.all(resource));
  }

  async create<T extends KubeObject>(resource: Resource<T>, body: T): Promise<T> {
    return this.#write('create', resource, body.metadata, undefined, (before) => {
      if (before !== undefined) throw error(409, 'AlreadyExists');
      return this.put(resource, structuredClone(body));
    });
  }

  async apply<T extends KubeObject>(resource: Resource<T>, body: T): Promise<T> {
    return this.#write('apply', resource, body.metadata, undefined, (before) => {
      if (before === undefined) return this.put(resource, structuredClone(body));
      const { metadata, ...rest } = structuredClone(body);
      return this.#store(pathOf(resource, metadata), {
        ...before,
        ...rest,
        metadata: {
          ...before.metadata,
          ...metadata,
          labels: { ...before.metadata.labels, ...metadata.labels },
        },
      });
    });
  }

  async mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: object,
    { subresource }: WriteOptions = {},
  ): Promise<T> {
    return this.#write('patch', resource, key, subresource, (before) => {
      if (before === undefined) throw error(404, 'NotFound');
      const metadata: Partial<ObjectMeta> = (patch as Partial<KubeObject>).metadata ?? {};
      for (const field of ['uid', 'resourceVersion'] as const) {
        const asked = metadata[field];
        if (asked !== undefined && asked !== before.metadata[field]) throw error(409, 'Conflict');
      }
      return this.#store(pathOf(resource, key), merge(before, structuredClone(patch)) as T);
    });
  }

  async jsonPatch<T extends KubeObject>(
    _resource: Resource<T>,
    _key: ObjectKey,
    _patch: JsonPatchOperation[],
  ): Promise<T> {
    throw new Error('not needed');
  }

  async delete(resource: Resource, key: ObjectKey, { uid }: DeleteOptions = {}): Promise<boolean> {
    return this.#write('delete', resource, key, undefined, (before) => {
      if (before === undefined || (uid !== undefined && uid !== before.metadata.uid)) return false;
      return this.#objects.delete(pathOf(resource, key));
    });
  }

  /** Deletes as somebody else would. */
  remove(resource: Resource, key: ObjectKey): void {
    this.#objects.delete(pathOf(resource, key));
  }

  #write<T extends KubeObject, R>(
    verb: Write['verb'],
    resource: Resource<T>,
    key: ObjectKey,
    subresource: string | undefined,
    effect: (before: T | undefined) => R,
  ): R {
    const write = { verb, kind: resource.kind, name: key.name, subresource };
    this.writes.push(write);
    this.beforeWrite(write);
    const result = effect(this.find(resource, key));
    this.afterWrite(write);
    return structuredClone(result);
  }

  #store<T extends KubeObject>(key: string, object: T): T {
    const before = this.#objects.get(key);
    if (before !== undefined && isDeepStrictEqual(before, object)) return object;
    const stored = {
      ...object,
      metadata: { ...object.metadata, resourceVersion: String(++this.#version) },
    };
    this.#objects.set(key, stored);
    return stored;
  }
}

function pathOf(resource: Resource, { namespace = '', name }: ObjectKey): string {
  return `${resource.plural} ${namespace}/${name}`;
}

function error(status: number, reason: string): ApiError {
  return new ApiError(reason, { status, reason });
}

/** RFC 7396. */
function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const merged: Record<string, unknown> =
    typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === undefined) continue;
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}
