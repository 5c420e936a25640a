import type { AccessReview } from '../api/access-review.ts';
import type {
  AutomationIdentity,
  AutomationIdentitySpec,
  AutomationIdentityStatus,
} from '../api/automation-identity.ts';
import { conditionOf, conditionsFrom, type Finding } from '../api/conditions.ts';
import { wholeNamespaceName, type KillSwitch } from '../api/kill-switch.ts';
import { API_VERSION, grantableRole } from '../api/names.ts';
import {
  keyOf,
  splitKey,
  type KubeObject,
  type Namespace,
  type Pod,
  type PolicyRule,
  type Role,
  type RoleBinding,
  type ServiceAccount,
} from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { Workload } from '../api/workload.ts';
import type { RandomBytes } from '../guardrails/credentials/generate.ts';
import { earliest } from '../guardrails/credentials/refusal.ts';
import { CredentialCopies } from '../guardrails/credentials/copies.ts';
import { CredentialKeeper, type CredentialsOutcome } from '../guardrails/credentials/keeper.ts';
import type { RevokedTokens } from '../guardrails/credentials/revoked-tokens.ts';
import {
  TokenKeeper,
  withdrawnTokens,
  type KeepTokens,
  type TokensOutcome,
} from '../guardrails/credentials/token-keeper.ts';
import {
  decisionTransition,
  planReview,
  type ReviewOutcome,
} from '../guardrails/access-review/plan.ts';
import { applyIdentity, disownKept, forgetKept, takeAway } from '../guardrails/identity/apply.ts';
import {
  identitiesGiven,
  identitiesReachedBy,
  type Identities,
  type RbacStores,
} from '../guardrails/identity/bindings.ts';
import { canonicalRules, digestOf } from '../guardrails/identity/digest.ts';
import { excessFinding, excessOf } from '../guardrails/identity/effective.ts';
import { identityFindings, transitionsOf } from '../guardrails/identity/findings.ts';
import { keptFor, type KeptServiceAccount } from '../guardrails/identity/kept.ts';
import {
  childMetadata,
  keptTextOn,
  markNameOf,
  planIdentity,
  planKilled,
  readSpec,
  whatIsMissing,
  type IdentityChildren,
} from '../guardrails/identity/plan.ts';
import { withoutRefused } from '../guardrails/identity/refused.ts';
import { areCovered, rulesOf } from '../guardrails/identity/rules.ts';
import { clearNoted } from '../guardrails/holds/note.ts';
import { acknowledgedNow, holdsOf } from '../guardrails/holds/plan.ts';
import { applyFailed, heldReason, type Problem } from '../guardrails/requirements.ts';
import { isLifted, killSwitchOver } from '../guardrails/kill-switch/plan.ts';
import type { CopyLedger } from '../guardrails/secret-store/ledger.ts';
import type { SecretStore } from '../guardrails/secret-store/store.ts';
import type { EventRecorder } from '../observability/events.ts';
import { controllerOf, isControlledBy, type Applier } from '../runtime/applier.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isConflict, isNotFound } from '../runtime/errors.ts';
import type { Informer } from '../runtime/list-watch.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import { keysIn, type ReadStore } from '../runtime/store.ts';
import { leftAgainMs, LeftCopies } from './left-copies.ts';
import { offboard, type Departures } from './offboarding.ts';
import type { PolicyInForce, PolicyVerdict } from './policy-in-force.ts';
import type { RequesterRights, RequesterVerdict } from './requester.ts';
import type { WorkflowApprovals } from './workflow-approval.ts';

/** What this controller reports to the metrics. */
export interface AutomationIdentityMetrics {
  countRotation(result: 'success' | 'error'): void;
  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param rotatedAt milliseconds since the epoch; `undefined` where it has no credential
   */
  setOldestCredential(key: string, rotatedAt: number | undefined): void;
  countTokenIssue(result: 'success' | 'error'): void;
  countSecretCopy(action: 'write' | 'destroy' | 'withdraw', result: 'success' | 'error'): void;
  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param expiresAt milliseconds since the epoch; `undefined` where it has no token
   */
  setSoonestTokenExpiry(key: string, expiresAt: number | undefined): void;
  /** @param reason `undefined` where nothing is held */
  setHeld(kind: string, key: string, reason: string | undefined): void;
  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param state `undefined` where its ServiceAccount may do no more than it declares
   */
  setExcess(key: string, state: 'excess' | 'unknown' | undefined): void;
  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param review `undefined` where no reviews are asked for; `due` in milliseconds since the epoch
   */
  setReview(key: string, review: { due: number; isOverdue: boolean } | undefined): void;
}

/** A cache of a kind that the operator may not be allowed to list. */
export type OptionalCache<T extends KubeObject> = Pick<
  Informer<T>,
  'store' | 'hasSynced' | 'isForbidden' | 'resource'
>;

export interface AutomationIdentityControllerOptions {
  /** Writes only while this process leads. */
  client: KubeClient;
  applier: Applier;
  statusWriter: StatusWriter;
  events: Pick<EventRecorder, 'normal' | 'warning'>;
  metrics: AutomationIdentityMetrics;
  identities: ReadStore<AutomationIdentity>;
  namespaces: ReadStore<Namespace>;
  killSwitches: ReadStore<KillSwitch>;
  /** Indexed by `identity` (`namespace/spec.identity`). */
  accessReviews: Pick<ReadStore<AccessReview>, 'byIndex'>;
  /** Managed ones. */
  serviceAccounts: ReadStore<ServiceAccount>;
  /** All, those that aren't managed as `projectRole` leaves them. */
  roles: ReadStore<Role>;
  /** All, those that aren't managed as `projectBinding` leaves them; with `bindingIndexes`. */
  roleBindings: ReadStore<RoleBinding>;
  clusterRoles: OptionalCache<Role>;
  /** With `bindingIndexes`. */
  clusterRoleBindings: OptionalCache<RoleBinding>;
  /** Indexed by `secret` (`namespace/secretName`). */
  workloads: IndexedStore<Workload>;
  /** Indexed by `secret` (`namespace/secretName`). */
  pods: Pick<ReadStore<Pod>, 'byIndex'>;
  /** What is approved of the Workflow of the same name. */
  approvals: Pick<WorkflowApprovals, 'of'>;
  policy: Pick<PolicyInForce, 'ofIdentity'>;
  requester: Pick<RequesterRights, 'ofIdentity'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
  randomBytes: RandomBytes;
  /** Shared with the kill switch, which withdraws them too. */
  revokedTokens: RevokedTokens;
  /** Where copies of credentials go; shared with the kill switch. */
  secretStore: SecretStore;
  copyLedger: CopyLedger;
  /** Of which what they had is taken away. */
  departures: Departures;
}

/** Which keys (`namespace/name` of an AutomationIdentity) a change of another object concerns. */
export const keysFor = {
  identity: (identity: AutomationIdentity): string[] => [keyOf(identity)],

  /** @param identities indexed by `namespace` */
  namespace: (
    { metadata }: Namespace,
    identities: Pick<ReadStore<AutomationIdentity>, 'byIndex'>,
  ): string[] => identities.byIndex('namespace', metadata.name).map(keyOf),

  /** @param identities indexed by `namespace` */
  killSwitch: (
    { metadata, spec }: KillSwitch,
    identities: Pick<ReadStore<AutomationIdentity>, 'byIndex'>,
  ): string[] =>
    spec.workflow === undefined
      ? identities.byIndex('namespace', metadata.namespace ?? '').map(keyOf)
      : [`${metadata.namespace ?? ''}/${spec.workflow}`],

  accessReview: ({ metadata, spec }: AccessReview): string[] => [
    `${metadata.namespace ?? ''}/${spec.identity}`,
  ],

  /** A RoleBinding or ClusterRoleBinding, by whom it reaches. */
  binding: (binding: RoleBinding, identities: Identities<AutomationIdentity>): string[] =>
    identitiesReachedBy(binding, identities).map(keyOf),

  /** A Role or ClusterRole, by whom its bindings reach. */
  role: (
    role: Role,
    bindings: Pick<RbacStores, 'roleBindings' | 'clusterRoleBindings'>,
    identities: Identities<AutomationIdentity>,
  ): string[] => identitiesGiven(role, bindings, identities).map(keyOf),

  /** All, where the ClusterRole is the one that says what can be granted at most. */
  grantable: (role: Role, identities: Pick<ReadStore<AutomationIdentity>, 'list'>): string[] =>
    role.metadata.namespace !== undefined || role.metadata.name !== grantableRole
      ? []
      : keysIn(identities),

  /** A ServiceAccount, Role or RoleBinding, by whom its controller reference names. */
  child: (child: KubeObject): string[] => {
    const owner = controllerOf(child);
    return owner?.kind === 'AutomationIdentity' && owner.apiVersion === API_VERSION
      ? [`${child.metadata.namespace ?? ''}/${owner.name}`]
      : [];
  },
};

/** What stands, as one reconcile sees it. */
interface Observation {
  identity: AutomationIdentity;
  /** `undefined` where it can't be read: then nothing is changed. */
  spec: AutomationIdentitySpec | undefined;
  missing: readonly Problem[];
  /** The condition `ExcessPermissions`; `undefined` where nobody has looked yet. */
  excess: Finding | undefined;
  /** What comes of its access reviews. */
  review: ReviewOutcome;
  /** What the GuardrailPolicy makes of it. */
  policy: PolicyVerdict;
  /** What is known of who asked for it. */
  requester: RequesterVerdict;
  /** Engaged, or being released. */
  killSwitch: KillSwitch | undefined;
  /** The kill switch holds: what it takes away isn't put back. */
  isStopped: boolean;
  /** What others had on the ServiceAccount that a kill or a revocation deleted. */
  kept: KeptServiceAccount | undefined;
  children: IdentityChildren;
}

/**
 * Gives each AutomationIdentity its ServiceAccount, its permissions and its credentials, and says
 * in its status whether it has them. While something is missing, nothing is granted that doesn't
 * stand yet. While its kill switch holds, or a review has revoked its access, nothing is granted at
 * all, and what that took away comes back with the release, or with the next review.
 */
export class AutomationIdentityController implements Reconciler {
  readonly name = 'automation-identity';
  readonly #options: AutomationIdentityControllerOptions;
  /** Copies of identities that are gone. */
  readonly leftCopies: LeftCopies;
  readonly #credentials: CredentialKeeper;
  readonly #tokens: TokenKeeper;

  constructor(options: AutomationIdentityControllerOptions) {
    const { client, workloads, pods, metrics, clock, randomBytes } = options;
    const { revokedTokens: revoked } = options;
    this.#options = options;
    const copies = new CredentialCopies({
      store: options.secretStore,
      ledger: options.copyLedger,
      countCopy: (action, result) => metrics.countSecretCopy(action, result),
      clock,
    });
    const { events, identities, copyLedger: ledger } = options;
    this.leftCopies = new LeftCopies({ client, events, identities, copies, ledger });
    this.#credentials = new CredentialKeeper({
      client,
      workloads,
      pods,
      countRotation: (result) => metrics.countRotation(result),
      clock,
      randomBytes,
      revoked,
      copies,
    });
    this.#tokens = new TokenKeeper({
      client,
      countIssue: (result) => metrics.countTokenIssue(result),
      clock,
      revoked,
    });
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const leftAgain = await this.#offboard(key, context);
    const observation = await this.#observe(key, context.signal);
    if (observation === undefined) {
      this.#forget(key);
      return leftAgain;
    }
    const { identity, spec } = observation;
    const { client } = this.#options;
    const { automationIdentities } = resources;
    if (await clearNoted(client, automationIdentities, identity, context.signal)) return leftAgain;
    if (spec === undefined) {
      const taken = await attempt(() => this.#takeAwayUnread(observation, context));
      await this.#report(observation, taken.result ?? [applyFailed(taken.error)], {}, context);
      if (taken.error !== undefined) throw taken.error;
      return leftAgain;
    }

    const permissions = await attempt(() => this.#keepPermissions(observation, spec, context));
    // First: a name that has gone over from tokens to secrets is free by then.
    const tokens = await attempt(() => this.#keepTokens(observation, spec, context));
    const credentials = await attempt(() => this.#keepCredentials(observation, spec, context));
    const errors = [permissions, credentials, tokens].flatMap(({ error }) => error ?? []);
    if (errors.some(isConflict)) throw errors.find(isConflict);

    const problems = [
      ...(permissions.result ?? []),
      ...(credentials.result?.problems ?? []),
      ...(tokens.result?.problems ?? []),
      ...errors.map(applyFailed),
    ];
    const found = { credentials: credentials.result, tokens: tokens.result };
    await this.#report(observation, problems, found, context);
    if (errors.length > 0) throw errors[0];
    const { secrets, tokens: recorded } = identity.status ?? {};
    const hasSecrets =
      (spec.secrets ?? secrets ?? []).length > 0 || (spec.tokens ?? recorded ?? []).length > 0;
    const dueAt = [
      credentials.result?.dueAt,
      tokens.result?.dueAt,
      observation.review.dueAt,
      observation.policy.changesAt,
      this.#askAgainAt(observation.requester.againMs),
      this.#askAgainAt(leftAgain.requeueAfterMs),
    ];
    return this.#nextLook(problems, hasSecrets, earliest(dueAt));
  }

  /** What goes with a deleted one; its successor by that name, if there is one, comes after that. */
  async #offboard(key: string, { signal, log }: ReconcileContext): Promise<ReconcileResult> {
    const { departures, identities, namespaces, revokedTokens: revoked } = this.#options;
    const standing = identities.get(key);
    const isLeaving = standing?.metadata.deletionTimestamp !== undefined;
    const leaving = departures.get(key) ?? (isLeaving ? standing : undefined);
    const namespace = namespaces.get(splitKey(key).namespace ?? '');
    const isThere = namespace !== undefined && namespace.metadata.deletionTimestamp === undefined;
    if (leaving !== undefined && isThere) {
      const { client, events, workloads } = this.#options;
      await offboard(leaving, { client, events, workloads, revoked, signal });
    }
    const againMs = await this.leftCopies.end(key, leaving, { signal, log });
    if (leaving !== undefined && againMs !== leftAgainMs) departures.delete(leaving);
    return againMs === undefined ? {} : { requeueAfterMs: againMs };
  }

  async #observe(key: string, signal: AbortSignal): Promise<Observation | undefined> {
    const options = this.#options;
    const identity = options.identities.get(key);
    if (identity === undefined || identity.metadata.deletionTimestamp !== undefined) {
      return undefined;
    }
    const { namespace: namespaceName = '', name } = splitKey(key);
    const namespace = options.namespaces.get(namespaceName);
    // Nothing can be created there any more, and all that stands is about to go.
    if (namespace?.metadata.deletionTimestamp !== undefined) return undefined;
    const ours = <T extends KubeObject>(child: T | undefined): T | undefined =>
      child !== undefined && isControlledBy(child, identity) ? child : undefined;
    const read = readSpec(identity);
    const mark = ours(options.roleBindings.get(`${namespaceName}/${markNameOf(name)}`));
    // A revocation took it, and a cache may still have it.
    const account =
      keptTextOn(mark) === undefined
        ? options.serviceAccounts.get(key)
        : await options.client.get(
            resources.serviceAccounts,
            { namespace: namespaceName, name },
            { signal },
          );
    const children = {
      mark,
      serviceAccount: ours(account),
      role: ours(options.roles.get(key)),
      roleBinding: ours(options.roleBindings.get(key)),
    };
    const spec = 'spec' in read ? read.spec : undefined;
    const isComplete =
      children.serviceAccount !== undefined &&
      (children.roleBinding !== undefined || (spec?.permissions ?? []).length === 0);
    const killSwitches = isComplete
      ? options.killSwitches
      : await this.#killSwitchesOver(key, signal);
    const killSwitch = killSwitchOver(killSwitches, key);
    const { excess, digest } = this.#rightsOf(identity, spec);
    const review = planReview({
      identity,
      settings: spec?.accessReview,
      reviews: options.accessReviews.byIndex('identity', key),
      digest,
      isReduced: areCovered(askedRules(identity, spec), children.role?.rules ?? []),
      now: options.clock(),
    });
    const policy = options.policy.ofIdentity(identity, spec);
    const requester = await options.requester.ofIdentity(identity, spec, signal);
    const holders = [...keysOver(key).map((one) => killSwitches.get(one)), mark];
    return {
      identity,
      spec,
      missing: [
        ...whatIsMissing({ identity, namespace, approved: options.approvals.of(key)?.finding }),
        ...policy.missing,
        ...(requester.problem === undefined ? [] : [requester.problem]),
        ...review.missing,
      ],
      policy,
      requester,
      excess,
      review,
      killSwitch,
      isStopped: killSwitch !== undefined && !isLifted(killSwitch),
      kept: keptFor(name, holders),
      children,
    };
  }

  /**
   * What was taken away may be seen before the KillSwitch that took it, each by a watch of its own:
   * before something is made, the API server is asked.
   */
  async #killSwitchesOver(
    key: string,
    signal: AbortSignal,
  ): Promise<Pick<ReadStore<KillSwitch>, 'get'>> {
    const { client, killSwitches } = this.#options;
    const found = await Promise.all(
      keysOver(key).map(async (one) => {
        const cached = killSwitches.get(one);
        const { namespace = '', name } = splitKey(one);
        const live =
          cached ?? (await client.get(resources.killSwitches, { namespace, name }, { signal }));
        return [one, live] as const;
      }),
    );
    return new Map(found);
  }

  async #keepPermissions(
    observation: Observation,
    spec: AutomationIdentitySpec,
    { signal }: ReconcileContext,
  ): Promise<Problem[]> {
    const { identity, children, isStopped } = observation;
    const { applier, client } = this.#options;
    if (isRevoked(observation)) {
      return await this.#takeAway(observation, signal);
    }
    if (isTakenAway(observation)) {
      const { mark } = children;
      // Nothing was taken: the ServiceAccount may be somebody else's, which is never marked.
      if (observation.kept === undefined) return [];
      return await applyIdentity(planKilled(identity), { mark }, { applier, signal });
    }
    const kept = isStopped ? undefined : observation.kept;
    const plan = planIdentity(identity, spec, children, {
      withheld: isWithheld(observation),
      awaitsApproval: awaitsApproval(observation),
      isUnguarded: !isGuarded(observation),
      grantable: this.#grantable(),
      kept,
    });
    const problems = await applyIdentity(plan, children, { applier, signal });
    if (kept !== undefined && children.serviceAccount === undefined) {
      await disownKept(client, plan.serviceAccount, kept, signal);
    }
    await forgetKept(client, children, signal);
    return [...problems, ...plan.problems];
  }

  /** What a review has revoked goes, whatever the spec says. */
  async #takeAwayUnread(observation: Observation, context: ReconcileContext): Promise<Problem[]> {
    if (!isRevoked(observation)) return [];
    const problems = await this.#takeAway(observation, context.signal);
    const request = this.#requestOf(observation, context);
    const { problems: left } = await this.#credentials.withdraw(
      observation.identity,
      undefined,
      request,
    );
    return [...problems, ...left];
  }

  async #takeAway(
    { identity, children, kept }: Observation,
    signal: AbortSignal,
  ): Promise<Problem[]> {
    const { applier, events } = this.#options;
    const { problems, isCut } = await takeAway(identity, children, kept, { applier, signal });
    if (isCut) {
      events.warning(
        subjectOf(resources.automationIdentities, identity),
        'NotKept',
        `What others had on the ServiceAccount ${identity.metadata.name} is too much to be kept: its labels, annotations and imagePullSecrets don't come back.`,
      );
    }
    return problems;
  }

  #grantable(): readonly PolicyRule[] | undefined {
    const { store, hasSynced, isForbidden } = this.#options.clusterRoles;
    if (!hasSynced || isForbidden) return undefined;
    return store.get(grantableRole)?.rules ?? [];
  }

  async #keepTokens(
    observation: Observation,
    spec: AutomationIdentitySpec,
    context: ReconcileContext,
  ): Promise<TokensOutcome> {
    const { identity, isStopped } = observation;
    // Their Secrets go with those of the credentials, and a kill asks by itself whether they are dead.
    if (isRevoked(observation) && !isStopped) {
      return await this.#tokens.withdrawn(this.#requestOf(observation, context));
    }
    if (isTakenAway(observation)) return withdrawnTokens(identity.status?.tokens);
    return await this.#tokens.keep({
      ...this.#requestOf(observation, context),
      tokens: spec.tokens ?? [],
    });
  }

  #keepCredentials(
    observation: Observation,
    spec: AutomationIdentitySpec,
    context: ReconcileContext,
  ): Promise<CredentialsOutcome> {
    const { identity, killSwitch } = observation;
    if (isTakenAway(observation)) {
      return this.#credentials.withdraw(identity, spec, this.#requestOf(observation, context));
    }
    return this.#credentials.keep({
      ...this.#requestOf(observation, context),
      credentials: spec.secrets ?? [],
      tier: observation.policy.tier,
      isKilled: killSwitch !== undefined,
    });
  }

  /** What tokens and credentials are kept with alike. */
  #requestOf(
    observation: Observation,
    { signal, log }: ReconcileContext,
  ): Omit<KeepTokens, 'tokens'> {
    const { events } = this.#options;
    const { identity } = observation;
    return {
      identity,
      childMetadata: (name) => childMetadata(identity, name),
      isWithheld: isWithheld(observation),
      notify: ({ type, reason, message }) =>
        events[type](subjectOf(resources.automationIdentities, identity), reason, message),
      signal,
      log,
    };
  }

  async #report(
    observation: Observation,
    problems: readonly Problem[],
    { credentials, tokens }: Found,
    { signal }: ReconcileContext,
  ): Promise<void> {
    const { statusWriter, events, metrics, clock } = this.#options;
    const { identity, missing, excess, review, policy, isStopped } = observation;
    const killSwitch = isStopped ? observation.killSwitch : undefined;
    const { generation } = identity.metadata;
    const previous = identity.status?.conditions;
    const findings = identityFindings({
      killSwitch,
      missing,
      problems,
      excess,
      review: review.finding,
      policy: policy.finding,
      requester: observation.requester.finding,
      overdue: credentials?.overdue ?? [],
    });
    const now = clock();
    const conditions = conditionsFrom(findings, previous, generation, now);
    const holds = holdsOf(missing, identity, now);
    const { accessReview: reviewedBefore, holds: _, ...before } = identity.status ?? {};
    const status: AutomationIdentityStatus = {
      ...before,
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions,
      ...(holds.length > 0 && { holds }),
      ...(credentials !== undefined && { secrets: credentials.secrets }),
      ...(tokens !== undefined && hasTokens(identity, tokens) && { tokens: tokens.tokens }),
      ...(credentials?.lastHandledRotation !== undefined &&
        tokens?.isHandled.rotate === true && {
          lastHandledRotation: credentials.lastHandledRotation,
        }),
      ...(credentials?.lastHandledEmergencyRotation !== undefined &&
        tokens?.isHandled.emergency === true && {
          lastHandledEmergencyRotation: credentials.lastHandledEmergencyRotation,
        }),
      ...(review.status !== undefined && { accessReview: review.status }),
      ...(observation.requester.digest !== undefined && {
        requester: observation.requester.digest,
      }),
    };
    const key = keyOf(identity);
    metrics.setHeld('AutomationIdentity', key, heldReason(missing));
    metrics.setExcess(key, excess && excessStates[excess.status]);
    const isOverdue = review.finding?.status === 'True';
    metrics.setReview(key, review.due === undefined ? undefined : { due: review.due, isOverdue });
    if (credentials !== undefined) metrics.setOldestCredential(key, credentials.oldestRotatedAt);
    if (tokens !== undefined) metrics.setSoonestTokenExpiry(key, tokens.soonestExpiry);
    try {
      await statusWriter.write(resources.automationIdentities, identity, status, signal);
    } catch (error) {
      if (isNotFound(error)) return;
      throw error;
    }
    const reviews = this.#options.accessReviews.byIndex('identity', key);
    const told = [
      ...decisionTransition(reviewedBefore, review.status, reviews),
      ...transitionsOf(findings, previous),
      ...acknowledgedNow(identity, holds),
    ];
    for (const { type, reason, message } of told) {
      events[type](subjectOf(resources.automationIdentities, identity), reason, message);
    }
  }

  /**
   * What the ServiceAccount may really do: the condition `ExcessPermissions`, and the digest of all
   * of it. What was said before, until it is known what there is to say.
   */
  #rightsOf(
    identity: AutomationIdentity,
    spec: AutomationIdentitySpec | undefined,
  ): { excess: Finding | undefined; digest: string | undefined } {
    const { roles, roleBindings, clusterRoles, clusterRoleBindings } = this.#options;
    const optional = [clusterRoleBindings, clusterRoles];
    const { conditions, accessReview } = identity.status ?? {};
    if (optional.some(({ hasSynced, isForbidden }) => !hasSynced && !isForbidden)) {
      return {
        excess: conditionOf(conditions, 'ExcessPermissions'),
        digest: accessReview?.digest,
      };
    }
    const declared = askedRules(identity, spec);
    // What a spec that can't be read declares isn't nothing.
    const published = spec === undefined ? accessReview?.digest : undefined;
    const beyond = excessOf(identity, declared, {
      roles,
      roleBindings,
      clusterRoles: clusterRoles.store,
      clusterRoleBindings: clusterRoleBindings.store,
    });
    const unread = optional
      .filter(({ isForbidden }) => isForbidden)
      .map(({ resource }) => resource.plural);
    return {
      excess: excessFinding(beyond, unread),
      digest: published ?? digestOf(declared, beyond, unread),
    };
  }

  #nextLook(
    problems: readonly Problem[],
    hasSecrets: boolean,
    dueAt: number | undefined,
  ): ReconcileResult {
    const { clock, randomBytes } = this.#options;
    const delays = [
      ...(hasSecrets ? [recheckMs * (0.8 + (0.2 * (randomBytes(1)[0] ?? 0)) / 255)] : []),
      ...(problems.some(({ reason }) => unwatchedReasons.has(reason)) ? [unwatchedMs] : []),
      ...(dueAt === undefined ? [] : [Math.max(dueAt - clock(), soonestMs)]),
    ];
    return delays.length === 0 ? {} : { requeueAfterMs: Math.ceil(Math.min(...delays)) };
  }

  #askAgainAt(againMs: number | undefined): number | undefined {
    return againMs === undefined ? undefined : this.#options.clock() + againMs;
  }

  #forget(key: string): void {
    const { metrics } = this.#options;
    metrics.setOldestCredential(key, undefined);
    metrics.setSoonestTokenExpiry(key, undefined);
    metrics.setHeld('AutomationIdentity', key, undefined);
    metrics.setExcess(key, undefined);
    metrics.setReview(key, undefined);
  }
}

const excessStates = { True: 'excess', Unknown: 'unknown', False: undefined } as const;
/** What a look at the credentials has found; `undefined` where it failed. */
interface Found {
  credentials?: CredentialsOutcome | undefined;
  tokens?: TokensOutcome | undefined;
}

/** An identity without tokens has no list of them in its status either. */
function hasTokens({ status }: AutomationIdentity, { tokens }: TokensOutcome): boolean {
  return tokens.length > 0 || status?.tokens !== undefined;
}

/** Secrets aren't watched: an edit or a deletion of one is repaired within this time. */
const recheckMs = 600_000;
/** Foreign objects and the operator's own permissions aren't watched either. */
const unwatchedMs = 60_000;
const unwatchedReasons = new Set(['ForeignObject', 'PermissionsNotGrantable']);
const soonestMs = 1_000;

function isWithheld({ missing, isStopped }: Observation): boolean {
  return missing.length > 0 || isStopped;
}

function awaitsApproval({ missing, isStopped }: Observation): boolean {
  return !isStopped && missing.every(({ reason }) => reason === 'NotApproved');
}

/**
 * Whether a kill or a revocation takes away what the identity has. In a namespace that isn't guarded
 * neither does, and then nothing is granted but what stands.
 */
function isTakenAway(observation: Observation): boolean {
  return (observation.isStopped && isGuarded(observation)) || isRevoked(observation);
}

/** Whether a review took away what the identity has. */
function isRevoked(observation: Observation): boolean {
  return observation.review.isRevoked && isGuarded(observation);
}

function isGuarded({ missing }: Observation): boolean {
  return !missing.some(({ reason }) => reason === 'NamespaceNotGuarded');
}

/** What the spec asks for and no automation is refused, in an order of its own. */
function askedRules(
  { metadata }: AutomationIdentity,
  spec: AutomationIdentitySpec | undefined,
): PolicyRule[] {
  const { permissions } = withoutRefused(spec?.permissions ?? [], metadata.name);
  return canonicalRules(rulesOf(permissions));
}

/** Keys of the KillSwitches that can stop an identity: its own, and its namespace's. */
function keysOver(key: string): string[] {
  return [key, `${splitKey(key).namespace ?? ''}/${wholeNamespaceName}`];
}

async function attempt<T>(
  task: () => Promise<T>,
): Promise<{ result: T; error?: never } | { result?: never; error: unknown }> {
  try {
    return { result: await task() };
  } catch (error) {
    return { error };
  }
}
