import { label } from '../../api/names.ts';
import type { NetworkPolicy } from '../../api/objects.ts';
import { resources } from '../../api/resources.ts';
import { ForeignObjectError, type Applier } from '../../runtime/applier.ts';
import type { KubeClient } from '../../runtime/client.ts';
import { ApiError } from '../../runtime/errors.ts';
import { forEachBounded } from '../../runtime/parallel.ts';
import type { Problem } from '../requirements.ts';
import type { EgressPlan, PlannedPolicy } from './plan.ts';
import { namesPods, selectorText } from './pod-selector.ts';
import { alreadyGranted } from './rules.ts';

export interface ApplyEgressOptions {
  client: Pick<KubeClient, 'list'>;
  applier: Applier;
  /** The ServiceAccount that the automation runs as. */
  serviceAccountName: string;
  signal: AbortSignal;
}

export interface EgressOutcome {
  /** Names of policies. */
  created: readonly string[];
  updated: readonly string[];
  removed: readonly string[];
  /** What no retry would cure. */
  problems: readonly Problem[];
  /** What a retry may cure. */
  errors: readonly unknown[];
  /** Policies still stand for pods that aren't the targets' any more: look again. */
  isWaiting: boolean;
}

type Action = 'none' | 'created' | 'updated' | 'removed' | 'waiting';

interface Step {
  action: Action;
  problem?: Problem;
}

const parallelism = 8;

/**
 * Makes the plan true: what is new first, then what changed, and when all of it stands, what is
 * obsolete goes. Never throws; every failure is in the outcome, and the other policies are applied
 * all the same.
 */
export async function applyEgress(
  plan: EgressPlan,
  options: ApplyEgressOptions,
): Promise<EgressOutcome> {
  const steps: { name: string; step: Step }[] = [];
  const errors: unknown[] = [];
  const run = async (
    policies: readonly PlannedPolicy[],
    task: (policy: PlannedPolicy) => Promise<Step>,
  ): Promise<void> => {
    for (const outcome of await forEachBounded(policies, parallelism, task)) {
      if ('error' in outcome) errors.push(outcome.error);
      else steps.push({ name: outcome.item.desired.metadata.name, step: outcome.result });
    }
  };

  const ensure = (policy: PlannedPolicy): Promise<Step> => ensurePolicy(policy, options);
  await run(
    plan.policies.filter(({ live }) => live === undefined),
    ensure,
  );
  await run(
    plan.policies.filter(({ live }) => live !== undefined),
    ensure,
  );
  const isInPlace = errors.length === 0 && steps.every(({ step }) => step.problem === undefined);
  await run(plan.obsolete, (policy) =>
    isInPlace ? retirePolicy(policy, options) : keepPolicy(policy, options),
  );

  const named = (action: Action): string[] =>
    steps.filter(({ step }) => step.action === action).map(({ name }) => name);
  return {
    created: named('created'),
    updated: named('updated'),
    removed: named('removed'),
    problems: steps.flatMap(({ step }) => step.problem ?? []),
    errors,
    isWaiting: named('waiting').length > 0,
  };
}

async function ensurePolicy(policy: PlannedPolicy, options: ApplyEgressOptions): Promise<Step> {
  try {
    return await write(policy, options);
  } catch (error) {
    if (error instanceof ForeignObjectError) {
      return { action: 'none', problem: { reason: 'ForeignObject', message: error.message } };
    }
    if (!(error instanceof ApiError) || error.status !== 422) throw error;
    // Without a policy these pods could reach everything: one that says less is better than none.
    const { desired, live } = policy;
    const egress = alreadyGranted(desired.spec.egress ?? [], live?.spec.egress ?? []);
    const closed = { ...desired, spec: { ...desired.spec, egress, ingress: [] } };
    return {
      ...(await write({ desired: closed, live }, options)),
      problem: {
        reason: 'EgressRefused',
        message: `The API server refuses the allowlist, so what wasn't allowed before isn't now: ${error.message.slice(0, 1024)}`,
      },
    };
  }
}

/** Of a policy that is to go, as long as something doesn't stand yet. */
async function keepPolicy(policy: PlannedPolicy, options: ApplyEgressOptions): Promise<Step> {
  if (!namesPods(policy.desired.spec.podSelector)) return { action: 'waiting' };
  await write(policy, options);
  return { action: 'waiting' };
}

async function retirePolicy(policy: PlannedPolicy, options: ApplyEgressOptions): Promise<Step> {
  const { desired, live = desired } = policy;
  if (await isInUse(desired, options)) return keepPolicy(policy, options);
  const { applier, signal } = options;
  const removed = await applier.remove(resources.networkPolicies, live, { signal });
  return { action: removed ? 'removed' : 'none' };
}

/**
 * Whether the policy still holds back pods of the automation that the one for its identity doesn't:
 * those from before the label. Pods of a workload that was deleted run on until their grace is over,
 * or as orphans for ever.
 */
async function isInUse(
  { metadata, spec }: NetworkPolicy,
  { client, serviceAccountName, signal }: ApplyEgressOptions,
): Promise<boolean> {
  if (!namesPods(spec.podSelector)) return false;
  const pods = await client.list(resources.pods, {
    ...(metadata.namespace !== undefined && { namespace: metadata.namespace }),
    labelSelector: `${selectorText(spec.podSelector)},${label.identity}!=${serviceAccountName}`,
    fieldSelector: `spec.serviceAccountName=${serviceAccountName},status.phase!=Succeeded,status.phase!=Failed`,
    signal,
  });
  return pods.length > 0;
}

async function write(
  { desired, live }: PlannedPolicy,
  { applier, signal }: ApplyEgressOptions,
): Promise<Step> {
  const { action } = await applier.ensure(resources.networkPolicies, desired, live, { signal });
  return { action };
}
