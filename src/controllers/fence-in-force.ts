import {
  admissionPolicies,
  canary,
  policyProbes,
  type AdmissionObject,
  type Denial,
  type PolicyProbe,
} from '../admission/index.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import { conditionOf, conditionsFrom, type Finding } from '../api/conditions.ts';
import type { KillSwitch } from '../api/kill-switch.ts';
import { annotation, label, MANAGED_BY, PROBE_NAMESPACE } from '../api/names.ts';
import type { ObjectMeta, SelfSubjectReview } from '../api/objects.ts';
import { resources, subjectOf } from '../api/resources.ts';
import type { Workflow } from '../api/workflow.ts';
import { askPolicy } from '../guardrails/fence-in-force/ask.ts';
import {
  compare,
  fenceInForceFindings,
  forceByComparison,
  type Force,
  type PolicyState,
  type StoredPolicies,
} from '../guardrails/fence-in-force/plan.ts';
import { isReleasing } from '../guardrails/kill-switch/plan.ts';
import type { EventRecorder } from '../observability/events.ts';
import type { KubeClient } from '../runtime/client.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isAlreadyExists, isNotFound } from '../runtime/errors.ts';
import { forEachBounded } from '../runtime/parallel.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';

/** What the standing probe reports to the metrics. */
export interface FenceMetrics {
  /** @param states by policy: in force (1), not (0) or unknown (-1); differs from what was installed */
  setPolicies(states: ReadonlyMap<string, { force: 1 | 0 | -1; edited: boolean }>): void;
}

export interface FenceInForceOptions {
  client: KubeClient;
  statusWriter: StatusWriter;
  events: EventRecorder;
  metrics: FenceMetrics;
  killSwitches: ReadStore<KillSwitch>;
  workflows: ReadStore<Workflow>;
  identities: ReadStore<AutomationIdentity>;
  /** The policies and bindings that the API server has. */
  storedPolicies: StoredPolicies;
  /** Milliseconds since the epoch. */
  clock: () => number;
  /** Ends after the time, or when the signal aborts. */
  sleep: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** The one key of this controller. */
export const fenceInForceKey = `${PROBE_NAMESPACE}/${canary.killSwitch}`;

/** Time to the first look after a change of a policy: the API server takes those in once a second. */
export const policyChangeDelayMs = 1_500;

/** How often the policies are asked, while all is well and while it isn't. */
const intervalMs = 60_000;
const openIntervalMs = 3_000;
/** Time in which an API server takes a changed policy in, with a margin. */
const settlingMs = 10_000;
/** A policy that doesn't answer is asked again before it is reported: an API server may lag. */
const confirmations = 2;
const confirmationDelayMs = 1_000;
const parallelism = 4;

const values = { InForce: 1, NotInForce: 0, Unknown: -1 } as const;

const engagement = 'The standing probe asks here whether the admission policies are in force.';

interface InstalledPolicy {
  name: string;
  probe: PolicyProbe;
  /** The policy and its binding. */
  objects: readonly AdmissionObject[];
}

/**
 * Asks once a minute, and after each change of a policy, whether every admission policy is in
 * force, and reports that on the canary: a KillSwitch that stands for good in a namespace in which
 * nothing ever runs. The leader does this; who leads puts the canary back when it is gone.
 */
export class FenceInForceController implements Reconciler {
  readonly name = 'fence-in-force';
  readonly #options: FenceInForceOptions;
  readonly #policies = installedPolicies();
  /** Milliseconds since the epoch. */
  #changedAt = 0;

  constructor(options: FenceInForceOptions) {
    this.#options = options;
  }

  async reconcile(_key: string, context: ReconcileContext): Promise<ReconcileResult> {
    const killSwitch = await this.#keepCanaries(context);
    if (killSwitch === undefined) {
      this.#options.metrics.setPolicies(new Map());
      return { requeueAfterMs: intervalMs };
    }
    const states = await this.#statesOf(
      this.#policies.filter((policy) => this.#isServed(policy)),
      context,
    );
    this.#options.metrics.setPolicies(
      new Map(
        states.map(({ name, force, comparison }) => [
          name,
          { force: values[force.kind], edited: comparison.kind === 'Differs' },
        ]),
      ),
    );
    const findings = fenceInForceFindings(states);
    await this.#report(context, killSwitch, findings);
    const isOpen = findings.some(({ status }) => status !== 'True');
    const isSettling = this.#options.clock() - this.#changedAt < settlingMs;
    return { requeueAfterMs: isOpen || isSettling ? openIntervalMs : intervalMs };
  }

  /** A policy or a binding of ours has changed: what was proven before is no longer. */
  policyChanged(): void {
    this.#changedAt = this.#options.clock();
  }

  /** @returns the engaged KillSwitch; `undefined` where there is no namespace to ask in */
  async #keepCanaries({ log, signal }: ReconcileContext): Promise<KillSwitch | undefined> {
    try {
      await this.#keepCarriers(signal);
      return await this.#keepKillSwitch(signal);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      log.warn('The namespace of the standing probe is missing; nothing is known of the fence', {
        namespace: PROBE_NAMESPACE,
      });
      return undefined;
    }
  }

  async #keepCarriers(signal: AbortSignal): Promise<void> {
    const { client, workflows, identities } = this.#options;
    if (workflows.get(`${PROBE_NAMESPACE}/${canary.workflow}`) === undefined) {
      const metadata = await this.#engagedMetadata(canary.workflow, signal);
      const targets = [{ group: 'apps', kind: 'Deployment', name: canary.workflow }] as const;
      const workflow: Workflow = { metadata, spec: { targets: [...targets] } };
      await ignoringExisting(client.create(resources.workflows, workflow, { signal }));
    }
    if (workflows.get(`${PROBE_NAMESPACE}/${canary.limited}`) === undefined) {
      await ignoringExisting(client.create(resources.workflows, limitedCanary, { signal }));
    }
    if (identities.get(`${PROBE_NAMESPACE}/${canary.identity}`) === undefined) {
      const metadata = await this.#engagedMetadata(canary.identity, signal);
      const identity: AutomationIdentity = { metadata, spec: {} };
      await ignoringExisting(client.create(resources.automationIdentities, identity, { signal }));
    }
  }

  /** With the marks that admission adds where it rewrites requests, and demands elsewhere. */
  async #engagedMetadata(name: string, signal: AbortSignal): Promise<ObjectMeta> {
    const { selfSubjectReviews } = resources;
    const question: SelfSubjectReview = { metadata: { name: '' } };
    const review = await this.#options.client.create(selfSubjectReviews, question, { signal });
    return {
      name,
      namespace: PROBE_NAMESPACE,
      labels: { [label.engaged]: 'true' },
      annotations: {
        [annotation.killSwitch]: engagement,
        [annotation.killSwitchEngagedBy]: review.status?.userInfo?.username ?? '',
      },
    };
  }

  async #keepKillSwitch(signal: AbortSignal): Promise<KillSwitch | undefined> {
    const { client, killSwitches } = this.#options;
    const cached = killSwitches.get(fenceInForceKey);
    if (cached !== undefined && !isReleasing(cached)) return cached;
    const key = { namespace: PROBE_NAMESPACE, name: canary.killSwitch };
    const stored = await client.get(resources.killSwitches, key, { signal });
    if (stored !== undefined && !isReleasing(stored)) return stored;
    if (stored !== undefined) {
      // Whoever released it took its fence away: only a new one has one.
      const { uid = '' } = stored.metadata;
      await client.delete(resources.killSwitches, key, { uid, signal });
    }
    await ignoringExisting(client.create(resources.killSwitches, canaryKillSwitch(), { signal }));
    return client.get(resources.killSwitches, key, { signal });
  }

  async #statesOf(
    policies: readonly InstalledPolicy[],
    { signal }: ReconcileContext,
  ): Promise<PolicyState[]> {
    const { storedPolicies, sleep } = this.#options;
    const forces = new Map<string, Force>();
    let asked = policies;
    for (let round = 0; asked.length > 0; round++) {
      if (round > 0) await sleep(confirmationDelayMs, signal);
      await forEachBounded(asked, parallelism, async (policy) => {
        forces.set(policy.name, await this.#forceOf(policy, signal));
      });
      signal.throwIfAborted();
      if (round === confirmations) break;
      asked = asked.filter(({ name }) => forces.get(name)?.kind !== 'InForce');
    }
    return policies.map(({ name, objects }) => ({
      name,
      force: forces.get(name) ?? { kind: 'Unknown', why: 'it was not asked' },
      comparison: compare(objects, storedPolicies),
    }));
  }

  async #forceOf({ name, probe, objects }: InstalledPolicy, signal: AbortSignal): Promise<Force> {
    const { client, storedPolicies } = this.#options;
    const isHidden = probe.kind === 'Denial' && this.#isHidden(probe);
    if (probe.kind !== 'Comparison' && !isHidden) return askPolicy(client, name, probe, signal);
    return forceByComparison(compare(objects, storedPolicies));
  }

  #isServed({ objects }: InstalledPolicy): boolean {
    const { storedPolicies } = this.#options;
    return objects.every(
      ({ kind, metadata }) => storedPolicies(kind, metadata.name) !== 'not served',
    );
  }

  /** Whether another policy changes what this one would refuse. */
  #isHidden({ behind }: Denial): boolean {
    const before = this.#policies.find(({ name }) => name === behind);
    return before !== undefined && this.#isServed(before);
  }

  async #report(
    { log, signal }: ReconcileContext,
    killSwitch: KillSwitch,
    findings: readonly Finding[],
  ): Promise<void> {
    const { statusWriter, events, clock } = this.#options;
    const { generation } = killSwitch.metadata;
    const previous = killSwitch.status?.conditions;
    const conditions = conditionsFrom(findings, previous, generation, clock());
    const status = {
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions,
    };
    await statusWriter.write(resources.killSwitches, killSwitch, status, signal);
    for (const { type, status: now, reason, message } of conditions) {
      const before = conditionOf(previous, type);
      if (type === 'Ready') continue;
      if (before?.status === now && before.reason === reason && before.message === message)
        continue;
      const about = subjectOf(resources.killSwitches, killSwitch);
      if (now === 'True') {
        log.info('Admission policies are as they should be', { condition: type, detail: message });
        if (before !== undefined && before.status !== now) events.normal(about, type, message);
      } else {
        log.error('Admission policies are not as they should be', {
          condition: type,
          status: now,
          reason,
          detail: message,
        });
        events.warning(about, reason, message);
      }
    }
  }
}

function installedPolicies(): InstalledPolicy[] {
  const objects = Map.groupBy(admissionPolicies(), ({ metadata }) => metadata.name);
  return [...objects].map(([name, pair]) => ({
    name,
    objects: pair,
    probe: policyProbes.get(name) ?? { kind: 'Comparison', reason: 'It has no probe.' },
  }));
}

/** With the label that admission adds where it rewrites requests, and demands elsewhere. */
const limitedCanary: Workflow = {
  metadata: {
    name: canary.limited,
    namespace: PROBE_NAMESPACE,
    labels: { [label.limited]: 'true' },
  },
  spec: {
    targets: [{ group: 'batch', kind: 'Job', name: canary.limited }],
    limits: { timeout: '1h', onBreach: 'Hold' },
  },
};

function canaryKillSwitch(): KillSwitch {
  return {
    metadata: { name: canary.killSwitch, namespace: PROBE_NAMESPACE },
    spec: { workflow: canary.killSwitch, reason: engagement, engagedBy: MANAGED_BY },
  };
}

async function ignoringExisting(created: Promise<unknown>): Promise<void> {
  try {
    await created;
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
  }
}

/**
 * Whether a key (`namespace/name`) is of another namespace than that of the standing probe: what
 * stands there is neither provisioned nor latched nor stopped.
 */
export function isNotOfProbe(key: string): boolean {
  return !key.startsWith(`${PROBE_NAMESPACE}/`);
}
