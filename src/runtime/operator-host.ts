import dotI, {
  type OperatorLogger,
  type ResourceEvent,
  type ResourceMeta,
} from '@dot-i/k8s-operator';
import { CoreV1Api } from '@kubernetes/client-node';
import type { KubeObject } from '../api/objects.ts';
import type { Resource } from '../api/resources.ts';
import type { Logger } from '../observability/logger.ts';
import type { KubeClient } from './client.ts';
import type { PooledKubeConfig } from './kube-config.ts';
import type { Informer } from './list-watch.ts';

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

/**
 * The life of the process, as an `Operator` of `@dot-i/k8s-operator`. What of that class ends the
 * process, swallows errors or doesn't work with today's client is overridden.
 */
export class OperatorHost extends dotI.default {
  readonly #options: OperatorHostOptions;
  readonly #stopping = new AbortController();
  #running: Promise<unknown> = Promise.resolve();

  constructor(options: OperatorHostOptions) {
    super(hostLogger(options.logger));
    this.#options = options;
    this.kubeConfig = options.kubeConfig;
    this.k8sApi = options.kubeConfig.makeApiClient(CoreV1Api);
  }

  /** Starts the services; they run until `stop`. */
  protected override init(): Promise<void> {
    const { logger, services } = this.#options;
    this.#running = Promise.all(
      services.map(async (service) => {
        try {
          await service.run(this.#stopping.signal);
        } catch (error) {
          logger.error('A service has failed; the operator stops', {
            service: service.name,
            error,
          });
          process.exitCode = 1;
          this.stop();
        }
      }),
    );
    return Promise.resolve();
  }

  /** Asks the services to end; see {@link stopped}. */
  override stop(): void {
    this.#stopping.abort();
  }

  /** Resolves when every service has ended. */
  async stopped(): Promise<void> {
    await this.#running;
  }

  /** Refused: users apply the CRDs; the operator has no right to. */
  protected override registerCustomResourceDefinition(): Promise<never> {
    return Promise.reject(
      new OperatorHostError('The CRDs are applied with the installation, not by the operator'),
    );
  }

  protected override getCustomResourceApiUri(
    group: string,
    version: string,
    plural: string,
    namespace?: string,
  ): string {
    const server = this.#options.kubeConfig.getCurrentCluster()?.server ?? '';
    const scope = namespace === undefined ? '' : `namespaces/${namespace}/`;
    return `${server}/apis/${group}/${version}/${scope}${plural}/`;
  }

  /**
   * Calls `onEvent` for each change of a cache, with a copy that it may change, one at a time and
   * in order. What it throws is logged and stops nothing.
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
    let tail = Promise.resolve();
    informer.onChange(({ type, object }) => {
      if (namespace !== undefined && object.metadata.namespace !== namespace) return;
      tail = tail.then(async () => {
        try {
          await onEvent(eventOf(informer.resource, type, object));
        } catch (error) {
          logger.error('A handler of events has failed', { kind: informer.resource.kind, error });
        }
      });
    });
    return Promise.resolve();
  }

  /** @throws ApiError, where the original returns null */
  protected override setResourceStatus(meta: ResourceMeta, status: unknown): Promise<ResourceMeta> {
    return this.#patch(meta, { status }, 'status');
  }

  /** @throws ApiError, where the original returns null */
  protected override patchResourceStatus(
    meta: ResourceMeta,
    status: unknown,
  ): Promise<ResourceMeta> {
    return this.#patch(meta, { status }, 'status');
  }

  /** On exactly the version of the event, so that nobody else's finalizer is lost. */
  protected override async setResourceFinalizers(
    meta: ResourceMeta,
    finalizers: string[],
  ): Promise<void> {
    await this.#patch(meta, { metadata: { finalizers } });
  }

  protected override handleResourceFinalizer(
    event: ResourceEvent,
    finalizer: string,
    deleteAction: (event: ResourceEvent) => Promise<void>,
  ): Promise<boolean> {
    // The original changes the object that it is given.
    return super.handleResourceFinalizer(structuredClone(event), finalizer, deleteAction);
  }

  async #patch(
    meta: ResourceMeta,
    patch: { status?: unknown; metadata?: object },
    subresource?: string,
  ): Promise<ResourceMeta> {
    const stored = await this.#options.client.mergePatch(
      resourceOf(meta),
      { name: meta.name, ...(meta.namespace !== undefined && { namespace: meta.namespace }) },
      { ...patch, metadata: { ...patch.metadata, resourceVersion: meta.resourceVersion } },
      subresource === undefined ? {} : { subresource },
    );
    return { ...meta, resourceVersion: stored.metadata.resourceVersion ?? '' };
  }
}

/** `id` of a meta is `plural.group/version`, by which the original finds its paths. */
function eventOf(resource: Resource, type: string, object: KubeObject): ResourceEvent {
  const { group, version, kind, plural } = resource;
  const { name, namespace, resourceVersion = '' } = object.metadata;
  const types = { added: 'ADDED', updated: 'MODIFIED', deleted: 'DELETED' } as Record<
    string,
    string
  >;
  return {
    type: types[type] as ResourceEvent['type'],
    object: structuredClone(object) as unknown as ResourceEvent['object'],
    meta: {
      id: `${plural}.${group}/${version}`,
      name,
      ...(namespace !== undefined && { namespace }),
      resourceVersion,
      apiVersion: group === '' ? version : `${group}/${version}`,
      kind,
    },
  };
}

function resourceOf({ id, kind, namespace }: ResourceMeta): Resource {
  const match = /^([^.]+)\.([^/]*)\/(.+)$/.exec(id);
  if (match === null) throw new OperatorHostError(`Not a resource: ${id}`);
  const [, plural = '', group = '', version = ''] = match;
  return { group, version, kind, plural, namespaced: namespace !== undefined };
}

function hostLogger(logger: Logger): OperatorLogger {
  return {
    debug: (message) => logger.debug(message),
    info: (message) => logger.info(message),
    warn: (message) => logger.warn(message),
    error: (message) => logger.error(message),
  };
}
