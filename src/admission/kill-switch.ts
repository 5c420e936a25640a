import { annotation, GROUP, label } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import {
  annotationOf,
  hasAnnotation,
  hasLabel,
  isDryRun,
  isEngaging,
  isUpdate,
  mayOnKillSwitch,
  wasEngaging,
} from './cel.ts';
import { mutating, validating, type ResourceRule } from './policies.ts';

function killSwitches(...operations: ResourceRule['operations']): ResourceRule[] {
  return [{ apiGroups: [GROUP], apiVersions: ['*'], operations, resources: ['killswitches'] }];
}

function workflows(...operations: ResourceRule['operations']): ResourceRule[] {
  return [
    { apiGroups: [GROUP], apiVersions: ['*'], operations, resources: ['automationworkflows'] },
  ];
}

const release = annotationOf('object', annotation.release);
const oldRelease = annotationOf('oldObject', annotation.release);
const releasedBy = annotationOf('object', annotation.releasedBy);
const oldReleasedBy = annotationOf('oldObject', annotation.releasedBy);
const user = 'request.userInfo.username';
const engagedBy = annotationOf('object', annotation.killSwitchEngagedBy);
const oldEngagedBy = annotationOf('oldObject', annotation.killSwitchEngagedBy);

/** Who may engage and release, and that a kill can't be edited away. */
export function killSwitchPolicies(): KubeObject[] {
  return [
    ...mutating({
      name: 'kill-switch-stamp',
      description: 'Stamps a KillSwitch with the authenticated user who engaged it.',
      rules: killSwitches('CREATE'),
      everywhere: true,
      reinvocation: 'Never',
      conditions: {
        // The operator passes on who wrote the annotation that it latches.
        'not-latched': `!(has(object.spec.engagedBy) && object.spec.engagedBy != '' && ${mayOnKillSwitch('latch')})`,
      },
      patchType: 'ApplyConfiguration',
      expression: `Object{spec: Object.spec{engagedBy: ${user}}}`,
    }),
    ...mutating({
      name: 'kill-switch-release-stamp',
      description: 'Stamps a KillSwitch with the authenticated user who asks for its release.',
      rules: killSwitches('UPDATE'),
      everywhere: true,
      reinvocation: 'Never',
      conditions: { asked: `${release} != '' && ${release} != ${oldRelease}` },
      patchType: 'ApplyConfiguration',
      expression: `Object{metadata: Object.metadata{annotations: {'${annotation.releasedBy}': ${user}}}}`,
    }),
    ...validating({
      name: 'kill-switch-create',
      description: 'A new KillSwitch is engaged, by who asks, and not half-way released.',
      rules: killSwitches('CREATE'),
      everywhere: true,
      validations: [
        {
          expression: `has(object.spec.engagedBy) && (object.spec.engagedBy == ${user} || (object.spec.engagedBy != '' && ${mayOnKillSwitch('latch')}))`,
          message: 'engagedBy is the authenticated user; leave it out',
        },
        {
          expression: `!${hasLabel('object', label.releasing)} && !${hasAnnotation('object', annotation.release)} && !${hasAnnotation('object', annotation.releasedBy)} && !${hasAnnotation('object', annotation.probe)}`,
          message: 'a new kill switch is engaged: create it without the marks of a release',
        },
      ],
    }),
    ...validating({
      name: 'kill-switch-release',
      description:
        'A KillSwitch is released by a second person with the right to, and with a reason.',
      rules: killSwitches('UPDATE'),
      everywhere: true,
      variables: {
        asks: `${hasAnnotation('object', annotation.release)} && ${release} != ${oldRelease}`,
        withdraws: `!${hasAnnotation('object', annotation.release)} && ${hasAnnotation('oldObject', annotation.release)}`,
      },
      validations: [
        {
          expression: `!${hasAnnotation('object', annotation.release)} || ${release}.trim() != ''`,
          message: 'a release needs a reason: set the annotation to why it is safe to start again',
        },
        {
          expression: `!variables.asks || ${mayOnKillSwitch('release')}`,
          messageExpression: `${user} + ' may not release: it takes the verb release on killswitches (ClusterRole automation-guardrails-releaser)'`,
        },
        {
          expression: `!variables.asks || ${user} != object.spec.engagedBy`,
          messageExpression: `${user} + ' engaged this kill switch; somebody else has to release it'`,
        },
        {
          expression: `!variables.asks || !${user}.startsWith('system:serviceaccount:')`,
          message: 'a ServiceAccount may not release a kill switch; a person does',
        },
        {
          expression: `!variables.withdraws || ${oldReleasedBy} == ${user} || ${mayOnKillSwitch('lift')}`,
          message: 'only who asked for the release may withdraw it',
        },
        {
          expression: `${releasedBy} == ${oldReleasedBy} || (variables.asks && ${releasedBy} == ${user}) || (variables.withdraws && ${releasedBy} == '')`,
          message: 'released-by is stamped by admission; leave it out',
        },
        {
          expression: `${hasLabel('object', label.releasing)} == ${hasLabel('oldObject', label.releasing)} || ${mayOnKillSwitch('lift')}`,
          message: 'the label releasing is written by the operator alone',
        },
        {
          expression: `!${hasAnnotation('object', annotation.probe)} || ${isDryRun}`,
          message: 'the probe annotation is for dry runs only',
        },
      ],
    }),
    ...validating({
      name: 'kill-switch-release-blocked',
      description: 'No release while the Workflow still carries the annotation that engages.',
      rules: killSwitches('UPDATE'),
      parameter: { kind: 'Workflow', matchLabels: { [label.engaged]: 'true' } },
      conditions: {
        asks: `${hasAnnotation('object', annotation.release)} && ${release} != ${oldRelease}`,
        mine: 'params.metadata.name == object.spec.workflow',
      },
      validations: [
        {
          expression: 'false',
          messageExpression: `'the Workflow still carries the annotation that engages, set by ' + ${annotationOf('params', annotation.killSwitchEngagedBy)} + '; remove it first (in Git too, if it is there): kubectl -n ' + params.metadata.namespace + ' annotate awf ' + params.metadata.name + ' ${annotation.killSwitch}-'`,
        },
      ],
    }),
    ...validating({
      name: 'kill-switch-delete',
      description: 'A KillSwitch is deleted by its release, or with its namespace.',
      rules: killSwitches('DELETE'),
      everywhere: true,
      validations: [
        {
          expression: `${hasLabel('oldObject', label.releasing)} || (namespaceObject != null && has(namespaceObject.metadata.deletionTimestamp))`,
          messageExpression: `'an engaged kill switch is not deleted but released: kubectl guardrails release ' + oldObject.metadata.name + ' -n ' + oldObject.metadata.namespace + ' --reason TEXT'`,
        },
      ],
    }),
    ...mutating({
      name: 'workflow-mark',
      description: 'Label and stamp of an engaging annotation on a Workflow follow the annotation.',
      rules: workflows('CREATE', 'UPDATE'),
      everywhere: true,
      conditions: { engaging: isEngaging },
      patchType: 'ApplyConfiguration',
      expression: `Object{metadata: Object.metadata{labels: {'${label.engaged}': 'true'}, annotations: {'${annotation.killSwitchEngagedBy}': ${wasEngaging} && ${oldEngagedBy} != '' ? ${oldEngagedBy} : ${user}}}}`,
    }),
    ...mutating({
      name: 'workflow-unmark',
      description: 'Without the engaging annotation there is no label and no stamp.',
      rules: workflows('CREATE', 'UPDATE'),
      everywhere: true,
      conditions: {
        'not-engaging': `!${isEngaging}`,
        marked: `${hasLabel('object', label.engaged)} || ${hasAnnotation('object', annotation.killSwitchEngagedBy)}`,
      },
      patchType: 'JSONPatch',
      expression: `(${hasLabel('object', label.engaged)} ? [JSONPatch{op: 'remove', path: '/metadata/labels/' + jsonpatch.escapeKey('${label.engaged}')}] : []) + (${hasAnnotation('object', annotation.killSwitchEngagedBy)} ? [JSONPatch{op: 'remove', path: '/metadata/annotations/' + jsonpatch.escapeKey('${annotation.killSwitchEngagedBy}')}] : [])`,
    }),
    ...validating({
      name: 'workflow-marks',
      description: 'The engaging annotation has a reason, and its label and stamp are true.',
      rules: workflows('CREATE', 'UPDATE'),
      everywhere: true,
      validations: [
        {
          expression: `!${isEngaging} || !(${annotationOf('object', annotation.killSwitch)}.trim().lowerAscii() in ['', 'false', 'off', 'no', '0'])`,
          messageExpression: `'the annotation kill-switch engages whatever its value is: write the reason. To release: kubectl guardrails release ' + object.metadata.name + ' -n ' + object.metadata.namespace + ' --reason TEXT'`,
        },
        {
          expression: `${isEngaging} == (${hasLabel('object', label.engaged)} && object.metadata.labels['${label.engaged}'] == 'true')`,
          message: 'the label engaged follows the annotation kill-switch; leave it alone',
        },
        {
          expression: `${isEngaging} ? (${wasEngaging} && ${oldEngagedBy} != '' ? ${engagedBy} == ${oldEngagedBy} : ${engagedBy} == ${user}) : ${engagedBy} == ''`,
          message: 'kill-switch-engaged-by is stamped by admission; leave it alone',
        },
        {
          expression: `!(${isUpdate}) || !${hasAnnotation('object', annotation.probe)} || ${isDryRun}`,
          message: 'the probe annotation is for dry runs only',
        },
      ],
    }),
  ];
}
