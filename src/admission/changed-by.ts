import { annotation } from '../api/names.ts';
import type { Resource } from '../api/resources.ts';
import { annotationOf, changesAnnotation, groups, hasAnnotation, isUpdate, user } from './cel.ts';
import { mutating, rule, validating, type AdmissionObject } from './policies.ts';

const { changedBy, changedByGroups } = annotation;

/** Characters of all groups of a user that are kept; who has more has none, and so fewer rights. */
const maxGroupsLength = 8192;

/** What stands in `changed-by-groups` for the groups of a user. */
export function stampOfGroups(of: readonly string[]): string {
  const text = of.join('\n');
  return text.length <= maxGroupsLength ? text : '';
}

const joined = `${groups}.join('\\n')`;
const groupStamp = `(${joined}.size() <= ${maxGroupsLength} ? ${joined} : '')`;

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
      description:
        'Stamps an object with the authenticated user who changed its spec last, and his groups.',
      rules,
      everywhere: true,
      conditions: { known: `!${isSameSpec} || ${hasAnnotation('oldObject', changedBy)}` },
      patchType: 'ApplyConfiguration',
      expression: `Object{metadata: Object.metadata{annotations: !${isSameSpec} ? {'${changedBy}': ${user}, '${changedByGroups}': ${groupStamp}} : ${hasAnnotation('oldObject', changedByGroups)} ? {'${changedBy}': ${before}, '${changedByGroups}': ${annotationOf('oldObject', changedByGroups)}} : {'${changedBy}': ${before}}}}`,
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
        {
          expression: `${isSameSpec} || ${user} != 'system:serviceaccount:' + request.?namespace.orValue('') + ':' + object.metadata.?name.orValue('')`,
          message:
            'an automation changes neither its own Workflow nor its own AutomationIdentity: somebody else asks for it',
        },
        {
          // Groups that stand alone are nobody's, and must not keep others from writing a label.
          expression: `${isKnown} ? !${changesAnnotation(changedByGroups)} : !${hasAnnotation('object', changedByGroups)} || (${hasAnnotation('object', changedBy)} ? ${annotationOf('object', changedByGroups)} == ${groupStamp} : ${isSameSpec} && !${changesAnnotation(changedByGroups)})`,
          message: `${changedByGroups} are the groups of the authenticated user who changed the spec, and stand beside ${changedBy}; leave them alone`,
        },
      ],
    }),
  ];
}
