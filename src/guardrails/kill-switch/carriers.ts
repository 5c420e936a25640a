import type { AutomationIdentity } from '../../api/automation-identity.ts';
import { wholeNamespaceName } from '../../api/kill-switch.ts';
import { label } from '../../api/names.ts';
import { splitKey, type KubeObject, type Namespace } from '../../api/objects.ts';
import { resources, subjectOf, type Resource } from '../../api/resources.ts';
import type { Workflow } from '../../api/workflow.ts';
import type { KubeClient } from '../../runtime/client.ts';
import type { ReconcileContext } from '../../runtime/controller.ts';
import { forEachBounded } from '../../runtime/parallel.ts';
import type { ReadStore } from '../../runtime/store.ts';
import { isEngaging, isLatched } from './plan.ts';

export interface CarriersOptions {
  client: Pick<KubeClient, 'get' | 'mergePatch'>;
  workflows: Pick<ReadStore<Workflow>, 'get'>;
  identities: Pick<ReadStore<AutomationIdentity>, 'get'>;
  namespaces: Pick<ReadStore<Namespace>, 'get'>;
}

/**
 * What can carry the annotation that a KillSwitch latches: of its name, the Workflow and the
 * AutomationIdentity, or the Namespace. Keys are the KillSwitch's, `namespace/name`; every object
 * in an answer says its kind.
 */
export class Carriers {
  readonly #options: CarriersOptions;

  constructor(options: CarriersOptions) {
    this.#options = options;
  }

  /** Those that exist, as the caches know them. */
  cached(key: string): readonly KubeObject[] {
    return this.#placesOf(key).flatMap(({ resource, store, at }) => {
      const object = store.get(at);
      return object === undefined ? [] : [subjectOf(resource, object)];
    });
  }

  /** Those that carry the annotation now, as the API server has them. */
  async engaging(key: string, signal: AbortSignal): Promise<readonly KubeObject[]> {
    const found = await Promise.all(
      this.#placesOf(key).map(async ({ resource, at }) => {
        const object = await this.#options.client.get(resource, splitKey(at), { signal });
        return object === undefined ? [] : [subjectOf(resource, object)];
      }),
    );
    return found.flat().filter(isEngaging);
  }

  /**
   * Whoever engaged may take the annotation away from now on: the KillSwitch stands. Never throws.
   *
   * @param engaging as {@link engaging} has them
   */
  async markLatched(
    engaging: readonly KubeObject[],
    { signal, log }: Pick<ReconcileContext, 'signal' | 'log'>,
  ): Promise<void> {
    const unmarked = engaging.filter((object) => !isLatched(object));
    const outcomes = await forEachBounded(unmarked, unmarked.length, async (object) => {
      const { namespace, name, uid } = object.metadata;
      await this.#options.client.mergePatch(
        kinds.find(({ kind }) => kind === object.kind) ?? resources.namespaces,
        { ...(namespace !== undefined && { namespace }), name },
        { metadata: { uid, labels: { [label.latched]: 'true' } } },
        { signal },
      );
    });
    for (const { error } of outcomes.filter((outcome) => 'error' in outcome)) {
      // Gone, or without the annotation by now; anything else is met again by the next look.
      log.info('What engaged could not be marked as latched', { error });
    }
  }

  #placesOf(
    key: string,
  ): readonly { resource: Resource; store: Pick<ReadStore<KubeObject>, 'get'>; at: string }[] {
    const { workflows, identities, namespaces } = this.#options;
    const { namespace = '', name } = splitKey(key);
    return name === wholeNamespaceName
      ? [{ resource: resources.namespaces, store: namespaces, at: namespace }]
      : [
          { resource: resources.workflows, store: workflows, at: key },
          { resource: resources.automationIdentities, store: identities, at: key },
        ];
  }
}

const kinds: readonly Resource[] = [
  resources.workflows,
  resources.automationIdentities,
  resources.namespaces,
];
