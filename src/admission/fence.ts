import { wholeNamespaceName } from '../api/kill-switch.ts';
import { annotation, label, PROBE_NAMESPACE } from '../api/names.ts';
import { resources, type Resource } from '../api/resources.ts';
import { annotationOf, brief, isProbe, isReleasing, labelOf } from './cel.ts';
import {
  policyName,
  rule,
  validating,
  type AdmissionObject,
  type Parameter,
  type Validation,
} from './policies.ts';

/**
 * The fence stands by the KillSwitch, by the ClusterKillSwitch, and by the annotation on a Workflow, an AutomationIdentity or
 * a Namespace, which holds before any operator has latched it.
 */
export interface Fence {
  /** Of its policies' names. */
  suffix: '' | '-by-cluster' | '-by-workflow' | '-by-identity' | '-by-namespace';
  /** Engaged, or also being released; without one, the namespace itself is what is engaged. */
  parameter?: Parameter;
  /** Label of the namespaces that it looks into. */
  namespaceLabel?: string;
  /** Expression: whether it stops what runs as the ServiceAccount that an expression names. */
  covers: (serviceAccountName: string) => string;
  /** Expression: whether this parameter fences now. */
  isEngaged: string;
  /** Expression: whether the request's namespace is meant, which conditions don't see; default: yes. */
  selects?: string;
  /** Whose dry-run update this fence answers as a probe. */
  probed?: Resource;
  /** Expression: whether it answers that now; default: yes. */
  answers?: string;
  /** Expression: why, by whom, and how to get out, for a person. */
  explanation: string;
}

/** With what every refusal of the fence begins. */
const refusal = 'kill switch: ';

function explain(reason: string, by: string, wayOut: string): string {
  return `'${refusal}' + ${brief(reason)} + ' (engaged by ' + ${by} + '); to release' + ${wayOut}`;
}

/** Expression: whether a KillSwitch stops its whole namespace. */
const isWhole = `(params.spec.?wholeNamespace.orValue(false) == true)`;

const release = `'kubectl guardrails release ' + params.metadata.name + ' -n ' + params.metadata.namespace + ' --reason TEXT'`;

/** The fence of a KillSwitch, also while it is being released. */
export const killSwitchFence: Fence = {
  suffix: '',
  parameter: { kind: 'KillSwitch', matchLabels: {} },
  covers: (serviceAccountName) =>
    `(${isWhole} || params.spec.?workflow.orValue('') == ${serviceAccountName})`,
  isEngaged: `!${isReleasing}`,
  probed: resources.killSwitches,
  explanation: explain(
    'params.spec.reason',
    `params.spec.?engagedBy.orValue('unknown')`,
    `': ' + ${release}`,
  ),
};

function annotationFence(
  suffix: '-by-workflow' | '-by-identity',
  kind: 'Workflow' | 'AutomationIdentity',
  probed: Resource,
): Fence {
  return {
    suffix,
    parameter: { kind, matchLabels: { [label.engaged]: 'true' } },
    covers: (serviceAccountName) => `(params.metadata.name == ${serviceAccountName})`,
    isEngaged: 'true',
    probed,
    explanation: explain(
      annotationOf('params', annotation.killSwitch),
      annotationOf('params', annotation.killSwitchEngagedBy),
      `', remove the annotation ${annotation.killSwitch} from the ${kind}, then: ' + ${release}`,
    ),
  };
}

/**
 * Expression: whether a ClusterKillSwitch stops a namespace. Never that of the standing probe, whose
 * answers it would drown; `kube-system` is guarded by nothing.
 *
 * @param of `namespaceObject`, or `object` or `oldObject` where the request is about a Namespace
 */
export function selectedByCluster(of: string): string {
  const { spec, labels } = { spec: 'params.spec', labels: `${of}.metadata.?labels.orValue({})` };
  const isMeant = [
    `${spec}.?everything.orValue(false) == true`,
    `${labelOf(of, label.environment)} in ${spec}.?environments.orValue([])`,
    `(has(${spec}.namespaceSelector) && ${spec}.namespaceSelector.matchLabels.all(key, key in ${labels} && ${labels}[key] == ${spec}.namespaceSelector.matchLabels[key]))`,
  ].join(' || ');
  return `${of}.metadata.name != '${PROBE_NAMESPACE}' && (${isMeant})`;
}

/** Expression: whether a ClusterKillSwitch stops Workflows, which its status lists. */
const isByWorkflow = '(has(params.spec.teams) || has(params.spec.risks))';

/**
 * The fence of a ClusterKillSwitch: few stand at any time, and with none it costs nothing. Whose a
 * pod is, only a Workflow says, which would be a second parameter; so the operator writes all that
 * are meant into the one status.
 */
export const clusterFence: Fence = {
  suffix: '-by-cluster',
  parameter: { kind: 'ClusterKillSwitch', matchLabels: {} },
  covers: (serviceAccountName) =>
    `(!${isByWorkflow} || ${serviceAccountName} in params.?status.?fenced[?request.namespace].orValue([]))`,
  isEngaged: `!${isReleasing}`,
  selects: `${isByWorkflow} || (${selectedByCluster('namespaceObject')})`,
  // The answer proves the list that the API server goes by, too; without one nothing is fenced.
  answers: `(!${isByWorkflow} || (params.?status.?fenced.hasValue() && params.?status.?fenced == dyn(oldObject).?status.?fenced))`,
  probed: resources.clusterKillSwitches,
  explanation: explain(
    'params.spec.reason',
    `params.spec.?engagedBy.orValue('unknown')`,
    `': kubectl guardrails release --cluster ' + params.metadata.name + ' --reason TEXT'`,
  ),
};

const namespaceFence: Fence = {
  suffix: '-by-namespace',
  namespaceLabel: label.engaged,
  covers: () => 'true',
  // Conditions don't see the namespace; the label by which it is selected follows the annotation.
  isEngaged: 'true',
  explanation: explain(
    annotationOf('namespaceObject', annotation.killSwitch),
    annotationOf('namespaceObject', annotation.killSwitchEngagedBy),
    `', remove the annotation ${annotation.killSwitch} from the Namespace, then: kubectl guardrails release ${wholeNamespaceName} -n ' + request.namespace + ' --reason TEXT'`,
  ),
};

const fences: readonly Fence[] = [
  killSwitchFence,
  clusterFence,
  annotationFence('-by-workflow', 'Workflow', resources.workflows),
  annotationFence('-by-identity', 'AutomationIdentity', resources.automationIdentities),
  namespaceFence,
];

/** A validation that refuses whatever the conditions of its policy let through, where that is meant. */
export function refuse({ explanation, selects, probed }: Fence): Validation {
  return {
    // A probe is about the parameter itself, which is in no namespace.
    expression:
      selects === undefined
        ? 'false'
        : `request.resource.resource != '${probed?.plural ?? ''}' && !(${selects})`,
    message: `${refusal}engaged; see kubectl get ksw,awf`,
    messageExpression: explanation,
  };
}

/** No pod and no token of a stopped automation, proven on demand. */
export function fencePolicies(): AdmissionObject[] {
  return [
    ...fences.flatMap((fence) => [
      ...fencePods(fence),
      ...fenceTokens(fence),
      ...fenceTokenSecrets(fence),
    ]),
    ...fenceServiceAccounts(killSwitchFence),
    ...fenceBindings(),
  ];
}

/** The policy by whose name the API server answers a probe of the fence by KillSwitch. */
export const probePolicyName = policyName('fence-pods');

/** The policy by whose name the API server answers a probe of the fence by a Workflow's annotation. */
export const annotationProbePolicyName = policyName('fence-pods-by-workflow');

/** The policy by whose name the API server answers a probe of the fence by ClusterKillSwitch. */
export const clusterProbePolicyName = policyName('fence-pods-by-cluster');

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
  const { suffix, covers, isEngaged, probed, answers = 'true' } = fence;
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
  const startsCode = `${covers(`${spec}.?serviceAccountName.orValue('')`)} && (request.operation == 'CREATE' || ${changesCode})`;
  return validating({
    name: `fence-pods${suffix}`,
    description:
      'No new pod of a stopped automation, no new image in a pod that is left, and no gate lifted. Answers the probe of the fence by its name.',
    rules: [
      rule(resources.pods, ['CREATE', 'UPDATE']),
      rule(resources.pods, ['UPDATE'], 'ephemeralcontainers'),
      ...(probed === undefined ? [] : [rule(probed, ['UPDATE'])]),
    ],
    ...scopeOf(fence),
    conditions: {
      engaged: isEngaged,
      mine:
        probed === undefined
          ? startsCode
          : `${isPod} ? (${startsCode}) : (${isProbe} && object.metadata.name == params.metadata.name && ${answers})`,
    },
    validations: [refuse(fence)],
  });
}

/** Where a policy of this fence looks: its parameter, and the namespaces. */
function scopeOf({
  parameter,
  namespaceLabel,
}: Fence): Pick<Fence, 'parameter' | 'namespaceLabel'> {
  return {
    ...(parameter !== undefined && { parameter }),
    ...(namespaceLabel !== undefined && { namespaceLabel }),
  };
}

function images(spec: string, containers: string): string {
  return `${spec}.?${containers}.orValue([]).map(c, c.?image.orValue(''))`;
}

function fenceTokens(fence: Fence): AdmissionObject[] {
  const { suffix, covers, isEngaged } = fence;
  return validating({
    name: `fence-tokens${suffix}`,
    description: 'No new token of a stopped automation.',
    rules: [rule(resources.serviceAccounts, ['CREATE'], 'token')],
    ...scopeOf(fence),
    conditions: { engaged: isEngaged, mine: covers('request.name') },
    validations: [refuse(fence)],
  });
}

/** A Secret of this type is answered with a token that never expires. */
function fenceTokenSecrets(fence: Fence): AdmissionObject[] {
  const { suffix, covers, isEngaged } = fence;
  return validating({
    name: `fence-token-secrets${suffix}`,
    description: 'No Secret that asks for a token of a stopped automation.',
    rules: [rule(resources.secrets, ['CREATE', 'UPDATE'])],
    ...scopeOf(fence),
    conditions: {
      engaged: isEngaged,
      mine: `object.?type.orValue('') == 'kubernetes.io/service-account-token' && ${covers(annotationOf('object', 'kubernetes.io/service-account.name'))}`,
    },
    validations: [refuse(fence)],
  });
}

/** The kill deletes the ServiceAccount; whoever made another of its name would stand in the way of the release. */
function fenceServiceAccounts(fence: Fence): AdmissionObject[] {
  const { covers, isEngaged } = fence;
  return validating({
    name: 'fence-service-accounts',
    description: 'No new ServiceAccount of the name of a stopped automation.',
    rules: [rule(resources.serviceAccounts, ['CREATE'])],
    ...scopeOf(fence),
    conditions: {
      engaged: isEngaged,
      // The namespace itself goes on: its controllers put back what is no automation's.
      mine: `!${isWhole} && ${covers(`object.metadata.?name.orValue('')`)}`,
    },
    validations: [refuse(fence)],
  });
}

/**
 * A pod that waits for a node starts when it is bound to one. The request names the pod and nothing
 * of it, so that this can be refused for a whole namespace only.
 */
function fenceBindings(): AdmissionObject[] {
  return [killSwitchFence, clusterFence, namespaceFence].flatMap((fence) =>
    validating({
      name: `fence-bindings${fence.suffix}`,
      description: 'No pod of a namespace that is stopped as a whole gets a node.',
      // `bindings` is the older way to say the same.
      rules: [rule(resources.pods, ['CREATE'], 'binding'), rule(resources.bindings, ['CREATE'])],
      ...scopeOf(fence),
      conditions: {
        engaged: fence.isEngaged,
        ...(fence === killSwitchFence && { whole: isWhole }),
        ...(fence === clusterFence && { whole: `!${isByWorkflow}` }),
      },
      validations: [refuse(fence)],
    }),
  );
}
