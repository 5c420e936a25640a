import { label, MANAGED_BY } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { mayOnWorkflow } from './approval.ts';
import { isManaged, isUpdate, labelOf } from './cel.ts';
import { inForce, tierOfNamespace } from './guardrail-policy.ts';
import { rule, validating, type AdmissionObject, type ValidatingPolicy } from './policies.ts';

/**
 * Environments in which who writes NetworkPolicies may widen by the way, unless the GuardrailPolicy
 * says otherwise. Any other one may be one of production by another name; the standing probe asks in
 * its own.
 */
const lenient = ['dev', 'test', 'development', 'qa', 'staging'];

const requirements = `object.spec.?podSelector.?matchExpressions.orValue([])`;

/**
 * Whether the policy can select pods of the automation: exactly, as far as it asks for the label of
 * their identity, which they all have and nobody changes. Whatever else it asks for, a pod of it may
 * come to have.
 */
const selects = `object.spec.?podSelector.?matchLabels[?'${label.identity}'].orValue(params.metadata.name) == params.metadata.name && ${requirements}.all(e, e.key != '${label.identity}' || (e.operator == 'In' ? params.metadata.name in e.?values.orValue([]) : e.operator == 'NotIn' ? !(params.metadata.name in e.?values.orValue([])) : e.operator == 'Exists'))`;

/** NetworkPolicies of others that allow connections. */
const lettingOut: Pick<ValidatingPolicy, 'rules' | 'objectSelector' | 'conditions'> = {
  rules: [rule(resources.networkPolicies, ['CREATE', 'UPDATE'])],
  objectSelector: {
    matchExpressions: [{ key: label.managedBy, operator: 'NotIn', values: [MANAGED_BY] }],
  },
  conditions: {
    'lets-out': `has(object.spec.egress) && object.spec.egress.size() > 0 && 'Egress' in object.spec.?policyTypes.orValue([])`,
  },
};

/** Expression: one that stood before may be written again as it is. */
const stood = `${isUpdate} && object.spec == oldObject.spec`;

/** Expression: whether the environment is lenient without a policy. */
const isLenient = `${labelOf('namespaceObject', label.environment)} in ['${lenient.join("', '")}']`;

const wayOut = `if it is for other pods, say as which ServiceAccount they run: podSelector.matchLabels ${label.identity}. To do it all the same takes the verb widen on that Workflow (ClusterRole automation-guardrails-egress-widener)`;

/** Who lets the pods of automations out, outside of dev and test. */
export function egressPolicies(): AdmissionObject[] {
  return [...refuseWidening(), ...refuseWideningByPolicy()];
}

/**
 * NetworkPolicies add up: one of somebody else lets the pods of an automation out, whatever its
 * Workflow lists. Evaluated once for each AutomationIdentity of the namespace; none costs nothing.
 * What a rule allows isn't compared with the allowlist, which no expression could afford: any rule
 * counts.
 */
function refuseWidening(): AdmissionObject[] {
  return validating({
    name: 'egress-widening',
    description: 'Outside of dev and test, nobody lets pods of an automation out who may not.',
    ...lettingOut,
    parameter: { kind: 'AutomationIdentity', matchLabels: {} },
    variables: { concerns: `!(${isLenient}) && ${selects}`, stood },
    validations: [
      {
        expression: `!variables.concerns || variables.stood || ${mayOnWorkflow('widen', 'params.metadata.name')}`,
        message:
          'where an automation may connect is in spec.egress of its Workflow: have podSelector leave its pods out',
        messageExpression: `'this NetworkPolicy would let pods of the automation ' + params.metadata.name + ' out, whatever its Workflow lists: if they need the destination, list it with its reason (kubectl edit awf ' + params.metadata.name + ' -n ' + request.namespace + '); ${wayOut}'`,
      },
    ],
  });
}

/**
 * The same where the GuardrailPolicy counts as prod what is lenient without one. The policy is the
 * parameter here, and a second one, the identities, there can't be: a ServiceAccount that is named
 * is asked for its mark, and where none is named, the pods of any may be meant.
 */
function refuseWideningByPolicy(): AdmissionObject[] {
  return validating({
    name: 'egress-widening-by-policy',
    description:
      'Where the GuardrailPolicy says that an environment is one of prod, nobody lets pods of an automation out who may not.',
    ...lettingOut,
    parameter: inForce,
    variables: {
      ...tierOfNamespace,
      account: `object.spec.?podSelector.?matchLabels[?'${label.identity}'].orValue('')`,
      concerns: `${isLenient} && variables.tier == 'prod'`,
      stood,
    },
    validations: [
      {
        expression: `!variables.concerns || variables.stood || (variables.account != '' && !${isManaged('variables.account')}) || ${mayOnWorkflow('widen', 'variables.account')}`,
        message:
          'where an automation may connect is in spec.egress of its Workflow: have podSelector name the pods that are meant',
        messageExpression: `'this NetworkPolicy would let pods of automations out, whatever their Workflows list, and the GuardrailPolicy ' + params.metadata.name + ' counts ' + variables.environment + ' as prod: if an automation needs the destination, list it in spec.egress of its Workflow, with its reason; ${wayOut}'`,
      },
    ],
  });
}
