import type { Finding } from '../../api/conditions.ts';
import type { Breach, CountedLimit, Ledger } from '../../api/limits.ts';
import { annotation } from '../../api/names.ts';
import type { ObjectMeta } from '../../api/objects.ts';
import type { Workflow } from '../../api/workflow.ts';
import { fieldOf, type Problem } from '../requirements.ts';

/** One sentence for each limit that is breached: which one, and the numbers. */
export function sentenceOf(breaches: readonly Breach[]): string {
  return breaches
    .map(({ limit, counted, allowed, of = counted }) => {
      if (limit === 'maxFailureRate') {
        return `${limit}: ${counted} of the last ${of} runs failed, and ${allowed} % may.`;
      }
      const { verb, end } = words[limit];
      return `${limit}: ${counted} ${counted === 1 ? 'run' : 'runs'} ${verb}, and ${allowed} ${end}.`;
    })
    .join(' ');
}

const words: Record<Exclude<CountedLimit, 'maxFailureRate'>, { verb: string; end: string }> = {
  maxConcurrentRuns: { verb: 'were under way at a time', end: 'may be' },
  maxRunsPerHour: { verb: 'were created within an hour', end: 'may be' },
  maxConsecutiveFailures: { verb: 'failed one after the other', end: 'may' },
};

/**
 * Whether a Workflow is held by what is breached; otherwise its kill switch stops it. A spec that
 * can't be read holds.
 */
export function isHeld(
  { spec }: Pick<Workflow, 'spec'>,
  { breaches = [] }: Pick<Ledger, 'breaches'> = {},
): boolean {
  return breaches.length > 0 && fieldOf(fieldOf(spec, 'limits'), 'onBreach') !== 'Kill';
}

/** What holds the Workflow, among the things that are missing. */
export function limitBreached(workflow: Workflow, ledger: Ledger | undefined): Problem | undefined {
  if (!isHeld(workflow, ledger)) return undefined;
  const { breaches = [] } = ledger ?? {};
  return {
    reason: 'LimitBreached',
    message: `${sentenceOf(breaches)} ${wayOut(breaches, workflow.metadata)}`,
  };
}

/** The condition `LimitBreached`, true when it is bad; `undefined` where nothing is counted. */
export function limitFinding(workflow: Workflow, ledger: Ledger | undefined): Finding | undefined {
  if (ledger === undefined) return undefined;
  const { breaches = [] } = ledger;
  const [first, ...others] = breaches;
  if (first === undefined) {
    const message = 'No limit is breached.';
    return { type: 'LimitBreached', status: 'False', reason: 'WithinLimits', message };
  }
  const { name, namespace = '' } = workflow.metadata;
  const next = isHeld(workflow, ledger)
    ? `No new run starts. ${wayOut(breaches, workflow.metadata)}`
    : `The kill switch is engaged for it. To release it: kubectl guardrails release ${name} -n ${namespace} --reason "…"`;
  return {
    type: 'LimitBreached',
    status: 'True',
    reason: others.length > 0 ? 'SeveralLimits' : reasonOf(first),
    message: `${sentenceOf(breaches)} Since ${first.since}. ${next}`,
  };
}

function reasonOf({ limit }: Breach): string {
  const reasons: Record<CountedLimit, { reason: string }> = {
    maxConcurrentRuns: { reason: 'TooManyConcurrentRuns' },
    maxRunsPerHour: { reason: 'TooManyRunsPerHour' },
    maxConsecutiveFailures: { reason: 'TooManyConsecutiveFailures' },
    maxFailureRate: { reason: 'FailureRateTooHigh' },
  };
  return reasons[limit].reason;
}

function wayOut(
  breaches: readonly Breach[],
  { name, namespace = '' }: Pick<ObjectMeta, 'name' | 'namespace'>,
): string {
  const command = `kubectl annotate awf ${name} -n ${namespace} ${annotation.acknowledge}="why it may go on"`;
  const falls = breaches.every(
    ({ limit }) => limit === 'maxConcurrentRuns' || limit === 'maxRunsPerHour',
  );
  return falls
    ? `It ends by itself when there are fewer than may be; at once: ${command}`
    : `To end the hold: ${command}`;
}
