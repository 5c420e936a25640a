import { annotation } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { isPerRun, needingApproval, podSpecOf, runsAsIt } from './approval.ts';
import { annotationOf, byClusterItself, hasAnnotation, isPerson, isUpdate, user } from './cel.ts';
import { mutating, rule, validating, type AdmissionObject } from './policies.ts';

const { pods, jobs, cronJobs } = resources;
const { changedBy, scheduledBy } = annotation;

/** Who asked for a run that is approved by itself, and which run a pod belongs to. */
export function approvalRunPolicies(): AdmissionObject[] {
  return [...stampRun(), ...keepRun(), ...stampSchedule(), ...keepSchedule()];
}

/** Of pods whose runs are approved one by one. */
const perRun = { mine: runsAsIt('object'), perRun: isPerRun('params') };

/** A pod that belongs to no Job is a run, and who creates it has asked for it. */
function stampRun(): AdmissionObject[] {
  return mutating({
    name: 'approval-run-stamp',
    description: 'Stamps a pod that is a run by itself with the user who asks for it.',
    rules: [rule(pods, ['CREATE'])],
    parameter: needingApproval,
    conditions: { ...perRun, person: `!${byClusterItself}` },
    patchType: 'ApplyConfiguration',
    expression: `Object{metadata: Object.metadata{annotations: {'${changedBy}': ${user}}}}`,
  });
}

/** A pod that passes for one of a Job that was approved would need no approval. */
function keepRun(): AdmissionObject[] {
  const stamp = annotationOf('object', changedBy);
  return validating({
    name: 'approval-run',
    description: 'Which run a pod belongs to, and who asked for it, is true.',
    rules: [rule(pods, ['CREATE', 'UPDATE'])],
    parameter: needingApproval,
    conditions: { ...perRun, person: `!${byClusterItself}` },
    validations: [
      {
        expression: `object.metadata.?ownerReferences.orValue([]).filter(o, o.?controller.orValue(false)).all(o, ${isUpdate} && oldObject.metadata.?ownerReferences.orValue([]).exists(b, b.uid == o.uid && b.?controller.orValue(false)))`,
        message:
          'each run of this Workflow is approved by itself, and a pod belongs to a run by who made it: leave the ownerReference with controller: true out, or create a Job',
      },
      {
        expression: `${isUpdate} ? ${stamp} == ${annotationOf('oldObject', changedBy)} : !${hasAnnotation('object', changedBy)} || ${stamp} == ${user}`,
        message: `${changedBy} is the authenticated user who asks for the run; leave it out`,
      },
    ],
  });
}

/** Expression: whether two maps are the same, but for some keys. */
function isSameBut(ignored: readonly string[], after: string, before: string): string {
  const isIgnored = `key in ['${ignored.join("', '")}']`;
  return `dyn(${after}).all(key, ${isIgnored} || (key in dyn(${before}) && dyn(${after})[key] == dyn(${before})[key])) && dyn(${before}).all(key, ${isIgnored} || key in dyn(${after}))`;
}

const jobTemplateOf = (of: string, field: string): string =>
  `dyn(${of}).spec.jobTemplate.?metadata.?${field}.orValue({})`;

/** Annotation of the Jobs that a CronJob makes. */
const scheduled = {
  of: (of: string): string =>
    `dyn(${of}).spec.jobTemplate.?metadata.?annotations[?'${scheduledBy}'].orValue('')`,
  isIn: (of: string): string =>
    `dyn(${of}).spec.jobTemplate.?metadata.?annotations[?'${scheduledBy}'].hasValue()`,
};

const isSuspended = (of: string): string => `${of}.spec.?suspend.orValue(false)`;

/**
 * Whether the request leaves alone when a CronJob makes Jobs, and what they are but for their pods,
 * whose template has a stamp of its own. To suspend it starts nothing; to resume it does, unless
 * the operator puts back what a kill switch took.
 */
const isSameSchedule = `(${[
  isUpdate,
  `${podSpecOf('object')}.?serviceAccountName == ${podSpecOf('oldObject')}.?serviceAccountName`,
  isSameBut(
    ['suspend', 'jobTemplate', 'successfulJobsHistoryLimit', 'failedJobsHistoryLimit'],
    'object.spec',
    'oldObject.spec',
  ),
  isSameBut(
    ['template'],
    'dyn(object).spec.jobTemplate.spec',
    'dyn(oldObject).spec.jobTemplate.spec',
  ),
  isSameBut([], jobTemplateOf('object', 'labels'), jobTemplateOf('oldObject', 'labels')),
  isSameBut(
    [scheduledBy],
    jobTemplateOf('object', 'annotations'),
    jobTemplateOf('oldObject', 'annotations'),
  ),
  `!(${isSuspended('oldObject')} && !${isSuspended('object')} && ${isPerson})`,
].join(' && ')})`;

const ofMine = {
  mine: `${podSpecOf('object')}.?serviceAccountName.orValue('') == params.metadata.name`,
  perRun: isPerRun('params'),
};

/**
 * Its controller makes the Jobs of a CronJob, so that nobody asks for one of them by himself; who
 * says when they are made does. The stamp stands where the controller copies it into each Job, so
 * that whoever writes the schedule later doesn't ask for those that are there.
 */
function stampSchedule(): AdmissionObject[] {
  return mutating({
    name: 'approval-schedule-stamp',
    description:
      'Stamps what a CronJob makes with the user who said when, where each run is approved by itself.',
    rules: [rule(cronJobs, ['CREATE', 'UPDATE'])],
    parameter: needingApproval,
    conditions: {
      ...ofMine,
      // Of a CronJob from before nobody knows, and who merely touches it takes nothing on himself.
      known: `!${isSameSchedule} || ${scheduled.isIn('oldObject')}`,
    },
    patchType: 'ApplyConfiguration',
    expression: `Object{spec: Object.spec{jobTemplate: Object.spec.jobTemplate{metadata: Object.spec.jobTemplate.metadata{annotations: {'${scheduledBy}': ${isSameSchedule} ? ${scheduled.of('oldObject')} : ${user}}}}}}`,
  });
}

/** A new Job may say of itself what it likes: it keeps one more from approving it. */
function keepSchedule(): AdmissionObject[] {
  const isJob = `request.resource.resource == '${jobs.plural}'`;
  return validating({
    name: 'approval-schedule',
    description: 'Who said when a run is made, where each is approved by itself, is true.',
    rules: [rule(cronJobs, ['CREATE', 'UPDATE']), rule(jobs, ['UPDATE'])],
    parameter: needingApproval,
    conditions: ofMine,
    validations: [
      {
        expression: `!(${isJob}) || ${annotationOf('object', scheduledBy)} == ${annotationOf('oldObject', scheduledBy)}`,
        message: `${scheduledBy} says who asked for this run; leave it as it is`,
      },
      {
        expression: `${isJob} || (${isSameSchedule} ? ${scheduled.of('object')} == ${scheduled.of('oldObject')} : !${scheduled.isIn('object')} || ${scheduled.of('object')} == ${user})`,
        message: `${scheduledBy} in the jobTemplate is the authenticated user who changed when the CronJob makes Jobs; leave it out, or write your own name with a change`,
      },
    ],
  });
}
