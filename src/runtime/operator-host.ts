import { createRequire } from 'node:module';
import { setTimeout as delay } from 'node:timers/promises';
import type dotI from '@dot-i/k8s-operator';
import type { OperatorLogger, ResourceEvent, ResourceMeta } from '@dot-i/k8s-operator';
import { CoreV1Api, KubeConfig } from '@kubernetes/client-node';
import { keyOf, type KubeObject } from '../api/objects.ts';
import { apiVersionOf, type Resource } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import type { KubeClient, ObjectKey } from './client.ts';
import type { PooledKubeConfig } from './kube-config.ts';
import type { Informer } from './list-watch.ts';
import { WorkQueue } from './work-queue.ts';

// The package is CommonJS with an export called `default`, which loaders of ES modules treat in
// different ways.
const { default: Operator, ResourceEventType }: typeof dotI = createRequire(import.meta.url)(
  '@dot-i/k8s-operator',
);

export type { ResourceEvent, ResourceMeta };
export { ResourceEventType };

/** Runs until its signal aborts, and then ends in good order. */
export interface Service {
  readonly name: string;
  run(signal: AbortSignal): Promise<void>;
}

export interface OperatorHostOptions {
  kubeConfig: PooledKubeConfig;
  client: KubeClient;
  logger: Logger;
  /** Started together; all of them end before `stopped` resolves. */
  services: readonly Service[];
  /** Finds the cache of a resource that {@link OperatorHost.watchResource} asks for. */
  informerOf: (group: string, version: string, plural: string) => Informer<KubeObject> | undefined;
}

/** The host was asked for something that it leaves to others, or doesn't know. */
export class OperatorHostError extends Error {
  readonly code = 'OPERATOR_HOST';
  override readonly name = 'OperatorHostError';
}

/** What handlers of events get to end when the host stops. */
const handlerGraceMs = 5_000;

/**
 * The life of the process, as an `Operator` of `@dot-i/k8s-operator`: its constructor, its
 * `start`, `init` and `stop`, its events and its finalizer helper. What of that class ends the
 * process, swallows errors or doesn't work with today's client is overridden, so a class that
 * extends this one may use all of it.
 */
export class OperatorHost extends Operator {
  static {
    // The original loads the default kubeconfig by itself, and throws where that is missing,
    // malformed or without a current context, although it isn't the one that is used.
    Object.defineProperty(this.prototype, 'kubeConfig', {
      configurable: true,
      set(this: object) {
        const value = new UnusedKubeConfig();
        Object.defineProperty(this, 'kubeConfig', {
          value,
          writable: true,
          enumerable: true,
          configurable: true,
        });
      },
    });
  }

  readonly #options: OperatorHostOptions;
  readonly #stopping = new AbortController();
  readonly #watches: Promise<void>[] = [];
  #running: Promise<unknown> | undefined;

  constructor(options: OperatorHostOptions) {
    super(hostLogger(options.logger));
    this.#options = options;
    this.kubeConfig = options.kubeConfig;
    this.k8sApi = options.kubeConfig.makeApiClient(CoreV1Api);
  }

  /** Starts the services; they run until `stop`. */
  protected override init(): Promise<void> {
    if (this.#running !== undefined) {
      return Promise.reject(new OperatorHostError('The host has been started already'));
    }
    this.#running = Promise.all(this.#options.services.map((service) => this.#run(service)));
    return Promise.resolve();
  }

  /** Asks everything to end; see {@link stopped}. */
  override stop(): void {
    super.stop();
    this.#stopping.abort();
  }

  /** Resolves when every service has ended; `process.exitCode` is 1 if one failed. */
  async stopped(): Promise<void> {
    await this.#running;
    await Promise.race([
      Promise.all(this.#watches),
      delay(handlerGraceMs, undefined, { ref: false }),
    ]);
  }

  /** A service that fails, or ends by itself, ends the others too: half an operator is none. */
  async #run(service: Service): Promise<void> {
    const { signal } = this.#stopping;
    if (signal.aborted) return;
    const { logger } = this.#options;
    try {
      await service.run(signal);
      if (signal.aborted) return;
      logger.error('A service has ended by itself; the operator stops', { service: service.name });
    } catch (error) {
      logger.error('A service has failed; the operator stops', { service: service.name, error });
    }
    process.exitCode = 1;
    this.stop();
  }

  /** Refused: users apply the CRDs; the operator has no right to. */
  protected override registerCustomResourceDefinition(): Promise<never> {
    return Promise.reject(
      new OperatorHostError('The CRDs are applied with the installation, not by the operator'),
    );
  }

  /** URL of the resource's objects, without a slash at its end. */
  protected override getCustomResourceApiUri(
    group: string,
    version: string,
    plural: string,
    namespace?: string,
  ): string {
    const server = this.#options.kubeConfig.getCurrentCluster()?.server.replace(/\/+$/, '') ?? '';
    const root = group === '' ? `api/${version}` : `apis/${group}/${version}`;
    const scope = namespace === undefined ? '' : `namespaces/${encodeURIComponent(namespace)}/`;
    return `${server}/${root}/${scope}${plural}`;
  }

  /**
   * Calls `onEvent` for the objects that a cache has and for each change of them, one at a time,
   * with a copy that may be changed. Changes that come faster than they are handled become one,
   * with the newest object. What `onEvent` throws is logged, and the object comes again.
   *
   * @throws OperatorHostError where there is no cache of the resource
   */
  protected override watchResource(
    group: string,
    version: string,
    plural: string,
    onEvent: (event: ResourceEvent) => Promise<void>,
    namespace?: string,
  ): Promise<void> {
    const { informerOf, logger } = this.#options;
    const informer = informerOf(group, version, plural);
    if (informer === undefined) {
      return Promise.reject(new OperatorHostError(`No cache of ${plural} in ${group}/${version}`));
    }
    const watch = new ResourceWatch(informer, namespace, onEvent, logger);
    this.#watches.push(watch.run(this.#stopping.signal));
    return Promise.resolve();
  }

  /**
   * Makes `status` the whole status.
   *
   * @throws ApiError, where the original returns null: 409 where the object has changed since
   */
  protected override async setResourceStatus(
    meta: ResourceMeta,
    status: unknown,
  ): Promise<ResourceMeta> {
    const stored = await this.#options.client.jsonPatch(
      resourceOf(meta),
      objectKeyOf(meta),
      [
        // Where another version is stored, that is a conflict.
        { op: 'add', path: '/metadata/resourceVersion', value: versionOf(meta) },
        { op: 'add', path: '/status', value: status },
      ],
      { subresource: 'status' },
    );
    return newVersionOf(meta, stored);
  }

  /**
   * Merges into the status.
   *
   * @throws ApiError, where the original returns null: 409 where the object has changed since
   */
  protected override async patchResourceStatus(
    meta: ResourceMeta,
    status: unknown,
  ): Promise<ResourceMeta> {
    const stored = await this.#options.client.mergePatch(
      resourceOf(meta),
      objectKeyOf(meta),
      { metadata: { resourceVersion: versionOf(meta) }, status },
      { subresource: 'status' },
    );
    return newVersionOf(meta, stored);
  }

  /**
   * On exactly the version of the event, so that nobody else's finalizer is lost.
   *
   * @throws ApiError, which the original swallows: 409 where the object has changed since
   */
  protected override async setResourceFinalizers(
    meta: ResourceMeta,
    finalizers: string[],
  ): Promise<void> {
    await this.#options.client.mergePatch(resourceOf(meta), objectKeyOf(meta), {
      metadata: { resourceVersion: versionOf(meta), finalizers },
    });
  }

  /** As the original, which would change the object that it is given: here a copy of it. */
  protected override handleResourceFinalizer(
    event: ResourceEvent,
    finalizer: string,
    deleteAction: (event: ResourceEvent) => Promise<void>,
  ): Promise<boolean> {
    return super.handleResourceFinalizer(structuredClone(event), finalizer, deleteAction);
  }
}

/** Leads nowhere and reads no file; see {@link OperatorHost}. */
class UnusedKubeConfig extends KubeConfig {
  override loadFromDefault(): void {
    this.loadFromOptions({
      clusters: [{ name: 'none', server: 'http://unused.invalid' }],
      contexts: [{ name: 'none', cluster: 'none' }],
      users: [],
      currentContext: 'none',
    });
  }
}

/** Tells a handler what a cache says, object by object. */
class ResourceWatch {
  readonly #informer: Informer<KubeObject>;
  readonly #namespace: string | undefined;
  readonly #onEvent: (event: ResourceEvent) => Promise<void>;
  readonly #log: Logger;
  readonly #queue = new WorkQueue();
  /** What the handler was told of each object last. */
  readonly #told = new Map<string, KubeObject>();
  /** Objects that are gone, until the handler was told. */
  readonly #gone = new Map<string, KubeObject>();

  constructor(
    informer: Informer<KubeObject>,
    namespace: string | undefined,
    onEvent: (event: ResourceEvent) => Promise<void>,
    logger: Logger,
  ) {
    this.#informer = informer;
    this.#namespace = namespace;
    this.#onEvent = onEvent;
    this.#log = logger.child({ kind: informer.resource.kind });
  }

  /** Works until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#queue.shutDown(), { once: true });
    if (signal.aborted) return;
    this.#informer.onChange(({ type, object }) => {
      if (!this.#isOurs(object)) return;
      if (type === 'deleted') this.#gone.set(keyOf(object), object);
      this.#queue.add(keyOf(object));
    });
    for (const object of this.#informer.store.list()) {
      if (this.#isOurs(object)) this.#queue.add(keyOf(object));
    }
    for (;;) {
      const key = await this.#queue.take();
      if (key === undefined) return;
      await this.#handle(key);
      this.#queue.done(key);
    }
  }

  #isOurs({ metadata }: KubeObject): boolean {
    return this.#namespace === undefined || metadata.namespace === this.#namespace;
  }

  async #handle(key: string): Promise<void> {
    try {
      await this.#tell(key);
      this.#queue.forget(key);
    } catch (error) {
      this.#log.error('Handler of an event failed, will be called again', { key, error });
      this.#queue.addRateLimited(key);
    }
  }

  async #tell(key: string): Promise<void> {
    const { store, resource } = this.#informer;
    const { Added, Modified, Deleted } = ResourceEventType;
    const gone = this.#gone.get(key);
    if (gone !== undefined) {
      if (this.#told.has(key)) await this.#onEvent(eventOf(resource, Deleted, gone));
      this.#told.delete(key);
      if (this.#gone.get(key) === gone) this.#gone.delete(key);
    }
    const object = store.get(key);
    if (object === undefined || object === this.#told.get(key)) return;
    await this.#onEvent(eventOf(resource, this.#told.has(key) ? Modified : Added, object));
    this.#told.set(key, object);
  }
}

function eventOf(
  resource: Resource,
  type: ResourceEvent['type'],
  stored: KubeObject,
): ResourceEvent {
  const apiVersion = apiVersionOf(resource);
  const { name, namespace, resourceVersion = '' } = stored.metadata;
  const { kind, plural } = resource;
  // What is in a cache came as JSON.
  const object: ResourceEvent['object'] = JSON.parse(
    JSON.stringify({ ...stored, apiVersion, kind }),
  );
  const id = `${plural}.${apiVersion}`;
  const meta = { id, name, resourceVersion, apiVersion, kind };
  return { type, object, meta: namespace === undefined ? meta : { ...meta, namespace } };
}

/** @throws OperatorHostError where the meta isn't one of this package */
function resourceOf({ id, apiVersion, kind, namespace }: ResourceMeta): Resource {
  const [plural = '', ...rest] = id.split('.');
  if (plural === '' || rest.join('.') !== apiVersion) {
    throw new OperatorHostError(`Not the id of a resource: ${id}`);
  }
  const [version = '', group = ''] = apiVersion.split('/').toReversed();
  return { group, version, kind, plural, namespaced: namespace !== undefined };
}

function objectKeyOf({ name, namespace }: ResourceMeta): ObjectKey {
  return namespace === undefined ? { name } : { name, namespace };
}

/** @throws OperatorHostError where it is unknown: a write without it could undo those of others */
function versionOf({ id, name, resourceVersion }: ResourceMeta): string {
  if (resourceVersion === '') {
    throw new OperatorHostError(`The cache of ${id} keeps no version of ${name}; read it first`);
  }
  return resourceVersion;
}

function newVersionOf(meta: ResourceMeta, { metadata }: KubeObject): ResourceMeta {
  return { ...meta, resourceVersion: metadata.resourceVersion ?? '' };
}

function hostLogger(logger: Logger): OperatorLogger {
  return {
    debug: (message) => logger.debug(message),
    info: (message) => logger.info(message),
    warn: (message) => logger.warn(message),
    error: (message) => logger.error(message),
  };
}
