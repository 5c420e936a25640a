import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { admissionPolicies, type AdmissionObject } from '../../admission/index.ts';
import type { KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import type { Logger } from '../../observability/logger.ts';
import type { KubeClient, WatchClient } from '../../runtime/client.ts';
import { isNotFound } from '../../runtime/errors.ts';
import { ListWatch, type ListWatchMetrics } from '../../runtime/list-watch.ts';
import type { Stored } from './plan.ts';

export interface StoredPoliciesOptions {
  client: KubeClient & WatchClient;
  logger: Logger;
  metrics: ListWatchMetrics;
  /** Of what hasn't been heard for so long, nothing is known; milliseconds. */
  staleAfterMs: number;
}

/** Of a policy or a binding, what is compared. */
export interface StoredPolicy extends KubeObject {
  /** Of ours alone. */
  spec: unknown;
}

/** How often it is asked for a kind that isn't served: a cluster is upgraded under us. */
const unservedMs = 60_000;

/**
 * The policies and bindings that the API server has, and a notice of each change of ours. They are
 * told by name, not by label: a label is quickly taken away.
 */
export class StoredPolicies {
  readonly #options: StoredPoliciesOptions;
  /** Of each kind those that are stored; of those that aren't ours without a spec. */
  readonly caches: readonly ListWatch<StoredPolicy>[];
  readonly #unserved = new Set<string>();
  readonly #listeners: (() => void)[] = [];

  constructor(options: StoredPoliciesOptions) {
    this.#options = options;
    const ours = new Set(admissionPolicies().map(({ metadata }) => metadata.name));
    const { validatingPolicies, validatingBindings, mutatingPolicies, mutatingBindings } =
      resources;
    this.caches = [validatingPolicies, validatingBindings, mutatingPolicies, mutatingBindings].map(
      (resource) => this.#cacheOf(resource, ours),
    );
  }

  /** Called after a policy or a binding of ours was created, deleted or edited. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  get(kind: AdmissionObject['kind'], name: string): Stored {
    if (this.#unserved.has(kind)) return 'not served';
    const cache = this.caches.find(({ resource }) => resource.kind === kind);
    if (cache?.hasSynced !== true || cache.stalenessMs > this.#options.staleAfterMs) {
      return 'not read';
    }
    return cache.store.get(name) ?? 'absent';
  }

  /** Follows them until the signal aborts. Never rejects; run it once. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.caches.map((cache) => this.#runWhereServed(cache, signal)));
  }

  async #runWhereServed(cache: ListWatch<StoredPolicy>, signal: AbortSignal): Promise<void> {
    const { resource } = cache;
    while (!signal.aborted && !(await this.#isServed(resource, signal))) {
      this.#unserved.add(resource.kind);
      await delay(unservedMs, undefined, { signal }).catch(() => undefined);
    }
    this.#unserved.delete(resource.kind);
    await cache.run(signal);
  }

  async #isServed(resource: Resource, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#options.client.listPage(resource, { limit: 1, signal });
      return true;
    } catch (error) {
      // Any other failure is the cache's to overcome.
      return !isNotFound(error);
    }
  }

  #cacheOf(resource: Resource, ours: ReadonlySet<string>): ListWatch<StoredPolicy> {
    const { client, logger, metrics } = this.#options;
    const cache = new ListWatch<StoredPolicy>({
      client,
      logger,
      metrics,
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the projection makes it one
      resource: resource as Resource<StoredPolicy>,
      project: (object) => {
        const { name, uid = '', resourceVersion = '' } = object.metadata;
        const spec: unknown = ours.has(name) ? Reflect.get(object, 'spec') : undefined;
        return { metadata: { name, uid, resourceVersion }, spec };
      },
    });
    cache.onChange(({ type, object, previous }) => {
      const isSame = type === 'updated' && isDeepStrictEqual(object.spec, previous?.spec);
      if (object.spec === undefined || isSame) return;
      for (const listener of this.#listeners) listener();
    });
    return cache;
  }
}
