import type {
  AutomationIdentity,
  AutomationIdentitySpec,
  AutomationIdentityStatus,
} from '../api/automation-identity.ts';
import { conditionsFrom } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { API_VERSION } from '../api/names.ts';
import {
  keyOf,
  splitKey,
  type KubeObject,
  type Namespace,
  type Role,
  type RoleBinding,
  type ServiceAccount,
} from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { Workload } from '../api/workload.ts';
import type { RandomBytes } from '../guardrails/credentials/generate.ts';
import { CredentialKeeper, type CredentialsOutcome } from '../guardrails/credentials/keeper.ts';
import { applyIdentity } from '../guardrails/identity/apply.ts';
import { identityFindings, transitionsOf } from '../guardrails/identity/findings.ts';
import {
  childMetadata,
  markNameOf,
  planIdentity,
  readSpec,
  whatIsMissing,
  type IdentityChildren,
} from '../guardrails/identity/plan.ts';
import { heldReason, type Problem } from '../guardrails/requirements.ts';
import { killSwitchOver } from '../guardrails/kill-switch/plan.ts';
import type { EventRecorder } from '../observability/events.ts';
import { controllerOf, type Applier } from '../runtime/applier.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isConflict, isNotFound } from '../runtime/errors.ts';
import type { IndexedStore } from '../runtime/merged-store.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';

/** What this controller reports to the metrics. */
export interface AutomationIdentityMetrics {
  countRotation(result: 'success' | 'error'): void;
  /**
   * @param key `namespace/name` of the AutomationIdentity
   * @param rotatedAt milliseconds since the epoch; `undefined` where it has no credential
   */
  setOldestCredential(key: string, rotatedAt: number | undefined): void;
  /** @param reason `undefined` where nothing is held */
  setHeld(kind: string, key: string, reason: string | undefined): void;
}

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
  /** Managed ones. */
  serviceAccounts: ReadStore<ServiceAccount>;
  /** Managed ones. */
  roles: ReadStore<Role>;
  /** Managed ones. */
  roleBindings: ReadStore<RoleBinding>;
  /** Indexed by `secret` (`namespace/secretName`). */
  workloads: IndexedStore<Workload>;
  /** Milliseconds since the epoch. */
  clock: () => number;
  randomBytes: RandomBytes;
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
  killSwitch: KillSwitch | undefined;
  children: IdentityChildren;
}

/**
 * Gives each AutomationIdentity its ServiceAccount, its permissions and its credentials, and says
 * in its status whether it has them. While something is missing, or its kill switch is engaged,
 * nothing is granted that doesn't stand yet.
 */
export class AutomationIdentityController implements Reconciler {
  readonly name = 'automation-identity';
  readonly #options: AutomationIdentityControllerOptions;
  readonly #credentials: CredentialKeeper;

  constructor(options: AutomationIdentityControllerOptions) {
    const { client, workloads, metrics, clock, randomBytes } = options;
    this.#options = options;
    this.#credentials = new CredentialKeeper({
      client,
      workloads,
      countRotation: (result) => metrics.countRotation(result),
      clock,
      randomBytes,
    });
  }

  async reconcile(key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const observation = this.#observe(key);
    if (observation === undefined) {
      this.#forget(key);
      return {};
    }
    const { identity, spec } = observation;
    if (spec === undefined) {
      await this.#report(observation, [], undefined, context);
      return {};
    }

    const permissions = await attempt(() => this.#keepPermissions(observation, spec, context));
    const credentials = await attempt(() => this.#keepCredentials(observation, spec, context));
    const errors = [permissions, credentials].flatMap(({ error }) => error ?? []);
    if (errors.some(isConflict)) throw errors.find(isConflict);

    const problems = [
      ...(permissions.result ?? []),
      ...(credentials.result?.problems ?? []),
      ...errors.map(applyFailed),
    ];
    await this.#report(observation, problems, credentials.result, context);
    if (errors.length > 0) throw errors[0];
    const hasSecrets = (spec.secrets ?? identity.status?.secrets ?? []).length > 0;
    return this.#nextLook(problems, hasSecrets, credentials.result?.dueAt);
  }

  #observe(key: string): Observation | undefined {
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
      child !== undefined && controllerOf(child)?.uid === identity.metadata.uid ? child : undefined;
    const read = readSpec(identity);
    return {
      identity,
      spec: 'spec' in read ? read.spec : undefined,
      missing: whatIsMissing({ identity, namespace }),
      killSwitch: killSwitchOver(options.killSwitches, key),
      children: {
        mark: ours(options.roleBindings.get(`${namespaceName}/${markNameOf(name)}`)),
        serviceAccount: ours(options.serviceAccounts.get(key)),
        role: ours(options.roles.get(key)),
        roleBinding: ours(options.roleBindings.get(key)),
      },
    };
  }

  #keepPermissions(
    observation: Observation,
    spec: AutomationIdentitySpec,
    { signal }: ReconcileContext,
  ): Promise<Problem[]> {
    const { identity, children } = observation;
    const plan = planIdentity(identity, spec, children, isWithheld(observation));
    return applyIdentity(plan, children, { applier: this.#options.applier, signal });
  }

  #keepCredentials(
    observation: Observation,
    spec: AutomationIdentitySpec,
    { signal, log }: ReconcileContext,
  ): Promise<CredentialsOutcome> {
    const { events } = this.#options;
    const { identity, killSwitch } = observation;
    return this.#credentials.keep({
      identity,
      credentials: spec.secrets ?? [],
      childMetadata: (name) => childMetadata(identity, name),
      isWithheld: isWithheld(observation),
      isKilled: killSwitch !== undefined,
      notify: ({ type, reason, message }) => events[type](subjectOf(identity), reason, message),
      signal,
      log,
    });
  }

  async #report(
    observation: Observation,
    problems: readonly Problem[],
    credentials: CredentialsOutcome | undefined,
    { signal }: ReconcileContext,
  ): Promise<void> {
    const { statusWriter, events, metrics, clock } = this.#options;
    const { identity, missing, killSwitch } = observation;
    const { generation } = identity.metadata;
    const findings = identityFindings({ killSwitch, missing, problems });
    const previous = identity.status?.conditions;
    const conditions = conditionsFrom(findings, previous, generation, clock());
    const status: AutomationIdentityStatus = {
      ...identity.status,
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions,
      ...(credentials !== undefined && { secrets: credentials.secrets }),
      ...(credentials?.lastHandledRotation !== undefined && {
        lastHandledRotation: credentials.lastHandledRotation,
      }),
    };
    const key = keyOf(identity);
    metrics.setHeld('AutomationIdentity', key, heldReason(missing));
    if (credentials !== undefined) metrics.setOldestCredential(key, credentials.oldestRotatedAt);
    try {
      await statusWriter.write(resources.automationIdentities, identity, status, signal);
    } catch (error) {
      if (isNotFound(error)) return;
      throw error;
    }
    for (const { type, reason, message } of transitionsOf(findings, previous)) {
      events[type](subjectOf(identity), reason, message);
    }
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

  #forget(key: string): void {
    const { metrics } = this.#options;
    metrics.setOldestCredential(key, undefined);
    metrics.setHeld('AutomationIdentity', key, undefined);
  }
}

/** Secrets aren't watched: an edit or a deletion of one is repaired within this time. */
const recheckMs = 600_000;
/** Foreign objects and the operator's own permissions aren't watched either. */
const unwatchedMs = 60_000;
const unwatchedReasons = new Set(['ForeignObject', 'PermissionsNotGrantable']);
const soonestMs = 1_000;

function isWithheld({ missing, killSwitch }: Observation): boolean {
  return missing.length > 0 || killSwitch !== undefined;
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

function applyFailed(error: unknown): Problem {
  const message = error instanceof Error ? error.message : String(error);
  return { reason: 'ApplyFailed', message: `It is tried again: ${message.slice(0, 1024)}` };
}

function subjectOf({ metadata }: AutomationIdentity): KubeObject {
  return { apiVersion: API_VERSION, kind: 'AutomationIdentity', metadata };
}
