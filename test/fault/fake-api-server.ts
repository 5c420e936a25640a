import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { keyOf, type KubeObject } from '../../src/api/objects.ts';
import { apiVersionOf, type Resource } from '../../src/api/resources.ts';
import { ApiError } from '../../src/runtime/errors.ts';
import { PooledKubeConfig, type PooledKubeConfigOptions } from '../../src/runtime/kube-config.ts';
import {
  applied,
  FakeStorage,
  isRecord,
  jsonPatched,
  mergePatched,
  type StorageEvent,
  type StoredObject,
} from './fake-storage.ts';

export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete';

/** One request, as the server understood it. */
export interface FakeRequest {
  readonly verb: Verb;
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** Parsed; `undefined` where there is none. */
  readonly body: unknown;
  /** `group/version/plural`, with an empty group for the core. */
  readonly collection: string;
  readonly plural: string;
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

/** Which requests a fault is for: all that has everything named here. */
export interface Match {
  verb?: Verb;
  plural?: string;
  name?: string;
  subresource?: string;
  when?: (request: FakeRequest) => boolean;
}

/** What a watch does after it has delivered some events. */
export type StreamEnd =
  /** The connection is reset. */
  | 'reset'
  /** The server ends the watch in good order. */
  | 'end'
  /** Half-open: the connection stays, nothing comes any more. */
  | 'silence'
  /** A line that is no JSON, where the next event would be. */
  | 'garbage'
  /** Half of the next event's line, then a reset. */
  | 'half-line'
  /** An `ERROR` event with 410. */
  | 'expired'
  /** An `ERROR` event with 500. */
  | 'error';

export type Behaviour =
  /** An answer other than the real one; with `committed`, after the work was done. */
  | {
      kind: 'status';
      status: number;
      reason?: string;
      message?: string;
      retryAfterSeconds?: number;
      committed?: boolean;
    }
  /** The connection is reset, before the work or after it. */
  | { kind: 'reset'; committed?: boolean }
  /** Half-open: no answer, ever. */
  | { kind: 'silence' }
  /** The real answer, when the promise settles: a slow server. */
  | { kind: 'hold'; until: Promise<unknown> }
  /** 200 with this text. */
  | { kind: 'garbage'; text: string }
  /** A watch: that many events, then this. */
  | { kind: 'stream'; afterEvents?: number; ending: StreamEnd };

interface Fault {
  match: Match;
  behaviour: Behaviour;
  times: number;
}

/** Faults that wait for their request. The first that matches is used up. */
export class Faults {
  readonly #pending: Fault[] = [];
  #hits = 0;

  /** Number of requests that met a fault. */
  get hits(): number {
    return this.#hits;
  }

  /** Faults that met no request yet. */
  get pending(): number {
    return this.#pending.length;
  }

  /** The next `times` requests that match behave so. */
  next(match: Match | Verb, behaviour: Behaviour, times = 1): this {
    this.#pending.push({
      match: typeof match === 'string' ? { verb: match } : match,
      behaviour,
      times,
    });
    return this;
  }

  clear(): void {
    this.#pending.length = 0;
  }

  /** For the server. */
  take(request: FakeRequest): Behaviour | undefined {
    const index = this.#pending.findIndex(({ match }) => matches(match, request));
    const fault = this.#pending[index];
    if (fault === undefined) return undefined;
    fault.times -= 1;
    if (fault.times === 0) this.#pending.splice(index, 1);
    this.#hits += 1;
    return fault.behaviour;
  }
}

export interface FakeApiServerOptions {
  /**
   * Mutating or denying admission: returns what is stored instead, or throws an ApiError.
   * `previous` is missing on create, `object` on delete.
   */
  admit?: (review: {
    request: FakeRequest;
    object: KubeObject | undefined;
    previous: KubeObject | undefined;
  }) => KubeObject | undefined;
}

const maxRequests = 100_000;

/** As the real one. */
const bookmarkIntervalMs = 60_000;

/**
 * An API server in this process, over plain HTTP: any kind, CRUD with versions and conflicts, merge
 * patch, JSON patch, server-side apply in little, `status`, finalizers, pages, watches with
 * bookmarks; and every way to fail that a client must survive.
 */
export class FakeApiServer {
  readonly faults = new Faults();
  /** What was asked, in order. */
  readonly requests: FakeRequest[] = [];
  readonly storage = new FakeStorage();
  /** May be changed at any time. */
  admit: FakeApiServerOptions['admit'];
  readonly #server = createServer((incoming, outgoing) => {
    this.#handle(incoming, outgoing).catch(() => outgoing.destroy());
  });
  readonly #watches = new Set<Watch>();
  /** What each manager applied last, by UID. */
  readonly #applied = new Map<string, unknown>();
  /** Lists that go on, by token. */
  readonly #pages = new Map<string, { version: number; rest: StoredObject[] }>();
  #connections = 0;
  #silences = 0;

  constructor({ admit }: FakeApiServerOptions = {}) {
    this.admit = admit;
    this.#server.on('connection', () => (this.#connections += 1));
    // The kube-apiserver keeps idle connections for 90 s.
    this.#server.keepAliveTimeout = 90_000;
  }

  /** Listens on a free loopback port. */
  async start(): Promise<this> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(0, '127.0.0.1', resolve);
    });
    return this;
  }

  async stop(): Promise<void> {
    for (const watch of this.#watches) watch.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the server is not up');
    return `http://127.0.0.1:${address.port}`;
  }

  /** Connections accepted so far. */
  get connections(): number {
    return this.#connections;
  }

  /** Requests and watches so far that were left without another word: half-open connections. */
  get silences(): number {
    return this.#silences;
  }

  get openWatches(): number {
    return this.#watches.size;
  }

  /** A configuration that leads here. */
  kubeConfig(options?: PooledKubeConfigOptions): PooledKubeConfig {
    const config = new PooledKubeConfig(options);
    config.loadFromOptions({
      currentContext: 'fake',
      contexts: [{ name: 'fake', cluster: 'fake', user: 'fake' }],
      clusters: [{ name: 'fake', server: this.url, skipTLSVerify: true }],
      users: [{ name: 'fake', token: 'fake-token' }],
    });
    return config;
  }

  /** Creates the object, or puts it in place of what is there; status included, no admission. */
  put<T extends KubeObject>(resource: Resource<T>, object: T): StoredObject {
    const collection = collectionOf(resource);
    const body = { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object };
    return this.storage.get(collection, keyOf(object)) === undefined
      ? this.storage.create(collection, body)
      : this.storage.update(collection, keyOf(object), () => body);
  }

  remove(resource: Resource, key: string): void {
    const collection = collectionOf(resource);
    const object = this.storage.get(collection, key);
    if (object === undefined) return;
    object.metadata.finalizers = [];
    this.storage.delete(collection, key);
  }

  get(resource: Resource, key: string): StoredObject | undefined {
    return this.storage.get(collectionOf(resource), key);
  }

  list(resource: Resource): StoredObject[] {
    return this.storage.list(collectionOf(resource));
  }

  /** Sends a bookmark to every watch, now; with another version, as a server that lags. */
  bookmark(version?: number): void {
    for (const watch of this.#watches) watch.bookmark(version);
  }

  /** Ends every watch so, now. */
  endWatches(how: StreamEnd): void {
    for (const watch of this.#watches) watch.end(how);
  }

  async #handle(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const request = await requestOf(incoming);
    if (request === undefined) return respondError(outgoing, notFound());
    this.requests.push(request);
    if (this.requests.length > maxRequests) this.requests.shift();
    const behaviour = this.faults.take(request);
    switch (behaviour?.kind) {
      case 'silence':
        this.#silences += 1;
        return undefined;
      case 'garbage':
        outgoing.writeHead(200, { 'content-type': 'application/json' }).end(behaviour.text);
        return undefined;
      case 'hold':
        await behaviour.until;
        break;
      case 'status':
        if (behaviour.committed === true) this.#answer(request);
        return respondError(outgoing, new ApiError(behaviour.message ?? 'injected', behaviour), {
          ...(behaviour.retryAfterSeconds !== undefined && {
            'retry-after': String(behaviour.retryAfterSeconds),
          }),
        });
      case 'reset':
        if (behaviour.committed === true) this.#answer(request);
        outgoing.socket?.resetAndDestroy();
        return undefined;
      case 'stream':
      case undefined:
        break;
    }
    try {
      if (request.verb === 'watch') {
        return this.#startWatch(
          request,
          outgoing,
          behaviour?.kind === 'stream' ? behaviour : undefined,
        );
      }
      return respond(outgoing, request.method === 'POST' ? 201 : 200, this.#answer(request));
    } catch (error) {
      if (error instanceof ApiError) return respondError(outgoing, error);
      throw error;
    }
  }

  #answer(request: FakeRequest): unknown {
    switch (request.verb) {
      case 'get':
        return this.#require(request);
      case 'list':
        return this.#list(request);
      case 'create':
        return this.#create(request);
      case 'update':
      case 'patch':
        return this.#change(request);
      case 'delete':
        return this.#delete(request);
      case 'watch':
        break;
    }
    return undefined;
  }

  #require({ collection, namespace, name = '' }: FakeRequest): StoredObject {
    const object = this.storage.get(collection, keyOf({ metadata: metadataOf(namespace, name) }));
    if (object === undefined) throw notFound(`${collection} "${name}" not found`);
    return object;
  }

  #list(request: FakeRequest): unknown {
    const { query, collection } = request;
    const token = query.get('continue');
    const page = token === null ? undefined : this.#pages.get(token);
    if (token !== null && (page === undefined || this.storage.isCompacted(page.version))) {
      throw expired('The provided continue parameter is too old');
    }
    const version = page?.version ?? this.storage.version;
    const all = page?.rest ?? this.storage.list(collection).filter(selectorOf(request));
    const limit = Number(query.get('limit') ?? 0);
    const items = limit === 0 ? all : all.slice(0, limit);
    const rest = all.slice(items.length);
    let next = '';
    if (rest.length > 0) {
      next = `${version}-${this.#pages.size}`;
      this.#pages.set(next, { version, rest });
    }
    return {
      apiVersion: 'v1',
      kind: 'List',
      metadata: { resourceVersion: String(version), continue: next },
      // As the real one does: the items of a list don't say what they are.
      items: items.map((item) => without(item, 'apiVersion', 'kind')),
    };
  }

  #create(request: FakeRequest): unknown {
    const { body, namespace, subresource, collection } = request;
    if (!isObject(body)) throw badRequest();
    if (subresource === 'token') {
      this.#require(request);
      return { ...body, status: { token: 'fake.bound.token', expirationTimestamp: '2026-01-01' } };
    }
    if (subresource !== undefined) throw notFound();
    const object = this.#admit(
      request,
      {
        ...without(body, 'status'),
        metadata: {
          ...without(body.metadata, 'resourceVersion'),
          ...(body.metadata.name === undefined && { name: this.#generateName(body) }),
          ...(namespace !== undefined && { namespace }),
        },
      },
      undefined,
    );
    return this.storage.create(collection, object, isDryRun(request));
  }

  #generateName({ metadata }: KubeObject): string {
    const prefix: unknown = 'generateName' in metadata ? metadata.generateName : undefined;
    if (typeof prefix !== 'string') throw badRequest();
    return `${prefix}${(this.storage.version + 1).toString(36).padStart(5, '0')}`;
  }

  #change(request: FakeRequest): unknown {
    const { collection, namespace, name = '', query } = request;
    const key = keyOf({ metadata: metadataOf(namespace, name) });
    const manager = query.get('fieldManager') ?? 'unknown';
    const isApply = request.headers['content-type'] === 'application/apply-patch+yaml';
    const current = this.storage.get(collection, key);
    if (isApply && current === undefined && request.subresource === undefined) {
      const object = this.#create(request);
      if (isObject(object) && !isDryRun(request)) {
        this.#applied.set(`${object.metadata.uid} ${manager}`, request.body);
      }
      return object;
    }
    const appliedKey = `${current?.metadata.uid} ${manager}`;
    const object = this.storage.update(
      collection,
      key,
      (live) => {
        const wanted = changed(request, live, this.#applied.get(appliedKey));
        return this.#admit(request, wanted, live);
      },
      isDryRun(request),
    );
    if (isApply && !isDryRun(request)) this.#applied.set(appliedKey, request.body);
    return object;
  }

  #delete(request: FakeRequest): unknown {
    const object = this.#require(request);
    const { preconditions } = isRecord(request.body) ? request.body : {};
    this.admit?.({ request, object: undefined, previous: object });
    return this.storage.delete(
      request.collection,
      keyOf(object),
      isRecord(preconditions) ? preconditions : {},
      isDryRun(request),
    );
  }

  #admit(request: FakeRequest, object: KubeObject, previous: StoredObject | undefined): KubeObject {
    return this.admit?.({ request, object, previous }) ?? object;
  }

  #startWatch(
    request: FakeRequest,
    outgoing: ServerResponse,
    behaviour: (Behaviour & { kind: 'stream' }) | undefined,
  ): void {
    const from = Number(request.query.get('resourceVersion') ?? this.storage.version);
    outgoing.writeHead(200, { 'content-type': 'application/json' });
    outgoing.flushHeaders();
    const watch = new Watch({
      request,
      outgoing,
      storage: this.storage,
      from,
      onSilence: () => (this.#silences += 1),
      ...(behaviour !== undefined && {
        end: { after: behaviour.afterEvents ?? 0, how: behaviour.ending },
      }),
    });
    this.#watches.add(watch);
    outgoing.once('close', () => {
      this.#watches.delete(watch);
      watch.close();
    });
    watch.start();
  }
}

interface WatchParameters {
  request: FakeRequest;
  outgoing: ServerResponse;
  storage: FakeStorage;
  from: number;
  /** Called when it leaves its client without another word. */
  onSilence: () => void;
  end?: { after: number; how: StreamEnd };
}

/** One open watch. */
class Watch {
  readonly #parameters: WatchParameters;
  readonly #selected: (object: StoredObject) => boolean;
  readonly #timers: NodeJS.Timeout[] = [];
  #stop: (() => void) | undefined;
  #delivered = 0;
  #version: number;
  #silent = false;

  constructor(parameters: WatchParameters) {
    this.#parameters = parameters;
    this.#selected = selectorOf(parameters.request);
    this.#version = parameters.from;
  }

  start(): void {
    const { storage, request, from, end } = this.#parameters;
    const timeoutSeconds = Number(request.query.get('timeoutSeconds') ?? 1_800);
    this.#timers.push(
      setTimeout(() => this.end('end'), timeoutSeconds * 1_000),
      setInterval(() => this.bookmark(), bookmarkIntervalMs),
    );
    if (storage.isCompacted(from)) return this.end('expired');
    if (end?.after === 0 && end.how !== 'garbage' && end.how !== 'half-line') this.end(end.how);
    for (const event of storage.since(request.collection, from)) this.#receive(event);
    this.#stop = storage.onEvent((event) => {
      if (event.collection === request.collection) this.#receive(event);
    });
    return undefined;
  }

  bookmark(version = this.#parameters.storage.version): void {
    if (this.#parameters.request.query.get('allowWatchBookmarks') !== 'true') return;
    this.#version = Math.max(this.#version, version);
    this.#write({ type: 'BOOKMARK', object: { metadata: { resourceVersion: String(version) } } });
  }

  end(how: StreamEnd, line = '{}'): void {
    const { outgoing } = this.#parameters;
    if (this.#silent) return;
    switch (how) {
      case 'reset':
        outgoing.socket?.resetAndDestroy();
        break;
      case 'end':
        outgoing.end();
        break;
      case 'garbage':
        outgoing.end('{"type":"ADDED","object":{"meta\n');
        break;
      case 'half-line':
        // The first half must be on its way before the connection goes.
        outgoing.write(line.slice(0, line.length / 2), () => outgoing.socket?.resetAndDestroy());
        break;
      case 'expired':
        this.#write({ type: 'ERROR', object: statusOf(expired('too old resource version')) });
        outgoing.end();
        break;
      case 'error':
        this.#write({
          type: 'ERROR',
          object: statusOf(new ApiError('injected', { status: 500, reason: 'InternalError' })),
        });
        outgoing.end();
        break;
      case 'silence':
        this.#parameters.onSilence();
        break;
    }
    this.#silent = true;
  }

  close(): void {
    this.#stop?.();
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #receive({ version, object, previous }: StorageEvent): void {
    if (version <= this.#version) return;
    const event = this.#eventOf(version, object, previous);
    if (event === undefined) return;
    const { end } = this.#parameters;
    if (end !== undefined && this.#delivered === end.after) {
      this.end(end.how, JSON.stringify(event));
      return;
    }
    this.#version = version;
    this.#delivered += 1;
    this.#write(event);
    if (end?.after === this.#delivered && end.how !== 'garbage' && end.how !== 'half-line') {
      this.end(end.how);
    }
  }

  /** Of a watch with a selector: what enters it is added, what leaves it deleted. */
  #eventOf(
    version: number,
    object: StoredObject | undefined,
    previous: StoredObject | undefined,
  ): object | undefined {
    const now = object !== undefined && this.#selected(object);
    const before = previous !== undefined && this.#selected(previous);
    if (now) return { type: before ? 'MODIFIED' : 'ADDED', object };
    if (!before) return undefined;
    const metadata = { ...previous.metadata, resourceVersion: String(version) };
    return { type: 'DELETED', object: { ...previous, metadata } };
  }

  #write(event: object): void {
    if (this.#silent) return;
    this.#parameters.outgoing.write(`${JSON.stringify(event)}\n`);
  }
}

function changed(request: FakeRequest, live: StoredObject, appliedBefore: unknown): KubeObject {
  const { body, subresource, method } = request;
  let result: unknown;
  const how: string = method === 'PUT' ? 'put' : (request.headers['content-type'] ?? '');
  switch (how) {
    case 'put':
      result = body;
      break;
    case 'application/merge-patch+json':
    case 'application/strategic-merge-patch+json':
      result = mergePatched(withoutVersion(live), body);
      break;
    case 'application/json-patch+json':
      result = jsonPatched(withoutVersion(live), Array.isArray(body) ? body : []);
      break;
    case 'application/apply-patch+yaml':
      result = applied(withoutVersion(live), appliedBefore, body);
      break;
    default:
      throw new ApiError('unsupported media type', { status: 415, reason: 'UnsupportedMediaType' });
  }
  if (!isObject(result)) throw badRequest();
  const { status, ...rest } = { status: undefined, ...result };
  const { status: liveStatus, ...liveRest } = live;
  if (subresource === 'status') {
    const { resourceVersion } = result.metadata;
    return {
      ...liveRest,
      metadata: { ...live.metadata, ...(resourceVersion !== undefined && { resourceVersion }) },
      ...(status !== undefined && { status }),
    };
  }
  if (subresource !== undefined) throw notFound();
  return { ...rest, ...(liveStatus !== undefined && { status: liveStatus }) };
}

/** So that a version in the result is one that the caller asked for. */
function withoutVersion(live: StoredObject): object {
  return { ...live, metadata: without(live.metadata, 'resourceVersion') };
}

async function requestOf(incoming: IncomingMessage): Promise<FakeRequest | undefined> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString('utf8');
  const { pathname, searchParams } = new URL(incoming.url ?? '/', 'http://fake');
  const match =
    /^\/(?:api|apis\/(?<group>[^/]+))\/(?<version>[^/]+)(?:\/namespaces\/(?<namespace>[^/]+)(?=\/(?!status$|finalize$)))?\/(?<plural>[^/]+)(?:\/(?<name>[^/]+)(?:\/(?<subresource>[^/]+))?)?$/.exec(
      pathname,
    );
  if (match?.groups === undefined) return undefined;
  const { group = '', version, namespace, plural, name, subresource } = match.groups;
  if (plural === undefined) return undefined;
  const method = incoming.method ?? 'GET';
  return {
    verb: verbOf(method, name, searchParams),
    method,
    path: pathname,
    query: searchParams,
    headers: incoming.headers,
    body: text === '' ? undefined : JSON.parse(text),
    collection: `${group}/${version}/${plural}`,
    plural,
    namespace: namespace === undefined ? undefined : decodeURIComponent(namespace),
    name: name === undefined ? undefined : decodeURIComponent(name),
    subresource,
  };
}

function verbOf(method: string, name: string | undefined, query: URLSearchParams): Verb {
  switch (method) {
    case 'POST':
      return 'create';
    case 'PUT':
      return 'update';
    case 'PATCH':
      return 'patch';
    case 'DELETE':
      return 'delete';
    default:
      if (name !== undefined) return 'get';
      return query.get('watch') === 'true' ? 'watch' : 'list';
  }
}

/** Namespace, label selector and the field selectors on name and namespace. */
function selectorOf({ namespace, query }: FakeRequest): (object: StoredObject) => boolean {
  const requirements = (query.get('labelSelector') ?? '').split(/,(?![^(]*\))/).filter(Boolean);
  const fields = (query.get('fieldSelector') ?? '').split(',').filter(Boolean);
  return (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) &&
    requirements.every((requirement) => fulfils(object.metadata.labels ?? {}, requirement)) &&
    fields.every((field) => {
      const [name, value] = field.split(/==?/);
      if (name === 'metadata.name') return object.metadata.name === value;
      if (name === 'metadata.namespace') return object.metadata.namespace === value;
      throw badRequest();
    });
}

function fulfils(labels: Record<string, string>, requirement: string): boolean {
  const set = /^\s*(?<key>\S+)\s+(?<not>not)?in\s+\((?<values>[^)]*)\)\s*$/.exec(requirement);
  if (set?.groups !== undefined) {
    const { key = '', not, values = '' } = set.groups;
    const value = labels[key];
    const isIn = value !== undefined && values.split(',').some((other) => other.trim() === value);
    return isIn === (not === undefined);
  }
  const [key = '', value = ''] = requirement.split(/!==?|!=|==?/).map((part) => part.trim());
  if (requirement.includes('!=')) return labels[key] !== value;
  if (requirement.includes('=')) return labels[key] === value;
  return requirement.startsWith('!') ? !(requirement.slice(1) in labels) : key in labels;
}

function matches(match: Match, request: FakeRequest): boolean {
  return (
    (match.verb === undefined || match.verb === request.verb) &&
    (match.plural === undefined || match.plural === request.plural) &&
    (match.name === undefined || match.name === request.name) &&
    (match.subresource === undefined || match.subresource === request.subresource) &&
    (match.when === undefined || match.when(request))
  );
}

function without<T extends object, K extends string>(object: T, ...fields: K[]): Omit<T, K> {
  const copy = { ...object };
  for (const field of fields) Reflect.deleteProperty(copy, field);
  return copy;
}

function collectionOf({ group, version, plural }: Resource): string {
  return `${group}/${version}/${plural}`;
}

function metadataOf(namespace: string | undefined, name: string): KubeObject['metadata'] {
  return namespace === undefined ? { name } : { namespace, name };
}

function isDryRun({ query }: FakeRequest): boolean {
  return query.get('dryRun') === 'All';
}

function isObject(value: unknown): value is KubeObject {
  return isRecord(value) && isRecord(value['metadata']);
}

function notFound(message = 'the server could not find the requested resource'): ApiError {
  return new ApiError(message, { status: 404, reason: 'NotFound' });
}

function badRequest(): ApiError {
  return new ApiError('the request is not understood', { status: 400, reason: 'BadRequest' });
}

function expired(message: string): ApiError {
  return new ApiError(message, { status: 410, reason: 'Expired' });
}

function statusOf({ status, reason, message }: ApiError): object {
  return { apiVersion: 'v1', kind: 'Status', status: 'Failure', code: status, reason, message };
}

function respondError(
  outgoing: ServerResponse,
  error: ApiError,
  headers: Record<string, string> = {},
): void {
  for (const [name, value] of Object.entries(headers)) outgoing.setHeader(name, value);
  respond(outgoing, error.status, statusOf(error));
}

function respond(outgoing: ServerResponse, status: number, body: unknown): void {
  outgoing.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}
