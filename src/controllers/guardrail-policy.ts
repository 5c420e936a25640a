import { conditionsFrom, isTrue, type Finding } from '../api/conditions.ts';
import {
  policyInForceName,
  type GuardrailPolicy,
  type GuardrailPolicyStatus,
} from '../api/guardrail-policy.ts';
import type { Condition } from '../api/objects.ts';
import { resources } from '../api/resources.ts';
import type { AutomationIdentity } from '../api/automation-identity.ts';
import type { Workflow } from '../api/workflow.ts';
import { policyInForce } from '../guardrails/policy/plan.ts';
import type { ReconcileContext, Reconciler, ReconcileResult } from '../runtime/controller.ts';
import { isNotFound } from '../runtime/errors.ts';
import type { StatusWriter } from '../runtime/status-writer.ts';
import type { ReadStore } from '../runtime/store.ts';

export interface GuardrailPolicyControllerOptions {
  statusWriter: StatusWriter;
  guardrailPolicies: Pick<ReadStore<GuardrailPolicy>, 'get'>;
  workflows: Pick<ReadStore<Workflow>, 'list'>;
  identities: Pick<ReadStore<AutomationIdentity>, 'list'>;
  /** Milliseconds since the epoch. */
  clock: () => number;
}

/**
 * Says in the status of the GuardrailPolicy whether the operator goes by it, and how much goes
 * beyond it. Whoever tries one in `Audit` reads there what it would refuse.
 */
export class GuardrailPolicyController implements Reconciler {
  readonly name = 'guardrail-policy';
  readonly #options: GuardrailPolicyControllerOptions;

  constructor(options: GuardrailPolicyControllerOptions) {
    this.#options = options;
  }

  async reconcile(key: string, { signal }: ReconcileContext): Promise<ReconcileResult> {
    const { guardrailPolicies, workflows, identities, statusWriter, clock } = this.#options;
    const policy = guardrailPolicies.get(key);
    if (policy === undefined || policy.metadata.deletionTimestamp !== undefined) return {};
    const { generation } = policy.metadata;
    const status: GuardrailPolicyStatus = {
      ...(generation !== undefined && { observedGeneration: generation }),
      conditions: conditionsFrom(
        [readyFinding(policy)],
        policy.status?.conditions,
        generation,
        clock(),
      ),
      violations: {
        workflows: violating(workflows.list()),
        automationIdentities: violating(identities.list()),
      },
    };
    try {
      await statusWriter.write(resources.guardrailPolicies, policy, status, signal);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    return {};
  }
}

function readyFinding(policy: GuardrailPolicy): Finding {
  const { malformed } = policyInForce(policy);
  return malformed.length === 0
    ? {
        type: 'Ready',
        status: 'True',
        reason: 'InForce',
        message: 'The operator goes by this policy.',
      }
    : {
        type: 'Ready',
        status: 'False',
        reason: 'SpecMalformed',
        message: `Can't be read: ${malformed.join(', ')}. What holds without a GuardrailPolicy is in force instead of ${policyInForceName}.`,
      };
}

function violating(
  objects: Iterable<{ status?: { conditions?: readonly Condition[] | undefined } }>,
): number {
  let count = 0;
  for (const { status } of objects) if (isTrue(status?.conditions, 'PolicyViolation')) count++;
  return count;
}
