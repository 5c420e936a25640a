import { annotation } from '../api/names.ts';
import type { Resource } from '../api/resources.ts';
import { annotationOf, hasAnnotation, user } from './cel.ts';
import { mutating, rule, validating, type AdmissionObject } from './policies.ts';

const { changedBy } = annotation;

const isChange = `(request.operation == 'CREATE' || dyn(object).?spec != dyn(oldObject).?spec)`;

/** Who changed the spec last, as a function of the request; of an older object, nobody knows. */
const stamp = `(${isChange} ? ${user} : ${annotationOf('oldObject', changedBy)})`;

/**
 * Who changed the spec of an object last, for the rules by which somebody else has to look at it.
 * Where admission writes nothing the stamp may be missing, which those rules take for an unknown
 * author; a false one is refused there as well.
 *
 * @param kinds whose changes are stamped
 */
export function changedByPolicies(kinds: readonly Resource[]): AdmissionObject[] {
  const rules = kinds.map((resource) => rule(resource, ['CREATE', 'UPDATE']));
  const isKept = `object.metadata.?annotations[?'${changedBy}'] == oldObject.metadata.?annotations[?'${changedBy}']`;
  return [
    ...mutating({
      name: 'changed-by',
      description: 'Stamps an object with the authenticated user who changed its spec last.',
      rules,
      everywhere: true,
      conditions: {
        known: `${isChange} || ${hasAnnotation('oldObject', changedBy)}`,
        differs: `${annotationOf('object', changedBy)} != ${stamp}`,
      },
      patchType: 'ApplyConfiguration',
      expression: `Object{metadata: Object.metadata{annotations: {'${changedBy}': ${stamp}}}}`,
    }),
    ...validating({
      name: 'changed-by-kept',
      description: 'Who changed the spec of an object last is true, or not known.',
      rules,
      everywhere: true,
      validations: [
        {
          expression: `${isChange} ? (!${hasAnnotation('object', changedBy)} || ${annotationOf('object', changedBy)} == ${user}) : ${isKept}`,
          message: `${changedBy} is stamped by admission; leave it alone`,
          messageExpression: `${isChange} ? '${changedBy} is the authenticated user who changes the spec: write ' + ${user} + ', or leave it out' : '${changedBy} says who changed the spec last, and this request does not change it: leave it as it is'`,
        },
      ],
    }),
  ];
}
