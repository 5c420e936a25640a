import { annotation } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { annotationOf, changesAnnotation, hasAnnotation, isPerson, isUpdate, user } from './cel.ts';
import { mutating, policyName, rule, validating, type AdmissionObject } from './policies.ts';

const { acknowledgeHold, holdAcknowledgedBy, acknowledge } = annotation;

/** The policy that refuses an acknowledgement without the stamp of who acknowledges. */
export const holdAcknowledgementPolicyName = policyName('hold-acknowledge');

/** With what the refusal for want of that stamp begins. */
export const unstampedHoldAcknowledger = `${holdAcknowledgedBy} is stamped by admission`;

const text = annotationOf('object', acknowledgeHold);
const acknowledges = `(${hasAnnotation('object', acknowledgeHold)} && (!${isUpdate} || ${changesAnnotation(acknowledgeHold)}))`;
const reason = `${text}.split(':', 2)[0]`;
const held = [resources.workflows, resources.automationIdentities];

/** Who knows of a hold: a person, in his own name, and of one that there is. */
export function holdPolicies(): AdmissionObject[] {
  return [
    ...mutating({
      name: 'hold-acknowledge-stamp',
      description: 'Stamps what is held with the authenticated user who acknowledges that.',
      rules: held.map((resource) => rule(resource, ['UPDATE'])),
      everywhere: true,
      conditions: { acknowledges },
      patchType: 'ApplyConfiguration',
      expression: `Object{metadata: Object.metadata{annotations: {'${holdAcknowledgedBy}': ${user}}}}`,
    }),
    ...validating({
      name: 'hold-acknowledge',
      description: 'A person acknowledges a hold that there is, with a reason.',
      rules: held.map((resource) => rule(resource, ['CREATE', 'UPDATE'])),
      everywhere: true,
      conditions: {
        concerned: `${hasAnnotation('object', acknowledgeHold)} || ${hasAnnotation('object', holdAcknowledgedBy)} || (${isUpdate} && (${hasAnnotation('oldObject', acknowledgeHold)} || ${hasAnnotation('oldObject', holdAcknowledgedBy)}))`,
      },
      variables: {
        acknowledges,
        withdraws: `(${isUpdate} && !${hasAnnotation('object', acknowledgeHold)} && ${hasAnnotation('oldObject', acknowledgeHold)})`,
      },
      validations: [
        {
          expression: `!variables.acknowledges || ${isPerson}`,
          message: `a ServiceAccount acknowledges nothing; a person does. Leave ${acknowledgeHold} out`,
        },
        {
          expression: `!variables.acknowledges || (${text}.size() <= 1024 && ${text}.matches('^[A-Za-z]+: *[^[:space:]]'))`,
          message: `write which hold, and what is done about it, in at most 1024 characters: ${acknowledgeHold}="OwnerMissing: the team is asked, TICKET-1"`,
        },
        {
          expression: `!variables.acknowledges || ${reason} != 'LimitBreached'`,
          message: `a breached limit is acknowledged by ${acknowledge}="why it may go on", which ends the hold`,
        },
        {
          expression: `!variables.acknowledges || (${isUpdate} && oldObject.?status.?holds.orValue([]).exists(h, h.reason == ${reason}))`,
          message: `no hold of that reason stands; see status.holds`,
          messageExpression: `'no hold of the reason ' + ${reason} + ' stands: ' + (${isUpdate} && oldObject.?status.?holds.orValue([]).size() > 0 ? 'there is ' + oldObject.status.holds.map(h, h.reason).join(', ') : 'nothing is held, so that there is nothing to acknowledge')`,
        },
        {
          expression: `variables.acknowledges ? ${annotationOf('object', holdAcknowledgedBy)} == ${user} : variables.withdraws ? !${hasAnnotation('object', holdAcknowledgedBy)} : (${isUpdate} ? !${changesAnnotation(holdAcknowledgedBy)} : !${hasAnnotation('object', holdAcknowledgedBy)})`,
          message: `${unstampedHoldAcknowledger}; leave it alone`,
          messageExpression: `'${unstampedHoldAcknowledger} or, where admission writes nothing, set in the same request' + (variables.withdraws ? ': take both out' : ' to ' + ${user})`,
        },
      ],
    }),
  ];
}
