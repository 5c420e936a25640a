import { wholeNamespaceName } from '../api/kill-switch.ts';
import { annotation, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import {
  annotationOf,
  brief,
  changesAnnotation,
  hasAnnotation,
  hasLabel,
  isDryRun,
  isPerson,
  isProbe,
  isUpdate,
  labelOf,
  mayOnKillSwitch,
  removeAnnotation,
  removeLabel,
  user,
} from './cel.ts';
import { mutating, rule, validating, type AdmissionObject, type Operation } from './policies.ts';

const { killSwitch, killSwitchEngagedBy, breakGlass } = annotation;

/** What can carry the annotation that engages. */
const carriers = [resources.workflows, resources.automationIdentities, resources.namespaces];
const writes = rulesFor('CREATE', 'UPDATE');
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

const isNamespace = `(request.kind.kind == 'Namespace')`;

const killSwitchName = `(${isNamespace} ? '${wholeNamespaceName}' : object.metadata.?name.orValue(''))`;

/** `of` is `object` or `oldObject`: it in a command of kubectl, and its KillSwitch in one of ours. */
function named(of: string): { object: string; killSwitch: string } {
  const { name, namespace } = {
    name: `${of}.metadata.name`,
    namespace: `${of}.metadata.?namespace.orValue('')`,
  };
  return {
    object: `(${isNamespace} ? 'namespace ' + ${name} : (request.kind.kind == 'Workflow' ? 'awf ' : 'aid ') + ${name} + ' -n ' + ${namespace})`,
    killSwitch: `(${isNamespace} ? '${wholeNamespaceName} -n ' + ${name} : ${name} + ' -n ' + ${namespace})`,
  };
}

/**
 * The annotation that engages the kill switch, on a Workflow, an AutomationIdentity or a Namespace,
 * and its marks: the label by which the policies find it, the stamp of who set it, and the label
 * that says that a KillSwitch stands for it by now. The first two are a function of the annotation;
 * the last is the operator's. Until then the annotation itself is the fence, and stays.
 */
export function engagingAnnotationPolicies(): AdmissionObject[] {
  return [
    ...mark(),
    ...unmark(),
    ...validateMarks(),
    ...keepInSubresources(),
    ...keepUntilLatched(),
    ...keepFromDeletion(),
  ];
}

function rulesFor(...operations: Operation[]): ReturnType<typeof rule>[] {
  return carriers.map((resource) => rule(resource, operations));
}

function mark(): AdmissionObject[] {
  return mutating({
    name: 'engaging-mark',
    description: 'Label and stamp follow the annotation that engages.',
    rules: writes,
    everywhere: true,
    conditions: { engaging: isEngaging },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{labels: {'${label.engaged}': 'true'}, annotations: {'${killSwitchEngagedBy}': ${stamp}}}}`,
  });
}

function unmark(): AdmissionObject[] {
  const labels = [label.engaged, label.latched];
  const hasStamp = hasAnnotation('object', killSwitchEngagedBy);
  const isMarked = [...labels.map((name) => hasLabel('object', name)), hasStamp].join(' || ');
  const removals = [
    ...labels.map((name) => `(${hasLabel('object', name)} ? [${removeLabel(name)}] : [])`),
    `(${hasStamp} ? [${removeAnnotation(killSwitchEngagedBy)}] : [])`,
  ];
  return mutating({
    name: 'engaging-unmark',
    description: 'Without the annotation that engages there are no marks of it.',
    rules: writes,
    everywhere: true,
    conditions: { 'not-engaging': `!${isEngaging}`, marked: isMarked },
    patchType: 'JSONPatch',
    expression: removals.join(' + '),
  });
}

function validateMarks(): AdmissionObject[] {
  const reason = annotationOf('object', killSwitch);
  const { object, killSwitch: released } = named('object');
  // In a shell, between single quotes, in JSON.
  const quoted = (text: string): string =>
    `${brief(text)}.replace('\\\\', '\\\\\\\\').replace('"', '\\\\"').replace("'", "'\\\\''")`;
  const marks = `${isEngaging} ? '{"labels":{"${label.engaged}":"true"},"annotations":{"${killSwitch}":"' + ${quoted(reason)} + '","${killSwitchEngagedBy}":"' + ${quoted(stamp)} + '"}}' : '{"labels":{"${label.engaged}":null,"${label.latched}":null},"annotations":{"${killSwitch}":null,"${killSwitchEngagedBy}":null}}'`;
  const byHand = `'leave it alone or, where admission writes nothing, write all of it in one request: kubectl patch ' + ${object} + " --type=merge -p '{\\"metadata\\":" + (${marks}) + "}'"`;
  const latchedBefore = `(${isUpdate} && ${hasLabel('oldObject', label.latched)})`;
  return validating({
    name: 'engaging-marks',
    description: 'The annotation that engages has a reason, and its marks are true.',
    rules: writes,
    everywhere: true,
    validations: [
      {
        // What already stands there must not lock the object.
        expression: `!${isEngaging} || (${wasEngaging} && ${reason} == ${annotationOf('oldObject', killSwitch)}) || !(${reason}.trim().lowerAscii() in ${refusedReasons})`,
        message: `${killSwitch} engages whatever its value is: write the reason`,
        messageExpression: `'${killSwitch} engages whatever its value is: write the reason. To release, remove the annotation (kubectl annotate ' + ${object} + ' ${killSwitch}-), then: kubectl guardrails release ' + ${released} + ' --reason TEXT'`,
      },
      {
        // Where it stood before there were policies, it must not lock the object.
        expression: `!${isEngaging} || !${isNamespace} || (${hasLabel('object', label.environment)} && object.metadata.name != 'kube-system') || (${wasEngaging} && !${hasLabel('oldObject', label.environment)})`,
        message: `no policy is bound to this namespace, so that nothing would be stopped: guard it first (kubectl label namespace NAME ${label.environment}=prod)`,
      },
      {
        expression: `${isEngaging} ? ${labelOf('object', label.engaged)} == 'true' : !${hasLabel('object', label.engaged)}`,
        message: 'the label engaged follows the annotation kill-switch; leave it alone',
        messageExpression: `'the label engaged follows the annotation kill-switch; ' + ${byHand}`,
      },
      {
        expression: `${isEngaging} ? ${annotationOf('object', killSwitchEngagedBy)} == ${stamp} : !${hasAnnotation('object', killSwitchEngagedBy)}`,
        message: 'kill-switch-engaged-by is stamped by admission; leave it alone',
        messageExpression: `'kill-switch-engaged-by is stamped by admission; ' + ${byHand}`,
      },
      {
        expression: `${isEngaging} ? (${hasLabel('object', label.latched)} == ${latchedBefore} || ${mayOnKillSwitch('latch', killSwitchName)}) : !${hasLabel('object', label.latched)}`,
        message: 'the label latched is written by the operator alone',
      },
      {
        // Stored, it would make the fence refuse every later write.
        expression: `!${isProbe} || ${isDryRun}`,
        message: 'the annotation probe is for dry runs only',
      },
    ],
  });
}

/** The API server takes labels and annotations of a Namespace from requests of these as well. */
function keepInSubresources(): AdmissionObject[] {
  const names = {
    labels: [label.environment, label.engaged, label.latched],
    annotations: [killSwitch, killSwitchEngagedBy],
  };
  const unchanged = Object.entries(names).flatMap(([field, keys]) =>
    keys.map(
      (key) => `object.metadata.?${field}[?'${key}'] == oldObject.metadata.?${field}[?'${key}']`,
    ),
  );
  return validating({
    name: 'engaging-subresources',
    description:
      'What guards and engages a Namespace is changed on the Namespace itself, where it is checked.',
    rules: ['status', 'finalize'].map((name) => rule(resources.namespaces, ['UPDATE'], name)),
    everywhere: true,
    validations: [
      {
        expression: unchanged.join(' && '),
        message: `the labels ${label.environment}, ${label.engaged} and ${label.latched} and the annotation ${killSwitch} are changed on the Namespace itself, not through its status`,
      },
    ],
  });
}

/** Once a KillSwitch stands for it, the annotation can go: only a release opens the fence. */
function keepUntilLatched(): AdmissionObject[] {
  const breaks = `${annotationOf('object', breakGlass)}.trim() != '' && ${changesAnnotation(breakGlass)} && ${isPerson} && ${mayOnKillSwitch('break-glass', killSwitchName)}`;
  return validating({
    name: 'engaging-unlatched',
    description:
      'The annotation that engages stays until a KillSwitch stands for it, unless somebody breaks the glass.',
    rules: rulesFor('UPDATE'),
    everywhere: true,
    conditions: {
      removes: `${wasEngaging} && !${isEngaging}`,
      unlatched: `!${hasLabel('oldObject', label.latched)}`,
    },
    validations: [
      {
        expression: breaks,
        message: `the kill switch is engaged, and no KillSwitch stands for it yet: an operator creates it within moments, then the annotation can go. Where no operator runs, who holds the verb break-glass on killswitches sets ${breakGlass} to the reason in the same request`,
      },
    ],
  });
}

function keepFromDeletion(): AdmissionObject[] {
  const isGoing =
    'has(oldObject.metadata.deletionTimestamp) || (namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp))';
  const { object, killSwitch: released } = named('oldObject');
  return validating({
    name: 'engaging-delete',
    description:
      'What engages by annotation is not deleted before a KillSwitch stands for it; a Namespace not before its release.',
    rules: rulesFor('DELETE'),
    everywhere: true,
    conditions: {
      engaging: hasAnnotation('oldObject', killSwitch),
      unlatched: `${isNamespace} || !${hasLabel('oldObject', label.latched)}`,
    },
    validations: [
      {
        expression: isGoing,
        message: 'its kill switch is engaged; release it first',
        messageExpression: `'the kill switch of ' + ${object} + ' is engaged; release it first: remove the annotation ${killSwitch}, then kubectl guardrails release ' + ${released} + ' --reason TEXT'`,
      },
    ],
  });
}
