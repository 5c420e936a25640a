import { setImmediate } from 'node:timers/promises';
import {
  FakeStorage,
  isRecord,
  jsonPatched,
  mergePatched,
  type StoredObject,
} from '../../test/fault/fake-storage.ts';
import type { EvidenceSegment, EvidenceSegmentSpec } from '../api/evidence-segment.ts';
import { keyOf, type KubeObject } from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type {
  DeleteOptions,
  JsonPatchOperation,
  KubeClient,
  ListOptions,
  ObjectKey,
} from '../runtime/client.ts';
import { ApiError, ApiTimeoutError } from '../runtime/errors.ts';

/** What the API server refuses of a segment. */
export class NotAppendOnlyError extends Error {
  readonly code = 'NOT_APPEND_ONLY';
  override readonly name = 'NotAppendOnlyError';
}

/** A storage that many clients share. */
export class MemoryCluster {
  readonly storage = new FakeStorage();
  /** Writes so far, successful or not. */
  writes = 0;

  constructor(...namespaces: string[]) {
    for (const name of namespaces) {
      this.storage.create('namespaces', { metadata: { name } });
    }
  }

  segments(namespace: string, chain: string): EvidenceSegmentSpec[] {
    return this.storage
      .list(resources.evidenceSegments.plural)
      .map(segmentOf)
      .filter(({ metadata, spec }) => metadata.namespace === namespace && spec.chain === chain)
      .map(({ spec }) => spec);
  }
}

function segmentOf(object: StoredObject): EvidenceSegment {
  if (!isRecord(object.spec)) throw new TypeError('no segment');
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- stored by the code under test
  return object as unknown as EvidenceSegment;
}

/** What happens to a write: before it is done, after it, or not at all. */
export type Fault =
  | 'none'
  | 'refused'
  | 'timeout-before'
  | 'timeout-after'
  | 'killed-before'
  | 'killed-after';

/** One process's client, which can be killed between any two writes. */
export class MemoryClient implements KubeClient {
  readonly #cluster: MemoryCluster;
  readonly #fault: (write: number) => Fault;
  #writes = 0;
  isKilled = false;

  constructor(cluster: MemoryCluster, fault: (write: number) => Fault = () => 'none') {
    this.#cluster = cluster;
    this.#fault = fault;
  }

  async get<T extends KubeObject>(of: Resource<T>, key: ObjectKey): Promise<T | undefined> {
    await this.#turn();
    return this.#copy<T>(this.#cluster.storage.get(of.plural, keyOf({ metadata: key })));
  }

  async list<T extends KubeObject>(of: Resource<T>, options: ListOptions = {}): Promise<T[]> {
    await this.#turn();
    return this.#cluster.storage
      .list(of.plural)
      .filter(({ metadata }) => metadata.namespace === options.namespace)
      .filter(({ metadata }) => matches(metadata.labels ?? {}, options.labelSelector ?? ''))
      .flatMap((object) => this.#copy<T>(object) ?? []);
  }

  async create<T extends KubeObject>(of: Resource<T>, body: T): Promise<T> {
    return await this.#write(() => this.#cluster.storage.create(of.plural, body));
  }

  async jsonPatch<T extends KubeObject>(
    of: Resource<T>,
    key: ObjectKey,
    patch: JsonPatchOperation[],
  ): Promise<T> {
    return await this.#write(() =>
      this.#cluster.storage.update(of.plural, keyOf({ metadata: key }), (current) => {
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a patched object is one
        const next = jsonPatched(current, patch) as StoredObject;
        if (of.plural === resources.evidenceSegments.plural) {
          assertAppendOnly(segmentOf(current).spec, segmentOf(next).spec);
        }
        return next;
      }),
    );
  }

  async mergePatch<T extends KubeObject>(
    of: Resource<T>,
    key: ObjectKey,
    patch: object,
  ): Promise<T> {
    return await this.#write(() =>
      this.#cluster.storage.update(
        of.plural,
        keyOf({ metadata: key }),
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a patched object is one
        (current) => mergePatched(current, patch) as StoredObject,
      ),
    );
  }

  apply<T extends KubeObject>(): Promise<T> {
    return Promise.reject(new TypeError('nothing applies evidence'));
  }

  async delete(of: Resource, key: ObjectKey, { uid }: DeleteOptions = {}): Promise<boolean> {
    await this.#write(() =>
      this.#cluster.storage.delete(
        of.plural,
        keyOf({ metadata: key }),
        uid === undefined ? {} : { uid },
      ),
    );
    return true;
  }

  async #write<T extends KubeObject>(write: () => StoredObject): Promise<T> {
    await this.#turn();
    this.#writes += 1;
    this.#cluster.writes += 1;
    const fault = this.#fault(this.#writes);
    if (fault === 'refused') throw new ApiError('not now', { status: 500 });
    if (fault === 'timeout-before') throw new ApiTimeoutError(1);
    if (fault === 'killed-before') this.isKilled = true;
    await this.#turn();
    const written = this.#copy<T>(write());
    if (fault === 'timeout-after') throw new ApiError('committed, and lost', { status: 500 });
    if (fault === 'killed-after') this.isKilled = true;
    await this.#turn();
    if (written === undefined) throw new TypeError('nothing was written');
    return written;
  }

  /** Whoever is killed hears of nothing any more. */
  async #turn(): Promise<void> {
    if (this.isKilled) await Promise.withResolvers<never>().promise;
    await setImmediate();
    if (this.isKilled) await Promise.withResolvers<never>().promise;
  }

  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the API's promise, by the caller
  #copy<T>(object: StoredObject | undefined): T | undefined {
    if (object === undefined) return undefined;
    const copy: T = JSON.parse(JSON.stringify(object));
    return copy;
  }
}

/** As the rules of the CustomResourceDefinition. */
function assertAppendOnly(before: EvidenceSegmentSpec, after: EvidenceSegmentSpec): void {
  const kept = before.records.every(
    ({ hash, record }, index) =>
      after.records[index]?.hash === hash && after.records[index].record === record,
  );
  const inOrder = after.records.every(({ sequence }, index) => sequence === after.first + index);
  if (before.sealed || !kept || !inOrder) throw new NotAppendOnlyError('the API server refuses');
}

function matches(labels: Record<string, string>, selector: string): boolean {
  return selector
    .split(',')
    .filter((part) => part !== '')
    .every((part) => {
      if (part.startsWith('!')) return labels[part.slice(1)] === undefined;
      const [key = '', value] = part.split('=');
      return labels[key] === value;
    });
}
