import { annotation, GROUP, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { annotationOf, hasAnnotation, isPerson, mayOnIdentities, user } from './cel.ts';
import { mutating, policyName, rule, validating, type AdmissionObject } from './policies.ts';

/** The policy that refuses an AccessReview without the stamp of who reviews. */
export const accessReviewCreationPolicyName = policyName('access-review-create');

/** Begins the sentence by which that policy asks for the stamp. */
export const reviewerUnstamped = 'reviewer is the authenticated user';

const { accessReviews } = resources;
const created = [rule(accessReviews, ['CREATE'])];
const isRevoke = `object.spec.decision == 'Revoke'`;

/** Who may review, what, and that a review stays as it was made. */
export function accessReviewPolicies(): AdmissionObject[] {
  return [...stampReviewer(), ...validateCreation(), ...validateSubject(), ...keepReviews()];
}

function stampReviewer(): AdmissionObject[] {
  return mutating({
    name: 'access-review-stamp',
    description: 'Stamps a new AccessReview with the authenticated user who reviews.',
    rules: created,
    everywhere: true,
    patchType: 'ApplyConfiguration',
    expression: `Object{spec: Object.spec{reviewer: ${user}}}`,
  });
}

function validateCreation(): AdmissionObject[] {
  const mayReview = `authorizer.group('${GROUP}').resource('automationidentities').namespace(request.namespace).name(object.spec.identity).check('review').allowed()`;
  return validating({
    name: 'access-review-create',
    description: 'An AccessReview is made by a person with the right to, in his own name.',
    rules: created,
    everywhere: true,
    validations: [
      {
        expression: `object.spec.?reviewer.orValue('') == ${user}`,
        message: `${reviewerUnstamped}, stamped by admission; leave it out`,
        messageExpression: `'${reviewerUnstamped}: write spec.reviewer: ' + ${user} + ', or leave it out where admission stamps it (kubectl guardrails review does either)'`,
      },
      {
        expression: isPerson,
        message: 'a ServiceAccount may not review what an automation may do; a person does',
      },
      {
        expression: mayReview,
        message: 'you may not review this identity',
        messageExpression: `${user} + ' may not review ' + object.spec.identity + ': it takes the verb review on automationidentities (ClusterRole automation-guardrails-reviewer)'`,
      },
      {
        // There, nobody looks at whose change it is.
        expression: `namespaceObject.metadata.?labels[?'${label.environment}'].hasValue() && request.namespace != 'kube-system'`,
        message: `this namespace is not guarded, so that nothing is granted in it that could be reviewed: kubectl label namespace NAME ${label.environment}=prod`,
      },
      {
        expression:
          'object.metadata.?finalizers.orValue([]).size() == 0 && object.metadata.?ownerReferences.orValue([]).size() == 0',
        message: 'an AccessReview has no finalizers and no owners; leave them out',
      },
    ],
  });
}

/**
 * Evaluated with each AutomationIdentity of the namespace: reviews are made by people, and seldom.
 * Of an identity that doesn't exist there is nothing to compare; its `Keep` counts for none that is
 * created later.
 */
function validateSubject(): AdmissionObject[] {
  const digest = `params.?status.?accessReview.?digest.orValue('')`;
  const isSeen = `params.?status.?observedGeneration.orValue(0) == params.metadata.generation`;
  const author = annotationOf('params', annotation.changedBy);
  return validating({
    name: 'access-review-subject',
    description: 'An AccessReview is of what there is now, and not by who changed it last.',
    rules: created,
    parameter: { kind: 'AutomationIdentity', matchLabels: {} },
    conditions: { mine: 'params.metadata.name == object.spec.identity' },
    validations: [
      {
        expression: `${hasAnnotation('params', annotation.changedBy)} && ${author} != ''`,
        message: 'it is not known who changed this identity last',
        messageExpression: `'it is not known who changed ' + params.metadata.name + ' last, so nobody can be told from him: whoever changes its spec next is stamped or, where admission writes nothing, writes ${annotation.changedBy} with his own name in the same request'`,
      },
      {
        expression: `${author} != ${user}`,
        message: 'you changed this identity last; somebody else has to review it',
        messageExpression: `${user} + ' changed ' + params.metadata.name + ' last; somebody else has to review it'`,
      },
      {
        expression: `${isRevoke} || ${digest} != ''`,
        message:
          'nothing says what this identity may do: set spec.accessReview.every on it, and the operator publishes the digest in its status',
      },
      {
        expression: `${isRevoke} || ${digest} == '' || (${isSeen} && object.spec.digest == ${digest})`,
        message: 'what this identity may do has changed meanwhile: look at it again',
        messageExpression: `'what ' + params.metadata.name + ' may do has changed meanwhile: look at it again (kubectl guardrails review ' + params.metadata.name + ' -n ' + params.metadata.namespace + ')'`,
      },
    ],
  });
}

/** Who deleted a `Revoke` would give everything back. */
function keepReviews(): AdmissionObject[] {
  const isGoing = '(namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp))';
  const unchanged = ['metadata.?ownerReferences', 'metadata.?finalizers', 'spec'].map(
    (field) => `dyn(object).?${field} == dyn(oldObject).?${field}`,
  );
  return validating({
    name: 'access-review-kept',
    description: 'An AccessReview stays as it was made, and goes with its namespace.',
    rules: [rule(accessReviews, ['UPDATE', 'DELETE'])],
    everywhere: true,
    validations: [
      {
        expression: `request.operation == 'DELETE' ? (${isGoing} || ${mayOnIdentities('manage-children')}) : (${unchanged.join(' && ')})`,
        message:
          'an AccessReview stays as it was made: create another one, the latest decides (kubectl guardrails review)',
      },
    ],
  });
}
