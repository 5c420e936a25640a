import { isDeepStrictEqual } from 'node:util';
import type { Workflow } from '../../api/workflow.ts';
import { label, MANAGED_BY } from '../../api/names.ts';
import { keyOf, type KubeObject } from '../../api/objects.ts';
import { resources, type Resource } from '../../api/resources.ts';
import { ForeignObjectError, isMadeFor, type Applier } from '../../runtime/applier.ts';
import { isInvalid, isRefused, messageOf } from '../../runtime/errors.ts';
import type { Change } from '../../runtime/list-watch.ts';
import type { OptionalWatch } from '../../runtime/optional-watch.ts';
import { fieldOf, type Problem } from '../requirements.ts';
import { cilium, clusterNetworkPolicy, isOfKind } from './plug-in.ts';
import type { PlugInKind, PlugInPlan, PlugInPolicy } from './plug-in.ts';

/** What is known of one kind; its policies of ours, indexed by `workflow`. */
export type PlugInCache = Pick<
  OptionalWatch<PlugInPolicy>,
  'isServed' | 'hasSynced' | 'byIndex' | 'resource'
>;

export interface WriteOptions {
  applier: Applier;
  signal: AbortSignal;
}

/** What became of a plan. */
export interface PlugInOutcome {
  /** Kind and name of what was written. */
  changed: readonly string[];
  /** What no retry would cure. */
  problems: readonly Problem[];
  /** What a retry may cure. */
  errors: readonly unknown[];
}

/** What became of a deny. */
export type Denial =
  /** Kind of the policy that denies. */
  | { deniedBy: string }
  /** Kind and name of the policy that can't be made to deny, and why: no retry alone cures it. */
  | { refused: string };

/** In the order in which they are preferred. */
export const plugInKinds: readonly PlugInKind[] = [cilium, clusterNetworkPolicy];

/** Kinds that are looked at; the last of them is nobody's but others'. */
export const seenPlugInResources: readonly Resource<PlugInPolicy>[] = [
  ...plugInKinds.map(({ resource }) => resource),
  resources.ciliumClusterwideNetworkPolicies,
];

/** Keys (`namespace/name`) of the Workflow that a policy of ours is for, for an index. */
export function plugInKeys(policy: PlugInPolicy): string[] {
  if (!isOurs(policy)) return [];
  return [plugInKinds.find((kind) => isOfKind(kind, policy))?.workflowOf(policy) ?? []].flat();
}

/** Its namespace, or none, of a policy of others, for an index. */
export function othersOfPlugIn(policy: PlugInPolicy): string[] {
  return isOurs(policy) ? [] : [policy.metadata.namespace ?? ''];
}

/** Where a change of a policy of others may let more out or less: a namespace, or `''` for all. */
export function changedForOthers({ type, object, previous }: Change<PlugInPolicy>): string[] {
  const before = previous === undefined ? [] : othersOfPlugIn(previous);
  const isSame = type === 'updated' && isDeepStrictEqual(object, previous);
  return isSame ? [] : [...new Set([...before, ...othersOfPlugIn(object)])];
}

/** Keeps of a policy of others what it allows. */
export function projectPlugIn(object: KubeObject): PlugInPolicy {
  const { managedFields: _, ...rest } = object.metadata;
  const { name, namespace, uid = '' } = rest;
  const kept = { name, uid, ...(namespace !== undefined && { namespace }) };
  const policy = isOurs(object)
    ? { ...object, metadata: rest }
    : { metadata: kept, spec: fieldOf(object, 'spec'), specs: fieldOf(object, 'specs') };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of that kind
  return policy as PlugInPolicy;
}

function isOurs({ metadata }: KubeObject): boolean {
  return metadata.labels?.[label.managedBy] === MANAGED_BY;
}

/** Policies beyond NetworkPolicies: which kind of them this cluster has, and which of ours exist. */
export class PlugInPolicies {
  readonly #caches: readonly { kind: PlugInKind; cache: PlugInCache }[];

  readonly #all: readonly PlugInCache[];

  /** @param caches in the order of {@link seenPlugInResources} */
  constructor(caches: readonly PlugInCache[]) {
    this.#all = caches;
    this.#caches = caches.flatMap((cache) => {
      const kind = plugInKinds.find(({ resource }) => resource === cache.resource);
      return kind === undefined ? [] : [{ kind, cache }];
    });
  }

  /** The kind that policies are written in; `undefined` where that isn't known (yet). */
  get kind(): PlugInKind | 'None' | undefined {
    for (const { kind, cache } of this.#caches) {
      if (cache.isServed === undefined) return undefined;
      if (cache.isServed) return cache.hasSynced ? kind : undefined;
    }
    return 'None';
  }

  /**
   * Policies of a Workflow, of any kind; also those that one of its name left behind.
   */
  of(workflow: Pick<Workflow, 'metadata'>): PlugInPolicy[] {
    return this.named(keyOf(workflow)).filter(
      (policy) => policy.metadata.namespace === undefined || isMadeFor(policy, workflow),
    );
  }

  /** Policies of a Workflow of that key, also of one that was deleted. */
  named(key: string): PlugInPolicy[] {
    return this.#caches.flatMap(({ cache }) => cache.byIndex('workflow', key));
  }

  /** Policies of others that may let pods of a namespace out. */
  others(namespace: string): { cilium: readonly PlugInPolicy[]; cluster: readonly PlugInPolicy[] } {
    const of = (isCluster: boolean): PlugInPolicy[] =>
      this.#all
        .filter(({ resource }) => (resource === clusterNetworkPolicy.resource) === isCluster)
        .flatMap((cache) => cache.byIndex('others', cache.resource.namespaced ? namespace : ''));
    return { cilium: of(false), cluster: of(true) };
  }

  /** Whether nothing more can be denied than is. */
  isDenied(workflow: Pick<Workflow, 'metadata'>): boolean {
    const { kind } = this;
    if (kind === undefined || kind === 'None') return true;
    return this.of(workflow).some((policy) => kind.isDeny(policy) && isMadeFor(policy, workflow));
  }

  /**
   * Denies everything to the pods of a Workflow, whatever other policies allow. What can't be turned
   * round goes: its own doesn't go on allowing.
   *
   * @returns `undefined` where this cluster has no kind for it
   * @throws ApiError for what a retry may cure
   */
  async deny(
    workflow: Pick<Workflow, 'metadata'>,
    options: WriteOptions,
  ): Promise<Denial | undefined> {
    const { kind } = this;
    if (kind === undefined || kind === 'None') return undefined;
    const desired = kind.deny(workflow);
    const live = this.of(workflow).find(({ metadata }) => metadata.name === desired.metadata.name);
    try {
      await options.applier.ensure(kind.resource, desired, live, options);
      return { deniedBy: kind.resource.kind };
    } catch (error) {
      if (error instanceof ForeignObjectError) return { refused: error.message };
      if (!isRefused(error)) throw error;
      if (live !== undefined && !kind.isDeny(live)) {
        await options.applier.remove(kind.resource, live, options);
      }
      return { refused: `${nameOf(kind, desired)}: ${messageOf(error)}` };
    }
  }

  /** Makes the first part of a plan true: what is needed, stands. Never throws. */
  async ensure(
    { kind, desired, live }: PlugInPlan,
    { applier, signal }: WriteOptions,
  ): Promise<PlugInOutcome> {
    if (desired === undefined) return nothing;
    try {
      const { action } = await applier.ensure(kind.resource, desired, live, { signal });
      return { ...nothing, changed: action === 'none' ? [] : [nameOf(kind, desired)] };
    } catch (error) {
      if (error instanceof ForeignObjectError) {
        return { ...nothing, problems: [{ reason: 'ForeignObject', message: error.message }] };
      }
      if (!isInvalid(error)) return { ...nothing, errors: [error] };
      const message = `The API server refuses the ${kind.resource.kind} for the hosts, so that what wasn't allowed before isn't now: ${messageOf(error).slice(0, 1024)}`;
      return { ...nothing, problems: [{ reason: 'EgressRefused', message }] };
    }
  }

  /** Makes the second part true: what isn't needed, goes. Never throws. */
  async remove(
    policies: readonly PlugInPolicy[],
    { applier, signal }: WriteOptions,
  ): Promise<PlugInOutcome> {
    const changed: string[] = [];
    const errors: unknown[] = [];
    for (const policy of policies) {
      const kind = plugInKinds.find((one) => isOfKind(one, policy));
      if (kind === undefined) continue;
      try {
        await applier.remove(kind.resource, policy, { signal });
        changed.push(nameOf(kind, policy));
      } catch (error) {
        errors.push(error);
      }
    }
    return { changed, problems: [], errors };
  }
}

const nothing: PlugInOutcome = { changed: [], problems: [], errors: [] };

function nameOf({ resource }: PlugInKind, { metadata }: PlugInPolicy): string {
  return `${resource.kind} ${metadata.name}`;
}
