import { annotation, label } from '../api/names.ts';
import { resources } from '../api/resources.ts';
import { annotationOf, brief, isProbe, isReleasing } from './cel.ts';
import {
  policyName,
  rule,
  validating,
  type AdmissionObject,
  type Parameter,
  type Validation,
} from './policies.ts';

/**
 * The fence stands twice, by the same rules: by the KillSwitch, and by the annotation on the
 * Workflow, which holds before any operator has latched it.
 */
export interface Fence {
  /** Of its policies' names. */
  suffix: '' | '-by-annotation';
  /** Engaged, or also being released. */
  parameter: Parameter;
  /** Expression: name of the ServiceAccount that is stopped. */
  subject: string;
  /** Expression: whether this parameter fences now. */
  isEngaged: string;
  /** Whose dry-run update this fence answers as a probe. */
  probed: (typeof resources)['killSwitches'] | (typeof resources)['workflows'];
  /** Expression: why, by whom, and how to get out, for a person. */
  explanation: string;
}

/** With what every refusal of the fence begins. */
const refusal = 'kill switch: ';
const wayOut = `'kubectl guardrails release ' + params.metadata.name + ' -n ' + params.metadata.namespace + ' --reason TEXT'`;

export const killSwitchFence: Fence = {
  suffix: '',
  parameter: { kind: 'KillSwitch', matchLabels: {} },
  subject: 'params.spec.workflow',
  isEngaged: `!${isReleasing}`,
  probed: resources.killSwitches,
  explanation: `'${refusal}' + ${brief('params.spec.reason')} + ' (engaged by ' + (has(params.spec.engagedBy) ? params.spec.engagedBy : 'unknown') + '); to release: ' + ${wayOut}`,
};

export const fences: readonly Fence[] = [
  killSwitchFence,
  {
    suffix: '-by-annotation',
    parameter: { kind: 'Workflow', matchLabels: { [label.engaged]: 'true' } },
    subject: 'params.metadata.name',
    isEngaged: 'true',
    probed: resources.workflows,
    explanation: `'${refusal}' + ${brief(annotationOf('params', annotation.killSwitch))} + ' (engaged by ' + ${annotationOf('params', annotation.killSwitchEngagedBy)} + '); to release, remove the annotation ${annotation.killSwitch} from the Workflow, then: ' + ${wayOut}`,
  },
];

/** A validation that refuses whatever the conditions of its policy let through. */
export function refuse({ explanation }: Fence): Validation {
  return {
    expression: 'false',
    message: `${refusal}engaged; see kubectl get ksw,awf`,
    messageExpression: explanation,
  };
}

/** No pod and no token of a stopped automation, proven on demand. */
export function fencePolicies(): AdmissionObject[] {
  return fences.flatMap((fence) => [
    ...fencePods(fence),
    ...fenceTokens(fence),
    ...fenceTokenSecrets(fence),
  ]);
}

/** The policy by whose name the API server answers a probe of the fence by KillSwitch. */
export const probePolicyName = policyName('fence-pods');

/** The policy by whose name the API server answers a probe of the fence by annotation. */
export const annotationProbePolicyName = policyName('fence-pods-by-annotation');

/**
 * Whether a message of the API server says that this policy refused the request by its own rule,
 * rather than because the API server couldn't evaluate it yet: that refuses as well, but proves
 * nothing.
 */
export function isDeniedBy(message: string, policy: string): boolean {
  const denial = `ValidatingAdmissionPolicy '${policy}' with binding '${policy}' denied request: `;
  return message.includes(`${denial}${refusal}`);
}

/**
 * Pods, and the probe: a dry-run update of the KillSwitch (or Workflow) that carries the annotation
 * `probe` is refused by the same policy and binding, and only while it fences. So an answer proves
 * the refusal of pods, for an asker who may not create any.
 */
function fencePods(fence: Fence): AdmissionObject[] {
  const { suffix, parameter, subject, isEngaged, probed } = fence;
  // The fields of a pod and of our own kinds differ, and one expression is checked for both.
  const spec = 'dyn(object.spec)';
  const oldSpec = 'dyn(oldObject.spec)';
  const changesCode = [
    `${images(spec, 'containers')} != ${images(oldSpec, 'containers')}`,
    `${images(spec, 'initContainers')} != ${images(oldSpec, 'initContainers')}`,
    `${images(spec, 'ephemeralContainers')} != ${images(oldSpec, 'ephemeralContainers')}`,
    `${spec}.?schedulingGates != ${oldSpec}.?schedulingGates`,
  ].join(' || ');
  const isPod = `request.resource.resource == '${resources.pods.plural}'`;
  const startsCode = `${spec}.?serviceAccountName.orValue('') == ${subject} && (request.operation == 'CREATE' || ${changesCode})`;
  return validating({
    name: `fence-pods${suffix}`,
    description:
      'No new pod of a stopped automation, no new image in a pod that is left, and no gate lifted. Answers the probe of the fence by its name.',
    rules: [
      rule(resources.pods, ['CREATE', 'UPDATE']),
      rule(resources.pods, ['UPDATE'], 'ephemeralcontainers'),
      rule(probed, ['UPDATE']),
    ],
    parameter,
    conditions: {
      engaged: isEngaged,
      mine: `${isPod} ? (${startsCode}) : (${isProbe} && object.metadata.name == params.metadata.name)`,
    },
    validations: [refuse(fence)],
  });
}

function images(spec: string, containers: string): string {
  return `${spec}.?${containers}.orValue([]).map(c, c.?image.orValue(''))`;
}

function fenceTokens(fence: Fence): AdmissionObject[] {
  const { suffix, parameter, subject, isEngaged } = fence;
  return validating({
    name: `fence-tokens${suffix}`,
    description: 'No new token of a stopped automation.',
    rules: [rule(resources.serviceAccounts, ['CREATE'], 'token')],
    parameter,
    conditions: { engaged: isEngaged, mine: `request.name == ${subject}` },
    validations: [refuse(fence)],
  });
}

/** A Secret of this type is answered with a token that never expires. */
function fenceTokenSecrets(fence: Fence): AdmissionObject[] {
  const { suffix, parameter, subject, isEngaged } = fence;
  return validating({
    name: `fence-token-secrets${suffix}`,
    description: 'No Secret that asks for a token of a stopped automation.',
    rules: [rule(resources.secrets, ['CREATE', 'UPDATE'])],
    parameter,
    conditions: {
      engaged: isEngaged,
      mine: `object.?type.orValue('') == 'kubernetes.io/service-account-token' && ${annotationOf('object', 'kubernetes.io/service-account.name')} == ${subject}`,
    },
    validations: [refuse(fence)],
  });
}
