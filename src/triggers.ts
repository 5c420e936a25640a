/** Which change of what brings which object back to which controller. */
import { isDeepStrictEqual } from 'node:util';
import type { AutomationIdentity } from './api/automation-identity.ts';
import { isTrue } from './api/conditions.ts';
import { policyInForceName } from './api/guardrail-policy.ts';
import { wholeNamespaceName, type KillSwitch } from './api/kill-switch.ts';
import { label } from './api/names.ts';
import { keyOf, splitKey, type Condition, type KubeObject } from './api/objects.ts';
import type { Workflow } from './api/workflow.ts';
import { keysForPod } from './controllers/approval.ts';
import { keysFor as identityKeysFor } from './controllers/automation-identity.ts';
import { fenceInForceKey } from './controllers/fence-in-force.ts';
import type { LeftCopies } from './controllers/left-copies.ts';
import type { PolicyInForce } from './controllers/policy-in-force.ts';
import {
  countsDelayMs,
  isOfCountsAlone,
  keysFor as workflowKeysFor,
} from './controllers/workflow.ts';
import {
  mayCount,
  workflowOfApproval,
  workflowOfRevision,
} from './controllers/workflow-approval.ts';
import { policyIndexes, usesHosts, usesKubeAPI } from './controllers/workflow-indexes.ts';
import { keysOfLeft, policiesOf } from './controllers/workflow-policies.ts';
import type { HostResolver } from './guardrails/egress/host-resolver.ts';
import type { RefusedConnections } from './guardrails/egress/refused.ts';
import { changedForOthers, plugInKeys } from './guardrails/egress/plug-in-policies.ts';
import type { EvidenceRecorder } from './evidence/recorder.ts';
import type { Mutation } from './guardrails/kill-switch/mutation.ts';
import { isByWorkflow } from './guardrails/kill-switch/cluster.ts';
import { isEngaging, isLeaving } from './guardrails/kill-switch/plan.ts';
import type { GoneRuns } from './guardrails/limits/gone-runs.ts';
import { fieldOf } from './guardrails/requirements.ts';
import { ownerOf, type CopyLedger } from './guardrails/secret-store/ledger.ts';
import type { Metrics } from './observability/metrics.ts';
import type { Controller } from './runtime/controller.ts';
import type { Change } from './runtime/list-watch.ts';
import { namedPeersIn, lookedUp, type Caches } from './caches.ts';
import { keysIn } from './runtime/store.ts';

/** Every replica works on kills, from the moment its caches are synced. */
export function wireKillSwitch(caches: Caches, controller: Controller): void {
  const { killSwitches, workflows, identities, namespaces, pods } = caches;
  const enqueueCovering = (namespace: string, serviceAccountName: string): void => {
    for (const name of [serviceAccountName, wholeNamespaceName]) {
      const key = `${namespace}/${name}`;
      if (killSwitches.store.get(key) !== undefined) controller.enqueueEcho(key);
    }
  };
  killSwitches.onChange(({ type, object, previous }) => {
    const key = keyOf(object);
    const isEcho =
      type === 'updated' && previous !== undefined && isAskedForTheSame(previous, object);
    // What differs is the status alone: the controller's own word.
    if (isEcho) controller.enqueueEcho(key);
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
      for (const key of keysIn(killSwitches.store)) controller.enqueue(key);
    });
  }
  for (const cache of caches.workloads) {
    cache.onChange(({ object }) =>
      enqueueCovering(object.metadata.namespace, object.serviceAccountName),
    );
  }
}

function killSwitchesIn({ store }: Caches['killSwitches'], namespace: string): string[] {
  return keysIn(store).filter((key) => splitKey(key).namespace === namespace);
}

/** Every replica remembers them: one that comes to lead counts what went since the last count. */
export function wireGoneRuns({ workloads, workflows }: Caches, goneRuns: GoneRuns): void {
  for (const cache of workloads) {
    cache.onChange(({ type, object }) => {
      if (type !== 'deleted' || object.kind !== 'Job') return;
      const key = `${object.metadata.namespace}/${object.serviceAccountName}`;
      if (fieldOf(workflows.store.get(key)?.spec, 'limits') !== undefined) goneRuns.add(object);
    });
  }
}

/** What may have to be stopped or released when the operator starts. */
export function* killSwitchKeys(caches: Caches): Iterable<string> {
  const { killSwitches, workflows, identities, namespaces } = caches;
  for (const killSwitch of killSwitches.store.list()) yield keyOf(killSwitch);
  for (const carriers of [workflows, identities]) {
    for (const carrier of carriers.store.list()) if (isEngaging(carrier)) yield keyOf(carrier);
  }
  for (const namespace of namespaces.store.list()) {
    if (isEngaging(namespace)) yield `${namespace.metadata.name}/${wholeNamespaceName}`;
  }
}

/** Names of all ClusterKillSwitches. */
export function clusterKeys({ clusterKillSwitches }: Caches): string[] {
  return keysIn(clusterKillSwitches.store);
}

/** Few stand at any time, so that each is looked at for every change that could concern one. */
export function wireClusterKillSwitch(caches: Caches, controller: Controller): void {
  const enqueueClusterKills = (): void => {
    for (const key of clusterKeys(caches)) controller.enqueue(key);
  };
  caches.clusterKillSwitches.onChange(({ object }) => controller.enqueue(object.metadata.name));
  caches.namespaces.onChange(enqueueClusterKills);
  const enqueueByWorkflow = (delayMs: number): void => {
    for (const one of caches.clusterKillSwitches.store.list()) {
      if (isByWorkflow(one)) controller.enqueueAfter(one.metadata.name, delayMs);
    }
  };
  caches.killSwitches.onChange(({ object }) => {
    const of = object.metadata.labels?.[label.clusterKillSwitch];
    if (object.metadata.name === wholeNamespaceName) enqueueClusterKills();
    else if (of !== undefined) controller.enqueueAfter(of, countsDelayMs);
    // Its release is taken over.
    else enqueueByWorkflow(isLeaving(object) ? 0 : countsDelayMs);
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

/** Time after which the API server's own authorizer has heard of a ClusterRole, too. */
const grantableDelayMs = 1_000;

/** What works while this replica leads, and whom it tells. */
export interface Led {
  identity: Controller;
  workflow: Controller;
  approval: Controller;
  guardrailPolicy: Controller;
  policy: PolicyInForce;
  revisions: Controller;
  outOfReach: Controller;
  fence: Controller;
  metrics: Metrics;
  mutation: Mutation;
  evidence: EvidenceRecorder | undefined;
  hosts: HostResolver;
  refused: RefusedConnections | undefined;
  copyLedger: CopyLedger;
  leftCopies: LeftCopies;
}

/** What the leader does. @returns runs it until the signal aborts */
export function wireLed(caches: Caches, led: Led): (signal: AbortSignal) => Promise<void> {
  const { identity, workflow, approval, revisions, mutation, refused } = led;
  const enqueueAll = (controller: Controller, keys: Iterable<string>, delayMs = 0): void => {
    for (const key of keys) controller.enqueueAfter(key, delayMs);
  };
  const { workflows, identities, killSwitches, namespaces, pods } = caches;
  /** What has to be approved concerns all three. */
  const enqueueApproved = (keys: readonly string[], delayMs = 0): void => {
    enqueueAll(workflow, keys, delayMs);
    enqueueAll(revisions, keys, delayMs);
    const ofApproval = keys.filter((key) => {
      const known = workflows.store.get(key);
      return known === undefined || led.policy.approvalsOf(known) > 0;
    });
    enqueueAll(approval, ofApproval, delayMs);
    enqueueAll(identity, ofApproval, delayMs);
  };
  workflows.onChange(({ type, object, previous }) => {
    const keys = workflowKeysFor.workflow(object);
    const isSame =
      type === 'updated' && object.metadata.generation === previous?.metadata.generation;
    enqueueAll(workflow, keys);
    enqueueAll(approval, keys);
    enqueueAll(revisions, keys);
    // Its need may have gone, or come.
    if (!isSame) enqueueAll(identity, keys);
  });
  caches.approvals.onChange(({ type, object }) => {
    for (const key of workflowOfApproval(object)) {
      // What counts no more goes by the hundred: one look is enough for many.
      const isLeftover = type === 'deleted' && !mayCount(object, workflows.store.get(key));
      enqueueApproved([key], isLeftover ? countsDelayMs : 0);
    }
  });
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
  for (const cache of [workflows, identities, killSwitches]) {
    cache.onChange(({ object }: Change<KubeObject>) => led.outOfReach.enqueue(keyOf(object)));
  }
  wireGuardrailPolicy(caches, led);
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
    enqueueAll(workflow, workflowKeysFor.pod(change, workflows.store, policiesOf(caches))),
  );
  mutation.onChange(() => enqueueAll(workflow, keysIn(workflows.store)));
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
  refused?.onChange(() => enqueueAll(workflow, keysIn(workflows.store)));
  led.hosts.onChange((host) =>
    enqueueAll(workflow, workflows.store.byIndex('resolvedHost', host).map(keyOf)),
  );
  for (const cache of caches.plugIn) {
    cache.onChange((change) => {
      const { object } = change;
      enqueueAll(workflow, plugInKeys(object));
      for (const namespace of changedForOthers(change)) {
        const concerned =
          namespace === ''
            ? [...workflows.store.list()]
            : workflows.store.byIndex('namespace', namespace);
        for (const one of concerned) workflow.enqueueAfter(keyOf(one), countsDelayMs);
      }
    });
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
    cache.onVisibility(() => enqueueAll(identity, keysIn(identities.store)));
  }
  return async (signal) => {
    await Promise.all([
      identity.run(signal, keysIn(identities.store)),
      // What isn't known yet would look as if it could not be looked up.
      lookedUp(caches, mutation, signal).then(() => workflow.run(signal, workflowKeys(caches))),
      approval.run(signal, approvalKeys(caches)),
      led.guardrailPolicy.run(signal, [policyInForceName]),
      revisions.run(signal, keysIn(workflows.store)),
      led.outOfReach.run(
        signal,
        [workflows, identities, killSwitches].flatMap(({ store }) => keysIn(store)),
      ),
      led.fence.run(signal, [fenceInForceKey]),
      led.evidence?.lead(signal),
      refused?.run(signal),
      led.copyLedger.run(signal, () =>
        enqueueAll(identity, new Set(led.leftCopies.list().map(({ key }) => ownerOf(key)))),
      ),
    ]);
    led.metrics.forgetObjects();
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
  }: Pick<Led, 'identity' | 'workflow' | 'approval' | 'guardrailPolicy'>,
): void {
  guardrailPolicies.onChange(({ type, object, previous }) => {
    guardrailPolicy.enqueue(object.metadata.name);
    if (type === 'updated' && isDeepStrictEqual(object.spec, previous?.spec)) return;
    const spread = (objects: Iterable<KubeObject>, controllers: readonly Controller[]): void => {
      [...objects].forEach((one, index) => {
        const delayMs = Math.floor((index * 1_000) / reviewedPerSecond);
        for (const controller of controllers) controller.enqueueAfter(keyOf(one), delayMs);
      });
    };
    spread(workflows.store.list(), [workflow, approval]);
    spread(identities.store.list(), [identity]);
  });
  const violationChanged = (
    before: readonly Condition[] | undefined,
    after: readonly Condition[] | undefined,
  ): boolean => isTrue(before, 'PolicyViolation') !== isTrue(after, 'PolicyViolation');
  for (const cache of [workflows, identities]) {
    cache.onChange(({ type, object, previous }: Change<Workflow | AutomationIdentity>) => {
      const now = type === 'deleted' ? undefined : object.status?.conditions;
      const before = type === 'deleted' ? object.status?.conditions : previous?.status?.conditions;
      if (violationChanged(before, now)) {
        guardrailPolicy.enqueueAfter(policyInForceName, countsDelayMs);
      }
    });
  }
}

/** Of every Workflow, and of those that policies are left of. */
function workflowKeys(caches: Caches): Iterable<string> {
  return new Set([...keysIn(caches.workflows.store), ...keysOfLeft(caches)]);
}

/** Of every Workflow, and of those that decisions are left of. */
function approvalKeys({ workflows, approvals }: Caches): Iterable<string> {
  return new Set([
    ...keysIn(workflows.store),
    ...[...approvals.store.list()].flatMap(workflowOfApproval),
  ]);
}
