/** Composition root: everything is wired here, and nowhere else. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { isTrue } from './api/conditions.ts';
import { PROBE_NAMESPACE } from './api/names.ts';
import { keyOf } from './api/objects.ts';
import type { Config } from './config.ts';
import { ApprovalController } from './controllers/approval.ts';
import { AutomationIdentityController } from './controllers/automation-identity.ts';
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
import { OutOfReachController } from './controllers/out-of-reach.ts';
import { Reach } from './controllers/reach.ts';
import { WorkflowController } from './controllers/workflow.ts';
import { countRuns } from './controllers/run-counts.ts';
import { Departures } from './controllers/offboarding.ts';
import { RevisionController } from './controllers/revisions.ts';
import { WorkflowApprovals } from './controllers/workflow-approval.ts';
import { askDns, HostResolver } from './guardrails/egress/host-resolver.ts';
import { RefusedConnections } from './guardrails/egress/refused.ts';
import { EgressTeardown } from './guardrails/egress/teardown.ts';
import { PlugInPolicies } from './guardrails/egress/plug-in-policies.ts';
import { isOfCluster } from './guardrails/egress/named-peers.ts';
import { driftMessage } from './evidence/operator-facts.ts';
import { EvidenceRecorder } from './evidence/recorder.ts';
import { foreignKinds, type ForeignKind } from './guardrails/kill-switch/foreign-kinds.ts';
import { RevokedTokens } from './guardrails/credentials/revoked-tokens.ts';
import { StoredPolicies } from './guardrails/fence-in-force/stored-policies.ts';
import { Mutation } from './guardrails/kill-switch/mutation.ts';
import {
  adaptivePausing,
  pausingByAdmission,
  pausingByPatch,
} from './guardrails/kill-switch/pausing.ts';
import { isReleasing, killSwitchOver } from './guardrails/kill-switch/plan.ts';
import { GoneRuns } from './guardrails/limits/gone-runs.ts';
import { attentionOf } from './observability/attention.ts';
import { EventRecorder } from './observability/events.ts';
import { HealthServer } from './observability/health.ts';
import type { Logger } from './observability/logger.ts';
import { RunTally } from './observability/run-tally.ts';
import { Metrics, type KillSwitchState } from './observability/metrics.ts';
import { aborted } from './runtime/aborted.ts';
import { Applier } from './runtime/applier.ts';
import { ApiServerClient } from './runtime/client.ts';
import { Controller } from './runtime/controller.ts';
import { PooledKubeConfig } from './runtime/kube-config.ts';
import { guardedByLeadership, LeaderElector } from './runtime/leader-election.ts';
import { mergeStores } from './runtime/merged-store.ts';
import { OperatorHost } from './runtime/operator-host.ts';
import { askPrometheus } from './runtime/prometheus.ts';
import { StatusWriter } from './runtime/status-writer.ts';
import { createSecretStore } from './guardrails/secret-store/create.ts';
import { CopyLedger } from './guardrails/secret-store/ledger.ts';
import { version } from './version.ts';
import {
  createCaches,
  namedPeersIn,
  haveSynced,
  staleCaches,
  unreadyCaches,
  type Caches,
} from './caches.ts';
import {
  wireKillSwitch,
  wireGoneRuns,
  killSwitchKeys,
  clusterKeys,
  wireClusterKillSwitch,
  wireLed,
} from './triggers.ts';

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
  const requester = new RequesterRights(leading, clock);
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
  const reach = new Reach(config);
  const accepts = (key: string): boolean => isNotOfProbe(key) && reach.coversKey(key);
  const departures = new Departures();
  caches.identities.onChange(({ type, object }) => {
    if (type === 'deleted' && reach.coversKey(keyOf(object))) departures.add(object);
  });
  const { hubblePrometheus: base } = config;
  const refused =
    base === undefined
      ? undefined
      : new RefusedConnections({
          query: (query, signal) =>
            askPrometheus({ base, endpoint: 'query', parameters: { query }, signal }),
          logger,
        });
  const revokedTokens = new RevokedTokens({ clock });
  const secretStore = createSecretStore(config.vault, {
    client: leading,
    userAgent,
    clock,
    log: logger,
  });
  const copyLedger = new CopyLedger({
    client: leading,
    namespace: config.operatorNamespace,
    logger,
  });
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
      operatorNamespace: config.operatorNamespace,
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
    accepts,
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
      covers: (namespace) => reach.covers(namespace),
      operatorNamespace: config.operatorNamespace,
      ...(evidence !== undefined && {
        keepEvidence: (kill, signal) => evidence.keepKill(kill, signal),
      }),
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
    accepts,
    behind: killSwitch,
    workers: config.workers,
    shutdownMs: config.shutdownTimeoutMs,
    metrics,
    logger,
  };
  const identityReconciler = new AutomationIdentityController({
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
    copyLedger,
    departures,
  });
  const { leftCopies } = identityReconciler;
  const identity = new Controller({ reconciler: identityReconciler, ...behindKills });
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
      teardown: new EgressTeardown({
        client: leading,
        applier,
        events,
        metrics,
        identities: caches.identities.store,
        networkPolicies: caches.networkPolicies.store,
        pods: caches.pods.store,
        plugIn,
        isKilled: (key) => killSwitchOver(caches.killSwitches.store, key) !== undefined,
        clock,
      }),
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

  const outOfReach = new Controller({
    reconciler: new OutOfReachController({
      client: leading,
      statusWriter,
      metrics,
      workflows: caches.workflows.store,
      identities: caches.identities.store,
      killSwitches: caches.killSwitches.store,
      namespaces: caches.namespaces.store,
      workloads,
      pods: caches.pods.store,
      clock,
    }),
    ...behindKills,
    accepts: (key) => isNotOfProbe(key) && !reach.coversKey(key),
    workers: 2,
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
    outOfReach,
    fence,
    metrics,
    mutation,
    evidence,
    hosts,
    refused,
    copyLedger,
    leftCopies,
  });
  metrics.observe({
    remainingCopies: () => leftCopies.list().length,
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
    // A kind that is gone isn't cured by a restart, which would stop kills for want of it.
    live: () => staleCaches(caches.forKills, config.watchStaleAfterMs),
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

async function whenTrue(condition: Promise<boolean>, run: () => Promise<void>): Promise<void> {
  if (await condition) await run();
}

/** Requests for evidence in flight at a time: they hold nothing else up. */
const evidenceConnections = 8;

/** How often it is asked whether admission rewrites requests: a cluster is upgraded under us. */
const mutationCheckMs = 60_000;

function* killSwitchStates({ killSwitches }: Caches): Iterable<KillSwitchState> {
  for (const { metadata, status } of killSwitches.store.list()) {
    if (metadata.namespace === PROBE_NAMESPACE) continue;
    if (isReleasing({ metadata })) yield 'releasing';
    else yield isTrue(status?.conditions, 'Ready') ? 'stopped' : 'engaged';
  }
}
