import { tiers, type Tier } from '../api/guardrail-policy.ts';
import { annotation, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { base64Forms, markedTokenPattern, tokenMarks } from '../api/token-marks.ts';
import { hasAnnotation, isUpdate, labelOf, mayOnIdentities } from './cel.ts';
import { inForce, tierOfNamespace } from './guardrail-policy.ts';
import { rule, validating, type AdmissionObject, type Validation } from './policies.ts';

const { secrets, configMaps } = resources;

/**
 * Environments that count as something else than a tier, as far as that is known without a policy.
 * A policy can count them as another one; then it is asked.
 */
const environmentsOf: Readonly<Record<Tier, readonly string[]>> = {
  dev: ['dev', 'development'],
  test: ['test', 'qa', 'staging'],
  prod: ['prod', 'production'],
};

/**
 * Expression: whether a token of a tier stands somewhere in an object, in base64 or as it is. The
 * types of the two kinds differ, and one expression is checked for both. A regular expression costs
 * several times as much as a search: what has no mark is spared it.
 */
function holdsTokenOf(tier: Tier, of: string): string {
  const mark = tokenMarks[tier];
  const isPlain = `m[k].contains('${mark}') && m[k].matches(r'${markedTokenPattern(mark)}')`;
  const isEncoded = base64Forms(mark).map((form) => `m[k].contains('${form}')`);
  const isThere = [isPlain, ...isEncoded].join(' || ');
  const maps = ['data', 'binaryData'].map((field) => `dyn(${of}).?${field}.orValue({})`);
  return `[${maps.join(', ')}].exists(m, m.exists(k, ${isThere}))`;
}

/** Variables: what the object holds, each for itself, since a large one costs. */
const held = Object.fromEntries(
  tiers.flatMap((tier) => [
    [`${tier}Token`, holdsTokenOf(tier, 'object')],
    // What stands there already must lock nothing.
    [`${tier}TokenBefore`, `${isUpdate} && ${holdsTokenOf(tier, 'oldObject')}`],
  ]),
);

/** @param isForeign expression: whether such tokens don't belong into the namespace */
function refuseTokenOf(tier: Tier, isForeign: string, countsAs: string): Validation {
  return {
    expression: `!(${isForeign}) || !variables.${tier}Token || variables.${tier}TokenBefore || ${mayOnIdentities('manage-children')}`,
    message: `this holds a token of an automation of ${tier}, which belongs into no other environment`,
    messageExpression: `'this holds a token of an automation of ${tier} (it begins with ${tokenMarks[tier]}), and ' + ${countsAs} + ': take it out, have it rotated, and give the automation here a token of its own by spec.secrets of its AutomationIdentity'`,
  };
}

const rules = [secrets, configMaps].map((resource) => rule(resource, ['CREATE', 'UPDATE']));

/** Generated credentials stay in the environment that they were made for. */
export function foreignCredentialPolicies(): AdmissionObject[] {
  const environment = labelOf('namespaceObject', label.environment);
  return [
    ...validating({
      name: 'foreign-tokens',
      description: 'A token that was generated for one tier gets into no namespace of another one.',
      rules,
      variables: { environment, ...held },
      validations: tiers.map((tier) => {
        const others = tiers
          .filter((other) => other !== tier)
          .flatMap((other) => environmentsOf[other]);
        const isForeign = `variables.environment in ['${others.join("', '")}']`;
        return refuseTokenOf(tier, isForeign, `'this is a namespace of ' + variables.environment`);
      }),
    }),
    ...validating({
      name: 'foreign-tokens-by-policy',
      description: 'The same in environments that the GuardrailPolicy maps to a tier.',
      rules,
      parameter: inForce,
      variables: { ...tierOfNamespace, ...held },
      validations: tiers.map((tier) =>
        refuseTokenOf(
          tier,
          `variables.tier != '${tier}'`,
          `'the GuardrailPolicy ' + params.metadata.name + ' counts ' + variables.environment + ' as ' + variables.tier`,
        ),
      ),
    }),
    ...validating({
      name: 'credential-copies',
      description:
        'What the operator generated is not copied, with the marks by which it is known.',
      rules: [rule(secrets, ['CREATE', 'UPDATE'])],
      conditions: {
        marked: hasAnnotation('object', annotation.rotatedAt),
        new: `!${isUpdate} || !${hasAnnotation('oldObject', annotation.rotatedAt)}`,
      },
      validations: [
        {
          expression: mayOnIdentities('manage-children'),
          message: `this is a copy of a generated credential (${annotation.rotatedAt}), which nothing rotates and no kill withdraws: have the automation run as the identity that owns it, or declare one of its own by spec.secrets of an AutomationIdentity`,
        },
      ],
    }),
  ];
}
