import { setTimeout as delay } from 'node:timers/promises';
import type { KubeObject } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import type { WatchClient } from './client.ts';
import { isNotFound } from './errors.ts';
import type { Change, ListWatch } from './list-watch.ts';

export interface OptionalWatchOptions<T extends KubeObject> {
  client: Pick<WatchClient, 'listPage'>;
  resource: Resource<T>;
  /** Makes the list/watch, once the kind is found to be served. */
  create: () => ListWatch<T>;
  logger: Logger;
}

/** How often it is asked whether a kind is served: what is installed is used a minute later. */
const askEveryMs = 60_000;

/**
 * Follows a kind that may never be installed, or be while we run. As long as it isn't, that costs
 * one request now and then.
 */
export class OptionalWatch<T extends KubeObject> {
  readonly resource: Resource<T>;
  readonly #options: OptionalWatchOptions<T>;
  readonly #listeners: ((change: Change<T>) => void)[] = [];
  readonly #servedListeners: (() => void)[] = [];
  #watch: ListWatch<T> | undefined;
  #isServed: boolean | undefined;
  readonly #known = Promise.withResolvers<void>();

  constructor(options: OptionalWatchOptions<T>) {
    this.#options = options;
    this.resource = options.resource;
  }

  /** The last answer; `undefined` before the first one. */
  get isServed(): boolean | undefined {
    return this.#isServed;
  }

  /** The kind is served, and was listed. */
  get hasSynced(): boolean {
    return this.#watch?.hasSynced === true;
  }

  /** When it is known that the kind isn't served, or all of its objects are. */
  whenKnown(): Promise<void> {
    return this.#known.promise;
  }

  /** The objects for which the index function of the list/watch gave `value`. */
  byIndex(index: string, value: string): readonly T[] {
    return this.#watch?.store.byIndex(index, value) ?? [];
  }

  list(): Iterable<T> {
    return this.#watch?.store.list() ?? [];
  }

  /** Called after an object has changed. Register before the start. */
  onChange(listener: (change: Change<T>) => void): void {
    this.#listeners.push(listener);
  }

  /** Called after `isServed` or `hasSynced` has changed. Register before the start. */
  onServed(listener: () => void): void {
    this.#servedListeners.push(listener);
  }

  /** Ends when the signal aborts, and only then; never rejects. Run it once. */
  async run(signal: AbortSignal): Promise<void> {
    let watching: Promise<void> | undefined;
    while (!signal.aborted) {
      await this.#ask(signal);
      if (this.#isServed === true && watching === undefined) {
        this.#watch = this.#options.create();
        for (const listener of this.#listeners) this.#watch.onChange(listener);
        for (const listener of this.#servedListeners) this.#watch.onVisibility(listener);
        void this.#watch.whenSynced().then(this.#known.resolve, () => undefined);
        watching = this.#watch.run(signal);
      }
      await delay(askEveryMs, undefined, { signal }).catch(() => undefined);
    }
    await watching;
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const { client, resource, logger } = this.#options;
    let isServed: boolean;
    try {
      await client.listPage(resource, { limit: 1, signal });
      isServed = true;
    } catch (error) {
      if (!isNotFound(error)) {
        if (!signal.aborted) {
          const { kind } = resource;
          logger.warn('Whether a kind is served is unknown', { kind, error });
        }
        return;
      }
      isServed = false;
    }
    if (!isServed) this.#known.resolve();
    if (isServed === this.#isServed) return;
    this.#isServed = isServed;
    for (const listener of this.#servedListeners) listener();
  }
}
