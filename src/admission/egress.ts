import { label, MANAGED_BY } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { mayOnWorkflow } from './approval.ts';
import { isUpdate, labelOf } from './cel.ts';
import { rule, validating, type AdmissionObject } from './policies.ts';

/**
 * Environments in which who writes NetworkPolicies may widen by the way. Any other one may be one of
 * production by another name; the standing probe asks in its own.
 */
const lenient = ['dev', 'test', 'development', 'qa', 'staging'];

const requirements = `object.spec.?podSelector.?matchExpressions.orValue([])`;

/**
 * Whether the policy can select pods of the automation: exactly, as far as it asks for the label of
 * their identity, which they all have and nobody changes. Whatever else it asks for, a pod of it may
 * come to have.
 */
const selects = `object.spec.?podSelector.?matchLabels[?'${label.identity}'].orValue(params.metadata.name) == params.metadata.name && ${requirements}.all(e, e.key != '${label.identity}' || (e.operator == 'In' ? params.metadata.name in e.?values.orValue([]) : e.operator == 'NotIn' ? !(params.metadata.name in e.?values.orValue([])) : e.operator == 'Exists'))`;

/**
 * NetworkPolicies add up: one of somebody else lets the pods of an automation out, whatever its
 * Workflow lists. Evaluated once for each AutomationIdentity of the namespace; none costs nothing.
 * What a rule allows isn't compared with the allowlist, which no expression could afford: any rule
 * counts. One that stood before may be written again as it is.
 */
export function egressPolicies(): AdmissionObject[] {
  return validating({
    name: 'egress-widening',
    description: 'Outside of dev and test, nobody lets pods of an automation out who may not.',
    rules: [rule(resources.networkPolicies, ['CREATE', 'UPDATE'])],
    objectSelector: {
      matchExpressions: [{ key: label.managedBy, operator: 'NotIn', values: [MANAGED_BY] }],
    },
    parameter: { kind: 'AutomationIdentity', matchLabels: {} },
    conditions: {
      'lets-out': `has(object.spec.egress) && object.spec.egress.size() > 0 && 'Egress' in object.spec.?policyTypes.orValue([])`,
    },
    variables: {
      concerns: `!(${labelOf('namespaceObject', label.environment)} in ['${lenient.join("', '")}']) && ${selects}`,
      stood: `${isUpdate} && object.spec == oldObject.spec`,
    },
    validations: [
      {
        expression: `!variables.concerns || variables.stood || ${mayOnWorkflow('widen', 'params.metadata.name')}`,
        message:
          'where an automation may connect is in spec.egress of its Workflow: have podSelector leave its pods out',
        messageExpression: `'this NetworkPolicy would let pods of the automation ' + params.metadata.name + ' out, whatever its Workflow lists: if they need the destination, list it with its reason (kubectl edit awf ' + params.metadata.name + ' -n ' + request.namespace + '); if it is for other pods, say as which ServiceAccount they run: podSelector.matchLabels ${label.identity}. To do it all the same takes the verb widen on that Workflow (ClusterRole automation-guardrails-egress-widener)'`,
      },
    ],
  });
}
