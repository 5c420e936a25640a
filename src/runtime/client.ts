import { setTimeout as delay } from 'node:timers/promises';
import { request, type Dispatcher } from 'undici';
import { FIELD_MANAGER } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { apiVersionOf, type Resource } from '../api/resources.ts';
import { ApiError, isExpired } from './errors.ts';
import type { PooledKubeConfig } from './kube-config.ts';

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

/** One line of a watch, as the API server sends it. */
export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  object: unknown;
}

export interface ListPage {
  items: KubeObject[];
  resourceVersion: string;
  continue: string | undefined;
}

export interface WatchOptions extends ListOptions {
  resourceVersion: string;
  /** After which the server ends the watch. */
  timeoutSeconds: number;
  signal: AbortSignal;
}

/** What a list/watch needs of the API server. */
export interface WatchClient {
  listPage(
    resource: Resource,
    options: ListOptions & { limit?: number; continue?: string | undefined },
  ): Promise<ListPage>;
  /**
   * Events of a watch as they arrive; ends when the server or the signal ends it.
   *
   * @throws ApiError where the server refuses; MalformedEventError on a line that isn't JSON
   */
  watch(resource: Resource, options: WatchOptions): AsyncIterable<WatchEvent>;
}

/** A line of a watch that isn't an event. */
export class MalformedEventError extends Error {
  readonly code = 'MALFORMED_WATCH_EVENT';
  override readonly name = 'MalformedEventError';
}

export interface ClientMetrics {
  /** `verb` as in RBAC; `code` the HTTP status, or `error` where there was no answer. */
  observeRequest(verb: string, code: string, seconds: number): void;
}

export interface ApiServerClientOptions {
  kubeConfig: PooledKubeConfig;
  userAgent: string;
  metrics?: ClientMetrics;
  /** Longest time for one try of a call; default 10 s. */
  timeoutMs?: number;
}

interface Call {
  /** As in RBAC. */
  verb: string;
  method: Dispatcher.HttpMethod;
  path: string;
  query?: Record<string, string | number | undefined>;
  body?: unknown;
  contentType?: string;
  signal?: AbortSignal | undefined;
}

const maxTries = 4;
const maxRetryAfterMs = 5_000;
const pageSize = 500;
const maxPages = 1_000;
const maxListRestarts = 2;
/** The API server refuses objects of more than about 1.5 MiB. */
const maxLineLength = 8 * 1024 * 1024;

/**
 * The API server over pooled connections, with client-node's authentication. A call that the
 * server turned away unprocessed (429, or 503 with `Retry-After`) is tried again a few times.
 */
export class ApiServerClient implements KubeClient, WatchClient {
  readonly #kubeConfig: PooledKubeConfig;
  readonly #userAgent: string;
  readonly #metrics: ClientMetrics | undefined;
  readonly #timeoutMs: number;

  constructor({ kubeConfig, userAgent, metrics, timeoutMs = 10_000 }: ApiServerClientOptions) {
    this.#kubeConfig = kubeConfig;
    this.#userAgent = userAgent;
    this.#metrics = metrics;
    this.#timeoutMs = timeoutMs;
  }

  async get<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    options: { signal?: AbortSignal } = {},
  ): Promise<T | undefined> {
    try {
      return (await this.#call({
        verb: 'get',
        method: 'GET',
        path: pathOf(resource, key.namespace, key.name),
        signal: options.signal,
      })) as T;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return undefined;
      throw error;
    }
  }

  async list<T extends KubeObject>(resource: Resource<T>, options: ListOptions = {}): Promise<T[]> {
    const items: KubeObject[] = [];
    await listAll(this, resource, options, {
      restart: () => (items.length = 0),
      item: (item) => items.push(item),
    });
    return items as T[];
  }

  async listPage(
    resource: Resource,
    options: ListOptions & { limit?: number; continue?: string | undefined },
  ): Promise<ListPage> {
    const list = (await this.#call({
      verb: 'list',
      method: 'GET',
      path: pathOf(resource, options.namespace),
      query: {
        ...selectors(options),
        limit: options.limit ?? pageSize,
        continue: options.continue,
      },
      signal: options.signal,
    })) as {
      items?: KubeObject[] | null;
      metadata?: { resourceVersion?: string; continue?: string };
    };
    const next = list.metadata?.continue;
    return {
      items: list.items ?? [],
      resourceVersion: list.metadata?.resourceVersion ?? '',
      continue: next === '' ? undefined : next,
    };
  }

  create<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    options: WriteOptions = {},
  ): Promise<T> {
    const { namespace, name } = body.metadata;
    const path =
      options.subresource === undefined
        ? pathOf(resource, namespace)
        : pathOf(resource, namespace, name);
    return this.#write('create', 'POST', path, typed(resource, body), 'application/json', options);
  }

  apply<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    options: WriteOptions = {},
  ): Promise<T> {
    const { namespace, name } = body.metadata;
    return this.#write(
      'patch',
      'PATCH',
      pathOf(resource, namespace, name),
      typed(resource, body),
      'application/apply-patch+yaml',
      options,
      { force: 'true' },
    );
  }

  mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    { namespace, name }: ObjectKey,
    patch: object,
    options: WriteOptions = {},
  ): Promise<T> {
    const path = pathOf(resource, namespace, name);
    return this.#write('patch', 'PATCH', path, patch, 'application/merge-patch+json', options);
  }

  jsonPatch<T extends KubeObject>(
    resource: Resource<T>,
    { namespace, name }: ObjectKey,
    patch: JsonPatchOperation[],
    options: WriteOptions = {},
  ): Promise<T> {
    const path = pathOf(resource, namespace, name);
    return this.#write('patch', 'PATCH', path, patch, 'application/json-patch+json', options);
  }

  async delete(
    resource: Resource,
    { namespace, name }: ObjectKey,
    options: DeleteOptions = {},
  ): Promise<boolean> {
    const { uid, gracePeriodSeconds, propagationPolicy, signal } = options;
    try {
      await this.#call({
        verb: 'delete',
        method: 'DELETE',
        path: pathOf(resource, namespace, name),
        body: {
          apiVersion: 'v1',
          kind: 'DeleteOptions',
          ...(uid !== undefined && { preconditions: { uid } }),
          ...(gracePeriodSeconds !== undefined && { gracePeriodSeconds }),
          ...(propagationPolicy !== undefined && { propagationPolicy }),
        },
        contentType: 'application/json',
        signal,
      });
      return true;
    } catch (error) {
      if (error instanceof ApiError && (error.status === 404 || error.status === 409)) return false;
      throw error;
    }
  }

  async *watch(resource: Resource, options: WatchOptions): AsyncIterable<WatchEvent> {
    const { resourceVersion, timeoutSeconds, signal } = options;
    const response = await this.#send(
      {
        verb: 'watch',
        method: 'GET',
        path: pathOf(resource, options.namespace),
        query: {
          ...selectors(options),
          watch: 'true',
          allowWatchBookmarks: 'true',
          resourceVersion,
          timeoutSeconds,
        },
      },
      'watches',
      signal,
    );
    if (response.statusCode !== 200) throw await errorOf(response);
    response.body.setEncoding('utf8');
    let rest = '';
    for await (const chunk of response.body as AsyncIterable<string>) {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop() ?? '';
      if (rest.length > maxLineLength) throw new MalformedEventError('a line without an end');
      for (const line of lines) if (line !== '') yield parseEvent(line);
    }
  }

  #write<T extends KubeObject>(
    verb: string,
    method: Dispatcher.HttpMethod,
    path: string,
    body: unknown,
    contentType: string,
    { dryRun = false, subresource, signal }: WriteOptions,
    query: Record<string, string> = {},
  ): Promise<T> {
    return this.#call({
      verb,
      method,
      path: subresource === undefined ? path : `${path}/${subresource}`,
      query: { fieldManager: FIELD_MANAGER, dryRun: dryRun ? 'All' : undefined, ...query },
      body,
      contentType,
      signal,
    }) as Promise<T>;
  }

  async #call(call: Call): Promise<unknown> {
    for (let tries = 1; ; tries++) {
      const timeout = AbortSignal.timeout(this.#timeoutMs);
      const signal = call.signal === undefined ? timeout : AbortSignal.any([timeout, call.signal]);
      const response = await this.#send(call, 'calls', signal);
      if (response.statusCode < 300) return await response.body.json();
      const error = await errorOf(response);
      if (error.status === 401) this.#kubeConfig.forgetAccess();
      const turnedAway =
        error.status === 429 || (error.status === 503 && error.retryAfterMs !== undefined);
      if (!turnedAway || tries === maxTries) throw error;
      const pause = Math.min(error.retryAfterMs ?? 1_000, maxRetryAfterMs);
      await delay(pause, undefined, call.signal === undefined ? {} : { signal: call.signal });
    }
  }

  async #send(
    { verb, method, path, query = {}, body, contentType }: Call,
    lane: 'calls' | 'watches',
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const started = performance.now();
    let code = 'error';
    try {
      const access = await this.#kubeConfig.access();
      const search = new URLSearchParams();
      for (const [name, value] of Object.entries(query)) {
        if (value !== undefined) search.set(name, String(value));
      }
      const suffix = search.size === 0 ? '' : `?${search.toString()}`;
      const response = await request(`${access.server}${path}${suffix}`, {
        method,
        dispatcher: access[lane],
        headers: {
          ...access.headers,
          accept: 'application/json',
          'user-agent': this.#userAgent,
          ...(contentType !== undefined && { 'content-type': contentType }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal,
      });
      code = String(response.statusCode);
      return response;
    } finally {
      this.#metrics?.observeRequest(verb, code, (performance.now() - started) / 1000);
    }
  }
}

/** Takes the objects of a list as they come. */
export interface ListSink {
  /** The list starts over: forget what came. */
  restart(): void;
  item(object: KubeObject): void;
}

/**
 * Reads all pages of a list. A list of many pages may outlive the version that it started from;
 * then it starts over, the last time without pages.
 *
 * @returns the resourceVersion that all pages show
 * @throws ApiError; RangeError for a list without an end
 */
export async function listAll(
  client: Pick<WatchClient, 'listPage'>,
  resource: Resource,
  options: ListOptions,
  sink: ListSink,
): Promise<string> {
  for (let restarts = 0; ; restarts++) {
    const limit = restarts < maxListRestarts ? pageSize : 0;
    let next: string | undefined;
    try {
      for (let pages = 0; pages < maxPages; pages++) {
        const page = await client.listPage(resource, { ...options, limit, continue: next });
        for (const item of page.items) sink.item(item);
        if (page.continue === undefined) return page.resourceVersion;
        next = page.continue;
      }
    } catch (error) {
      if (!isExpired(error) || next === undefined || restarts === maxListRestarts) throw error;
      sink.restart();
      continue;
    }
    throw new RangeError(`the list of ${resource.plural} has more than ${maxPages} pages`);
  }
}

function pathOf(resource: Resource, namespace: string | undefined, name?: string): string {
  const root =
    resource.group === ''
      ? `/api/${resource.version}`
      : `/apis/${resource.group}/${resource.version}`;
  const scope =
    resource.namespaced && namespace !== undefined
      ? `/namespaces/${encodeURIComponent(namespace)}`
      : '';
  const object = name === undefined ? '' : `/${encodeURIComponent(name)}`;
  return `${root}${scope}/${resource.plural}${object}`;
}

function selectors({
  labelSelector,
  fieldSelector,
}: ListOptions): Record<string, string | undefined> {
  return { labelSelector, fieldSelector };
}

/** Objects need not repeat in themselves what their resource says. */
function typed<T extends KubeObject>(resource: Resource<T>, body: T): T {
  return { apiVersion: apiVersionOf(resource), kind: resource.kind, ...body };
}

function parseEvent(line: string): WatchEvent {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch (error) {
    throw new MalformedEventError('a line of a watch is not JSON', { cause: error });
  }
  if (typeof event !== 'object' || event === null || !('type' in event) || !('object' in event)) {
    throw new MalformedEventError('a line of a watch is not an event');
  }
  return event as WatchEvent;
}

async function errorOf(response: Dispatcher.ResponseData): Promise<ApiError> {
  const text = await response.body.text();
  const retryAfter = Number(response.headers['retry-after']);
  const retryAfterMs =
    Number.isFinite(retryAfter) && retryAfter >= 0 ? retryAfter * 1000 : undefined;
  return statusError(text, response.statusCode, retryAfterMs);
}

function statusError(text: string, status: number, retryAfterMs?: number): ApiError {
  try {
    const { message, reason } = JSON.parse(text) as { message?: unknown; reason?: unknown };
    if (typeof message === 'string') {
      return new ApiError(message, {
        status,
        retryAfterMs,
        reason: typeof reason === 'string' ? reason : '',
      });
    }
  } catch {
    // Not a Status: a proxy's page, perhaps. Its text stays out of the message.
  }
  return new ApiError(`The API server answered ${status}`, { status, retryAfterMs });
}

/** What an `ERROR` event of a watch says. */
export function errorOfEvent(object: unknown): ApiError {
  const { code } = (object ?? {}) as { code?: unknown };
  return statusError(JSON.stringify(object ?? {}), typeof code === 'number' ? code : 500);
}
