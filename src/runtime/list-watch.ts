import { setTimeout as delay } from 'node:timers/promises';
import { keyOf, type KubeObject } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import { errorOfEvent, listAll, type WatchClient, type WatchEvent } from './client.ts';
import { ApiError, isExpired, MalformedResponseError } from './errors.ts';
import { ObjectStore, type Indexes, type ReadStore } from './store.ts';

/** What happened to one object. One that was re-created (other UID) is `deleted`, then `added`. */
export interface Change<T> {
  type: 'added' | 'updated' | 'deleted';
  /** The new object; the last one known, where it was deleted. */
  object: T;
  previous?: T;
}

/** A cache of one kind that follows the API server. */
export interface Informer<T> {
  readonly resource: Resource;
  readonly store: ReadStore<T>;
  /** The first list is in the store. */
  readonly hasSynced: boolean;
  /** @throws the reason of the signal, where the informer is stopped before its first list */
  whenSynced(): Promise<void>;
  /** Called after the store has changed. Register before the start: nothing is repeated. */
  onChange(listener: (change: Change<T>) => void): void;
  /** Called after `hasSynced` or `isForbidden` has changed. Register before the start. */
  onVisibility(listener: () => void): void;
  /**
   * Age of the last sign of life: a list, a watch that the server accepted, an event or a bookmark.
   * Of a kind to which nothing happens, that may be as old as `inactivityMs` at any time.
   */
  readonly stalenessMs: number;
  /** The API server refused the last list or watch for want of rights (401, 403). */
  readonly isForbidden: boolean;
}

/** Why a watch ended. */
export type WatchEnd =
  /** The server ended it, as it was asked to. */
  | 'timeout'
  /** The server ended it at once. */
  | 'short'
  /**
   * Neither event nor bookmark for longer than bookmarks are apart. Often nothing is wrong: there
   * are no bookmarks before the server has seen a newer version than the watch began with, and for
   * a kind that nobody changes or lists that is as often as etcd reports progress (10 minutes, if
   * nobody set `--watch-progress-notify-interval`).
   */
  | 'inactive'
  /** The connection failed. */
  | 'disconnected'
  /** 410: the server no longer has what happened since our version. */
  | 'expired'
  /** A line that is no event. */
  | 'malformed'
  /** A bookmark that is older than what we have seen: etcd was restored, or the server lags. */
  | 'regressed'
  /** 429. */
  | 'throttled'
  /** 404: the kind isn't served (yet). */
  | 'not_found'
  /** 401 or 403. */
  | 'forbidden'
  /** Any other answer, or an error in the stream. */
  | 'server_error';

/** Why everything is listed again. */
export type RelistReason = Extract<
  WatchEnd,
  'expired' | 'malformed' | 'regressed' | 'server_error' | 'not_found'
>;

export interface ListWatchMetrics {
  watchRestarted(kind: string, reason: WatchEnd): void;
  relisted(kind: string, reason: RelistReason): void;
  /** Called once by each list/watch; what it has is to be read when metrics are collected. */
  track(
    kind: string,
    informer: Pick<Informer<KubeObject>, 'hasSynced' | 'stalenessMs' | 'store'>,
  ): void;
}

/** Milliseconds, unless said otherwise. */
export interface ListWatchTimings {
  /** Silence after which a watch is given up. The server sends a bookmark about once a minute. */
  inactivityMs: number;
  /** Seconds after which the server is asked to end a watch: from here … */
  minTimeoutSeconds: number;
  /** … to here, so that not all watches end together. */
  maxTimeoutSeconds: number;
  /** A watch that ended sooner is a failure, whatever it brought. */
  minWatchMs: number;
  minBackoffMs: number;
  maxBackoffMs: number;
  /** `Retry-After` is obeyed up to here. */
  maxRetryAfterMs: number;
}

const defaultTimings: ListWatchTimings = {
  inactivityMs: 90_000,
  minTimeoutSeconds: 300,
  maxTimeoutSeconds: 600,
  minWatchMs: 1_000,
  minBackoffMs: 800,
  maxBackoffMs: 30_000,
  maxRetryAfterMs: 60_000,
};

export interface ListWatchOptions<T extends KubeObject> {
  client: WatchClient;
  resource: Resource<T>;
  /** All namespaces where it is missing. */
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  /** What to keep of an object; it is stored frozen. Default: all but `managedFields`. */
  project?: (object: KubeObject) => T;
  indexes?: Indexes<T>;
  metrics: ListWatchMetrics;
  logger: Logger;
  /** Monotonic milliseconds. */
  clock?: () => number;
  /** In [0, 1). */
  random?: () => number;
  /** Ends after the time, or when the signal aborts. */
  sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
  timings?: Partial<ListWatchTimings>;
}

/**
 * Lists a kind, then watches it, for ever: the store is what the API server has, as of a moment
 * ago, and every change is told. Whatever fails is tried again with backoff; nothing that it meets
 * ends it but its signal.
 *
 * Lists have no `resourceVersion`: the answer is the current state, never what some cache of the
 * API server had once. A `resourceVersion` of 0 can go back in time.
 */
export class ListWatch<T extends KubeObject> implements Informer<T> {
  readonly resource: Resource<T>;
  readonly #options: ListWatchOptions<T>;
  readonly #timings: ListWatchTimings;
  readonly #clock: () => number;
  readonly #random: () => number;
  readonly #sleep: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #log: Logger;
  readonly #store: ObjectStore<T>;
  readonly #backoff: Backoff;
  readonly #listeners: ((change: Change<T>) => void)[] = [];
  readonly #visibilityListeners: (() => void)[] = [];
  readonly #synced = Promise.withResolvers<void>();
  #hasSynced = false;
  /** Where the next watch starts; `undefined`: list first. */
  #resourceVersion: string | undefined;
  #relistReason: RelistReason | undefined;
  /** The version after which a line made no sense. */
  #malformedAfter: string | undefined;
  #lastSignOfLife: number;
  #isForbidden = false;

  constructor(options: ListWatchOptions<T>) {
    this.resource = options.resource;
    this.#options = options;
    this.#timings = { ...defaultTimings, ...options.timings };
    this.#clock = options.clock ?? ((): number => performance.now());
    this.#random = options.random ?? Math.random;
    this.#sleep = options.sleep ?? sleep;
    this.#log = options.logger.child({ kind: options.resource.kind });
    this.#store = new ObjectStore<T>(options.indexes);
    this.#backoff = new Backoff(this.#timings, this.#random);
    this.#lastSignOfLife = this.#clock();
    // Nobody has to wait for the first list.
    this.#synced.promise.catch(() => undefined);
    options.metrics.track(options.resource.kind, this);
  }

  get store(): ReadStore<T> {
    return this.#store;
  }

  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  get stalenessMs(): number {
    return this.#clock() - this.#lastSignOfLife;
  }

  get isForbidden(): boolean {
    return this.#isForbidden;
  }

  whenSynced(): Promise<void> {
    return this.#synced.promise;
  }

  onChange(listener: (change: Change<T>) => void): void {
    this.#listeners.push(listener);
  }

  onVisibility(listener: () => void): void {
    this.#visibilityListeners.push(listener);
  }

  /** Ends when the signal aborts, and only then; never rejects. Run it once. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const pauseMs = await this.#step(signal);
      if (pauseMs > 0 && !signal.aborted) await this.#sleep(pauseMs, signal);
    }
    this.#synced.reject(signal.reason);
  }

  /** @returns milliseconds to wait before the next step */
  async #step(signal: AbortSignal): Promise<number> {
    try {
      if (this.#resourceVersion === undefined) return await this.#listOnce(signal);
      return await this.#watchOnce(this.#resourceVersion, signal);
    } catch (error) {
      this.#log.error('list/watch step failed, will be tried again', describe(error));
      return this.#pauseAfter(error);
    }
  }

  async #listOnce(signal: AbortSignal): Promise<number> {
    const reason = this.#relistReason;
    try {
      if (reason !== undefined) this.#options.metrics.relisted(this.resource.kind, reason);
      this.#relistReason = undefined;
      const { client, namespace, labelSelector, fieldSelector } = this.#options;
      const kept = new Set<string>();
      const listed: T[] = [];
      const resourceVersion = await listAll(
        client,
        this.resource,
        {
          ...(namespace !== undefined && { namespace }),
          ...(labelSelector !== undefined && { labelSelector }),
          ...(fieldSelector !== undefined && { fieldSelector }),
          signal,
        },
        {
          restart: () => {
            kept.clear();
            listed.length = 0;
          },
          item: (item) => {
            const object = this.#project(item);
            if (object === undefined) kept.add(keyOf(item));
            else listed.push(object);
          },
        },
      );
      this.#replace(listed, kept);
      this.#resourceVersion = resourceVersion;
      this.#malformedAfter = undefined;
      this.#noteLife();
      if (!this.#hasSynced) {
        this.#hasSynced = true;
        this.#synced.resolve();
        for (const listener of this.#visibilityListeners) listener();
      }
      return 0;
    } catch (error) {
      if (signal.aborted) return 0;
      this.#noteForbidden(endOf(error, false) === 'forbidden');
      this.#log.warn('list failed, will be tried again', describe(error));
      return this.#pauseAfter(error);
    }
  }

  async #watchOnce(resourceVersion: string, signal: AbortSignal): Promise<number> {
    const started = this.#clock();
    const { client, namespace, labelSelector, fieldSelector, metrics } = this.#options;
    const { inactivityMs, minTimeoutSeconds, maxTimeoutSeconds, minWatchMs } = this.#timings;
    const watch = new AbortController();
    const stop = (): void => watch.abort(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    // Armed before the request: an answer that never comes is silence, too.
    const inactivity = setTimeout(() => watch.abort(new InactiveError()), inactivityMs);
    let isAlive = false;
    const noteLife = (): void => {
      isAlive = true;
      this.#noteLife();
    };
    let failure: unknown;
    try {
      const events = client.watch(this.resource, {
        ...(namespace !== undefined && { namespace }),
        ...(labelSelector !== undefined && { labelSelector }),
        ...(fieldSelector !== undefined && { fieldSelector }),
        resourceVersion,
        timeoutSeconds: Math.round(
          minTimeoutSeconds + this.#random() * (maxTimeoutSeconds - minTimeoutSeconds),
        ),
        signal: watch.signal,
        onOpen: noteLife,
      });
      for await (const event of events) {
        inactivity.refresh();
        this.#receive(event);
        noteLife();
      }
    } catch (error) {
      failure = watch.signal.aborted ? watch.signal.reason : error;
    } finally {
      clearTimeout(inactivity);
      signal.removeEventListener('abort', stop);
      watch.abort();
    }
    if (signal.aborted) return 0;

    const lasted = this.#clock() - started;
    const end = endOf(failure, lasted < minWatchMs);
    this.#noteForbidden(end === 'forbidden');
    metrics.watchRestarted(this.resource.kind, end);
    const isOrdinary = end === 'timeout' || end === 'inactive';
    this.#log[isOrdinary ? 'debug' : 'info']('watch ended, will be restarted', {
      reason: end,
      ...describe(failure),
    });
    this.#relistReason = this.#reasonToRelist(end, failure);
    if (this.#relistReason !== undefined) this.#resourceVersion = undefined;

    // One that worked for a while is followed by the next at once: changes wait for it. Watches
    // that end soon, or that the server doesn't accept, are followed by pauses.
    if (lasted >= minWatchMs && isAlive) {
      this.#backoff.reset();
      if (retryAfterOf(failure) === 0) return 0;
    }
    return this.#pauseAfter(failure);
  }

  #noteLife(): void {
    this.#lastSignOfLife = this.#clock();
    this.#noteForbidden(false);
  }

  #noteForbidden(isForbidden: boolean): void {
    if (this.#isForbidden === isForbidden) return;
    this.#isForbidden = isForbidden;
    for (const listener of this.#visibilityListeners) listener();
  }

  #reasonToRelist(end: WatchEnd, failure: unknown): RelistReason | undefined {
    switch (end) {
      case 'expired':
      case 'regressed':
      case 'not_found':
        return end;
      case 'server_error':
        // An error in the stream means that the server couldn't send an event: it may be lost.
        return failure instanceof ErrorEventError ? end : undefined;
      case 'malformed': {
        const again = this.#malformedAfter === this.#resourceVersion;
        this.#malformedAfter = this.#resourceVersion;
        return again ? end : undefined;
      }
      case 'timeout':
      case 'short':
      case 'inactive':
      case 'disconnected':
      case 'throttled':
      case 'forbidden':
        break;
    }
    return undefined;
  }

  #pauseAfter(failure: unknown): number {
    const asked = Math.min(retryAfterOf(failure), this.#timings.maxRetryAfterMs);
    return Math.max(this.#backoff.next(), asked);
  }

  /** @throws RegressedError, ErrorEventError */
  #receive({ type, object }: WatchEvent<T>): void {
    const { resourceVersion } = object.metadata ?? {};
    switch (type) {
      case 'ERROR':
        throw new ErrorEventError(errorOfEvent(object));
      case 'BOOKMARK':
        if (isOlder(resourceVersion, this.#resourceVersion)) throw new RegressedError();
        break;
      case 'DELETED':
        this.#remove(object);
        break;
      case 'ADDED':
      case 'MODIFIED':
        this.#put(object);
        break;
    }
    this.#resourceVersion = resourceVersion;
  }

  #put(received: T): void {
    const object = this.#project(received);
    if (object === undefined) return;
    const previous = this.#set(object);
    if (previous === false) return;
    for (const change of changesOf(previous, object)) this.#tell(change);
  }

  #remove(received: T): void {
    const key = keyOf(received);
    const previous = this.#store.get(key);
    if (previous === undefined || previous.metadata.uid !== received.metadata.uid) return;
    this.#store.delete(key);
    this.#tell({ type: 'deleted', object: this.#project(received) ?? previous, previous });
  }

  /** Puts all in place first, then tells. Keeps what is in `kept`. */
  #replace(objects: readonly T[], kept: Set<string>): void {
    const changes: Change<T>[] = [];
    const present = new Set(kept);
    for (const object of objects) {
      const key = keyOf(object);
      present.add(key);
      const known = this.#store.get(key);
      if (known !== undefined && isSameVersion(known, object)) continue;
      const previous = this.#set(object);
      if (previous !== false) changes.push(...changesOf(previous, object));
    }
    for (const object of this.#store.list()) {
      const key = keyOf(object);
      if (present.has(key)) continue;
      this.#store.delete(key);
      changes.push({ type: 'deleted', object, previous: object });
    }
    for (const change of changes) this.#tell(change);
  }

  /** An object that our own code can't project is logged, and the one known before it stays. */
  #project(object: T): T | undefined {
    const { project } = this.#options;
    if ('managedFields' in object.metadata) delete object.metadata.managedFields;
    if (project === undefined) return object;
    try {
      return project(object);
    } catch (error) {
      this.#log.error('object could not be projected', { key: keyOf(object), error });
      return undefined;
    }
  }

  /** @returns the object before, or `false` where the object can't be indexed */
  #set(object: T): T | undefined | false {
    try {
      return this.#store.set(object);
    } catch (error) {
      this.#log.error('object could not be indexed', { key: keyOf(object), error });
      return false;
    }
  }

  #tell(change: Change<T>): void {
    for (const listener of this.#listeners) {
      try {
        listener(change);
      } catch (error) {
        this.#log.error('listener failed', { key: keyOf(change.object), error });
      }
    }
  }
}

/** Exponential, each time anywhere between the shortest pause and twice the last longest. */
class Backoff {
  readonly #timings: ListWatchTimings;
  readonly #random: () => number;
  #longest = 0;

  constructor(timings: ListWatchTimings, random: () => number) {
    this.#timings = timings;
    this.#random = random;
  }

  next(): number {
    const { minBackoffMs, maxBackoffMs } = this.#timings;
    this.#longest = Math.min(maxBackoffMs, Math.max(this.#longest, minBackoffMs) * 2);
    return minBackoffMs + this.#random() * Math.max(0, this.#longest - minBackoffMs);
  }

  reset(): void {
    this.#longest = 0;
  }
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  // An abort is an end like any other.
  await delay(ms, undefined, { signal }).catch(() => undefined);
}

class InactiveError extends Error {
  readonly code = 'WATCH_INACTIVE';
  override readonly name = 'InactiveError';

  constructor() {
    super('neither event nor bookmark');
  }
}

class RegressedError extends Error {
  readonly code = 'WATCH_REGRESSED';
  override readonly name = 'RegressedError';

  constructor() {
    super('a bookmark is older than what came before');
  }
}

/** The server ended the stream with an `ERROR` event; `cause` is what it said. */
class ErrorEventError extends Error {
  readonly code = 'WATCH_ERROR_EVENT';
  override readonly name = 'ErrorEventError';
  override readonly cause: ApiError;

  constructor(cause: ApiError) {
    super(cause.message);
    this.cause = cause;
  }
}

function endOf(failure: unknown, short: boolean): WatchEnd {
  if (failure === undefined) return short ? 'short' : 'timeout';
  if (failure instanceof InactiveError) return 'inactive';
  if (failure instanceof MalformedResponseError) return 'malformed';
  if (failure instanceof RegressedError) return 'regressed';
  const error = failure instanceof ErrorEventError ? failure.cause : failure;
  if (isExpired(error)) return 'expired';
  if (failure instanceof ErrorEventError) return 'server_error';
  if (!(error instanceof ApiError)) return 'disconnected';
  switch (error.status) {
    case 401:
    case 403:
      return 'forbidden';
    case 404:
      return 'not_found';
    case 429:
      return 'throttled';
    default:
      return 'server_error';
  }
}

/** 0 where the server didn't ask for a pause. */
function retryAfterOf(failure: unknown): number {
  return failure instanceof ApiError ? (failure.retryAfterMs ?? 0) : 0;
}

function describe(failure: unknown): { error?: string } {
  if (failure === undefined) return {};
  return { error: failure instanceof Error ? failure.message : 'unknown failure' };
}

function changesOf<T extends KubeObject>(previous: T | undefined, object: T): Change<T>[] {
  if (previous === undefined) return [{ type: 'added', object }];
  if (previous.metadata.uid === object.metadata.uid) return [{ type: 'updated', object, previous }];
  return [
    { type: 'deleted', object: previous, previous },
    { type: 'added', object },
  ];
}

function isSameVersion(a: KubeObject, b: KubeObject): boolean {
  return (
    a.metadata.uid === b.metadata.uid &&
    a.metadata.resourceVersion !== undefined &&
    a.metadata.resourceVersion === b.metadata.resourceVersion
  );
}

/** Versions are decimal numbers of any length; of others nothing is known. */
function isOlder(version = '', than = ''): boolean {
  if (!/^\d+$/.test(version) || !/^\d+$/.test(than)) return false;
  return BigInt(version) < BigInt(than);
}
