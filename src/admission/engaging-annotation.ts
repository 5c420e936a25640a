import { annotation, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import {
  annotationOf,
  hasAnnotation,
  hasLabel,
  isDryRun,
  isProbe,
  isUpdate,
  labelOf,
  removeAnnotation,
  removeLabel,
  user,
} from './cel.ts';
import { mutating, rule, validating, type AdmissionObject } from './policies.ts';

const { killSwitch, killSwitchEngagedBy } = annotation;
const workflowWrites = [rule(resources.workflows, ['CREATE', 'UPDATE'])];
const isEngaging = hasAnnotation('object', killSwitch);
const wasEngaging = `(${isUpdate} && ${hasAnnotation('oldObject', killSwitch)})`;

/**
 * Who engaged, as a function of the request: the user at the transition, from then on what stood
 * there. An annotation from before the policies were in force has no stamp, and whoever happens to
 * write next is not the one that engaged.
 */
const stamp = `(${wasEngaging} ? oldObject.metadata.?annotations[?'${killSwitchEngagedBy}'].orValue('unknown') : ${user})`;

/** Values by which people try to switch off what any value switches on. */
const refusedReasons = `['', 'false', 'off', 'no', '0']`;

/**
 * The annotation on a Workflow that engages the kill switch, and its two marks: the label by which
 * the policies find it, and the stamp of who set it. The marks are a function of the annotation:
 * nobody can add, change or remove them by themselves.
 */
export function engagingAnnotationPolicies(): AdmissionObject[] {
  return [...mark(), ...unmark(), ...validateMarks()];
}

function mark(): AdmissionObject[] {
  return mutating({
    name: 'workflow-mark',
    description: 'Label and stamp follow the engaging annotation of a Workflow.',
    rules: workflowWrites,
    everywhere: true,
    conditions: { engaging: isEngaging },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{labels: {'${label.engaged}': 'true'}, annotations: {'${killSwitchEngagedBy}': ${stamp}}}}`,
  });
}

function unmark(): AdmissionObject[] {
  const hasMark = hasLabel('object', label.engaged);
  const hasStamp = hasAnnotation('object', killSwitchEngagedBy);
  return mutating({
    name: 'workflow-unmark',
    description: 'Without the engaging annotation, a Workflow has neither its label nor its stamp.',
    rules: workflowWrites,
    everywhere: true,
    conditions: { 'not-engaging': `!${isEngaging}`, marked: `${hasMark} || ${hasStamp}` },
    patchType: 'JSONPatch',
    expression: `(${hasMark} ? [${removeLabel(label.engaged)}] : []) + (${hasStamp} ? [${removeAnnotation(killSwitchEngagedBy)}] : [])`,
  });
}

function validateMarks(): AdmissionObject[] {
  const reason = annotationOf('object', killSwitch);
  return validating({
    name: 'workflow-marks',
    description: 'The engaging annotation has a reason, and its label and stamp are true.',
    rules: workflowWrites,
    everywhere: true,
    validations: [
      {
        // What already stands there must not lock the object.
        expression: `!${isEngaging} || (${wasEngaging} && ${reason} == ${annotationOf('oldObject', killSwitch)}) || !(${reason}.trim().lowerAscii() in ${refusedReasons})`,
        message: `${killSwitch} engages whatever its value is: write the reason`,
        messageExpression: `'${killSwitch} engages whatever its value is: write the reason. To release, remove the annotation (kubectl annotate awf ' + object.metadata.name + ' -n ' + object.metadata.namespace + ' ${killSwitch}-), then: kubectl guardrails release ' + object.metadata.name + ' -n ' + object.metadata.namespace + ' --reason TEXT'`,
      },
      {
        expression: `${isEngaging} ? ${labelOf('object', label.engaged)} == 'true' : !${hasLabel('object', label.engaged)}`,
        message: 'the label engaged follows the annotation kill-switch; leave it alone',
      },
      {
        expression: `${isEngaging} ? ${annotationOf('object', killSwitchEngagedBy)} == ${stamp} : !${hasAnnotation('object', killSwitchEngagedBy)}`,
        message: 'kill-switch-engaged-by is stamped by admission; leave it alone',
      },
      {
        // Stored, it would make the fence refuse every later write.
        expression: `!${isProbe} || ${isDryRun}`,
        message: 'the annotation probe is for dry runs only',
      },
    ],
  });
}
