import { annotation, GROUP, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import {
  annotationOf,
  brief,
  changesAnnotation,
  hasAnnotation,
  hasLabel,
  isPerson,
  isUpdate,
  labelOf,
  mayOnKillSwitch,
  removeLabel,
  user,
} from './cel.ts';
import {
  mutating,
  policyName,
  rule,
  validating,
  type AdmissionObject,
  type Operation,
  type Parameter,
} from './policies.ts';

const { acknowledge, acknowledgedBy, limitBreach } = annotation;

/** The policy that refuses an acknowledgement without the stamp of who acknowledges. */
export const acknowledgementPolicyName = policyName('limits-marks');

/** With what the refusal for want of that stamp begins. */
export const unstampedAcknowledger = `${acknowledgedBy} is stamped by admission`;

/** The operator's verb on `automationworkflows`: it says what was counted, and holds. */
const mayHold = `authorizer.group('${GROUP}').resource('${resources.workflows.plural}').namespace(request.namespace).name(object.metadata.?name.orValue('')).check('hold').allowed()`;

/**
 * The limits of a Workflow that hold without an operator: how long a Job of it takes and how often
 * it is tried again, and that none starts while a breach holds it. A Job is a Workflow's by the
 * ServiceAccount that it runs as.
 */
export function limitPolicies(): AdmissionObject[] {
  return [
    ...mark(),
    ...unmark(),
    ...stampAcknowledger(),
    ...validateMarks(),
    ...limitJobs(),
    ...keepLimits(),
    ...holdJobs(),
  ];
}

function workflows(...operations: Operation[]): ReturnType<typeof rule>[] {
  return [rule(resources.workflows, operations)];
}

/** Expression: whether there is something to write into Jobs. */
const limitsJobs = `(object.spec.?limits.?timeout.hasValue() || object.spec.?limits.?maxRetries.hasValue())`;

function mark(): AdmissionObject[] {
  return mutating({
    name: 'limits-mark',
    description:
      'A Workflow whose limits are written into Jobs has the label by which it is found.',
    rules: workflows('CREATE', 'UPDATE'),
    everywhere: true,
    conditions: {
      limits: limitsJobs,
      unmarked: `${labelOf('object', label.limited)} != 'true'`,
    },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{labels: {'${label.limited}': 'true'}}}`,
  });
}

function unmark(): AdmissionObject[] {
  return mutating({
    name: 'limits-unmark',
    description: 'Without limits that are written into Jobs there is no such label.',
    rules: workflows('CREATE', 'UPDATE'),
    everywhere: true,
    conditions: { 'no-limits': `!${limitsJobs}`, marked: hasLabel('object', label.limited) },
    patchType: 'JSONPatch',
    expression: `[${removeLabel(label.limited)}]`,
  });
}

const acknowledges = `(${hasAnnotation('object', acknowledge)} && (!${isUpdate} || ${changesAnnotation(acknowledge)}))`;

function stampAcknowledger(): AdmissionObject[] {
  return mutating({
    name: 'limits-acknowledge-stamp',
    description: 'Stamps a Workflow with the authenticated user who acknowledges a breach.',
    rules: workflows('UPDATE'),
    everywhere: true,
    conditions: { acknowledges },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{annotations: {'${acknowledgedBy}': ${user}}}}`,
  });
}

function validateMarks(): AdmissionObject[] {
  const awf = `'kubectl annotate awf ' + object.metadata.?name.orValue('') + ' -n ' + request.namespace`;
  const unchanged = [
    `object.metadata.?labels[?'${label.limitBreached}'] == oldObject.metadata.?labels[?'${label.limitBreached}']`,
    `!${changesAnnotation(limitBreach)}`,
  ].join(' && ');
  const isUnmarked = `!${hasLabel('object', label.limitBreached)} && !${hasAnnotation('object', limitBreach)}`;
  // What already stands there must not lock the object.
  const stood = `(${isUpdate} && object.spec.?limits == oldObject.spec.?limits && object.metadata.?labels[?'${label.limited}'] == oldObject.metadata.?labels[?'${label.limited}'])`;
  return validating({
    name: 'limits-marks',
    description: 'The marks of limits are true, and a person acknowledges a breach, with a reason.',
    rules: workflows('CREATE', 'UPDATE'),
    everywhere: true,
    variables: {
      acknowledges,
      withdraws: `(${isUpdate} && !${hasAnnotation('object', acknowledge)} && ${hasAnnotation('oldObject', acknowledge)})`,
    },
    validations: [
      {
        expression: `${limitsJobs} == (${labelOf('object', label.limited)} == 'true') || ${stood}`,
        message: `the label ${label.limited} follows spec.limits`,
        messageExpression: `'the label ${label.limited} follows spec.limits: ' + (${limitsJobs} ? 'write it with the value "true", or leave it out where admission adds it' : 'take it out')`,
      },
      {
        expression: `(${isUpdate} ? (${unchanged}) : (${isUnmarked})) || ${mayHold}`,
        message: `${label.limitBreached} and ${limitBreach} are written by the operator alone: they hold the Workflow whose limit is breached. To end the hold, set ${acknowledge} to the reason`,
      },
      {
        expression: `!variables.acknowledges || ${isPerson}`,
        message: `a ServiceAccount acknowledges nothing; a person does. Leave ${acknowledge} out`,
      },
      {
        expression: `!variables.acknowledges || (${isUpdate} && ${hasLabel('oldObject', label.limitBreached)})`,
        message: `no limit holds this Workflow, so that there is nothing to acknowledge; leave ${acknowledge} out. What a kill switch stops is released: kubectl guardrails release`,
      },
      {
        expression: `!variables.acknowledges || ${annotationOf('object', acknowledge)}.trim() != ''`,
        message: `write the reason: set ${acknowledge} to why the automation may go on`,
      },
      {
        expression: `!${hasAnnotation('object', acknowledge)} || ${annotationOf('object', acknowledge)}.size() <= 1024`,
        message: `${acknowledge} has at most 1024 characters: write one sentence`,
      },
      {
        expression: `variables.acknowledges ? ${annotationOf('object', acknowledgedBy)} == ${user} : variables.withdraws ? !${hasAnnotation('object', acknowledgedBy)} : (${isUpdate} ? !${changesAnnotation(acknowledgedBy)} : !${hasAnnotation('object', acknowledgedBy)})`,
        message: `${unstampedAcknowledger}; leave it alone`,
        messageExpression: `'${unstampedAcknowledger} or, where admission writes nothing, set in the same request: ' + (variables.withdraws ? ${awf} + ' ${acknowledge}- ${acknowledgedBy}-' : ${awf} + ' ${acknowledge}=TEXT ${acknowledgedBy}=' + ${user})`,
      },
    ],
  });
}

const limited: Parameter = { kind: 'Workflow', matchLabels: { [label.limited]: 'true' } };
const isMine = `(object.spec.template.spec.?serviceAccountName.orValue('') == params.metadata.name)`;

const seconds = 'duration(params.spec.limits.timeout).getSeconds()';
const retries = 'params.spec.limits.maxRetries';

/** Expressions: whether the Job would take longer, or be tried more often, than the Workflow allows. */
const takesTooLong = `(params.spec.?limits.?timeout.hasValue() && (!has(object.spec.activeDeadlineSeconds) || object.spec.activeDeadlineSeconds > ${seconds}))`;
const triesTooOften = `(params.spec.?limits.?maxRetries.hasValue() && (!has(object.spec.backoffLimit) || object.spec.backoffLimit > ${retries}))`;

function limitJobs(): AdmissionObject[] {
  const patch = (breaks: string, field: string, value: string): string =>
    `(${breaks} ? [JSONPatch{op: 'add', path: '/spec/${field}', value: ${value}}] : [])`;
  return mutating({
    name: 'limit-jobs',
    description: 'A new Job takes no longer, and is tried no more often, than its Workflow allows.',
    rules: [rule(resources.jobs, ['CREATE'])],
    parameter: limited,
    conditions: { mine: isMine, exceeds: `${takesTooLong} || ${triesTooOften}` },
    patchType: 'JSONPatch',
    expression: [
      patch(takesTooLong, 'activeDeadlineSeconds', seconds),
      patch(triesTooOften, 'backoffLimit', retries),
    ].join(' + '),
  });
}

/** The twin; a Job from before the limit stays as it is. */
function keepLimits(): AdmissionObject[] {
  const unchanged = (field: string): string =>
    `(${isUpdate} && object.spec.?${field} == oldObject.spec.?${field})`;
  const name = 'params.metadata.name';
  return validating({
    name: 'limited-jobs',
    description: 'A Job keeps to the timeout and the retries of its Workflow.',
    rules: [rule(resources.jobs, ['CREATE', 'UPDATE'])],
    parameter: limited,
    conditions: { mine: isMine },
    isHot: true,
    validations: [
      {
        expression: `!${takesTooLong} || ${unchanged('activeDeadlineSeconds')}`,
        message: 'a run takes no longer than limits.timeout of its Workflow',
        messageExpression: `'a run of ' + ${name} + ' takes at most ' + params.spec.limits.timeout + ' (limits.timeout of the Workflow): write spec.activeDeadlineSeconds: ' + string(${seconds}) + ', or less'`,
      },
      {
        expression: `!${triesTooOften} || ${unchanged('backoffLimit')}`,
        message: 'a run is tried no more often than limits.maxRetries of its Workflow allows',
        messageExpression: `'a run of ' + ${name} + ' is tried again at most ' + string(${retries}) + ' times (limits.maxRetries of the Workflow): write spec.backoffLimit: ' + string(${retries}) + ', or less'`,
      },
    ],
  });
}

/** What the operator puts back at the release of a kill switch isn't new: it ran before. */
function holdJobs(): AdmissionObject[] {
  const isSuspended = (of: string): string => `(has(${of}.spec.suspend) && ${of}.spec.suspend)`;
  const resumes = `(${isUpdate} && ${isSuspended('oldObject')} && !${isSuspended('object')} && !(${hasAnnotation('oldObject', annotation.restoreSuspend)} && !${isPerson} && ${mayOnKillSwitch('lift', 'params.metadata.name')}))`;
  const { name, namespace } = {
    name: 'params.metadata.name',
    namespace: 'params.metadata.namespace',
  };
  return validating({
    name: 'limit-hold-jobs',
    description: 'No Job of a Workflow starts while a breached limit holds it.',
    rules: [rule(resources.jobs, ['CREATE', 'UPDATE'])],
    parameter: { kind: 'Workflow', matchLabels: { [label.limitBreached]: 'true' } },
    conditions: { mine: isMine, starts: `request.operation == 'CREATE' || ${resumes}` },
    validations: [
      {
        expression: 'false',
        message: 'limit breached: the Workflow that it runs as is held; see kubectl get awf',
        messageExpression: `'limit breached: ' + ${brief(annotationOf('params', limitBreach))} + ' No new run of ' + ${name} + ' starts. To end the hold: kubectl annotate awf ' + ${name} + ' -n ' + ${namespace} + ' ${acknowledge}="why it may go on"'`,
      },
    ],
  });
}
