import type { AutomationIdentity, AutomationIdentitySpec } from '../api/automation-identity.ts';
import { policyInForceName, type GuardrailPolicy, type Tier } from '../api/guardrail-policy.ts';
import type { Finding } from '../api/conditions.ts';
import type { Namespace } from '../api/objects.ts';
import type { ApproverGroups, Workflow, WorkflowSpec } from '../api/workflow.ts';
import { quorumOf } from '../guardrails/approval/plan.ts';
import {
  approversIn,
  environmentUnknown,
  identityViolations,
  outcomeOf,
  policyInForce,
  quorumsIn,
  tierOf,
  workflowViolations,
  type EffectivePolicy,
  type Violation,
} from '../guardrails/policy/plan.ts';
import { requesterOf } from '../guardrails/requester/plan.ts';
import type { Problem } from '../guardrails/requirements.ts';
import type { ReadStore } from '../runtime/store.ts';

export interface PolicyInForceOptions {
  guardrailPolicies: Pick<ReadStore<GuardrailPolicy>, 'get'>;
  namespaces: Pick<ReadStore<Namespace>, 'get'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/** What the GuardrailPolicy makes of one object. */
export interface PolicyVerdict {
  /** What the environment of its namespace counts as; `undefined`: nothing says so. */
  tier: Tier | undefined;
  /** The condition `PolicyViolation`; `undefined` where the policy sets no ceilings. */
  finding: Finding | undefined;
  /** What keeps anything new from being granted. */
  missing: readonly Problem[];
  /** Milliseconds since the epoch at which it changes by itself. */
  changesAt: number | undefined;
}

/** The GuardrailPolicy that is in force, for whoever grants, counts or starts something. */
export class PolicyInForce {
  readonly #options: PolicyInForceOptions;
  /** What was read last, and of what. */
  #read: { stored: GuardrailPolicy | undefined; policy: EffectivePolicy } = {
    stored: undefined,
    policy: policyInForce(undefined),
  };

  constructor(options: PolicyInForceOptions) {
    this.#options = options;
  }

  /** What holds now. */
  get current(): EffectivePolicy {
    const stored = this.#options.guardrailPolicies.get(policyInForceName);
    if (stored !== this.#read.stored) this.#read = { stored, policy: policyInForce(stored) };
    return this.#read.policy;
  }

  /** Approvals that a Workflow needs where it is. */
  approvalsOf({ metadata, spec }: Pick<Workflow, 'metadata' | 'spec'>): number {
    const namespace = this.#options.namespaces.get(metadata.namespace ?? '');
    const policy = this.current;
    return quorumOf({ spec }, quorumsIn(policy, tierOf(namespace, policy)));
  }

  /** Groups whose approvals of a Workflow count; `undefined`: everybody's do. */
  approversOf({ metadata, spec }: Pick<Workflow, 'metadata' | 'spec'>): ApproverGroups | undefined {
    const namespace = this.#options.namespaces.get(metadata.namespace ?? '');
    const policy = this.current;
    const found = approversIn(policy, tierOf(namespace, policy), spec.risk ?? 'Low');
    if (found === undefined) return undefined;
    const { groups, oneOfEach } = found;
    return { groups, ...(oneOfEach !== undefined && { oneOfEach }) };
  }

  /** @param spec `undefined` where it can't be read: that is said elsewhere */
  ofWorkflow(workflow: Workflow, spec: WorkflowSpec | undefined): PolicyVerdict {
    return this.#verdict(workflow, (policy, tier) =>
      spec === undefined
        ? []
        : workflowViolations(spec, policy, tier, requesterOf(workflow) !== undefined),
    );
  }

  /** @param spec `undefined` where it can't be read: that is said elsewhere */
  ofIdentity(
    identity: AutomationIdentity,
    spec: AutomationIdentitySpec | undefined,
  ): PolicyVerdict {
    return this.#verdict(identity, (policy, tier) =>
      spec === undefined
        ? []
        : identityViolations(spec, policy, tier, requesterOf(identity) !== undefined),
    );
  }

  #verdict(
    { metadata, status }: Workflow | AutomationIdentity,
    violationsIn: (policy: EffectivePolicy, tier: ReturnType<typeof tierOf>) => Violation[],
  ): PolicyVerdict {
    const { namespaces, clock } = this.#options;
    const policy = this.current;
    const namespace = namespaces.get(metadata.namespace ?? '');
    const tier = tierOf(namespace, policy);
    const violations = violationsIn(policy, tier);
    const outcome = outcomeOf(violations, policy, tier, status?.conditions, clock());
    const missing = [environmentUnknown(namespace, policy), outcome.problem];
    return {
      tier,
      finding: outcome.finding,
      missing: missing.flatMap((problem) => problem ?? []),
      changesAt: outcome.changesAt,
    };
  }
}
