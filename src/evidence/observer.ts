import { canary } from '../admission/index.ts';
import type { AccessReview } from '../api/access-review.ts';
import type { Approval } from '../api/approval.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { ClusterKillSwitch } from '../api/cluster-kill-switch.ts';
import { clusterChain } from '../api/evidence-segment.ts';
import { policyInForceName, type GuardrailPolicy } from '../api/guardrail-policy.ts';
import { wholeNamespaceName, type KillSwitch } from '../api/kill-switch.ts';
import { label, MANAGED_BY, PROBE_NAMESPACE } from '../api/names.ts';
import {
  keyOf,
  splitKey,
  stampOf,
  type KubeObject,
  type Namespace,
  type NetworkPolicy,
  type Pod,
  type Role,
  type RoleBinding,
} from '../api/objects.ts';
import { resources, type Resource } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import type { WorkflowRevision } from '../api/workflow-revision.ts';
import type { Workload } from '../api/workload.ts';
import { isPerRun } from '../guardrails/approval/plan.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { Drift } from '../runtime/drift.ts';
import type { Change, Informer } from '../runtime/list-watch.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { Action } from './actions.ts';
import { credentialFacts, rotationRequests } from './credential-facts.ts';
import {
  approvalFact,
  decisionFacts,
  findingFacts,
  reviewFact,
  specFacts,
  specGone,
  type SpecKind,
} from './facts.ts';
import {
  admissionFacts,
  clusterFact,
  driftFact,
  policyFacts,
  toldFact,
  versionFact,
  type Told,
} from './operator-facts.ts';
import { egressFact, egressFacts, permissionFacts } from './right-facts.ts';
import { Keeping } from './keeping.ts';
import { killFacts, killGone, killsFacts } from './kill-facts.ts';
import { placeOf, type Place } from './drafts.ts';
import { revisionFacts } from './revision-facts.ts';
import { allRuns, hasNews, runFacts, runGone, type Run, type RunContext } from './run-facts.ts';
import type { EvidenceLog } from './log.ts';
import type { Fact, Observation } from './observation.ts';
import type { Actor } from './record.ts';

type Cache<T extends KubeObject> = Pick<Informer<T>, 'store' | 'onChange'>;

export interface EvidenceCaches {
  workflows: Cache<Workflow>;
  identities: Cache<AutomationIdentity>;
  killSwitches: Cache<KillSwitch>;
  clusterKillSwitches: Cache<ClusterKillSwitch>;
  guardrailPolicies: Cache<GuardrailPolicy>;
  /** Indexed by `workflow`. */
  approvals: Cache<Approval>;
  /** Indexed by `workflow`. */
  revisions: Cache<WorkflowRevision>;
  /** Indexed by `identity`. */
  accessReviews: Cache<AccessReview>;
  namespaces: Cache<Namespace>;
  roles: Cache<Role>;
  roleBindings: Cache<RoleBinding>;
  networkPolicies: Cache<NetworkPolicy>;
  pods: Cache<Pod>;
  workloadCaches: readonly Cache<Workload>[];
  /** Indexed by `identity`. */
  workloads: IndexedStore<Workload>;
  /** Admission policies and bindings; those of others have no spec. */
  policies: readonly (Cache<KubeObject & { spec?: unknown }> & {
    resource: Resource;
    hasSynced: boolean;
  })[];
}

export interface EvidenceObserverOptions {
  client: Pick<KubeClient, 'get'>;
  log: Pick<EvidenceLog, 'observe' | 'settle' | 'forget'>;
  caches: EvidenceCaches;
  /** Namespace of the cluster's chain. */
  operatorNamespace: string;
  /** Name of this replica. */
  instance: string;
  version: string;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Tells the evidence log what the caches see. The leader tells everything; each replica tells what
 * it alone knows, and what it is about to take away.
 */
export class EvidenceObserver {
  readonly #options: EvidenceObserverOptions;
  readonly #cluster: string;
  #isTelling = false;
  /** Kills, by UID. */
  readonly #keeping: Keeping;

  constructor(options: EvidenceObserverOptions) {
    this.#options = options;
    this.#keeping = new Keeping({ clock: options.clock });
    this.#cluster = `${options.operatorNamespace}/${clusterChain}`;
    this.#follow();
  }

  /** Something of the operator itself. @param state what it is now; told again when it differs */
  operator(
    subject: string,
    state: string,
    action: Action,
    details: Record<string, string> = {},
  ): void {
    this.#options.log.observe(this.#cluster, clusterFact(subject, state, action, details));
  }

  /** What a controller told as an event, and no object keeps. */
  told(told: Told): void {
    const observation = toldFact(told, this.#options.clock());
    if (observation !== undefined) this.#options.log.observe(keyOf(told.about), observation);
  }

  /** An object of an automation that somebody changed, and that was repaired. */
  drifted(drift: Drift): void {
    const { name } = drift.owner;
    const key = `${drift.object.metadata.namespace ?? ''}/${name}`;
    this.#options.log.observe(key, driftFact(drift, this.#placeOf(key), this.#options.clock()));
  }

  /**
   * Writes what a kill says, before its release takes that away.
   *
   * @returns whether the release may go on, by {@link Keeping}
   */
  async keepKill(
    killSwitch: KillSwitch | ClusterKillSwitch,
    signal: AbortSignal,
  ): Promise<boolean> {
    const { log } = this.#options;
    const { uid = '', namespace } = killSwitch.metadata;
    const isOfCluster = namespace === undefined;
    const key = isOfCluster ? this.#cluster : keyOf(killSwitch);
    const { facts } = killFacts(killSwitch, isOfCluster ? {} : this.#placeOf(key));
    const standing = facts.map((fact) => ({
      ...fact,
      // The leader may have told the end of it before this is written.
      draft: async (before: string | undefined) =>
        (await this.#stands(killSwitch)) ? fact.draft(before) : undefined,
    }));
    log.observe(key, { facts: standing, onlyNew: true });
    return await this.#keeping.mayGoOn(uid, () => log.settle(key, signal));
  }

  async #stands({ metadata }: KillSwitch | ClusterKillSwitch): Promise<boolean> {
    const { client } = this.#options;
    const { namespace, name, uid } = metadata;
    const found =
      namespace === undefined
        ? await client.get(resources.clusterKillSwitches, { name })
        : await client.get(resources.killSwitches, { namespace, name });
    return found?.metadata.uid === uid;
  }

  /** Tells everything that stands, and then every change, until the signal aborts. */
  lead(signal: AbortSignal): void {
    const { instance, clock, caches } = this.#options;
    this.#isTelling = true;
    signal.addEventListener('abort', () => (this.#isTelling = false), { once: true });
    this.operator('leader', `${instance} ${clock()}`.slice(-120), 'LeaderChanged', { instance });
    const keys = new Set<string>();
    for (const { store } of [caches.workflows, caches.identities, caches.killSwitches]) {
      for (const object of store.list()) keys.add(keyOf(object));
    }
    for (const key of keys) this.#sweep(key);
    this.#tell(this.#cluster, killsFacts([...caches.clusterKillSwitches.store.list()], {}));
    this.#tell(this.#cluster, versionFact(this.#options.version));
    for (const { resource, store, hasSynced } of caches.policies) {
      const ours = [...store.list()].filter(({ spec }) => spec !== undefined);
      this.#tell(this.#cluster, admissionFacts(resource, ours, hasSynced));
    }
    const policy = caches.guardrailPolicies.store.get(policyInForceName);
    if (policy !== undefined) this.#policy('added', policy);
    else this.#tell(this.#cluster, specGone('GuardrailPolicy', {}));
  }

  #follow(): void {
    const { caches } = this.#options;
    const { workflows, identities, killSwitches, roles, roleBindings } = caches;
    this.#on(workflows, ({ type, object }) => this.#spec('Workflow', type, object));
    this.#on(identities, ({ type, object }) => {
      this.#spec('AutomationIdentity', type, object);
      if (type === 'deleted') return;
      this.#credentials(object);
    });
    this.#on(killSwitches, ({ type, object }) => {
      const key = keyOf(object);
      if (key === `${PROBE_NAMESPACE}/${canary.killSwitch}`) {
        if (type !== 'deleted') this.#tell(this.#cluster, policyFacts(object));
        return;
      }
      const place = this.#placeOf(key);
      this.#tell(key, killFacts(object, place));
      if (type === 'deleted') this.#tell(key, killGone(object, place));
    });
    this.#on(caches.clusterKillSwitches, ({ type, object }) => {
      this.#tell(this.#cluster, killFacts(object, {}));
      if (type === 'deleted') this.#tell(this.#cluster, killGone(object, {}));
    });
    this.#on(caches.guardrailPolicies, ({ type, object }) => this.#policy(type, object));
    this.#on(caches.approvals, ({ type, object }) => {
      const key = `${object.metadata.namespace ?? ''}/${object.spec.workflow}`;
      this.#decision(key, type, approvalFact(object, this.#placeOf(key)));
    });
    this.#on(caches.revisions, ({ type, object }) => {
      if (type === 'deleted') return;
      const key = `${object.metadata.namespace ?? ''}/${object.spec.workflow}`;
      this.#tell(key, revisionFacts([object], this.#placeOf(key)));
    });
    this.#on(caches.accessReviews, ({ type, object }) => {
      const key = `${object.metadata.namespace ?? ''}/${object.spec.identity}`;
      this.#decision(key, type, reviewFact(object, this.#placeOf(key)));
    });
    for (const cache of [roles, roleBindings]) {
      this.#on<KubeObject>(cache, ({ object: { metadata } }) => {
        if (metadata.labels?.[label.identity] !== metadata.name) return;
        this.#permissions(`${metadata.namespace ?? ''}/${metadata.name}`);
      });
    }
    this.#on(caches.networkPolicies, ({ type, object }) => {
      const key = ownerKey(object, label.workflow);
      if (key === undefined || !isOurs(object)) return;
      const place = this.#placeOf(key);
      if (type !== 'deleted') this.#tell(key, { facts: [egressFact(object, place)] });
      else {
        const { gone } = egressFacts([], place);
        const scope = egressFact(object, place).subject;
        this.#tell(key, { scope, facts: [], ...(gone !== undefined && { gone }) });
      }
    });
    for (const cache of caches.policies) {
      this.#on(cache, ({ type, object }) => {
        if (object.spec === undefined) return;
        const { facts, gone } = admissionFacts(cache.resource, [object], false);
        const scope = facts[0]?.subject ?? '';
        this.#tell(
          this.#cluster,
          type === 'deleted' ? { facts: [], scope, ...(gone && { gone }) } : { facts },
        );
      });
    }
    for (const cache of caches.workloadCaches) {
      this.#on(cache, ({ type, object, previous }) => {
        if (object.kind === 'Job') this.#run(type, object, previous, object.serviceAccountName);
      });
    }
    this.#on(caches.pods, ({ type, object, previous }) => {
      this.#run(type, object, previous, object.spec?.serviceAccountName ?? '');
    });
    this.#on(caches.namespaces, ({ type, object }) => {
      if (type !== 'deleted') return;
      this.#options.log.forget(object.metadata.name);
    });
  }

  #on<T extends KubeObject>(cache: Cache<T>, tell: (change: Change<T>) => void): void {
    cache.onChange((change) => {
      if (this.#isTelling) tell(change);
    });
  }

  #tell(key: string, observation: Observation): void {
    if (splitKey(key).namespace === PROBE_NAMESPACE) return;
    if (observation.facts.length === 0 && observation.scope === undefined) return;
    this.#options.log.observe(key, observation);
  }

  /** Everything that stands for one chain, so that what doesn't stand any more is noticed. */
  #sweep(key: string): void {
    const { caches } = this.#options;
    if (key === `${PROBE_NAMESPACE}/${canary.killSwitch}`) {
      const probe = caches.killSwitches.store.get(key);
      if (probe !== undefined) this.#tell(this.#cluster, policyFacts(probe));
      return;
    }
    const place = this.#placeOf(key);
    const workflow = caches.workflows.store.get(key);
    const identity = caches.identities.store.get(key);
    const of = { Workflow: workflow, AutomationIdentity: identity };
    for (const kind of ['Workflow', 'AutomationIdentity'] as const) {
      const object = of[kind];
      if (object === undefined) this.#tell(key, specGone(kind, place));
      else this.#spec(kind, 'added', object);
    }
    if (identity !== undefined) {
      this.#credentials(identity);
    }
    this.#permissions(key);
    const decisions = [
      ...caches.approvals.store.byIndex('workflow', key).map((one) => approvalFact(one, place)),
      ...caches.accessReviews.store.byIndex('identity', key).map((one) => reviewFact(one, place)),
    ];
    this.#tell(key, decisionFacts(decisions, place));
    this.#tell(key, revisionFacts(caches.revisions.store.byIndex('workflow', key), place));
    const policies = caches.networkPolicies.store.byIndex('workflow', key).filter(isOurs);
    this.#tell(key, egressFacts(policies, place));
    const standing = caches.killSwitches.store.get(key);
    this.#tell(key, killsFacts(standing === undefined ? [] : [standing], place));
    if (workflow !== undefined) {
      const context = this.#runContext(key, workflow, place);
      const runs = [...caches.workloads.byIndex('identity', key), ...context.pods()];
      for (const observation of allRuns(runs, context)) this.#tell(key, observation);
    }
  }

  #credentials(identity: AutomationIdentity): void {
    const key = keyOf(identity);
    const place = this.#placeOf(key);
    for (const observation of credentialFacts(identity, place)) this.#tell(key, observation);
    // Whoever only changes an annotation isn't stamped.
    const requests = rotationRequests(identity, place, (of, object, name) =>
      this.#managerOf(of, object, (fields) => JSON.stringify(fields).includes(`"f:${name}"`)),
    );
    this.#tell(key, requests);
  }

  /** What is asked of all automations, and who changed it. */
  #policy(type: Change<KubeObject>['type'], policy: GuardrailPolicy): void {
    this.#tell(
      this.#cluster,
      type === 'deleted'
        ? specGone('GuardrailPolicy', {})
        : specFacts('GuardrailPolicy', policy, {}, (of, written) => this.#authorOf(of, written)),
    );
  }

  #decision(key: string, type: Change<KubeObject>['type'], fact: Fact): void {
    if (type !== 'deleted') this.#tell(key, { facts: [fact] });
    else this.#tell(key, decisionFacts([], this.#placeOf(key), fact.subject));
  }

  #spec(
    kind: SpecKind,
    type: Change<KubeObject>['type'],
    object: Parameters<typeof findingFacts>[1] & { spec?: unknown },
  ): void {
    const key = keyOf(object);
    const place = this.#placeOf(key);
    if (type === 'deleted') {
      this.#tell(key, specGone(kind, place));
      return;
    }
    this.#tell(
      key,
      specFacts(kind, object, place, (of, written) => this.#authorOf(of, written)),
    );
    this.#tell(key, findingFacts(kind, object, place));
  }

  #permissions(key: string): void {
    const { roles, roleBindings } = this.#options.caches;
    const place = this.#placeOf(key);
    const ours = <T extends KubeObject>(object: T | undefined): T | undefined =>
      object?.metadata.labels?.[label.identity] === undefined ? undefined : object;
    const binding = ours(roleBindings.store.get(key));
    this.#tell(key, permissionFacts(ours(roles.store.get(key)), binding, place));
  }

  #run(
    type: Change<KubeObject>['type'],
    run: Run,
    previous: Run | undefined,
    serviceAccountName: string,
  ): void {
    const key = `${run.metadata.namespace ?? ''}/${serviceAccountName}`;
    if (!hasNews(run, type === 'updated' ? previous : undefined)) return;
    const workflow = this.#options.caches.workflows.store.get(key);
    if (workflow === undefined) return;
    if (type === 'deleted') {
      this.#tell(key, runGone(run));
      return;
    }
    const facts = runFacts(run, this.#runContext(key, workflow, this.#placeOf(key)));
    this.#tell(key, { facts });
  }

  #runContext(key: string, workflow: Workflow, place: Place): RunContext {
    const { pods, approvals } = this.#options.caches;
    return {
      pods: () => pods.store.byIndex('identity', key),
      place,
      isPerRun: isPerRun(workflow),
      isRejected: (uid) =>
        approvals.store
          .byIndex('workflow', key)
          .some(({ spec }) => spec.run?.uid === uid && spec.decision === 'Reject'),
    };
  }

  #placeOf(key: string): Place {
    const { namespaces, workflows, identities, killSwitches } = this.#options.caches;
    const { namespace = '' } = splitKey(key);
    const environmentOf = (): string | undefined =>
      namespaces.store.get(namespace)?.metadata.labels?.[label.environment];
    const killSwitch =
      killSwitches.store.get(key) ?? killSwitches.store.get(`${namespace}/${wholeNamespaceName}`);
    const identity = identities.store.get(key);
    const place = placeOf(environmentOf(), workflows.store.get(key), killSwitch, identity);
    // One apply makes all of it, and each cache is told in its own time: before a record is written
    // what isn't known yet is looked up again.
    return {
      ...place,
      get environment() {
        return place.environment ?? environmentOf();
      },
      get identity() {
        return place.identity ?? identities.store.get(key)?.metadata.name;
      },
    };
  }

  /**
   * Who wrote the spec: the user whom admission stamped or, where there is no stamp, the manager of
   * its fields, which is what a client calls itself.
   */
  async #authorOf(of: Resource, { metadata }: KubeObject): Promise<Actor> {
    const stamped = stampOf({ metadata });
    if (stamped !== undefined) return { name: stamped, basis: 'authenticated' };
    return await this.#managerOf(of, { metadata }, (fields) => 'f:spec' in fields);
  }

  /** What the client called itself that last wrote certain fields of a version. */
  async #managerOf(
    of: Resource,
    { metadata: { namespace = '', name, uid } }: KubeObject,
    owns: (fields: object) => boolean,
  ): Promise<Actor> {
    const stored = await this.#options.client.get(of, { namespace, name }, { metadataOnly: true });
    const writers = (stored?.metadata.managedFields ?? []).filter(
      ({ fieldsV1, subresource = '' }) =>
        subresource === '' && fieldsV1 !== undefined && owns(fieldsV1),
    );
    const [last] = writers.toSorted((a, b) => ((a.time ?? '') < (b.time ?? '') ? 1 : -1));
    if (last?.manager === undefined || stored?.metadata.uid !== uid) {
      return { name: 'unknown', basis: 'unknown' };
    }
    return { name: last.manager, basis: 'asserted' };
  }
}

function isOurs({ metadata }: KubeObject): boolean {
  return metadata.labels?.[label.managedBy] === MANAGED_BY;
}

function ownerKey({ metadata }: KubeObject, by: string): string | undefined {
  const name = metadata.labels?.[by];
  return name === undefined ? undefined : `${metadata.namespace ?? ''}/${name}`;
}
