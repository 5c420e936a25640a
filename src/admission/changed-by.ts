import { annotation } from '../api/names.ts';
import type { Resource } from '../api/resources.ts';
import { annotationOf, hasAnnotation, isUpdate, user } from './cel.ts';
import { mutating, rule, validating, type AdmissionObject } from './policies.ts';

const { changedBy } = annotation;

/** Whether the request keeps the spec, and so who changed it last. */
const isSameSpec = `(${isUpdate} && dyn(object).?spec == dyn(oldObject).?spec)`;
const isKnown = `(${isSameSpec} && ${hasAnnotation('oldObject', changedBy)})`;
const before = annotationOf('oldObject', changedBy);
const stamp = annotationOf('object', changedBy);

/**
 * Who changed the spec of an object last, for the rules by which somebody else has to look at it.
 * Where admission writes nothing the stamp may be missing, which those rules take for an unknown
 * author; a false one is refused there as well. Of an object from before the policies nobody knows;
 * somebody may take its spec on himself.
 *
 * @param kinds whose changes are stamped
 */
export function changedByPolicies(kinds: readonly Resource[]): AdmissionObject[] {
  const rules = kinds.map((resource) => rule(resource, ['CREATE', 'UPDATE']));
  return [
    ...mutating({
      name: 'changed-by',
      description: 'Stamps an object with the authenticated user who changed its spec last.',
      rules,
      everywhere: true,
      conditions: { known: `!${isSameSpec} || ${hasAnnotation('oldObject', changedBy)}` },
      patchType: 'ApplyConfiguration',
      expression: `Object{metadata: Object.metadata{annotations: {'${changedBy}': ${isSameSpec} ? ${before} : ${user}}}}`,
    }),
    ...validating({
      name: 'changed-by-kept',
      description: 'Who changed the spec of an object last is true, or not known.',
      rules,
      everywhere: true,
      validations: [
        {
          expression: `${isKnown} ? ${stamp} == ${before} : !${hasAnnotation('object', changedBy)} || ${stamp} == ${user}`,
          message: `${changedBy} is the authenticated user who changed the spec; leave it out, or write your own name with a change`,
          messageExpression: `'${changedBy} is the authenticated user who changed the spec: ' + (${isKnown} ? 'leave it as it is' : 'leave it out or, where admission writes nothing, write ' + ${user})`,
        },
      ],
    }),
  ];
}
