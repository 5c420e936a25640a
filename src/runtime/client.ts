import { setTimeout as delay } from 'node:timers/promises';
import type { Dispatcher } from 'undici';
import { FIELD_MANAGER } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { apiVersionOf, type Resource } from '../api/resources.ts';
import {
  ApiError,
  ApiTimeoutError,
  ApiUnreachableError,
  isExpired,
  isNotFound,
  MalformedResponseError,
} from './errors.ts';
import type { Connection, ConnectionPool, PooledKubeConfig } from './kube-config.ts';

export interface ObjectKey {
  namespace?: string;
  name: string;
}

export interface GetOptions {
  /** The server sends `metadata` alone: what else the object holds never gets here. */
  metadataOnly?: boolean;
  signal?: AbortSignal;
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
  /** The server answers with `metadata` alone: nothing else of the answer is there to be read. */
  metadataOnly?: boolean;
  signal?: AbortSignal;
}

export interface DeleteOptions {
  /** Precondition: the object with exactly this UID. */
  uid?: string;
  /** Seconds. */
  gracePeriodSeconds?: number;
  propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
  /** Validates and admits, deletes nothing. */
  dryRun?: boolean;
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
    options?: GetOptions,
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
export interface WatchEvent<T extends KubeObject = KubeObject> {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  /** With a name, unless `BOOKMARK` (has a `resourceVersion` alone) or `ERROR` (a Status). */
  object: T;
}

export interface ListPage<T extends KubeObject = KubeObject> {
  items: T[];
  resourceVersion: string;
  /** Where the next page starts; `undefined` on the last page. */
  continue: string | undefined;
}

export interface PageOptions extends ListOptions {
  /** Objects on a page; default 500, 0 is no limit. */
  limit?: number;
  continue?: string | undefined;
}

export interface WatchOptions extends ListOptions {
  resourceVersion: string;
  /** After which the server ends the watch. */
  timeoutSeconds: number;
  signal: AbortSignal;
  /** The server has accepted the watch. */
  onOpen?: () => void;
}

/** What a list/watch needs of the API server. */
export interface WatchClient {
  /** @throws ApiError with status 410 where `continue` is too old */
  listPage<T extends KubeObject>(resource: Resource<T>, options: PageOptions): Promise<ListPage<T>>;
  /**
   * Events of a watch as they arrive, bookmarks among them; ends when the server ends it.
   *
   * @throws ApiError where the server refuses; ApiUnreachableError where the connection fails;
   *   MalformedResponseError on a line that is no event; the signal's reason when it aborts
   */
  watch<T extends KubeObject>(
    resource: Resource<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>>;
}

export interface ClientMetrics {
  /**
   * One request was answered; a watch, when it began.
   *
   * @param verb as in RBAC
   * @param code the HTTP status; without an answer `timeout`, `aborted` or `error`
   */
  observeRequest(verb: string, code: string, seconds: number): void;
}

export interface ApiServerClientOptions {
  kubeConfig: PooledKubeConfig;
  /** `name/version` of this program. */
  userAgent: string;
  metrics?: ClientMetrics;
  /** Of everything that this client writes; default: the operator's. */
  fieldManager?: string;
  /** Longest time for a call, retries included; of a list, for each page. Default 10 s. */
  timeoutMs?: number;
  /**
   * Most connections for calls; watches have one each besides. Default: the kubeconfig's. A client
   * of its own is a lane of its own: calls of others can't hold it up.
   */
  connections?: number;
}

/** When a call may be sent again. */
type Retry =
  /** Only if the server certainly didn't process it. */
  | 'unprocessed'
  /** Also if it may have: twice is as good as once. */
  | 'idempotent';

interface Call {
  /** As in RBAC. */
  verb: string;
  method: Dispatcher.HttpMethod;
  path: string;
  query?: Record<string, string | number | undefined>;
  body?: unknown;
  contentType?: string;
  /** Media type of the answer; JSON of the whole object if absent. */
  accept?: string;
  retry: Retry;
  signal?: AbortSignal | undefined;
}

const partialObjectMetadata = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1';

const maxTries = 3;
/** A longer `Retry-After` is left to the caller, who has a queue. */
const maxRetryAfterMs = 5_000;
const defaultRetryAfterMs = 1_000;
const pageSize = 500;
const maxPages = 1_000;
const maxListRestarts = 2;
const maxResponseBytes = 256 * 1024 * 1024;
/** The API server refuses objects of more than about 1.5 MiB; JSON may need more for them. */
const maxLineBytes = 8 * 1024 * 1024;
const maxMessageLength = 4_096;

/**
 * The API server over pooled connections, with client-node's authentication. A call that the
 * server turned away with 429, or 503 with `Retry-After`, is tried again within its time; one that
 * may have been processed only where that makes no difference.
 */
export class ApiServerClient implements KubeClient, WatchClient {
  readonly #kubeConfig: PooledKubeConfig;
  readonly #calls: ConnectionPool;
  readonly #watches: ConnectionPool;
  readonly #userAgent: string;
  readonly #metrics: ClientMetrics | undefined;
  readonly #fieldManager: string;
  readonly #timeoutMs: number;

  constructor({
    kubeConfig,
    userAgent,
    metrics,
    fieldManager = FIELD_MANAGER,
    timeoutMs = 10_000,
    connections,
  }: ApiServerClientOptions) {
    this.#kubeConfig = kubeConfig;
    this.#calls = kubeConfig.createPool({
      maxResponseSize: maxResponseBytes,
      ...(connections !== undefined && { connections }),
    });
    // A watch is silent for as long as nothing happens; who reads it has a timer of its own.
    this.#watches = kubeConfig.createPool({
      connections: null,
      bodyTimeout: 0,
      headersTimeout: 30_000,
    });
    this.#userAgent = userAgent;
    this.#metrics = metrics;
    this.#fieldManager = fieldManager;
    this.#timeoutMs = timeoutMs;
  }

  async get<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    { metadataOnly = false, signal }: GetOptions = {},
  ): Promise<T | undefined> {
    try {
      return await this.#call<T>({
        verb: 'get',
        method: 'GET',
        path: objectPath(resource, key),
        ...(metadataOnly && { accept: partialObjectMetadata }),
        retry: 'idempotent',
        signal,
      });
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async list<T extends KubeObject>(resource: Resource<T>, options: ListOptions = {}): Promise<T[]> {
    const items: T[] = [];
    await listAll(this, resource, options, {
      restart: () => (items.length = 0),
      item: (item) => items.push(item),
    });
    return items;
  }

  async listPage<T extends KubeObject>(
    resource: Resource<T>,
    options: PageOptions,
  ): Promise<ListPage<T>> {
    const { namespace, limit = pageSize, signal } = options;
    const list = await this.#call<{
      items?: T[] | null;
      metadata?: { resourceVersion?: string; continue?: string };
    }>({
      verb: 'list',
      method: 'GET',
      path: collectionPath(resource, namespace),
      query: {
        ...selectors(options),
        limit: limit === 0 ? undefined : limit,
        continue: options.continue,
      },
      retry: 'idempotent',
      signal,
    });
    const items = list.items ?? [];
    if (!Array.isArray(items) || !items.every(isNamed)) {
      throw new MalformedResponseError('a list has something other than objects');
    }
    // The items of built-in kinds don't say what they are.
    const apiVersion = apiVersionOf(resource);
    for (const item of items) {
      item.apiVersion ??= apiVersion;
      item.kind ??= resource.kind;
    }
    const { resourceVersion = '', continue: next } = list.metadata ?? {};
    return { items, resourceVersion, continue: next === '' ? undefined : next };
  }

  async create<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    options: WriteOptions = {},
  ): Promise<T> {
    const { subresource } = options;
    return await this.#write<T>(options, {
      verb: 'create',
      method: 'POST',
      path:
        subresource === undefined
          ? collectionPath(resource, requiredNamespace(resource, body.metadata.namespace))
          : objectPath(resource, body.metadata, subresource),
      body: subresource === undefined ? typed(resource, body) : body,
      contentType: 'application/json',
      retry: 'unprocessed',
    });
  }

  async apply<T extends KubeObject>(
    resource: Resource<T>,
    body: T,
    options: WriteOptions = {},
  ): Promise<T> {
    return await this.#write<T>(options, {
      verb: 'patch',
      method: 'PATCH',
      path: objectPath(resource, body.metadata, options.subresource),
      query: { force: 'true' },
      body: typed(resource, body),
      contentType: 'application/apply-patch+yaml',
      retry: 'idempotent',
    });
  }

  async mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: object,
    options: WriteOptions = {},
  ): Promise<T> {
    return await this.#write<T>(options, {
      verb: 'patch',
      method: 'PATCH',
      path: objectPath(resource, key, options.subresource),
      body: patch,
      contentType: 'application/merge-patch+json',
      retry: 'idempotent',
    });
  }

  async jsonPatch<T extends KubeObject>(
    resource: Resource<T>,
    key: ObjectKey,
    patch: JsonPatchOperation[],
    options: WriteOptions = {},
  ): Promise<T> {
    return await this.#write<T>(options, {
      verb: 'patch',
      method: 'PATCH',
      path: objectPath(resource, key, options.subresource),
      body: patch,
      contentType: 'application/json-patch+json',
      // `add` to a list adds twice.
      retry: 'unprocessed',
    });
  }

  async delete(resource: Resource, key: ObjectKey, options: DeleteOptions = {}): Promise<boolean> {
    const { uid, gracePeriodSeconds, propagationPolicy, dryRun = false, signal } = options;
    try {
      await this.#call({
        verb: 'delete',
        method: 'DELETE',
        path: objectPath(resource, key),
        // The body alone counts; the query says it to whoever reads a log.
        query: { dryRun: dryRun ? 'All' : undefined },
        body: {
          apiVersion: 'v1',
          kind: 'DeleteOptions',
          ...(dryRun && { dryRun: ['All'] }),
          ...(uid !== undefined && { preconditions: { uid } }),
          ...(gracePeriodSeconds !== undefined && { gracePeriodSeconds }),
          ...(propagationPolicy !== undefined && { propagationPolicy }),
        },
        contentType: 'application/json',
        retry: 'idempotent',
        signal,
      });
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      if (uid !== undefined && error instanceof ApiError && error.status === 409) return false;
      throw error;
    }
  }

  async *watch<T extends KubeObject>(
    resource: Resource<T>,
    options: WatchOptions,
  ): AsyncIterable<WatchEvent<T>> {
    const { namespace, resourceVersion, timeoutSeconds, signal } = options;
    const response = await this.#send(
      {
        verb: 'watch',
        method: 'GET',
        path: collectionPath(resource, namespace),
        query: {
          ...selectors(options),
          watch: 'true',
          allowWatchBookmarks: 'true',
          resourceVersion,
          timeoutSeconds,
        },
        retry: 'unprocessed',
      },
      await settled(this.#watches.connect(), signal),
      signal,
    );
    if (response.statusCode !== 200) {
      const error = errorOf(response, await textOf(response, signal));
      if (error.status === 401) this.#kubeConfig.forgetCredentials();
      throw error;
    }
    options.onOpen?.();
    for await (const line of linesOf(response.body, signal)) yield eventOf<T>(line);
  }

  /** Closes all connections at once; what is under way fails. */
  async close(): Promise<void> {
    await Promise.all([this.#calls.destroy(), this.#watches.destroy()]);
  }

  async #write<T>(
    { dryRun = false, metadataOnly = false, signal }: WriteOptions,
    call: Call,
  ): Promise<T> {
    return await this.#call<T>({
      ...call,
      ...(metadataOnly && { accept: partialObjectMetadata }),
      query: {
        ...call.query,
        fieldManager: this.#fieldManager,
        dryRun: dryRun ? 'All' : undefined,
      },
      signal,
    });
  }

  async #call<T>(call: Call): Promise<T> {
    const deadline = new Deadline(this.#timeoutMs, call.signal);
    const { signal } = deadline;
    try {
      for (let tries = 1; ; tries++) {
        const connection = await settled(this.#calls.connect(), signal);
        const response = await this.#send(call, connection, signal);
        const text = await textOf(response, signal);
        if (response.statusCode < 300) return parsed<T>(text);
        const error = errorOf(response, text);
        const changed = error.status === 401 && (await this.#hasNewCredentials(connection, signal));
        const pauseMs = changed ? 0 : pauseBeforeRetry(error, call.retry);
        if (pauseMs === undefined || tries === maxTries || pauseMs > deadline.remainingMs()) {
          throw error;
        }
        if (pauseMs > 0) await settled(delay(pauseMs, undefined, { signal }), signal);
      }
    } finally {
      deadline.end();
    }
  }

  /** Reads the credentials again that were refused. */
  async #hasNewCredentials(refused: Connection, signal: AbortSignal): Promise<boolean> {
    this.#kubeConfig.forgetCredentials();
    const { headers } = await settled(this.#calls.connect(), signal);
    return headers['authorization'] !== refused.headers['authorization'];
  }

  /** One request. @returns the answer, whatever its status, its body unread */
  async #send(
    { verb, method, path, query = {}, body, contentType, accept = 'application/json' }: Call,
    { server, headers, dispatcher }: Connection,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const started = performance.now();
    let code = 'error';
    try {
      const url = new URL(server + path);
      for (const [name, value] of Object.entries(query)) {
        if (value !== undefined) url.searchParams.set(name, String(value));
      }
      const response = await dispatcher.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method,
        headers: {
          ...headers,
          accept,
          'user-agent': this.#userAgent,
          ...(contentType !== undefined && { 'content-type': contentType }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        // A DELETE has a body, after which undici by itself would close the connection.
        reset: false,
        signal,
      });
      code = String(response.statusCode);
      return response;
    } catch (error) {
      if (signal.aborted) code = signal.reason instanceof ApiTimeoutError ? 'timeout' : 'aborted';
      throw transportError(error, signal);
    } finally {
      this.#metrics?.observeRequest(verb, code, (performance.now() - started) / 1000);
    }
  }
}

/** Takes the objects of a list as they come. */
export interface ListSink<T> {
  /** The list starts over: forget what came. */
  restart(): void;
  item(object: T): void;
}

/**
 * Reads all pages of a list. A list of many pages may outlive the version that it started from;
 * then it starts over, the last time without pages.
 *
 * @returns the resourceVersion that all pages show
 * @throws ApiError; RangeError for a list without an end
 */
export async function listAll<T extends KubeObject>(
  client: Pick<WatchClient, 'listPage'>,
  resource: Resource<T>,
  options: ListOptions,
  sink: ListSink<T>,
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

/** What an `ERROR` event of a watch says. */
export function errorOfEvent(object: object): ApiError {
  const status = 'code' in object && typeof object.code === 'number' ? object.code : 500;
  return statusError(object, status, undefined);
}

/** A signal that follows the caller's and a timer, and lets go of both at the end. */
class Deadline {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #ends: number;
  readonly #follow = (): void => this.#controller.abort(this.#caller?.reason);

  constructor(timeoutMs: number, caller: AbortSignal | undefined) {
    this.#caller = caller;
    this.#ends = performance.now() + timeoutMs;
    this.#timer = setTimeout(
      () => this.#controller.abort(new ApiTimeoutError(timeoutMs)),
      timeoutMs,
    );
    if (caller?.aborted === true) this.#follow();
    caller?.addEventListener('abort', this.#follow, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  remainingMs(): number {
    return this.#ends - performance.now();
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener('abort', this.#follow);
  }
}

/** The promise's outcome, or the signal's reason as soon as it aborts. */
async function settled<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** @returns milliseconds; `undefined`: don't */
function pauseBeforeRetry(error: ApiError, retry: Retry): number | undefined {
  const turnedAway =
    error.status === 429 ||
    (error.status === 503 && error.retryAfterMs !== undefined && retry === 'idempotent');
  const pauseMs = error.retryAfterMs ?? defaultRetryAfterMs;
  return turnedAway && pauseMs <= maxRetryAfterMs ? pauseMs : undefined;
}

function collectionPath(resource: Resource, namespace: string | undefined): string {
  const root = resource.group === '' ? '/api' : `/apis/${resource.group}`;
  const scope =
    resource.namespaced && namespace !== undefined ? `/namespaces/${segment(namespace)}` : '';
  return `${root}/${resource.version}${scope}/${resource.plural}`;
}

function objectPath(
  resource: Resource,
  { namespace, name }: ObjectKey,
  subresource?: string,
): string {
  const collection = collectionPath(resource, requiredNamespace(resource, namespace));
  const path = `${collection}/${segment(name)}`;
  return subresource === undefined ? path : `${path}/${segment(subresource)}`;
}

function requiredNamespace(resource: Resource, namespace: string | undefined): string | undefined {
  if (resource.namespaced && namespace === undefined) {
    throw new TypeError(`a ${resource.kind} has a namespace`);
  }
  return namespace;
}

/** An empty name would turn the delete of one object into the delete of all. */
function segment(value: string): string {
  if (value === '' || value === '.' || value === '..') {
    throw new TypeError('a name in a path is empty or made of dots');
  }
  return encodeURIComponent(value);
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

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the API's promise, by the caller
function parsed<T>(text: string): T {
  try {
    const value: T = JSON.parse(text);
    return value;
  } catch {
    throw new MalformedResponseError('an answer of the API server is not JSON');
  }
}

async function textOf(response: Dispatcher.ResponseData, signal: AbortSignal): Promise<string> {
  try {
    return await response.body.text();
  } catch (error) {
    throw transportError(error, signal);
  }
}

/** Whole lines, without their ends. What comes after the last one is half an event. */
async function* linesOf(body: AsyncIterable<Buffer>, signal: AbortSignal): AsyncIterable<string> {
  // Cut as bytes: no part of a character beyond ASCII is a line feed.
  let parts: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of body) {
      let start = 0;
      for (;;) {
        const end = chunk.indexOf(0x0a, start);
        if (end < 0) break;
        const line = Buffer.concat([...parts, chunk.subarray(start, end)]).toString('utf8');
        parts = [];
        size = 0;
        start = end + 1;
        if (line !== '') yield line;
      }
      if (start === chunk.length) continue;
      parts.push(chunk.subarray(start));
      size += chunk.length - start;
      if (size > maxLineBytes) throw new MalformedResponseError('a line of a watch has no end');
    }
  } catch (error) {
    throw error instanceof MalformedResponseError ? error : transportError(error, signal);
  }
}

function eventOf<T extends KubeObject>(line: string): WatchEvent<T> {
  const event = parsed<WatchEvent<T> | null>(line);
  const object: unknown = event?.object;
  if (event === null || typeof object !== 'object' || object === null) {
    throw new MalformedResponseError('a line of a watch is no event');
  }
  switch (event.type) {
    case 'ERROR':
      return event;
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
    case 'BOOKMARK': {
      const complete = isVersioned(object) && (event.type === 'BOOKMARK' || isNamed(object));
      if (!complete) throw new MalformedResponseError('an event of a watch has no proper object');
      return event;
    }
  }
  throw new MalformedResponseError('an event of a watch is of an unknown type');
}

function isNamed(object: unknown): boolean {
  return isNonEmpty(metadataOf(object), 'name');
}

function isVersioned(object: unknown): boolean {
  return isNonEmpty(metadataOf(object), 'resourceVersion');
}

function metadataOf(object: unknown): unknown {
  return typeof object === 'object' && object !== null && 'metadata' in object
    ? object.metadata
    : undefined;
}

function isNonEmpty(object: unknown, field: string): boolean {
  const value: unknown =
    typeof object === 'object' && object !== null ? Reflect.get(object, field) : undefined;
  return typeof value === 'string' && value !== '';
}

function transportError(error: unknown, signal: AbortSignal): unknown {
  return signal.aborted ? signal.reason : new ApiUnreachableError(error);
}

function errorOf(response: Dispatcher.ResponseData, text: string): ApiError {
  const retryAfter = Number(response.headers['retry-after'] ?? NaN);
  const retryAfterMs = retryAfter >= 0 ? retryAfter * 1000 : undefined;
  let status: unknown;
  try {
    status = JSON.parse(text);
  } catch {
    // Not a Status: a proxy's page, perhaps. Its text stays out of the message.
  }
  return statusError(status, response.statusCode, retryAfterMs);
}

function statusError(body: unknown, status: number, retryAfterMs: number | undefined): ApiError {
  const { message, reason } = { message: undefined, reason: undefined, ...fieldsOf(body) };
  return new ApiError(
    typeof message === 'string'
      ? message.slice(0, maxMessageLength)
      : `the API server answered ${status}`,
    { status, retryAfterMs, reason: typeof reason === 'string' ? reason : '' },
  );
}

function fieldsOf(value: unknown): { message?: unknown; reason?: unknown } {
  return typeof value === 'object' && value !== null ? value : {};
}
