/** Composition root: everything is wired here, and nowhere else. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { AutomationIdentity } from './api/automation-identity.ts';
import { isTrue } from './api/conditions.ts';
import { policyInForceName } from './api/guardrail-policy.ts';
import { wholeNamespaceName, type KillSwitch } from './api/kill-switch.ts';
import { label, MANAGED_BY, PROBE_NAMESPACE } from './api/names.ts';
import {
  keyOf,
  splitKey,
  type Condition,
  type KubeObject,
  type Namespace,
  type Pod,
} from './api/objects.ts';
import { resources, type Resource } from './api/resources.ts';
import type { Workflow } from './api/workflow.ts';
import {
  ownAnnotations,
  workloadCache,
  workloadKinds,
  workloadResources,
  type Workload,
} from './api/workload.ts';
import type { Config } from './config.ts';
import { ApprovalController, keysForPod } from './controllers/approval.ts';
import {
  AutomationIdentityController,
  keysFor as identityKeysFor,
} from './controllers/automation-identity.ts';
import {
  FenceInForceController,
  fenceInForceKey,
  isNotOfProbe,
  policyChangeDelayMs,
} from './controllers/fence-in-force.ts';
import { GuardrailPolicyController } from './controllers/guardrail-policy.ts';
import { PolicyInForce } from './controllers/policy-in-force.ts';
import { RequesterRights } from './controllers/requester.ts';
import { ClusterKillSwitchController } from './controllers/cluster-kill-switch.ts';
import { KillSwitchController } from './controllers/kill-switch.ts';
import {
  isOfCountsAlone,
  keysFor as workflowKeysFor,
  WorkflowController,
} from './controllers/workflow.ts';
import { countRuns } from './controllers/run-counts.ts';
import { Departures } from './controllers/offboarding.ts';
import { RevisionController } from './controllers/revisions.ts';
import {
  WorkflowApprovals,
  workflowOfApproval,
  workflowOfRevision,
} from './controllers/workflow-approval.ts';
import {
  hostsToResolve,
  peerNamespaces,
  policyIndexes,
  projectPolicy,
  usesHosts,
  usesKubeAPI,
} from './controllers/workflow-indexes.ts';
import { askDns, HostResolver } from './guardrails/egress/host-resolver.ts';
import { askPrometheus, RefusedConnections } from './guardrails/egress/refused.ts';
import { PlugInPolicies, plugInKeys, plugInKinds } from './guardrails/egress/plug-in-policies.ts';
import { isOfCluster, namedPeersOf } from './guardrails/egress/named-peers.ts';
import type { NamedPeers } from './guardrails/egress/rules.ts';
import { driftMessage } from './evidence/operator-facts.ts';
import { EvidenceRecorder } from './evidence/recorder.ts';
import { bindingIndexes, projectBinding, projectRole } from './guardrails/identity/bindings.ts';
import { foreignKinds, type ForeignKind } from './guardrails/kill-switch/foreign-kinds.ts';
import { RevokedTokens } from './guardrails/credentials/revoked-tokens.ts';
import { StoredPolicies } from './guardrails/fence-in-force/stored-policies.ts';
import { Mutation } from './guardrails/kill-switch/mutation.ts';
import {
  adaptivePausing,
  pausingByAdmission,
  pausingByPatch,
} from './guardrails/kill-switch/pausing.ts';
import { isByWorkflow } from './guardrails/kill-switch/cluster.ts';
import { isEngaging, isReleasing } from './guardrails/kill-switch/plan.ts';
import { podIdentity, podSecretKeys, projectPod } from './guardrails/kill-switch/pods.ts';
import { GoneRuns } from './guardrails/limits/gone-runs.ts';
import { projectRevision } from './guardrails/revisions/plan.ts';
import { attentionOf } from './observability/attention.ts';
import { fieldOf } from './guardrails/requirements.ts';
import { EventRecorder } from './observability/events.ts';
import { HealthServer } from './observability/health.ts';
import type { Logger } from './observability/logger.ts';
import { RunTally } from './observability/run-tally.ts';
import { Metrics, type KillSwitchState } from './observability/metrics.ts';
import { Applier } from './runtime/applier.ts';
import { ApiServerClient } from './runtime/client.ts';
import { Controller } from './runtime/controller.ts';
import { PooledKubeConfig } from './runtime/kube-config.ts';
import { guardedByLeadership, LeaderElector } from './runtime/leader-election.ts';
import {
  ListWatch,
  type Change,
  type Informer,
  type ListWatchOptions,
} from './runtime/list-watch.ts';
import { mergeStores } from './runtime/merged-store.ts';
import { OptionalWatch } from './runtime/optional-watch.ts';
import { OperatorHost } from './runtime/operator-host.ts';
import { StatusWriter } from './runtime/status-writer.ts';
import { createSecretStore } from './guardrails/secret-store/create.ts';
import { version } from './version.ts';

export interface OperatorOptions {
  config: Config;
  logger: Logger;
  /** The administrator's own kinds. */
  catalogue?: readonly ForeignKind[];
}

/** The operator, ready to start. */
export function createOperator({ config, logger, catalogue = [] }: OperatorOptions): OperatorHost {
  const clock = Date.now;
  const userAgent = `automation-guardrails/${version}`;
  const metrics = new Metrics({ version });
  const kubeConfig = new PooledKubeConfig().load({
    kubeconfig: config.kubeconfig,
    context: config.context,
  });
  const client = new ApiServerClient({ kubeConfig, userAgent, metrics });
  // Kills have connections of their own: nothing else can hold them up.
  const killClient = new ApiServerClient({
    kubeConfig,
    userAgent: `${userAgent} kill-switch`,
    metrics,
    connections: config.killSwitchParallelism,
  });
  const events = new EventRecorder({
    client,
    logger,
    instance: config.instance,
    onTold: (about, reason, message) => evidence?.told({ about, reason, message }),
    onDropped: () => metrics.countDroppedEvent(),
  });

  const elector = new LeaderElector({
    client,
    logger,
    namespace: config.operatorNamespace,
    name: config.leaseName,
    identity: `${config.instance}_${randomBytes(4).toString('hex')}`,
  });
  const leading = config.leaderElect ? guardedByLeadership(client, elector) : client;
  const applier = new Applier({
    client: leading,
    onDrift: (drift) => {
      metrics.countDriftRepair(drift.resource.kind);
      const { namespace } = drift.object.metadata;
      const { apiVersion, kind, name, uid } = drift.owner;
      const about = { apiVersion, kind, metadata: { name, uid, ...(namespace && { namespace }) } };
      events.warning(about, 'DriftRepaired', driftMessage(drift));
      evidence?.drifted(drift);
    },
  });
  const statusWriter = new StatusWriter({ client: leading });

  const caches = createCaches({ client, logger, metrics }, config.clusterDns);
  const workloads = mergeStores(caches.workloads.map(({ store }) => store));

  const policy = new PolicyInForce({
    guardrailPolicies: caches.guardrailPolicies.store,
    namespaces: caches.namespaces.store,
    clock,
  });
  const requester = new RequesterRights(leading);
  const approvals = new WorkflowApprovals({
    policy,
    workflows: caches.workflows.store,
    identities: caches.identities.store,
    approvals: caches.approvals.store,
    revisions: caches.revisions.store,
    workloads,
    clock,
  });
  const policies = new StoredPolicies({
    client,
    logger,
    metrics,
    staleAfterMs: config.watchStaleAfterMs,
  });
  const evidence = config.evidence
    ? new EvidenceRecorder({
        client: new ApiServerClient({
          kubeConfig,
          userAgent: `${userAgent} evidence`,
          metrics,
          connections: evidenceConnections,
        }),
        caches: {
          ...caches,
          workloadCaches: caches.workloads,
          workloads,
          policies: policies.caches,
        },
        logger,
        metrics,
        operatorNamespace: config.operatorNamespace,
        instance: config.instance,
        version,
        limits: {
          segments: config.evidenceSegments,
          retentionMs: config.evidenceRetentionMs,
          requireExport: config.evidenceRequireExport,
        },
        rotateKeyAfterMs: config.evidenceKeyRotationMs,
        otlpEndpoint: config.evidenceOtlpEndpoint,
        clock,
      })
    : undefined;

  const plugIn = new PlugInPolicies(caches.plugIn);
  const hosts = new HostResolver({
    ask: askDns(),
    isRefused: (address) => isOfCluster(namedPeersIn(caches), address),
    logger,
    clock,
  });
  const departures = new Departures();
  caches.identities.onChange(({ type, object }) => {
    if (type === 'deleted') departures.add(object);
  });
  const refused =
    config.hubblePrometheus === undefined
      ? undefined
      : new RefusedConnections({ query: askPrometheus(config.hubblePrometheus), logger });
  const revokedTokens = new RevokedTokens({ clock });
  const secretStore = createSecretStore(config.vault, { client: leading, userAgent, clock });
  const mutation = new Mutation({
    client: killClient,
    logger,
    metrics,
    namespace: config.operatorNamespace,
  });
  const killSwitch = new Controller({
    reconciler: new KillSwitchController({
      client: killClient,
      pausing: adaptivePausing({
        byAdmission: pausingByAdmission(killClient),
        byPatch: pausingByPatch(killClient),
        mutation,
      }),
      pausesByPatch: () => mutation.isInForce === false,
      statusWriter: new StatusWriter({ client: killClient }),
      events,
      metrics,
      killSwitches: caches.killSwitches.store,
      workflows: caches.workflows.store,
      identities: caches.identities.store,
      namespaces: caches.namespaces.store,
      ladder: {
        workflows: caches.workflows.store,
        identities: caches.identities.store,
        serviceAccounts: caches.serviceAccounts.store,
        roleBindings: caches.roleBindings.store,
        networkPolicies: caches.networkPolicies.store,
        pods: caches.pods.store,
        workloads,
      },
      plugIn,
      revokedTokens,
      secretStore,
      workloads,
      pods: caches.pods.store,
      ...(evidence !== undefined && {
        keepEvidence: (kill, signal) => evidence.keepKill(kill, signal),
      }),
      foreignKinds: [...foreignKinds, ...catalogue],
      parallelism: config.killSwitchParallelism,
      podGraceSeconds: config.podGraceSeconds,
      clock,
    }),
    accepts: isNotOfProbe,
    workers: config.killSwitchWorkers,
    maxDelayMs: 5_000,
    shutdownMs: config.shutdownTimeoutMs,
    metrics,
    logger,
  });
  const clusterKillSwitch = new Controller({
    reconciler: new ClusterKillSwitchController({
      client: killClient,
      statusWriter: new StatusWriter({ client: killClient }),
      events,
      clusterKillSwitches: caches.clusterKillSwitches.store,
      killSwitches: caches.killSwitches.store,
      namespaces: caches.namespaces.store,
      workflows: caches.workflows.store,
      operatorNamespace: config.operatorNamespace,
      parallelism: config.killSwitchParallelism,
      clock,
    }),
    workers: 2,
    maxDelayMs: 5_000,
    shutdownMs: config.shutdownTimeoutMs,
    metrics,
    logger,
  });
  // What the leader does waits while a kill is at work.
  const behindKills = {
    accepts: isNotOfProbe,
    behind: killSwitch,
    workers: config.workers,
    shutdownMs: config.shutdownTimeoutMs,
    metrics,
    logger,
  };
  const identity = new Controller({
    reconciler: new AutomationIdentityController({
      client: leading,
      applier,
      statusWriter,
      events,
      metrics,
      identities: caches.identities.store,
      namespaces: caches.namespaces.store,
      killSwitches: caches.killSwitches.store,
      accessReviews: caches.accessReviews.store,
      serviceAccounts: caches.serviceAccounts.store,
      roles: caches.roles.store,
      roleBindings: caches.roleBindings.store,
      clusterRoles: caches.clusterRoles,
      clusterRoleBindings: caches.clusterRoleBindings,
      workloads,
      pods: caches.pods.store,
      approvals,
      policy,
      requester,
      clock,
      randomBytes,
      revokedTokens,
      secretStore,
      departures,
    }),
    ...behindKills,
  });
  const goneRuns = new GoneRuns();
  const workflow = new Controller({
    reconciler: new WorkflowController({
      client: leading,
      applier,
      statusWriter,
      events,
      metrics,
      workflows: caches.workflows.store,
      identities: caches.identities.store,
      namespaces: caches.namespaces.store,
      killSwitches: caches.killSwitches.store,
      networkPolicies: caches.networkPolicies.store,
      workloads,
      approvals,
      policy,
      requester,
      pods: caches.pods.store,
      labelsPods: () => mutation.isInForce,
      namedPeers: () => namedPeersIn(caches),
      plugIn,
      hosts,
      refused: refused ?? { of: () => undefined },
      goneRuns,
      clock,
    }),
    ...behindKills,
  });

  const approval = new Controller({
    reconciler: new ApprovalController({
      client: leading,
      events,
      state: approvals,
      workflows: caches.workflows.store,
      namespaces: caches.namespaces.store,
      killSwitches: caches.killSwitches.store,
      clusterKillSwitches: caches.clusterKillSwitches.store,
      operatorNamespace: config.operatorNamespace,
      approvals: caches.approvals.store,
      pods: caches.pods.store,
      workloads,
      clock,
    }),
    ...behindKills,
  });

  const guardrailPolicy = new Controller({
    reconciler: new GuardrailPolicyController({
      statusWriter,
      guardrailPolicies: caches.guardrailPolicies.store,
      workflows: caches.workflows.store,
      identities: caches.identities.store,
      clock,
    }),
    ...behindKills,
    workers: 1,
  });

  const revisions = new Controller({
    reconciler: new RevisionController({
      client: leading,
      statusWriter,
      events,
      state: approvals,
      workflows: caches.workflows.store,
      identities: caches.identities.store,
      namespaces: caches.namespaces.store,
      revisions: caches.revisions.store,
      approvals: caches.approvals.store,
      workloads,
      limit: config.revisionHistoryLimit,
      clock,
    }),
    ...behindKills,
  });

  const fenceReconciler = new FenceInForceController({
    client: leading,
    statusWriter,
    events,
    metrics,
    killSwitches: caches.killSwitches.store,
    workflows: caches.workflows.store,
    identities: caches.identities.store,
    storedPolicies: (kind, name) => policies.get(kind, name),
    clock,
    sleep: async (ms, signal) => {
      await delay(ms, undefined, { signal }).catch(() => undefined);
    },
  });
  const fence = new Controller({
    reconciler: fenceReconciler,
    workers: 1,
    maxDelayMs: 30_000,
    shutdownMs: config.shutdownTimeoutMs,
    metrics,
    logger,
  });
  policies.onChange(() => {
    fenceReconciler.policyChanged();
    fence.enqueueAfter(fenceInForceKey, policyChangeDelayMs);
  });

  wireKillSwitch(caches, killSwitch);
  wireClusterKillSwitch(caches, clusterKillSwitch);
  wireGoneRuns(caches, goneRuns);
  const runs = new RunTally();
  countRuns(caches, runs);
  const led = wireLed(caches, {
    identity,
    workflow,
    approval,
    guardrailPolicy,
    policy,
    revisions,
    fence,
    metrics,
    mutation,
    evidence,
    hosts,
    refused,
  });
  metrics.observe({
    clock,
    isLeader: () => !config.leaderElect || elector.isLeader,
    killSwitchStates: () => killSwitchStates(caches),
    attention: () =>
      attentionOf({
        workflows: () => caches.workflows.store.list(),
        identities: () => caches.identities.store.list(),
        killSwitches: () => caches.killSwitches.store.list(),
      }),
    runs: () => runs.list(),
  });

  const health = new HealthServer({
    metrics,
    host: config.bindAddress,
    metricsPort: config.metricsPort,
    healthPort: config.healthPort,
    live: () => staleCaches(caches, config.watchStaleAfterMs),
    ready: () => unreadyCaches(caches),
    logger,
  });

  return new OperatorHost({
    kubeConfig,
    client,
    logger,
    informerOf: (group, apiVersion, plural) =>
      caches.all.find(
        ({ resource }) =>
          resource.group === group && resource.version === apiVersion && resource.plural === plural,
      ),
    services: [
      {
        name: 'health',
        run: async (signal) => {
          const ports = await health.start();
          logger.info('Serving metrics and health', ports);
          await aborted(signal);
        },
      },
      {
        name: 'controllers',
        run: async (signal) => {
          const watching = new AbortController();
          const recording = new AbortController();
          // Readiness doesn't wait for those that a kill doesn't need.
          const watches = Promise.all(
            [...caches.all, ...caches.optional, ...caches.plugIn, policies].map((cache) =>
              cache.run(watching.signal),
            ),
          );
          const { clusterKillSwitches } = caches;
          if (await haveSynced(caches.forKills, signal)) {
            logger.info('Caches for kills synced');
            const recorded = evidence?.run(recording.signal);
            await Promise.all([
              mutation.run(signal, mutationCheckMs),
              killSwitch.run(signal, killSwitchKeys(caches)),
              whenTrue(haveSynced([clusterKillSwitches], signal), () =>
                clusterKillSwitch.run(signal, clusterKeys(caches)),
              ),
              whenTrue(haveSynced(caches.all, signal), () => {
                logger.info('Caches synced');
                return config.leaderElect
                  ? elector.run(signal, { onStartedLeading: (until) => led(until) })
                  : led(signal);
              }),
            ]);
            // Behind the controllers: what they did last is recorded, too.
            recording.abort();
            await recorded;
          }
          // Last: who works until the end sees what happens until the end.
          watching.abort();
          await watches;
          await events.flush();
          await health.stop();
          await kubeConfig.closeConnections();
        },
      },
    ],
  });
}

/** @returns whether all of them have, before the signal aborted */
async function haveSynced(caches: readonly Cache[], signal: AbortSignal): Promise<boolean> {
  const synced = Promise.all(caches.map((cache) => cache.whenSynced())).catch(() => undefined);
  await Promise.race([synced, aborted(signal)]);
  return !signal.aborted;
}

async function whenTrue(condition: Promise<boolean>, run: () => Promise<void>): Promise<void> {
  if (await condition) await run();
}

/** Requests for evidence in flight at a time: they hold nothing else up. */
const evidenceConnections = 8;

/** How often it is asked whether admission rewrites requests: a cluster is upgraded under us. */
const mutationCheckMs = 60_000;

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

function createCaches(
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
    approvals: watch(resources.approvals, { indexes: { workflow: workflowOfApproval } }),
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
  const plugIn = plugInKinds.map(
    ({ resource }) =>
      new OptionalWatch({
        ...shared,
        resource,
        create: () => watch(resource, { ...managed, indexes: { workflow: plugInKeys } }),
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

type Caches = ReturnType<typeof createCaches>;

interface Cache extends Informer<KubeObject> {
  run(signal: AbortSignal): Promise<void>;
}

function namedPeersIn({ peers }: Caches): NamedPeers {
  const { apiService, apiSlices, dnsService, dnsSlices } = peers;
  const [service] = apiService.store.list();
  const [dns] = dnsService.store.list();
  return namedPeersOf({
    api: { service, slices: [...apiSlices.store.list()] },
    dns: { service: dns, slices: [...dnsSlices.store.list()] },
  });
}

function* killSwitchKeys(caches: Caches): Iterable<string> {
  const { killSwitches, workflows, identities, namespaces } = caches;
  for (const killSwitch of killSwitches.store.list()) yield keyOf(killSwitch);
  for (const carriers of [workflows, identities]) {
    for (const carrier of carriers.store.list()) if (isEngaging(carrier)) yield keyOf(carrier);
  }
  for (const namespace of namespaces.store.list()) {
    if (isEngaging(namespace)) yield `${namespace.metadata.name}/${wholeNamespaceName}`;
  }
}

/** Every replica works on kills, from the moment its caches are synced. */
function wireKillSwitch(caches: Caches, controller: Controller): void {
  const { killSwitches, workflows, identities, namespaces, pods } = caches;
  const enqueueCovering = (namespace: string, serviceAccountName: string): void => {
    for (const name of [serviceAccountName, wholeNamespaceName]) {
      const key = `${namespace}/${name}`;
      if (killSwitches.store.get(key) !== undefined) controller.enqueueEcho(key);
    }
  };
  killSwitches.onChange(({ object, previous }) => {
    const key = keyOf(object);
    // What differs is the status alone: the controller's own word.
    if (previous !== undefined && isAskedForTheSame(previous, object)) controller.enqueueEcho(key);
    else controller.enqueue(key);
  });
  for (const carriers of [workflows, identities]) {
    carriers.onChange(({ object, previous }: Change<KubeObject>) => {
      if (isEngaging(object) || isEngaging(previous)) controller.enqueue(keyOf(object));
    });
  }
  pods.onChange(({ object: { metadata, spec } }) =>
    enqueueCovering(metadata.namespace ?? '', spec?.serviceAccountName ?? 'default'),
  );
  namespaces.onChange(({ object, previous }) => {
    if (isEngaging(object) || isEngaging(previous)) {
      controller.enqueue(`${object.metadata.name}/${wholeNamespaceName}`);
    }
    for (const killSwitch of killSwitches.store.list()) {
      if (killSwitch.metadata.namespace === object.metadata.name) {
        controller.enqueue(keyOf(killSwitch));
      }
    }
  });
  for (const cache of [caches.identities, caches.serviceAccounts, caches.roleBindings]) {
    cache.onChange(({ object: { metadata } }: Change<KubeObject>) =>
      enqueueCovering(metadata.namespace ?? '', metadata.name),
    );
  }
  const enqueueCoveringKeys = (keys: readonly string[]): void => {
    for (const key of keys) {
      const { namespace = '', name } = splitKey(key);
      enqueueCovering(namespace, name);
    }
  };
  caches.networkPolicies.onChange(({ object }) => {
    enqueueCoveringKeys(policyIndexes.workflow(object));
    for (const namespace of policyIndexes.others(object)) {
      for (const key of killSwitchesIn(killSwitches, namespace)) controller.enqueueEcho(key);
    }
  });
  for (const cache of caches.plugIn) {
    cache.onChange(({ object }) => enqueueCoveringKeys(plugInKeys(object)));
    cache.onServed(() => {
      for (const killSwitch of killSwitches.store.list()) controller.enqueue(keyOf(killSwitch));
    });
  }
  for (const cache of caches.workloads) {
    cache.onChange(({ object }) =>
      enqueueCovering(object.metadata.namespace, object.serviceAccountName),
    );
  }
}

function killSwitchesIn({ store }: Caches['killSwitches'], namespace: string): string[] {
  return [...store.list()].map(keyOf).filter((key) => splitKey(key).namespace === namespace);
}

/** Every replica remembers them: one that comes to lead counts what went since the last count. */
function wireGoneRuns({ workloads, workflows }: Caches, goneRuns: GoneRuns): void {
  for (const cache of workloads) {
    cache.onChange(({ type, object }) => {
      if (type !== 'deleted' || object.kind !== 'Job') return;
      const key = `${object.metadata.namespace}/${object.serviceAccountName}`;
      if (fieldOf(workflows.store.get(key)?.spec, 'limits') !== undefined) goneRuns.add(object);
    });
  }
}

function clusterKeys({ clusterKillSwitches }: Caches): string[] {
  return [...clusterKillSwitches.store.list()].map(({ metadata }) => metadata.name);
}

/** Few stand at any time, so that each is looked at for every change that could concern one. */
function wireClusterKillSwitch(caches: Caches, controller: Controller): void {
  const enqueueAll = (): void => {
    for (const name of clusterKeys(caches)) controller.enqueue(name);
  };
  caches.clusterKillSwitches.onChange(({ object }) => controller.enqueue(object.metadata.name));
  caches.namespaces.onChange(enqueueAll);
  const enqueueByWorkflow = (): void => {
    for (const one of caches.clusterKillSwitches.store.list()) {
      if (isByWorkflow(one)) controller.enqueueAfter(one.metadata.name, countsDelayMs);
    }
  };
  caches.killSwitches.onChange(({ object }) => {
    const of = object.metadata.labels?.[label.clusterKillSwitch];
    if (object.metadata.name === wholeNamespaceName) enqueueAll();
    else if (of !== undefined) controller.enqueueAfter(of, countsDelayMs);
    else enqueueByWorkflow();
  });
  caches.workflows.onChange(({ type, object, previous }) => {
    if (type === 'updated' && object.metadata.generation === previous?.metadata.generation) return;
    for (const one of caches.clusterKillSwitches.store.list()) {
      if (isByWorkflow(one)) controller.enqueue(one.metadata.name);
    }
  });
}

function isAskedForTheSame(before: KillSwitch, after: KillSwitch): boolean {
  return (
    isDeepStrictEqual(before.metadata.annotations, after.metadata.annotations) &&
    isDeepStrictEqual(before.metadata.labels, after.metadata.labels)
  );
}

/** Time in which changes of counts are gathered. */
const countsDelayMs = 1_000;

/** Time after which the API server's own authorizer has heard of a ClusterRole, too. */
const grantableDelayMs = 1_000;

/** What the leader does. @returns runs it until the signal aborts */
function wireLed(
  caches: Caches,
  {
    identity,
    workflow,
    approval,
    guardrailPolicy,
    policy,
    revisions,
    fence,
    metrics,
    mutation,
    evidence,
    hosts,
    refused,
  }: {
    identity: Controller;
    workflow: Controller;
    approval: Controller;
    guardrailPolicy: Controller;
    policy: PolicyInForce;
    revisions: Controller;
    fence: Controller;
    metrics: Metrics;
    mutation: Mutation;
    evidence: EvidenceRecorder | undefined;
    hosts: HostResolver;
    refused: RefusedConnections | undefined;
  },
): (signal: AbortSignal) => Promise<void> {
  const enqueueAll = (controller: Controller, keys: Iterable<string>): void => {
    for (const key of keys) controller.enqueue(key);
  };
  const { workflows, identities, killSwitches, namespaces, pods } = caches;
  /** What has to be approved concerns all three. */
  const enqueueApproved = (keys: readonly string[]): void => {
    enqueueAll(workflow, keys);
    enqueueAll(revisions, keys);
    const ofApproval = keys.filter((key) => {
      const known = workflows.store.get(key);
      return known === undefined || policy.approvalsOf(known) > 0;
    });
    enqueueAll(approval, ofApproval);
    enqueueAll(identity, ofApproval);
  };
  workflows.onChange(({ object, previous }) => {
    const keys = workflowKeysFor.workflow(object);
    enqueueAll(workflow, keys);
    enqueueAll(approval, keys);
    enqueueAll(revisions, keys);
    // Its need may have gone, or come.
    if (object.metadata.generation !== previous?.metadata.generation) enqueueAll(identity, keys);
  });
  caches.approvals.onChange(({ object }) => enqueueApproved(workflowOfApproval(object)));
  // Who changed it before says who may approve it.
  caches.revisions.onChange(({ object }) => enqueueApproved(workflowOfRevision(object)));
  pods.onChange(({ object }) => enqueueAll(approval, keysForPod(object)));
  identities.onChange(({ object }) => {
    enqueueAll(approval, identityKeysFor.identity(object));
    enqueueAll(identity, identityKeysFor.identity(object));
    enqueueAll(workflow, workflowKeysFor.identity(object));
    enqueueAll(revisions, workflowKeysFor.identity(object));
  });
  killSwitches.onChange(({ object }) => {
    enqueueAll(identity, identityKeysFor.killSwitch(object, identities.store));
    enqueueAll(workflow, workflowKeysFor.killSwitch(object, workflows.store));
    enqueueAll(approval, workflowKeysFor.killSwitch(object, workflows.store));
  });
  namespaces.onChange(({ object }) => {
    enqueueAll(identity, identityKeysFor.namespace(object, identities.store));
    enqueueAll(workflow, workflowKeysFor.namespace(object, workflows.store));
    enqueueAll(revisions, workflowKeysFor.namespace(object, workflows.store));
  });
  wireGuardrailPolicy(caches, { identity, workflow, approval, guardrailPolicy });
  caches.accessReviews.onChange(({ object }) =>
    enqueueAll(identity, identityKeysFor.accessReview(object)),
  );
  for (const children of [caches.serviceAccounts, caches.roles, caches.roleBindings]) {
    children.onChange(({ object }) => enqueueAll(identity, identityKeysFor.child(object)));
  }
  const bindings = {
    roleBindings: caches.roleBindings.store,
    clusterRoleBindings: caches.clusterRoleBindings.store,
  };
  for (const cache of [caches.roleBindings, caches.clusterRoleBindings]) {
    cache.onChange(({ object, previous }) => {
      for (const binding of previous === undefined ? [object] : [object, previous]) {
        enqueueAll(identity, identityKeysFor.binding(binding, identities.store));
      }
    });
  }
  for (const cache of [caches.roles, caches.clusterRoles]) {
    cache.onChange(({ object }) =>
      enqueueAll(identity, identityKeysFor.role(object, bindings, identities.store)),
    );
  }
  caches.networkPolicies.onChange((change) =>
    enqueueAll(workflow, workflowKeysFor.networkPolicy(change, workflows.store)),
  );
  caches.pods.onChange((change) =>
    enqueueAll(
      workflow,
      workflowKeysFor.pod(change, workflows.store, caches.networkPolicies.store),
    ),
  );
  mutation.onChange(() => enqueueAll(workflow, [...workflows.store.list()].map(keyOf)));
  let peers = namedPeersIn(caches);
  for (const cache of Object.values(caches.peers)) {
    cache.onChange(() => {
      const before = peers;
      peers = namedPeersIn(caches);
      // Pods of the DNS come and go; what they are found by stays.
      const isOfAll = !isDeepStrictEqual(peers.DNS, before.DNS);
      if (!isOfAll && isDeepStrictEqual(peers.KubeAPI, before.KubeAPI)) return;
      for (const object of workflows.store.list()) {
        if (isOfAll || usesKubeAPI(object)) workflow.enqueue(keyOf(object));
      }
    });
  }
  refused?.onChange(() => enqueueAll(workflow, [...workflows.store.list()].map(keyOf)));
  hosts.onChange((host) =>
    enqueueAll(workflow, workflows.store.byIndex('resolvedHost', host).map(keyOf)),
  );
  for (const cache of caches.plugIn) {
    cache.onChange(({ object }) => enqueueAll(workflow, plugInKeys(object)));
    cache.onServed(() =>
      enqueueAll(workflow, [...workflows.store.list()].filter(usesHosts).map(keyOf)),
    );
  }
  for (const cache of caches.workloads) {
    // Jobs of rotation hooks.
    cache.onChange(({ object }) => enqueueAll(identity, identityKeysFor.child(object)));
    cache.onChange((change) => {
      const keys = workflowKeysFor.workload(change, workflows.store);
      if (!isOfCountsAlone(change)) enqueueApproved(keys);
      else for (const key of keys) workflow.enqueueAfter(key, countsDelayMs);
    });
  }
  caches.clusterRoles.onChange(({ object }) => {
    for (const key of identityKeysFor.grantable(object, identities.store)) {
      identity.enqueueAfter(key, grantableDelayMs);
    }
  });
  for (const cache of caches.optional) {
    cache.onVisibility(() => enqueueAll(identity, [...identities.store.list()].map(keyOf)));
  }
  return async (signal) => {
    await Promise.all([
      identity.run(signal, [...caches.identities.store.list()].map(keyOf)),
      // What isn't known yet would look as if it could not be looked up.
      lookedUp(caches, mutation, signal).then(() =>
        workflow.run(signal, [...workflows.store.list()].map(keyOf)),
      ),
      approval.run(signal, approvalKeys(caches)),
      guardrailPolicy.run(signal, [policyInForceName]),
      revisions.run(signal, [...workflows.store.list()].map(keyOf)),
      fence.run(signal, [fenceInForceKey]),
      evidence?.lead(signal),
      refused?.run(signal),
    ]);
    metrics.forgetObjects();
  };
}

/** Objects that a change of the policy has looked at in a second. */
const reviewedPerSecond = 500;

/** A change of the policy concerns everything, and no one object is in a hurry. */
function wireGuardrailPolicy(
  { guardrailPolicies, workflows, identities }: Caches,
  {
    identity,
    workflow,
    approval,
    guardrailPolicy,
  }: Record<'identity' | 'workflow' | 'approval' | 'guardrailPolicy', Controller>,
): void {
  guardrailPolicies.onChange(({ object, previous }) => {
    guardrailPolicy.enqueue(object.metadata.name);
    if (isDeepStrictEqual(object.spec, previous?.spec)) return;
    const spread = (objects: Iterable<KubeObject>, controllers: readonly Controller[]): void => {
      [...objects].forEach((one, index) => {
        const delayMs = Math.floor((index * 1_000) / reviewedPerSecond);
        for (const controller of controllers) controller.enqueueAfter(keyOf(one), delayMs);
      });
    };
    spread(workflows.store.list(), [workflow, approval]);
    spread(identities.store.list(), [identity]);
  });
  const isOther = (
    before: readonly Condition[] | undefined,
    after: readonly Condition[] | undefined,
  ): boolean => isTrue(before, 'PolicyViolation') !== isTrue(after, 'PolicyViolation');
  for (const cache of [workflows, identities]) {
    cache.onChange(({ type, object, previous }: Change<Workflow | AutomationIdentity>) => {
      const now = type === 'deleted' ? undefined : object.status?.conditions;
      const before = type === 'deleted' ? object.status?.conditions : previous?.status?.conditions;
      if (isOther(before, now)) guardrailPolicy.enqueueAfter(policyInForceName, countsDelayMs);
    });
  }
}

/** Of every Workflow, and of those that decisions are left of. */
function approvalKeys({ workflows, approvals }: Caches): Iterable<string> {
  return new Set([
    ...[...workflows.store.list()].map(keyOf),
    ...[...approvals.store.list()].flatMap(workflowOfApproval),
  ]);
}

/** Longest wait for what Workflows can do without. */
const knownWithinMs = 5_000;

/** Until named peers were looked up and admission was asked what it does, or the time is over. */
async function lookedUp(
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

function* killSwitchStates({ killSwitches }: Caches): Iterable<KillSwitchState> {
  for (const { metadata, status } of killSwitches.store.list()) {
    if (metadata.namespace === PROBE_NAMESPACE) continue;
    if (isReleasing({ metadata })) yield 'releasing';
    else yield isTrue(status?.conditions, 'Ready') ? 'stopped' : 'engaged';
  }
}

function staleCaches({ all }: Caches, limitMs: number): string[] {
  return all
    .filter(({ stalenessMs }) => stalenessMs > limitMs)
    .map(({ resource }) => `nothing heard of ${resource.plural} for too long`);
}

function unreadyCaches({ all }: Caches): string[] {
  return all.flatMap(({ resource: { plural }, hasSynced, isForbidden }) => {
    // What is known grows old, and nothing of it can be told from what is true.
    if (isForbidden) return [`the API server forbids to list or watch ${plural}`];
    return hasSynced ? [] : [`${plural} are not listed yet`];
  });
}
