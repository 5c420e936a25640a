import { maxTokenSeconds } from '../api/automation-identity.ts';
import { policyInForceName, tiers, type RequirableField } from '../api/guardrail-policy.ts';
import { annotation, label } from '../api/names.ts';
import { resources, type Resource } from '../api/resources.ts';
import { approvalByPolicy, isPerRun, needsApproval, validatesWaiver } from './approval.ts';
import { annotationOf, groups, hasAnnotation, hasLabel, isUpdate, labelOf, user } from './cel.ts';
import {
  mutating,
  rule,
  validating,
  type AdmissionObject,
  type NamedParameter,
  type Validation,
} from './policies.ts';

const { workflows, automationIdentities, approvals } = resources;

/** Without a policy nothing here says anything; what holds without one, others say. */
export const inForce: NamedParameter = { kind: 'GuardrailPolicy', name: policyInForceName };

/** What a GuardrailPolicy asks for: more approvals, and that nothing goes beyond its ceilings. */
export function guardrailPolicyPolicies(): AdmissionObject[] {
  return [
    ...markWorkflow(),
    ...validateMark(),
    ...stampGroups(),
    ...ceilings(
      'workflows',
      workflows,
      [...egressBreadth, required],
      [...missingFields, missingRequester],
    ),
    ...ceilings(
      'identities',
      automationIdentities,
      [tokenLifetime, rotationInterval, reviewInterval, required],
      [missingRequester],
    ),
  ];
}

/** The strictest, where nothing says what an environment counts as; the operator holds it anyway. */
const strictest = 'prod';

const isTier = `['${tiers.join("', '")}']`;

/**
 * Variables of a policy with that parameter: the environment of the namespace of the request, and
 * what it counts as. Match conditions don't see it.
 */
export const tierOfNamespace = {
  environment: labelOf('namespaceObject', label.environment),
  tier: `variables.environment in ${isTier} ? variables.environment : (params.spec.?environments.orValue([]).filter(e, e.name == variables.environment).map(e, e.tier) + ['${strictest}'])[0]`,
};

/** Variables: what holds there. */
const rulesOfTier = {
  ...tierOfNamespace,
  rules: 'params.spec.?tiers.orValue([]).filter(t, t.name == variables.tier)',
};

/** Expression: approvals that the policy asks for; the operator counts by the same (`quorumsIn`). */
function quorum(of: string): string {
  const asks = (field: string, otherwise: number): string =>
    `(variables.rules.size() > 0 ? variables.rules[0].?approvals.?${field}.orValue(${otherwise}) : ${otherwise})`;
  const risk = `${of}.spec.?risk.orValue('Low')`;
  const byRisk = `(${risk} == 'High' ? ${asks('high', 2)} : ${risk} == 'Medium' || ${isPerRun(of)} ? ${asks('medium', 1)} : ${asks('low', 0)})`;
  const asked = `${of}.spec.?approval.?required.orValue(0)`;
  return `(${asked} > ${byRisk} ? ${asked} : ${byRisk})`;
}

const marked = {
  rules: [rule(workflows, ['CREATE', 'UPDATE'])],
  parameter: inForce,
  variables: { ...rulesOfTier, quorum: quorum('object') },
};

/**
 * What needs approval by its risk is marked without a policy. A mark that is left when the policy
 * asks for less does no harm: the operator starts its pods.
 */
function markWorkflow(): AdmissionObject[] {
  return mutating({
    name: 'policy-approval-mark',
    description: 'Labels a Workflow that needs approval by the GuardrailPolicy alone.',
    ...marked,
    conditions: { 'not-by-risk': `!${needsApproval}` },
    patchType: 'ApplyConfiguration',
    expression: `variables.quorum > 0 ? Object{metadata: Object.metadata{labels: {'${label.approval}': '${approvalByPolicy}'}}} : Object{}`,
  });
}

function validateMark(): AdmissionObject[] {
  const before = `(${isUpdate} ? variables.quorumBefore : 0)`;
  return validating({
    name: 'policy-approval-marks',
    description:
      'The mark of a Workflow that needs approval by the GuardrailPolicy is there, and its need is not lowered.',
    ...marked,
    variables: { ...marked.variables, quorumBefore: quorum('oldObject') },
    validations: [
      {
        // The policy may have come later: until the operator has marked it, labels of a kill get through.
        expression: `variables.quorum == 0 || ${hasLabel('object', label.approval)} || (${isUpdate} && !${hasLabel('oldObject', label.approval)} && dyn(object).?spec == dyn(oldObject).?spec)`,
        message: `the GuardrailPolicy asks for approval of this Workflow: write the label ${label.approval}: ${approvalByPolicy}, or leave it out where admission adds it`,
      },
      validatesWaiver('variables.quorum', before),
    ],
  });
}

/** Expression: whether the policy names a group anywhere. Where it counts, the operator knows. */
const isNamed = (group: string): string =>
  `params.spec.?tiers.orValue([]).exists(t, t.?approvers.orValue([]).exists(a, ${group} in a.groups))`;

/**
 * Of the approver's groups those that the policy names, so that the stamp is small. That it is true,
 * `approval-create` says without a parameter.
 */
function stampGroups(): AdmissionObject[] {
  return mutating({
    name: 'policy-approver-groups',
    description:
      'Stamps a new Approval with the groups of its approver that the GuardrailPolicy names.',
    rules: [rule(approvals, ['CREATE'])],
    parameter: inForce,
    // An apply configuration can't replace a list, and what the request said of it must not stay.
    patchType: 'JSONPatch',
    expression: `[JSONPatch{op: 'add', path: '/spec/approverGroups', value: ${groups}.filter(g, ${isNamed('g')})}]`,
  });
}

/** A ceiling: which field of the policy, whether the object keeps to it, and what to write. */
interface Ceiling {
  name: string;
  /** Expression. */
  isKept: string;
  /** Expression: a text. */
  remedy: string;
}

const ceiling = (name: string): string => `variables.ceilings.${name}`;

/** A ceiling that isn't set is kept. */
function set(name: string, isKept: string): string {
  return `!variables.ceilings.?${name}.hasValue() || ${isKept}`;
}

const tokenLifetime: Ceiling = {
  name: 'tokenLifetime',
  isKept: set(
    'tokenLifetime',
    `object.spec.?tokens.orValue([]).all(t, t.?expirationSeconds.orValue(${maxTokenSeconds}) <= duration(${ceiling('tokenLifetime')}).getSeconds())`,
  ),
  remedy: `'tokens live at most ' + ${ceiling('tokenLifetime')} + ': write expirationSeconds: ' + string(duration(${ceiling('tokenLifetime')}).getSeconds()) + ', or less'`,
};

const rotationInterval: Ceiling = {
  name: 'rotationInterval',
  isKept: set(
    'rotationInterval',
    `object.spec.?secrets.orValue([]).all(s, s.?rotation.?every.hasValue() && duration(s.rotation.every) <= duration(${ceiling('rotationInterval')}))`,
  ),
  remedy: `'every secret is rotated at least every ' + ${ceiling('rotationInterval')} + ': write that, or less, as rotation.every'`,
};

const reviewInterval: Ceiling = {
  name: 'reviewInterval',
  isKept: set(
    'reviewInterval',
    `(object.spec.?accessReview.?every.hasValue() && duration(object.spec.accessReview.every) <= duration(${ceiling('reviewInterval')}))`,
  ),
  remedy: `'an identity is reviewed at least every ' + ${ceiling('reviewInterval')} + ': write that, or less, as spec.accessReview.every'`,
};

const egressBreadth = ([4, 6] as const).map((family): Ceiling => {
  const name = `egressPrefixIPv${family}`;
  return {
    name,
    isKept: set(
      name,
      `object.spec.?egress.orValue([]).all(e, !has(e.cidr) || !isCIDR(e.cidr) || cidr(e.cidr).ip().family() != ${family} || cidr(e.cidr).prefixLength() >= ${ceiling(name)})`,
    ),
    remedy: `'the widest network in spec.egress is /' + string(${ceiling(name)}) + ': list what the automation needs'`,
  };
});

const requirable: Readonly<Record<RequirableField, string>> = {
  Description: 'description',
  Version: 'change.version',
  ChangeReason: 'change.reason',
  RequestedBy: 'change.requestedBy',
  Ticket: 'change.ticket',
  Timeout: 'limits.timeout',
};

/** Expressions, each a list: of the fields that are asked for, the paths of those that aren't there. */
const missingFields = Object.entries(requirable).map(
  ([field, path]) =>
    `('${field}' in variables.required && object.spec.?${path.replace('.', '.?')}.orValue('').trim() == '' ? ['spec.${path}'] : [])`,
);

/** The same of who asks. Where admission stamps, it has; the groups of a ServiceAccount are known. */
const missingRequester = `('Requester' in variables.required && !(${annotationOf('object', annotation.changedBy)} != '' && (${hasAnnotation('object', annotation.changedByGroups)} || ${annotationOf('object', annotation.changedBy)}.startsWith('system:serviceaccount:'))) ? ['the annotation ${annotation.changedBy} with your own name (' + ${user} + '), and of a person ${annotation.changedByGroups} with his groups, one a line'] : [])`;

const required: Ceiling = {
  name: 'required',
  isKept: 'variables.missing.size() == 0',
  remedy: `'missing ' + variables.missing.join(', ')`,
};

/**
 * Refuses, or warns of, what goes beyond a ceiling. What stood before may be written as long as its
 * spec stays: the operator's labels and the annotation that kills must always get through.
 */
function ceilings(
  suffix: string,
  of: Resource,
  list: readonly Ceiling[],
  missing: readonly string[],
): AdmissionObject[] {
  const validations = (action: 'Enforce' | 'Warn'): Validation[] =>
    list.map(({ name, isKept, remedy }) => ({
      expression: `params.spec.?enforcement.orValue('Enforce') != '${action}' || ${isKept}`,
      message: `beyond the ceiling ${name} of the GuardrailPolicy`,
      messageExpression: `'beyond the ceiling ${name} of the GuardrailPolicy ' + params.metadata.name + ' in ' + variables.tier + ': ' + ${remedy}`,
    }));
  const common = {
    rules: [rule(of, ['CREATE', 'UPDATE'])],
    parameter: inForce,
    conditions: { changed: `!${isUpdate} || dyn(object).?spec != dyn(oldObject).?spec` },
    variables: {
      ...rulesOfTier,
      ceilings: 'variables.rules.size() > 0 ? variables.rules[0].?ceilings.orValue({}) : {}',
      required: 'variables.rules.size() > 0 ? variables.rules[0].?required.orValue([]) : []',
      missing: missing.join(' + '),
    },
  };
  return [
    ...validating({
      name: `policy-${suffix}`,
      description: 'What goes beyond a ceiling of the GuardrailPolicy is refused.',
      ...common,
      validations: validations('Enforce'),
    }),
    ...validating({
      name: `policy-${suffix}-warn`,
      description: 'Whoever goes beyond a ceiling of a GuardrailPolicy that only warns is told so.',
      ...common,
      action: 'Warn',
      validations: validations('Warn'),
    }),
  ];
}
