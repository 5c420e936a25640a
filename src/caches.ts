/** What the operator watches, and how each object is kept. */
import { setTimeout as delay } from 'node:timers/promises';
import { label, MANAGED_BY } from './api/names.ts';
import { type KubeObject, type Namespace, type Pod } from './api/objects.ts';
import { resources, type Resource } from './api/resources.ts';
import {
  ownAnnotations,
  workloadCache,
  workloadKinds,
  workloadResources,
  type Workload,
} from './api/workload.ts';
import type { Config } from './config.ts';
import { keysFor as identityKeysFor } from './controllers/automation-identity.ts';
import {
  projectApproval,
  workflowOfApproval,
  workflowOfRevision,
} from './controllers/workflow-approval.ts';
import {
  hostsToResolve,
  peerNamespaces,
  policyIndexes,
  projectPolicy,
} from './controllers/workflow-indexes.ts';
import {
  othersOfPlugIn,
  plugInKeys,
  projectPlugIn,
  seenPlugInResources,
} from './guardrails/egress/plug-in-policies.ts';
import { namedPeersOf } from './guardrails/egress/named-peers.ts';
import type { NamedPeers } from './guardrails/egress/rules.ts';
import { bindingIndexes, projectBinding, projectRole } from './guardrails/identity/bindings.ts';
import type { Mutation } from './guardrails/kill-switch/mutation.ts';
import { podIdentity, podSecretKeys, projectPod } from './guardrails/kill-switch/pods.ts';
import { projectRevision } from './guardrails/revisions/plan.ts';
import type { Metrics } from './observability/metrics.ts';
import { aborted } from './runtime/aborted.ts';
import type { ApiServerClient } from './runtime/client.ts';
import { ListWatch, type Informer, type ListWatchOptions } from './runtime/list-watch.ts';
import { OptionalWatch } from './runtime/optional-watch.ts';

/** Every cache of the operator, not started yet. @param dns Service of the cluster's DNS */
export function createCaches(
  shared: Pick<ListWatchOptions<KubeObject>, 'logger'> & {
    client: ApiServerClient;
    metrics: Metrics;
  },
  dns: Config['clusterDns'],
) {
  const watch = <T extends KubeObject>(
    resource: Resource<T>,
    options: Partial<ListWatchOptions<T>> = {},
  ): ListWatch<T> =>
    // Seconds count when somebody engages a kill switch just after an outage.
    new ListWatch<T>({ ...shared, resource, timings: { maxBackoffMs: 5_000 }, ...options });
  const managed = { labelSelector: `${label.managedBy}=${MANAGED_BY}` };
  const byNamespace = {
    indexes: { namespace: ({ metadata }: KubeObject): string[] => [metadata.namespace ?? ''] },
  };
  const caches = {
    workflows: watch(resources.workflows, {
      indexes: {
        ...byNamespace.indexes,
        peerNamespace: peerNamespaces,
        resolvedHost: hostsToResolve,
      },
    }),
    identities: watch(resources.automationIdentities, byNamespace),
    killSwitches: watch(resources.killSwitches),
    clusterKillSwitches: watch(resources.clusterKillSwitches),
    guardrailPolicies: watch(resources.guardrailPolicies),
    approvals: watch(resources.approvals, {
      project: projectApproval,
      indexes: { workflow: workflowOfApproval },
    }),
    revisions: watch(resources.workflowRevisions, {
      project: projectRevision,
      indexes: { workflow: workflowOfRevision },
    }),
    accessReviews: watch(resources.accessReviews, {
      indexes: { identity: identityKeysFor.accessReview },
    }),
    namespaces: watch(resources.namespaces, {
      project: ({ metadata }): Namespace => ({
        metadata: {
          name: metadata.name,
          ...(metadata.labels && { labels: metadata.labels }),
          annotations: ownAnnotations(metadata.annotations),
          ...(metadata.deletionTimestamp && { deletionTimestamp: metadata.deletionTimestamp }),
        },
      }),
    }),
    serviceAccounts: watch(resources.serviceAccounts, managed),
    roles: watch(resources.roles, { project: projectRole }),
    roleBindings: watch(resources.roleBindings, {
      project: projectBinding,
      indexes: bindingIndexes,
    }),
    networkPolicies: watch(resources.networkPolicies, {
      project: projectPolicy,
      indexes: policyIndexes,
    }),
    pods: watch<Pod>(resources.pods, {
      project: projectPod,
      indexes: {
        namespace: ({ metadata }) => [metadata.namespace ?? ''],
        identity: (pod) => [podIdentity(pod)],
        secret: podSecretKeys,
      },
    }),
    workloads: workloadKinds.map((kind) =>
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the projection makes it one
      watch(workloadResources[kind] as Resource<Workload>, workloadCache(kind)),
    ),
  };
  // Who may not list these is told what isn't known for it, and works on.
  const cluster = {
    clusterRoles: watch(resources.clusterRoles, { project: projectRole, timings: {} }),
    clusterRoleBindings: watch(resources.clusterRoleBindings, {
      project: projectBinding,
      indexes: bindingIndexes,
      timings: {},
    }),
  };
  // Few objects: the API server's own, and those of the cluster's DNS.
  const only = (name: string): { fieldSelector: string; timings: object } => ({
    fieldSelector: `metadata.name=${name}`,
    timings: {},
  });
  const peers = {
    apiService: watch(resources.services, { namespace: 'default', ...only('kubernetes') }),
    apiSlices: watch(resources.endpointSlices, { namespace: 'default', ...only('kubernetes') }),
    dnsService: watch(resources.services, { namespace: dns.namespace, ...only(dns.name) }),
    dnsSlices: watch(resources.endpointSlices, {
      namespace: dns.namespace,
      labelSelector: `kubernetes.io/service-name=${dns.name}`,
      timings: {},
    }),
  };
  const {
    workloads,
    approvals,
    revisions,
    accessReviews,
    clusterKillSwitches,
    guardrailPolicies,
    ...needed
  } = caches;
  const forKills: Cache[] = [...Object.values(needed), ...workloads];
  const plugIn = seenPlugInResources.map(
    (resource) =>
      new OptionalWatch({
        ...shared,
        resource,
        create: () =>
          watch(resource, {
            project: projectPlugIn,
            indexes: { workflow: plugInKeys, others: othersOfPlugIn },
          }),
      }),
  );
  return {
    ...caches,
    ...cluster,
    peers,
    /** Kinds of policies that only some network plug-ins bring. */
    plugIn,
    /** What a kill needs. It waits for nothing else, such as a kind that isn't installed yet. */
    forKills,
    all: [...forKills, approvals, revisions, accessReviews, clusterKillSwitches, guardrailPolicies],
    optional: [...Object.values(cluster), ...Object.values(peers)] satisfies Cache[] as Cache[],
  };
}

/** All of them. */
export type Caches = ReturnType<typeof createCaches>;

/** One of them, whatever it holds. */
export interface Cache extends Informer<KubeObject> {
  run(signal: AbortSignal): Promise<void>;
}

/** Where the named peers of egress and ingress are, as far as that is known. */
export function namedPeersIn({ peers }: Caches): NamedPeers {
  const { apiService, apiSlices, dnsService, dnsSlices } = peers;
  const [service] = apiService.store.list();
  const [dns] = dnsService.store.list();
  return namedPeersOf({
    api: { service, slices: [...apiSlices.store.list()] },
    dns: { service: dns, slices: [...dnsSlices.store.list()] },
  });
}

/** @returns whether all of them have, before the signal aborted */
export async function haveSynced(caches: readonly Cache[], signal: AbortSignal): Promise<boolean> {
  const synced = Promise.all(caches.map((cache) => cache.whenSynced())).catch(() => undefined);
  await Promise.race([synced, aborted(signal)]);
  return !signal.aborted;
}

/** Longest wait for what Workflows can do without. */
const knownWithinMs = 5_000;

/** Until named peers were looked up and admission was asked what it does, or the time is over. */
export async function lookedUp(
  { peers, plugIn }: Caches,
  mutation: Mutation,
  signal: AbortSignal,
): Promise<void> {
  const all = Promise.all([
    mutation.ask(signal),
    ...Object.values(peers).map((cache) => cache.whenSynced()),
    ...plugIn.map((cache) => cache.whenKnown()),
  ]);
  await Promise.race([
    all.catch(() => undefined),
    delay(knownWithinMs, undefined, { signal }).catch(() => undefined),
  ]);
}

/** Those that nothing was heard of for longer than `limitMs`, in words. */
export function staleCaches(caches: readonly Cache[], limitMs: number): string[] {
  return caches
    .filter(({ stalenessMs }) => stalenessMs > limitMs)
    .map(({ resource }) => `nothing heard of ${resource.plural} for too long`);
}

/** Those that aren't listed or may not be, in words. */
export function unreadyCaches({ all }: Caches): string[] {
  return all.flatMap(({ resource: { plural }, hasSynced, isForbidden }) => {
    // What is known grows old, and nothing of it can be told from what is true.
    if (isForbidden) return [`the API server forbids to list or watch ${plural}`];
    return hasSynced ? [] : [`${plural} are not listed yet`];
  });
}
