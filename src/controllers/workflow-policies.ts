import type { KubeObject, NetworkPolicy } from '../api/objects.ts';
import type { PlugInPolicy } from '../guardrails/egress/plug-in.ts';
import { plugInKeys } from '../guardrails/egress/plug-in-policies.ts';
import { isLeftBehind } from '../runtime/applier.ts';
import type { OptionalWatch } from '../runtime/optional-watch.ts';
import type { ReadStore } from '../runtime/store.ts';
import { policyIndexes } from './workflow-indexes.ts';

/** Policies as the caches have them, indexed by `workflow` and `others`. */
export interface PolicyCaches {
  networkPolicies: { store: Pick<ReadStore<NetworkPolicy>, 'byIndex' | 'list'> };
  /** Of the kinds that only some network plug-ins bring. */
  plugIn: readonly Pick<OptionalWatch<PlugInPolicy>, 'byIndex' | 'list'>[];
}

/** NetworkPolicies and policies of network plug-ins; under `others` also those of all namespaces. */
export function policiesOf({ networkPolicies, plugIn }: PolicyCaches): {
  byIndex: (index: string, value: string) => readonly KubeObject[];
} {
  return {
    byIndex: (index, value) => [
      ...networkPolicies.store.byIndex(index, value),
      ...plugIn.flatMap((cache) => [
        ...cache.byIndex(index, value),
        ...(index === 'others' ? cache.byIndex(index, '') : []),
      ]),
    ],
  };
}

/**
 * Keys (`namespace/name`) of the Workflows that policies would outlive, and of those that they have.
 * One of the cluster's scope stays where its namespace was deleted with everything in it.
 */
export function keysOfLeft({ networkPolicies, plugIn }: PolicyCaches): string[] {
  return [
    ...[...networkPolicies.store.list()].filter(isLeftBehind).flatMap(policyIndexes.workflow),
    ...plugIn.flatMap((cache) => [...cache.list()].filter(isLeftBehind).flatMap(plugInKeys)),
  ];
}
