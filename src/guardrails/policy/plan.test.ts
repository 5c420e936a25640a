import { describe, expect, it } from 'vitest';
import type { AutomationIdentitySpec } from '../../api/automation-identity.ts';
import { timestamp } from '../../api/conditions.ts';
import type { GuardrailPolicySpec } from '../../api/guardrail-policy.ts';
import { label } from '../../api/names.ts';
import type { Condition, Namespace } from '../../api/objects.ts';
import type { WorkflowSpec } from '../../api/workflow.ts';
import {
  approversIn,
  environmentUnknown,
  identityViolations,
  outcomeOf,
  policyInForce,
  quorumsIn,
  tierOf,
  workflowViolations,
} from './plan.ts';

const policy = (spec: unknown): ReturnType<typeof policyInForce> =>
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as it may be stored
  policyInForce({ spec: spec as GuardrailPolicySpec });
const without = policyInForce(undefined);

const namespace = (environment: string): Namespace => ({
  metadata: { name: 'finance', labels: { [label.environment]: environment } },
});

describe('the tier of an environment', () => {
  const mapped = policy({ environments: [{ name: 'sandbox', tier: 'dev' }] });

  it.each([
    ['dev', 'dev', without],
    ['prod', 'prod', mapped],
    ['staging', 'test', without],
    ['production', 'prod', without],
    ['sandbox', 'dev', mapped],
    ['staging', undefined, mapped],
    ['sandbox', undefined, without],
  ] as const)('%s is %s', (environment, tier, of) => {
    expect(tierOf(namespace(environment), of)).toBe(tier);
    const problem = environmentUnknown(namespace(environment), of);
    expect(problem?.reason).toBe(tier === undefined ? 'EnvironmentUnknown' : undefined);
  });

  it('is nothing to ask for where a namespace is not guarded, which is said elsewhere', () => {
    expect(environmentUnknown({ metadata: { name: 'finance' } }, without)).toBeUndefined();
  });
});

describe('approvals by risk', () => {
  const laxInDev = policy({
    tiers: [
      { name: 'dev', approvals: { medium: 0, high: 1 } },
      { name: 'prod', approvals: { low: 1, medium: 2, high: 3 } },
    ],
  });

  it.each([
    ['prod', without, [0, 1, 2]],
    ['dev', laxInDev, [0, 0, 1]],
    ['test', laxInDev, [0, 1, 2]],
    ['prod', laxInDev, [1, 2, 3]],
    [undefined, laxInDev, [1, 2, 3]],
    [undefined, without, [0, 1, 2]],
    ['dev', policy({ tiers: [{ name: 'dev', approvals: { high: 'none' } }] }), [0, 1, 2]],
    ['dev', policy('nonsense'), [0, 1, 2]],
  ] as const)('in %s', (tier, of, [low, medium, high]) => {
    expect(quorumsIn(of, tier)).toEqual({ Low: low, Medium: medium, High: high });
  });

  it('count of the groups of the tier, and of those of prod where nobody says what it is', () => {
    const approvers = [{ risk: 'High', groups: ['security'] }];
    const of = policy({ tiers: [{ name: 'test' }, { name: 'prod', approvers }] });
    expect(approversIn(of, 'prod', 'High')?.groups).toEqual(['security']);
    expect(approversIn(of, undefined, 'High')?.groups).toEqual(['security']);
    expect(approversIn(of, 'test', 'High')).toBeUndefined();
    expect(approversIn(of, 'prod', 'Low')).toBeUndefined();
  });

  it('are those without a policy where the stored one can not be read, and it says where', () => {
    expect(policy({ tiers: 'all' }).malformed).toEqual(['spec.tiers']);
    expect(laxInDev.malformed).toEqual([]);
  });
});

const strict = policy({
  tiers: [
    {
      name: 'prod',
      required: ['Ticket', 'Timeout'],
      ceilings: {
        tokenLifetime: '30m',
        rotationInterval: '720h',
        reviewInterval: '4380h',
        egressPrefixIPv4: 24,
        egressPrefixIPv6: 64,
      },
    },
  ],
});

const workflow = (spec: Partial<WorkflowSpec>): WorkflowSpec => ({
  change: { ticket: 'FIN-1' },
  limits: { timeout: '1h', onBreach: 'Hold' },
  targets: [{ group: 'apps', kind: 'Deployment', name: 'poster' }],
  ...spec,
});

const identity = (spec: Partial<AutomationIdentitySpec>): AutomationIdentitySpec => ({
  accessReview: { every: '2160h' },
  ...spec,
});

const token = { name: 'vault', audience: 'https://vault.example.com' };
const password = { name: 'db', type: 'Password' } as const;

describe('what goes beyond a ceiling', () => {
  it.each<[string[], Partial<WorkflowSpec>]>([
    [[], {}],
    [[], { egress: [{ cidr: '203.0.113.0/24', reason: 'ERP' }] }],
    [['ceilings.egressPrefixIPv4'], { egress: [{ cidr: '10.0.0.0/8', reason: 'all' }] }],
    [[], { egress: [{ cidr: '2001:db8::/64', reason: 'ERP' }] }],
    [['ceilings.egressPrefixIPv6'], { egress: [{ cidr: '2001:db8::/32', reason: 'all' }] }],
    [[], { egress: [{ peer: 'SameNamespace', reason: 'its database' }] }],
    [['required'], { change: { ticket: ' ' } }],
    [['required'], { limits: { onBreach: 'Hold' } }],
  ])('%j of a Workflow with %j', (expected, spec) => {
    const found = workflowViolations(workflow(spec), strict, 'prod', true);
    expect(found.map(({ ceiling }) => ceiling)).toEqual(expected);
    expect(workflowViolations(workflow(spec), strict, 'dev', true)).toEqual([]);
    expect(workflowViolations(workflow(spec), strict, undefined, true)).toEqual([]);
  });

  it.each<[string[], Partial<AutomationIdentitySpec>]>([
    [[], {}],
    [[], { tokens: [{ ...token, expirationSeconds: 1800 }] }],
    [['ceilings.tokenLifetime'], { tokens: [{ ...token, expirationSeconds: 1801 }] }],
    [['ceilings.tokenLifetime'], { tokens: [token] }],
    [[], { secrets: [{ ...password, rotation: { every: '720h' } }] }],
    [['ceilings.rotationInterval'], { secrets: [{ ...password, rotation: { every: '721h' } }] }],
    [
      ['ceilings.rotationInterval'],
      { secrets: [{ ...password, rotation: { schedule: '0 3 * * SUN' } }] },
    ],
    [['ceilings.rotationInterval'], { secrets: [password] }],
    [['ceilings.reviewInterval'], { accessReview: { every: '4381h' } }],
  ])('%j of an identity with %j', (expected, spec) => {
    const found = identityViolations(identity(spec), strict, 'prod', true);
    expect(found.map(({ ceiling }) => ceiling)).toEqual(expected);
    expect(identityViolations(identity(spec), strict, 'test', true)).toEqual([]);
  });

  it('is one of which nobody knows who asked for it, where that is asked for', () => {
    const asking = policy({ tiers: [{ name: 'prod', required: ['Requester'] }] });
    const found = [
      workflowViolations(workflow({}), asking, 'prod', false),
      identityViolations(identity({}), asking, 'prod', false),
    ];
    for (const violations of found) {
      expect(violations).toMatchObject([{ ceiling: 'required' }]);
      expect(violations[0]?.message).toContain('nobody is known to have asked for it');
    }
    expect(workflowViolations(workflow({}), asking, 'prod', true)).toEqual([]);
    expect(identityViolations(identity({}), asking, 'prod', true)).toEqual([]);
    expect(workflowViolations(workflow({}), strict, 'prod', false)).toEqual([]);
    expect(identityViolations(identity({}), strict, 'prod', false)).toEqual([]);
  });

  it('is a review that nobody asks for, too', () => {
    expect(identityViolations({}, strict, 'prod', true)).toMatchObject([
      { ceiling: 'ceilings.reviewInterval' },
    ]);
  });
});

describe('what comes of it', () => {
  const now = Date.UTC(2030, 0, 8);
  const day = 86_400_000;
  const violations = [{ ceiling: 'ceilings.tokenLifetime', message: 'tokens live too long' }];
  const since = (at: number): Condition[] => [
    {
      type: 'PolicyViolation',
      status: 'True',
      reason: 'GracePeriod',
      message: '',
      lastTransitionTime: timestamp(at),
    },
  ];
  const tiers = strict.spec.tiers;

  it.each<[string, boolean, object, Condition[]]>([
    ['Enforced', true, {}, []],
    ['Reported', false, { enforcement: 'Warn' }, []],
    ['Reported', false, { enforcement: 'Audit' }, since(now - 30 * day)],
    ['GracePeriod', false, { gracePeriod: '168h' }, []],
    ['GracePeriod', false, { gracePeriod: '168h' }, since(now - 6 * day)],
    ['Enforced', true, { gracePeriod: '168h' }, since(now - 7 * day)],
  ])('%s, held: %s, with %j', (reason, isHeld, spec, before) => {
    const of = policy({ ...spec, tiers });
    const outcome = outcomeOf(violations, of, 'prod', before, now);
    expect(outcome.finding).toMatchObject({ status: 'True', reason });
    expect(outcome.finding?.message).toContain('ceilings.tokenLifetime: tokens live too long');
    expect(outcome.problem?.reason).toBe(isHeld ? 'PolicyViolation' : undefined);
    const ends = reason === 'GracePeriod';
    expect(outcome.changesAt !== undefined).toBe(ends);
  });

  it('ends a period of grace at its time', () => {
    const of = policy({ gracePeriod: '168h', tiers });
    expect(outcomeOf(violations, of, 'prod', since(now - day), now).changesAt).toBe(now + 6 * day);
  });

  it('is a condition only where there is something to keep to', () => {
    expect(outcomeOf([], strict, 'prod', [], now).finding).toMatchObject({
      status: 'False',
      reason: 'WithinPolicy',
    });
    expect(outcomeOf([], strict, 'dev', [], now).finding).toBeUndefined();
    expect(outcomeOf([], without, 'prod', [], now).finding).toBeUndefined();
  });
});
