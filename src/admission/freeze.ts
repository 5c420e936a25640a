import { annotation, label, stoppedSelector } from '../api/names.ts';
import { resources, type Resource } from '../api/resources.ts';
import { pauses, type Pause } from '../api/workload.ts';
import { annotationOf, changesAnnotation, hasAnnotation, isUpdate } from './cel.ts';
import { killSwitchFence, refuse } from './fence.ts';
import {
  mutating,
  rule,
  validating,
  type AdmissionObject,
  type MutatingPolicy,
  type Parameter,
  type Validation,
} from './policies.ts';

type Mutation = Pick<MutatingPolicy, 'patchType' | 'expression'>;

/** A kind of workload, as admission sees it. `of` is `object` or `oldObject`. */
interface FrozenKind {
  resource: Resource;
  /** Expression: its pods' spec. */
  podSpec: (of: string) => string;
  /** Expression: whether it would start pods, and can be paused. */
  runs: string;
  /** Expression: whether it is kept from starting pods. */
  isPaused: (of: string) => string;
  pause: Pause;
  /** Freezes it and keeps what was asked for. */
  frozen: Mutation;
  /** Puts the kept value back. */
  thawed: Mutation;
  /** What a person writes where admission writes nothing. */
  byHand: string;
  /** Expression: whether it is one to be paused by itself. */
  isIndependent?: (of: string) => string;
  /** What else has to stand while the kill switch is engaged. */
  whileEngaged?: Validation[];
  /** What else has to stand while it is paused. */
  whilePaused?: Validation[];
}

function configuration(expression: string): Mutation {
  return { patchType: 'ApplyConfiguration', expression };
}

const template = (of: string): string => `${of}.spec.template.spec`;

const byReplicas = {
  podSpec: template,
  runs: '(!has(object.spec.replicas) || object.spec.replicas > 0)',
  isPaused: (of: string): string => `(has(${of}.spec.replicas) && ${of}.spec.replicas == 0)`,
  frozen: configuration(
    `Object{metadata: Object.metadata{annotations: {'${annotation.restoreReplicas}': has(object.spec.replicas) ? string(object.spec.replicas) : '1'}}, spec: Object.spec{replicas: 0}}`,
  ),
  byHand: 'spec.replicas: 0',
  thawed: configuration(
    `Object{spec: Object.spec{replicas: int(${annotationOf('object', annotation.restoreReplicas)})}}`,
  ),
};

const keepAndSuspend = `Object{metadata: Object.metadata{annotations: {'${annotation.restoreSuspend}': 'false'}}, spec: Object.spec{suspend: true}}`;

const bySuspend = {
  runs: '!(has(object.spec.suspend) && object.spec.suspend)',
  isPaused: (of: string): string => `(has(${of}.spec.suspend) && ${of}.spec.suspend)`,
  frozen: configuration(keepAndSuspend),
  byHand: 'spec.suspend: true',
  thawed: configuration(
    `Object{spec: Object.spec{suspend: ${annotationOf('object', annotation.restoreSuspend)} == 'true'}}`,
  ),
};

const deployments: FrozenKind = {
  resource: resources.deployments,
  pause: pauses.Deployment,
  ...byReplicas,
};

const hasController = (of: string): string =>
  `(has(${of}.metadata.ownerReferences) && ${of}.metadata.ownerReferences.exists(o, has(o.controller) && o.controller))`;

const replicaSets: FrozenKind = {
  resource: resources.replicaSets,
  pause: pauses.ReplicaSet,
  ...byReplicas,
  // One of a Deployment follows it. Whoever claims an owner falsely still gets no pod.
  isIndependent: (of) => `!${hasController(of)}`,
};

const selectorPath = '/spec/template/spec/nodeSelector';
const stoppedPath = `'${selectorPath}/' + jsonpatch.escapeKey('${stoppedSelector}')`;
const isStopped = (of: string): string =>
  `(has(${template(of)}.nodeSelector) && '${stoppedSelector}' in ${template(of)}.nodeSelector && ${template(of)}.nodeSelector['${stoppedSelector}'] == 'true')`;

const daemonSets: FrozenKind = {
  resource: resources.daemonSets,
  pause: pauses.DaemonSet,
  podSpec: template,
  runs: `!${isStopped('object')}`,
  isPaused: isStopped,
  byHand: `spec.template.spec.nodeSelector: {${stoppedSelector}: "true"}`,
  // An entry of a map that counts as one value can't be applied; a patch sets it.
  frozen: {
    patchType: 'JSONPatch',
    expression: `[has(object.metadata.annotations) ? JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('${annotation.restoreStopped}'), value: 'false'} : JSONPatch{op: 'add', path: '/metadata/annotations', value: {'${annotation.restoreStopped}': 'false'}}, has(${template('object')}.nodeSelector) ? JSONPatch{op: 'add', path: ${stoppedPath}, value: 'true'} : JSONPatch{op: 'add', path: '${selectorPath}', value: {'${stoppedSelector}': 'true'}}]`,
  },
  thawed: {
    patchType: 'JSONPatch',
    expression: `${annotationOf('object', annotation.restoreStopped)} == 'true' ? [] : ${template('object')}.nodeSelector.size() == 1 ? [JSONPatch{op: 'remove', path: '${selectorPath}'}] : [JSONPatch{op: 'remove', path: ${stoppedPath}}]`,
  },
};

const deletesVolumes = (of: string): string =>
  `(has(${of}.spec.persistentVolumeClaimRetentionPolicy) && has(${of}.spec.persistentVolumeClaimRetentionPolicy.whenScaled) && ${of}.spec.persistentVolumeClaimRetentionPolicy.whenScaled == 'Delete')`;

const replicasOf = (of: string): string => `(has(${of}.spec.replicas) ? ${of}.spec.replicas : 1)`;
const losesVolumes = `${isUpdate} && ${deletesVolumes('object')} && ${replicasOf('object')} < ${replicasOf('oldObject')}`;

const statefulSets: FrozenKind = {
  resource: resources.statefulSets,
  pause: pauses.StatefulSet,
  ...byReplicas,
  // One that deletes its volumes when it is scaled down is never scaled: its pods are refused and
  // deleted instead.
  runs: `${byReplicas.runs} && !${deletesVolumes('object')}`,
  whileEngaged: [
    {
      expression: `!(${losesVolumes})`,
      message:
        'stopped by a kill switch: with whenScaled: Delete, fewer replicas would delete volumes; scale it after the release',
    },
  ],
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
  pause: pauses.CronJob,
  ...bySuspend,
  podSpec: (of) => `${of}.spec.jobTemplate.spec.template.spec`,
};

// The status in a request is the requester's own words; only what is stored counts.
const isFinished = `(${isUpdate} && has(oldObject.status) && has(oldObject.status.conditions) && oldObject.status.conditions.exists(c, (c.type == 'Complete' || c.type == 'Failed') && c.status == 'True'))`;
const isBornSuspended = `(${isUpdate} && ${hasAnnotation('oldObject', annotation.bornSuspended)} && ${bySuspend.isPaused('oldObject')})`;

const jobs: FrozenKind = {
  resource: resources.jobs,
  pause: pauses.Job,
  ...bySuspend,
  podSpec: template,
  runs: `${bySuspend.runs} && !${isFinished}`,
  // A Job that is created under the fence is born suspended and keeps no value to put back,
  // whatever is asked for later: release lists it, and a person starts it.
  frozen: configuration(
    `${isUpdate} ? (${isBornSuspended} ? Object{spec: Object.spec{suspend: true}} : ${keepAndSuspend}) : Object{metadata: Object.metadata{annotations: {'${annotation.bornSuspended}': 'true'}}, spec: Object.spec{suspend: true}}`,
  ),
  whileEngaged: [
    {
      expression: `!${hasAnnotation('object', annotation.restoreSuspend)} || (${isUpdate} && !(${isBornSuspended} && ${changesAnnotation(annotation.restoreSuspend)}))`,
      message: `created under a kill switch, so that its release lists the Job and doesn't start it: leave ${annotation.restoreSuspend} out`,
    },
  ],
  whilePaused: [
    {
      expression: `!${isBornSuspended} || ${hasAnnotation('object', annotation.bornSuspended)} || !${bySuspend.isPaused('object')}`,
      message: `created under a kill switch: ${annotation.bornSuspended} stays until the release, which lists the Job`,
    },
  ],
};

const frozenKinds: readonly FrozenKind[] = [
  deployments,
  statefulSets,
  daemonSets,
  replicaSets,
  cronJobs,
  jobs,
];

const parameter: Parameter = { kind: 'KillSwitch', matchLabels: {} };
const { isEngaged, explanation } = killSwitchFence;

/**
 * Pausing and resuming by admission, by KillSwitch alone: each policy that a write meets costs the
 * API server time, and an operator latches an annotation within moments. Until then a workload is
 * stored as it was asked for, and no pod of it starts. Whoever writes a workload of a stopped automation stores it
 * paused, and what he asked for is kept in an annotation; on release, the operator's touch is
 * answered with that value. The fields stay with who owned them.
 */
export function freezePolicies(): AdmissionObject[] {
  return [
    ...frozenKinds.flatMap((kind) => [...freeze(kind), ...keepFrozen(kind), ...warn(kind)]),
    ...keepInStatus(),
    ...holdVolumes(),
    ...refuseFewerReplicas(),
    ...frozenKinds.flatMap(thaw),
  ];
}

/** Expression: whether it is a workload of the automation, to be paused by itself. */
function isMine({ podSpec, isIndependent }: FrozenKind, of: string): string {
  const isCovered = killSwitchFence.covers(`${podSpec(of)}.?serviceAccountName.orValue('default')`);
  return `(${[isCovered, ...(isIndependent === undefined ? [] : [isIndependent(of)])].join(' && ')})`;
}

function freeze(kind: FrozenKind): AdmissionObject[] {
  const { resource, runs, frozen } = kind;
  return mutating({
    name: `freeze-${resource.plural}`,
    description: `Writes of ${resource.plural} of a stopped automation come out paused; what was asked for is kept.`,
    rules: [rule(resource, ['CREATE', 'UPDATE'])],
    parameter,
    conditions: { engaged: isEngaged, mine: isMine(kind, 'object'), runs },
    ...frozen,
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
function keepFrozen(kind: FrozenKind): AdmissionObject[] {
  const { resource, runs, isPaused, whilePaused = [], whileEngaged = [] } = kind;
  const { restore, values, paused } = kind.pause;
  const mine = isMine(kind, 'object');
  const stayedPaused = `(${isUpdate} && ${isPaused('oldObject')})`;
  const kept: Validation[] = [
    {
      expression: `${hasAnnotation('object', restore)} || !${isPaused('object')} || ${annotationOf('oldObject', restore)} in ['', '${paused}']`,
      message: `paused by a kill switch: ${restore} holds what release puts back and can't go before that; it can be changed`,
    },
    {
      expression: `!${hasAnnotation('object', restore)} || !${changesAnnotation(restore)} || ${annotationOf('object', restore)}.matches('${values}')`,
      message: `${restore} holds what release puts back; its value has to match ${values}`,
    },
    ...whilePaused,
  ];
  return validating({
    name: `frozen-${resource.plural}`,
    description: `Whatever else changes a request, ${resource.plural} of a stopped automation are stored paused, and keep the value that release puts back.`,
    rules: [rule(resource, ['CREATE', 'UPDATE'])],
    parameter,
    conditions: { mine: `${mine} || (${isUpdate} && ${isMine(kind, 'oldObject')})` },
    isHot: true,
    validations: [
      {
        ...refuse(killSwitchFence),
        expression: `!(${isEngaged}) || !${mine} || !(${runs})`,
        // Who reads it met no policy that rewrites: none is installed, or something undid it.
        messageExpression: `${explanation} + '; or write it paused: ${kind.byHand}'`,
      },
      ...whileEngaged.map(({ expression, message }) => ({
        expression: `!(${isEngaged}) || (${expression})`,
        message,
      })),
      ...kept.map(({ expression, message }) => ({
        expression: `!${stayedPaused} || (${expression})`,
        message,
      })),
    ],
  });
}

/**
 * The API server takes annotations from a request of the status too, where whoever writes a status
 * has no business with ours. It holds at any time: a parameter would cost each status more.
 */
function keepInStatus(): AdmissionObject[] {
  const names = [
    ...new Set(frozenKinds.map(({ pause }) => pause.restore)),
    annotation.bornSuspended,
    annotation.changedBy,
    annotation.scheduledBy,
  ];
  return validating({
    name: 'frozen-status',
    description:
      'What release puts back, and who changed what runs, is not changed through the status of a workload.',
    rules: frozenKinds.map(({ resource }) => rule(resource, ['UPDATE'], 'status')),
    validations: [
      {
        expression: names.map((name) => `!${changesAnnotation(name)}`).join(' && '),
        message: `${names.join(', ')} say what release puts back and who changed what runs; they aren't changed through the status`,
      },
    ],
  });
}

/** Whoever changes the touch is no person at a keyboard: the operator, for each workload of a kill. */
function warn(kind: FrozenKind): AdmissionObject[] {
  const { resource } = kind;
  return validating({
    name: `warn-${resource.plural}`,
    description: `Tells whoever writes ${resource.plural} of a stopped automation that nothing of it starts.`,
    rules: [rule(resource, ['CREATE', 'UPDATE'])],
    parameter,
    conditions: {
      engaged: isEngaged,
      mine: isMine(kind, 'object'),
      byHand: `!(${isUpdate} && ${changesAnnotation(annotation.touch)})`,
    },
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

/** More replicas lose nothing and start nothing, so they are stored: release finds them. */
function holdVolumes(): AdmissionObject[] {
  return mutating({
    name: 'hold-statefulsets',
    description:
      'A StatefulSet of a stopped automation that would delete volumes when scaled down keeps its replicas.',
    rules: [rule(resources.statefulSets, ['UPDATE'])],
    parameter,
    conditions: {
      engaged: isEngaged,
      mine: isMine(statefulSets, 'object'),
      loses: losesVolumes,
    },
    ...configuration(`Object{spec: Object.spec{replicas: ${replicasOf('oldObject')}}}`),
  });
}

/**
 * A request to scale shows neither whose StatefulSet it is nor what becomes of its volumes, so it
 * is refused for all of the namespace; it is never rewritten, since that would scale as well.
 */
function refuseFewerReplicas(): AdmissionObject[] {
  const replicas = (of: string): string => `(has(${of}.spec.replicas) ? ${of}.spec.replicas : 0)`;
  return validating({
    name: 'scale-statefulsets',
    description:
      'No StatefulSet is scaled down in a namespace with an engaged KillSwitch: it could delete volumes.',
    rules: [rule(resources.statefulSets, ['UPDATE'], 'scale')],
    parameter,
    conditions: {
      engaged: isEngaged,
      fewer: `${replicas('object')} < ${replicas('oldObject')}`,
    },
    validations: [
      {
        expression: 'false',
        message: `a kill switch is engaged in this namespace, and fewer replicas of a StatefulSet could delete volumes`,
        messageExpression: `'fewer replicas of a StatefulSet could delete volumes, and admission can not see whose it is: ' + ${explanation}`,
      },
    ],
  });
}

function thaw(kind: FrozenKind): AdmissionObject[] {
  const { resource, isPaused, thawed } = kind;
  const { restore, values } = kind.pause;
  return mutating({
    name: `thaw-${resource.plural}`,
    description: `The operator's touch gives ${resource.plural} of a released automation back what their owners asked for.`,
    rules: [rule(resource, ['UPDATE'])],
    parameter: { kind: 'KillSwitch', matchLabels: { [label.releasing]: 'true' } },
    conditions: {
      mine: isMine(kind, 'object'),
      // An owner's own zero is no touch.
      touched: `${hasAnnotation('object', annotation.touch)} && ${changesAnnotation(annotation.touch)}`,
      paused: `${isPaused('object')} && ${annotationOf('object', restore)}.matches('${values}')`,
    },
    ...thawed,
  });
}
