import { annotation, GROUP, label } from '../api/names.ts';
import type { KubeObject } from '../api/objects.ts';
import { annotationOf, hasAnnotation, isReleasing, isUpdate } from './cel.ts';
import { mutating, policyName, validating, type Parameter, type ResourceRule } from './policies.ts';

/**
 * The fence stands twice: by the KillSwitch, and by the annotation on the Workflow, which holds
 * before any operator has latched it.
 */
interface Fence {
  suffix: '' | '-by-annotation';
  parameter: Parameter;
  /** Name of the ServiceAccount that is stopped. */
  subject: string;
  /** Whether this parameter fences. */
  isEngaged: string;
  /** Why, by whom and how to get out, for a person. */
  explanation: string;
}

const fences: readonly Fence[] = [
  {
    suffix: '',
    parameter: { kind: 'KillSwitch', matchLabels: {} },
    subject: 'params.spec.workflow',
    isEngaged: `!${isReleasing}`,
    explanation: `'kill switch: ' + params.spec.reason + ' (engaged by ' + (has(params.spec.engagedBy) ? params.spec.engagedBy : 'unknown') + '); release: kubectl guardrails release ' + params.spec.workflow + ' -n ' + params.metadata.namespace + ' --reason TEXT'`,
  },
  {
    suffix: '-by-annotation',
    parameter: { kind: 'Workflow', matchLabels: { [label.engaged]: 'true' } },
    subject: 'params.metadata.name',
    isEngaged: 'true',
    explanation: `'kill switch: ' + ${annotationOf('params', annotation.killSwitch)} + ' (engaged by ' + ${annotationOf('params', annotation.killSwitchEngagedBy)} + '); to release, remove the annotation, then: kubectl guardrails release ' + params.metadata.name + ' -n ' + params.metadata.namespace + ' --reason TEXT'`,
  },
];

/** The policy by whose name the API server answers the probe of the fence. */
export const probePolicyName = policyName('fence-pods');

/** A kind of workload, as admission sees it. */
interface FencedKind {
  /** In names of policies. */
  name: string;
  group: 'apps' | 'batch';
  resource: string;
  /** Its pods' spec. */
  podSpec: string;
  /** Whether it would start pods; `object` or `oldObject`. */
  runs: (of: string) => string;
  /** Whether it is kept from starting pods. */
  isPaused: (of: string) => string;
  /** The annotation that keeps what its owner asked for. */
  restore: string;
  /** What freezes it. */
  frozen: string;
  /** Regular expression of a restore value. */
  value: string;
  /** What puts the restore value back. */
  thawed: string;
}

const replicas = {
  runs: (of: string): string => `(!has(${of}.spec.replicas) || ${of}.spec.replicas > 0)`,
  isPaused: (of: string): string => `(has(${of}.spec.replicas) && ${of}.spec.replicas == 0)`,
  restore: annotation.restoreReplicas,
  frozen: `Object{metadata: Object.metadata{annotations: {'${annotation.restoreReplicas}': has(object.spec.replicas) ? string(object.spec.replicas) : '1'}}, spec: Object.spec{replicas: 0}}`,
  value: '^[0-9]{1,9}$',
  thawed: `Object{spec: Object.spec{replicas: int(object.metadata.annotations['${annotation.restoreReplicas}'])}}`,
};

const suspend = {
  isPaused: (of: string): string => `(has(${of}.spec.suspend) && ${of}.spec.suspend)`,
  restore: annotation.restoreSuspend,
  value: '^(true|false)$',
  thawed: `Object{spec: Object.spec{suspend: object.metadata.annotations['${annotation.restoreSuspend}'] == 'true'}}`,
};

const isFinished = (of: string): string =>
  `(has(${of}.status) && has(${of}.status.conditions) && ${of}.status.conditions.exists(c, (c.type == 'Complete' || c.type == 'Failed') && c.status == 'True'))`;

const keepSuspend = `Object{metadata: Object.metadata{annotations: {'${annotation.restoreSuspend}': 'false'}}, spec: Object.spec{suspend: true}}`;

const kinds: readonly FencedKind[] = [
  {
    name: 'deployments',
    group: 'apps',
    resource: 'deployments',
    podSpec: 'object.spec.template.spec',
    ...replicas,
  },
  {
    name: 'statefulsets',
    group: 'apps',
    resource: 'statefulsets',
    podSpec: 'object.spec.template.spec',
    ...replicas,
    // One that deletes its volumes when it is scaled down is never scaled: its pods are refused
    // and deleted instead.
    runs: (of) =>
      `${replicas.runs(of)} && !(has(${of}.spec.persistentVolumeClaimRetentionPolicy) && has(${of}.spec.persistentVolumeClaimRetentionPolicy.whenScaled) && ${of}.spec.persistentVolumeClaimRetentionPolicy.whenScaled == 'Delete')`,
  },
  {
    name: 'cronjobs',
    group: 'batch',
    resource: 'cronjobs',
    podSpec: 'object.spec.jobTemplate.spec.template.spec',
    ...suspend,
    runs: (of) => `!${suspend.isPaused(of)}`,
    frozen: keepSuspend,
  },
  {
    name: 'jobs',
    group: 'batch',
    resource: 'jobs',
    podSpec: 'object.spec.template.spec',
    ...suspend,
    runs: (of) => `!${suspend.isPaused(of)} && !${isFinished(of)}`,
    // A Job that is created under the fence is born suspended and keeps no value to restore:
    // release lists it instead of starting it.
    frozen: `${isUpdate} ? ${keepSuspend} : Object{metadata: Object.metadata{annotations: {'${annotation.bornSuspended}': 'true'}}, spec: Object.spec{suspend: true}}`,
  },
];

function rule(
  group: string,
  resources: string[],
  ...operations: ResourceRule['operations']
): ResourceRule {
  return { apiGroups: [group], apiVersions: ['*'], operations, resources };
}

function runsAs({ podSpec }: FencedKind, subject: string): string {
  return `has(${podSpec}.serviceAccountName) && ${podSpec}.serviceAccountName == ${subject}`;
}

/** What stops an automation while its kill switch is engaged, and what gives it back. */
export function fencePolicies(): KubeObject[] {
  return [
    ...fences.flatMap((fence) => [...fencePods(fence), ...fenceTokens(fence)]),
    ...fences.flatMap((fence) =>
      kinds.flatMap((kind) => [...freeze(kind, fence), ...frozen(kind, fence)]),
    ),
    ...fences.flatMap(warn),
    ...kinds.flatMap(thaw),
    ...kinds.flatMap(keepRestore),
  ];
}

function fencePods({ suffix, parameter, subject, isEngaged, explanation }: Fence): KubeObject[] {
  const isKillSwitch = parameter.kind === 'KillSwitch';
  const probed = isKillSwitch ? 'killswitches' : 'automationworkflows';
  return validating({
    name: `fence-pods${suffix}`,
    description: 'No new pod of a stopped automation. Answers the probe of the fence by its name.',
    rules: [rule('', ['pods'], 'CREATE'), rule(GROUP, [probed], 'UPDATE')],
    parameter,
    conditions: {
      mine: `request.resource.resource == 'pods' ? (has(object.spec.serviceAccountName) && object.spec.serviceAccountName == ${subject}) : (${hasAnnotation('object', annotation.probe)} && object.metadata.name == params.metadata.name)`,
      engaged: isEngaged,
    },
    validations: [{ expression: 'false', messageExpression: explanation }],
  });
}

function fenceTokens({ suffix, parameter, subject, isEngaged, explanation }: Fence): KubeObject[] {
  return validating({
    name: `fence-tokens${suffix}`,
    description: 'No new token of a stopped automation.',
    rules: [rule('', ['serviceaccounts/token'], 'CREATE')],
    parameter,
    conditions: { mine: `request.name == ${subject}`, engaged: isEngaged },
    validations: [{ expression: 'false', messageExpression: explanation }],
  });
}

function freeze(kind: FencedKind, { suffix, parameter, subject, isEngaged }: Fence): KubeObject[] {
  return mutating({
    name: `freeze-${kind.name}${suffix}`,
    description: `Writes of ${kind.resource} of a stopped automation come out paused; what was asked for is kept.`,
    rules: [rule(kind.group, [kind.resource], 'CREATE', 'UPDATE')],
    parameter,
    conditions: { mine: runsAs(kind, subject), engaged: isEngaged, runs: kind.runs('object') },
    patchType: 'ApplyConfiguration',
    expression: kind.frozen,
  });
}

function frozen(
  kind: FencedKind,
  { suffix, parameter, subject, isEngaged, explanation }: Fence,
): KubeObject[] {
  return validating({
    name: `frozen-${kind.name}${suffix}`,
    description: `Whatever else changes a request, ${kind.resource} of a stopped automation are stored paused.`,
    rules: [rule(kind.group, [kind.resource], 'CREATE', 'UPDATE')],
    parameter,
    conditions: { mine: runsAs(kind, subject), engaged: isEngaged, runs: kind.runs('object') },
    validations: [{ expression: 'false', messageExpression: explanation }],
  });
}

function warn({ suffix, parameter, subject, isEngaged, explanation }: Fence): KubeObject[] {
  return kinds.flatMap((kind) =>
    validating({
      name: `warn-${kind.name}${suffix}`,
      description: `Tells whoever writes ${kind.resource} of a stopped automation that they stay paused.`,
      rules: [rule(kind.group, [kind.resource], 'CREATE', 'UPDATE')],
      parameter,
      conditions: { mine: runsAs(kind, subject), engaged: isEngaged },
      validations: [
        {
          expression: 'false',
          messageExpression: `'stored, but it stays paused: ' + ${explanation}`,
        },
      ],
      action: 'Warn',
    }),
  );
}

function thaw(kind: FencedKind): KubeObject[] {
  const touch = annotationOf('object', annotation.touch);
  return mutating({
    name: `thaw-${kind.name}`,
    description: `The operator's touch gives ${kind.resource} of a released automation back what their owners asked for.`,
    rules: [rule(kind.group, [kind.resource], 'UPDATE')],
    parameter: { kind: 'KillSwitch', matchLabels: { [label.releasing]: 'true' } },
    reinvocation: 'Never',
    conditions: {
      mine: runsAs(kind, 'params.spec.workflow'),
      // An owner's own zero is no touch.
      touched: `${touch} != '' && ${touch} != ${annotationOf('oldObject', annotation.touch)}`,
      paused: `${kind.isPaused('object')} && ${annotationOf('object', kind.restore)}.matches('${kind.value}')`,
    },
    patchType: 'ApplyConfiguration',
    expression: kind.thawed,
  });
}

function keepRestore(kind: FencedKind): KubeObject[] {
  return validating({
    name: `keep-restore-${kind.name}`,
    description: `${kind.resource} that are paused keep the value that release puts back.`,
    rules: [rule(kind.group, [kind.resource], 'UPDATE')],
    conditions: { restorable: hasAnnotation('oldObject', kind.restore) },
    validations: [
      {
        expression: `${hasAnnotation('object', kind.restore)} || !${kind.isPaused('object')}`,
        message: `paused by a kill switch: ${kind.restore} holds what release puts back, and can only go when it runs again`,
      },
    ],
  });
}
