import { annotation, label } from '../api/names.ts';
import { resources, type Resource } from '../api/resources.ts';
import { annotationOf, changesAnnotation, hasAnnotation, isUpdate } from './cel.ts';
import { fences, refuse, type Fence } from './fence.ts';
import { mutating, rule, validating, type AdmissionObject, type Validation } from './policies.ts';

/** A kind of workload, as admission sees it. `of` is `object` or `oldObject`. */
interface FrozenKind {
  resource: Resource;
  /** Expression: its pods' spec. */
  podSpec: (of: string) => string;
  /** Expression: whether it would start pods, and can be paused. */
  runs: string;
  /** Expression: whether it is kept from starting pods. */
  isPaused: (of: string) => string;
  /** The annotation that keeps what its owner asked for. */
  restore: string;
  /** Regular expression of that annotation's value. */
  values: string;
  /** The value that puts nothing back. */
  nothing: string;
  /** Expression: what freezes it and keeps what was asked for. */
  frozen: string;
  /** Expression: what puts the kept value back. */
  thawed: string;
  /** What else has to stand while it is paused. */
  whilePaused?: Validation[];
}

const template = (of: string): string => `${of}.spec.template.spec`;

const byReplicas = {
  podSpec: template,
  runs: '(!has(object.spec.replicas) || object.spec.replicas > 0)',
  isPaused: (of: string): string => `(has(${of}.spec.replicas) && ${of}.spec.replicas == 0)`,
  restore: annotation.restoreReplicas,
  values: '^[0-9]{1,9}$',
  nothing: '0',
  frozen: `Object{metadata: Object.metadata{annotations: {'${annotation.restoreReplicas}': has(object.spec.replicas) ? string(object.spec.replicas) : '1'}}, spec: Object.spec{replicas: 0}}`,
  thawed: `Object{spec: Object.spec{replicas: int(${annotationOf('object', annotation.restoreReplicas)})}}`,
};

const keepAndSuspend = `Object{metadata: Object.metadata{annotations: {'${annotation.restoreSuspend}': 'false'}}, spec: Object.spec{suspend: true}}`;

const bySuspend = {
  runs: '!(has(object.spec.suspend) && object.spec.suspend)',
  isPaused: (of: string): string => `(has(${of}.spec.suspend) && ${of}.spec.suspend)`,
  restore: annotation.restoreSuspend,
  values: '^(true|false)$',
  nothing: 'true',
  frozen: keepAndSuspend,
  thawed: `Object{spec: Object.spec{suspend: ${annotationOf('object', annotation.restoreSuspend)} == 'true'}}`,
};

const deployments: FrozenKind = { resource: resources.deployments, ...byReplicas };

const deletesVolumes = (of: string): string =>
  `(has(${of}.spec.persistentVolumeClaimRetentionPolicy) && has(${of}.spec.persistentVolumeClaimRetentionPolicy.whenScaled) && ${of}.spec.persistentVolumeClaimRetentionPolicy.whenScaled == 'Delete')`;

const statefulSets: FrozenKind = {
  resource: resources.statefulSets,
  ...byReplicas,
  // One that deletes its volumes when it is scaled down is never scaled: its pods are refused and
  // deleted instead.
  runs: `${byReplicas.runs} && !${deletesVolumes('object')}`,
  whilePaused: [
    {
      expression: `!${deletesVolumes('object')} || ${deletesVolumes('oldObject')} || !${byReplicas.isPaused('object')}`,
      message:
        'paused by a kill switch: at 0 replicas, whenScaled: Delete could delete volumes; set it after the release',
    },
  ],
};

const cronJobs: FrozenKind = {
  resource: resources.cronJobs,
  ...bySuspend,
  podSpec: (of) => `${of}.spec.jobTemplate.spec.template.spec`,
};

// The status in a request is the requester's own words; only what is stored counts.
const isFinished = `(${isUpdate} && has(oldObject.status) && has(oldObject.status.conditions) && oldObject.status.conditions.exists(c, (c.type == 'Complete' || c.type == 'Failed') && c.status == 'True'))`;
const isBornSuspended = `(${isUpdate} && ${hasAnnotation('oldObject', annotation.bornSuspended)} && ${bySuspend.isPaused('oldObject')})`;

const jobs: FrozenKind = {
  resource: resources.jobs,
  ...bySuspend,
  podSpec: template,
  runs: `${bySuspend.runs} && !${isFinished}`,
  // A Job that is created under the fence is born suspended and keeps no value to put back,
  // whatever is asked for later: release lists it, and a person starts it.
  frozen: `${isUpdate} ? (${isBornSuspended} ? Object{spec: Object.spec{suspend: true}} : ${keepAndSuspend}) : Object{metadata: Object.metadata{annotations: {'${annotation.bornSuspended}': 'true'}}, spec: Object.spec{suspend: true}}`,
  whilePaused: [
    {
      expression: `!${isBornSuspended} || ${hasAnnotation('object', annotation.bornSuspended)} || !${bySuspend.isPaused('object')}`,
      message: `created under a kill switch: ${annotation.bornSuspended} stays until the release, which lists the Job`,
    },
  ],
};

const frozenKinds: readonly FrozenKind[] = [deployments, statefulSets, cronJobs, jobs];

/**
 * Pausing and resuming by admission. Whoever writes a workload of a stopped automation stores it
 * paused, and what he asked for is kept in an annotation; on release, the operator's touch is
 * answered with that value. The fields stay with who owned them.
 */
export function freezePolicies(): AdmissionObject[] {
  return [
    ...fences.flatMap((fence) =>
      frozenKinds.flatMap((kind) => [
        ...freeze(kind, fence),
        ...keepFrozen(kind, fence),
        ...(fence.suffix === '' ? warn(kind, fence) : []),
      ]),
    ),
    ...frozenKinds.flatMap(thaw),
  ];
}

function runsAs({ podSpec }: FrozenKind, of: string, subject: string): string {
  return `has(${podSpec(of)}.serviceAccountName) && ${podSpec(of)}.serviceAccountName == ${subject}`;
}

function freeze(
  kind: FrozenKind,
  { suffix, parameter, subject, isEngaged }: Fence,
): AdmissionObject[] {
  const { resource, runs, frozen } = kind;
  return mutating({
    name: `freeze-${resource.plural}${suffix}`,
    description: `Writes of ${resource.plural} of a stopped automation come out paused; what was asked for is kept.`,
    rules: [rule(resource, ['CREATE', 'UPDATE'])],
    parameter,
    conditions: { engaged: isEngaged, mine: runsAs(kind, 'object', subject), runs },
    patchType: 'ApplyConfiguration',
    expression: frozen,
  });
}

/**
 * The twin of freezing and thawing. Whatever else changes a request, a workload of a stopped
 * automation is stored paused; and what release puts back can't get lost while it is needed: not by
 * a `replace`, and not by a restore that a fence still rewrites. The latter holds as long as the
 * kill does, its release included; once the KillSwitch is gone, whoever may write a workload that
 * stayed paused may also clear it. Changing the kept value is allowed: who may do that may as well
 * ask for other replicas.
 */
function keepFrozen(kind: FrozenKind, fence: Fence): AdmissionObject[] {
  const { suffix, parameter, subject, isEngaged } = fence;
  const { resource, runs, restore, values, nothing, isPaused, whilePaused = [] } = kind;
  const isMine = (of: string): string => `(${runsAs(kind, of, subject)})`;
  const stayedPaused = `(${isUpdate} && ${isPaused('oldObject')})`;
  const kept: Validation[] = [
    {
      expression: `${hasAnnotation('object', restore)} || !${isPaused('object')} || ${annotationOf('oldObject', restore)} in ['', '${nothing}']`,
      message: `paused by a kill switch: ${restore} holds what release puts back and can't go before that; it can be changed`,
    },
    {
      expression: `!${hasAnnotation('object', restore)} || !${changesAnnotation(restore)} || ${annotationOf('object', restore)}.matches('${values}')`,
      message: `${restore} holds what release puts back; its value has to match ${values}`,
    },
    ...whilePaused,
  ];
  return validating({
    name: `frozen-${resource.plural}${suffix}`,
    description: `Whatever else changes a request, ${resource.plural} of a stopped automation are stored paused, and keep the value that release puts back.`,
    rules: [rule(resource, ['CREATE', 'UPDATE'])],
    parameter,
    conditions: { mine: `${isMine('object')} || (${isUpdate} && ${isMine('oldObject')})` },
    validations: [
      { ...refuse(fence), expression: `!(${isEngaged}) || !${isMine('object')} || !(${runs})` },
      ...kept.map(({ expression, message }) => ({
        expression: `!${stayedPaused} || (${expression})`,
        message,
      })),
    ],
  });
}

/**
 * By KillSwitch alone: each policy that a write meets costs the API server time, and an operator
 * latches an annotation within moments.
 */
function warn(kind: FrozenKind, fence: Fence): AdmissionObject[] {
  const { suffix, parameter, subject, isEngaged, explanation } = fence;
  const { resource } = kind;
  return validating({
    name: `warn-${resource.plural}${suffix}`,
    description: `Tells whoever writes ${resource.plural} of a stopped automation that nothing of it starts.`,
    rules: [rule(resource, ['CREATE', 'UPDATE'])],
    parameter,
    conditions: { engaged: isEngaged, mine: runsAs(kind, 'object', subject) },
    validations: [
      {
        expression: 'false',
        message: 'stored, but nothing of it starts: its kill switch is engaged',
        messageExpression: `'stored, but nothing of it starts: ' + ${explanation}`,
      },
    ],
    action: 'Warn',
  });
}

function thaw(kind: FrozenKind): AdmissionObject[] {
  const { resource, restore, values, isPaused, thawed } = kind;
  return mutating({
    name: `thaw-${resource.plural}`,
    description: `The operator's touch gives ${resource.plural} of a released automation back what their owners asked for.`,
    rules: [rule(resource, ['UPDATE'])],
    parameter: { kind: 'KillSwitch', matchLabels: { [label.releasing]: 'true' } },
    conditions: {
      mine: runsAs(kind, 'object', 'params.spec.workflow'),
      // An owner's own zero is no touch.
      touched: `${hasAnnotation('object', annotation.touch)} && ${changesAnnotation(annotation.touch)}`,
      paused: `${isPaused('object')} && ${annotationOf('object', restore)}.matches('${values}')`,
    },
    patchType: 'ApplyConfiguration',
    expression: thawed,
  });
}
