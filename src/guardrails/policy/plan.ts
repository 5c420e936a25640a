import type { AutomationIdentitySpec } from '../../api/automation-identity.ts';
import { maxTokenSeconds } from '../../api/automation-identity.ts';
import { conditionOf, type Finding } from '../../api/conditions.ts';
import { formatDuration, parseDuration } from '../../api/duration.ts';
import {
  guardrailPolicySpecSchema,
  policyInForceName,
  tiers,
  type Approvers,
  type Enforcement,
  type GuardrailPolicy,
  type GuardrailPolicySpec,
  type Requirable,
  type RequirableField,
  type Tier,
  type TierRules,
} from '../../api/guardrail-policy.ts';
import { label } from '../../api/names.ts';
import type { Condition, Namespace } from '../../api/objects.ts';
import { defaultQuorums, type Quorums, type Risk, type WorkflowSpec } from '../../api/workflow.ts';
import { isBlank, isGuarded, type Problem } from '../requirements.ts';
import { some } from '../wording.ts';

/** What holds where there is no policy, or none that can be read. */
export const defaultPolicy: GuardrailPolicySpec = {
  environments: [
    { name: 'development', tier: 'dev' },
    { name: 'qa', tier: 'test' },
    { name: 'staging', tier: 'test' },
    { name: 'production', tier: 'prod' },
  ],
};

/** The policy that is in force, and why it is that one. */
export interface EffectivePolicy {
  spec: GuardrailPolicySpec;
  /** Places in the stored one that can't be read; then what holds without a policy does. */
  malformed: readonly string[];
}

/** @param stored the GuardrailPolicy of the name that counts; it may hold anything */
export function policyInForce(stored: Pick<GuardrailPolicy, 'spec'> | undefined): EffectivePolicy {
  if (stored === undefined) return { spec: defaultPolicy, malformed: [] };
  const { success, data, error } = guardrailPolicySpecSchema.safeParse(stored.spec);
  if (success) return { spec: data, malformed: [] };
  const places = error.issues.slice(0, 5).map(({ path }) => ['spec', ...path].join('.'));
  return { spec: defaultPolicy, malformed: [...new Set(places)] };
}

/** @returns what the environment of a namespace counts as; `undefined` where nothing says so */
export function tierOf(
  namespace: Namespace | undefined,
  { spec }: Pick<EffectivePolicy, 'spec'>,
): Tier | undefined {
  const environment = namespace?.metadata.labels?.[label.environment];
  return (
    tiers.find((tier) => tier === environment) ??
    spec.environments?.find(({ name }) => name === environment)?.tier
  );
}

/** A guarded namespace whose environment counts as nothing that has rules. */
export function environmentUnknown(
  namespace: Namespace | undefined,
  policy: EffectivePolicy,
): Problem | undefined {
  if (!isGuarded(namespace) || tierOf(namespace, policy) !== undefined) return undefined;
  const { name, labels = {} } = namespace?.metadata ?? { name: '' };
  const environment = labels[label.environment] ?? '';
  return {
    reason: 'EnvironmentUnknown',
    message: `Unknown environment ${environment} of namespace ${name}: label it dev, test or prod, or say what ${environment} counts as in spec.environments of the GuardrailPolicy ${policyInForceName}.`,
  };
}

function rulesOf({ spec }: EffectivePolicy, tier: Tier): TierRules | undefined {
  return spec.tiers?.find(({ name }) => name === tier);
}

/**
 * Approvals that each risk asks for in a tier.
 *
 * @param tier `undefined`: the most that any tier asks for
 */
export function quorumsIn(policy: EffectivePolicy, tier: Tier | undefined): Quorums {
  if (tier === undefined) {
    const all = tiers.map((one) => quorumsIn(policy, one));
    const most = (risk: Risk): number => Math.max(...all.map((quorums) => quorums[risk]));
    return { Low: most('Low'), Medium: most('Medium'), High: most('High') };
  }
  const { low, medium, high } = rulesOf(policy, tier)?.approvals ?? {};
  return {
    Low: low ?? defaultQuorums.Low,
    Medium: medium ?? defaultQuorums.Medium,
    High: high ?? defaultQuorums.High,
  };
}

/**
 * Groups whose approvals count, by risk and tier.
 *
 * @param tier `undefined`: nobody says, and those of `prod` count
 * @returns `undefined` where everybody's do who may approve
 */
export function approversIn(
  policy: EffectivePolicy,
  tier: Tier | undefined,
  risk: Risk,
): Approvers | undefined {
  return rulesOf(policy, tier ?? 'prod')?.approvers?.find((one) => one.risk === risk);
}

/** Something that a policy doesn't allow: which of its fields says so, and a sentence. */
export interface Violation {
  /** Field of the policy, such as `ceilings.tokenLifetime`. */
  ceiling: string;
  message: string;
}

type Ceilings = NonNullable<TierRules['ceilings']>;

/**
 * What of a Workflow a policy doesn't allow. Admission refuses the same
 * (`src/admission/guardrail-policy.ts`); this finds what stood before.
 *
 * @param isRequesterKnown whether it says who was authenticated when its spec was changed
 */
export function workflowViolations(
  spec: WorkflowSpec,
  policy: EffectivePolicy,
  tier: Tier | undefined,
  isRequesterKnown: boolean,
): Violation[] {
  const rules = tier && rulesOf(policy, tier);
  if (rules === undefined) return [];
  const { ceilings = {}, required = [] } = rules;
  return [
    ...tooWide(spec, ceilings),
    ...missingFields(spec, required),
    ...unknownRequester(required, isRequesterKnown),
  ];
}

function tooWide({ egress = [] }: WorkflowSpec, ceilings: Ceilings): Violation[] {
  const wider = (ceiling: 'egressPrefixIPv4' | 'egressPrefixIPv6'): Violation[] => {
    const shortest = ceilings[ceiling];
    if (shortest === undefined) return [];
    const found = egress.flatMap(({ cidr = '' }) => {
      const [address = '', prefix] = cidr.split('/');
      const isOfFamily = address.includes(':') === (ceiling === 'egressPrefixIPv6');
      return isOfFamily && prefix !== undefined && Number(prefix) < shortest ? [cidr] : [];
    });
    if (found.length === 0) return [];
    return [
      {
        ceiling: `ceilings.${ceiling}`,
        message: `egress to ${some(found)} is wider than /${shortest}`,
      },
    ];
  };
  return [...wider('egressPrefixIPv4'), ...wider('egressPrefixIPv6')];
}

/** Where each field that can be asked for stands in the spec. */
const places: Readonly<
  Record<RequirableField, { path: string; value: (spec: WorkflowSpec) => unknown }>
> = {
  Description: { path: 'spec.description', value: ({ description }) => description },
  Version: { path: 'spec.change.version', value: ({ change }) => change?.version },
  ChangeReason: { path: 'spec.change.reason', value: ({ change }) => change?.reason },
  RequestedBy: { path: 'spec.change.requestedBy', value: ({ change }) => change?.requestedBy },
  Ticket: { path: 'spec.change.ticket', value: ({ change }) => change?.ticket },
  Timeout: { path: 'spec.limits.timeout', value: ({ limits }) => limits?.timeout },
};

function missingFields(spec: WorkflowSpec, required: readonly Requirable[]): Violation[] {
  const missing = required
    .filter((field) => field !== 'Requester')
    .filter((field) => isBlank(places[field].value(spec)));
  if (missing.length === 0) return [];
  const paths = missing.map((field) => places[field].path);
  return [{ ceiling: 'required', message: `missing ${paths.join(', ')}` }];
}

function unknownRequester(required: readonly Requirable[], isKnown: boolean): Violation[] {
  if (isKnown || !required.includes('Requester')) return [];
  const message =
    "nobody is known to have asked for it; have its spec changed, with the annotation changed-by where admission doesn't stamp it";
  return [{ ceiling: 'required', message }];
}

/** The same of an AutomationIdentity. */
export function identityViolations(
  spec: AutomationIdentitySpec,
  policy: EffectivePolicy,
  tier: Tier | undefined,
  isRequesterKnown: boolean,
): Violation[] {
  const { ceilings = {}, required = [] } = (tier && rulesOf(policy, tier)) ?? {};
  return [
    ...tokensLiveTooLong(spec, ceilings),
    ...secretsRotateTooSeldom(spec, ceilings),
    ...reviewedTooSeldom(spec, ceilings),
    ...unknownRequester(required, isRequesterKnown),
  ];
}

function tokensLiveTooLong({ tokens = [] }: AutomationIdentitySpec, of: Ceilings): Violation[] {
  const most = millisecondsOf(of.tokenLifetime);
  const longer = tokens.filter(
    ({ expirationSeconds = maxTokenSeconds }) => expirationSeconds * 1000 > most,
  );
  if (longer.length === 0) return [];
  return [
    {
      ceiling: 'ceilings.tokenLifetime',
      message: `tokens ${some(longer.map(({ name }) => name))} live longer than ${formatDuration(most)}; write expirationSeconds: ${Math.floor(most / 1000)}, or less`,
    },
  ];
}

/** How long a schedule can let it rest, admission couldn't tell: there has to be `every`. */
function secretsRotateTooSeldom(
  { secrets = [] }: AutomationIdentitySpec,
  of: Ceilings,
): Violation[] {
  const most = millisecondsOf(of.rotationInterval);
  if (most === Infinity) return [];
  const slower = secrets.filter(({ rotation }) => millisecondsOf(rotation?.every) > most);
  if (slower.length === 0) return [];
  return [
    {
      ceiling: 'ceilings.rotationInterval',
      message: `secrets ${some(slower.map(({ name }) => name))} are not rotated every ${formatDuration(most)}; write that, or less, as rotation.every`,
    },
  ];
}

function reviewedTooSeldom({ accessReview }: AutomationIdentitySpec, of: Ceilings): Violation[] {
  const most = millisecondsOf(of.reviewInterval);
  if (most === Infinity || millisecondsOf(accessReview?.every) <= most) return [];
  return [
    {
      ceiling: 'ceilings.reviewInterval',
      message: `it is not reviewed every ${formatDuration(most)}; write that, or less, as accessReview.every`,
    },
  ];
}

/** @returns milliseconds; without a duration, no end */
function millisecondsOf(duration: string | undefined): number {
  return (duration === undefined ? undefined : parseDuration(duration)) ?? Infinity;
}

/** What comes of violations: the condition, and whether they hold. */
export interface PolicyOutcome {
  /** `undefined` where the policy sets no ceilings there. */
  finding: Finding | undefined;
  /** Nothing new is granted for it. */
  problem: Problem | undefined;
  /** Milliseconds since the epoch at which a period of grace ends. */
  changesAt: number | undefined;
}

/**
 * What a policy makes of violations that stand.
 *
 * @param before conditions that stood before, which say since when
 * @param now milliseconds since the epoch
 */
export function outcomeOf(
  violations: readonly Violation[],
  policy: EffectivePolicy,
  tier: Tier | undefined,
  before: readonly Condition[] | undefined,
  now: number,
): PolicyOutcome {
  const rules = tier && rulesOf(policy, tier);
  const former = conditionOf(before, 'PolicyViolation');
  if (tier === undefined || (rules?.ceilings ?? rules?.required) === undefined) {
    return { finding: undefined, problem: undefined, changesAt: undefined };
  }
  if (violations.length === 0) {
    return {
      finding: {
        type: 'PolicyViolation',
        status: 'False',
        reason: 'WithinPolicy',
        message: `It keeps to what the GuardrailPolicy asks for in ${tier}.`,
      },
      problem: undefined,
      changesAt: undefined,
    };
  }
  const enforcement: Enforcement = policy.spec.enforcement ?? 'Enforce';
  const since = former?.status === 'True' ? Date.parse(former.lastTransitionTime) || now : now;
  const grace = policy.spec.gracePeriod === undefined ? 0 : millisecondsOf(policy.spec.gracePeriod);
  const isHeld = enforcement === 'Enforce' && since + grace <= now;
  const list = violations.map(({ ceiling, message }) => `${ceiling}: ${message}`).join('; ');
  const toWhom = enforcement === 'Enforce' ? '' : ` It is only reported (${enforcement}).`;
  const message = `Beyond what the GuardrailPolicy ${policyInForceName} allows in ${tier}: ${list}.${toWhom}`;
  return {
    finding: {
      type: 'PolicyViolation',
      status: 'True',
      reason: isHeld ? 'Enforced' : enforcement === 'Enforce' ? 'GracePeriod' : 'Reported',
      message,
    },
    problem: isHeld ? { reason: 'PolicyViolation', message } : undefined,
    changesAt: enforcement === 'Enforce' && !isHeld ? since + grace : undefined,
  };
}
